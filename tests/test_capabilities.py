"""Claims and demands: `require=` in both directions, and the table that pages are made of."""

from __future__ import annotations

import dataclasses
import math
import traceback

import pytest
from hypothesis import given
from hypothesis import strategies as st

import narrowboat
from narrowboat.capabilities import (
    BrokerCapabilities,
    Expiry,
    Kept,
    LeaseNature,
    LockCapabilities,
    Scope,
    SettleFencing,
    Settlement,
    Support,
    Survives,
    WaitOrder,
    WakeUp,
    check_required,
    parse_require,
    table,
)
from narrowboat.errors import ConfigurationError, Unsupported

LOCKS = LockCapabilities(
    scope=Scope.HOST,
    expiry=Expiry.LEASE,
    survives=Survives.CRASH,
    fencing=Support.NATIVE,
    fencing_survives=Survives.POWER,
    order=WaitOrder.FIFO,
    wake=WakeUp.POLLED,
    shared=Support.EMULATED,
    semaphore=Support.ABSENT,
    holders=Support.NATIVE,
    evict=Support.NATIVE,
)
BROKER = BrokerCapabilities(
    scope=Scope.NETWORK,
    survives=Survives.POWER,
    settlement=Settlement.DURABLE,
    settle_fencing=SettleFencing.SERVER,
    kept=Kept.UNTIL_CONSUMED,
    lease=LeaseNature.MESSAGE,
    wake=WakeUp.NOTIFIED,
    topics=Support.NATIVE,
    order=Support.NATIVE,
    delay=Support.NATIVE,
    priority=Support.ABSENT,
    ttl=Support.NATIVE,
    dedup=Support.EMULATED,
    replay=Support.ABSENT,
    dead_letters=Support.NATIVE,
    request_reply=Support.NATIVE,
    depth=Support.EMULATED,
    uncounted_release=Support.ABSENT,
    dedup_window=600.0,
)


def demands(capabilities: LockCapabilities | BrokerCapabilities, require: object) -> None:
    check_required(capabilities, require, backend="x")  # type: ignore[arg-type]  # bad ones are given as well


@pytest.mark.parametrize("level", list(Survives))
@pytest.mark.parametrize("claimed", list(Survives))
def test_a_level_is_met_by_itself_and_by_all_that_are_stronger(claimed: Survives, level: Survives) -> None:
    """Met exactly when what is claimed comes no earlier in the order of the enum."""
    capabilities = dataclasses.replace(LOCKS, survives=claimed)
    levels = list(Survives)

    if levels.index(claimed) >= levels.index(level):
        demands(capabilities, f"survives={level.value}")
    else:
        with pytest.raises(Unsupported) as caught:
            demands(capabilities, f"survives={level.value}")
        assert f"survives={level.value} (claimed: {claimed.value})" in str(caught.value)
        assert caught.value.backend == "x"


@pytest.mark.parametrize("claimed", list(Support))
def test_a_bare_name_demands_that_it_is_there(claimed: Support) -> None:
    """Native or emulated will do; absent will not."""
    capabilities = dataclasses.replace(LOCKS, shared=claimed)

    for require in ("shared", {"shared": True}, {"shared": ""}, " shared ,"):
        if claimed is Support.ABSENT:
            with pytest.raises(Unsupported, match="claimed: absent"):
                demands(capabilities, require)
        else:
            demands(capabilities, require)


@given(claimed=st.floats(0, 1e6), wanted=st.floats(0, 1e6))
def test_numbers_are_at_least_where_more_is_better_and_at_most_where_less_is(claimed: float, wanted: float) -> None:
    """`ttl_max` counts up, `wake_bound` counts down."""

    def met(**claims: float) -> bool:
        (name,) = claims
        try:
            demands(dataclasses.replace(LOCKS, **claims), {name: repr(wanted)})  # type: ignore[arg-type]  # fields by name
        except Unsupported:
            return False
        return True

    assert met(ttl_max=claimed) is (claimed >= wanted)
    assert met(wake_bound=claimed) is (claimed <= wanted)


def test_a_number_in_a_mapping_keeps_all_its_digits() -> None:
    """A demand is not rounded on its way through text."""
    month = dataclasses.replace(BROKER, delay_max=2592000.0)

    demands(month, {"delay_max": 2592000.0})
    with pytest.raises(Unsupported, match=r"delay_max=2592000\.5 \(claimed: 2592000\)"):
        demands(month, {"delay_max": 2592000.5})


def test_every_number_of_which_more_is_better_is_named_so() -> None:
    """A new field that ends in `_max` or `_window` counts up; bounds, lags and minima count down."""
    for capabilities in (LOCKS, BROKER):
        for field in dataclasses.fields(capabilities):
            value = getattr(capabilities, field.name)
            if not isinstance(value, (int, float)):
                continue
            more = dataclasses.replace(capabilities, **{field.name: value + 1})  # type: ignore[arg-type]  # fields by name
            if field.name.endswith(("_max", "_window")):
                demands(more, {field.name: str(value)})
            else:
                with pytest.raises(Unsupported):
                    demands(more, {field.name: str(value)})


def test_several_demands_are_all_told_at_once() -> None:
    """Nobody has to try again to learn of the second."""
    with pytest.raises(Unsupported) as caught:
        demands(LOCKS, "semaphore,survives=power,fencing")

    assert "semaphore=anything but absent (claimed: absent)" in str(caught.value)
    assert "survives=power (claimed: crash)" in str(caught.value)
    assert "fencing" not in str(caught.value).replace("fencing_survives", "")


@pytest.mark.parametrize(
    ("require", "says"),
    [
        ("fenceing", "did you mean 'fencing'?"),
        ("concurrency=serial", "not a claim"),
        ("survives", "say which level; allowed are: nothing, crash"),
        ("order", "say which level; allowed are: any, fifo"),
        ("survives=everything", "allowed are: nothing, crash, power, node, data loss"),
        ("survives=powr", "survives='powr' (did you mean 'power'?): not a level of survives; allowed are: nothing"),
        ("survives=power,survives=crash", "demands survives twice"),
        ({"fencing": False}, "not a level of fencing"),
        ("ttl_max=long", "expected a finite number"),
        ("ttl_max=nan", "expected a finite number"),
        (7, "got int"),
        (["fencing"], "got list"),
    ],
)
def test_a_demand_that_makes_no_sense_is_refused_with_what_there_is(require: object, says: str) -> None:
    """A misspelt demand must not pass as one that is met."""
    with pytest.raises(ConfigurationError) as caught:
        demands(LOCKS, require)

    assert says in str(caught.value)


@pytest.mark.parametrize(
    "require", ["{}", "fencing,{}", "{}=1", "survives={}", "ttl_max={}", "{}=1,{}=2", "survives=crash,survives={}"]
)
def test_what_is_demanded_is_repeated_only_where_it_is_near_to_a_known_word(require: str) -> None:
    """A password may stand in its place, as it may in every option of a URL."""
    for secret in ("Zq9Xk-S3cr3t", "hunter"):
        with pytest.raises(ConfigurationError) as caught:
            demands(LOCKS, require.format(secret, secret))
        told = "".join(traceback.format_exception(caught.value))
        assert secret not in told


def test_levels_of_two_words_may_be_written_with_an_underscore() -> None:
    """`data_loss` needs no quoting in a URL."""
    demands(dataclasses.replace(LOCKS, fencing_survives=Survives.DATA_LOSS), "fencing_survives=data_loss")


def test_the_same_demand_twice_is_one() -> None:
    """It is only refused when the two disagree."""
    assert parse_require("survives=power, survives=power") == {"survives": "power"}
    assert parse_require(None) == parse_require("") == {}


@given(st.dictionaries(st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.from_regex(r"[a-z0-9. ]{0,8}", fullmatch=True)))
def test_text_and_mapping_say_the_same(wanted: dict[str, str]) -> None:
    """`"a,b=c"` is `{"a": "", "b": "c"}`."""
    stripped = {name: value.strip() for name, value in wanted.items()}

    assert parse_require(",".join(f"{name}={value}" for name, value in wanted.items())) == parse_require(stripped)


def test_the_demand_comes_from_the_url_and_from_the_call() -> None:
    """Both are checked before anything is sent, and either may refuse."""
    with narrowboat.locks("memory://cap?require=fencing", require="order=fifo") as locks:
        assert locks.capabilities.fencing is not Support.ABSENT

    for url, require in (("memory://cap?require=survives=power", None), ("memory://cap", {"survives": Survives.POWER})):
        with pytest.raises(Unsupported, match="survives=power"):
            narrowboat.locks(url, require=require)


@pytest.mark.parametrize("capabilities", [LOCKS, BROKER])
def test_the_table_has_every_claim_as_text(capabilities: LockCapabilities | BrokerCapabilities) -> None:
    """In the order of the fields; what it says can be demanded of the same backend and is met."""
    rows = table(capabilities)

    assert list(rows) == [field.name for field in dataclasses.fields(capabilities)]
    assert all(isinstance(value, str) and value for value in rows.values())
    for name, value in rows.items():
        if name != "concurrency" and value != "absent":
            demands(capabilities, {name: value})


def test_a_claim_is_a_value() -> None:
    """Frozen, so that nobody promises more after the check."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        LOCKS.survives = Survives.NODE  # type: ignore[misc]  # that is the point
    assert math.isfinite(LOCKS.ttl_max)


def test_a_claim_of_the_other_half_and_a_level_in_capitals_are_named() -> None:
    """They are known words, and so no secrets."""
    for require, says in (("lease=message", "require=lease is not a claim"), ("scope=NETWORK", "did you mean 'network'")):
        with pytest.raises(ConfigurationError, match=says):
            narrowboat.locks("memory://cap", require=require)
