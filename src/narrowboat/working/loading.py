"""`module:attribute` as a worker: for the command line, and for whoever starts one by name."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

from narrowboat.dsn import unknown
from narrowboat.errors import ConfigurationError
from narrowboat.working.worker import Worker


def load(target: str) -> Any:
    """The worker of either face that `target` names, such as `shop.worker:worker`; `ConfigurationError` where there is none.

    The module is looked for in the current folder first, which stays on the path.
    """
    name, colon, attribute = target.partition(":")
    if not colon or not name or not attribute:
        raise ConfigurationError(f"{target!r}: expected MODULE:ATTRIBUTE, such as shop.worker:worker")
    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise _broken(name, error) from error
        raise ConfigurationError(
            f"{target!r}: there is no module {error.name!r} in this folder or in what is installed; write it as in an import"
        ) from error
    except Exception as error:
        raise _broken(name, error) from error
    workers = [each for each, value in vars(module).items() if is_worker(value)]
    if not hasattr(module, attribute):
        raise ConfigurationError(f"{target!r}: {unknown('worker', attribute, workers, of=name)}")
    worker = getattr(module, attribute)
    if not is_worker(worker):
        raise ConfigurationError(
            f"{target!r} is {type(worker).__name__}, and no narrowboat.Worker. Workers there: {', '.join(workers) or 'none'}."
        )
    return worker


def is_worker(value: object) -> bool:
    """Of either face; the asyncio one is not loaded for the question."""
    aio = sys.modules.get("narrowboat.aio.working.worker")
    return isinstance(value, (Worker, *(() if aio is None else (aio.Worker,))))


def _broken(name: str, error: Exception) -> ConfigurationError:
    return ConfigurationError(f"importing {name} failed: {type(error).__name__}: {error} (--debug shows where)")
