"""How the edges declare routes: bodies are parsed strictly, answers say which version they are."""

import json
import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from typing import Any, NoReturn, get_origin

from fastapi import FastAPI, Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.params import Form
from fastapi.routing import APIRoute
from fastapi.security.base import SecurityBase
from pydantic import BaseModel

from app.core.conditional import validated
from app.core.errors import (
    AlreadyCarriedOut,
    PressroomError,
    ServiceUnavailable,
    UnsupportedMediaType,
    pressroom_error_response,
)
from app.core.idempotency import AlreadyAnswered, Answer, Keeper, Reread

MAX_NAMES = 100
"""Of one object: no body here needs as many, and each unknown one would be a finding of its own."""

_NOT_ASCII = re.compile(rb"[\x80-\xff]")

NOT_MODIFIED = {"description": "The client has it: its ETag came as If-None-Match"}

KEPT_HEADERS = ("Cache-Control", "Content-Type", "ETag", "Link", "Location", "Vary")
"""What an answer that is given again has of the first one; the rest is about the request."""

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
    """A route that takes JSON only as JSON and a form only as a form; 415 otherwise.

    It answers 422 for query parameters that it does not declare: caches keep each query apart, so
    that anybody could fill them with copies of one page.

    Its answers can be validated (core.conditional), and kept to be given again (core.idempotency):
    it runs within the request's unit of work, which is committed once the answer is known.
    """

    ignores_unknown_parameters = False

    def __init__(
        self,
        *arguments: Any,
        methods: set[str] | list[str] | None = None,
        responses: Mapping[int | str, dict[str, Any]] | None = None,
        **options: Any,
    ) -> None:
        described = dict(responses or {})
        if "GET" in (methods or ("GET",)):
            described.setdefault(304, NOT_MODIFIED)
        super().__init__(*arguments, methods=methods, responses=described, **options)

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        body_field = self.body_field
        is_form = body_field is not None and isinstance(body_field.field_info, Form)
        is_the_callers = _asks_who(self.dependant)
        parameters = None if self.ignores_unknown_parameters else _parameters(self.dependant)

        async def strictly(request: Request) -> Response:
            if parameters is not None and request.scope["query_string"]:
                _require_known(request, parameters)
            if body_field is not None and _has_body(request):
                media_type = _media_type(request)
                if is_form and media_type not in FORM_TYPES:
                    raise UnsupportedMediaType("Send the body as a form")
                if not is_form and not _is_json(media_type):
                    raise UnsupportedMediaType
            if body_field is not None:
                request = StrictRequest(request.scope, request.receive)
            response = await handle(request)
            response = validated(request, response, is_the_callers=is_the_callers)
            keeper: Keeper | None = getattr(request.state, "keeper", None)
            if keeper is not None and 200 <= response.status_code < 300:
                await keeper.keep(_answer(response))
            return response

        return strictly


def _parameters(dependant: Dependant) -> dict[str, bool]:
    """The query parameters that a route declares, each with whether it is a list."""
    found: dict[str, bool] = {}
    for field in dependant.query_params:
        kind = field.field_info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            fields = {info.alias or name: info for name, info in kind.model_fields.items()}
        else:
            fields = {field.alias: field.field_info}
        found |= {name: get_origin(info.annotation) is list for name, info in fields.items()}
    for dependency in dependant.dependencies:
        found |= _parameters(dependency)
    return found


def _require_known(request: Request, parameters: Mapping[str, bool]) -> None:
    """Raise RequestValidationError for parameters that are unknown, repeated or empty."""
    names = [name for name, _ in request.query_params.multi_items()]
    if b"" in request.scope["query_string"].split(b"&"):
        names.append("")
    known = ", ".join(sorted(parameters)) or "none"
    findings: list[Mapping[str, Any]] = []
    for name, count in Counter(names).items():
        if name not in parameters:
            finding = ("extra_forbidden", f"Unknown query parameter; known here: {known}")
        elif count > 1 and not parameters[name]:
            finding = ("repeated_parameter", "Send this query parameter once")
        else:
            continue
        findings.append({"type": finding[0], "loc": ("query", name), "msg": finding[1]})
    if findings:
        raise RequestValidationError(findings)


async def no_store(response: Response) -> None:
    """Keep secrets out of every cache (RFC 6749 §5.1)."""
    response.headers["Cache-Control"] = "no-store"


def _asks_who(dependant: Dependant) -> bool:
    """Whether anything that a route depends on reads the caller's token."""
    call: object = dependant.call
    return isinstance(call, SecurityBase) or any(map(_asks_who, dependant.dependencies))


def _answer(response: Response) -> Answer:
    headers = response.headers
    kept = {name: headers[name] for name in KEPT_HEADERS if name in headers}
    return Answer(response.status_code, kept, bytes(response.body))


async def answer_again(request: Request, error: Exception) -> Response:
    """The answer that the request got before, byte by byte.

    If it was too large to be stored, the created resource as it is now; 409 if that is gone.
    """
    assert isinstance(error, AlreadyAnswered)  # noqa: S101 - registered for this class alone
    answer = error.answer
    if answer.body is None:
        reread: Reread | None = getattr(request.state, "reread", None)
        try:
            if reread is None:
                raise AlreadyCarriedOut
            answer = await reread(answer)
        except ServiceUnavailable as unavailable:
            return pressroom_error_response(unavailable)
        except PressroomError:
            return pressroom_error_response(AlreadyCarriedOut())
    status, headers, body = answer
    return Response(body, status, {**headers, "Idempotency-Replayed": "true"})


def register_replays(app: FastAPI) -> None:
    """Have an application give answers again.

    By a handler of exceptions, so that whatever the request has begun is rolled back before.
    """
    app.add_exception_handler(AlreadyAnswered, answer_again)


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
