"""One line for the logger `narrowboat`, with fields for programs that read logs.

A field `away` is the record's attribute `narrowboat_away`: a formatter that writes JSON finds it there, and no name of
logging's own is taken.
"""

from __future__ import annotations


def log(level: str, text: str, *arguments: object, error: BaseException | None = None, **fields: object) -> None:
    """Write it; `error` adds its traceback. `event` among the fields names what happened, for filters."""
    import logging  # slow to import, and needed by no program in which all goes well

    extra = {f"narrowboat_{name}": value for name, value in fields.items()}
    logging.getLogger("narrowboat").log(getattr(logging, level), text, *arguments, exc_info=error, extra=extra)
