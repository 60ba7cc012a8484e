"""The options for TLS, the same in every backend, and what becomes of them: refusals, a context, errors.

A backend's options inherit from `TlsOptions`, its check of the URL calls `check`, what connects uses `context`, and what
translates errors asks `failure` first. Whether a URL means TLS is its scheme's affair alone; no option turns it on or off.

    >>> from narrowboat.dsn import Url
    >>> TlsOptions(ca="/etc/ca.pem").check(Url.parse("plain://host"), secure="plains")
    Traceback (most recent call last):
    narrowboat.errors.ConfigurationError: option ca is for TLS, and plain:// does not use it: write plains:// instead
"""

from __future__ import annotations

import enum
import functools
import os
from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from narrowboat.driver.texts import cut
from narrowboat.dsn import Secret, Url
from narrowboat.errors import ConfigurationError

if TYPE_CHECKING:
    import ssl


class Verify(enum.Enum):
    """How far the server's certificate is checked."""

    FULL = "full"  #: signed by a known authority, and for this host, by its subjectAltName
    CA = "ca"  #: signed by a known authority, whatever the host: for clusters that announce addresses
    NONE = "none"  #: not at all: anybody in between can read along and answer in the server's name


@dataclass(frozen=True, kw_only=True)
class TlsOptions:
    """To be inherited by a backend's options. A subclass with a `__post_init__` calls this one's first."""

    ca: str | None = None  #: file of the certificate authorities, in PEM; None: the system's
    cert: str | None = None  #: file of our own certificate, where the server asks for one
    key: str | None = None  #: file of its key; None: in the same file
    key_password: Secret | None = None  #: of the key, where it is encrypted
    verify: Verify | None = None  #: None: full

    def __post_init__(self) -> None:
        for name in _FILES:
            path = getattr(self, name)
            if path == "":  # it would be the current folder
                raise ConfigurationError(f"option {name} is empty: give the path of a file, or leave the option out")
            if path is not None and "\0" in path:  # no file is called so, and the system's calls raise ValueError
                raise ConfigurationError(f"option {name} has a zero byte: give the path of a file")
            if path is not None:  # a program that changes its folder, or a child of it, still means the same file
                object.__setattr__(self, name, os.path.abspath(path))

    def check(self, url: Url, *, secure: str) -> None:
        """Raise `ConfigurationError` for what cannot be meant. `secure`: the backend's scheme with TLS."""
        given = [field.name for field in fields(TlsOptions) if getattr(self, field.name) is not None]
        if given and url.scheme != secure:
            written = secure + url.named[len(url.scheme) :]
            raise ConfigurationError(
                f"option {given[0]} is for TLS, and {url.named}:// does not use it: write {written}:// instead",
                backend=url.scheme,
            )
        for name in ("key", "key_password"):
            if name in given and self.cert is None:
                raise ConfigurationError(
                    f"option {name} without cert: give the certificate that the key belongs to as well", backend=url.scheme
                )
        for name in _FILES:
            path = getattr(self, name)
            if path is not None and not os.access(path, os.R_OK):
                raise ConfigurationError(
                    f"option {name}={path}: no such file, or it may not be read by this process", backend=url.scheme
                )

    @property
    def checks(self) -> Verify:
        """How far the certificate is checked."""
        return self.verify or Verify.FULL

    def context(self, *, backend: str) -> ssl.SSLContext:
        """What connects: the same one until a file changes. `ConfigurationError` where a file is none of what it should be."""
        files = (self.ca, self.cert, self.key)
        try:
            changed = tuple(os.stat(path).st_mtime_ns for path in files if path is not None)
            return _context(*files, self.key_password, self.checks, changed)
        except _Wrong as error:
            found, cause = str(error), error.__cause__
        except OSError as error:
            found, cause = f"{type(error).__name__}: {error}", error
        raise ConfigurationError(found, backend=backend) from cause


def failure(error: BaseException, where: str, *, plain: str, backend: str) -> ConfigurationError | None:
    """What `error`, from connecting to `where`, says about TLS; None where it is no answer to that.

    It is not retryable: the other side is there, and will say the same again. What only broke off in the middle, or was not
    answered in time, gives None.

    Args:
        error: with its causes, and what a client library has put into its arguments.
        where: begins the text.
        plain: the scheme without TLS.
        backend: the scheme of the URL.
    """
    import ssl  # only on the way to an error

    #: The last two only say that a step waits for the network.
    passing = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLSyscallError, ssl.SSLWantReadError, ssl.SSLWantWriteError)
    for each in chain(error):
        if not isinstance(each, ssl.SSLError) or isinstance(each, passing) or getattr(each, "reason", None) in _PASSING:
            continue
        if isinstance(each, ssl.SSLCertVerificationError):
            said = getattr(each, "verify_message", None) or each
            advice = _ADVICE.get(getattr(each, "verify_code", 0), _AUTHORITY)
            text = f"{where}: its certificate was not accepted ({cut(said)}). {advice}"
        else:
            text = (
                f"{where}: no TLS connection could be made ({cut(each)}). A plain port takes {plain}://; a server that asks "
                "for a certificate gets it by ?cert= and ?key=; needed is TLS 1.2 or later."
            )
        found = ConfigurationError(text, backend=backend)
        found.__cause__ = error
        return found
    return None


def hint(error: BaseException | None, *, plain: str) -> str:
    """What to add to the text of `error` where a handshake got no answer: "; if that port has no TLS, write ..."."""
    silent = error is not None and any("handshake" in str(each) for each in chain(error))
    return f"; if that port has no TLS, write {plain}://" if silent else ""


def chain(error: BaseException) -> Iterator[BaseException]:
    """`error` and what it was made of: its causes, its arguments, and what some clients keep in `exception(s)`."""
    seen: list[BaseException] = []
    queue: list[object] = [error]
    while queue:
        each = queue.pop(0)
        if not isinstance(each, BaseException) or any(each is other for other in seen):
            continue
        seen.append(each)
        yield each
        below = each.__cause__ or (None if each.__suppress_context__ else each.__context__)
        queue += [getattr(each, "exception", None), *getattr(each, "exceptions", ()), *each.args, below]


_FILES = ("ca", "cert", "key")

_AUTHORITY = "Name the file of the authority that signed it with ?ca=."
_NAME = "Name the host as it stands in the certificate's subjectAltName; ?verify=ca checks its authority and not its name."
_DATE = "Renew it, or set this machine's clock."
#: By OpenSSL's number of what was wrong.
_ADVICE = {9: _DATE, 10: _DATE, 62: _NAME, 64: _NAME}

#: OpenSSL's words for what happens to a connection that was good, or to a server that is just ending.
_PASSING = frozenset(
    {
        "APPLICATION_DATA_AFTER_CLOSE_NOTIFY",
        "DECRYPTION_FAILED_OR_BAD_RECORD_MAC",
        "SSLV3_ALERT_BAD_RECORD_MAC",
        "SSLV3_ALERT_CLOSE_NOTIFY",
        "TLSV1_ALERT_INTERNAL_ERROR",
        "TLSV1_ALERT_USER_CANCELLED",
    }
)


class _Wrong(Exception):
    """What is wrong with the files, without the backend's name."""


class _Encrypted(Exception):
    """The key has a password that nobody gave. Without this, OpenSSL asks for it on the terminal, and waits for ever."""


@functools.lru_cache(maxsize=16)
def _context(
    ca: str | None,
    cert: str | None,
    key: str | None,
    password: Secret | None,
    verify: Verify,
    changed: tuple[int, ...],
) -> ssl.SSLContext:
    """`changed` is not read: with it, a file that was replaced is read anew. The system's authorities take 20 ms to read."""
    from narrowboat.driver import handshake  # imports ssl

    def make() -> ssl.SSLContext:
        try:
            context = handshake.context(ca, signed=verify is not Verify.NONE, named=verify is Verify.FULL)
        except OSError as error:
            raise _Wrong(f"option ca={ca}: no certificates in PEM ({cut(error)})") from error
        if cert is not None:
            _show(context, cert, key, password)
        return context

    return handshake.step(make)


def _show(context: ssl.SSLContext, cert: str, key: str | None, password: Secret | None) -> None:
    """Load our own certificate."""

    def reveal() -> str:
        if password is None:
            raise _Encrypted
        return password.reveal()

    where = f"option cert={cert}" + (f", key={key}" if key is not None else "")
    try:
        context.load_cert_chain(cert, key, reveal)
    except _Encrypted:
        raise _Wrong(f"{where}: the key is encrypted, and no key_password was given") from None
    except ValueError:
        pass  # it may hold the password: raised outside, the new error does not keep it
    except OSError as error:
        wrong = "" if password is None else ", or key_password is not the key's password"
        raise _Wrong(f"{where}: no certificate in PEM with the key that belongs to it{wrong} ({cut(error)})") from error
    else:
        return
    raise _Wrong(f"{where}: the key_password cannot be one: OpenSSL takes up to 1024 bytes of UTF-8")
