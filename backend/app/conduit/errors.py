"""The error format of the RealWorld API: `{"errors": {"email": ["has already been taken"]}}`.

Each message is below the field or the resource that it concerns. Front ends print both in a line.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from app.core.errors import (
    ArticleNotFound,
    CommentNotFound,
    Conflict,
    ContentTooComplex,
    EmailTaken,
    InvalidCredentials,
    InvalidInput,
    InvalidToken,
    MethodNotAllowed,
    NotAuthenticated,
    NotAuthorized,
    NotFound,
    PressroomError,
    SecondFactorRequired,
    TokenExpired,
    TokenRevoked,
    UsernameTaken,
    UserNotFound,
)
from app.core.validation import validation_message
from app.http.errors import (
    MAX_NAME,
    MAX_VALIDATION_ERRORS,
    allowed_methods,
    error_response,
    headers_of,
    status_of,
)

TAKEN = "has already been taken"
BLANK = "can't be blank"
FORBIDDEN = "forbidden"
UNKNOWN = "not found"

_FINDINGS: Mapping[type[PressroomError], tuple[str, str]] = {
    EmailTaken: ("email", TAKEN),
    UsernameTaken: ("username", TAKEN),
    NotAuthenticated: ("token", "is missing"),
    InvalidToken: ("token", "is invalid"),
    TokenExpired: ("token", "has expired"),
    TokenRevoked: ("token", "belongs to a session that has ended"),
    InvalidCredentials: ("credentials", "invalid"),
    SecondFactorRequired: ("credentials", "require a second factor; log in with POST /auth/login"),
    ArticleNotFound: ("article", UNKNOWN),
    CommentNotFound: ("comment", UNKNOWN),
    UserNotFound: ("profile", UNKNOWN),
    NotFound: ("path", UNKNOWN),
    ContentTooComplex: ("body", "is nested too deeply to be rendered"),
}
"""The key and the message of errors. A subclass has those of its nearest base class."""
_NAMES = {"image_url": "image", "content": "body", "excerpt": "description", "tags": "tagList"}
"""Fields that have another name in the RealWorld API."""
_RESOURCES = {"articles": "article", "profiles": "profile", "user": "user", "users": "user"}
"""Resources by the first segment of the path."""
REQUEST = "request"
"""The key of errors that concern neither a field nor a resource."""
REASON = "reason"
"""The key of the reason of a refusal. Some front ends print only the first message of each key."""
SERVER = "server"
"""The key of errors with a status from 500 on."""


def envelope(findings: Iterable[tuple[str, str]]) -> dict[str, dict[str, list[str]]]:
    """Return the body of an error response for pairs of key and message."""
    errors: dict[str, list[str]] = {}
    for key, message in findings:
        errors.setdefault(key, []).append(message)
    return {"errors": errors}


def conduit_error_response(error: PressroomError, request: Request | None = None) -> Response:
    """Return the response for a PressroomError; middleware omits the request."""
    status = status_of(type(error))
    # The RealWorld API has 409 only for what a POST request creates.
    if isinstance(error, Conflict) and (request is None or request.method != "POST"):
        status = status_of(InvalidInput)
    return error_response(status, envelope(_findings(error, status, request)), headers_of(error))


def _findings(
    error: PressroomError, status: int, request: Request | None
) -> Iterable[tuple[str, str]]:
    declared = next((_FINDINGS[base] for base in type(error).__mro__ if base in _FINDINGS), None)
    resource = REQUEST if request is None else _resource(request)
    if declared is not None:
        yield declared
    elif isinstance(error, NotAuthorized):
        yield resource, FORBIDDEN
        if type(error) is not NotAuthorized:
            yield REASON, str(error)
    elif isinstance(error, Conflict | InvalidInput):
        yield resource, str(error)
    else:
        yield _general_key(status), str(error)


def _resource(request: Request) -> str:
    """Return the resource that the path leads to; "request" if there is none."""
    path = request.scope["path"].removeprefix(request.scope.get("root_path", ""))
    first, *others = path.strip("/").split("/")
    return "comment" if others[1:2] == ["comments"] else _RESOURCES.get(first, REQUEST)


def _general_key(status: int) -> str:
    return SERVER if status >= 500 else REQUEST


async def handle_pressroom_error(request: Request, error: Exception) -> Response:
    """Handle errors of the catalogue."""
    assert isinstance(error, PressroomError)  # noqa: S101 - registered for this class only
    return conduit_error_response(error, request)


async def handle_http_exception(request: Request, error: Exception) -> Response:
    """Handle Starlette's errors for unknown paths and wrong methods."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class alone
    headers = dict(error.headers or {})
    finding = _general_key(error.status_code), str(error.detail)
    if error.status_code == status_of(MethodNotAllowed):
        headers["Allow"] = allowed_methods(request) or headers.get("Allow", "")
        finding = REQUEST, MethodNotAllowed.message
    elif error.status_code == status_of(NotFound):
        finding = _FINDINGS[NotFound]
    return error_response(error.status_code, envelope([finding]), headers)


async def handle_validation_error(request: Request, error: Exception) -> Response:
    """Return 422 with errors by field. The input is omitted, because it may contain a password."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class alone
    findings = [
        (_field(each) or _resource(request), message_of(each))
        for each in error.errors()[:MAX_VALIDATION_ERRORS]
    ]
    return error_response(status_of(InvalidInput), envelope(findings))


def _field(finding: Mapping[str, Any]) -> str:
    """Return the name of the field; for an item of a list, the name of the list."""
    named = [part for part in finding["loc"][1:] if isinstance(part, str)]
    name = named[1] if len(named) > 1 else "".join(named[:1])
    return _NAMES.get(name, name)[:MAX_NAME]


def message_of(finding: Mapping[str, Any]) -> str:
    """Return the message of a validation error, which follows the name of the field."""
    kind, context = finding["type"], finding.get("ctx", {})
    if kind == "json_invalid":
        return f"is not valid JSON: {context['error']}"
    if kind == "missing" or _is_blank(finding):
        return BLANK
    if kind in {"string_too_short", "too_short"}:
        return f"is too short (minimum is {context['min_length']})"
    if kind in {"string_too_long", "too_long"}:
        return f"is too long (maximum is {context['max_length']})"
    message = validation_message(finding)
    for prefix in ("String ", "Input ", "Value ", "value "):
        message = message.removeprefix(prefix)
    return message


def _is_blank(finding: Mapping[str, Any]) -> bool:
    value = finding.get("input")
    return value is None or (isinstance(value, str) and not value.strip())


def register_error_handlers(app: FastAPI) -> None:
    """Register the exception handlers that produce this format."""
    app.add_exception_handler(PressroomError, handle_pressroom_error)
    app.add_exception_handler(HTTPException, handle_http_exception)
    app.add_exception_handler(RequestValidationError, handle_validation_error)
