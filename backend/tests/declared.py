"""What routes declare for OpenAPI, its document, and a hook that requires it of responses."""

from typing import Any

import httpx
from fastapi import FastAPI
from starlette.routing import Mount

from app.http.routing import StrictRoute
from app.routers.responses import DescribedRoute, error_schema

DECLARED_HEADERS = (
    "Content-Location", "ETag", "Idempotency-Replayed", "Link", "Location", "Preference-Applied",
    "RateLimit", "RateLimit-Policy", "Retry-After", "X-Merged-Into", "X-Total-Count",
)  # fmt: skip
"""Headers that a route declares if it returns them."""


def native_routes(app: FastAPI) -> list[DescribedRoute]:
    """Return the routes of the native API."""
    return [route for route in app.routes if isinstance(route, DescribedRoute)]


def declared_codes(route: DescribedRoute, status: int) -> set[str]:
    """Return the codes of the errors that the route declares for a status."""
    return {error.code for error in route.errors.get(status, ())}


def document_of(app: FastAPI, *paths: str) -> dict[str, Any]:
    """Return the OpenAPI document of these paths. That of all paths takes much longer."""
    routes, known = app.router.routes, app.openapi_schema
    app.router.routes = [each for each in routes if getattr(each, "path", None) in paths]
    app.openapi_schema = None
    try:
        return app.openapi()
    finally:
        app.router.routes, app.openapi_schema = routes, known


def _route_of(app: FastAPI, request: httpx.Request) -> StrictRoute | None:
    """Return the route of either API that handles the request."""
    routes, path = list(app.routes), request.url.path
    for mount in app.routes:
        if isinstance(mount, Mount) and path.startswith(f"{mount.path}/"):
            routes, path = list(mount.routes), path.removeprefix(mount.path)
    for route in routes:
        if (
            isinstance(route, StrictRoute)
            and request.method in (route.methods or ())
            and route.path_regex.match(path)
        ):
            return route
    return None


async def require_declared(app: FastAPI, response: httpx.Response) -> None:
    """Fail if the route of the request does not declare the error or a header of the response."""
    request, status = response.request, response.status_code
    # The middleware refuses a trailing line break, which the pattern of a route ignores.
    route = None if request.url.path.endswith("\n") else _route_of(app, request)
    if route is None:
        return
    if status >= 400 and isinstance(route, DescribedRoute):
        await response.aread()
        body = response.json()
        errors = {error.code: error for error in route.errors.get(status, ())}
        assert body["code"] in errors, (
            f"{request.method} {route.path} does not declare {status} {body['code']}"
        )
        error_schema(errors[body["code"]]).model_validate(body)
    declared = route.responses.get(status, {}).get("headers", {})
    undeclared = {name for name in DECLARED_HEADERS if name in response.headers} - set(declared)
    assert not undeclared, f"{request.method} {route.path} does not declare {status} {undeclared}"
