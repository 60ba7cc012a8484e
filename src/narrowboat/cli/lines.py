"""Lines as they come: from a file as fast as it can be read, from a pipe as soon as they are written."""

from __future__ import annotations

from collections.abc import Callable, Iterator

#: Bytes asked for at once. Smaller, and a large file costs many calls; larger, and its first message goes out later.
CHUNK = 256 * 1024
#: No line may be longer: what never ends with a newline would otherwise fill the memory.
LINE_MAX = 64 * 1024 * 1024


class LineTooLong(ValueError):
    """A line of more than LINE_MAX bytes."""


def batches(read: Callable[[int], bytes], size: int, *, chunk: int = CHUNK, line_max: int = LINE_MAX) -> Iterator[list[bytes]]:
    r"""The lines, each with its newline, in batches of up to `size`.

    `read(n)` gives what is there, up to n bytes, waits only when nothing is, and gives nothing at the end. All complete
    lines of one read are handed on before the next, so a slow writer's line is not kept back until a batch is full.

    >>> parts = iter([b"a\nb\nc", b"d\ne", b""])
    >>> list(batches(lambda n: next(parts), 2))
    [[b'a\n', b'b\n'], [b'cd\n'], [b'e']]
    """
    parts: list[bytes] = []  # of the line that is not complete yet
    length = 0
    while data := read(chunk):
        first, newline, rest = data.partition(b"\n")
        parts.append(first + newline)
        length += len(parts[-1])
        if newline:
            lines = [b"".join(parts), *_split(rest)]
            parts = [] if not rest or lines[-1].endswith(b"\n") else [lines.pop()]
            length = sum(map(len, parts))
            for start in range(0, len(lines), size):
                yield lines[start : start + size]
        if length > line_max:
            raise LineTooLong(f"it is longer than {line_max} bytes")
    if parts:
        yield [b"".join(parts)]


def _split(data: bytes) -> list[bytes]:
    r"""By newlines alone: a carriage return is part of the message."""
    pieces = [piece + b"\n" for piece in data.split(b"\n")]
    pieces[-1] = pieces[-1][:-1]
    return pieces if pieces[-1] else pieces[:-1]
