"""Redis' scripts admit whom `narrowboat.driver.admission` admits: by every small case and generated queues."""

from __future__ import annotations

import itertools
import json
import re
from importlib.resources import files

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import narrowboat
from integration.servers import RedisServer
from narrowboat.contract.locks import Busy, Grant, Mode, Request
from narrowboat.driver.admission import admitted, disagree, heads
from narrowboat.errors import Conflict
from narrowboat_redis.records import LETTERS

#: a mode and its limit
Wish = tuple[Mode, int | None]

CONTENDERS: list[Wish] = [
    (Mode.EXCLUSIVE, None),
    (Mode.SHARED, None),
    (Mode.SEMAPHORE, 1),
    (Mode.SEMAPHORE, 2),
    (Mode.SEMAPHORE, 3),
]


def function(file: str, name: str) -> str:
    """One function out of a script, as it stands there."""
    text = files("narrowboat_redis").joinpath("lua", file).read_text(encoding="utf-8")
    found = re.search(rf"^local function {name}\(.*?^end$", text, re.DOTALL | re.MULTILINE)
    assert found is not None, f"{file} has no function {name} any more"
    return found[0]


def told(server: RedisServer, source: str, cases: list[list[object]]) -> list[bool]:
    """What a script that defines `answer(case)` says of each case."""
    script = (
        f"{source}\nlocal found = {{}}\nfor i, case in ipairs(cjson.decode(ARGV[1])) do found[i] = answer(case) and 1 or 0 end"
    )
    with server.client() as client:
        return [bool(each) for each in client.eval(f"{script}\nreturn found", 0, json.dumps(cases))]


def test_who_is_admitted(redis_server: RedisServer) -> None:
    """Every contender, beside up to three holders of every mode, behind up to three others, with and without a writer."""
    states = [
        (mode, limit, holding if held else None, held, ahead, writer)
        for (mode, limit), holding, held, ahead, writer in itertools.product(
            CONTENDERS, Mode, range(4), range(4), (False, True)
        )
        # Only who agrees is asked about, a writer is alone, and nobody is ahead as a writer of nobody.
        if (mode is Mode.SEMAPHORE) == (holding is Mode.SEMAPHORE)
        and (holding is not Mode.EXCLUSIVE or held <= 1)
        and (ahead or not writer)
    ]
    cases = [[LETTERS[m].decode(), n or 0, LETTERS[h].decode() if h else "", held, a, w] for m, n, h, held, a, w in states]
    source = function("locks.lua", "admitted") + (
        "\nlocal function answer(c) return admitted(c[1], c[2], c[3] ~= '' and c[3] or nil, c[4], c[5], c[6]) end"
    )
    ours = [
        admitted(mode, limit, holding=holding, held=held, ahead=ahead, writer_ahead=writer)
        for mode, limit, holding, held, ahead, writer in states
    ]
    assert len(cases) > 150 and told(redis_server, source, cases) == ours


def test_who_disagrees(redis_server: RedisServer) -> None:
    """Every two contenders."""
    pairs = list(itertools.product(CONTENDERS, repeat=2))
    cases = [[LETTERS[m].decode(), n or 0, LETTERS[o].decode(), str(k or 0)] for (m, n), (o, k) in pairs]
    source = f"local mode, limit\n{function('attempt.lua', 'differs')}\n" + (
        "local function answer(c) mode, limit = c[1], c[2] return differs(c[3], c[4]) end"
    )
    assert told(redis_server, source, cases) == [disagree(*one, *other) for one, other in pairs]


ARRIVALS = st.one_of(
    st.lists(st.sampled_from([(Mode.EXCLUSIVE, None), (Mode.SHARED, None)]), min_size=1, max_size=8),
    st.builds(lambda limit, number: [(Mode.SEMAPHORE, limit)] * number, st.integers(1, 3), st.integers(1, 6)),
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ARRIVALS, st.sampled_from(CONTENDERS))
def test_who_goes_when_it_is_free_again(redis_server: RedisServer, arrivals: list[Wish], other: Wish) -> None:
    """Contenders come one by one, those who may go hold, then all of them leave: at each step as many go as are `heads`."""
    serial = itertools.count()
    with redis_server.client() as client:
        client.flushdb()
    with narrowboat.locks(redis_server.url) as locks:
        driver = locks._core.driver.get()

        def asked(mode: Mode, limit: int | None, owner: str) -> object:
            (answer,) = driver.attempt([Request("name", owner, 30.0, mode, limit, True, lambda: None, "test")])
            return answer

        waiting: list[tuple[Mode, int | None, str]] = [(*each, f"owner-{next(serial)}") for each in arrivals]
        holding: list[Grant] = []
        for mode, limit, owner in list(waiting):
            ahead = [each for each in waiting if each[2] < owner]
            expected = admitted(
                mode,
                limit,
                holding=holding[0].mode if holding else None,
                held=len(holding),
                ahead=len(ahead),
                writer_ahead=any(each[0] is Mode.EXCLUSIVE for each in ahead),
            )
            answer = asked(mode, limit, owner)
            assert isinstance(answer, Grant if expected else Busy), (mode, owner, answer)
            if isinstance(answer, Grant):
                holding.append(answer)
                waiting.remove((mode, limit, owner))
        refused = asked(*other, "somebody-else") if disagree(*other, *arrivals[0]) else None
        assert refused is None or isinstance(refused, Conflict)
        while waiting:
            driver.release(holding)
            going = heads([(mode, limit) for mode, limit, _ in waiting], holding=None, held=0)
            answers = [asked(*each) for each in waiting]
            assert [isinstance(answer, Grant) for answer in answers] == [True] * going + [False] * (len(waiting) - going)
            holding = [answer for answer in answers if isinstance(answer, Grant)]
            waiting = waiting[going:]
