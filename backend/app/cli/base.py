"""Settings, database and console for all commands."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from rich.console import Console

from app.core.config import Environment, Settings, get_settings
from app.core.logging import configure_logging
from app.db import migrate
from app.db.embedded import ensure_database_url
from app.db.session import Database
from app.services.health import check_readiness

APPLICATION = "app.main:create_app"
"""The application factory as an import string, because `app.cli` must not import `app.main`."""

Result = TypeVar("Result")

console = Console()


def prepare_settings(*, log_level: str) -> Settings:
    """Configure logging and return settings with DATABASE_URL.

    If DATABASE_URL is not set, the embedded PostgreSQL is started. Outside production, the database
    is migrated, so that every command works on a fresh checkout.
    """
    settings = get_settings()
    configure_logging(settings.model_copy(update={"log_level": log_level}))
    settings = ensure_database_url(settings)
    if settings.environment is not Environment.PRODUCTION:
        migrate.upgrade(settings.database_owner_url or settings.database_url or "")
    return settings


def run_with_database(settings: Settings, work: Callable[[Database], Awaitable[Result]]) -> Result:
    """Run `work` in a new event loop, once the database is reachable and migrated."""

    async def run() -> Result:
        database = Database.from_settings(settings)
        try:
            await check_readiness(database)
            return await work(database)
        finally:
            await database.dispose()

    return asyncio.run(run())
