"""Why a codec refuses a body. Both are found as the cause, or in place, of the error that `message.data` raises."""

from __future__ import annotations

from collections.abc import Iterable

from narrowboat.errors import NarrowboatError

#: How many problems an error names, and how much of each, in characters: field names and texts may be the publisher's.
PROBLEMS, PATH, TEXT = 3, 80, 160


class InvalidBody(ValueError):
    """A body that does not fit. `fields` has the paths of what is wrong; "" is the whole body.

    The text names the first three. Of the body it has names of fields, and at most a value as its library quotes it; each
    problem is cut.
    """

    def __init__(self, problems: Iterable[tuple[str, str]]) -> None:
        found = [(_cut(path, PATH), _cut(text, TEXT)) for path, text in problems]
        self.fields = tuple(path for path, _ in found)
        said = "; ".join(f"{path}: {text}" if path else text for path, text in found[:PROBLEMS])
        more = len(found) - PROBLEMS
        super().__init__(said if more <= 0 else f"{said}; and {more} more")


class NewerVersion(NarrowboatError):
    """A message of a later version than this consumer knows. It comes back, for a consumer that knows it."""

    retryable = True


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 3]}..."
