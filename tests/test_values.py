"""What a program hands on to a web framework: values with named fields, and no tuples, which JSON knows as arrays."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

import narrowboat
from narrowboat.contract import Depth, Receipt


def test_what_calls_return_has_named_fields_for_json() -> None:
    """Receipts, depths, holders and what a dead letter says of itself are dataclasses, and nobody changes them."""
    with narrowboat.broker("memory://values") as broker, narrowboat.locks("memory://values") as locks:
        orders = broker.queue("orders")
        receipt = orders.publish(b"x", id="1")
        with orders.consume() as messages:
            messages.receive(1).reject("no")
        with orders.dead_letters().consume() as letters:
            dead = letters.receive(1).dead
            assert dead is not None
        with locks.lock("invoice"):
            (holder,) = locks.holders()
        depth = orders.depth()
        addresses = broker.sources()

    assert dataclasses.asdict(receipt) == {"id": "1", "duplicate": False}
    assert dataclasses.asdict(depth) == {"ready": 0, "in_flight": 0, "delayed": 0, "dead": 1, "oldest": None}
    assert dataclasses.asdict(dead) == {"reason": "no", "attempts": 1, "origin": "orders"}
    assert dataclasses.asdict(holder)["name"] == "invoice"
    values: list[Any] = [receipt, depth, dead, holder]
    for value in values:
        assert not isinstance(value, tuple)
        assert hash(value)
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(value, dataclasses.fields(value)[0].name, None)
    told = json.loads(json.dumps([dataclasses.asdict(holder), *(each._asdict() for each in addresses)]))
    assert told[0]["mode"] == "exclusive" and told[1] == {"kind": "queue", "name": "orders", "group": ""}
    assert (Receipt("1"), Depth(0, 0, 0, 1, oldest=5.0)) == (receipt, depth)
