"""A fence in front of a WSGI application: requests with a token that is smaller than one before get 412.

    application = WSGIFence(application, guard=FileFence("/var/lib/reports/fences").guarding)

With `guard` the middleware keeps the others of that name out until the response has ended. Without, the application asks a
fence of its own, in the transaction in which it writes; the middleware hands it the token, and answers for it. A check in front
that is over before the write fences nothing, because the older request may be between the two.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from narrowboat.errors import LockTimeout, StaleWrite
from narrowboat.fencing import http

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication


def path(environ: dict[str, Any]) -> str | None:
    """The path of a request, as text."""
    raw: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    return raw.encode("latin-1").decode("utf-8", "surrogateescape")  # WSGI's texts are bytes; what is no UTF-8 is refused


class WSGIFence:
    """A WSGI application around another, which refuses requests of holders that were superseded.

    Requests with GET, HEAD, OPTIONS and TRACE pass. All others carry the header `Fencing-Token`; the application finds the
    number as `environ["narrowboat.token"]`. The refusals are 412 for a smaller token, 428 for none, 400 for what is no token or
    no name, and 503 while another request is inside for too long; a `StaleWrite` or `LockTimeout` that the application raises
    becomes the same. Each has a text by RFC 9457. Check before who may write: a client can claim any token.

    Args:
        app: the application.
        guard: from a name and a token, a `with` that refuses smaller ones and keeps others out, such as
            `FileFence(folder).guarding`. None: the application has a fence of its own.
        name: from WSGI's environ, the fence's name, or None for a request that needs none. By default the path, so that two
            paths of one resource would be two fences.
        required: whether a request without the header is refused. If not, it passes by the fence, and so does its write.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        guard: Callable[[str, int], AbstractContextManager[object]] | None = None,
        name: Callable[[dict[str, Any]], str | None] = path,
        required: bool = True,
    ) -> None:
        self._app = app
        self._guard = guard
        self._name = name
        self._required = required

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterator[bytes]:
        """Answer a request, as WSGI says."""
        given = environ.get("HTTP_FENCING_TOKEN")
        values = [] if given is None else [given]  # a server joins several by a comma, which no token has
        asked = http.decide(environ["REQUEST_METHOD"], self._name(environ), values, required=self._required)
        if isinstance(asked, http.Problem):
            yield from _answer(asked, start_response)
            return
        try:
            with contextlib.ExitStack() as stack:
                if asked is not None:
                    environ[http.KEY] = asked[1]
                    if self._guard is not None:
                        stack.enter_context(self._guard(*asked))
                response = self._app(environ, start_response)
                stack.callback(getattr(response, "close", lambda: None))
                yield from response
        except (StaleWrite, LockTimeout) as error:
            yield from _answer(http.refusal(error), start_response, sys.exc_info())


def _answer(problem: http.Problem, start_response: StartResponse, failed: Any = None) -> Iterable[bytes]:
    # With `failed` the server replaces what the application has begun, or raises it again where that is sent already.
    start_response(f"{problem.status} {problem.title}", problem.fields, failed)
    return [problem.body]
