"""`narrowboat consume`: messages as NDJSON on standard output, or a command for each."""

from __future__ import annotations

import sys

import click

from narrowboat.cli.command import Command
from narrowboat.cli.drain import Drain
from narrowboat.cli.exits import Exit
from narrowboat.cli.handler import Handler
from narrowboat.cli.options import Seconds, broker_url, environment, group_option, keep_urls
from narrowboat.cli.output import complain
from narrowboat.cli.reach import open_broker
from narrowboat.cli.records import to_line
from narrowboat.cli.source import consume_from, properties_options
from narrowboat.messaging import Messages

#: Messages that are written and acknowledged together. More are faster, and come again together after a broken pipe.
_BATCH = 100
#: Seconds that a batch waits to fill. Longer delays a single message for a reader who watches.
_GATHER = 0.01


@click.command("consume", cls=Command)
@broker_url
@click.argument("queue")
@group_option
@click.option("--count", type=click.IntRange(min=1), metavar="N", help="Stop after N messages.")
@click.option("--idle", type=Seconds(), help="Stop after this many seconds without a message.")
@click.option(
    "--prefetch",
    type=click.IntRange(1, 10_000),
    help="Messages in our hands at most.  [default: 100, with --exec --concurrency]",
)
@click.option("--exec", "command", metavar="COMMAND", help="Run this shell command for each message.")
@click.option(
    "--concurrency", type=click.IntRange(1, 1000), default=1, show_default=True, metavar="N", help="With --exec: N at a time."
)
@keep_urls
@properties_options
def consume(
    url: str | None,
    queue: str,
    group: str | None,
    count: int | None,
    idle: float | None,
    prefetch: int | None,
    command: str | None,
    concurrency: int,
    keep_urls: bool,
    **properties: float | bool | None,
) -> int:
    """Consume QUEUE, or with --group a subscription of the topic QUEUE, until stopped.

    Each message is written to standard output as a line of NDJSON, which `narrowboat publish --ndjson` reads, and
    acknowledged after the line was written and flushed: the reader may see a message again, and misses none. When the
    reader goes away nothing more is acknowledged, and the exit code is 141.

    With --exec the command gets the body on its standard input and NARROWBOAT_MESSAGE_ID, _KEY, _ATTEMPT, _PRIORITY,
    _PUBLISHED_AT, _CORRELATION_ID, _CONTENT_TYPE, _SOURCE and _HEADERS (JSON) in its environment. Exit code 0
    acknowledges; any other gives the message back, to be tried again after a growing delay, and after --max-deliveries
    it goes to the dead letters. It does not see the variables that URLs are taken from, unless --keep-urls says so.

    --lease, --max-deliveries, --ordered and --priorities are stored with a source that is made by this; one that exists
    keeps its own. --lease and --max-deliveries then count for this consumer alone; another order is refused.

    SIGTERM and Ctrl-C stop in order: what is under way is finished and acknowledged, what was not begun goes back; the
    exit code is 0 after SIGTERM, 130 after Ctrl-C. A second one ends at once, and what is under way comes back.
    """
    if command is None and concurrency != 1:
        raise click.UsageError("--concurrency belongs to --exec")
    if command is not None and not command.strip():
        raise click.UsageError("--exec is empty: every message would be acknowledged and nothing done")
    window = prefetch or (100 if command is None else concurrency)
    if count is not None:
        window = min(window, count)
    with open_broker(url) as broker:
        consuming = consume_from(broker, queue, group, properties, prefetch=window, idle=idle)
        with consuming as messages, Drain(messages.stop) as drain:
            if command is None:
                code = write_out(messages, count)
            else:
                name = queue if group is None else f"{queue}.{group}"
                seen = environment(keep_urls=keep_urls)
                with Handler(command, concurrency, seen, source=name, longest=broker.capabilities.delay_max) as handler:
                    handler.run(messages, count)
                code = Exit.FAILED if handler.unsettled else Exit.OK
            return drain.code if drain.code is not None else code


def write_out(messages: Messages[bytes], count: int | None) -> int:
    """Write each message as a line and acknowledge it; up to `count`."""
    out = sys.stdout.buffer
    code = Exit.OK
    left = count
    while left != 0:
        size = _BATCH if left is None else min(_BATCH, left)
        batch = next(iter(messages.batches(size, wait=_GATHER)), None)
        if batch is None:
            break
        out.write(b"".join(map(to_line, batch)))
        out.flush()  # a reader that went away raises here, before anything of this batch is acknowledged
        for outcome in batch.ack():
            if isinstance(outcome, Exception):
                complain(f"written, but not acknowledged, so it may come again: {outcome}")
                code = Exit.FAILED
        left = None if left is None else left - len(batch)
    return code
