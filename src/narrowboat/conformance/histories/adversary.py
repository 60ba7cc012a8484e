"""The adversary of a history: makes go wrong what the plan says, one thing after the other, and writes it down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from narrowboat.conformance.faults.network import Network
from narrowboat.conformance.harness import Harness
from narrowboat.conformance.histories.journal import Journal
from narrowboat.conformance.histories.places import Place
from narrowboat.conformance.histories.plan import CALM, LAYER, NETWORK, SERVER, Kind, Plan, Strike

#: Seconds until a fault of the next request has surely met one.
ARMED = 0.3
#: A slow network: seconds each way, and bytes of a piece.
LATENCY, PIECE = 0.05, 64


class Adversary:
    """Strikes at `places`. After `act` everything runs and is healed, whatever happened."""

    def __init__(self, plan: Plan, harness: Harness, namespace: str, places: Sequence[Place], journal: Journal) -> None:
        self._plan = plan
        self._harness = harness
        self._namespace = namespace
        self._places = places
        self._journal = journal
        self._shared = sum(len(place.networks) for place in places) > len(
            {id(each) for place in places for each in place.networks}
        )

    async def act(self) -> None:
        """Do all that is planned. What comes too late, because a server took long to start, is left out."""
        begun = time.monotonic()
        try:
            for strike in self._plan.strikes:
                await asyncio.sleep(strike.at - (time.monotonic() - begun))
                if time.monotonic() - begun + strike.seconds < self._plan.seconds * (1 - CALM):
                    await self._strike(strike)
        finally:
            await self._heal()

    async def _heal(self) -> None:
        for place in self._places:
            if place.child is not None:
                place.child.resume()
            for network in place.networks:
                await asyncio.to_thread(network.heal)
        if self._harness.server is not None:
            await asyncio.to_thread(self._harness.server.resume)
            await asyncio.to_thread(self._harness.server.start)

    async def _strike(self, strike: Strike) -> None:
        place = self._places[strike.process % len(self._places)]
        since = time.monotonic()
        process = place.name
        told: dict[str, str] = {}
        if strike.kind is Kind.KILL:
            await self._kill(place, strike)
        elif strike.kind is Kind.STOP:
            assert place.child is not None
            place.child.stop()
            await asyncio.sleep(strike.seconds)
            place.child.resume()
            told = {"stops": place.name}
            process = "" if self._harness.claims(self._harness.halves[0]).scope.value == "host" else process
        elif strike.kind in NETWORK:
            process = "" if self._shared else process
            for network in place.networks:
                await asyncio.to_thread(_break, network, strike)
            await asyncio.sleep(strike.seconds or ARMED)
            for network in place.networks:
                await asyncio.to_thread(network.heal)
        elif strike.kind in LAYER or strike.kind is Kind.STORM:
            place.strike(strike.kind, strike.word, strike.seconds)
            await asyncio.sleep(strike.seconds if strike.kind is Kind.STORM else ARMED)
            told = {"call": strike.word} if strike.word else {}
        elif strike.kind is Kind.DELETE:
            await asyncio.to_thread(self._harness.delete, "locks", self._namespace, strike.word)
            process, told = "", {"deleted": strike.word}
        elif strike.kind in SERVER:
            await self._server(strike)
            process = ""
        self._journal.tell("fault", kind=strike.kind, process=process, since=since, **told)

    async def _kill(self, place: Place, strike: Strike) -> None:
        process = place.process
        at = await place.kill()
        self._journal.tell("ended", process=process, killed=True, at=at)
        await asyncio.sleep(strike.seconds)
        await place.again()

    async def _server(self, strike: Strike) -> None:
        server = self._harness.server
        assert server is not None
        ways: dict[Kind, tuple[Callable[[], None], Callable[[], None]]] = {
            Kind.SERVER_KILL: (server.kill, server.start),
            Kind.SERVER_RESTART: (server.stop, server.start),
            Kind.SERVER_PAUSE: (server.pause, server.resume),
        }
        down, up = ways[strike.kind]
        await asyncio.to_thread(down)
        await asyncio.sleep(strike.seconds)
        await asyncio.to_thread(up)


def _break(network: Network, strike: Strike) -> None:
    if strike.kind is Kind.RESET:
        network.reset()
    elif strike.kind is Kind.SLOW:
        network.slow(latency=LATENCY, piece=PIECE)
    elif strike.kind is Kind.DROP_REQUEST:
        network.drop_request()
    elif strike.kind in (Kind.DROP_REPLY, Kind.CUT):
        network.drop_reply(keep=strike.keep)
    else:
        network.black_hole(up=strike.kind is not Kind.HOLE_DOWN, down=strike.kind is not Kind.HOLE_UP)
