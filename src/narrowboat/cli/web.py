"""`narrowboat web`: what `top` shows and the dead letters, on a page for a browser, until SIGTERM."""

from __future__ import annotations

import contextlib
import ipaddress
from pathlib import Path

import click

from narrowboat import registry
from narrowboat._engine.listener import address_of, listen
from narrowboat.cli.access import SHORTEST, Access, host_of
from narrowboat.cli.command import Command
from narrowboat.cli.drain import Drain
from narrowboat.cli.exits import Exit
from narrowboat.cli.options import broker_url
from narrowboat.cli.output import complain
from narrowboat.cli.watched import Watched, watched_options, watching
from narrowboat.dsn import Secret
from narrowboat.errors import ConfigurationError, NarrowboatError

#: Connections at a time; the oldest makes room for the next one. A browser keeps some six.
_CONNECTIONS = 100
#: Connections that wait to be accepted, and that asyncio accepts at once, which is beyond those.
_BACKLOG = 50
#: Seconds in which requests that have begun may end after SIGTERM.
_GRACE = 5


@click.command("web", cls=Command)
@broker_url
@watched_options
@click.option("--bind", metavar="ADDRESS", default="127.0.0.1:8090", show_default=True, help="Where to listen: HOST:PORT.")
@click.option(
    "--token-file", metavar="FILE", help="File of the token that redrive and evict need.  [default: neither is there]"
)
@click.option("--host", "hosts", multiple=True, metavar="NAME", help="Another name of the page, at a proxy; may be repeated.")
@click.option("--insecure", is_flag=True, help="Let anyone look without the token, where other machines reach it.")
def web(
    url: str | None,
    queues: tuple[str, ...],
    subscriptions: tuple[str, ...],
    half: str | None,
    interval: float,
    bind: str,
    token_file: str | None,
    hosts: tuple[str, ...],
    insecure: bool,
) -> int:
    r"""Show queues, dead letters and locks on a web page, and with a token redrive and evict there.

    \b
      narrowboat web sqlite:///shop.db
      narrowboat web - --bind 0.0.0.0:8090 --token-file /run/secrets/web

    Names are those of `top`. On loopback anyone of this machine may look. Elsewhere, and with --host, looking needs the token
    too. A backend that is away does not end it: the page says so. The exit code is 0 after SIGTERM, 130 after Ctrl-C.
    """
    try:
        import uvicorn

        from narrowboat.cli.connections import bounded
        from narrowboat.cli.site import Site
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"narrowboat web needs {(error.name or '').partition('.')[0]}, which is not installed: "
            f"{registry.how_to_install('narrowboat', 'web')}"
        ) from error

    token = None if token_file is None else _token(token_file)
    with listen(bind, "serve the page", "Nothing was looked at") as listener, contextlib.ExitStack() as at_last:
        near = not hosts and ipaddress.ip_address(listener.getsockname()[0]).is_loopback
        if not (near or token or insecure):
            raise ConfigurationError(
                "other machines may reach the page at this address: say --token-file FILE, or --insecure to let anyone look"
            )
        access = Access(token, frozenset(map(host_of, [bind, *hosts])), anyone_looks=near or insecure)
        with watching(url, half, queues, subscriptions) as watched:
            _check(watched)
            site = Site(watched, access, interval)
            at_last.callback(site.close)
            server = uvicorn.Server(
                uvicorn.Config(
                    site.app,
                    http=bounded(_CONNECTIONS),
                    ws="none",
                    lifespan="off",
                    log_config=None,
                    log_level="critical",  # what it warns of is what clients do; our own errors are told by the site
                    access_log=False,
                    proxy_headers=False,
                    server_header=False,
                    backlog=_BACKLOG,
                    timeout_graceful_shutdown=_GRACE,
                )
            )
            with Drain(lambda: setattr(server, "should_exit", True)) as drain:
                click.echo(f"the page is at http://{address_of(listener)}/", err=True)
                server.run(sockets=[listener])  # it takes the signals, and raises them again at its end: for `drain`
    return drain.code or Exit.OK


def _check(watched: Watched) -> None:
    """Refuse names that are wrong or cannot be told before anything is shown. A backend that is away may come back."""
    try:
        watched.find()
    except NarrowboatError as error:
        if not error.retryable:
            raise
        complain(f"{error}. The page is served meanwhile, and says so")


def _token(file: str) -> Secret:
    try:
        text = Path(file).read_text("utf-8").strip()
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--token-file {file!r:.99}: {getattr(error, 'strerror', None) or error}") from error
    if len(text) < SHORTEST or not (text.isascii() and text.isprintable()) or " " in text:
        raise ConfigurationError(
            f"--token-file {file!r:.99}: expected one token of at least {SHORTEST} letters, digits or signs, without spaces, "
            "such as `openssl rand -hex 32` prints"
        )
    return Secret(text)
