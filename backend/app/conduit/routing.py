"""Routers of the RealWorld API, with their declared error responses."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from fastapi.params import Depends

from app.conduit.schemas import GenericError
from app.http.headers import described
from app.http.routing import StrictRoute

Responses = dict[int | str, dict[str, Any]]


_HEADERS = {412: ("ETag",), 429: ("Retry-After",), 503: ("Retry-After",)}


def _error(*statuses: int) -> Responses:
    return {
        status: {"model": GenericError, "headers": described(*_HEADERS.get(status, ()))}
        for status in statuses
    }


ERROR_RESPONSES: Responses = _error(400, 401, 403, 404, 405, 412, 413, 415, 422, 429, 500, 503)
"""Error responses of every route, in the format of conduit.errors."""
OPTIONAL_AUTH: dict[str, Any] = {"security": [{}]}
"""`openapi_extra` of a route with optional authentication."""


class ConduitRoute(StrictRoute):
    """A route that ignores unknown query parameters, which RealWorld front ends may send.

    nginx does not cache responses to such queries (`edge_api_query` in its template).
    """

    ignores_unknown_parameters = True


def create_router(tag: str, *, dependencies: Sequence[Depends] = ()) -> APIRouter:
    """Create a router for one tag, with strict bodies; `dependencies` apply to all its routes."""
    return APIRouter(
        tags=[tag],
        dependencies=list(dependencies),
        route_class=ConduitRoute,
        responses=ERROR_RESPONSES,
        generate_unique_id_function=lambda route: route.name,
    )
