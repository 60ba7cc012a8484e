"""`narrowboat backends`: what is installed, and what each backend guarantees, from its own claims."""

from __future__ import annotations

from typing import Any

import click

from narrowboat import registry
from narrowboat.capabilities import Capabilities, table
from narrowboat.cli.command import Command
from narrowboat.cli.options import as_json
from narrowboat.cli.output import print_json, print_table
from narrowboat.contract.backend import BrokerBackend, LockBackend
from narrowboat.dsn import Url, parse_options
from narrowboat.errors import ConfigurationError

#: What may follow the scheme. A backend takes a host, a path, both or neither; the first that it takes is as good as any.
_EXAMPLES = ("localhost/example", "localhost", "/example", "")


@click.command("backends", cls=Command)
@as_json
def backends(as_json: bool) -> None:
    """Show which backends are installed and what each of them guarantees with its default options."""
    found = {"locks": _read(registry.LOCKS), "brokers": _read(registry.BROKERS)}
    if as_json:
        print_json(found)
        return
    for kind, described in found.items():
        print_table(
            ("scheme", "", "what it is"),
            [(scheme, "installed" if "claims" in it else "missing", it["summary"]) for scheme, it in described.items()],
            title=kind,
        )
        claims = {scheme: it["claims"] for scheme, it in described.items() if "claims" in it}
        names = dict.fromkeys(name for claimed in claims.values() for name in claimed)
        if names:
            rows = [(name, *(claimed.get(name, "") for claimed in claims.values())) for name in names]
            print_table(("guarantee", *claims), rows)


def _read(group: str) -> dict[str, dict[str, Any]]:
    return {scheme: _describe(group, scheme) for scheme in registry.schemes(group)}


def _describe(group: str, scheme: str) -> dict[str, Any]:
    """Its summary and claims; the summary is what to install where that is missing."""
    try:
        backend: LockBackend | BrokerBackend
        backend = registry.lock_backend(scheme) if group == registry.LOCKS else registry.broker_backend(scheme)
        return {"summary": backend.summary, "claims": table(_claims(backend))}
    except ConfigurationError as error:
        return {"summary": str(error)}


def _claims(backend: LockBackend | BrokerBackend) -> Capabilities:
    """What it claims with its default options. No connection is made."""
    for index, example in enumerate(_EXAMPLES, start=1):
        url = Url.parse(f"{backend.scheme}://{example}")
        try:
            return backend.capabilities(url, parse_options(url, backend.options, {}))
        except ConfigurationError:
            if index == len(_EXAMPLES):
                raise
    raise AssertionError("there are examples")
