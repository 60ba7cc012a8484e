"""Types that pydantic reads: its models and its dataclasses."""

from __future__ import annotations

import re
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_core import from_json

from narrowboat.codecs.errors import InvalidBody
from narrowboat.codecs.finite import check_finite

#: What a number has that may be larger than any finite one.
_LARGE = re.compile(rb"[eE]\+?[0-9]{3}|[0-9]{200}")


class ByPydantic:
    """See `model.Library`. What its model config says about coercion, aliases and unknown fields counts."""

    def __init__(self, model: type) -> None:
        self._adapter: TypeAdapter[Any] = TypeAdapter(model)

    def load(self, body: bytes) -> Any:
        """NaN and infinities are no JSON, which pydantic would take, and would make of what is too large."""
        try:
            if b"NaN" in body or b"Infinity" in body:
                from_json(body, allow_inf_nan=False)  # they may stand in a text
            made = self._adapter.validate_json(body)
            if _LARGE.search(body):
                check_finite(self._adapter.dump_python(made, warnings=False))
            return made
        except ValidationError as error:
            told = error.errors(include_url=False, include_context=False, include_input=False)
            raise InvalidBody((".".join(map(str, each["loc"])), each["msg"]) for each in told) from None
        except InvalidBody:
            raise
        except ValueError as error:
            raise InvalidBody([("", str(error))]) from None

    def dump(self, data: Any) -> bytes:
        """By the aliases that `load` reads. The check of what was written tells what a warning would.

        `InvalidBody` for NaN and infinities, which pydantic writes as null.
        """
        body = self._adapter.dump_json(data, by_alias=True, warnings=False)
        if b"null" in body:
            check_finite(self._adapter.dump_python(data, mode="json", by_alias=True, warnings=False))
        return body

    def json_schema(self, prefix: str) -> tuple[dict[str, Any], dict[str, Any]]:
        """Of what is read."""
        schema = self._adapter.json_schema(ref_template=f"{prefix}{{model}}")
        return schema, schema.pop("$defs", {})
