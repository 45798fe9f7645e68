"""Router factory, and declarations of the errors that routes may return.

A route declares the errors of its service with `responses=errors(…)`. Those of its dependencies are
declared once, at the dependency, with `raises`. OpenAPI has a schema for each error, so that the
responses of an operation list the possible values of `code`.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, Literal, Union

from fastapi import APIRouter
from fastapi.params import Depends
from fastapi.utils import create_model_field
from pydantic import create_model

from app.core.errors import (
    ArticleMoved,
    ContentTooLarge,
    CredentialsInQuery,
    DatabaseFull,
    IdempotencyKeyReused,
    InternalError,
    InvalidInput,
    InvalidRequest,
    LimitReached,
    NotAuthenticated,
    PreconditionFailed,
    PressroomError,
    QuotaExceeded,
    SecondFactorRequired,
    ServiceUnavailable,
    TooManyAttempts,
    UnderMaintenance,
    UnknownHost,
    UnsupportedMediaType,
)
from app.core.limits import LimitKind
from app.http.errors import error_body, headers_of, status_of
from app.http.headers import described
from app.http.routing import (
    dependency_errors,
    is_refused_in_maintenance,
    no_store,
    query_parameters,
    uses_credentials,
)
from app.routers.idempotency import IdempotentRoute
from app.routers.paging import page_headers
from app.schemas.error import ErrorBody, Finding

Responses = dict[int | str, dict[str, Any]]

REQUEST_ID_EXAMPLE = "3f2b8c1de5a94f0c9d7e6b5a41c20f88"
_EXTRA_FIELDS: Mapping[type[PressroomError], Mapping[str, tuple[Any, str]]] = {
    ArticleMoved: {"moved_to": (str, "notes-on-engines")},
    SecondFactorRequired: {"challenge": (str, "eyJ…")},
    LimitReached: {"limit": (LimitKind, LimitKind.COMMENTS.value)},
    QuotaExceeded: {"limit": (LimitKind, LimitKind.DRAFTS.value)},
}
"""Additional fields in the bodies of some errors: their types and examples."""
COMMON_ERRORS = (
    InvalidRequest,
    UnknownHost,
    CredentialsInQuery,
    ContentTooLarge,
    InvalidInput,
    InternalError,
    DatabaseFull,
    ServiceUnavailable,
)
"""Errors of every route."""
_SCHEMAS: dict[type[PressroomError], type[ErrorBody]] = {}
_TYPES = "types"
"""The key of the error types in what `errors` returns."""


def errors(*types: type[PressroomError]) -> Responses:
    """Return the `responses` of a route that may raise `types`."""
    responses: Responses = {}
    for error in types:
        responses.setdefault(status_of(error), {_TYPES: []})[_TYPES].append(error)
    return responses


def error_schema(error: type[PressroomError]) -> type[ErrorBody]:
    """Return the schema of the response to an error. All routes share it."""
    if error not in _SCHEMAS:
        _SCHEMAS[error] = _create_schema(error)
    return _SCHEMAS[error]


def _create_schema(error: type[PressroomError]) -> type[ErrorBody]:
    extra = _EXTRA_FIELDS.get(error, {})
    example = error_body(
        message=error.message,
        code=error.code,
        identifier=REQUEST_ID_EXAMPLE,
        extra={name: example for name, (_, example) in extra.items()},
    )
    fields: dict[str, Any] = {"code": (Literal[error.code], ...)}
    if error is InvalidInput:
        fields["detail"] = (str | list[Finding], ...)
    fields |= {name: (kind, ...) for name, (kind, _) in extra.items()}
    return create_model(
        error.__name__,
        __base__=ErrorBody,
        __doc__=f"{error.message}.",
        __cls_kwargs__={"json_schema_extra": {"examples": [example]}},
        **fields,
    )


@lru_cache
def _error_field(types: tuple[type[PressroomError], ...]) -> Any:
    """Return FastAPI's field for a response with one of these errors; many routes share it."""
    schema: Any = Union[tuple(map(error_schema, types))]  # noqa: UP007 - as many as there are
    return create_model_field("error", schema, mode="serialization")


def _describe(types: Iterable[type[PressroomError]]) -> dict[str, Any]:
    """Return the description and the headers of a response with one of these errors."""
    # Only an error with an entity tag has the header.
    instances = [
        PreconditionFailed(etag='""') if error is PreconditionFailed else error() for error in types
    ]
    names = dict.fromkeys(name for error in instances for name in headers_of(error))
    description = " · ".join(error.message for error in instances)
    return {"description": description} | ({"headers": described(*names)} if names else {})


class DescribedRoute(IdempotentRoute):
    """A route whose `responses` include the errors of every route, its dependencies and its body.

    They also include the headers of a paginated list. Authentication is described as optional,
    unless NotAuthenticated is among the errors.
    """

    def __init__(
        self, *arguments: Any, responses: Mapping[int | str, Any] | None = None, **options: Any
    ) -> None:
        own = responses or {}
        described_only = {
            status: response for status, response in own.items() if _TYPES not in response
        }
        super().__init__(*arguments, responses=described_only, **options)
        types: list[type[PressroomError]] = [*COMMON_ERRORS, *dependency_errors(self.dependant)]
        if self.body_field is not None:
            types.append(UnsupportedMediaType)
        if is_refused_in_maintenance(self):
            types.append(UnderMaintenance)
        calls = [each.call for each in self.dependant.dependencies]
        if "GET" in (self.methods or ()) and no_store not in calls:
            types.append(PreconditionFailed)
        types = list(dict.fromkeys(types))
        for response in own.values():
            types += response.get(_TYPES, ())
        types.sort(key=lambda error: error.__name__)  # operations with the same errors share one
        self.errors: Mapping[int, Sequence[type[PressroomError]]] = {
            int(status): response[_TYPES] for status, response in errors(*types).items()
        }
        """The errors that the route may return, by status."""
        # FastAPI reads both again when it generates the OpenAPI document.
        for status, each in self.errors.items():
            self.responses[status] = _describe(each)
            self.response_fields[status] = _error_field(tuple(each))
        if not {LimitReached, TooManyAttempts}.isdisjoint(types):
            self.describe_rate_limits()
        if IdempotencyKeyReused in types:
            self.add_response_headers(self.status_code or 200, "Idempotency-Replayed")
        if page_headers in calls:
            self._describe_pages()
        if uses_credentials(self.dependant) and NotAuthenticated not in self.errors.get(401, ()):
            self.openapi_extra = {**(self.openapi_extra or {}), "security": [{}]}

    def _describe_pages(self) -> None:
        """Describe the pagination headers."""
        counted = ("X-Total-Count",) if "count" in query_parameters(self.dependant) else ()
        for status in (200, 304):
            self.add_response_headers(status, "Link", *counted)


def create_router(*, prefix: str, tag: str, dependencies: Sequence[Depends] = ()) -> APIRouter:
    """Create a router with strict bodies; `dependencies` apply to all its routes."""
    return APIRouter(
        prefix=prefix,
        tags=[tag],
        route_class=DescribedRoute,
        dependencies=list(dependencies),
        generate_unique_id_function=lambda route: route.name,
    )
