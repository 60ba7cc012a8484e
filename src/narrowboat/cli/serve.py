"""`narrowboat serve`: put a server in front of a backend that has none, so that other machines reach it.

What the server is, an entry point says, by the scheme of `--bind`; nothing here knows one by name, or the backend that is
served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import click

from narrowboat import registry
from narrowboat._engine.target import Target
from narrowboat.cli.command import Command
from narrowboat.cli.exits import Exit
from narrowboat.driver.serving import Served, Serving
from narrowboat.errors import ConfigurationError

#: What the clients' URLs say, each for itself.
_CLIENTS_OWN = ("prefix", "declare", "dedup", "retention", "require")


@click.command("serve", cls=Command)
@click.argument("url", required=False)
@click.option("--bind", default="tcp://127.0.0.1:5555", show_default=True, help="Where to listen.")
@click.option("--key", help="File of the server's secret key: only clients with keys come in.")
@click.option("--clients", help="File of the public keys that are let in, one a line; read again on SIGHUP.")
@click.option("--insecure", is_flag=True, help="Listen without keys where other machines reach it.")
@click.option("--health", metavar="ADDRESS:PORT", help="Answer /healthz and /metrics there, over HTTP.")
@click.option("--keygen", metavar="NAME", help="Write NAME.secret and NAME.public, and serve nothing.")
def serve(
    url: str | None, bind: str, key: str | None, clients: str | None, insecure: bool, health: str | None, keygen: str | None
) -> int:
    r"""Serve the locks and messages of URL to other processes and machines, until SIGTERM.

    \b
      narrowboat serve sqlite:///shop.db --bind tcp://127.0.0.1:5555
      narrowboat serve --keygen server
    """
    program = registry.server_program(bind.partition("://")[0])
    try:
        if keygen is not None:
            for path in program.keygen(keygen):
                click.echo(path)
            return Exit.OK
        if url is None:
            raise click.UsageError("which backend is to be served? Give its URL (see: narrowboat serve --help)")
        serving = Serving(
            bind=bind, key=key, clients=clients, insecure=insecure, health=health, said=lambda text: click.echo(text, err=True)
        )
        program.serve(served(url), serving)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"narrowboat serve needs {error.name}, which is not installed: "
            f"{registry.how_to_install('narrowboat', program.extra)}"
        ) from error
    return Exit.OK


def served(url: str) -> Served:
    """The backend that `url` names, with both its halves."""
    locks = _target(registry.lock_backend, url, {})
    messages = _target(registry.broker_backend, url, {})
    given = [name for name in _CLIENTS_OWN if name in locks.url.query]
    if given:
        raise ConfigurationError(
            f"option {given[0]} of the URL that is served: each client says in its own URL what it wants of it",
            backend=locks.url.scheme,
        )
    return Served(
        scheme=locks.url.scheme,
        url=str(locks.url),
        locks=locks.capabilities,
        messages=messages.capabilities,
        open_locks=lambda options: _target(registry.lock_backend, url, options).make(),
        open_broker=lambda options: _target(registry.broker_backend, url, options).make(),
    )


def _target(find: Callable[[str], Any], url: str, options: Mapping[str, object]) -> Target[Any]:
    return Target(find, "", url, None, None, None, options)
