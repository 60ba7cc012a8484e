"""What is read and written inside a transaction: the rows of locks and of messages, and their schemas."""

from pathlib import Path


def schema(half: str) -> str:
    """The statements that make the tables of "locks" or "messages", each with `IF NOT EXISTS`."""
    return Path(__file__).with_name(f"{half}.sql").read_text(encoding="utf-8")
