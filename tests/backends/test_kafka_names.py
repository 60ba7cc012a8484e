"""Names of topics and groups on Kafka: all that the server takes, and no two the same."""

from __future__ import annotations

import string

from hypothesis import given
from hypothesis import strategies as st

from narrowboat.contract import Address, Kind
from narrowboat_kafka.topology import names

_names = st.one_of(
    st.text(st.sampled_from("aB1._-"), min_size=1, max_size=12),
    st.text(min_size=1, max_size=30),
    st.text("x", min_size=170, max_size=300),
)
_prefixes = st.one_of(st.just(""), st.from_regex(r"[a-z0-9.]{1,4}(-[a-z0-9.]{1,4})?", fullmatch=True))
_legal = set(string.ascii_letters + string.digits + "._-")


@given(_names, _prefixes)
def test_every_name_is_one_that_the_server_takes(name: str, prefix: str) -> None:
    queue, group = Address(Kind.QUEUE, name), Address(Kind.SUBSCRIPTION, name, "g" * 100)
    for found in (
        names.topic(queue, prefix),
        names.retry(queue, prefix),
        names.retry(group, prefix),
        names.delayed(queue, prefix),
    ):
        assert set(found) <= _legal
        assert len(found) <= 249
        assert found not in (".", "..")


@given(_names, _prefixes, _names, _prefixes)
def test_no_two_names_meet(one: str, here: str, two: str, there: str) -> None:
    if (one, here) != (two, there):
        assert names.topic(Address(Kind.QUEUE, one), here) != names.topic(Address(Kind.QUEUE, two), there)


@given(_names, _names, st.from_regex(r"[a-z0-9.]{1,4}", fullmatch=True))
def test_within_a_namespace_the_server_takes_no_two_for_the_same(one: str, two: str, prefix: str) -> None:
    def seen(name: str) -> str:
        return names.topic(Address(Kind.QUEUE, name), prefix).replace("_", ".")

    if one != two:
        assert seen(one) != seen(two)


@given(st.from_regex(r"[A-Za-z0-9._]{1,180}", fullmatch=True).filter(lambda name: name not in (".", "..")))
def test_plain_names_are_kept_for_other_programs(name: str) -> None:
    stem = name.removesuffix(".dead")
    assert names.topic(Address(Kind.QUEUE, name), "") == name or not stem
