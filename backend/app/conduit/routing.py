"""How Conduit's routers are made, and which errors their routes declare."""

from collections.abc import Sequence
from typing import Any

from fastapi import APIRouter
from fastapi.params import Depends

from app.conduit.schemas import GenericError
from app.core.routing import StrictRoute

Responses = dict[int | str, dict[str, Any]]


def _error(*statuses: int) -> Responses:
    return {status: {"model": GenericError} for status in statuses}


MAY_FAIL: Responses = _error(400, 401, 403, 404, 405, 412, 413, 415, 422, 429, 500, 503)
"""What any route may answer with; each in the one envelope."""
OPTIONAL_USER: dict[str, Any] = {"security": [{}]}
"""For `openapi_extra` of a route that takes a user or none: its token may be left out."""


class ConduitRoute(StrictRoute):
    """A route that ignores unknown query parameters, which Conduit's front ends may send.

    The edge keeps no answer to a query that has any (`edge_api_query` in nginx's template).
    """

    ignores_unknown_parameters = True


def create_router(tag: str, *, dependencies: Sequence[Depends] = ()) -> APIRouter:
    """A router for one tag, with strict bodies; `dependencies` hold for all its operations."""
    return APIRouter(
        tags=[tag],
        dependencies=list(dependencies),
        route_class=ConduitRoute,
        responses=MAY_FAIL,
        generate_unique_id_function=lambda route: route.name,
    )
