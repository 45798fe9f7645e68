"""How routes declare their errors, with an example each, straight from the catalogue."""

from typing import Any

from app.core.errors import (
    ContentTooLarge,
    CredentialsInQuery,
    InvalidInput,
    InvalidRequest,
    InvalidToken,
    NotAuthenticated,
    PressroomError,
    ServiceUnavailable,
    TokenExpired,
    UnknownHost,
    UnsupportedMediaType,
    error_body,
)
from app.schemas.error import ErrorBody

Responses = dict[int | str, dict[str, Any]]

REQUEST_ID_EXAMPLE = "3f2b8c1de5a94f0c9d7e6b5a41c20f88"

KNOWS_USER = (InvalidToken, TokenExpired)
"""What a route with Viewer may raise."""
NEEDS_USER = (NotAuthenticated, *KNOWS_USER)
"""What a route with CurrentUser or Actor may raise."""
TAKES_JSON = (UnsupportedMediaType, InvalidInput)
"""What a route with a JSON body may raise."""

OPTIONAL_USER: dict[str, Any] = {"security": [{}]}
"""For `openapi_extra` of a route with Viewer: its token may be left out."""


def errors(*types: type[PressroomError]) -> Responses:
    """The `responses` of a route that may raise `types`, an example for each."""
    responses: Responses = {}
    for error in types:
        response = responses.setdefault(
            error.status, {"model": ErrorBody, "content": {"application/json": {"examples": {}}}}
        )
        described = response.get("description")
        response["description"] = f"{described} · {error.message}" if described else error.message
        response["content"]["application/json"]["examples"][error.code] = {
            "summary": error.message,
            "value": _example(error.code, error.message),
        }
    return responses


def _example(code: str, message: str) -> dict[str, Any]:
    return error_body(message=message, code=code, identifier=REQUEST_ID_EXAMPLE)


EVERYWHERE: Responses = {
    **errors(
        InvalidRequest,
        UnknownHost,
        CredentialsInQuery,
        ContentTooLarge,
        InvalidInput,
        ServiceUnavailable,
    ),
    500: {
        "model": ErrorBody,
        "description": "Internal server error",
        "content": {
            "application/json": {"example": _example("internal_error", "Internal server error")}
        },
    },
}
"""What any route may answer with."""
