"""The numbers that a URL's options may be: refused in one form in every backend, before anything is sent.

What is no number at all the core has refused already. What an option means, and why its bounds are where they are, its backend
says.
"""

from __future__ import annotations

from narrowboat.errors import ConfigurationError


def check_ranges(options: object, scheme: str, *ranges: tuple[str, float, float, str]) -> None:
    """Refuse an option that is out of its range: `ConfigurationError`, with `scheme` as its backend.

    Args:
        options: the backend's, whose attributes they are.
        scheme: as in the URL.
        ranges: for each its name, the least and the most that it may be, and what is allowed, in words.

    >>> from types import SimpleNamespace
    >>> check_ranges(SimpleNamespace(wait=9), "shop", ("wait", 0, 5, "0 to 5 seconds"))
    Traceback (most recent call last):
    narrowboat.errors.ConfigurationError: option wait=9: allowed are 0 to 5 seconds
    """
    for name, least, most, allowed in ranges:
        value = getattr(options, name)
        if not least <= value <= most:
            shown = f"{value:g}" if isinstance(value, float) else value
            raise ConfigurationError(f"option {name}={shown}: allowed are {allowed}", backend=scheme)


def check_spans(scheme: str, **spans: float) -> None:
    """Refuse an option of a URL that is a negative number of seconds: `ConfigurationError`, with `scheme` as its backend.

    >>> check_spans("shop", dedup=0.0, retention=60.0)
    """
    for name, seconds in spans.items():
        if seconds < 0:
            raise ConfigurationError(f"option {name}={seconds:g}: a number of seconds, 0 or more", backend=scheme)
