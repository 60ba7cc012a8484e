"""Records that another program may leave where Narrowboat keeps its own: the listed ones, and what hypothesis draws.

For backends whose records are JSON: ZooKeeper and Consul. `NARROWBOAT_FUZZ_CASES` says how many are drawn for each test.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st

import narrowboat
from narrowboat.errors import Conflict

#: To explain a failure, hypothesis traces every line of every try: it takes longer than a test may.
DRAWN = settings(
    max_examples=int(os.environ.get("NARROWBOAT_FUZZ_CASES", "200")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    phases=set(Phase) - {Phase.explain},
    database=None,
)

#: What both backends would write, but for the name.
_SOUND: dict[str, object] = {"name": "a", "label": "theirs", "at": 1.5, "since": 1.5}
_SOUND |= {"owner": "theirs", "mode": "exclusive", "limit": None, "owners": []}

#: Another type, cut-off text, fields missing, numbers out of range, depth, no text at all.
DAMAGED: tuple[bytes, ...] = (
    b"",
    b"\x00\xff\xfe",
    b"null",
    b"7",
    b"{}",
    b"[]",
    b'"lock"',
    b"[" * 100_000,
    b'{"name":' * 20_000,
    json.dumps(_SOUND).encode()[:-9],
    b'{"name":"a","label":"b","at":' + b"9" * 400 + b"}",
    b'{"name":"a","label":"b","at":1e400}',
    b'{"name":"a","label":"b","at":NaN}',
    b'{"name":"a","label":"\\ud800","at":1}',
    json.dumps(_SOUND | {"since": 10**400, "at": 10**400}).encode(),
    json.dumps(_SOUND | {"mode": "mine", "at": "x"}).encode(),
    json.dumps(_SOUND | {"mode": ["exclusive"], "at": []}).encode(),
    json.dumps(_SOUND | {"owner": {"a": 1}, "at": True}).encode(),
    json.dumps(_SOUND | {"owners": [["a"]], "label": {}}).encode(),
    json.dumps(_SOUND | {"limit": "three", "label": 5}).encode(),
    json.dumps(_SOUND | {"name": 7}).encode(),
)

_values: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=10**300, max_value=10**400)
    | st.floats()
    | st.text(st.characters(), max_size=20)
    | st.sampled_from(["exclusive", "shared", "semaphore", "", "theirs"]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)


@st.composite
def _mutated(draw: st.DrawFn) -> bytes:
    """A record of ours with some fields exchanged, added or gone, and perhaps cut off."""
    said = dict(_SOUND)
    for field in draw(st.lists(st.sampled_from([*_SOUND, "granted", "more"]), max_size=4)):
        if draw(st.booleans()):
            said[field] = draw(_values)
        else:
            said.pop(field, None)
    text = json.dumps(said).encode()
    return text[: draw(st.integers(0, len(text)))] if draw(st.booleans()) else text


@st.composite
def _deep(draw: st.DrawFn) -> bytes:
    return draw(st.sampled_from([b"[", b'{"a":', b'[{"owners":'])) * draw(
        st.integers(1, 40_000)
    )  # Consul takes half a megabyte


#: Any bytes that somebody may have left.
records: st.SearchStrategy[bytes] = st.one_of(
    st.binary(max_size=300),
    st.integers(0, len(DAMAGED) - 1).map(DAMAGED.__getitem__),  # by number: a report shall not quote them all
    _values.map(lambda value: json.dumps(value).encode()),
    _mutated(),
    _deep(),
)


#: How a lock may be asked for.
terms: st.SearchStrategy[dict[str, Any]] = st.sampled_from([{}, {"mode": "shared"}, {"limit": 1}, {"limit": 2}])


def costs_its_own_name_alone(locks: narrowboat.Locks, name: str, foreign: set[int], asked: dict[str, Any]) -> bool:
    """Whether `name` is refused. What is `foreign` in it, by its tokens, is shown and can be removed; no other name notices."""
    with locks.lock(f"beside-{name}", timeout=5) as beside:
        found = refused(locks, name, **asked)
        shown = {(holder.name, holder.token, holder.foreign) for holder in locks.holders(name)}
        assert shown == {(name, token, True) for token in foreign}
        everything = locks.holders()
        assert [holder.token for holder in everything if not holder.foreign] == [beside.token]
        assert {holder.token for holder in everything if holder.foreign} == foreign
        for token in foreign:
            assert locks.evict(name, token)
            assert not locks.evict(name, token)
        beside.check()
    assert locks.holders() == []
    locks.lock(name, timeout=5).acquire().release()
    return found


def refused(locks: narrowboat.Locks, name: str, **terms: Any) -> bool:
    """Whether a wait and a try for `name` are refused, both; otherwise both are granted, and given back."""
    lock = locks.lock(name, **terms)
    return _refused(lambda: lock.acquire(timeout=5), name) & _refused(lock.try_acquire, name)


def _refused(take: Callable[[], narrowboat.Held | None], name: str) -> bool:
    try:
        held = take()
    except Conflict as error:
        found = error
    else:
        assert held is not None, "it is said to be busy, and nobody will ever release it"
        held.release()
        return False
    assert name in str(found)
    assert not found.retryable
    return True
