"""The application factory. It assembles; it decides nothing.

`create_app` makes an application. The attribute `app` is for `uvicorn app.main:app` and
`fastapi dev`: it is made when it is first used, so importing this module reads no settings.
"""

import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from app import __version__
from app.auth.keys import signing_keys
from app.auth.security import prepare_hashing
from app.conduit import application as conduit
from app.conduit.errors import conduit_error_response
from app.core import middleware
from app.core.config import Environment, Registration, Settings, SetupError, get_settings
from app.core.errors import register_error_handlers
from app.core.logging import configure_logging, get_logger
from app.core.routing import register_replays
from app.db.embedded import embedded_database
from app.db.session import Database
from app.jobs.background import jobs_of, running
from app.routers import (
    addresses,
    api_keys,
    articles,
    auth,
    bulk,
    changes,
    comments,
    credentials,
    documentation,
    favorites,
    feeds,
    health,
    keys,
    mailbox,
    media,
    previews,
    profiles,
    recovery,
    registration,
    reports,
    revisions,
    search,
    second_factor,
    sessions,
    tags,
    trash,
    users,
    users_raw,
)
from app.services.media.storage import open_storage

logger = get_logger(__name__)

app: FastAPI

DESCRIPTION = """A headless blog: users, login by bearer token, and articles.

Register with `POST /users`, get a token from `POST /auth/login`, and send it as
`Authorization: Bearer …`. Every error has one shape; `code` is stable, and `request_id` is what to
quote to the operator.

Front ends that speak the RealWorld API find it at `/api`, described at `/api/openapi.json`.
"""

TAGS = [
    {"name": "auth", "description": "Logging in, and who one is."},
    {"name": "users", "description": "Accounts: public to all, private to their owner."},
    {"name": "api keys", "description": "What a user gives to programs, in place of a login."},
    {"name": "addresses", "description": "Postal addresses of a user."},
    {"name": "articles", "description": "Drafts and published articles."},
    {"name": "search", "description": "Finding articles by their words."},
    {"name": "tags", "description": "The words that articles share."},
    {"name": "comments", "description": "What readers write below articles, and moderation."},
    {"name": "favorites", "description": "Articles that readers keep."},
    {"name": "profiles", "description": "Whom readers follow, and whom they block."},
    {"name": "reports", "description": "What readers want editors to look at."},
    {"name": "revisions", "description": "What an article's title and text were before."},
    {"name": "previews", "description": "Links that show one article before its time."},
    {"name": "trash", "description": "Deleted articles, for thirty days."},
    {"name": "changes", "description": "What became of articles, for whoever follows them."},
    {"name": "feeds", "description": "RSS, Atom, JSON Feed, and the sitemap."},
    {"name": "media", "description": "Pictures, re-encoded and in several sizes."},
    {"name": "bulk", "description": "Articles by the thousand, in and out."},
    {"name": "health", "description": "What an orchestrator asks."},
]


RESOURCES = (  # routes are tried in this order: what is read most comes first
    articles,
    search,
    tags,
    comments,
    favorites,
    profiles,
    feeds,
    changes,
    media,
    previews,
    revisions,
    trash,
    reports,
    bulk,
    auth,
    users,
    sessions,
    second_factor,
    recovery,
    credentials,
    api_keys,
    addresses,
    keys,
    health,
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """The API, from the environment's settings or from `settings`."""
    settings = settings or get_settings()
    configure_logging(settings)
    signing_keys()  # a file that holds no key is found out now, not at the first login
    for sentence in settings.warnings():
        logger.warning(sentence)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        prepare_hashing()
        async with embedded_database(settings) as complete:
            database = app.state.database = Database.from_settings(complete)
            gc.collect()
            gc.freeze()  # what is here stays: walking it stopped everybody for a tenth of a second
            async with running(jobs_of(complete, database)):
                yield
            await database.dispose()

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
        telemetry={"tracing": False, "metrics": False, "logs": False},  # there is no collector
    )
    app.state.storage = open_storage(settings)
    middleware.install(app, settings, envelopes={conduit.PATH: conduit_error_response})
    register_error_handlers(app)
    register_replays(app)
    if settings.conduit_api:
        conduit.mount(app)
    by_email = settings.registration is Registration.BY_EMAIL
    routers = [module.router for module in RESOURCES]
    routers.append(registration.by_email_router if by_email else registration.open_router)
    if settings.raw_sql_reference and not by_email:  # it registers whoever asks
        routers.append(users_raw.router)
    if settings.environment is Environment.DEVELOPMENT:
        routers.append(mailbox.router)
    for router in routers:
        # Not `include_router`: for a router that is included, each request is matched twice.
        app.router.routes.extend(router.routes)
    documentation.install(app)
    return app


def __getattr__(name: str) -> FastAPI:
    """The application as the attribute `app`, made on first use (PEP 562)."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        made = globals()["app"] = create_app()
    except SetupError as error:
        sys.exit(f"pressroom: {error}")
    return made


def __dir__() -> list[str]:
    """`fastapi dev` looks here for an application."""
    return sorted({*globals(), "app"})
