"""Types that pydantic reads: its models and its dataclasses."""

from __future__ import annotations

from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from narrowboat.codecs.errors import InvalidBody


class ByPydantic:
    """See `model.Library`. What its model config says about coercion, aliases and unknown fields counts."""

    def __init__(self, model: type) -> None:
        self._adapter: TypeAdapter[Any] = TypeAdapter(model)

    def load(self, body: bytes) -> Any:
        """NaN and infinities are no JSON, which pydantic would take."""
        try:
            if b"NaN" in body or b"Infinity" in body:
                from_json(body, allow_inf_nan=False)  # they may stand in a text
            return self._adapter.validate_json(body)
        except ValidationError as error:
            told = error.errors(include_url=False, include_context=False, include_input=False)
            raise InvalidBody((".".join(map(str, each["loc"])), each["msg"]) for each in told) from None
        except ValueError as error:
            raise InvalidBody([("", str(error))]) from None

    def dump(self, data: Any) -> bytes:
        """By the aliases that `load` reads. The check of what was written tells what a warning would."""
        return self._adapter.dump_json(data, by_alias=True, warnings=False)

    def json_schema(self, prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Of what is read."""
        schema = self._adapter.json_schema(ref_template=f"{prefix}{{model}}")
        return schema, schema.pop("$defs", {})
