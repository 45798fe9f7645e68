"""The sub-application. It does not inherit exception handlers or routes of the main application."""

from fastapi import FastAPI
from starlette.datastructures import State
from starlette.requests import Request
from starlette.responses import Response

from app import __version__
from app.conduit import articles, comments, profiles, tags, users
from app.conduit.errors import conduit_error_response, register_error_handlers
from app.core.errors import NotFound
from app.http import openapi
from app.http.middleware import ErrorBoundary, ErrorResponder
from app.http.reads import find_reads_directly
from app.http.tracing import OFF

PATH = "/api"
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


async def not_found(_: Request) -> Response:
    """Return 404 for the mount path itself, for which the mounted application is not called."""
    return conduit_error_response(NotFound())


def mount(app: FastAPI) -> None:
    """Mount the RealWorld API in `app`."""
    app.router.add_route(PATH, not_found, methods=METHODS, include_in_schema=False)
    app.mount(PATH, create_conduit(app.state))


def create_conduit(state: State) -> FastAPI:
    """Create the RealWorld API. It shares `state`, with the database, with the main application."""
    app = FastAPI(
        title="Pressroom's Conduit",
        summary="The RealWorld API, for RealWorld front ends.",
        version=__version__,
        license_info={"name": "MIT", "identifier": "MIT"},
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=OFF,
    )
    app.state = state
    # Inside Starlette's ServerErrorMiddleware, which would use its own error format.
    app.add_middleware(ErrorBoundary, respond=ErrorResponder({PATH: conduit_error_response}))
    register_error_handlers(app)
    for module in (articles, comments, profiles, tags, users):
        app.router.routes.extend(module.router.routes)
    openapi.install(app)
    find_reads_directly(app)
    return app
