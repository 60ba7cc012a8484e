"""Names of users as names of a server: what is escaped or hashed stays apart, and looks as it always did."""

from __future__ import annotations

import hashlib
from urllib.parse import quote, unquote

from hypothesis import given
from hypothesis import strategies as st

from narrowboat.driver.names import digest, escape_all, fit

NAMES = st.text(st.characters(exclude_categories=["Cs"]), max_size=60)
SAFE = st.sampled_from(["", "-_.", "-_.~@+=,"])


@given(NAMES, SAFE)
def test_percent_is_that_of_urls(name: str, safe: str) -> None:
    """Keys that older versions wrote are found again. What `quote` always keeps is named here."""
    assert escape_all(name, safe + "-_.~") == quote(name, safe=safe)
    assert unquote(escape_all(name, safe)) == name


@given(NAMES, NAMES, SAFE, st.integers(0, 40), st.sampled_from(["%{:02X}", "_{:02x}"]))
def test_two_names_never_meet(one: str, other: str, safe: str, longest: int, escape: str) -> None:
    """As long as the character that escapes is escaped itself, and the mark is no beginning of a name."""
    safe = safe.replace("_", "")
    made = [fit(each, safe, longest, "#", escape=escape) for each in (one, other)]
    assert (made[0] == made[1]) == (one == other)


@given(NAMES, st.integers(0, 100))
def test_nothing_is_longer_than_it_may_be_but_a_hash(name: str, longest: int) -> None:
    """And that is as long as a hash is."""
    made = fit(name, "", longest, "#")
    assert len(made) <= longest or made == "#" + hashlib.sha256(name.encode()).hexdigest() == "#" + digest(name)
