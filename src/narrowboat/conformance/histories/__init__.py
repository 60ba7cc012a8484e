"""Histories with faults: generated clients and an adversary from a seed, and pure functions that judge what was recorded.

    narrowboat verify sqlite:////tmp/kit.db --history 10m --seed 7

`plan` decides from the seed who does what and what goes wrong when, and `steps` what each user does next. `users` do it, in
the processes of `programs`; the `adversary` strikes; the `journal` keeps one JSON line an event. `grants` and `deliveries`
judge the lines, and `verdict` gathers what they found. `smallest` makes a failing history short, and `picture` draws it. `run`
does all of that for one backend.

The scenarios of the kit prove each promise alone. A history looks for what only comes together: use it before a release, and
when a scenario is not enough to find a defect. It proves nothing about a promise that its clients do not use.
"""

from narrowboat.conformance.histories.run import Result, history

__all__ = ["Result", "history"]
