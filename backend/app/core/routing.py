"""How the edges declare routes: a router whose JSON bodies are parsed strictly."""

import json
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import APIRouter, Request, Response
from fastapi.params import Form
from fastapi.routing import APIRoute

from app.core.errors import UnsupportedMediaType


class StrictRequest(Request):
    """A request whose `json()` accepts only what RFC 8259 leaves unambiguous."""

    async def json(self) -> Any:
        """The parsed body.

        Raises JSONDecodeError, which FastAPI answers with 422, where it is not UTF-8, truncated,
        nested deeper than the parser goes, has a name twice in an object, or a number that is not
        JSON (NaN, Infinity).
        """
        try:
            return json.loads(
                (await self.body()).decode(),
                object_pairs_hook=_object_without_duplicates,
                parse_constant=_refuse_constant,
            )
        except json.JSONDecodeError:
            raise
        except UnicodeDecodeError as error:
            raise json.JSONDecodeError("The body is not UTF-8", "", error.start) from error
        except RecursionError as error:
            raise json.JSONDecodeError("The nesting is too deep", "", 0) from error
        except ValueError as error:
            raise json.JSONDecodeError(str(error), "", 0) from error


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    parsed = dict(pairs)
    if len(parsed) < len(pairs):
        raise ValueError("An object has the same name twice")
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
            if takes_json and _has_body(request) and not _is_json(request):
                raise UnsupportedMediaType
            return await handle(StrictRequest(request.scope, request.receive))

        return strictly


def _has_body(request: Request) -> bool:
    """RFC 9112 §6.3: a request has a body where it says how long it is, or sends it in chunks."""
    return (
        request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    )


def _is_json(request: Request) -> bool:
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    return media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )


def create_router(*, prefix: str, tag: str) -> APIRouter:
    """A router for one resource, with strict bodies."""
    return APIRouter(prefix=prefix, tags=[tag], route_class=StrictRoute)
