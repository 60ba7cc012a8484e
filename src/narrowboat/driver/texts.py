"""What others say, fit for an error of ours: one line, of a sane length, without characters that steer a terminal.

For each reply, reason or name from a server that goes into the text of an error or a log record. It takes out no secret: who
has sent one takes it out first.
"""

from __future__ import annotations

#: Characters. Shorter cuts what a server explains in two sentences, longer fills a log with what a broken server sends.
LONGEST = 400


def cut(text: object, longest: int = LONGEST) -> str:
    r"""`text` in one line, with an escape for what cannot be printed, and cut to `longest` characters.

    >>> cut("ERR unknown\r\ncommand \x1b[2J")
    'ERR unknown command \\x1b[2J'
    >>> cut("x" * 100_000, longest=10)
    'xxxxxxxxxx... (100000 characters)'
    """
    whole = str(text)
    # The rest of it is not walked, which counts where a server sends 100 MB.
    head = " ".join(whole[: 4 * longest].split())
    shown = "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in head[:longest])
    cut_off = len(head) > longest or len(whole) > 4 * longest
    return f"{shown}... ({len(whole)} characters)" if cut_off else shown
