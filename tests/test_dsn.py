"""The URL as a value: what it takes apart, what it refuses, and what it never shows."""

from __future__ import annotations

import copy
import dataclasses
import enum
import math
import pickle
import traceback
from collections.abc import Callable
from datetime import timedelta
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

import narrowboat
import narrowboat.aio
from narrowboat.conformance.checks.leaks import raised, shown, texts
from narrowboat.dsn import Host, Secret, Url, convert, parse_options
from narrowboat.errors import ConfigurationError

PASSWORD = "Zq9Xk-S3cr3t"
SECRET = "hunter2-äöü/@:?#%41"

text = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)
hosts = st.lists(st.builds(Host, text, st.none() | st.integers(1, 65535)), min_size=1, max_size=3, unique=True)


def encoded(host: Host) -> str:
    name = f"[{quote(host.name, safe=':')}]" if ":" in host.name else quote(host.name, safe="")
    return name if host.port is None else f"{name}:{host.port}"


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    name: str = ""
    size: int = 1
    wait: float = 1.0
    tls: bool = False
    color: Color = Color.RED
    key: Secret | None = None
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ConfigurationError(f"option size={self.size}: expected 0 or more")


def parsed(url: str, **given: object) -> Options:
    return parse_options(Url.parse(url), Options, given)


@given(
    user=st.none() | text,
    password=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    hosts=hosts,
    path=st.text(st.characters(exclude_categories=["Cs"]), max_size=12),
    query=st.dictionaries(text, text, max_size=3),
)
def test_each_part_is_decoded_exactly_once(
    user: str | None, password: str | None, hosts: list[Host], path: str, query: dict[str, str]
) -> None:
    """What is percent-encoded on the way in comes out as it was, whatever it holds."""
    userinfo = quote(user or "", safe="") + ("" if password is None else ":" + quote(password, safe=""))
    head = f"{userinfo}@" if userinfo else ""
    options = "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in query.items())

    url = Url.parse(f"x://{head}{','.join(map(encoded, hosts))}/{quote(path, safe='')}?{options}")

    assert url.username == user
    assert (url.password.reveal() if url.password else None) == password
    assert list(url.hosts) == hosts
    assert url.path == path
    assert dict(url.query) == query


@given(user=st.none() | text, hosts=hosts, path=st.text(st.characters(exclude_categories=["Cs"]), max_size=12))
def test_str_and_parse_are_inverse_where_there_is_no_secret(user: str | None, hosts: list[Host], path: str) -> None:
    """A URL without a password can be printed and read back."""
    url = Url("x", "y", user, None, tuple(hosts), path, {"wait": "1 s & more=%41"})

    again = Url.parse(str(url))

    assert dataclasses.astuple(dataclasses.replace(again, query=dict(again.query))) == dataclasses.astuple(url)


@given(st.text(min_size=4).filter(lambda secret: secret.strip("*") and secret not in "Secret('***')"))
def test_a_secret_shows_itself_only_when_asked(secret: str) -> None:
    """Neither str, repr, format nor an f-string shows it."""
    hidden = Secret(secret)

    assert str(hidden) == f"{hidden}" == "***"
    assert secret not in repr(hidden)
    assert hidden.reveal() == secret
    assert hidden == Secret(secret) and hash(hidden) == hash(Secret(secret)) and hidden != secret


@pytest.mark.parametrize("name", ["password", "sasl_password", "token", "client_secret", "Passphrase", "pwd", "api_key"])
def test_neither_password_nor_secret_options_are_shown(name: str) -> None:
    """`str` and `repr` hide the password, and each option whose name says that it is a secret."""
    url = Url.parse(f"x://u:{quote(SECRET, safe='')}@h/?{name}={quote(SECRET, safe='')}&prefix=shop")

    shown = str(url) + repr(url) + f"{url}"

    assert SECRET not in shown and quote(SECRET, safe="") not in shown and "hunter2" not in shown
    assert "u:***@h" in shown and f"{name}=***" in shown and "prefix=shop" in shown


@pytest.mark.parametrize(
    "url",
    [
        "x://u:hunter2/more@h/0",  # a '/' that was not encoded: looks like a host and a port
        "x://u:1234/hunter2@h/0",  # the same, with a password that begins like a port
        "x://u:1234?hunter2@h/0",
        "x://u:pass@hunter2/more@h/0",  # a '@' and a '/'
        "x://u:pass@[hunter2/more",
        "x://u:hunter2:more",
        "x://u:%ffhunter2@h/0",  # no UTF-8
        "x://u:hunter2@h:port/0",
        "hunter2",
        "u:hunter2@h://",
        "+hunter2://h",
    ],
)
def test_an_error_about_a_url_never_repeats_its_password(url: str) -> None:
    """Nor does the traceback, nor the error that it came from."""
    with pytest.raises(ConfigurationError) as caught:
        Url.parse(url)

    assert "hunter2" not in "".join(traceback.format_exception(caught.value)).replace(repr(url), "")
    assert "hunter2" not in str(caught.value)
    assert caught.value.__context__ is None and caught.value.__cause__ is None


def test_an_error_about_a_secret_option_never_repeats_it() -> None:
    """Also when the option's name does not give it away, but its type does."""
    with pytest.raises(ConfigurationError) as caught:
        convert("key", b"hunter2", Secret, backend="x")
    with pytest.raises(ConfigurationError) as by_name:
        convert("token", "hunter2", int, backend="x")

    for error in (caught.value, by_name.value):
        assert "hunter2" not in str(error) and "***" in str(error)
        assert error.__context__ is None and error.__cause__ is None


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "not a URL"),
        ("orders", "memory://, sqlite:///shop.db"),
        ("x:/h", "not a URL"),
        ("x://h:0", "1 to 65535"),
        ("x://h:65536", "1 to 65535"),
        ("x://h:٣", "1 to 65535"),
        ("x://[::1", "IPv6"),
        ("x://[::1]6379", "IPv6"),
        ("x://h?a", "option 'a' has no value"),
        ("x://h?a=1&a=2", "option 'a' twice"),
        ("x://h/%ff", "the path"),
        ("x://h?a=%ff", "the option 'a'"),
    ],
)
def test_what_is_no_url_is_refused_with_the_reason(url: str, says: str) -> None:
    """One sentence, without a look at the network."""
    with pytest.raises(ConfigurationError) as caught:
        Url.parse(url)

    assert says in str(caught.value)


@pytest.mark.parametrize("url", [None, 7, b"memory://"])
def test_a_url_is_text(url: object) -> None:
    """Anything else is refused by its type."""
    with pytest.raises(ConfigurationError, match=f"got {type(url).__name__}"):
        Url.parse(url)  # type: ignore[arg-type]  # that is the point


def test_several_hosts_ipv6_driver_and_case() -> None:
    """The scheme's case does not count; the path's first slash separates, the second is the path's own."""
    url = Url.parse("SQLite+Fast://a:1,[::1]:2,c//tmp/shop.db")

    assert (url.scheme, url.driver, url.path) == ("sqlite", "fast", "/tmp/shop.db")
    assert url.hosts == (Host("a", 1), Host("::1", 2), Host("c", None))


def test_keyword_arguments_beat_the_url_and_the_url_beats_the_defaults() -> None:
    """Each option comes from the nearest place that gives it."""
    assert parsed("x://") == Options()
    assert parsed("x://?size=2&name=a") == Options(size=2, name="a")
    assert parsed("x://?size=2&name=a", size=3) == Options(size=3, name="a")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("size", "7", 7),
        ("size", 7, 7),
        ("wait", "0.5", 0.5),
        ("wait", 2, 2.0),
        ("wait", timedelta(milliseconds=250), 0.25),
        ("tls", "yes", True),
        ("tls", "OFF", False),
        ("tls", False, False),
        ("color", "blue", Color.BLUE),
        ("color", Color.BLUE, Color.BLUE),
        ("key", "k", Secret("k")),
        ("key", None, None),
        ("limit", "3", 3),
        ("limit", None, None),
    ],
)
def test_an_option_takes_its_type(name: str, value: object, expected: object) -> None:
    """As text from a URL, or as a value from a keyword argument."""
    assert getattr(parsed("x://", **{name: value}), name) == expected


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("size", "many", "a whole number"),
        ("size", 1.5, "a whole number"),
        ("size", True, "a whole number"),
        ("size", None, "a whole number"),
        ("wait", "soon", "a finite number of seconds"),
        ("wait", math.nan, "a finite number of seconds"),
        ("wait", "inf", "a finite number of seconds"),
        ("wait", True, "a finite number of seconds"),
        ("tls", "perhaps", "true or false"),
        ("tls", 1, "true or false"),
        ("color", "green", "one of red, blue"),
        ("name", 7, "text"),
    ],
)
def test_an_ill_typed_option_says_what_was_given_and_what_is_allowed(name: str, value: object, says: str) -> None:
    """The error names the option and the type, and knows the backend. Text is not repeated: it may be a secret."""
    with pytest.raises(ConfigurationError) as caught:
        parsed("x://", **{name: value})

    shown = "***" if isinstance(value, str) else repr(value)
    assert f"option {name}={shown}" in str(caught.value) and says in str(caught.value)
    assert caught.value.backend == "x"


def test_a_misspelt_word_of_an_option_is_told_with_the_near_miss() -> None:
    """What is close to a known word is no secret."""
    with pytest.raises(ConfigurationError, match=r"option color='bleu' \(did you mean 'blue'\?\): expected one of red, blue"):
        parsed("x://?color=bleu")


@pytest.mark.parametrize(
    "scheme", ["memory://", "sqlite:///x.db", "redis://", "amqp://", "kafka://", "zookeeper://", "consul://"]
)
def test_no_option_repeats_a_secret_that_stands_in_its_place(scheme: str) -> None:
    """Whatever type it has, of the core or of the backend."""
    group = narrowboat.registry.LOCKS if scheme in ("zookeeper://", "consul://") else narrowboat.registry.BROKERS
    lock = group == narrowboat.registry.LOCKS
    backend = (narrowboat.registry.lock_backend if lock else narrowboat.registry.broker_backend)(scheme.partition(":")[0])
    told = []
    for name in [*backend.options.__dataclass_fields__, "require", "timeout", "reply_to"]:
        try:
            (narrowboat.locks if lock else narrowboat.broker)(f"{scheme}?{name}={PASSWORD}").close()
        except ConfigurationError as error:
            told.append("".join(traceback.format_exception(error)))

    # A file that is not there has to be named.
    assert len(told) > 3 and not [text for text in told if PASSWORD in text and "no such file" not in text]


def test_an_unknown_option_names_the_near_miss_and_what_there_is() -> None:
    """Nothing is ignored: a misspelt option would be a default that nobody asked for."""
    with pytest.raises(ConfigurationError) as caught:
        parsed("x://?sise=3")

    assert "unknown option 'sise' of x://" in str(caught.value)
    assert "Did you mean 'size'?" in str(caught.value)
    assert "color" in str(caught.value) and "limit" in str(caught.value)


def test_a_range_is_checked_by_the_options_themselves() -> None:
    """`__post_init__` sees converted values, from wherever they come."""
    with pytest.raises(ConfigurationError, match="size=-1"):
        parsed("x://?size=-1")


# -- in frames, and in copies -------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, kw_only=True)
class Keyed:
    """Secrets with and without a name that says so."""

    pin: Secret | None = None
    key_password: Secret | None = None
    token: str = ""


BAD = [
    "redis://shop:{}@host:port/",
    "redis://shop:{}@[::1/",
    "redis://shop:{}@host:99999/?x=1",
    "redis://shop:%FF{}@host/",
    "redis://shop:{}@host/?x",
    "redis://shop:{}@host/?token={}&token={}",
    "redis://shop:{}@host/?x=%FF",
    "redis://shop:pass/{}@host/",
    "no-url-but-{}",
    "sqlit://shop:{}@host/",
    "memory://shop:{}@host/?timeout=soon",
    "memory://?key_password={}",
    "memory://shop:{}@host/?require=magic",
]


def leaks(error: BaseException) -> list[str]:
    return shown(PASSWORD, texts(error, here=__file__))


@pytest.mark.parametrize("face", [narrowboat.locks, narrowboat.broker, narrowboat.aio.locks, narrowboat.aio.broker])
@pytest.mark.parametrize("bad", BAD)
def test_no_variable_of_a_frame_shows_the_password_of_a_url_that_is_refused(
    face: Callable[..., object], bad: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither as an argument nor from the environment: reporters of errors keep what each frame had in its variables."""
    url = bad.replace("{}", PASSWORD)
    assert leaks(raised(lambda: face(url))) == []
    assert leaks(raised(lambda: Url.parse(url) and face(url))) == []
    monkeypatch.setenv("NARROWBOAT_LOCKS_URL", url)
    monkeypatch.setenv("NARROWBOAT_BROKER_URL", url)
    assert leaks(raised(face)) == []
    assert leaks(raised(lambda: face("memory://", key_password=PASSWORD, token=PASSWORD, timeout=-1))) == []


@pytest.mark.parametrize("wrong", ["pin", "key_password"])
def test_no_variable_of_a_frame_shows_a_secret_among_options(wrong: str) -> None:
    """Also where the option's name does not say that it is one, and where it is of the wrong type."""
    url = Url.parse(f"memory://?key_password={PASSWORD}&x=1")
    assert leaks(raised(lambda: parse_options(url, Keyed, {}))) == []
    assert leaks(raised(lambda: parse_options(Url.parse("memory://"), Keyed, {wrong: PASSWORD, "y": 1}))) == []
    assert leaks(raised(lambda: parse_options(Url.parse("memory://"), Keyed, {wrong: PASSWORD.encode()}))) == []


def test_hidden_text_is_the_text_and_shows_nothing() -> None:
    """Client libraries take it, compare it, encode it and send it over as they do with any."""
    word = Secret(PASSWORD).reveal()
    assert (word, hash(word), f"{word}", word.encode()) == (PASSWORD, hash(PASSWORD), PASSWORD, PASSWORD.encode())
    assert PASSWORD not in repr([word, word.encode(), {"password": word}])
    again = pickle.loads(pickle.dumps(word))
    assert again == PASSWORD and PASSWORD not in repr(again)
    assert dataclasses.asdict(Keyed(pin=Secret(PASSWORD)))["pin"].reveal() == PASSWORD
    options = parse_options(Url.parse(f"memory://?token={PASSWORD}"), Keyed, {})
    assert options.token == PASSWORD and PASSWORD not in repr(options)


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda url: pickle.loads(pickle.dumps(url))])
def test_a_url_can_be_copied_and_pickled(again: Callable[[Url], Url]) -> None:
    """It comes out whole: reporters copy what they find, and a half of it would fail in its own repr."""
    url = Url.parse(f"redis+sentinel://shop:{PASSWORD}@a:1,b/x?ca=ca.pem&token={PASSWORD}")
    found = again(url)
    assert found == url and str(found) == str(url) and PASSWORD not in repr([found, dict(found.query)])
    with pytest.raises(TypeError):
        found.query["x"] = "y"  # type: ignore[index]  # that is the test
