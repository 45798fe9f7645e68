"""Route and request classes of both APIs: strict input and validators."""

import re
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack
from functools import cached_property
from typing import Any, TypeVar, get_origin

from fastapi import Request, Response
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError
from fastapi.params import Form
from fastapi.routing import APIRoute
from fastapi.security.base import SecurityBase
from pydantic import BaseModel
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.errors import (
    InsufficientScope,
    InvalidInput,
    InvalidToken,
    PressroomError,
    SessionRequired,
    UnderMaintenance,
    UnsupportedMediaType,
)
from app.core.maintenance import MaintenanceState
from app.core.strict_json import parse_json
from app.http.caching import TAGGED_STATUSES, make_conditional
from app.http.headers import described
from app.http.reads import EXIT_STACK, Handler, has_units, planned_handler

_NOT_ASCII = re.compile(rb"[\x80-\xff]")

NOT_MODIFIED = {
    "description": "Not modified: If-None-Match contains the current ETag",
    "headers": described("ETag"),
}

FORM_TYPES = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})

SAFE_METHODS = frozenset({"GET", "HEAD"})

Dependency = TypeVar("Dependency", bound=Callable[..., Any])
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])
_ERRORS: dict[object, tuple[type[PressroomError], ...]] = {}
"""The errors of dependencies: of functions, and of classes whose instances are dependencies."""


def raises(*types: type[PressroomError]) -> Callable[[Dependency], Dependency]:
    """Declare the errors of a dependency. Routes that use it need not declare them."""

    def declare(dependency: Dependency) -> Dependency:
        _ERRORS[dependency] = types
        return dependency

    return declare


def allowed_in_maintenance(endpoint: Endpoint) -> Endpoint:
    """Declare that a POST, PUT, PATCH or DELETE route works during maintenance, too.

    These are routes that change nothing, those of sessions, and those that end the maintenance.
    """
    endpoint.allowed_in_maintenance = True  # type: ignore[attr-defined]  # an attribute of the function
    return endpoint


def is_refused_in_maintenance(route: APIRoute) -> bool:
    """Return whether the requests of a route are refused during maintenance."""
    is_allowed = getattr(route.endpoint, "allowed_in_maintenance", False) is True
    return not is_allowed and not SAFE_METHODS.issuperset(route.methods or ())


def dependency_errors(dependant: Dependant) -> Iterator[type[PressroomError]]:
    """Yield the errors of all dependencies of a route."""
    declared = _ERRORS.get(dependant.call) or _ERRORS.get(type(dependant.call), ())
    yield from declared
    if InvalidToken in declared:  # an API key is refused, or lacks the scope
        yield InsufficientScope if dependant.own_oauth_scopes else SessionRequired
    for dependency in dependant.dependencies:
        yield from dependency_errors(dependency)


class StrictRequest(Request):
    """A request whose `json()` accepts only JSON that RFC 8259 defines unambiguously.

    `form()` also accepts a JSON object. Its values keep their types, so that schemas reject them.

    Non-ASCII bytes in a form are percent-encoded before Starlette parses them: it would decode them
    as Latin-1, but clients such as `curl -d password=größe` send UTF-8.
    """

    async def stream(self) -> AsyncGenerator[bytes, None]:
        is_form = _media_type(self) == "application/x-www-form-urlencoded"
        async for chunk in super().stream():
            yield _NOT_ASCII.sub(lambda byte: b"%%%02X" % byte[0][0], chunk) if is_form else chunk

    async def json(self) -> Any:
        """Return the parsed body. FastAPI answers a JSONDecodeError of the parser with 422."""
        return parse_json(await self.body())

    async def _get_form(self, **limits: Any) -> FormData:
        if not _is_json(_media_type(self)):
            return await super()._get_form(**limits)
        fields = await self.json()
        if not isinstance(fields, dict):
            raise InvalidInput("The body must be a JSON object")
        return FormData(fields)


class StrictRoute(APIRoute):
    """A route that checks the media type of the body: 415 unless it matches the declared body.

    A route with a form also accepts the fields as JSON.

    It answers 422 for undeclared query parameters. Caches store each query string separately, so
    unknown parameters would let any client fill them with copies of one page.

    It answers 503 during maintenance, unless it reads or is `allowed_in_maintenance`.

    Responses get validators (http.caching), which OpenAPI describes.

    Most routes have a handler of http.reads, and need fewer exit stacks than in FastAPI.
    """

    ignores_unknown_parameters = False
    request_class = StrictRequest

    def __init__(
        self,
        *arguments: Any,
        methods: set[str] | list[str] | None = None,
        responses: Mapping[int | str, dict[str, Any]] | None = None,
        **options: Any,
    ) -> None:
        own = dict(responses or {})
        if "GET" in (methods or ("GET",)):
            own.setdefault(304, NOT_MODIFIED)
        super().__init__(*arguments, methods=methods, responses=own, **options)
        status = self.status_code or 200
        is_stored = all(each.call is not no_store for each in self.dependant.dependencies)
        if self.response_field is not None and status in TAGGED_STATUSES and is_stored:
            self.add_response_headers(status, "ETag")
        is_planned, writes = self._planned is not None, has_units(self)
        self.is_read = is_planned and "GET" in (self.methods or ()) and not writes
        """Whether http.reads handles the route, without a unit of work, and may find it."""
        if is_planned:
            wrap = _with_exit_stack if writes else _without_exit_stacks
            self.app = wrap(self.get_route_handler())

    @cached_property
    def _planned(self) -> Handler | None:
        return planned_handler(self)

    def add_response_headers(self, status: int, *names: str) -> None:
        """Describe headers of a response, in addition to those that are described."""
        response = self.responses.get(status, {})
        headers = {**described(*names), **response.get("headers", {})}
        self.responses[status] = {**response, "headers": headers}

    def describe_rate_limits(self) -> None:
        """Describe the headers of responses to requests that limits count."""
        for status in (self.status_code or 200, 429):
            self.add_response_headers(status, "RateLimit", "RateLimit-Policy")

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = self._planned or super().get_route_handler()
        body_field = self.body_field
        is_form = body_field is not None and isinstance(body_field.field_info, Form)
        varies_by_caller = uses_credentials(self.dependant)
        is_negotiated = getattr(self.endpoint, "varies_by_accept", False)
        vary = b"Authorization, Accept" if is_negotiated else b"Authorization"
        parameters = None if self.ignores_unknown_parameters else query_parameters(self.dependant)

        is_write = is_refused_in_maintenance(self)

        async def handle_strictly(request: Request) -> Response:
            if is_write:
                maintenance: MaintenanceState = request.app.state.maintenance
                if maintenance.message is not None:
                    raise UnderMaintenance(maintenance.message)
            if parameters is not None and request.scope["query_string"]:
                _check_parameters(request, parameters)
            if body_field is not None and _has_body(request):
                media_type = _media_type(request)
                is_accepted = _is_json(media_type) or (is_form and media_type in FORM_TYPES)
                if not is_accepted:
                    raise UnsupportedMediaType(
                        "Send the body as a form or as JSON" if is_form else None
                    )
            if body_field is not None and not isinstance(request, StrictRequest):
                request = self.request_class(request.scope, request.receive)
            try:
                response = await handle(request)
            except HTTPException as error:  # FastAPI wraps what reading the body raises
                if isinstance(error.__cause__, PressroomError):
                    raise error.__cause__ from None
                raise
            return make_conditional(request, response, varies_by_caller=varies_by_caller, vary=vary)

        return handle_strictly


def _without_exit_stacks(handle: Handler) -> ASGIApp:
    """Return the application of a handler without `yield` dependencies."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        response = await handle(Request(scope, receive, send))
        await response(scope, receive, send)

    return app


def _with_exit_stack(handle: Handler) -> ASGIApp:
    """Return the application of a handler whose units of work end before the response is sent."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        async with AsyncExitStack() as stack:
            scope[EXIT_STACK] = stack
            response = await handle(Request(scope, receive, send))
        await response(scope, receive, send)

    return app


def query_parameters(dependant: Dependant) -> dict[str, bool]:
    """Return the declared query parameters by name; the value tells whether it is a list."""
    declared: dict[str, bool] = {}
    for field in dependant.query_params:
        kind = field.field_info.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            fields = {info.alias or name: info for name, info in kind.model_fields.items()}
        else:
            fields = {field.alias: field.field_info}
        declared |= {name: get_origin(info.annotation) is list for name, info in fields.items()}
    for dependency in dependant.dependencies:
        declared |= query_parameters(dependency)
    return declared


def _check_parameters(request: Request, parameters: Mapping[str, bool]) -> None:
    """Raise RequestValidationError for query parameters that are unknown, repeated or empty."""
    names = [name for name, _ in request.query_params.multi_items()]
    if b"" in request.scope["query_string"].split(b"&"):
        names.append("")
    known = ", ".join(sorted(parameters)) or "none"
    errors: list[Mapping[str, Any]] = []
    for name, count in Counter(names).items():
        if name not in parameters:
            error = ("extra_forbidden", f"Unknown query parameter; known here: {known}")
        elif count > 1 and not parameters[name]:
            error = ("repeated_parameter", "Send this query parameter once")
        else:
            continue
        errors.append({"type": error[0], "loc": ("query", name), "msg": error[1]})
    if errors:
        raise RequestValidationError(errors)


async def no_store(response: Response) -> None:
    """Forbid caches to store the response, because it contains secrets (RFC 6749 §5.1)."""
    response.headers["Cache-Control"] = "no-store"


def uses_credentials(dependant: Dependant) -> bool:
    """Return whether a dependency of the route reads the caller's token."""
    call: object = dependant.call
    return isinstance(call, SecurityBase) or any(map(uses_credentials, dependant.dependencies))


def _has_body(request: Request) -> bool:
    """Return whether the request declares a length or uses chunked encoding (RFC 9112 §6.3)."""
    return (
        request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    )


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _is_json(media_type: str) -> bool:
    return media_type == "application/json" or (
        media_type.startswith("application/") and media_type.endswith("+json")
    )
