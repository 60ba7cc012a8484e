"""psycopg has every name that the backend uses of it, and `library.py` uses none that psycopg does not promise."""

from __future__ import annotations

import ast
from pathlib import Path

import psycopg.pq
import pytest

import narrowboat_postgresql

PACKAGE = Path(narrowboat_postgresql.__file__).parent
#: What `library.py` calls on a connection and on a result. All of it stands in psycopg's documentation of `psycopg.pq`.
_CONNECTION = """connect_start connect_poll status socket nonblocking server_version backend_pid parameter_status consume_input
    send_query send_query_params send_prepare send_query_prepared flush is_busy get_result notifies get_error_message finish"""
CONNECTION = frozenset(_CONNECTION.split())
RESULT = frozenset({"status", "error_field", "nfields", "ntuples", "get_value"})


@pytest.mark.parametrize("name", sorted(CONNECTION))
def test_a_connection_has_what_is_used(name: str) -> None:
    assert hasattr(psycopg.pq.PGconn, name)


@pytest.mark.parametrize("name", sorted(RESULT))
def test_a_result_has_what_is_used(name: str) -> None:
    assert hasattr(psycopg.pq.PGresult, name)


def test_nothing_else_is_used() -> None:
    """Each attribute of a connection or a result that `library.py` reads is in the lists above."""
    used = {"connection": CONNECTION, "_connection": CONNECTION, "result": RESULT, "last": RESULT}
    found: set[str] = set()
    for node in ast.walk(ast.parse((PACKAGE / "library.py").read_text())):
        if isinstance(node, ast.Attribute):
            owner = node.value.attr if isinstance(node.value, ast.Attribute) else getattr(node.value, "id", "")
            if owner in used:
                assert node.attr in used[owner], node.attr
                found.add(node.attr)
    assert found | {"connect_start"} >= CONNECTION | RESULT


def test_the_client_library_is_known_in_one_file() -> None:
    for path in PACKAGE.rglob("*.py"):
        if path.name != "library.py":
            assert "psycopg" not in {
                (name or "").partition(".")[0]
                for node in ast.walk(ast.parse(path.read_text()))
                for name in (
                    [node.module]
                    if isinstance(node, ast.ImportFrom)
                    else [alias.name for alias in node.names]
                    if isinstance(node, ast.Import)
                    else []
                )
            }, path
