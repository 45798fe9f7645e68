"""Router factory, and declarations of the errors that routes may return.

A route declares the errors of its service with `responses=errors(…)`. Those of its dependencies are
declared once, at the dependency, with `raises`.
"""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

from fastapi import APIRouter
from fastapi.params import Depends

from app.core.errors import (
    ContentTooLarge,
    CredentialsInQuery,
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
    UnknownHost,
    UnsupportedMediaType,
)
from app.http.errors import error_body, status_of
from app.http.routing import dependency_errors, no_store, uses_credentials
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
COMMON_ERRORS = (
    InvalidRequest,
    UnknownHost,
    CredentialsInQuery,
    ContentTooLarge,
    InvalidInput,
    InternalError,
    ServiceUnavailable,
)
"""Errors of every route."""

OPENAPI_SCHEMA = {"$ref": f"#/components/schemas/{ErrorBody.__name__}"}


def errors(*types: type[PressroomError]) -> Responses:
    """Return the `responses` of a route that may raise `types`, with an example each."""
    return _merge(*map(_describe, types))


def _describe(error: type[PressroomError]) -> Responses:
    example = error_body(
        message=error.message,
        code=error.code,
        identifier=REQUEST_ID_EXAMPLE,
        extra=EXTRA_EXAMPLES.get(error),
    )
    examples = {error.code: {"summary": error.message, "value": example}}
    return {status_of(error): _response(error.message, examples)}


def _response(description: str, examples: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": ErrorBody,
        "description": description,
        "content": {"application/json": {"schema": OPENAPI_SCHEMA, "examples": examples}},
    }


def _merge(*declarations: Responses) -> Responses:
    """Return one declaration; a status that several contain has the examples of all."""
    merged: Responses = {}
    for status, response in chain.from_iterable(each.items() for each in declarations):
        known = merged.get(status)
        merged[status] = (
            response
            if known is None
            else _response(
                f"{known['description']} · {response['description']}",
                {**_examples(known), **_examples(response)},
            )
        )
    return merged


def _examples(response: Mapping[str, Any]) -> Mapping[str, Any]:
    examples: Mapping[str, Any] = response["content"]["application/json"]["examples"]
    return examples


class DescribedRoute(IdempotentRoute):
    """A route whose `responses` include the errors of every route, its dependencies and its body.

    Authentication is described as optional, unless NotAuthenticated is among the errors.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        types: list[type[PressroomError]] = [*COMMON_ERRORS, *dependency_errors(self.dependant)]
        if self.body_field is not None:
            types.append(UnsupportedMediaType)
        if "GET" in (self.methods or ()) and not any(
            each.call is no_store for each in self.dependant.dependencies
        ):
            types.append(PreconditionFailed)
        # FastAPI reads `responses` again when it generates the OpenAPI document.
        self.responses = _merge(errors(*dict.fromkeys(types)), self.responses)
        declared = _examples(self.responses[401]) if 401 in self.responses else {}
        if uses_credentials(self.dependant) and NotAuthenticated.code not in declared:
            self.openapi_extra = {**(self.openapi_extra or {}), "security": [{}]}


def create_router(*, prefix: str, tag: str, dependencies: Sequence[Depends] = ()) -> APIRouter:
    """Create a router with strict bodies; `dependencies` apply to all its routes."""
    return APIRouter(
        prefix=prefix,
        tags=[tag],
        route_class=DescribedRoute,
        dependencies=list(dependencies),
        generate_unique_id_function=lambda route: route.name,
    )
