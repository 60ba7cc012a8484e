"""`narrowboat asyncapi`: a document of what a worker takes, for catalogues and for programs in other languages."""

from __future__ import annotations

import json

import click

from narrowboat.cli.command import Command
from narrowboat.cli.exits import Exit


@click.command("asyncapi", cls=Command)
@click.argument("target", metavar="MODULE:ATTRIBUTE")
@click.option("--title", help="What the document calls the worker; MODULE:ATTRIBUTE unless given.")
@click.option("--app-version", default="0.0.0", show_default=True, help="The version of your program.")
def asyncapi(target: str, title: str | None, app_version: str) -> int:
    r"""Write an AsyncAPI 3.1 document of the worker that MODULE:ATTRIBUTE names, as JSON.

    \b
      narrowboat asyncapi shop.worker:worker > asyncapi.json
      narrowboat asyncapi shop.worker:worker --title Shipping --app-version 1.4.0

    It has the queues and topics that the worker consumes, and their messages with the schemas of their codecs. The module
    is imported, looked for in this folder first; no server is asked. What handlers publish is not known, and not in it.
    """
    from narrowboat.working.asyncapi import document
    from narrowboat.working.loading import load

    made = document(load(target), title=title or target, version=app_version)
    click.echo(json.dumps(made, indent=2, ensure_ascii=False))
    return Exit.OK
