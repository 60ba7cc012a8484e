"""A sentence for an `assert` that has no text: its condition, and the values of the names in it.

    assert held.expires_in == 0        becomes        owed: held.expires_in == 0; seen: held.expires_in is 0.31

Scenarios are read more often than they fail, so most of their assertions have no text of their own. Calls are not made
again: they may have done something, and their result may be another one now.
"""

from __future__ import annotations

import ast
import linecache
import reprlib
from contextlib import AbstractContextManager
from types import CodeType, FrameType, TracebackType

from narrowboat.conformance.checks.collector import resting

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 160
_SHORT.maxlist = _SHORT.maxtuple = _SHORT.maxset = _SHORT.maxdict = 12


def one_tree_at_a_time() -> AbstractContextManager[None]:
    """A block that makes a syntax tree, as the formatting of a traceback does, while no other thread makes one.

    CPython 3.11 counts the depth of all trees in one place (gh-106905): threads that make them side by side get `SystemError:
    AST constructor recursion depth mismatch`. Between two nodes a thread gives way only to what a collection of garbage runs.
    """
    return resting()


def explain(error: AssertionError) -> None:
    """Give an `error` without a text one. It stays as it is where its source cannot be read."""
    if error.args or error.__traceback__ is None:
        return
    trace: TracebackType = error.__traceback__
    while trace.tb_next is not None:
        trace = trace.tb_next
    with one_tree_at_a_time():
        test = _condition(trace.tb_frame.f_code, trace.tb_lineno)
        if test is not None:
            error.args = (_sentence(test, trace.tb_frame),)


def _condition(code: CodeType, line: int) -> ast.expr | None:
    tree = ast.parse("".join(linecache.getlines(code.co_filename)) or "0")
    found = [
        node for node in ast.walk(tree) if isinstance(node, ast.Assert) and node.lineno <= line <= (node.end_lineno or line)
    ]
    return found[-1].test if found else None


def _sentence(test: ast.expr, frame: FrameType) -> str:
    values = dict(_values(test, frame))
    seen = ", ".join(f"{text} is {value}" for text, value in values.items())
    return f"owed: {ast.unparse(test)}; seen: {seen or 'it is not so'}"


def _values(node: ast.AST, frame: FrameType) -> list[tuple[str, str]]:
    """The largest parts of `node` that can be evaluated again without a call, and their values; no constants."""
    if isinstance(node, ast.Name | ast.Attribute | ast.Subscript) and all(
        isinstance(part, ast.Name | ast.Attribute | ast.Subscript | ast.Constant | ast.expr_context) for part in ast.walk(node)
    ):
        try:
            value = eval(  # noqa: S307  # our own source, and no call in it
                compile(ast.Expression(node), "<assert>", "eval"), frame.f_globals, frame.f_locals
            )
        except Exception:
            return []
        text = _SHORT.repr(value)
        return [] if callable(value) or "://" in text else [(ast.unparse(node), text)]  # a URL may hold a password
    if isinstance(node, ast.Call):
        return [found for part in [*node.args, *node.keywords] for found in _values(part, frame)]
    return [found for part in ast.iter_child_nodes(node) for found in _values(part, frame)]
