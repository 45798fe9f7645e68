"""The sub-application of pages. Its paths are those of the main application, without a prefix.

As a sub-application, it has its own error pages. Its routes are not part of the API's description.
"""

from collections.abc import Iterable, Sequence

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from starlette.datastructures import State
from starlette.responses import RedirectResponse
from starlette.routing import BaseRoute, Match
from starlette.types import Receive, Scope, Send

from app import __version__
from app.core.config import Environment, Settings
from app.http.middleware import Envelope, ErrorBoundary, ErrorResponder
from app.http.tracing import OFF
from app.web import assets
from app.web.account.routes import ROUTERS as ACCOUNT
from app.web.administration.routes import ROUTERS as ADMINISTRATION
from app.web.errors import plain_error_page, register_error_handlers
from app.web.local_cookies import LocalCookies
from app.web.reader.routes import ROUTERS as READER
from app.web.rendering import create_renderer
from app.web.routing import PageRoute
from app.web.studio.routes import ROUTERS as STUDIO

STUDIO_PATH = "/studio"


def prefixes(settings: Settings) -> list[str]:
    """Return the paths below which pages are served; none if the pages are switched off."""
    served = [settings.web_prefix] if settings.web_reader else []
    served += [STUDIO_PATH] if settings.web_studio else []
    return [*served, assets.PATH] if served else []


def envelopes(app: FastAPI, settings: Settings) -> dict[str, Envelope]:
    """Return the format of errors that middleware raises below the paths of pages."""
    served = prefixes(settings)
    if served:
        app.state.renderer = create_renderer(settings)
    return {path: plain_error_page(app.state.renderer) for path in served}


def install(app: FastAPI, settings: Settings) -> None:
    """Serve the pages in `app`. Browsers that request `/` are redirected to a page."""
    served = prefixes(settings)
    if not served:
        return
    app.state.pages = create_pages(settings, app.state)
    routes = app.router.routes
    index = next(i for i, each in enumerate(routes) if getattr(each, "path", None) == "/")
    routes.insert(index, BrowserHome(served[0]))
    routes.append(PageTree(app.state.pages, served))


def create_pages(settings: Settings, state: State) -> FastAPI:
    """Create the pages. They share `state`, with the database, with the main application."""
    pages = FastAPI(
        title="Pressroom's pages",
        version=__version__,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=OFF,
    )
    pages.state = state
    # Inside Starlette's ServerErrorMiddleware, which would answer in plain text.
    error_page = plain_error_page(state.renderer)
    respond = ErrorResponder(dict.fromkeys(prefixes(settings), error_page))
    pages.add_middleware(ErrorBoundary, respond=respond)
    if settings.environment is Environment.DEVELOPMENT:
        pages.add_middleware(LocalCookies)
    register_error_handlers(pages)
    pages.router.add_route(f"{assets.PATH}/{{name:path}}", state.renderer.assets.serve)
    if settings.web_reader:
        _add(pages, READER, settings.web_prefix)
    if settings.web_studio:
        _add(pages, [*ACCOUNT, *ADMINISTRATION, *STUDIO])
    return pages


def _add(pages: FastAPI, routers: Iterable[APIRouter], prefix: str = "") -> None:
    for router in routers:
        for route in router.routes:
            assert isinstance(route, APIRoute)  # noqa: S101 - for the type checker
            if not prefix:
                pages.router.routes.append(route)
                continue
            added = PageRoute(
                prefix + route.path,
                route.endpoint,
                methods=route.methods,
                dependencies=route.dependencies,
                response_model=None,
                include_in_schema=False,
            )
            added.prefix = prefix
            pages.router.routes.append(added)


class PageTree(BaseRoute):
    """The paths of the pages in the main application."""

    def __init__(self, pages: FastAPI, served: Sequence[str]) -> None:
        self.pages = pages
        self._exact = frozenset(served)
        self._below = tuple(f"{path}/" for path in served)

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        path = scope.get("path", "")
        is_page = path in self._exact or path.startswith(self._below)
        return (Match.FULL if is_page and scope["type"] == "http" else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self.pages(scope, receive, send)


class BrowserHome(BaseRoute):
    """Redirects `/` to a page if the client accepts HTML, as browsers do."""

    def __init__(self, home: str) -> None:
        self._home = home

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        wanted = (
            scope["type"] == "http"
            and scope["path"] == "/"
            and scope["method"] == "GET"
            and any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])
        )
        return (Match.FULL if wanted else Match.NONE), {}

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {"Cache-Control": "no-store", "Vary": "Accept"}
        await RedirectResponse(self._home, 302, headers)(scope, receive, send)
