"""`narrowboat declare`: a queue or subscription as it shall be, made or altered."""

from __future__ import annotations

import click

from narrowboat.capabilities import Support
from narrowboat.cli.command import Command
from narrowboat.cli.options import as_json, broker_url, group_option
from narrowboat.cli.output import print_json
from narrowboat.cli.reach import open_broker
from narrowboat.cli.source import as_stored, properties_options, source_of
from narrowboat.contract.messages import Properties

#: What can be altered where it is stored otherwise.
_ALTERABLE = ("lease", "max_deliveries")


@click.command("declare", cls=Command)
@broker_url
@click.argument("queue")
@group_option
@properties_options
@as_json
def declare(url: str | None, queue: str, group: str | None, as_json: bool, **properties: float | bool | None) -> None:
    """Make QUEUE, or with --group a subscription of the topic QUEUE; or alter what is stored with it and differs.

    --lease and --max-deliveries count for consumers that ask for none of their own, also for those that run. No message is
    touched. What is not said stays as it is. Where --ordered or --priorities differ nothing is altered, and the exit code is 2.
    """
    with open_broker(url) as broker:
        source = source_of(broker, queue, group, **properties)
        alters = broker.capabilities.alter is not Support.ABSENT
        before = source.properties() if alters else None
        as_stored(broker, queue, group, properties, lambda each: each.declare())
        altered = differing(before, properties)
        if altered:
            source.alter(**{name: wanted for name, (_, wanted) in altered.items()})  # type: ignore[arg-type]  # as checked by click
    made = alters and before is None
    if as_json:
        print_json({"made": made if alters else None, "altered": altered})
    elif altered:
        said = ", ".join(f"{name} from {old:g} to {new:g}" for name, (old, new) in altered.items())
        click.echo(f"altered {source.name!r}: {said}")
    elif made:
        click.echo(f"made {source.name!r}")
    else:
        click.echo(f"{source.name!r} is there, and nothing differs" if alters else f"{source.name!r} is there")


def differing(stored: Properties | None, asked: dict[str, float | bool | None]) -> dict[str, tuple[float, float]]:
    """What is stored and what is asked, by name, where it differs and can be altered.

    >>> differing(Properties(), {"lease": 30.0, "max_deliveries": 9, "ordered": None})
    {'max_deliveries': (5, 9)}
    """
    if stored is None:
        return {}
    pairs = {name: (getattr(stored, name), asked.get(name)) for name in _ALTERABLE}
    return {name: (old, new) for name, (old, new) in pairs.items() if new is not None and new != old}
