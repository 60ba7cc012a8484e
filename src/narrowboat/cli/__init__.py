"""The command line: `narrowboat lock`, `publish`, `consume`, `queues`, `depth`, `dead`, `holders`, `top`, and some more.

One file for each group of commands. What a command decides is a pure function beside it; what it prints goes through
`output`, what it exits with through `exits`. Only this package imports click and rich, which come with the extra `cli`.
"""

import rich  # noqa: F401  # named here so that a missing one is reported before any command has begun

from narrowboat.cli.app import run

__all__ = ["run"]
