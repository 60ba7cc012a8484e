"""The layers that a URL names, on both faces: their order, their claims, and what is refused before anything is sent."""

from __future__ import annotations

import asyncio
import json
import traceback
from pathlib import Path
from typing import Any

import pytest
from test_sealed import driver, key, place, received, ring

import narrowboat
from narrowboat.contract import Broker
from narrowboat.errors import ConfigurationError, InvalidArgument, Unsupported
from narrowboat.layers.compressed import Compress
from narrowboat.layers.passing import PassingBroker
from narrowboat.layers.sealed import Keyring, Seal
from narrowboat.layers.sealed.format import MARKER
from narrowboat.layers.sealed.keyring import document_of
from narrowboat.layers.sealed.keys import HMAC


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keyring.json"
    path.touch(0o600)
    path.write_text(document_of([key()]))
    return path


def test_a_url_seals_and_compresses_on_both_faces(keys: Path) -> None:
    url = place()
    query = f"?seal={keys}&compress=zlib"

    async def publishes() -> None:
        async with narrowboat.aio.broker(url + query) as broker:
            await broker.queue("orders").publish(b"rope " * 100)

    asyncio.run(publishes())
    (seen,) = received(driver(url))
    assert list(seen.headers) == [MARKER] and len(seen.body) < 100
    asyncio.run(publishes())
    with (
        narrowboat.broker(url, seal=str(keys), compress="zstd") as broker,  # as arguments
        broker.queue("orders").consume(idle=0.1) as messages,
    ):
        assert [each.body for each in messages] == [b"rope " * 100]


def test_what_the_program_wraps_stands_in_front_and_sees_what_is_clear(keys: Path) -> None:
    seen: list[Any] = []

    class Sees(PassingBroker):
        def send(self, messages: Any) -> Any:
            seen.extend(messages)
            return self.inner.send(messages)

    with narrowboat.broker(place(), seal=str(keys), wrap=Sees) as broker:
        broker.queue("orders").publish(b"lamp")
    assert [(each.body, dict(each.headers)) for each in seen] == [(b"lamp", {})]


def test_the_claims_leave_room_for_the_seal(keys: Path) -> None:
    """The core refuses a larger body before anything is sent, and a demand that the seal cannot keep."""
    plain = narrowboat.broker("memory://x").capabilities
    broker = narrowboat.broker("memory://x", seal=str(keys))
    assert 0 < broker.capabilities.body_max < plain.body_max - plain.headers_max
    with pytest.raises(Unsupported):
        narrowboat.broker("memory://x", seal=str(keys), require=f"body_max={broker.capabilities.body_max + 1}")
    with pytest.raises(InvalidArgument, match=str(broker.capabilities.body_max)):
        broker.queue("orders").publish(bytes(broker.capabilities.body_max + 1))


def test_what_is_claimed_by_the_url_is_what_the_driver_claims(keys: Path) -> None:
    made: list[Broker] = []

    def wrap(driver: Broker) -> Broker:
        made.append(driver)
        return driver

    with narrowboat.broker(place(), seal=str(keys), compress="zlib", wrap=wrap) as broker:
        broker.ping()
        assert made[0].capabilities == broker.capabilities == Seal(ring()).claims(narrowboat.broker("memory://x").capabilities)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"seal": "/nowhere/keyring.json"}, "keyring /nowhere/keyring.json: it cannot be read"),
        ({"seal_clear": "orders"}, "option seal_clear says how sealed messages are taken: it needs seal="),
        ({"seal_window": 5.0}, "option seal_window .* needs seal="),
        ({"compress": "zlip"}, "did you mean 'zlib'"),
        ({"compress": "zlib", "sael": "x"}, "Did you mean 'seal'"),
        ({"seal": "", "seal_window": 0}, "seal_window=0: expected more than 0 seconds"),
    ],
)
def test_what_cannot_work_is_refused_when_the_face_is_made(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said) as caught:
        narrowboat.broker("memory://x", **options)
    assert caught.value.backend == "memory"


@pytest.mark.parametrize("make", [lambda text: text, lambda text: json.loads(text)["keys"][0]["secret"]])
def test_a_keyring_in_the_place_of_its_name_is_not_repeated(keys: Path, make: Any) -> None:
    """As with `seal=$SHOP_KEYS`, for `seal=env:SHOP_KEYS`."""
    given = make(keys.read_text())
    with pytest.raises(ConfigurationError, match="Give a path, or env:VARIABLE") as refused:
        narrowboat.broker(place(), seal=given)
    secret = json.loads(keys.read_text())["keys"][0]["secret"]
    assert secret not in "".join(traceback.format_exception(refused.value))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        narrowboat.broker(place(), seal="a\0b")


def test_a_layer_of_one_kind_in_front_of_another_loses_nothing(keys: Path) -> None:
    """Two seals of which the inner one signs have one header for both: that is refused. One body is compressed once."""
    concealing, signing = str(keys), str(keys.with_name("signing.json"))
    keys.with_name("signing.json").touch(0o600)
    keys.with_name("signing.json").write_text(document_of([key(kind=HMAC)]))
    with narrowboat.broker(place(), seal=signing, wrap=Seal(Keyring.file(concealing)).wrap) as broker:
        with pytest.raises(InvalidArgument, match="Nothing was sent. Let the key that signs"):
            broker.queue("orders").publish(b"1")
        assert broker.queue("orders").depth().ready == 0
    body = bytes(1_000_000)  # which is made smaller twice
    pairs: list[dict[str, Any]] = [
        {"seal": concealing, "wrap": Seal(Keyring.file(signing)).wrap},
        {"compress": "zlib", "wrap": Compress().wrap},
    ]
    for options in pairs:
        with narrowboat.broker(place(), **options) as broker, broker.queue("orders").consume(idle=0.1) as messages:
            broker.queue("orders").publish(body)
            assert [each.body for each in messages] == [body]


def test_sources_whose_clear_messages_are_taken_are_named(keys: Path) -> None:
    url = place()
    with narrowboat.broker(url) as clear, narrowboat.broker(f"{url}?seal={keys}&seal_clear=orders,prices.g") as broker:
        for name in ("orders", "payroll"):
            clear.queue(name).publish(b"clear")
        found = {}
        for name in ("orders", "payroll"):
            with broker.queue(name).consume(idle=0.1) as messages:
                found[name] = [each.body for each in messages]
    assert found == {"orders": [b"clear"], "payroll": []}


def test_a_program_that_names_no_layer_loads_none() -> None:
    import subprocess
    import sys

    script = (
        "import sys, narrowboat\nnarrowboat.broker('memory://x')\n"
        "layers = 'narrowboat.layers.'; mine = (layers + 'sealed', layers + 'compressed', 'cryptography')\n"
        "print([name for name in sys.modules if name.startswith(mine)])"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "[]\n"
