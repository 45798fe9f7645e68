"""The error format of the RealWorld API: `{"errors": {"email": ["is invalid"], "body": […]}}`.

Errors are listed by field for front ends. `body` lists all of them as sentences, which the
specification requires.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from app.core.errors import (
    Conflict,
    EmailTaken,
    InvalidCredentials,
    MethodNotAllowed,
    NotFound,
    PressroomError,
    UsernameTaken,
)
from app.http.errors import (
    MAX_NAME,
    MAX_VALIDATION_ERRORS,
    allowed_methods,
    error_response,
    headers_of,
    status_of,
    validation_message,
)

BODY = "body"
TAKEN = "has already been taken"
BLANK = "can't be blank"

_FIELDS: Mapping[type[PressroomError], tuple[str, str]] = {
    EmailTaken: ("email", TAKEN),
    UsernameTaken: ("username", TAKEN),
    InvalidCredentials: ("email or password", "is invalid"),
}
"""Errors that concern a field: the field and the message."""
_NAMES = {"image_url": "image", "content": "body", "excerpt": "description", "tags": "tagList"}
"""Fields that have another name in the RealWorld API."""


def envelope(findings: Sequence[tuple[str, str]]) -> dict[str, dict[str, list[str]]]:
    """Return the body of an error response for pairs of field and message.

    The field is "" for an error that concerns no field.
    """
    errors: dict[str, list[str]] = {}
    sentences: list[str] = []
    for field, message in findings:
        sentences.append(f"{field} {message}".strip())
        if field not in {"", BODY}:
            errors.setdefault(field, []).append(message)
    return {"errors": {**errors, BODY: sentences}}


def conduit_error_response(error: PressroomError) -> Response:
    """Return the response for a PressroomError. The RealWorld API uses 422 instead of 409."""
    finding = _FIELDS.get(type(error), ("", str(error)))
    status = 422 if isinstance(error, Conflict) else status_of(type(error))
    return error_response(status, envelope([finding]), headers_of(error))


async def handle_pressroom_error(request: Request, error: Exception) -> Response:
    """Handle errors of the catalogue."""
    assert isinstance(error, PressroomError)  # noqa: S101 - registered for this class only
    return conduit_error_response(error)


async def handle_http_exception(request: Request, error: Exception) -> Response:
    """Handle Starlette's errors for unknown paths and wrong methods."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class alone
    headers = dict(error.headers or {})
    message = str(error.detail)
    if error.status_code == status_of(MethodNotAllowed):
        headers["Allow"] = allowed_methods(request) or headers.get("Allow", "")
        message = MethodNotAllowed.message
    elif error.status_code == status_of(NotFound):
        message = NotFound.message
    return error_response(error.status_code, envelope([("", message)]), headers)


async def handle_validation_error(request: Request, error: Exception) -> Response:
    """Return 422 with errors by field. The input is omitted, because it may contain a password."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class alone
    findings = [(_field(each), _message(each)) for each in error.errors()[:MAX_VALIDATION_ERRORS]]
    return error_response(422, envelope(findings))


def _field(finding: Mapping[str, Any]) -> str:
    """Return the name of the field; for an item of a list, the name of the list."""
    named = [part for part in finding["loc"][1:] if isinstance(part, str)]
    name = named[1] if len(named) > 1 else "".join(named[:1])
    return _NAMES.get(name, name)[:MAX_NAME]


def _message(finding: Mapping[str, Any]) -> str:
    kind, context = finding["type"], finding.get("ctx", {})
    if kind == "missing" or (kind != "json_invalid" and _is_blank(finding)):
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
