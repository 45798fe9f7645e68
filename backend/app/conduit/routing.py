"""Routers of the RealWorld API, with their declared error responses."""

from collections.abc import Sequence
from json import JSONDecodeError
from typing import Any

from fastapi import APIRouter
from fastapi.params import Depends
from fastapi.utils import create_model_field

from app.conduit.schemas import GenericError
from app.http.headers import described
from app.http.routing import SAFE_METHODS, StrictRequest, StrictRoute

Responses = dict[int | str, dict[str, Any]]


_ERROR_FIELD: Any = create_model_field("error", GenericError, mode="serialization")
_MIN_ERROR_STATUS = 400
_HEADERS = {412: ("ETag",), 429: ("Retry-After",), 503: ("Retry-After",)}


def errors(*statuses: int) -> Responses:
    """Declare error responses, in the format of conduit.errors."""
    return {status: {"headers": described(*_HEADERS.get(status, ()))} for status in statuses}


TOKEN_ERRORS = (401, 403)
"""Statuses of routes that require a token."""
COMMON_ERRORS = errors(400, 405, 412, 413, 415, 422, 429, 500, 503)
"""Error responses of every route."""
OPTIONAL_AUTH: dict[str, Any] = {"security": [{}]}
"""`openapi_extra` of a route with optional authentication."""


class ConduitRequest(StrictRequest):
    """A request whose body is validated after the dependencies, even if it is not JSON.

    An unknown article is therefore 404, and a missing token 401, whatever the body is.
    """

    async def json(self) -> Any:
        """Return the parsed body; for invalid JSON the error, which the request models reject."""
        try:
            return await super().json()
        except JSONDecodeError as error:
            return error


class ConduitRoute(StrictRoute):
    """A route that ignores unknown query parameters, which RealWorld front ends may send.

    nginx does not cache responses to such queries (`edge_api_query` in its template).
    """

    ignores_unknown_parameters = True
    request_class = ConduitRequest

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        # FastAPI would create a field for each response of each route.
        self.response_fields = {
            status: _ERROR_FIELD for status in self.responses if int(status) >= _MIN_ERROR_STATUS
        }
        if not SAFE_METHODS.issuperset(self.methods or ()):
            self.describe_rate_limits()


def create_router(tag: str, *, dependencies: Sequence[Depends] = ()) -> APIRouter:
    """Create a router for one tag, with strict bodies; `dependencies` apply to all its routes."""
    return APIRouter(
        tags=[tag],
        dependencies=list(dependencies),
        route_class=ConduitRoute,
        responses=COMMON_ERRORS,
        generate_unique_id_function=lambda route: route.name,
    )
