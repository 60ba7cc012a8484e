"""What the library logs, on standard error, for a command that runs for long. A program that logs by itself is left alone."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

from narrowboat.cli.output import printable_lines, redact


class _Lines(logging.Formatter):
    """As `complain` writes them."""

    def format(self, record: logging.LogRecord) -> str:
        return printable_lines(redact(f"narrowboat: {super().format(record)}"))


@contextlib.contextmanager
def shown(*, quiet: bool) -> Iterator[None]:
    """Within the block: warnings and errors, and without `quiet` what else happens to a worker."""
    logger, handler = logging.getLogger("narrowboat"), logging.StreamHandler()
    if logger.hasHandlers():
        yield
        return
    handler.setFormatter(_Lines())
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.WARNING if quiet else logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
