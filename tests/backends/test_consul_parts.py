"""What of the Consul backend needs no server: its HTTP, its keys, its decisions, its URL, its errors."""

from __future__ import annotations

import dataclasses
import socket
import ssl
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

import narrowboat
from narrowboat.contract.locks import Mode, Request
from narrowboat.dsn import Url, parse_options
from narrowboat.errors import AccessDenied, ConfigurationError, NotFound, Unavailable, Unsupported
from narrowboat_consul import http, steps, transport, watcher
from narrowboat_consul.entries import FLAGS, Entry, Record, State, read
from narrowboat_consul.errors import refused, translate
from narrowboat_consul.http import Reply
from narrowboat_consul.keys import Space, encode
from narrowboat_consul.locks import locks
from narrowboat_consul.options import Agent, Options

SESSION, OTHER = "session-of-ours", "session-of-another"


# -- HTTP ---------------------------------------------------------------------------------------------------------------

bodies = st.binary(max_size=300)


def parse(data: bytes, *, ended: bool = False) -> Reply | None:
    """The reply in `data`; `ended`: the agent has closed the connection behind it."""
    incoming = http.Incoming(2**31)
    reply = incoming.take(bytes(data)) if data else None
    return incoming.take(b"") if reply is None and ended else reply


@st.composite
def replies(draw: st.DrawFn) -> tuple[bytes, bytes] | None:
    """A reply as an agent may send it, and its body."""
    body = draw(bodies)
    head = b"HTTP/1.1 200 OK\r\nX-Consul-Index: 7\r\n"
    if draw(st.booleans()):
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body, body
    data, rest = head + b"Transfer-Encoding: chunked\r\n\r\n", body
    while rest:
        size = draw(st.integers(1, len(rest)))
        data += b"%x\r\n" % size + rest[:size] + b"\r\n"
        rest = rest[size:]
    return data + b"0\r\n\r\n", body


@given(replies())
def test_a_reply_is_complete_at_its_last_byte_and_never_before(reply: tuple[bytes, bytes]) -> None:
    """Whatever pieces it arrives in."""
    data, body = reply
    for length in range(len(data)):
        assert parse(data[:length]) is None

    parsed = parse(data)
    assert parsed is not None
    assert (parsed.code, parsed.body, parsed.keep, parsed.headers["x-consul-index"]) == (200, body, True, "7")


@given(st.binary(max_size=60))
def test_what_is_no_http_is_said_to_be_none(data: bytes) -> None:
    """Never anything but an answer, a wish for more, or `Malformed`."""
    try:
        parse(data)
    except http.Malformed:
        pass


@pytest.mark.parametrize(
    "data",
    [
        b"+PONG\r\n",
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    ],
)
def test_nonsense_is_refused_at_once(data: bytes) -> None:
    """Nobody waits for the rest of what makes no sense."""
    with pytest.raises(http.Malformed):
        parse(data)


def test_a_reply_that_was_cut_off_is_none() -> None:
    """Its end tells, and only one without a length may end so."""
    with pytest.raises(http.Malformed):
        parse(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc", ended=True)
    parsed = parse(b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request", ended=True)
    assert parsed is not None
    assert (parsed.code, parsed.keep) == (400, False)


# -- keys -----------------------------------------------------------------------------------------------------------------

texts = st.text(min_size=1, max_size=200)


@given(st.lists(texts, unique=True, min_size=2, max_size=20))
def test_two_names_never_share_a_key(names: list[str]) -> None:
    """Nor do their folders lie in each other."""
    folders = [Space("root", "").of(name).folder for name in names]
    assert len(set(folders)) == len(names)
    assert not any(a != b and a.startswith(b) for a in folders for b in folders)


@given(texts, texts)
def test_namespaces_never_meet(prefix: str, name: str) -> None:
    """And a key has only characters that Consul takes."""
    keys = Space("narrowboat", prefix).of(name)
    assert not keys.folder.startswith(Space("narrowboat", "").folder)
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_/")
    assert set(keys.lock) <= allowed
    assert len(keys.held("0123456789abcdef" * 2 + "-ffff").encode()) <= 512


def test_a_plain_name_can_be_read_in_its_key() -> None:
    """For people who look with Consul's own tools."""
    assert encode("invoice-42") == "-invoice-42"
    assert encode("a" * 1000).startswith("h-")


# -- decisions ------------------------------------------------------------------------------------------------------------

KEYS = Space("root", "").of("a")
owners = st.sampled_from(["me", "you", "her", "him"])
sessions = st.sampled_from([SESSION, OTHER])


def entry(
    key: str,
    owner: str,
    index: int,
    session: str | None,
    mode: Mode,
    limit: int | None = None,
    owners: list[str] | tuple[()] = (),
) -> Entry:
    record = Record("a", owner, mode, limit, "label", 1.0, tuple(owners))
    return Entry(key, index, session, record)


@st.composite
def states(draw: st.DrawFn) -> State | None:
    """What the store can look like: free, held by one, or shared by some of whom some have died; with writers waiting."""
    kind = draw(st.sampled_from(["free", "exclusive", "shared", "semaphore"]))
    index = st.integers(1, 1000)
    state = State()
    if kind == "exclusive":
        state.lock = entry(KEYS.lock, draw(owners), draw(index), draw(sessions), Mode.EXCLUSIVE)
    elif kind != "free":
        mode, limit = (Mode.SHARED, None) if kind == "shared" else (Mode.SEMAPHORE, draw(st.integers(1, 4)))
        listed = draw(st.lists(owners, unique=True, min_size=1, max_size=limit or 4))
        state.lock = entry(KEYS.lock, "", draw(index), None, mode, limit, listed)
        for owner in draw(st.lists(st.sampled_from(listed), unique=True)):
            state.held[owner] = entry(
                KEYS.held(owner), owner, draw(index), draw(st.sampled_from([SESSION, OTHER])), mode, limit
            )
        if kind == "shared":
            for owner in draw(st.lists(owners, unique=True, max_size=2)):
                state.wants[owner] = entry(KEYS.wants(owner), owner, draw(index), OTHER, Mode.EXCLUSIVE)
    return state


@st.composite
def requests(draw: st.DrawFn) -> Request:
    """What anybody may ask for."""
    mode = draw(st.sampled_from(list(Mode)))
    limit = draw(st.integers(1, 4)) if mode is Mode.SEMAPHORE else None
    return Request("a", draw(owners), 30.0, mode, limit, draw(st.booleans()), lambda: None, "label")


def holders(state: State) -> tuple[Any, ...]:
    """Who holds it as the store says: mode, limit and owners."""
    if state.lock is None:
        return None, None, []
    record = state.lock.record
    return (record.mode, record.limit, [record.owner]) if state.lock.session else (record.mode, record.limit, state.sharers)


@given(requests(), states())
def test_a_step_is_taken_only_where_it_excludes_nobody(request: Request, state: State) -> None:
    """Safety: never beside an exclusive holder, never beyond a semaphore's size, never mixed; no wait for nothing."""
    mode, limit, present = holders(state)
    decided = steps.take(request, KEYS, state, SESSION, 1.0)

    if isinstance(decided, steps.Do):
        others = [owner for owner in present if owner != request.owner]
        if request.mode is Mode.EXCLUSIVE:
            assert present == []
        elif others:
            assert (mode, limit) == (request.mode, request.limit)
        if request.mode is Mode.SEMAPHORE:
            assert request.limit is not None
            assert len(present) < request.limit
    elif isinstance(decided, steps.Won):
        assert request.owner in present
    elif isinstance(decided, steps.Wait):
        assert present or state.wants
        assert not decided.announce or (request.wait and request.mode is Mode.EXCLUSIVE)


@given(requests(), states())
def test_every_step_checks_what_it_stands_on(request: Request, state: State) -> None:
    """Each write is guarded, so that a change in between is refused and not overwritten."""
    decided = steps.take(request, KEYS, state, SESSION, 1.0)
    operations = decided.operations if isinstance(decided, steps.Do) else getattr(decided, "announce", [])
    absent = set()
    for member in (operation["KV"] for operation in operations):
        if member["Verb"] == "check-not-exists":
            absent.add(member["Key"])
        elif member["Verb"] == "lock":
            assert member["Key"] in absent
            assert member["Session"] == SESSION
        else:
            assert member["Verb"] in ("cas", "delete-cas")
            expected = {e.key: e.index for e in [state.lock, *state.held.values(), *state.wants.values()] if e}
            assert member["Index"] == expected.get(member["Key"], 0)


@given(owners, states(), st.one_of(st.none(), st.integers(1, 1000)))
def test_leaving_touches_only_what_is_ones_own(owner: str, state: State, token: int | None) -> None:
    """Another's entry is never deleted, and with a token no other generation of our own."""
    operations = [operation["KV"] for operation in steps.free(owner, token, state)]
    mine = {KEYS.held(owner), KEYS.wants(owner)}
    if state.lock and state.lock.session and state.lock.record.owner == owner:
        mine.add(KEYS.lock)
    for number, member in enumerate(operations):
        if member["Verb"] == "delete":
            assert member["Key"] in mine
            guard = operations[number - 1]
            assert (guard["Verb"], guard["Key"]) == ("check-index", member["Key"])
            assert token in (None, guard["Index"])
        elif member["Verb"] in ("cas", "delete-cas"):
            assert member["Key"] == KEYS.lock
            assert state.lock is not None
            assert state.lock.session is None
    if token is None and owner in state.wants:
        assert KEYS.wants(owner) in {member["Key"] for member in operations}
    if token is None:
        assert bool(operations) is (owner in state.owners), "who is to be looked for is not who can leave"


@given(requests(), st.floats(0, 2e9), st.lists(owners, unique=True))
def test_a_record_is_read_as_it_was_written(request: Request, since: float, listed: list[str]) -> None:
    """Also from an entry as Consul returns it."""
    record = Record.of(request, since, tuple(listed))
    session = None if listed else SESSION  # that of those who share has none
    data = {"Key": KEYS.lock, "ModifyIndex": 5, "Session": session, "Flags": FLAGS, "Value": record.pack()}
    assert Entry.of(data) == Entry(KEYS.lock, 5, session, record)
    assert read([Entry.of(data)], KEYS).lock == Entry.of(data)
    assert Entry.of(data | {"Flags": 0}).record is None


@pytest.mark.parametrize("value", [None, "", "bm8=", "e30=", "W10=", "not base64"])
def test_what_another_program_wrote_is_known_as_such(value: str | None) -> None:
    """It is in the way, which is said, and it is never overwritten."""
    foreign = Entry.of({"Key": KEYS.lock, "ModifyIndex": 5, "Flags": FLAGS, "Value": value})
    assert foreign.record is None
    request = Request("a", "me", 30.0, Mode.EXCLUSIVE, None, True, lambda: None, "label")
    decided = steps.take(request, KEYS, State(lock=foreign), SESSION, 1.0)
    assert isinstance(decided, steps.Refuse)
    assert KEYS.lock in decided.text


# -- the URL --------------------------------------------------------------------------------------------------------------


def agent(text: str, **given_: Any) -> Agent:
    url = Url.parse(text)
    return Agent.of(url, parse_options(url, Options, given_))


def test_what_a_url_says() -> None:
    """The token is shown nowhere."""
    found = agent("consuls://:s3cret@agent/shop/eu?dc=d1&session_ttl=15")
    assert (str(found.hosts[0]), found.tls, found.root) == ("agent:8501", True, "shop/eu")
    assert found.token is not None
    assert found.token.reveal() == "s3cret"
    assert "s3cret" not in f"{found} {found!r} {found.options!r}"
    assert agent("consul://").hosts[0].host == "127.0.0.1"


def test_a_host_of_other_letters_is_named_to_the_agent_as_a_resolver_is_asked_for_it() -> None:
    """A header takes bytes of ASCII."""
    for host, sent in (("%E6%97%A5%E6%9C%AC.example", b"xn--wgv71a.example:8500"), ("[fe80::1%25e0]", b"[fe80::1%e0]:8500")):
        made = transport.Transport(agent(f"consul://{host}"), transport.Limit(1.0, transport.Silence()))
        assert b"\r\nHost: " + sent + b"\r\n" in made.request("GET", "/v1/status/leader")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("consul+x://a", r"consul\+x://: there is only one driver"),
        ("consul://a,b", "one host, and this URL gives 2. Each machine talks to its own agent"),
        ("consul://user:t@a", "no user name"),
        ("consul://:a@h?token=b", "given twice"),
        ("consul://a/x//y", "empty"),
        ("consul://a/../y", "plain folder"),
        ("consul://a?session_ttl=5", "10 to 86400"),
        ("consul://a?lock_delay=61", "0 to 60"),
        ("consul://a?session_ttl=soon", "whole number"),
        ("consul://a?sesion_ttl=10", "Did you mean 'session_ttl'"),
    ],
)
def test_a_url_that_makes_no_sense_is_refused_before_anything_is_sent(text: str, said: str) -> None:
    """Each names what is wrong, and what to write."""
    with pytest.raises(ConfigurationError, match=said):
        narrowboat.locks(text)


@pytest.mark.parametrize("text", ["tok€n", "t\u00f6k", "tok\r\nX-Evil: yes", "token\n", "to ken", "t\x00k", "t\x7fk"])
def test_a_token_that_no_header_takes_is_refused_and_shown_nowhere(text: str) -> None:
    """Before anything is sent: in a header it would break each request, or become another header."""
    quoted = quote(text, safe="")
    for url in (f"consul://:{quoted}@h", f"consul://h?token={quoted}", f"consul://h?namespace={quoted}"):
        with pytest.raises(ConfigurationError, match="printable ASCII") as caught:
            narrowboat.locks(url)
        shown = f"{caught.value} {caught.value!r} {caught.value.__cause__!r} {caught.value.__context__!r}"
        assert text not in shown
        assert quoted not in shown


def test_the_bound_follows_the_session() -> None:
    """Twice its ttl and the lock-delay; a shorter `ttl` is refused with the explanation."""
    url = Url.parse("consul://a?session_ttl=20&lock_delay=5")
    claims = locks.capabilities(url, parse_options(url, Options, {}))
    assert claims.ttl_min == 45
    with narrowboat.locks("consul://127.0.0.1:1") as face, pytest.raises(Unsupported, match="up to 20 s"):
        face.lock("a", ttl=19)


# -- errors ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "text", "kind", "said"),
    [
        (403, "Permission denied: token lacks 'key:write'", AccessDenied, "session:write"),
        (500, "rpc error: Permission denied", AccessDenied, "ACL token"),
        (429, "", Unavailable, "429"),
        (500, "No cluster leader", Unavailable, "no leader"),
        (500, "No path to datacenter", ConfigurationError, r"\?dc="),
        (500, "Invalid Session TTL '3', must be between [10s=24h0m0s]", ConfigurationError, "session_ttl"),
        (400, "Client sent an HTTP request to an HTTPS server.", ConfigurationError, "consuls://"),
        (400, "Bad", ConfigurationError, "refused the request"),
        (404, "", NotFound, "404"),
        (502, "oops", Unavailable, "502"),
    ],
)
def test_a_refusal_is_told_with_what_to_do(code: int, text: str, kind: Any, said: str) -> None:
    """One typed error each."""
    error = refused(code, text, agent("consul://:s3cret@a?dc=x"))
    assert isinstance(error, kind)
    assert error.retryable == (kind is Unavailable)
    with pytest.raises(kind, match=said):
        raise error
    assert "s3cret" not in str(error)


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (TimeoutError("timed out"), Unavailable, "within 2 s"),
        (ConnectionRefusedError(111, "refused"), Unavailable, "runs and listens"),
        (socket.gaierror(-2, "unknown"), Unavailable, "could not be reached"),
        (ssl.SSLError(1, "WRONG_VERSION_NUMBER"), ConfigurationError, "plain port takes consul://"),
        (ssl.SSLCertVerificationError(1, "self-signed"), ConfigurationError, r"\?ca="),
        (http.Malformed("expected HTTP"), Unavailable, "8500"),
    ],
)
def test_the_network_s_errors_are_told_with_what_to_do(
    error: Any, kind: type[ConfigurationError] | type[Unavailable], said: str
) -> None:
    """And whether trying again can help."""
    if isinstance(error, ssl.SSLCertVerificationError):
        error.verify_message = "self-signed"
    with pytest.raises(kind, match=said):
        raise translate(error, agent("consul://a"), 2.0)


def test_no_agent_is_one_error_within_the_time_limit(tmp_path: Path) -> None:
    """And files of TLS that are none are named."""
    with narrowboat.locks("consul://127.0.0.1:1?timeout=2") as face, pytest.raises(Unavailable, match="127.0.0.1:1"):
        face.lock("a").acquire(timeout=1)
    nonsense = tmp_path / "ca.pem"
    nonsense.write_text("no certificate")
    with narrowboat.locks(f"consuls://127.0.0.1:1?ca={nonsense}") as face, pytest.raises(ConfigurationError, match=r"ca\.pem"):
        face.ping()


def test_options_are_all_documented() -> None:
    """A field without a default would make a URL without it fail."""
    assert all(field.default is not dataclasses.MISSING for field in dataclasses.fields(Options))


@pytest.mark.parametrize("text", ["", "²", "-1", "1.5", "9" * 5000, "x", "١"])
def test_an_index_that_is_none_says_nothing(text: str) -> None:
    """The query is sent again later; the thread that reads it goes on."""
    assert watcher._index(http.Reply(200, {"x-consul-index": text}, b"", True)) is None


@pytest.mark.parametrize("body", [b"", b"null", b"[" * 100_000, b'{"Results":[{"KV":7}]}', b'{"Results":{"a":1}}', b"\xff"])
def test_a_batched_read_without_sense_wakes_nobody(body: bytes) -> None:
    """And raises nothing on the thread of all who wait."""
    address = agent("consul://127.0.0.1:1")
    seen = watcher.Watcher(transport.Transport(address, transport.Limit(1.0, transport.Silence())), lambda: 0.0)
    watch = watcher.Watch(KEYS, 3)
    watch.wakes["me"] = lambda: pytest.fail("woken")
    seen._read([watch], http.Reply(200, {}, body, True))
    assert watch.index == 3
    seen.close()
