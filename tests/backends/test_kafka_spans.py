"""A set of offsets as spans: the same as a set of numbers, whatever is added and cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from narrowboat_kafka.format.spans import Spans

_steps = st.lists(st.tuples(st.booleans(), st.integers(0, 60), st.integers(0, 12)), max_size=40)


@given(_steps, st.integers(0, 60), st.integers(0, 60))
def test_it_is_the_set_of_what_was_added(steps: list[tuple[bool, int, int]], start: int, stop: int) -> None:
    spans, known = Spans(), set[int]()
    for cutting, offset, width in steps:
        if cutting:
            spans.cut(offset)
            known = {each for each in known if each >= offset}
        else:
            spans.add(offset, offset + width)
            known |= set(range(offset, offset + width))
        assert list(spans) == sorted(known)
        assert len(spans) == len(known)
        assert bool(spans) == bool(known)
        assert spans.end == (max(known) + 1 if known else None)
    assert [each in spans for each in range(80)] == [each in known for each in range(80)]
    assert [each for gap in spans.gaps(start, stop) for each in gap] == [
        each for each in range(start, stop) if each not in known
    ]
    assert spans.after(start) == next(each for each in range(start, 200) if each not in known)
    touching = [(one.stop, two.start) for one, two in zip([*spans.ranges()], [*spans.ranges()][1:], strict=False)]
    assert all(one < two for one, two in touching)
