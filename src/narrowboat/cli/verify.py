"""`narrowboat verify`: the conformance kit against a live backend."""

from __future__ import annotations

import click

from narrowboat.cli.command import Command


@click.command("verify", cls=Command)
@click.argument("url", metavar="URL")
def verify(url: str) -> int:
    """Run the conformance kit against a live backend."""
    raise NotImplementedError
