"""`/healthz` and `/metrics` over HTTP, where `--health` asks for them: for probes, and for Prometheus.

It answers on a thread of its own, so that it can say that the server's thread stands still.
"""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

from narrowboat.errors import ConfigurationError

if TYPE_CHECKING:
    from narrowboat_zeromq.server.router import Router

#: Seconds that the server's thread may take for one turn: a call of its driver takes five at most, and a turn may have several.
STUCK = 30.0


class Health:
    """Use it in a `with` block, which gives where it listens, or None where nobody asked for it."""

    def __init__(self, where: str | None, router: Router) -> None:
        self._server: ThreadingHTTPServer | None = None
        if where is None:
            return
        host, _, port = where.rpartition(":")
        try:
            self._server = ThreadingHTTPServer((host.strip("[]"), int(port)), _handler(router))
        except (ValueError, OSError, OverflowError) as error:
            raise ConfigurationError(
                f"--health {where}: {error}. Write ADDRESS:PORT, such as 127.0.0.1:9555, of a port that is free."
            ) from error
        self._server.daemon_threads = True

    def __enter__(self) -> str | None:
        if self._server is None:
            return None
        threading.Thread(target=self._server.serve_forever, name="narrowboat-health", daemon=True).start()
        host, port = self._server.server_address[:2]
        return f"{host!s}:{port}"

    def __exit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()


def _handler(router: Router) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 5.0  # seconds: a probe that says nothing holds a thread no longer

        def do_GET(self) -> None:
            still = time.monotonic() - router.turned
            if self.path == "/healthz":
                well = still < STUCK
                self._answer(200 if well else 503, "ok\n" if well else f"the server's thread stands still for {still:.0f} s\n")
            elif self.path == "/metrics":
                self._answer(200, metrics(router, still))
            else:
                self._answer(404, "there are /healthz and /metrics\n")

        def _answer(self, status: int, text: str) -> None:
            body = text.encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


def metrics(router: Router, still: float) -> str:
    """The numbers of a server, as Prometheus reads them."""
    counts = dict(router.counts)
    refused, missed = counts.pop("refused", 0), counts.pop("missed", 0)
    lines = ["# TYPE narrowboat_serve_requests_total counter"]
    lines += [f'narrowboat_serve_requests_total{{op="{op}"}} {count}' for op, count in sorted(counts.items())]
    for name, kind, value in (
        ("refused_total", "counter", refused),
        ("clients_missed_total", "counter", missed),
        *((name, "gauge", size) for name, size in router.sizes.items()),
        ("turn_age_seconds", "gauge", round(still, 3)),
    ):
        lines += [f"# TYPE narrowboat_serve_{name} {kind}", f"narrowboat_serve_{name} {value}"]
    return "\n".join(lines) + "\n"
