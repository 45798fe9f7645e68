"""The sub-application. It sees neither the handlers nor the routes of the one it is mounted in."""

from fastapi import FastAPI
from starlette.datastructures import State
from starlette.requests import Request
from starlette.responses import Response

from app import __version__
from app.conduit import articles, comments, profiles, tags, users
from app.conduit.errors import conduit_error_response, register_error_handlers
from app.core.errors import NotFound
from app.core.middleware import ErrorBoundary, ErrorResponder

PATH = "/api"
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


async def nothing_here(_: Request) -> Response:
    """What the path itself is, which no operation has and no mounted application is asked for."""
    return conduit_error_response(NotFound())


def mount(app: FastAPI) -> None:
    """Serve the RealWorld API within another application, in front of its routes."""
    app.router.add_route(PATH, nothing_here, methods=METHODS, include_in_schema=False)
    app.mount(PATH, create_conduit(app.state))


def create_conduit(state: State) -> FastAPI:
    """The RealWorld API; `state`, with the database in it, is the other application's own."""
    app = FastAPI(
        title="Pressroom's Conduit",
        summary="The RealWorld API: for the front ends that speak it.",
        version=__version__,
        license_info={"name": "MIT", "identifier": "MIT"},
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state = state
    # Within Starlette's own, which would word an unhandled exception in its way.
    app.add_middleware(ErrorBoundary, respond=ErrorResponder({PATH: conduit_error_response}))
    register_error_handlers(app)
    for module in (articles, comments, profiles, tags, users):
        app.router.routes.extend(module.router.routes)
    return app
