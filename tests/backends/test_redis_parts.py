"""The parts of the Redis backend that need no server: what its URL means, its protocol, its keys, its errors."""

from __future__ import annotations

import itertools
import pickle
import socket
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import narrowboat
from narrowboat.capabilities import Survives
from narrowboat.driver.endpoint import HostPort
from narrowboat.driver.versions import numbers
from narrowboat.dsn import Secret, Url, parse_options
from narrowboat.errors import AccessDenied, ConfigurationError, Conflict, NarrowboatError, Unavailable
from narrowboat_redis.endpoint import Deployment, RedisEndpoint
from narrowboat_redis.errors import OLDEST, code_of, too_old, translate
from narrowboat_redis.names import SHARDS, Keys
from narrowboat_redis.nodes import slot_of
from narrowboat_redis.options import Common, Options, tag
from narrowboat_redis.resp import ErrorReply, NotRedis, ProtocolError, Reader, pack
from narrowboat_redis.scripts import command, script


def endpoint(text: str, **given: Any) -> RedisEndpoint:
    url = Url.parse(text)
    return RedisEndpoint.of(url, parse_options(url, Options, given))


# -- the URL ------------------------------------------------------------------------------------------------------------


def test_a_url_without_anything_is_the_local_server() -> None:
    found = endpoint("redis://")
    assert (found.deployment, found.hosts, found.number, found.tls) == (
        Deployment.SINGLE,
        (HostPort("localhost", 6379),),
        0,
        False,
    )


def test_a_url_with_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("ca.pem", "me.pem", "me.key"):
        (tmp_path / name).touch()
    found = endpoint("rediss://shop:p%40ss@[::1]:7000/3?ca=ca.pem&cert=me.pem&key=me.key&verify=ca")
    assert found.hosts == (HostPort("::1", 7000),)
    assert (found.user, found.secret.reveal(), found.number, found.tls) == ("shop", "p@ss", 3, True)
    assert str(found) == "Redis at [::1]:7000"


def test_sentinels_take_a_service_and_a_database() -> None:
    found = endpoint("redis+sentinel://:pw@a,b:26380/main/2?sentinel_username=eye&sentinel_password=spw")
    assert found.deployment is Deployment.SENTINEL
    assert found.hosts == (HostPort("a", 26379), HostPort("b", 26380))
    assert (found.service, found.number, found.options.sentinel_password) == ("main", 2, Secret("spw"))


def test_a_cluster_is_known_by_some_of_its_nodes() -> None:
    found = endpoint("rediss+cluster://a:7000,b:7001")
    assert (found.deployment, found.tls, len(found.hosts)) == (Deployment.CLUSTER, True, 2)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("redis+clutser://a", "redis+cluster"),
        ("redis+unix:///tmp/s", "redis+sentinel"),
        ("redis://a,b", "redis+cluster://a,b,c"),
        ("redis://a/zero", "no database"),
        ("redis://a/-1", "no database"),
        ("redis://a/99999", "no database"),
        ("redis+sentinel://a:26379", "name of the service"),
        ("redis+sentinel://a/main/x", "no database"),
        ("redis+cluster://a/1", "database 0 only"),
        ("redis://a?ca=x.pem", "rediss://"),
        ("redis://a?verify=none", "rediss://"),
        ("rediss://a?key=x.pem", "without cert"),
        ("rediss://a?verify=half", "full, ca, none"),
        ("redis://a?wait=17", "0 to 16"),
        ("redis://a?wait=-1", "0 to 16"),
        ("redis://a?wiat=1", "'wait'"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_is_sent(text: str, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "socket", None)  # whoever tries to connect fails otherwise
    with pytest.raises(ConfigurationError, match=".*") as caught:
        narrowboat.locks(text)
    assert says in str(caught.value)


VALKEY = [
    ("valkey+clutser://a", "valkey+cluster"),
    ("valkey://a,b", "valkey+cluster://a,b,c"),
    ("valkeys+sentinel://a:26379", "valkeys+sentinel://host"),
    ("valkey://a?ca=x.pem", "valkeys://"),
    ("valkeys+cluster://a/1", "database 0 only"),
    ("valkeys://a?wait=17", "0 to 16"),
]


@pytest.mark.parametrize(("text", "says"), VALKEY)
@pytest.mark.parametrize("open_", [narrowboat.locks, narrowboat.broker], ids=["locks", "broker"])
def test_valkey_is_the_same_and_is_called_so(open_: Any, text: str, says: str) -> None:
    if open_ is narrowboat.broker and "wait" in text:
        text, says = text.replace("wait=17", "max_reply=1"), "max_reply"
    with pytest.raises(ConfigurationError) as caught:
        open_(text)
    assert says in str(caught.value)
    assert "redis" not in str(caught.value).lower()
    assert caught.value.backend == Url.parse(text).scheme


def test_a_valkey_url_says_what_a_redis_url_says() -> None:
    for text in ("redis://shop:pw@a:7000/3", "rediss+sentinel://a,b/main/2", "redis+cluster://a:7000,b"):
        redis, valkey = endpoint(text), endpoint(text.replace("redis", "valkey"))
        assert str(valkey) == str(redis).replace("Redis", "Valkey") != str(redis)
        assert (valkey.hosts, valkey.tls, valkey.deployment, valkey.number) == (
            redis.hosts,
            redis.tls,
            redis.deployment,
            redis.number,
        )


@pytest.mark.parametrize(
    "met",
    [
        ErrorReply("READONLY You can't write against a read only replica."),
        ErrorReply("CROSSSLOT Keys in request don't hash to the same slot"),
        ErrorReply("ERR This instance has cluster support disabled"),
        NotRedis("expected a reply, found b'HTTP'"),
        ConnectionResetError("the connection was closed by the server"),
        TimeoutError("timed out"),
    ],
)
def test_what_goes_wrong_is_said_in_the_words_of_the_url(met: BaseException) -> None:
    for scheme in ("valkey", "valkeys"):
        error = translate(met, endpoint(f"{scheme}://host"), doing="a ping")
        assert "redis" not in str(error).lower()
        assert error.backend == scheme


@pytest.mark.parametrize(
    ("text", "survives"),
    [
        ("redis://a", Survives.NOTHING),
        ("redis://a?wait=1", Survives.NOTHING),
        ("redis://a?durability=aof", Survives.CRASH),
        ("redis://a?durability=fsync", Survives.POWER),
        ("redis+sentinel://a/main?durability=aof", Survives.CRASH),
        ("redis+sentinel://a/main?wait=1", Survives.NOTHING),
        ("redis+sentinel://a/main?durability=aof&wait=1", Survives.NODE),
        ("redis+cluster://a?durability=fsync&wait=2", Survives.NODE),
    ],
)
def test_what_a_lock_survives_is_what_the_url_says_of_the_server(text: str, survives: Survives) -> None:
    assert narrowboat.locks(text).capabilities.survives is survives


def test_what_is_not_claimed_can_not_be_demanded() -> None:
    with pytest.raises(NarrowboatError, match="survives"):
        narrowboat.locks("redis://a", require="survives=crash")


def test_no_client_library_is_needed() -> None:
    """Nor any module that only some programs need: TLS and asyncio are imported by those that use them."""
    program = (
        "import sys, narrowboat_redis as ours; from narrowboat.dsn import Url; "
        "[half.capabilities(Url.parse('redis://a'), half.options()) for half in (ours.locks, ours.broker)]; "
        "sys.exit(bool({'redis', 'ssl', 'asyncio'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_no_secret_is_shown() -> None:
    found = endpoint("redis+sentinel://u:geheim@a/main?sentinel_password=auch")
    assert "geheim" not in repr(found) + str(found)
    assert "auch" not in repr(found)


# -- the protocol ---------------------------------------------------------------------------------------------------------

Reply = int | bytes | list[Any] | None

REPLIES: st.SearchStrategy[Reply] = st.recursive(
    st.none() | st.integers(-(2**62), 2**62) | st.binary(max_size=40), lambda inner: st.lists(inner, max_size=5), max_leaves=20
)


def encoded(value: Reply) -> bytes:
    if value is None:
        return b"$-1\r\n"
    if isinstance(value, int):
        return b":%d\r\n" % value
    if isinstance(value, bytes):
        return b"$%d\r\n%b\r\n" % (len(value), value)
    return b"*%d\r\n" % len(value) + b"".join(map(encoded, value))


@given(st.lists(REPLIES, min_size=1, max_size=5), st.lists(st.integers(1, 30), min_size=1))
def test_replies_are_read_however_they_are_cut(values: list[Reply], sizes: list[int]) -> None:
    data = b"".join(map(encoded, values))
    replies: list[Any] = []
    reader = Reader()
    for size in itertools.cycle(sizes):
        reader.feed(data[:size])
        data = data[size:]
        if reader.take(replies, len(values)):
            break
    assert replies == values
    assert data == b""


def test_an_error_reply_is_a_value() -> None:
    replies: list[Any] = []
    reader = Reader()
    reader.feed(b"+OK\r\n-NOSCRIPT No matching script.\r\n*-1\r\n*0\r\n")
    assert reader.take(replies, 4)
    assert replies[0] == b"OK"
    assert (replies[1].code, replies[1].text) == ("NOSCRIPT", "NOSCRIPT No matching script.")
    assert replies[2:] == [None, []]


@pytest.mark.parametrize("data", [b"HTTP/1.1 400 Bad Request\r\n", b"$abc\r\n", b"\x15\x03\x01\x00\x02\x02\x16\r\n"])
def test_what_is_no_redis_is_told(data: bytes) -> None:
    reader = Reader()
    reader.feed(data)
    with pytest.raises(ProtocolError):
        reader.take([], 1)


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=5))
def test_a_command_is_an_array_of_its_arguments(arguments: list[bytes]) -> None:
    replies: list[Any] = []
    reader = Reader()
    reader.feed(pack(*arguments))
    assert reader.take(replies, 1)
    assert replies == [arguments]
    assert command(b"k", *arguments).data == pack(*arguments)


def test_a_script_is_called_by_its_hash() -> None:
    one = script("locks.lua", "renew.lua")
    replies: list[Any] = []
    reader = Reader()
    reader.feed(one([b"k1", b"k2"], [b"a"]).data)
    assert reader.take(replies, 1)
    assert replies == [[b"EVALSHA", one.sha, b"2", b"k1", b"k2", b"a"]]
    assert script("locks.lua", "renew.lua") is one


# -- the keys ---------------------------------------------------------------------------------------------------------------

NAMES = st.text(min_size=1, max_size=60).filter(lambda text: text.isprintable())


@given(NAMES, NAMES)
def test_a_name_is_found_again_in_its_key(prefix: str, name: str) -> None:
    keys = Keys(prefix).of(name)
    assert Keys(prefix).name_of(keys.held) == Keys(prefix).name_of(keys.queue) == name
    assert Keys(prefix).name_of(keys.token) is None
    assert 0 <= keys.shard < SHARDS


@given(NAMES, NAMES, NAMES, NAMES)
def test_no_two_names_share_a_key(prefix: str, name: str, other_prefix: str, other_name: str) -> None:
    mine, others = Keys(prefix).of(name), Keys(other_prefix).of(other_name)
    assert (mine.held == others.held) == ((prefix, name) == (other_prefix, other_name))
    assert (mine.queue == others.queue) == (mine.held == others.held)


@given(NAMES, NAMES)
def test_all_keys_of_a_name_are_in_one_slot_of_a_cluster(prefix: str, name: str) -> None:
    keys = Keys(prefix).of(name)
    slots = {slot_of(key) for key in (keys.held, keys.queue, keys.told, keys.token, keys.alive, keys.gone + b"owner")}
    assert len(slots) == 1


@given(NAMES)
def test_a_part_of_a_key_has_nothing_that_separates_or_matches(text: str) -> None:
    assert not set(tag(text)) & set(b"{}:*?[]\\ ")


def test_slots_are_those_of_the_specification() -> None:
    assert slot_of(b"123456789") == 0x31C3 % 16384
    assert slot_of(b"{user1000}.following") == slot_of(b"{user1000}.followers")
    assert slot_of(b"foo{}{bar}") != slot_of(b"bar")
    assert slot_of(b"foo{{bar}}zap") == slot_of(b"{bar")


# -- the errors -------------------------------------------------------------------------------------------------------------

HERE = endpoint("redis://shop:geheim@host:6379/0")
SECURE = endpoint("rediss://shop:geheim@host:6379/0")


@pytest.mark.parametrize(
    ("text", "kind", "says"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", Unavailable, "maxmemory"),
        ("READONLY You can't write against a read only replica.", Unavailable, "primary"),
        ("ERR Error running script (call to f_1): @user_script:3: -READONLY You can't write", Unavailable, "primary"),
        ("LOADING Redis is loading the dataset in memory", Unavailable, "loading"),
        ("BUSY Redis is busy running a script.", Unavailable, "SCRIPT KILL"),
        ("ERR Error running script: Script killed by user with SCRIPT KILL.", Unavailable, "SCRIPT KILL"),
        ("MISCONF Redis is configured to save RDB snapshots", Unavailable, "disk"),
        ("CLUSTERDOWN The cluster is down", Unavailable, "CLUSTER INFO"),
        ("TRYAGAIN Multiple keys request during rehashing of slot", Unavailable, "moving"),
        ("ERR max number of clients reached", Unavailable, "maxclients"),
        ("NOPERM this user has no permissions to run the 'evalsha' command", AccessDenied, "'shop'"),
        ("WRONGPASS invalid username-password pair or user is disabled.", AccessDenied, "password"),
        ("NOAUTH Authentication required.", AccessDenied, "URL"),
        ("ERR AUTH <password> called without any password configured for the default user.", AccessDenied, "Correct the URL"),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", Conflict, "prefix="),
        ("ERR DB index is out of range", ConfigurationError, "database 0"),
        ("CROSSSLOT Keys in request don't hash to the same slot", ConfigurationError, "redis+cluster://"),
        ("ERR something new", NarrowboatError, "something new"),
    ],
)
def test_what_a_server_refuses(text: str, kind: Any, says: str) -> None:
    error = translate(ErrorReply(text), HERE, doing="taking the lock 'a'")
    assert type(error) is kind
    assert says in str(error)
    assert "host:6379" in str(error)
    assert error.backend == "redis"
    assert error.retryable == (kind is Unavailable)
    assert isinstance(error.__cause__, ErrorReply)
    pickle.loads(pickle.dumps(error))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ErrorReply("WRONGPASS invalid username-password pair"), "WRONGPASS"),
        (ErrorReply("LOADING Redis is loading"), "LOADING"),
        (ErrorReply("READONLY You can't write"), "READONLY"),
        (ErrorReply("NOPERM this user has no permissions"), "NOPERM"),
        (ErrorReply("The user executing the script can't run this command"), "NOPERM"),
        (ErrorReply("ERR something"), "ERR"),
    ],
)
def test_the_code_of_an_error_is_found_wherever_it_stands(error: ErrorReply, code: str) -> None:
    assert code_of(error) == code


@pytest.mark.parametrize(
    ("error", "where", "kind", "says"),
    [
        (ConnectionRefusedError(111, "Connection refused"), HERE, Unavailable, "up and reachable"),
        (TimeoutError("timed out"), HERE, Unavailable, "timeout="),
        (TimeoutError("_ssl.c:989: The handshake operation timed out"), SECURE, Unavailable, "redis://"),
        (ConnectionResetError("the connection was closed by the server"), HERE, Unavailable, "rediss://"),
        (NotRedis("expected a reply, found b'HTTP'"), HERE, ConfigurationError, "rediss://"),
        (ProtocolError("expected a reply, found b'HTTP'"), HERE, Unavailable, "nonsense"),
        (OSError(24, "Too many open files"), HERE, Unavailable, "descriptors"),
        (ssl.SSLEOFError("EOF occurred in violation of protocol"), SECURE, Unavailable, "up and reachable"),
        (ssl.SSLError("[SSL: WRONG_VERSION_NUMBER] wrong version number"), SECURE, ConfigurationError, "redis://"),
        (ssl.SSLCertVerificationError("unable to get local issuer certificate"), SECURE, ConfigurationError, "ca="),
    ],
)
def test_what_a_connection_meets(
    error: Any, where: RedisEndpoint, kind: type[ConfigurationError] | type[Unavailable], says: str
) -> None:
    found = translate(error, where, doing="a ping")
    assert type(found) is kind
    assert says in str(found)
    assert found.__cause__ is error


def test_a_password_that_a_server_repeats_is_not_passed_on() -> None:
    said = ErrorReply("ERR unknown command 'HELLO', with args beginning with: '2' 'AUTH' 'shop' 'geheim'")
    error = translate(said, HERE, doing="a ping")
    assert "geheim" not in str(error) + str(error.__cause__)
    assert error.__context__ is None


def test_an_error_of_ours_stays_as_it_is() -> None:
    error = Unavailable("mine", backend="redis")
    assert translate(error, HERE, doing="a ping") is error


def test_an_old_server_is_refused_with_both_versions() -> None:
    error = too_old(HERE, "5.0.14")
    assert isinstance(error, ConfigurationError)
    assert "5.0.14" in str(error)
    assert "6.2" in str(error)
    assert numbers("6.0.16") < OLDEST <= numbers("6.2.0") < numbers("10.0")


def test_options_have_defaults_that_need_nothing() -> None:
    assert Common() == Common(prefix="")
    assert Options().wait == 0
