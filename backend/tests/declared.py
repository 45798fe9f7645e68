"""Which errors a route declares, and a hook for httpx that requires them."""

import httpx
from fastapi import FastAPI

from app.routers.responses import DescribedRoute


def native_routes(app: FastAPI) -> list[DescribedRoute]:
    """Return the routes of the native API."""
    return [route for route in app.routes if isinstance(route, DescribedRoute)]


def declared_codes(route: DescribedRoute, status: int) -> set[str]:
    """Return the codes of the errors that the route declares for a status."""
    content = route.responses.get(status, {}).get("content", {})
    return set(content.get("application/json", {}).get("examples", {}))


async def require_declared(app: FastAPI, response: httpx.Response) -> None:
    """Fail if the route of the request does not declare the error."""
    request = response.request
    # The middleware refuses a trailing line break, which the pattern of a route ignores.
    if response.status_code < 400 or request.url.path.endswith("\n"):
        return
    for route in native_routes(app):
        if request.method in (route.methods or ()) and route.path_regex.match(request.url.path):
            await response.aread()
            code = response.json()["code"]
            assert code in declared_codes(route, response.status_code), (
                f"{request.method} {route.path} does not declare {response.status_code} {code}"
            )
            return
