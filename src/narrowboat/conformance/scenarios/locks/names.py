"""Locks: names and namespaces."""

from __future__ import annotations

import unicodedata

from narrowboat.conformance.checks.expect import raises
from narrowboat.conformance.lock_kit import LockKit
from narrowboat.conformance.scenario import scenario
from narrowboat.errors import InvalidArgument

#: Names that a backend's own syntax, or an escape, might not tell apart. Each differs from every other.
PECULIAR = (
    "a", "A", "a ", " a", "a.", ".", "..", "a/", "/a", "/", "//", "a/b", "a//b", "a\\b", "\\", "a%2Fb", "a%2fb", "a%252Fb",
    "a:b", "a::b", "a;b", "a,b", "a-b", "a_b", "a+b", "a=b", "a&b", "a?b", "a#b", "a*b", "*", "a|b", "a@b", "a$b", "$", "%",
    "{a}", "{a}b", "[a]", "(a)", "<a>", "'a'", '"a"', "`a`", "~a", "!a", "a^b",
    "%00", "\u00e9", "e\u0301", "\u212b", "\u00c5", "\u0130", "i", "I", "\u0131", "\u00df", "ss", "SS", "\U0001f6a4",
    "\u6c34\u9580", "\u202ea", "a\u200b", "a\u00a0b", "a\u3000b",
    "null", "None", "0", "00", "-1", "holders", "lock", "queue", "count", "x" * 255, "x" * 256,
    "x" * 999, "x" * 1000, "x" * 999 + "y", "\U0001f6a4" * 1000, "\U0001f6a4" * 999 + "\U0001f6a5",
)  # fmt: skip


@scenario("L105")
async def any_text_is_a_name(kit: LockKit) -> None:
    """Every text without control characters is a name that works and is shown as it is; any other name is refused unsent."""
    locks = kit.locks()
    for name in ("", "x" * 1001, "a\nb", "a\x00", "\x1b[2J", "\x7f", "a\x85b", "\ud800", b"a", None, 7, ["a"]):
        with raises(InvalidArgument, what=f"a lock of the name {name!r}"):
            locks.lock(name)  # type: ignore[arg-type]  # wrong on purpose
    assert not kit.seen.calls, f"the driver was used: {dict(kit.seen.calls)}"
    for name in PECULIAR:
        held = await locks.lock(name).acquire(timeout=5)
        assert held.name == name
        assert await kit.outside.lock(name).try_acquire() is None, f"{name!r} is held, and another got it"
        if kit.can("holders"):
            assert [holder.name for holder in await kit.peek(name)] == [name]
        await kit.lets_go(held)


@scenario("L106")
async def no_two_names_meet(kit: LockKit) -> None:
    """Names that look alike, or that an escape or a hash might confuse, are independent locks, all held at once."""
    assert len(set(PECULIAR)) == len(PECULIAR)
    assert any(unicodedata.normalize("NFC", name) in set(PECULIAR) - {name} for name in PECULIAR), "the list is too tame"
    locks = kit.locks()
    held = {}
    for name in PECULIAR:
        got = await locks.lock(name, ttl=60).try_acquire()
        assert got is not None, f"nobody holds {name!r}, and a try found it busy"
        held[name] = got
    if kit.can("holders"):
        shown = [holder.name for holder in await kit.outside.holders()]
        assert sorted(shown) == sorted(PECULIAR), f"holders() does not show as they are: {set(shown) ^ set(PECULIAR)}"
    gone = PECULIAR[::2]
    for name in gone:
        await held.pop(name).release()
    for name, possession in held.items():
        possession.check()
        assert not await kit.free(name), f"{name!r} was freed by the release of another name"
    for name in gone:
        assert await kit.free(name), f"{name!r} is still held, by another name"


@scenario("L107")
async def namespaces_do_not_meet(kit: LockKit) -> None:
    """One name is an independent lock in each namespace, even where namespaces begin alike; none sees the others' holders."""
    here = kit.namespace
    spaces = [here, f"{here}x", f"{here}-a", f"{here}.a", f"{here}_a", f"{here}:a", f"{here.upper()}"]
    names = ["n", "a-n", "a.n", "a_n", "a:n", "xn", "a/n", "-a", "a"]
    faces = {space: kit.locks(url=kit.harness.locks_url(space)) for space in dict.fromkeys(spaces)}
    held = []
    for space, locks in faces.items():
        for name in names:
            got = await locks.lock(name, ttl=60).try_acquire()
            assert got is not None, f"nobody holds {name!r} in the namespace {space!r}, and a try found it busy"
            held.append(got)
    for locks in faces.values():
        if kit.can("holders"):
            assert sorted(holder.name for holder in await locks.holders()) == sorted(names)
    assert not await kit.free("n")
    for possession in held:
        await possession.release()
    assert await kit.free("n")
    assert await kit.blocking(kit.harness.residue, here) in (0, None), "the backend keeps something after the releases"
