"""Router factory, and declarations of the errors that routes may return."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import APIRouter
from fastapi.params import Depends

from app.core.errors import (
    ContentTooLarge,
    CredentialsInQuery,
    IdempotencyKeyReused,
    IncorrectCode,
    IncorrectPassword,
    InsufficientScope,
    InvalidInput,
    InvalidRequest,
    InvalidToken,
    LastAdmin,
    LimitReached,
    NotAuthenticated,
    NotAuthorized,
    PasswordRequired,
    PreconditionFailed,
    PreconditionRequired,
    PressroomError,
    QuotaExceeded,
    RequestInProgress,
    SecondFactorRequired,
    ServiceUnavailable,
    SessionRequired,
    TokenExpired,
    TokenRevoked,
    TooManyAttempts,
    UnknownHost,
    UnsupportedMediaType,
    UserNotFound,
)
from app.http.errors import error_body, status_of
from app.routers.idempotency import IdempotentRoute
from app.schemas.error import ErrorBody

Responses = dict[int | str, dict[str, Any]]

REQUEST_ID_EXAMPLE = "3f2b8c1de5a94f0c9d7e6b5a41c20f88"
EXTRA_EXAMPLES: Mapping[type[PressroomError], Mapping[str, str]] = {
    SecondFactorRequired: {"challenge": "eyJ…"},
    LimitReached: {"limit": "comments"},
    QuotaExceeded: {"limit": "drafts"},
}
"""Additional fields in the bodies of some errors."""

SESSION_TOKEN_ERRORS = (InvalidToken, TokenExpired, TokenRevoked)
TOKEN_ERRORS = (*SESSION_TOKEN_ERRORS, InsufficientScope)
"""Errors of a route with optional authentication, such as ArticlesViewer."""
AUTH_ERRORS = (NotAuthenticated, *TOKEN_ERRORS)
"""Errors of a route that requires a login or an API key, such as ArticlesActor."""
LOGIN_ERRORS = (NotAuthenticated, *SESSION_TOKEN_ERRORS, SessionRequired)
"""Errors of a route that requires a login session: CurrentUser or Actor."""
JSON_ERRORS = (UnsupportedMediaType, InvalidInput)
"""Errors of a route with a JSON body."""
ETAG_ERRORS = (PreconditionFailed,)
"""Errors of a route that returns an ETag."""
IF_MATCH_ERRORS = (PreconditionFailed, PreconditionRequired)
"""Errors of a route with IfMatch."""
IDEMPOTENCY_ERRORS = (RequestInProgress, IdempotencyKeyReused)
"""Errors of a route that accepts an Idempotency-Key."""
LIMIT_ERRORS = (LimitReached,)
"""Errors of a route whose calls are limited per user."""
QUOTA_ERRORS = (LimitReached, QuotaExceeded)
"""Errors of a route that stores something with a limit on its total."""
ACCOUNT_DELETION_ERRORS = (
    *LOGIN_ERRORS,
    *LIMIT_ERRORS,
    NotAuthorized,
    PasswordRequired,
    IncorrectPassword,
    IncorrectCode,
    UserNotFound,
    LastAdmin,
    TooManyAttempts,
    *IF_MATCH_ERRORS,
    *JSON_ERRORS,
)
"""Errors of a route that deletes an account."""

OPTIONAL_AUTH: dict[str, Any] = {"security": [{}]}
"""For `openapi_extra` of a route with optional authentication."""


def errors(*types: type[PressroomError]) -> Responses:
    """Return the `responses` of a route that may raise `types`, with an example each."""
    responses: Responses = {}
    for error in types:
        response = responses.setdefault(
            status_of(error),
            {"model": ErrorBody, "content": {"application/json": {"examples": {}}}},
        )
        described = response.get("description")
        response["description"] = f"{described} · {error.message}" if described else error.message
        response["content"]["application/json"]["examples"][error.code] = {
            "summary": error.message,
            "value": _example(error.code, error.message, EXTRA_EXAMPLES.get(error)),
        }
    return responses


def _example(code: str, message: str, extra: Mapping[str, str] | None = None) -> dict[str, Any]:
    return error_body(message=message, code=code, identifier=REQUEST_ID_EXAMPLE, extra=extra)


COMMON_RESPONSES: Responses = {
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
"""Responses of every route."""


def create_router(*, prefix: str, tag: str, dependencies: Sequence[Depends] = ()) -> APIRouter:
    """Create a router with strict bodies; `dependencies` apply to all its routes."""
    return APIRouter(
        prefix=prefix,
        tags=[tag],
        route_class=IdempotentRoute,
        dependencies=list(dependencies),
        responses=COMMON_RESPONSES,
        generate_unique_id_function=lambda route: route.name,
    )
