"""What a scenario has measured, for the report: times beside the bounds that a backend declares, and counts."""

from __future__ import annotations

from typing import NamedTuple


class Measured(NamedTuple):
    """A number that a scenario found."""

    what: str
    value: float
    unit: str = "s"
    bound: float | None = None  #: what it must not exceed, in the same unit


def missed(seconds: float, what: object) -> str:
    """The text of a missed bound. By its first words the runner knows that no pause of the machine explains it."""
    return f"not within {seconds:g} s: {what}"
