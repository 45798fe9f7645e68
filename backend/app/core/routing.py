"""How the edges declare routes: a router whose JSON bodies are parsed strictly."""

import json
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.params import Form
from fastapi.routing import APIRoute

from app.core.errors import UnsupportedMediaType

_WHAT_IS_WRONG = {UnicodeDecodeError: "it is not UTF-8", RecursionError: "it is nested too deeply"}


class StrictRequest(Request):
    """A request whose `json()` accepts only what RFC 8259 leaves unambiguous."""

    async def json(self) -> Any:
        """The parsed body.

        Raises RequestValidationError where it is not UTF-8, truncated, nested deeper than the
        parser goes, has a name twice in an object, or a number that is not JSON (NaN, Infinity).
        """
        try:
            return json.loads(
                (await self.body()).decode(),
                object_pairs_hook=_object_without_duplicates,
                parse_constant=_refuse_constant,
            )
        except (ValueError, RecursionError) as error:
            message = _WHAT_IS_WRONG.get(type(error)) or str(error)
            finding = {"loc": ("body",), "msg": f"Invalid JSON: {message}", "type": "json_invalid"}
            raise RequestValidationError([finding]) from error


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    parsed = dict(pairs)
    if len(parsed) < len(pairs):
        raise ValueError("an object has the same name twice")
    return parsed


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


class StrictRoute(APIRoute):
    """A route that takes JSON only as JSON (415 otherwise) and parses it strictly."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        takes_json = self.body_field is not None and not isinstance(
            self.body_field.field_info, Form
        )

        async def strictly(request: Request) -> Response:
            if takes_json and not _is_json(request.headers.get("content-type", "")):
                raise UnsupportedMediaType
            return await handle(StrictRequest(request.scope, request.receive))

        return strictly


def _is_json(content_type: str) -> bool:
    media_type = content_type.partition(";")[0].strip().lower()
    return media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )


def create_router(*, prefix: str, tag: str) -> APIRouter:
    """A router for one resource, with strict bodies."""
    return APIRouter(prefix=prefix, tags=[tag], route_class=StrictRoute)
