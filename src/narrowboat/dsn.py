"""The URL that names a backend, as an immutable value; and typed options out of its query.

    scheme[+driver]://user:password@host1:port,host2:port/path?option=value

Each part is percent-decoded exactly once, so a password with `@` is written `%40` and nothing is decoded twice. The
password is a `Secret`: it is shown in no repr, error or log, and in no variable of a frame (a text that has it is `hidden`).
An unknown or ill-typed option is one clear error that names the near miss and what is allowed. This file knows no backend;
what a scheme means is the registry's business.
"""

from __future__ import annotations

import dataclasses
import enum
import math
import typing
from collections.abc import Mapping
from types import MappingProxyType, UnionType
from typing import Any, TypeVar, cast
from urllib.parse import quote, unquote_to_bytes

from narrowboat.errors import ConfigurationError

Options = TypeVar("Options")
T = TypeVar("T")


class _Hidden(str):
    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"

    def encode(self, encoding: str = "utf-8", errors: str = "strict") -> bytes:
        return _HiddenBytes(super().encode(encoding, errors))


class _HiddenBytes(bytes):
    __slots__ = ()

    def __repr__(self) -> str:
        return "b'***'"


def hidden(value: T) -> T:
    """`value` as text or bytes whose repr is '***'; any other value unchanged.

    Error reporters keep the repr of each frame's variables. A value that a method returns, such as a slice, is not hidden.

    >>> hidden("hunter2"), hidden("hunter2") == "hunter2", hidden("hunter2").encode(), hidden(None)
    ('***', True, b'***', None)
    """
    if isinstance(value, str):
        return cast(T, _Hidden(value))
    return cast(T, _HiddenBytes(value)) if isinstance(value, bytes) else value


def hidden_secrets(options: Mapping[str, object]) -> dict[str, Any]:
    """`options`, with those hidden whose name says that they are secrets.

    >>> hidden_secrets({"prefix": "shop", "key_password": "hunter2"})
    {'prefix': 'shop', 'key_password': '***'}
    """
    return {name: hidden(value) if _secretive(name) else value for name, value in options.items()}


class Secret:
    """Text that shows itself only when asked: `secret.reveal()`.

    >>> str(Secret("hunter2")), repr(Secret("hunter2")), str(Secret("hunter2").reveal())
    ('***', "Secret('***')", 'hunter2')
    """

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = hidden(text)

    def reveal(self) -> str:
        """The text itself, to be handed to a client library and nowhere else. It is `hidden`."""
        return self._text

    def __str__(self) -> str:
        return "***"

    def __repr__(self) -> str:
        return "Secret('***')"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._text == self._text

    def __hash__(self) -> int:
        return hash(self._text)


class Host(typing.NamedTuple):
    """One of the URL's hosts. `port` is None where the URL gives none: the backend's default."""

    name: str
    port: int | None


@dataclasses.dataclass(frozen=True, slots=True)
class Url:
    """A parsed URL. `str(url)` hides the password.

    >>> url = Url.parse("redis://shop:p%40ss@a:6379,[::1]/0?prefix=shop")
    >>> url.scheme, url.username, url.hosts, url.path, dict(url.query)
    ('redis', 'shop', (Host(name='a', port=6379), Host(name='::1', port=None)), '0', {'prefix': 'shop'})
    >>> str(url)
    'redis://shop:***@a:6379,[::1]/0?prefix=shop'
    """

    scheme: str
    driver: str | None
    username: str | None
    password: Secret | None
    hosts: tuple[Host, ...]
    path: str  #: without its leading slash: `sqlite:///shop.db` has "shop.db", `sqlite:////tmp/shop.db` "/tmp/shop.db"
    query: Mapping[str, str]

    @classmethod
    def parse(cls, text: str) -> Url:
        """The URL in `text`; `ConfigurationError`, without the text's secrets, when it is none."""
        text = hidden(text)
        try:
            return cls._parse(text)
        except ConfigurationError as error:
            wrong = error.with_traceback(None)
        raise wrong  # outside, so without the frames that have parts of the text in their variables

    @classmethod
    def _parse(cls, text: str) -> Url:
        if not isinstance(text, str):
            kind = "bytes" if isinstance(text, bytes) else type(text).__name__  # type: ignore[unreachable]  # from users
            raise ConfigurationError(f"expected a URL as text, got {kind}")
        if strange := next((char for char in text if char < " " or "\x7f" <= char <= "\x9f"), None):
            where = " at its end" if text.endswith(strange) else ""
            raise ConfigurationError(
                f"the URL has the control character {strange!r} in it{where}: a file or a variable that it was read from often "
                "ends with a line break. Strip it; one that is meant is written %XX"
            )
        if text != text.strip():
            raise ConfigurationError("the URL begins or ends with a space: strip it; one that is meant is written %20")
        scheme, separator, rest = text.partition("://")
        if not separator or scheme.startswith("+") or not scheme.replace("+", "").replace("-", "").isalnum():
            raise ConfigurationError(
                "that is not a URL: expected scheme://..., such as memory://, sqlite:///shop.db or redis://localhost:6379/0"
            )
        name, _, driver = scheme.lower().partition("+")
        rest, _, query = rest.partition("?")
        netloc, _, path = rest.partition("/")
        userinfo, at, hostlist = netloc.rpartition("@")
        if ":" in netloc and "@" in path + query.partition("=")[0]:
            # What looks like a host may be a user and the head of a password, or its middle: nothing of it is repeated.
            raise ConfigurationError(f"{_PASSWORD}; a '@' that is meant in a path is written %40")
        username, colon, password = userinfo.partition(":")
        return cls(
            scheme=name,
            driver=driver or None,
            username=_decode(username, "the user name") if at and username else None,
            password=Secret(_decode(password, "the password")) if colon else None,
            hosts=tuple(_host(part) for part in hostlist.split(",") if part),
            path=_decode(path, "the path"),
            query=_query(query),
        )

    @property
    def named(self) -> str:
        """The scheme with its driver, as it was written: `redis+cluster`."""
        return f"{self.scheme}+{self.driver}" if self.driver else self.scheme

    def __str__(self) -> str:
        user = quote(self.username or "", safe="") + (":***" if self.password else "")
        hosts = ",".join(
            (f"[{quote(h.name, safe=':')}]" if ":" in h.name else quote(h.name, safe=""))
            + (f":{h.port}" if h.port is not None else "")
            for h in self.hosts
        )
        path = f"/{quote(self.path)}" if self.path else ""
        query = "&".join(f"{quote(k)}={'***' if _secretive(k) else quote(v, safe='/:,')}" for k, v in self.query.items())
        return f"{self.named}://{user + '@' if user else ''}{hosts}{path}{'?' + query if query else ''}"

    __repr__ = __str__

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy cannot be copied or pickled, and the attempt would leave a Url without half of its fields.
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return _restored, (fields | {"query": dict(self.query)},)


def _restored(fields: dict[str, Any]) -> Url:
    return Url(**fields | {"query": MappingProxyType(fields["query"])})


#: The commonest reason why a URL cannot be parsed. It repeats nothing of the URL, which may hold a password.
_PASSWORD = "is a '@', ':', '/' or '?' of the password not written %40, %3A, %2F, %3F?"  # noqa: S105  # advice, no password
#: An option whose name has one of these is taken for a secret. Too many cost a shown value, too few a password.
_SECRETIVE = ("password", "passwd", "pwd", "passphrase", "secret", "token", "credential", "apikey", "api_key")


def _secretive(name: str) -> bool:
    return any(word in name.lower() for word in _SECRETIVE)


def _decode(text: str, what: str) -> str:
    try:
        return unquote_to_bytes(text).decode("utf-8")
    except UnicodeDecodeError:
        pass  # it carries the bytes, which may be a password: raised outside, the new error does not keep it
    raise ConfigurationError(f"{what} in the URL is not UTF-8 after percent-decoding")


def _host(text: str) -> Host:
    if text.startswith("["):
        name, bracket, port = text[1:].partition("]")
        if not bracket or (port and not port.startswith(":")):
            raise ConfigurationError(f"a host in the URL is no IPv6 address in brackets, such as [::1]:6379 ({_PASSWORD})")
        port = port[1:]
    else:
        name, _, port = text.partition(":")
    if port and not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        # The text may be the tail of a password with a bare '@' or '/': it is not repeated.
        raise ConfigurationError(f"a port in the URL is no number from 1 to 65535 ({_PASSWORD})")
    return Host(_decode(name, "a host"), int(port) if port else None)


def _query(text: str) -> Mapping[str, str]:
    options: dict[str, str] = {}
    for item in text.split("&"):
        if not item:
            continue
        name, equals, value = (part.replace("+", " ") for part in item.partition("="))
        name = _decode(name, "an option")
        if not equals:
            raise ConfigurationError(f"the URL's option {name!r} has no value: write {name}=...")
        if name in options:
            raise ConfigurationError(f"the URL gives the option {name!r} twice")
        options[name] = _decode(value, f"the option {name!r}")
    return MappingProxyType(hidden_secrets(options))


def parse_options(
    url: Url, options: type[Options], given: Mapping[str, object], *, core: frozenset[str] = frozenset()
) -> Options:
    """The backend's options: keyword arguments (`given`) before the URL's query before the defaults.

    `options` is a frozen dataclass; its fields may be str, int, float (seconds; `timedelta` is taken as well), bool, an
    Enum, Secret, or any of these with None. `core` names what the core itself takes from the query. Checks of a value's
    range belong in the dataclass's `__post_init__`, which raises `ConfigurationError`.
    """
    hints = typing.get_type_hints(options)
    secrets = {name for name, hint in hints.items() if Secret in (hint, *typing.get_args(hint))}
    given = {name: hidden(value) if name in secrets else value for name, value in hidden_secrets(given).items()}
    known = [field.name for field in dataclasses.fields(options)]  # type: ignore[arg-type]  # a dataclass, by contract
    values: dict[str, object] = {}
    for name, value in {**url.query, **given}.items():
        if name in core:
            continue
        if name not in known:
            raise ConfigurationError(
                unknown("option", name, sorted([*known, *core]), of=f"{url.scheme}://"), backend=url.scheme
            )
        values[name] = convert(name, hidden(value) if name in secrets else value, hints[name], backend=url.scheme)
    try:
        return options(**values)
    except ConfigurationError as error:
        error.backend = url.scheme  # the options are not told it, and a backend may have several
        raise


def unknown(what: str, word: str, words: list[str], *, of: str = "") -> str:
    """One sentence: what is unknown, the near miss, what there is."""
    close = _near(word, words)
    hint = f" Did you mean {close!r}?" if close else ""
    return f"unknown {what} {word!r}{' of ' + of if of else ''}.{hint} Known: {', '.join(words) or 'none'}."


def told(value: str, words: list[str]) -> str:
    """The value of an option as an error repeats it: where it is close to one of `words`. Any other may be a secret.

    >>> told("bleu", ["red", "blue"]), told("hunter2", ["red", "blue"])
    ("'bleu' (did you mean 'blue'?)", '***')
    """
    close = _near(value, words)
    return f"{value!r} (did you mean {close!r}?)" if close else "***"


def _near(word: str, words: list[str]) -> str | None:
    import difflib  # only on the way to an error: start-up must not pay for it

    return next(iter(difflib.get_close_matches(word, words, n=1) or difflib.get_close_matches(word.lower(), words, n=1)), None)


def convert(name: str, value: object, hint: Any, *, backend: str | None = None) -> object:
    """`value`, from a URL or a keyword argument, as the option's type; `ConfigurationError` when it is none."""
    if _secretive(name):
        value = hidden(value)
    kinds = [kind for kind in (typing.get_args(hint) if isinstance(hint, UnionType) else (hint,)) if kind is not type(None)]
    kind = kinds[0]
    optional = isinstance(hint, UnionType) and type(None) in typing.get_args(hint)
    if value is None and optional:
        return None
    try:
        return _as(kind, value)
    except (ValueError, TypeError, OverflowError):
        pass  # its text repeats the value, which may be a secret: raised outside, the new error does not keep it
    hide = _secretive(name) or kind is Secret or isinstance(value, bytes)
    shown = "***" if hide else told(value, _words(kind)) if isinstance(value, str) else repr(value)
    raise ConfigurationError(f"option {name}={shown}: expected {_expected(kind)}", backend=backend)


_TRUE, _FALSE = ("true", "1", "yes", "on"), ("false", "0", "no", "off")


def _as(kind: Any, value: object) -> object:
    text = value if isinstance(value, str) else None
    if kind is bool:
        if isinstance(value, bool):
            return value
        word = (text or "").lower()
        if word not in _TRUE + _FALSE:
            raise ValueError
        return word in _TRUE
    if isinstance(value, bool):
        raise TypeError
    if kind is float:
        seconds = getattr(value, "total_seconds", None)
        number = float(seconds() if seconds else value)  # type: ignore[arg-type]  # what is no number raises TypeError
        if not math.isfinite(number):
            raise ValueError
        return number
    if kind is int:
        if not isinstance(value, (int, str)):
            raise TypeError
        return int(value)
    if kind is Secret:
        return value if isinstance(value, Secret) else Secret(_text(value))
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return value if isinstance(value, kind) else kind(value)
    return _text(value)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _words(kind: Any) -> list[str]:
    return [str(member.value) for member in kind] if isinstance(kind, type) and issubclass(kind, enum.Enum) else []


def _expected(kind: Any) -> str:
    if words := _words(kind):
        return "one of " + ", ".join(words)
    return {bool: "true or false", int: "a whole number", float: "a finite number of seconds"}.get(kind, "text")
