"""Redirects from old addresses of imported articles, below REDIRECTS_PREFIX."""

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request, Response, status

from app.core.errors import NotFound
from app.db.dependencies import ReadConnection
from app.db.reading import Reader
from app.http.caching import public
from app.routers.responses import DescribedRoute, create_router, errors
from app.services.bulk import redirects

MAX_AGE_SECONDS = 300
"""Without a maximum age, browsers may keep a 301 forever."""

REDIRECT: dict[int | str, dict[str, Any]] = {
    301: {
        "description": "The address of the article on the front end",
        "headers": {"Location": {"schema": {"type": "string", "format": "uri"}}},
    }
}


class OldAddressRoute(DescribedRoute):
    """A route for addresses in links of other sites, which have queries of their own."""

    ignores_unknown_parameters = True


def create(prefix: str) -> APIRouter:
    """Return the router for the addresses below `prefix`."""
    router = create_router(prefix=prefix, tag="redirects")
    router.route_class = OldAddressRoute

    async def respond(reader: Reader, path: str, request: Request) -> Response:
        url = await redirects.find_redirect(reader, path=path, query=request.url.query)
        headers = {"Location": url, "Cache-Control": public(MAX_AGE_SECONDS)}
        return Response(status_code=status.HTTP_301_MOVED_PERMANENTLY, headers=headers)

    @router.get(
        "/{path:path}",
        status_code=status.HTTP_301_MOVED_PERMANENTLY,
        response_class=Response,
        responses=REDIRECT | errors(NotFound),
    )
    async def redirect(
        request: Request,
        reader: ReadConnection,
        path: Annotated[str, Path(description="A path of the old site")],
    ) -> Response:
        """Redirect from an old address of an imported article that everyone may read."""
        return await respond(reader, path, request)

    # Middleware removes the slash of the start page.
    @router.get(
        "",
        status_code=status.HTTP_301_MOVED_PERMANENTLY,
        response_class=Response,
        responses=REDIRECT | errors(NotFound),
    )
    async def redirect_by_number(request: Request, reader: ReadConnection) -> Response:
        """Redirect from the number of a WordPress post, `?p=17`."""
        return await respond(reader, "", request)

    return router
