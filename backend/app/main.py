"""The application factory. It assembles; it decides nothing."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app import __version__
from app.auth.security import prepare_hashing
from app.core import middleware
from app.core.config import Settings, get_settings
from app.core.errors import register_error_handlers
from app.core.logging import configure_logging
from app.db.session import Database
from app.routers import (
    addresses,
    articles,
    auth,
    documentation,
    health,
    users,
    users_raw,
)
from app.routers.responses import EVERYWHERE

DESCRIPTION = """A headless blog: users, login by bearer token, and articles.

Register with `POST /users`, get a token from `POST /auth/login`, and send it as
`Authorization: Bearer …`. Every error has one shape; `code` is stable, and `request_id` is what to
quote to the operator.
"""

TAGS = [
    {"name": "auth", "description": "Logging in, and who one is."},
    {"name": "users", "description": "Accounts: public to all, private to their owner."},
    {"name": "addresses", "description": "Postal addresses of a user."},
    {"name": "articles", "description": "Drafts and published articles."},
    {"name": "health", "description": "What an orchestrator asks."},
]


def create_app(settings: Settings | None = None) -> FastAPI:
    """The API, from the environment's settings or from `settings`."""
    settings = settings or get_settings()
    configure_logging(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        prepare_hashing()
        app.state.database = Database.from_settings(settings)
        yield
        await app.state.database.dispose()

    app = FastAPI(
        title="Pressroom",
        summary="A headless blog backend.",
        description=DESCRIPTION,
        version=__version__,
        contact={"name": "The Pressroom authors", "email": "pressroom@example.com"},
        license_info={"name": "MIT", "identifier": "MIT"},
        openapi_tags=TAGS,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        responses=EVERYWHERE,
        generate_unique_id_function=lambda route: route.name,
    )
    middleware.install(app, settings)
    register_error_handlers(app)
    for module in (auth, users, addresses, articles, health):
        app.include_router(module.router)
    if settings.raw_sql_reference:
        app.include_router(users_raw.router)
    documentation.install(app)
    return app
