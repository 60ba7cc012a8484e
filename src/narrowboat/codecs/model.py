"""JSON of one type of yours: a pydantic model, a msgspec Struct or a dataclass, checked on its way in and on its way out.

    orders = broker.queue("orders", codec=Model(Order))  # message.data is an Order

Take it wherever both sides share the type. For JSON of any shape there is `JSON`, for types that change `Versions`.
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol, TypeVar

from narrowboat.codecs.errors import InvalidBody
from narrowboat.codecs.labelled import Labelled
from narrowboat.errors import ConfigurationError, InvalidArgument
from narrowboat.registry import how_to_install

T = TypeVar("T")


class Library(Protocol):
    """What reads and writes the type: `by_pydantic.py` and `by_msgspec.py`."""

    def load(self, body: bytes, /) -> Any:
        """The value; `InvalidBody` where it does not fit."""
        ...

    def dump(self, data: Any, /) -> bytes:
        """The document."""
        ...

    def json_schema(self, prefix: str, /) -> tuple[dict[str, Any], dict[str, Any]]:
        """See `Model.json_schema`."""
        ...


class Model(Labelled[T]):
    """A codec for one type.

    A body that does not fit is a dead letter whose reason names the field. A value that does not fit is refused before it is
    sent: what was encoded is decoded once, since neither a dataclass nor an assignment checks its values.

    Args:
        model: a pydantic model or dataclass, which pydantic reads; a msgspec Struct or a dataclass of the standard library,
            which msgspec reads (`narrowboat[msgspec]`).
        strict: whether the content type must be there, and be one of JSON.

    Raises:
        InvalidArgument: another type, or one that its library cannot read.
        ConfigurationError: a dataclass, and msgspec is not installed.
    """

    media_types = ("application/json",)

    def __init__(self, model: type[T], *, strict: bool = False) -> None:
        self.model = model
        self.name = getattr(model, "__name__", "model")
        self.content_type: str | None = "application/json"
        self.strict = strict
        self._library = _library(model)

    def encode(self, data: T, /) -> bytes:
        """JSON; `TypeError` for another type, `InvalidBody` for what `decode` would refuse."""
        if not isinstance(data, self.model):
            raise TypeError(f"expected {self.name}, got {type(data).__name__}")
        body = self._library.dump(data)
        self._library.load(body)
        return body

    def decode(self, body: bytes, /) -> T:
        """The value; `InvalidBody` names the fields that do not fit."""
        try:
            made: T = self._library.load(body)
        except RecursionError:
            raise InvalidBody([("", "it is nested too deeply")]) from None
        return made

    def json_schema(self, prefix: str, /) -> tuple[dict[str, Any], dict[str, Any]]:
        """The JSON Schema of a body, and the definitions that it refers to as `prefix` and a name."""
        return self._library.json_schema(prefix)

    def __repr__(self) -> str:
        return f"Model({self.name})"


def _library(model: Any) -> Library:
    """By marks on the class, so that neither library is loaded for a type of the other."""
    try:
        if isinstance(model, type) and hasattr(model, "__pydantic_validator__"):
            from narrowboat.codecs.by_pydantic import ByPydantic

            return ByPydantic(model)
        if isinstance(model, type) and (hasattr(model, "__struct_fields__") or dataclasses.is_dataclass(model)):
            from narrowboat.codecs.by_msgspec import ByMsgspec

            return ByMsgspec(model)
    except ImportError as error:
        command = how_to_install("narrowboat", error.name)
        raise ConfigurationError(f"Model({model.__name__}): {error.name} reads it, and is not installed: {command}") from error
    except Exception as error:  # each library has errors of its own
        raise InvalidArgument(f"Model({model.__name__}): it cannot be read ({type(error).__name__}: {error})") from error
    raise InvalidArgument(f"Model({model!r}): expected a class: a pydantic model, a dataclass or a msgspec.Struct")
