"""How the edges declare routes: a router whose JSON bodies are parsed strictly."""

import json
import re
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any, NoReturn

from fastapi import APIRouter, Request, Response
from fastapi.params import Depends, Form
from fastapi.routing import APIRoute

from app.core.errors import UnsupportedMediaType

MAX_NAMES = 100
"""Of one object: no body here needs as many, and each unknown one would be a finding of its own."""

_NOT_ASCII = re.compile(rb"[\x80-\xff]")

FORM_TYPES = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})


class StrictRequest(Request):
    """A request whose `json()` accepts only what RFC 8259 leaves unambiguous.

    Bytes above ASCII in a form are percent-encoded on their way to Starlette's parser, which would
    take each for a character of Latin-1: `curl -d password=größe` sends UTF-8.
    """

    async def stream(self) -> AsyncGenerator[bytes, None]:
        is_form = _media_type(self) == "application/x-www-form-urlencoded"
        async for chunk in super().stream():
            yield _NOT_ASCII.sub(lambda byte: b"%%%02X" % byte[0][0], chunk) if is_form else chunk

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
                media_type = _media_type(request)
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


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _is_json(media_type: str) -> bool:
    return media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )


def create_router(*, prefix: str, tag: str, dependencies: Sequence[Depends] = ()) -> APIRouter:
    """A router for one resource, with strict bodies; `dependencies` hold for all its routes."""
    return APIRouter(
        prefix=prefix, tags=[tag], route_class=StrictRoute, dependencies=list(dependencies)
    )
