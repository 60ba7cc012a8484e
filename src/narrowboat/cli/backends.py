"""`narrowboat backends`: what is installed, what its URLs look like, and what each backend guarantees by its own claims."""

from __future__ import annotations

import re
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

#: What may follow the scheme of a backend that gives no example. It takes a host, a path, both or neither.
_GUESSES = ("localhost/example", "localhost", "/example", "")


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
            ("scheme", "state", "such as", "what it is"),
            [(scheme, it["state"], it.get("example", ""), _said(it)) for scheme, it in described.items()],
            title=kind,
        )
        claims = {scheme: it["claims"] for scheme, it in described.items() if "claims" in it}
        names = dict.fromkeys(name for claimed in claims.values() for name in claimed)
        if names:
            rows = [(name, *(claimed.get(name, "") for claimed in claims.values())) for name in names]
            print_table(("guarantee", *claims), rows)


def _said(described: dict[str, Any]) -> str:
    """What it is, and what else is to be known of it here."""
    return "; ".join(filter(None, (described["summary"], described.get("note"))))


def _read(group: str) -> dict[str, dict[str, Any]]:
    return {scheme: _describe(group, scheme) for scheme in registry.schemes(group)}


def _describe(group: str, scheme: str) -> dict[str, Any]:
    """What it is, an example, its claims and its state: installed, or the command that installs what it lacks."""
    try:
        backend: LockBackend | BrokerBackend
        backend = registry.lock_backend(scheme) if group == registry.LOCKS else registry.broker_backend(scheme)
        example, claims = _claims(backend, scheme)
    except ConfigurationError as error:
        return {"state": "missing", "summary": str(error)}
    lacking = _lacking(group, scheme, backend.extra)
    said = {"summary": backend.summary, "note": backend.note(scheme)}
    return {"state": lacking or "installed", "example": example, **said, "claims": table(claims)}


def _claims(backend: LockBackend | BrokerBackend, scheme: str) -> tuple[str, Capabilities]:
    """An example of its URL, and what it claims with its default options. No connection is made."""
    given = backend.example.partition("://")[2]
    guesses = (given,) if given else _GUESSES
    for index, guess in enumerate(guesses, start=1):
        url = Url.parse(f"{scheme}://{guess}")
        try:
            return f"{scheme}://{guess}", backend.capabilities(url, parse_options(url, backend.options, {}))
        except ConfigurationError:
            if index == len(guesses):
                raise
    raise AssertionError("there are guesses")


def _lacking(group: str, scheme: str, extra: str | None) -> str:
    """The command that installs what the backend's extra names and is not there; empty where nothing is lacking."""
    from importlib.metadata import PackageNotFoundError, distribution, entry_points  # only this command pays for it

    point = next(iter(entry_points(group=group, name=scheme)))
    if extra is None or point.dist is None:
        return ""
    for needed in point.dist.requires or ():
        if re.search(rf"extra\s*==\s*['\"]{re.escape(extra)}['\"]", needed):
            try:
                distribution(re.split(r"[^\w.-]", needed, maxsplit=1)[0])
            except PackageNotFoundError:
                return registry.how_to_install(point.dist.name, extra)
    return ""
