"""Where a backend's servers are and who we are there: what a URL says, checked before anything is sent.

A driver of a server gets its hosts, its login and its use of TLS from here, and what its scheme does not take is refused in the
same words in every backend. What the path means is the backend's own affair: a number, a virtual host, a folder of keys.

    >>> from narrowboat.driver.tls import TlsOptions
    >>> from narrowboat.dsn import Url
    >>> endpoint = Endpoint.read(Url.parse("shop://me:p@a,[::1]:7/stock"), TlsOptions(), plain="shop", port=4711)
    >>> str(endpoint), endpoint.user, endpoint.hosts[1].host, endpoint.tls
    ('shop://a:4711,[::1]:7/stock', 'me', '::1', False)
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

from narrowboat.driver.tls import TlsOptions
from narrowboat.dsn import Secret, Url, unknown
from narrowboat.errors import ConfigurationError


class HostPort(NamedTuple):
    """One server.

    >>> str(HostPort("::1", 80)), str(HostPort("a", 80))
    ('[::1]:80', 'a:80')
    """

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, kw_only=True, repr=False)
class Endpoint:
    """See the module's text. Its text has no secret. A backend inherits it where it knows more of its servers."""

    scheme: str  #: as in the URL, without the driver
    plain: str  #: the scheme that means no TLS, with the URL's driver: so advice writes it
    secure: str  #: the scheme that means TLS, with the URL's driver
    hosts: tuple[HostPort, ...]  #: at least one
    tls: bool
    user: str | None
    secret: Secret | None  #: the password, or whatever stands in its place
    database: str  #: the URL's path, decoded, without the slash before it

    @classmethod
    def read(
        cls,
        url: Url,
        tls_options: TlsOptions,
        /,
        *,
        plain: str,
        port: int,
        secure_port: int | None = None,
        host: str | None = "localhost",
        one_host: str | None = None,
        drivers: Collection[str] = (),
        pair: bool = False,
        path: bool = True,
        **more: Any,
    ) -> Self:
        """What `url` says; `ConfigurationError`, with the URL's scheme as `backend`, where the scheme does not take that.

        Args:
            url: as the face was given it.
            tls_options: the backend's, which are checked against the URL as well.
            plain: the scheme without TLS; with an "s" behind it, it is the one with TLS.
            port: of a host that has none in the URL.
            secure_port: the same with TLS; None: the same port.
            host: where the URL names none; None: it has to name one.
            one_host: for a scheme that takes one host only: the advice to whoever gives several.
            drivers: the variants, such as `cluster` in `redis+cluster://`.
            pair: a user needs a password, and a password a user.
            path: whether the scheme takes one.
            more: the fields of a class that inherits from this one.
        """
        backend, written, secure = url.scheme, url.named, f"{plain}s"
        if url.driver is not None and url.driver not in drivers:
            known = [backend, *(f"{backend}+{driver}" for driver in drivers)]
            raise ConfigurationError(
                unknown("scheme", written, known) if drivers else f"{written}://: there is only one driver; write {backend}://",
                backend=backend,
            )
        tls_options.check(url, secure=secure)
        if one_host is not None and len(url.hosts) > 1:
            raise ConfigurationError(
                f"{written}:// takes one host, and this URL gives {len(url.hosts)}. {one_host}", backend=backend
            )
        if not url.hosts and host is None:
            raise ConfigurationError(f"{written}:// names no host: write {written}://localhost:{port}", backend=backend)
        for number, each in enumerate(url.hosts, 1):
            if wrong := _no_host(each.name):
                raise ConfigurationError(
                    f"host {number} of the URL {wrong}; write a name or an address, such as db.example, [::1]", backend=backend
                )
        if pair and (url.username is None) != (url.password is None):
            raise ConfigurationError(
                f"a user needs a password, and a password a user: {written}://user:password@host", backend=backend
            )
        if url.path and not path:
            raise ConfigurationError(
                f"{written}:// has no path, and {url.path!r} was given; a namespace is ?prefix=", backend=backend
            )
        tls = backend == secure
        driver = written[len(backend) :]
        usual = secure_port if tls and secure_port is not None else port
        return cls(
            scheme=backend,
            plain=plain + driver,
            secure=secure + driver,
            hosts=tuple(HostPort(each.name, each.port or usual) for each in url.hosts) or (HostPort(host or "", usual),),
            tls=tls,
            user=url.username,
            secret=url.password,
            database=url.path,
            **more,
        )

    def folder(self) -> str:
        """The path, without slashes at its ends, as that of a folder; `ConfigurationError` where it is none, like `a/../b`."""
        folder = self.database.strip("/")
        if folder and any(part in ("", ".", "..") or not part.isprintable() for part in folder.split("/")):
            raise ConfigurationError(
                f"the path /{self.database} has an empty, '.', '..' or unprintable part; name a plain folder",
                backend=self.scheme,
            )
        return folder

    def __str__(self) -> str:
        behind = self.database.strip("/")
        return f"{self.secure if self.tls else self.plain}://{','.join(map(str, self.hosts))}{'/' if behind else ''}{behind}"

    __repr__ = __str__


#: A zone of an IPv6 address is the name of a network interface, and that has no more in Linux.
_ZONE_MAX = 15


def _no_host(name: str) -> str:
    """Why no resolver can be asked for `name`; "" where one can.

    It repeats one character of it and no more: a password that was typed in the wrong place may stand there.
    """
    if ":" in name:
        return _no_address(name)
    if not name:
        return "is empty"
    if wrong := _strange(name):
        return wrong
    try:
        asked = name.encode("idna")
    except UnicodeError:
        asked = b""
    if not asked:
        return "is no name of a host: it is made of parts of 1 to 63 characters with a dot between two"
    if len(asked.rstrip(b".")) > 253:
        return "is no name of a host: that has up to 253 characters"
    return _strange(asked.decode())  # some characters are asked for as others, such as a wide '@'


def _no_address(name: str) -> str:
    import ipaddress  # costs 5 ms, and few URLs have such a host

    try:
        ipaddress.IPv6Address(name)
    except ValueError:
        return "has a ':' and is no IPv6 address"
    zone = name.partition("%")[2]
    if len(zone) > _ZONE_MAX:
        return f"has a zone behind the '%' of more than {_ZONE_MAX} characters"
    return _strange(zone)


def _strange(text: str) -> str:
    character = next((each for each in text if not _in_names(each)), None)
    return "" if character is None else f"has the character {character!r}, which no name of a host has"


def _in_names(character: str) -> bool:
    return character.isalnum() or character in "-._" if character < "\x80" else character.isprintable()
