"""The envelope of Conduit's errors: `{"errors": {"email": ["is invalid"], "body": […]}}`.

By field, as front ends show them; and all as sentences under `body`, which the description of the
API requires.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from app.core.errors import (
    MAX_NAME,
    MAX_VALIDATION_ERRORS,
    Conflict,
    EmailTaken,
    InvalidCredentials,
    MethodNotAllowed,
    NotFound,
    PressroomError,
    UsernameTaken,
    allowed_methods,
    error_response,
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
"""Errors that are about a field, and how it goes on."""
_NAMES = {"image_url": "image", "content": "body", "excerpt": "description", "tags": "tagList"}
"""What Conduit calls our fields."""


def envelope(findings: Sequence[tuple[str, str]]) -> dict[str, dict[str, list[str]]]:
    """The body of an error, of pairs of a field and what is wrong with it; "" is no field."""
    errors: dict[str, list[str]] = {}
    sentences: list[str] = []
    for field, wrong in findings:
        sentences.append(f"{field} {wrong}".strip())
        if field not in {"", BODY}:
            errors.setdefault(field, []).append(wrong)
    return {"errors": {**errors, BODY: sentences}}


def conduit_error_response(error: PressroomError) -> Response:
    """Answer with an error of the catalogue. Conduit has no 409: a conflict is 422."""
    field, wrong = _FIELDS.get(type(error), ("", str(error.detail)))
    status = 422 if isinstance(error, Conflict) else error.status
    return error_response(status, envelope([(field, wrong)]), error.headers)


async def handle_http_exception(request: Request, error: Exception) -> Response:
    """Errors of the catalogue, and Starlette's own: unknown path, wrong method."""
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class alone
    if isinstance(error, PressroomError):
        return conduit_error_response(error)
    headers = dict(error.headers or {})
    message = str(error.detail)
    if error.status_code == MethodNotAllowed.status:
        headers["Allow"] = allowed_methods(request) or headers.get("Allow", "")
        message = MethodNotAllowed.message
    elif error.status_code == NotFound.status:
        message = NotFound.message
    return error_response(error.status_code, envelope([("", message)]), headers)


async def handle_validation_error(request: Request, error: Exception) -> Response:
    """422: what is wrong, by field. The rejected input is never repeated: it may be a password."""
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for this class alone
    findings = [(_field(each), _wrong(each)) for each in error.errors()[:MAX_VALIDATION_ERRORS]]
    return error_response(422, envelope(findings))


def _field(finding: Mapping[str, Any]) -> str:
    """The name of the field: of an item of a list, the list's."""
    named = [part for part in finding["loc"][1:] if isinstance(part, str)]
    name = named[1] if len(named) > 1 else "".join(named[:1])
    return _NAMES.get(name, name)[:MAX_NAME]


def _wrong(finding: Mapping[str, Any]) -> str:
    kind, context = finding["type"], finding.get("ctx", {})
    if kind == "missing" or (kind != "json_invalid" and _is_blank(finding)):
        return BLANK
    if kind in {"string_too_short", "too_short"}:
        return f"is too short (minimum is {context['min_length']})"
    if kind in {"string_too_long", "too_long"}:
        return f"is too long (maximum is {context['max_length']})"
    message = validation_message(finding)
    for beginning in ("String ", "Input ", "Value ", "value "):
        message = message.removeprefix(beginning)
    return message


def _is_blank(finding: Mapping[str, Any]) -> bool:
    given = finding.get("input")
    return given is None or (isinstance(given, str) and not given.strip())


def register_error_handlers(app: FastAPI) -> None:
    """Give an application this envelope."""
    app.add_exception_handler(HTTPException, handle_http_exception)
    app.add_exception_handler(RequestValidationError, handle_validation_error)
