"""What `narrowboat web` answers over HTTP: the page, what the page polls, dead letters, redrive and evict. An ASGI application.

It is bounded, whatever it is asked: looks are shared by all readers, everything else is done one at a time, and what others
wrote is cut. It is no API: the page and its server are of one version.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import click
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from narrowboat.cli import holders
from narrowboat.cli.access import Access, Need, Refused
from narrowboat.cli.letters import describe, peek
from narrowboat.cli.looks import Looks
from narrowboat.cli.output import complain, printable, redact
from narrowboat.cli.portable import ENCODED, decoded, json_text
from narrowboat.cli.snapshot import Snapshot, to_json
from narrowboat.cli.source import source_of
from narrowboat.cli.watched import Watched
from narrowboat.errors import NarrowboatError
from narrowboat.messaging import Queue, Subscription

T = TypeVar("T")

#: Queues, and locks, of one look. Those with the most to do come first.
LINES = 500
#: Holders of one lock.
HOLDERS = 20
#: Dead letters of one look at a queue: as many as `narrowboat dead` shows.
LETTERS = 50
#: Characters of a body or a reason, and of any other text. `narrowboat show` has the whole.
LONG, SHORT = 10_000, 1000
#: Headers of one letter.
HEADERS = 50
#: Dead letters that one request sends back, so that the end of the server waits for no million of them.
REDRIVEN = 1000
#: Bytes of a request's body.
REQUEST = 65_536
#: Seconds for a request to come in, and for its turn.
PATIENCE = 10.0

_PAGE = Path(__file__).with_name("page.html")


class Site:
    """The watched halves over HTTP. Its methods run on one event loop; `app` is the application.

    Args:
        watched: what is looked at. Its faces are called in two threads, and closed by its owner.
        access: who may look and who may act.
        interval: seconds between two looks.
    """

    def __init__(self, watched: Watched, access: Access, interval: float) -> None:
        self._watched, self._access, self._interval = watched, access, interval
        # One thread each: a look that hangs keeps nobody from the dead letters, and neither piles up.
        self._looking, self._acting = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
        self._looks: Looks[Snapshot] = Looks(watched.look, self._looking, interval)
        self._turn = asyncio.Lock()
        self._letters: tuple[str, float, dict[str, Any]] | None = None  # the queue, when it was looked at, what was found
        self._page = _PAGE.read_text("utf-8")
        self._policy = policy_of(self._page)
        self.app = Starlette(
            routes=[
                Route("/", self._endpoint(self._show_page, Need.PAGE), methods=["GET"]),
                Route("/look", self._endpoint(self._look, Need.LOOK), methods=["GET"]),
                Route("/dead", self._endpoint(self._dead, Need.LOOK), methods=["POST"]),
                Route("/redrive", self._endpoint(self._redrive, Need.ACT), methods=["POST"]),
                Route("/evict", self._endpoint(self._evict, Need.ACT), methods=["POST"]),
            ]
        )

    def close(self) -> None:
        """Wait for the threads. Close the faces before, so that no call of theirs lasts."""
        for threads in (self._looking, self._acting):
            threads.shutdown(cancel_futures=True)

    # -- what is answered -------------------------------------------------------------------------------------------

    async def _show_page(self, request: Request) -> str:
        return self._page

    async def _look(self, request: Request) -> dict[str, Any]:
        looks = self._looks
        await looks.refresh()
        return {
            "interval": self._interval,
            "acts": self._access.token is not None,
            "age": looks.age,
            "failing_for": looks.failing_for,
            "error": looks.error and told(looks.error),
            **lines(looks.seen, looks.before),
        }

    async def _dead(self, request: Request) -> dict[str, Any]:
        name = text(await asked(request), "queue")

        def read() -> dict[str, Any]:
            if self._letters is None or self._letters[0] != name or time.monotonic() - self._letters[1] >= self._interval:
                found = peek(self._source(name).dead_letters(), LETTERS)
                letters = [{**shortened(describe(each)), "bytes": len(each.body)} for each in found]
                self._letters = name, time.monotonic(), {"queue": name, "letters": letters, "most": LETTERS}
            return self._letters[2]

        return await self._in_turn(read)

    async def _redrive(self, request: Request) -> dict[str, Any]:
        wanted = await asked(request)
        name, ids = text(wanted, "queue"), None if wanted.get("all") is True else [text(wanted, "id")]
        sent = await self._changed(lambda: self._source(name).dead_letters().redrive(REDRIVEN, ids=ids))
        log(request, f"redriven: {sent} of {name!r}")
        return {"redriven": sent, "most": REDRIVEN}

    async def _evict(self, request: Request) -> dict[str, Any]:
        wanted = await asked(request)
        name, token = text(wanted, "name"), text(wanted, "token")
        locks = self._watched.locks
        if locks is None or not re.fullmatch(r"-?[0-9]{1,30}", token):
            raise Refused(400, f"no lock has the token {token!r:.99}" if locks else "no locks are watched here")
        done = await self._changed(lambda: locks.evict(name, int(token)))
        log(request, f"evicted token {token} from {name!r}" if done else f"nobody holds {name!r} with token {token}")
        return {"evicted": done}

    # -- how --------------------------------------------------------------------------------------------------------

    def _source(self, path: str) -> Queue[bytes] | Subscription[bytes]:
        """Of those that the page shows, so that a request makes no queue and reaches none that was not asked for."""
        broker, address = self._watched.broker, self._watched.sources.get(path)
        if broker is None or address is None:
            raise Refused(404, f"there is no queue {path!r:.99} on this page")
        return source_of(broker, address.name, address.group or None)

    async def _changed(self, work: Callable[[], T]) -> T:
        """Do what changes something: what was seen before it is old, also where it fails half way."""
        try:
            return await self._in_turn(work)
        finally:
            self._letters = None
            self._looks.forget()

    async def _in_turn(self, work: Callable[[], T]) -> T:
        try:
            async with asyncio.timeout(PATIENCE):
                await self._turn.acquire()
        except TimeoutError:
            raise Refused(503, "another request is still being worked on; try again") from None
        try:
            return await asyncio.get_running_loop().run_in_executor(self._acting, work)
        finally:
            self._turn.release()

    def _endpoint(self, answer: Callable[[Request], Awaitable[Any]], need: Need) -> Callable[[Request], Awaitable[Response]]:
        """What answers, once it is allowed; an error is an answer as well. Every answer says what a browser may do with it."""

        async def endpoint(request: Request) -> Response:
            status = 200
            try:
                self._access.check(request.method, request.headers, need)
                content = await answer(request)
            except Refused as refused:
                status, content = refused.status, {"error": str(refused)}
            except NarrowboatError as error:
                status, content = 503 if error.retryable else 400, {"error": told(error)}
            except Exception as error:
                status, content = 500, {"error": told(error)}
                with contextlib.suppress(OSError):
                    complain(told(error))
            html = isinstance(content, str)
            return Response(
                content if html else json_text(content),
                status,
                {
                    "Content-Security-Policy": self._policy if html else "default-src 'none'",
                    "Cross-Origin-Opener-Policy": "same-origin",
                    "Cross-Origin-Resource-Policy": "same-origin",
                    "X-Content-Type-Options": "nosniff",
                    "X-Frame-Options": "DENY",
                    "Referrer-Policy": "no-referrer",
                    "Cache-Control": "no-store",
                },
                "text/html" if html else "application/json",
            )

        return endpoint


def policy_of(page: str) -> str:
    """The content security policy: the page's own script and style, requests to its own server, and nothing else."""

    def hashes(tag: str) -> str:
        found = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        return " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(each.encode()).digest()).decode()}'" for each in found)

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; connect-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"
    )


async def asked(request: Request) -> dict[str, Any]:
    """The object that a request's body is. `Refused` for anything else, and for one that is too long or does not come."""
    body = bytearray()
    try:
        async with asyncio.timeout(PATIENCE):
            async for part in request.stream():
                body += part
                if len(body) > REQUEST:
                    raise Refused(413, f"expected at most {REQUEST} bytes")
        found = json.loads(body)
    except TimeoutError:
        raise Refused(408, f"the request did not come within {PATIENCE:g} s") from None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Refused(400, "expected a JSON object")
    return found


def lines(now: Snapshot | None, before: Snapshot | None) -> dict[str, Any]:
    """What is shown of a look: as `top` has it, of bounded length, and of each lock the holders in place of their labels."""
    if now is None:
        return {"queues": None, "locks": None, "more": {"queues": 0, "locks": 0}}
    found = to_json(now, before)
    held: dict[str, list[dict[str, object]]] = {}
    for holder in now.holders or ():  # JavaScript has no whole numbers as large as a token may be
        held.setdefault(holder.name, []).append({**holders.to_json(holder), "token": str(holder.token)})
    for lock in found["locks"] or ():
        lock["held_by"] = held[lock["name"]][:HOLDERS]
    shown = {half: cut(all_ and all_[:LINES]) for half, all_ in found.items()}
    return {**shown, "more": {half: len(all_ or ()) - len(shown[half] or ()) for half, all_ in found.items()}}


def text(fields: Mapping[str, Any], name: str) -> str:
    """The text of a field as `portable` writes it: under its name, or encoded beside it."""
    found, encoded = fields.get(name), fields.get(name + ENCODED)
    try:
        if isinstance(encoded, str):
            found = decoded(encoded)
    except ValueError:
        found = None
    if not isinstance(found, str):
        raise Refused(400, f"expected a text {name!r}")
    return found


def shortened(letter: dict[str, Any]) -> dict[str, Any]:
    """A letter as `describe` has it, of bounded length."""
    long = {name: cut(letter[name], LONG) for name in ("body", "body" + ENCODED, "reason") if name in letter}
    return {**cut(letter), **long}


def cut(value: Any, most: int = SHORT) -> Any:
    """`value` with each text in it cut, and of each mapping the first entries.

    >>> cut({"id": "abcdef", "n": [7]}, 3)
    {'id': 'abc…', 'n': [7]}
    """
    if isinstance(value, str):
        return value if len(value) <= most else value[:most] + "…"
    if isinstance(value, Mapping):
        return {cut(name, most): cut(item, most) for name, item in list(value.items())[:HEADERS]}
    return [cut(each, most) for each in value] if isinstance(value, list) else value


def told(error: Exception) -> str:
    """An error as the commands tell it, without credentials."""
    if isinstance(error, click.ClickException):
        return redact(error.format_message())
    if isinstance(error, NarrowboatError):
        return redact(str(error))
    return redact(f"a fault of Narrowboat itself: {type(error).__name__}: {error}")


def log(request: Request, what: str) -> None:
    """What was changed, and from where, on standard error. A reader that went away, or a full disk, makes it no failure."""
    client = request.client.host if request.client else "?"
    with contextlib.suppress(OSError):
        click.echo(printable(f"{what}, asked from {client}"), err=True)
