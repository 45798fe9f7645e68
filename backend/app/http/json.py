"""JSON of responses that are built from rows, without a response model."""

from typing import Any

import orjson


def to_json(value: Any) -> bytes:
    """Return the JSON of dicts and lists, as Pydantic writes it: times in UTC end with `Z`."""
    return orjson.dumps(value, option=orjson.OPT_UTC_Z)
