"""The tables and functions of both halves: made once, however many come at once, and only ever changed forward.

The schema has a number. A process that finds an older one brings it up to date under an advisory lock; one that finds a newer
one refuses. A process that finds its own needs no right to make anything.

The schema's name stands in the statements as it is, for the options let through letters, digits and underscores only. So does
a namespace, which they have escaped.
"""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING

from narrowboat.driver.endpoint import Endpoint
from narrowboat_postgresql.errors import newer_schema

if TYPE_CHECKING:
    from narrowboat_postgresql.library import Link

#: What leads from one version to the next, the first one first. A step that was released is never changed again.
STEPS: tuple[tuple[str, ...], ...] = (("spaces.sql", "locks.sql", "messages.sql", "flow.sql"),)
VERSION = len(STEPS)
#: Of the advisory lock under which the schema is made: "narrowbo" as a number.
_LOCK = 0x6E6172726F77626F


def text(schema: str, name: str) -> str:
    """One of the files of SQL, for that schema."""
    return files("narrowboat_postgresql").joinpath("sql", name).read_text("utf-8").replace("nb.", f"{schema}.")


def look(schema: str, space: str) -> str:
    """What asks for the version and the number of a namespace, as two columns; refused where the schema is not there."""
    return f"(SELECT max(number) FROM {schema}.version), (SELECT id FROM {schema}.space WHERE prefix = '{space}')"  # noqa: S608  # see above


def ensure(link: Link, endpoint: Endpoint, schema: str, space: str, seen: tuple[int, int | None], ends: float) -> int:
    """The number of the namespace `space`, in a schema of our version. `seen`: what `look` told; no version: 0."""
    version, number = seen
    if version != VERSION:
        _bring(link, endpoint, schema, version, ends)
    if number is None:
        link.run(f"INSERT INTO {schema}.space (prefix) VALUES ($1) ON CONFLICT DO NOTHING", [space], ends)  # noqa: S608  # see above
        ((found,),) = link.run(f"SELECT id FROM {schema}.space WHERE prefix = $1", [space], ends)  # noqa: S608  # see above
        number = int(found or b"")
    return number


def _version(link: Link, schema: str, ends: float) -> int:
    if link.script(f"SELECT to_regclass('{schema}.version')", ends)[0][0] is None:
        return 0
    return int(link.script(f"SELECT max(number) FROM {schema}.version", ends)[0][0] or b"0")  # noqa: S608  # see above


def _bring(link: Link, endpoint: Endpoint, schema: str, found: int, ends: float) -> None:
    """Up to date, by whoever comes first; the others wait for that."""
    if found <= VERSION:
        # Before the transaction: one that began before the tables were there may go on believing that they are not.
        link.script(f"SELECT pg_advisory_lock({_LOCK})", ends)
        link.script("BEGIN", ends)
        found = _version(link, schema, ends)
    if found > VERSION:
        raise newer_schema(endpoint, schema, found, VERSION)
    steps = [text(schema, name) for names in STEPS[found:] for name in names]
    if steps:
        # Where it is there, no right to make one is needed.
        if link.script(f"SELECT to_regnamespace('{schema}')", ends)[0][0] is None:
            link.script(f"CREATE SCHEMA {schema}", ends)
        link.script("; ".join([*steps, f"INSERT INTO {schema}.version (number) VALUES ({VERSION})"]), ends)  # noqa: S608  # see above
    link.script("COMMIT", ends)
    link.script(f"SELECT pg_advisory_unlock({_LOCK})", ends)
