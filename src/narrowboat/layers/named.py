"""The layers that a broker's URL names: `?seal=`, `?seal_clear=`, `?seal_window=` and `?compress=`.

They stand directly in front of the driver, the seal nearest to it. What a program gives as `wrap=` stands in front of them, and
sees messages in clear.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from narrowboat.dsn import Url, convert
from narrowboat.errors import ConfigurationError

#: The options with their types. `compress` is one of `compressed.Algorithm`, which is loaded for those who ask for it.
OPTIONS: Mapping[str, type[Any]] = {"seal": str, "seal_clear": str, "seal_window": float, "compress": str}


class Target(Protocol):
    """What a URL leads to, as far as layers know it."""

    url: Url
    own: dict[str, Any]  #: the options of `OPTIONS` that were given, among others
    capabilities: Any
    wrap: Callable[[Any], Any] | None


def add(target: Target) -> None:
    """Put the layers that are asked for in front of the driver that `target` opens.

    `ConfigurationError` for what cannot work: a keyring that cannot be read, a library that is not installed.
    """
    if OPTIONS.keys().isdisjoint(target.own):
        return
    try:
        wraps = _wraps(target)
    except ConfigurationError as error:
        error.backend = target.url.scheme
        raise
    if target.wrap is not None:
        wraps.append(target.wrap)
    target.wrap = lambda driver: functools.reduce(lambda behind, wrap: wrap(behind), wraps, driver)


def _wraps(target: Target) -> list[Callable[[Any], Any]]:
    """The layers, the innermost first."""
    own = target.own
    wraps: list[Callable[[Any], Any]] = []
    if "seal" in own:
        from narrowboat.layers.sealed import Keyring, Seal

        window = own.get("seal_window")
        if window is not None and window <= 0:
            raise ConfigurationError(f"option seal_window={window:g}: expected more than 0 seconds")
        clear = [path for path in own.get("seal_clear", "").split(",") if path]
        seal = Seal(Keyring.named(own["seal"]), clear=clear, window=window)
        target.capabilities = seal.claims(target.capabilities)
        wraps.append(seal.wrap)
    elif lonely := [name for name in ("seal_clear", "seal_window") if name in own]:
        raise ConfigurationError(f"option {lonely[0]} says how sealed messages are taken: it needs seal=, the keyring")
    if "compress" in own:
        from narrowboat.layers.compressed import Algorithm, Compress

        algorithm: Any = convert("compress", own["compress"], Algorithm)
        wraps.append(Compress(algorithm).wrap)
    return wraps
