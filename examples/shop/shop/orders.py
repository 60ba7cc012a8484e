"""What the shop's processes send each other, and the codec that keeps to it. It says nothing of how orders are stored."""

from __future__ import annotations

from typing import Generic, TypeVar

from pydantic import BaseModel, PositiveInt

M = TypeVar("M", bound=BaseModel)


class Model(Generic[M]):
    """A codec for one pydantic model. A body that is none becomes a dead letter with pydantic's reason."""

    content_type: str | None = "application/json"

    def __init__(self, model: type[M]) -> None:
        self.model = model
        self.name = model.__name__

    def encode(self, data: M) -> bytes:
        """JSON."""
        return data.model_dump_json().encode()

    def decode(self, body: bytes) -> M:
        """Checked against the model."""
        return self.model.model_validate_json(body)


class Order(BaseModel):
    """What was sold. `id` goes with it everywhere, so that nothing happens twice for it."""

    id: str
    item: str
    pieces: PositiveInt = 1


ORDER = Model(Order)
