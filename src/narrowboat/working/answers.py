"""What a probe is answered: bytes of a request to bytes of a response. Pure; `probes.py` has the sockets.

/live says whether a restart would not help, /ready whether every handler gets messages, both with 200 or 503 and the worker's
health as JSON. /metrics has the same as numbers, and what telemetry adds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any

from narrowboat.working.health import Health

JSON = "application/json"
#: Prometheus' text format.
TEXT = "text/plain; version=0.0.4; charset=utf-8"
_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}


def is_whole(request: bytes | bytearray) -> bool:
    r"""Whether all lines of its head have come. A body is never waited for.

    >>> is_whole(b"GET /live HTTP/1.1\r\n"), is_whole(b"GET /live HTTP/1.1\r\n\r\n")
    (False, True)
    """
    return b"\r\n\r\n" in request or b"\n\n" in request


def answer(request: bytes, health: Callable[[], Health], metrics: Callable[[], bytes]) -> bytes:
    r"""The response to a whole request. What goes wrong within is told to the client as 500, and nobody else suffers.

    >>> answer(b"PUT /live HTTP/1.1\r\n\r\n", lambda: Health(()), bytes).split(b"\r\n")[0]
    b'HTTP/1.1 405 Method Not Allowed'
    """
    words = request.splitlines()[0].split() if request.strip() else []
    if len(words) != 3 or not words[2].startswith(b"HTTP/"):
        return response(400, b"no request of HTTP\n")
    method, path = words[0], words[1].partition(b"?")[0]
    if method not in (b"GET", b"HEAD"):
        return response(405, b"only GET and HEAD\n")
    try:
        made = _answer(path, health, metrics)
    except BaseException as error:  # a collector of the program's own; SystemExit would end the thread of all probes
        made = response(500, f"{type(error).__name__}\n".encode())
    return made.partition(b"\r\n\r\n")[0] + b"\r\n\r\n" if method == b"HEAD" else made


def _answer(path: bytes, health: Callable[[], Health], metrics: Callable[[], bytes]) -> bytes:
    if path == b"/metrics":
        return response(200, exposition(health()) + metrics(), TEXT)
    if path not in (b"/live", b"/ready"):
        return response(404, b"there are /live, /ready and /metrics\n")
    found = health()
    good = found.live if path == b"/live" else found.ready
    told = {"live": found.live, "ready": found.ready, **asdict(found)}
    return response(200 if good else 503, json.dumps(told).encode() + b"\n", JSON)


def response(code: int, body: bytes, kind: str = "text/plain") -> bytes:
    """A response after which the connection is closed."""
    head = (
        f"HTTP/1.1 {code} {_REASONS[code]}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + body


#: To a request whose head has no end.
REFUSED = response(431, b"too long\n")


def exposition(health: Health) -> bytes:
    """The health as Prometheus' text format: what needs no client library."""
    sources = health.sources
    labels = [{"source": each.source, "handler": each.handler} for each in sources]

    def each(field: str) -> Iterable[tuple[dict[str, str], float]]:
        return [(label, getattr(source, field)) for label, source in zip(labels, sources, strict=True)]

    states = [({**label, "state": source.state}, 1) for label, source in zip(labels, sources, strict=True)]
    lines = [
        *_metric("worker_ready", "gauge", "Whether every handler gets messages.", [({}, health.ready)]),
        *_metric("worker_calls_returned_total", "counter", "Calls of handlers that returned.", each("handled")),
        *_metric("worker_calls_failed_total", "counter", "Calls of handlers that raised, or took too long.", each("failed")),
        *_metric("worker_hung_threads", "gauge", "Threads in a handler whose time is up.", each("hung")),
        *_metric("worker_source_state", "gauge", "1 for the state that a source is in.", states),
    ]
    for name, whose, face in (("broker", "the broker", health.broker), ("schedules", "the broker of ticks", health.schedules)):
        if face is not None:
            reached = [({"backend": face.backend}, face.state != "lost")]
            lines += _metric(f"worker_{name}_reached", "gauge", f"0 while calls to {whose} have no answer.", reached)
    return "".join(lines).encode()


def _metric(name: str, kind: str, about: str, samples: Iterable[tuple[dict[str, str], Any]]) -> Iterable[str]:
    full = f"narrowboat_{name}"
    yield f"# HELP {full} {about}\n# TYPE {full} {kind}\n"
    for labels, value in samples:
        inner = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        yield f"{full}{{{inner}}} {float(value):g}\n" if kind != "counter" else f"{full}{{{inner}}} {int(value)}\n"


def _escaped(text: str) -> str:
    """A label's value."""
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
