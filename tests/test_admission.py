"""Who of a queue may go: the rules that every order of arrivals has to keep."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from narrowboat.contract.locks import Mode
from narrowboat.driver.admission import admitted, conflict, disagree, heads

READ_WRITE = st.lists(st.sampled_from([(Mode.EXCLUSIVE, None), (Mode.SHARED, None)]), max_size=12)


@given(READ_WRITE, st.sampled_from([(None, 0), (Mode.EXCLUSIVE, 1), (Mode.SHARED, 1), (Mode.SHARED, 5)]))
def test_who_goes_never_excludes_a_holder_or_each_other(
    queue: list[tuple[Mode, None]], holders: tuple[Mode | None, int]
) -> None:
    """A writer goes alone; readers go together, and never past a writer."""
    holding, held = holders
    many = heads(queue, holding=holding, held=held)
    going = [mode for mode, _ in queue[:many]]

    if holding is Mode.EXCLUSIVE:
        assert not going
    if holding is Mode.SHARED:
        assert Mode.EXCLUSIVE not in going
    assert going in ([], [Mode.EXCLUSIVE]) or set(going) == {Mode.SHARED}


@given(READ_WRITE.filter(bool), st.sampled_from([(None, 0), (Mode.SHARED, 2)]))
def test_nobody_waits_who_could_go(queue: list[tuple[Mode, None]], holders: tuple[Mode | None, int]) -> None:
    """A free lock always goes to the first; who is first after the heads really cannot go along."""
    holding, held = holders
    many = heads(queue, holding=holding, held=held)

    if holding is None:
        assert many >= 1
    if many < len(queue):
        assert Mode.EXCLUSIVE in {queue[many][0], queue[0][0]}


@given(st.integers(1, 8), st.integers(0, 8), st.integers(0, 12))
def test_a_semaphore_is_filled_and_never_overfilled(limit: int, held: int, waiting: int) -> None:
    """Exactly as many go as there are permits left."""
    held = min(held, limit)
    queue = [(Mode.SEMAPHORE, limit)] * waiting

    assert heads(queue, holding=Mode.SEMAPHORE if held else None, held=held) == min(waiting, limit - held)


@given(READ_WRITE, st.sampled_from([(None, 0), (Mode.EXCLUSIVE, 1), (Mode.SHARED, 3)]))
def test_the_heads_are_those_who_are_admitted_one_by_one(
    queue: list[tuple[Mode, None]], holders: tuple[Mode | None, int]
) -> None:
    """Asking for each waiter by itself, as a query does, gives the same answer as walking the queue."""
    holding, held = holders
    modes = [mode for mode, _ in queue]
    single = [
        admitted(mode, None, holding=holding, held=held, ahead=index, writer_ahead=Mode.EXCLUSIVE in modes[:index])
        for index, mode in enumerate(modes)
    ]

    assert single == [True] * sum(single) + [False] * (len(single) - sum(single))
    assert heads(queue, holding=holding, held=held) == sum(single)


KINDS = st.tuples(st.sampled_from(Mode), st.integers(1, 3)).map(
    lambda kind: (kind[0], kind[1] if kind[0] is Mode.SEMAPHORE else None)
)


@given(KINDS, KINDS)
def test_only_semaphores_of_one_size_and_readers_with_writers_agree(
    one: tuple[Mode, int | None], other: tuple[Mode, int | None]
) -> None:
    """Disagreement is mutual, and never with oneself."""
    assert not disagree(*one, *one)
    assert disagree(*one, *other) == disagree(*other, *one)
    assert disagree(*one, *other) == (one != other and Mode.SEMAPHORE in {one[0], other[0]})
    assert "'n'" in conflict("n", *one, *other)
