"""A fence in front of an ASGI application: requests with a token that is smaller than one before get 412.

    app = ASGIFence(app, guard=narrowboat.aio.fencing.FileFence("/var/lib/reports/fences").guarding)

`narrowboat.fencing.wsgi` says when to use `guard`. Web sockets and the lifespan pass through.
"""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from narrowboat.errors import LockTimeout, StaleWrite
from narrowboat.fencing import http

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


def path(scope: MutableMapping[str, Any]) -> str | None:
    """The path of a request, as text."""
    return str(scope["path"])


class ASGIFence:
    """An ASGI application around another, which refuses requests of holders that were superseded.

    Requests with GET, HEAD, OPTIONS and TRACE pass. All others carry the header `Fencing-Token`; the application finds the
    number as `scope["narrowboat.token"]`. The refusals are 412 for a smaller token, 428 for none, 400 for what is no token or
    no name, and 503 while another request is inside for too long; a `StaleWrite` or `LockTimeout` that the application raises
    becomes the same. Each has a text by RFC 9457. Check before who may write: a client can claim any token.

    Args:
        app: the application.
        guard: from a name and a token, an `async with` that refuses smaller ones and keeps others out, such as
            `narrowboat.aio.fencing.FileFence(folder).guarding`. None: the application has a fence of its own.
        name: from ASGI's scope, the fence's name, or None for a request that needs none. By default the path, so that two
            paths of one resource would be two fences.
        required: whether a request without the header is refused. If not, it passes by the fence, and so does its write.
    """

    def __init__(
        self,
        app: App,
        *,
        guard: Callable[[str, int], AbstractAsyncContextManager[object]] | None = None,
        name: Callable[[MutableMapping[str, Any]], str | None] = path,
        required: bool = True,
    ) -> None:
        self._app = app
        self._guard = guard
        self._name = name
        self._required = required

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer a request, as ASGI says."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        values = [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == b"fencing-token"]
        asked = http.decide(scope["method"], self._name(scope), values, required=self._required)
        if isinstance(asked, http.Problem):
            await _answer(asked, send)
            return
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            async with contextlib.AsyncExitStack() as stack:
                if asked is not None:
                    scope = {**scope, http.KEY: asked[1]}
                    if self._guard is not None:
                        await stack.enter_async_context(self._guard(*asked))
                await self._app(scope, receive, watched)
        except (StaleWrite, LockTimeout) as error:
            if begun:
                raise
            await _answer(http.refusal(error), send)


async def _answer(problem: http.Problem, send: Send) -> None:
    fields = [(key.lower().encode(), value.encode()) for key, value in problem.fields]
    await send({"type": "http.response.start", "status": problem.status, "headers": fields})
    await send({"type": "http.response.body", "body": problem.body})
