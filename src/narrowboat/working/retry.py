"""When a message comes back whose handler failed, and which failures make it a dead letter at once.

Give `retry=Retry(...)` to a handler of a `Worker`. How often a message is tried at all is no part of it: that is the source's
`max_deliveries`, which its consumer keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from narrowboat._engine.checks import seconds
from narrowboat._messages.checks import MAX_DURATION
from narrowboat.errors import InvalidArgument


@dataclass(frozen=True, slots=True)
class Retry:
    """A backoff with jitter, by exception.

    Args:
        first: seconds before the second delivery.
        factor: each further delay is this many times as long.
        most: seconds that no delay exceeds, `first` neither; nor does it exceed what the backend can keep.
        jitter: which part of a delay is drawn: 0.5 gives between half of it and all of it, 0 always all of it.
        drop: exceptions for which another attempt would not help: the message becomes a dead letter at once.
        when: another Retry for some exceptions.

    Of all classes in `drop` and `when` the nearest one counts: the class that was raised, then its bases in their order
    (`__mro__`). A Retry that `when` gives is asked in the same way. A class in both is refused.
    """

    first: float = 1.0
    factor: float = 2.0
    most: float = 300.0
    jitter: float = 0.5
    drop: tuple[type[Exception], ...] = ()
    when: Mapping[type[Exception], Retry] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_growth(self.first, self.factor, self.most, self.jitter)
        if not isinstance(self.drop, tuple) or not all(map(_is_exception, self.drop)):
            raise InvalidArgument(f"drop={self.drop!r}: expected a tuple of exception classes, such as (ValueError,)")
        if not isinstance(self.when, Mapping) or not all(
            _is_exception(kind) and isinstance(rule, Retry) for kind, rule in self.when.items()
        ):
            raise InvalidArgument(f"when={self.when!r}: expected exception classes and a Retry for each")
        both = [kind.__name__ for kind in self.drop if kind in self.when]
        if both:
            raise InvalidArgument(f"{', '.join(both)} in drop= and in when=: a message is a dead letter at once, or comes back")

    def rule(self, error: Exception) -> Retry | None:
        """What counts for `error`; None: it is dropped.

        >>> slow = Retry(first=60)
        >>> retry = Retry(drop=(OSError,), when={TimeoutError: slow})
        >>> retry.rule(TimeoutError()) is slow, retry.rule(ConnectionError()), retry.rule(ValueError()) is retry
        (True, None, True)
        """
        for kind in type(error).__mro__:
            if kind in self.drop:
                return None
            if kind in self.when:
                return self.when[kind].rule(error)
        return self

    def drops(self, error: Exception) -> bool:
        """Whether `error` makes its message a dead letter at once."""
        return self.rule(error) is None

    def delay(self, attempt: int, error: Exception, random: Callable[[], float]) -> float:
        """Seconds before the delivery after the `attempt`-th (1 is the first), which ended with `error`."""
        rule = self.rule(error) or self  # dropped, on a backend without dead letters
        return growing(attempt, rule.first, rule.factor, rule.most, rule.jitter, random)


def growing(number: int, first: float, factor: float, most: float, jitter: float, random: Callable[[], float]) -> float:
    """The `number`-th of delays that grow.

    >>> [growing(number, 1, 4, 600, 0.5, lambda: 1.0) for number in (1, 2, 3, 9, 10_000)]
    [1.0, 4.0, 16.0, 600.0, 600.0]
    >>> growing(1, 1, 4, 600, 0.5, lambda: 0.0)
    0.5
    """
    try:
        full = min(float(most), first * float(factor) ** (number - 1))
    except OverflowError:
        full = float(most)
    return full * (1.0 - jitter + jitter * random())


def check_growth(first: object, factor: object, most: object, jitter: object) -> None:
    """`InvalidArgument` for what could not grow."""
    for name, value in (("first", first), ("most", most)):
        seconds(name, value, low=0.0, high=MAX_DURATION, allowed="0 or more seconds")
    if first > most:  # type: ignore[operator]  # numbers by now
        raise InvalidArgument(f"first={first:g} with most={most:g}: no delay exceeds most, so give a longer one as well")
    seconds("factor", factor, low=1.0, high=1e6, allowed="1 to 1,000,000")
    seconds("jitter", jitter, low=0.0, high=1.0, allowed="0 to 1")


def _is_exception(kind: object) -> bool:
    return isinstance(kind, type) and issubclass(kind, Exception)
