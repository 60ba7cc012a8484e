"""What the shop's processes send each other, and the codec that keeps to it. It says nothing of how orders are stored."""

from __future__ import annotations

from pydantic import BaseModel, PositiveInt

from narrowboat.codecs import Model


class Order(BaseModel):
    """What was sold. `id` goes with it everywhere, so that nothing happens twice for it."""

    id: str
    item: str
    pieces: PositiveInt = 1


ORDER = Model(Order)
