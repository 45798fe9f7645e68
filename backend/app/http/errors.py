"""Error responses: the status, headers and body of every error."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from starlette.exceptions import HTTPException
from starlette.responses import Response

from app.core.errors import (
    ArticleMoved,
    Conflict,
    ContentTooLarge,
    InsufficientScope,
    InternalError,
    InvalidInput,
    InvalidRequest,
    InvalidToken,
    LimitReached,
    MethodNotAllowed,
    NotAuthenticated,
    NotAuthorized,
    NotFound,
    PreconditionFailed,
    PreconditionRequired,
    PressroomError,
    RangeNotSatisfiable,
    RequestTimedOut,
    ServiceUnavailable,
    TooManyAtOnce,
    TooManyAttempts,
    UnsupportedMediaType,
)
from app.core.logging import request_id
from app.core.validation import validation_message

MAX_NAME = 100
MAX_VALIDATION_ERRORS = 20
"""Maximum validation errors that one response lists."""
_REPLACES_CACHED_PAGE = {"X-Accel-Expires": "1"}
"""A header for nginx: the response replaces a cached page for a second, despite `no-store`.

Otherwise nginx would keep the page, and serve it during an outage. nginx removes the header.
"""
_NOT_PUBLIC = frozenset({301, 401, 403, 404, 410})
"""Statuses of pages that are no longer public."""


STATUSES: Mapping[type[PressroomError], int] = {
    ArticleMoved: 301,
    InvalidRequest: 400,
    NotAuthenticated: 401,
    NotAuthorized: 403,
    NotFound: 404,
    MethodNotAllowed: 405,
    RequestTimedOut: 408,
    Conflict: 409,
    PreconditionFailed: 412,
    ContentTooLarge: 413,
    UnsupportedMediaType: 415,
    RangeNotSatisfiable: 416,
    InvalidInput: 422,
    PreconditionRequired: 428,
    TooManyAttempts: 429,
    TooManyAtOnce: 429,
    LimitReached: 429,
    InternalError: 500,
    ServiceUnavailable: 503,
}
"""Status codes. A subclass has the status of its nearest base class."""
_CHALLENGES: Mapping[type[PressroomError], str] = {
    NotAuthenticated: "Bearer",
    InvalidToken: 'Bearer error="invalid_token"',
    InsufficientScope: 'Bearer error="insufficient_scope"',
}
"""Values of WWW-Authenticate (RFC 6750 §3)."""
_BY_STATUS: Mapping[int, type[PressroomError]] = {
    STATUSES[error]: error
    for error in (
        InvalidRequest,
        NotAuthenticated,
        NotAuthorized,
        NotFound,
        MethodNotAllowed,
        ContentTooLarge,
        UnsupportedMediaType,
        InvalidInput,
        TooManyAttempts,
        ServiceUnavailable,
    )
}
"""Errors of the catalogue for the statuses that Starlette raises."""


def status_of(kind: type[PressroomError]) -> int:
    """Return the status code of an error of the catalogue."""
    return next(STATUSES[base] for base in kind.__mro__ if base in STATUSES)


def headers_of(error: PressroomError) -> dict[str, str]:
    """Return the headers of the response to an error of the catalogue."""
    headers: dict[str, str] = {}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    challenge = next((_CHALLENGES[base] for base in type(error).__mro__ if base in _CHALLENGES), "")
    if challenge:
        headers["WWW-Authenticate"] = challenge
    match error:
        case ArticleMoved():
            headers["Location"] = f"/articles/by-slug/{error.slug}"
        case InsufficientScope(scope=str(scope)):
            headers["WWW-Authenticate"] += f', scope="{scope}"'
        case PreconditionFailed() if error.etag:
            headers["ETag"] = error.etag
        case RangeNotSatisfiable():
            headers["Content-Range"] = f"bytes */{error.size}"
    return headers


def error_body(
    *,
    message: str,
    code: str,
    detail: str | Sequence[Mapping[str, Any]] | None = None,
    identifier: str | None = None,
    extra: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the body of an error response.

    `detail` defaults to `message`, and `identifier` to the current request id. `extra` contains the
    additional fields of some errors.
    """
    return {
        "success": False,
        "message": message,
        "detail": message if detail is None else detail,
        "code": code,
        "request_id": identifier or request_id(),
        **(extra or {}),
    }


def error_response(
    status: int, body: Mapping[str, Any], headers: Mapping[str, str] | None = None
) -> Response:
    """Return a response with an error body; it is `no-store` unless `headers` override that.

    Lone surrogates, which may come from the client's JSON, become `?`.
    """
    content = json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode(errors="replace")
    headers = {"Cache-Control": "no-store", **cache_headers(status), **(headers or {})}
    return Response(content, status, headers, media_type="application/json")


def cache_headers(status: int) -> Mapping[str, str]:
    """Return the headers of an error for nginx, which replaces a page that is not public now."""
    return _REPLACES_CACHED_PAGE if status in _NOT_PUBLIC else {}


def pressroom_error_response(error: PressroomError) -> Response:
    """Return the response to an error of the catalogue; middleware calls this directly."""
    body = error_body(message=str(error), code=error.code, extra=error.extra)
    return error_response(status_of(type(error)), body, headers_of(error))


async def handle_pressroom_error(request: Request, error: Exception) -> Response:
    """Handle errors of the catalogue."""
    assert isinstance(error, PressroomError)  # noqa: S101 - registered for this class only
    return pressroom_error_response(error)


async def handle_http_exception(request: Request, error: Exception) -> Response:
    """Handle errors of Starlette: unknown path, wrong method, invalid form."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class only
    kind = _BY_STATUS.get(error.status_code, PressroomError)
    # Starlette's detail is useful only for a 400, where it describes what is wrong with the form.
    message = str(error.detail) if kind in {InvalidRequest, PressroomError} else kind.message
    headers = dict(error.headers or {})
    if kind is MethodNotAllowed:
        headers["Allow"] = allowed_methods(request) or headers.get("Allow", "")
    return error_response(error.status_code, error_body(message=message, code=kind.code), headers)


def allowed_methods(request: Request) -> str:
    """Return all methods of the path for Allow (RFC 9110 §15.5.6).

    Starlette lists only the methods of the first matching route.
    """
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    matching = [
        route
        for route in iter_route_contexts(request.app.routes)
        if route.methods and route.path_regex.match(path)
    ]
    methods = {
        method
        for route in matching
        if route.path == matching[0].path
        for method in route.methods or ()
    }
    if "GET" in methods:
        methods.add("HEAD")
    return ", ".join(sorted(methods))


async def handle_validation_error(request: Request, error: Exception) -> Response:
    """Return 422 with the list of validation errors.

    The list omits the rejected input, because it may be a password.
    """
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class only
    errors = [
        {"loc": _location(each), "msg": validation_message(each), "type": each["type"]}
        for each in error.errors()[:MAX_VALIDATION_ERRORS]
    ]
    location = ".".join(map(str, errors[0]["loc"])) if errors else "request"
    reason = errors[0]["msg"] if errors else "invalid"
    body = error_body(
        message=f"{InvalidInput.message}: {location}: {reason}",
        code=InvalidInput.code,
        detail=errors,
    )
    return error_response(STATUSES[InvalidInput], body)


def _location(error: Mapping[str, Any]) -> list[str | int]:
    """Return the location, with names shortened: the client may have made them up."""
    return [part if isinstance(part, int) else str(part)[:MAX_NAME] for part in error["loc"]]


def register_error_handlers(app: FastAPI) -> None:
    """Register the native error handlers; a mounted application needs its own."""
    app.add_exception_handler(PressroomError, handle_pressroom_error)
    app.add_exception_handler(HTTPException, handle_http_exception)
    app.add_exception_handler(RequestValidationError, handle_validation_error)
