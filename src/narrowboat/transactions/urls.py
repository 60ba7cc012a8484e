"""A database by its URL, for commands: what opens a connection to it. A program opens its connections itself."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote, urlsplit

from narrowboat.dsn import hidden
from narrowboat.errors import ConfigurationError
from narrowboat.registry import how_to_install

#: What each scheme looks like.
_EXAMPLES = "sqlite:///shop.db or postgresql://user@host/shop"


def connector(url: str) -> Callable[[], Any]:
    """What opens connections to the database of `url`; `ConfigurationError` for what is no such URL."""
    url = hidden(url)
    parts = urlsplit(url)
    if parts.scheme == "sqlite":
        path = unquote(parts.path)[1:]
        if not path or parts.netloc:
            raise ConfigurationError(f"the URL of a database: a file's has three slashes and its path, such as {_EXAMPLES}")
        # A file that is not there stays so: an empty database would only hide the wrong path.
        return lambda: importlib.import_module("sqlite3").connect(f"file:{quote(path)}?mode=rw", uri=True, timeout=30.0)
    if parts.scheme in ("postgresql", "postgres"):
        try:
            client = importlib.import_module("psycopg")
        except ImportError as error:
            raise ConfigurationError(
                f"a postgresql:// database needs psycopg: {how_to_install('narrowboat', 'postgresql')}"
            ) from error
        return lambda: client.connect(url)
    raise ConfigurationError(f"the URL of a database: expected {_EXAMPLES}, got the scheme {parts.scheme!r}")
