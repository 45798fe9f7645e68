"""How the edges declare routes: a router whose JSON bodies are parsed strictly."""

import json
from collections.abc import Callable, Coroutine
from typing import Any, NoReturn

from fastapi import APIRouter, Request, Response
from fastapi.params import Form
from fastapi.routing import APIRoute

from app.core.errors import UnsupportedMediaType

MAX_NAMES = 100
"""Of one object: no body here needs as many, and each unknown one would be a finding of its own."""

FORM_TYPES = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})


class StrictRequest(Request):
    """A request whose `json()` accepts only what RFC 8259 leaves unambiguous."""

    async def json(self) -> Any:
        """The parsed body.

        Raises JSONDecodeError, which FastAPI answers with 422, where it is not UTF-8, truncated,
        nested deeper than the parser goes, has a name twice or over 100 names in an object, or a
        number that is not JSON (NaN, Infinity).
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
    if len(pairs) > MAX_NAMES:
        raise ValueError(f"An object has more than {MAX_NAMES} names")
    parsed = dict(pairs)
    if len(parsed) < len(pairs):
        raise ValueError("An object has the same name twice")
    return parsed


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


class StrictRoute(APIRoute):
    """A route that takes JSON only as JSON and a form only as a form; 415 otherwise."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        body_field = self.body_field
        is_form = body_field is not None and isinstance(body_field.field_info, Form)

        async def strictly(request: Request) -> Response:
            if body_field is not None and _has_body(request):
                media_type = request.headers.get("content-type", "").partition(";")[0]
                media_type = media_type.strip().lower()
                if is_form and media_type not in FORM_TYPES:
                    raise UnsupportedMediaType("Send the body as a form")
                if not is_form and not _is_json(media_type):
                    raise UnsupportedMediaType
            return await handle(StrictRequest(request.scope, request.receive))

        return strictly


def _has_body(request: Request) -> bool:
    """RFC 9112 §6.3: a request has a body where it says how long it is, or sends it in chunks."""
    return (
        request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    )


def _is_json(media_type: str) -> bool:
    return media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )


def create_router(*, prefix: str, tag: str) -> APIRouter:
    """A router for one resource, with strict bodies."""
    return APIRouter(prefix=prefix, tags=[tag], route_class=StrictRoute)
