"""The sub-application. It sees neither the handlers nor the routes of the one it is mounted in."""

from fastapi import FastAPI
from starlette.datastructures import State

from app import __version__
from app.conduit import articles, comments, profiles, tags, users
from app.conduit.errors import conduit_error_response, register_error_handlers
from app.core.middleware import ErrorBoundary, Refusals

__all__ = ["PATH", "conduit_error_response", "create_conduit"]

PATH = "/api"


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
    app.add_middleware(ErrorBoundary, refuse=Refusals({PATH: conduit_error_response}))
    register_error_handlers(app)
    for module in (articles, comments, profiles, tags, users):
        app.router.routes.extend(module.router.routes)
    return app
