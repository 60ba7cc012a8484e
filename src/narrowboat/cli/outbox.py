"""`narrowboat relay`: publishes what programs store in an outbox, until SIGTERM."""

from __future__ import annotations

import click

from narrowboat.cli.command import Command
from narrowboat.cli.exits import Exit
from narrowboat.cli.options import BROKER_URL, FROM_ENVIRONMENT, Seconds, from_environment

#: The variable that `-` stands for as the URL of the database.
OUTBOX_URL = "NARROWBOAT_OUTBOX_URL"


@click.command("relay", cls=Command)
@click.option("--outbox", "database", required=True, metavar="URL", help=f"The database; - takes {OUTBOX_URL}.")
@click.option("--broker", default=FROM_ENVIRONMENT, metavar="URL", help=f"Where to publish; {BROKER_URL} unless given.")
@click.option("--table", default="outbox", show_default=True, metavar="NAME", help="The outbox's table.")
@click.option("--batch", type=click.IntRange(1, 10_000), default=500, show_default=True, help="Messages in one publish.")
@click.option("--poll", type=Seconds(0.01), default=1.0, show_default=True, help="Seconds between looks without a notice.")
@click.option("--health", metavar="ADDRESS", help="Answer /live, /ready and /metrics there: HOST:PORT, or a port on loopback.")
@click.option("--quiet", is_flag=True, help="Only warnings and errors; not that it starts, drains and has stopped.")
def relay(database: str, broker: str, table: str, batch: int, poll: float, health: str | None, quiet: bool) -> int:
    r"""Publish the messages of an outbox to a broker.

    \b
      narrowboat relay --outbox postgresql://shop@db/shop --broker redis://localhost
      narrowboat relay --outbox - --broker - --health 8080

    Any number of them may run; one at a time publishes. A backend or database that is away is waited for. A table that is not
    there ends it, and the error says how to make it. The exit code is 0 after SIGTERM.
    """
    from narrowboat.cli.log import shown
    from narrowboat.cli.run import answering
    from narrowboat.outbox import Outbox
    from narrowboat.transactions.urls import connector
    from narrowboat.working import Worker

    found = from_environment(database, OUTBOX_URL)
    assert found is not None  # it was no option without a value
    worker = Worker(from_environment(broker, BROKER_URL))
    worker.relay(Outbox[bytes](table), connector(found), batch=batch, poll=poll)
    with shown(quiet=quiet), answering(health, worker):
        worker.run()
    return Exit.OK
