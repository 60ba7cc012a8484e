"""The conformance kit against one server, in a test for each face.

    test_redis = conformance(RedisServer)
    test_redis_tls = conformance(RedisServer, only=TRANSPORT, password="s3cret", tls=True)
    test_redis_cluster = conformance(RedisServer, RedisCluster, harness=Scattered, only=TRANSPORT)

One test and not an item for each scenario: most of them wait, and `verify` lets those that may wait beside each other. What is
broken is in the test's failure. `NARROWBOAT_KIT_ONLY` runs it again alone.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from integration import evidence
from integration.kept import lent
from integration.servers.given import GivenServer
from integration.servers.server import Controls, Server
from narrowboat.conformance import Harness, Report, verify
from narrowboat.conformance.catalogue import Fault
from narrowboat.conformance.harness import with_query
from narrowboat.conformance.scenario import FACES

#: The tiers to run, as letters; all unless told. What a commit is tried with is less than what a release is.
TIERS = os.environ.get("NARROWBOAT_KIT_TIERS", "").upper() or "CTSPNRH"
#: Ids or scenarios, separated by commas, and no others: what one wants to see again. All unless told.
ONLY = frozenset(filter(None, os.environ.get("NARROWBOAT_KIT_ONLY", "").split(",")))

#: What a set-up can break that differs from the plain one in its transport alone (TLS, a password, another topology): one plain
#: use of each half, a wake-up, a batch, large bodies, who is told to go away, closing, leaks, and a fork. The rest of what is
#: promised is proven on the plain set-up of the backend; with every tier asked for, it is tried here as well.
TRANSPORT: tuple[str, ...] = (
    *("L01", "L02", "L21", "L111", "L113", "L114", "L115"),
    *("B01", "B02", "B07", "B12", "B88", "B90", "B109", "B111"),
)
#: What a second client library under one backend can break beside that: who settles what when members come, go, are killed or
#: stopped; what is committed; what was sent when a call ends badly; what foreign bytes do to it. The rest is the backend's own.
CLIENT: tuple[str, ...] = (
    *TRANSPORT,
    *("B21", "B23", "B25", "B27", "B28", "B34", "B35", "B38", "B39", "B40", "B41", "B63", "B65", "B66", "B79", "B80"),
    *("B97", "B98", "B101", "B120", "B121", "B122"),
)
if "T" in TIERS:
    TRANSPORT = CLIENT = ()


class Scattered(Harness):
    """For servers that tell their clients where to go: a proxy in front of the URL's hosts would be passed by."""

    def faults(self, half: str) -> frozenset[Fault]:
        return super().faults(half) - {Fault.PROXY}


def conformance(
    kind: type[Server],
    make: Callable[..., Controls] | None = None,
    *,
    harness: Callable[..., Harness] = Harness,
    only: Iterable[str] = (),
    tiers: Iterable[str] = (),
    faces: Iterable[str] = FACES,
    size: float = 1.0,
    query: str = "",
    driver: str = "",
    **options: Any,
) -> Callable[..., None] | None:
    """A test for each face; None, which pytest does not collect, where none of its tiers or ids is to be run.

    Args:
        kind: the server that the machine must have.
        make: what makes the service, where it is more than one plain server; takes `image` and `options`.
        harness: makes the harness of a URL and a server; a given server has a plain one, that does nothing to it.
        only: these ids or scenarios only.
        tiers: these tiers only, as letters.
        faces: these faces only.
        size: scales the rounds of stress scenarios.
        query: options to append to the server's URL, such as "wait=1".
        driver: the driver that the URL names, such as "confluent".
        options: of `make`, or of `kind`.
    """
    if not allowed(tiers) or chosen(only) is None:
        return None

    @pytest.mark.timeout(1800)
    @pytest.mark.parametrize("face", list(faces))
    def test_conformance(face: str) -> None:
        with lent(kind, make, **options) as server:
            url = server.url.replace("://", f"+{driver}://", 1) if driver else server.url
            if query:
                url = with_query(url, query)
            built = Harness(url) if isinstance(server, GivenServer) else harness(url, server=server)
            try:
                verified(built, server, only=only, tiers=allowed(tiers), faces=[face], size=size)
            finally:
                gc.collect()  # what an interrupt left behind complains here, and not in the next test

    return test_conformance


def allowed(tiers: Iterable[str]) -> str:
    """Those of `tiers` (of all, when it is empty) that are to be run."""
    return "".join(letter for letter in tiers or "CTSPNRH" if letter in TIERS)


def chosen(only: Iterable[str]) -> frozenset[str] | None:
    """Those of `only` (of all, when it is empty) that are asked for. None: none is, so nothing is to be run."""
    told = frozenset(only)
    if not ONLY:
        return told
    return (told & ONLY if told else ONLY) or None


def verified(
    harness: Harness | str, server: Controls, *, only: Iterable[str] = (), set_up: str = "", **words: Any
) -> Report | None:
    """Run the kit in one test. The test fails with what is broken. None where nothing of `only` is asked for.

    Args:
        harness: or the URL.
        server: the one that runs behind it.
        only: these ids or scenarios only.
        set_up: what the evidence calls it; as the test unless told.
        words: those of `verify`.
    """
    wanted = chosen(only)
    if wanted is None:
        return None
    report = verify(harness, only=wanted, **words)
    evidence.write(report, server, set_up)
    assert report.ok, "\n\n".join(f"{row.id} {row.scenario}: {row.why}" for row in report.broken)
    return report
