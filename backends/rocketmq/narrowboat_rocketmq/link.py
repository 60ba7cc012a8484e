"""The connection to the proxy and, where the URL names one, to the name server: made at the first call and shared.

The certificate of a proxy is checked by Python's TLS before grpc connects, which knows fewer ways to check one and says little
of why one was refused. With `?verify=ca` or `none` grpc is then told the name, or the very certificate, that was found there.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import grpc

from narrowboat.contract import Context
from narrowboat.driver.endpoint import Endpoint, HostPort
from narrowboat.driver.tls import Verify
from narrowboat.errors import AccessDenied, Closed, NarrowboatError, Unavailable
from narrowboat_rocketmq.admin import Admin, Refused
from narrowboat_rocketmq.errors import broken
from narrowboat_rocketmq.library.calls import Calls
from narrowboat_rocketmq.options import SCHEME, Options
from narrowboat_rocketmq.remoting import Remoting

T = TypeVar("T")


class Link:
    """See the module's text. From any thread."""

    def __init__(self, endpoint: Endpoint, options: Options, context: Context, names: HostPort | None) -> None:
        self.endpoint = endpoint
        self.clock = context.clock
        self.timeout = context.timeout
        self.namespace = endpoint.database
        self._options = options
        self._mutex = threading.Lock()
        self._calls: Calls | None = None
        self._closed = False
        self._remoting = Remoting(self._connect, endpoint.user, endpoint.secret)
        self.names = names  #: the server to administer by, where the URL names one

    def check_open(self) -> None:
        """Raise `Closed` after `close`."""
        if self._closed:
            raise Closed(f"this broker on {self.endpoint} was closed; open it again", backend=SCHEME)

    @property
    def calls(self) -> Calls:
        """The calls; raises where the proxy's certificate is refused, or `Closed`."""
        self.check_open()
        found = self._calls
        if found is None:
            with self._mutex:
                found = self._calls = self._calls or self._open()
        return found

    def _open(self) -> Calls:
        endpoint, host = self.endpoint, self.endpoint.hosts[0]
        credentials, override = None, None
        if endpoint.tls:
            try:
                credentials, override = self._credentials(host)
            except OSError as error:
                raise broken(error, endpoint, "connecting", self.timeout) from error
        return Calls(str(host), credentials, override, endpoint.user, endpoint.secret)

    def _credentials(self, host: HostPort) -> tuple[grpc.ChannelCredentials, str | None]:
        options = self._options
        with self._connect(host, self.timeout) as line:
            assert isinstance(line, ssl.SSLSocket)
            found = line.getpeercert(binary_form=True)
            known: Any = line.getpeercert() or {}
        names = [str(name) for kind, name in known.get("subjectAltName", ()) if kind == "DNS"]
        with_root = None if options.ca is None else _read(options.ca)
        if options.checks is Verify.NONE and found is not None:
            with_root = ssl.DER_cert_to_PEM_cert(found).encode()
        key = None if options.cert is None else _read(options.key or options.cert)
        chain = None if options.cert is None else _read(options.cert)
        return grpc.ssl_channel_credentials(with_root, key, chain), names[
            0
        ] if options.checks is not Verify.FULL and names else None

    def _connect(self, server: HostPort, seconds: float) -> socket.socket:
        line = socket.create_connection(server, seconds)
        if not self.endpoint.tls:
            return line
        context = self._options.context(backend=self.endpoint.scheme)
        if server == self.endpoint.hosts[0]:
            context = _http2(context)
        return context.wrap_socket(line, server_hostname=server.host)

    # -- calling --------------------------------------------------------------------------------------------------

    def call(self, name: str, request: Any, doing: str, client: str | None = None) -> Any:
        """One call of the proxy, for a consumer or for nobody, and its answer; raises what the caller is told."""
        calls = self.calls
        try:
            return getattr(calls, name)(request, timeout=self.timeout, metadata=calls.headers(client))
        except (grpc.RpcError, ValueError) as error:
            raise self.broken(error, doing) from error

    def together(self, name: str, requests: Sequence[Any], doing: str, client: str | None = None) -> list[Any]:
        """Many calls at once, each with an answer or an error in its place."""
        if not requests:
            return []
        calls, headers = self.calls, self.calls.headers(client)
        futures: list[Any] = []
        answers: list[Any] = []
        try:
            for request in requests:
                futures.append(getattr(calls, name).future(request, timeout=self.timeout, metadata=headers))  # noqa: PERF401  # what was begun is known
            for future in futures:
                try:
                    answers.append(future.result())
                except (grpc.RpcError, grpc.FutureCancelledError) as error:
                    answers.append(self.broken(error, doing))
        except ValueError as error:  # the channel was closed meanwhile
            raise self.broken(error, doing) from error
        finally:
            if len(answers) < len(futures):  # interrupted
                for future in futures:
                    future.cancel()
        return answers

    def broken(self, error: BaseException, doing: str) -> NarrowboatError:
        """What the caller is told about a call that had no answer."""
        if self._closed:
            return Closed(f"this broker on {self.endpoint} was closed while {doing}", backend=SCHEME)
        return broken(error, self.endpoint, doing, self.timeout)

    def ends(self) -> float:
        """The deadline of an administration that begins now, by `time.monotonic`."""
        return time.monotonic() + self.timeout

    def administer(self, work: Callable[[Admin], T], doing: str, ends: float | None = None, *, prepares: bool = False) -> T:
        """Let the administration do something, until `ends`, or within the timeout.

        `prepares`: while that is under way nothing of the caller's own was sent.
        """
        self.check_open()
        assert self.names is not None
        try:
            return work(Admin(self._remoting, self.names, self.namespace, self.ends() if ends is None else ends))
        except NarrowboatError:  # a Conflict is a ValueError as well
            raise
        except Refused as error:
            if "sign" in str(error).lower() or "access" in str(error).lower() or "permission" in str(error).lower():
                raise AccessDenied(
                    f"{error}, while {doing}. Correct the URL's access key and secret, or give that user the rights that the "
                    "backend's page lists.",
                    backend=SCHEME,
                ) from error
            raise Unavailable(
                f"{error}, while {doing}. The call may be repeated.", backend=SCHEME, sent=not prepares
            ) from error
        except (
            OSError,
            ValueError,
            KeyError,
            TypeError,
            AttributeError,
        ) as error:  # the last ones: what answered is something else
            found = self.no_admin(error, doing, prepares=prepares)
        raise found

    def no_admin(self, error: Exception, doing: str, *, prepares: bool) -> NarrowboatError:
        """Why the administration did not do it."""
        where = f"the name server {self.names}, or a broker that it names,"
        hint = "See whether it is up and reachable from here, and is what ?admin= should name"
        found = Unavailable(
            f"{where} did not answer while {doing} ({type(error).__name__}: {error}). {hint}. The call may be repeated.",
            backend=SCHEME,
            sent=not prepares,
        )
        found.__cause__ = error
        return found

    # -- the end --------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """End all connections. Idempotent."""
        self._closed = True
        self._remoting.close()
        calls, self._calls = self._calls, None
        if calls is not None:
            calls.close()


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


def _http2(context: ssl.SSLContext) -> ssl.SSLContext:
    context.set_alpn_protocols(["h2"])
    return context
