"""The application factory.

`create_app` creates an application. The attribute `app` is for `uvicorn app.main:app` and
`fastapi dev`. It is created on first use, so that importing this module reads no settings.
"""

import gc
import os
import sys
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI

from app import __version__
from app.auth.keys import signing_keys
from app.auth.security import prepare_hashing
from app.conduit import application as conduit
from app.conduit.errors import conduit_error_response
from app.core import metrics
from app.core.config import (
    Environment,
    Registration,
    Settings,
    SettingsError,
    SetupError,
    get_settings,
    unknown_names,
)
from app.core.logging import configure_logging, get_logger
from app.core.maintenance import MaintenanceState
from app.db.embedded import embedded_database
from app.db.session import Database
from app.http import middleware, openapi, tracing
from app.http.errors import register_error_handlers
from app.http.reads import find_reads_directly
from app.http.streaming import DRAIN
from app.jobs.background import create_jobs, run_jobs, work_by_name
from app.jobs.measuring import measured
from app.routers import (
    administration,
    bulk,
    documentation,
    feeds,
    health,
    index,
    keys,
    limits,
    mailbox,
    redirects,
)
from app.routers.accounts import (
    addresses,
    api_keys,
    credentials,
    login,
    recovery,
    registration,
    second_factor,
    sessions,
    users,
    users_raw,
)
from app.routers.articles import articles, changes, previews, revisions, search, tags, trash
from app.routers.community import comments, favorites, profiles, reports
from app.routers.idempotency import register_replays
from app.routers.integrations import documents, live, mcp, streams, webhooks
from app.routers.media import media
from app.services import maintenance
from app.services.bulk.runs import ImportRuns
from app.services.integrations.live.hub import Live
from app.services.job_runs import RequestedRuns
from app.services.media.storage import open_storage, verified
from app.web import application as pages
from app.web import assets

logger = get_logger(__name__)

app: FastAPI

DESCRIPTION = """A headless blog backend: users, articles, comments, media, search and feeds.

Register with `POST /users`, get a token from `POST /auth/login`, and send it as
`Authorization: Bearer …`. All errors have the same format. `code` is stable; quote `request_id`
when you contact the operator.

The RealWorld API is at `/api`, and its description at `/api/openapi.json`.
"""

TAGS = [
    {"name": "auth", "description": "Login, sessions and second factors."},
    {"name": "users", "description": "User accounts. Private fields are visible to their owner."},
    {"name": "api keys", "description": "Keys with which programs act for a user."},
    {"name": "addresses", "description": "Postal addresses of a user."},
    {"name": "articles", "description": "Drafts and published articles."},
    {"name": "search", "description": "Full-text search for articles."},
    {"name": "tags", "description": "Tags of articles."},
    {"name": "comments", "description": "Comments on articles, and their moderation."},
    {"name": "favorites", "description": "Favorite articles of users."},
    {"name": "profiles", "description": "Public profiles, following and blocking."},
    {"name": "reports", "description": "Reports of content to editors."},
    {"name": "revisions", "description": "Previous versions of an article's title and text."},
    {"name": "previews", "description": "Links that show one article before its publication."},
    {"name": "trash", "description": "Deleted articles, which are kept for thirty days."},
    {"name": "changes", "description": "A feed of changes to articles, for synchronization."},
    {"name": "feeds", "description": "RSS, Atom, JSON Feed and the sitemap."},
    {"name": "agents", "description": "Markdown documents and tools for language models."},
    {"name": "media", "description": "Images, re-encoded in several sizes."},
    {"name": "bulk", "description": "Import and export of articles."},
    {"name": "redirects", "description": "Old addresses of imported articles."},
    {"name": "webhooks", "description": "Subscriptions to events, and their deliveries."},
    {"name": "administration", "description": "What operators see and do, as administrators."},
    {"name": "health", "description": "Health checks for orchestrators."},
    {"name": "index", "description": "What this server is, and where its documentation is."},
]


RESOURCES = (  # routes are matched in this order: the most requested ones come first
    articles,
    login,
    search,
    tags,
    comments,
    favorites,
    profiles,
    feeds,
    changes,
    streams,
    media,
    previews,
    revisions,
    trash,
    reports,
    bulk,
    users,
    limits,
    sessions,
    second_factor,
    recovery,
    credentials,
    api_keys,
    addresses,
    webhooks,
    administration,
    keys,
    documents,
    health,
    index,
    live,
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """Create the application, with `settings` or with the settings of the environment."""
    settings = settings or get_settings()
    configure_logging(settings)
    signing_keys()  # report invalid key files at startup, not at the first login
    for message in unknown_names():
        logger.warning(message)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
        prepare_hashing()
        async with embedded_database(settings) as resolved:
            database = app.state.database = Database.from_settings(resolved)
            database.follow_servers()
            gc.collect()
            gc.freeze()  # a full collection of these objects would block the event loop for 0.1 s
            if settings.metrics_port and settings.metrics_dir and metrics.recorder() is None:
                metrics.start(settings.metrics_dir, str(os.getpid()))  # gunicorn has started it
            state: MaintenanceState = app.state.maintenance
            jobs = create_jobs(resolved, database)
            async with (
                measured(database),
                maintenance.following(database, state),
                verified(app.state.storage, settings.s3_bucket),
                run_jobs(jobs, app.state.jobs, database=database, wait=state.wait_for_end),
                app.state.live.serving(database),
            ):
                yield {DRAIN: app.state.live.drain}
                await app.state.imports.stop()
                await app.state.requested_runs.stop()
            await database.dispose()

    traces = tracing.telemetry(settings)
    app = FastAPI(
        title="Pressroom",
        summary="A headless blog backend.",
        description=DESCRIPTION,
        version=__version__,
        contact={"name": "The Pressroom authors"},
        license_info={"name": "MIT", "identifier": "MIT"},
        openapi_tags=TAGS,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry=traces,
    )
    app.state.storage = open_storage(settings)
    app.state.imports = ImportRuns()
    app.state.jobs = {}
    app.state.work_by_name = lambda database: work_by_name(create_jobs(settings, database))
    app.state.requested_runs = RequestedRuns()
    app.state.maintenance = MaintenanceState()
    app.state.live = Live(
        max_connections=settings.live_connections, max_per_user=settings.live_connections_per_user
    )
    envelopes = {conduit.PATH: conduit_error_response, **pages.envelopes(app, settings)}
    middleware.install(
        app,
        settings,
        envelopes=envelopes,
        pages=pages.prefixes(settings),
        is_traced=traces["tracing"],
    )
    register_error_handlers(app)
    register_replays(app)
    if settings.conduit_api:
        conduit.mount(app)
    for router in _routers(settings):
        # `include_router` would match each request twice.
        app.router.routes.extend(router.routes)
    pages.install(app, settings)
    documentation.install(app)
    openapi.install(app)
    find_reads_directly(app, is_traced=traces["tracing"])
    return app


def _routers(settings: Settings) -> list[APIRouter]:
    """Return the routers of the native API for these settings."""
    by_email = settings.registration is Registration.BY_EMAIL
    routers = [module.router for module in RESOURCES]
    routers.append(registration.by_email_router if by_email else registration.open_router)
    if settings.raw_sql_reference and not by_email:  # it registers users without a confirmation
        routers.append(users_raw.router)
    if settings.mcp:
        routers.append(mcp.router)
    if settings.environment is Environment.DEVELOPMENT:
        routers.append(mailbox.router)
    if settings.web_reader:
        _require_free_prefix("WEB_PREFIX", settings.web_prefix, _paths(routers))
    if settings.redirects_prefix:
        used = [*_paths(routers), *pages.prefixes(settings)]
        _require_free_prefix("REDIRECTS_PREFIX", settings.redirects_prefix, used)
        routers.append(redirects.create(settings.redirects_prefix))
    return routers


def _paths(routers: Iterable[APIRouter]) -> list[str]:
    """Return the paths of both APIs, and those of pages that no setting moves."""
    native = (getattr(route, "path", "") for router in routers for route in router.routes)
    return [conduit.PATH, pages.STUDIO_PATH, assets.PATH, *native]


def _require_free_prefix(setting: str, prefix: str, used: Iterable[str]) -> None:
    """Raise SettingsError if the prefix of a setting begins like one of the used paths."""
    name = prefix.split("/")[1]
    if name in {path.split("/")[1] for path in used if path}:
        raise SettingsError(f"{setting}: /{name} is a path of the API; use another one")


def __getattr__(name: str) -> FastAPI:
    """Create the attribute `app` on first use (PEP 562)."""
    if name != "app":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        application = globals()["app"] = create_app()
    except SetupError as error:
        sys.exit(f"pressroom: {error}")
    return application


def __dir__() -> list[str]:
    """List `app` too: `fastapi dev` searches the attributes of this module."""
    return sorted({*globals(), "app"})
