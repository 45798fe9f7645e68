"""What the commands share: their settings, their database and their console."""

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
"""By name: the command and the application import each other's rooms, never each other."""

Result = TypeVar("Result")

console = Console()


def start(*, log_level: str) -> Settings:
    """Settings with a database: an embedded one where DATABASE_URL is not set.

    Outside of production it is migrated, so that each command works on a fresh checkout.
    """
    settings = get_settings()
    configure_logging(settings.model_copy(update={"log_level": log_level}))
    settings = ensure_database_url(settings)
    if settings.environment is not Environment.PRODUCTION:
        migrate.upgrade(settings.database_url or "")
    return settings


def with_database(settings: Settings, work: Callable[[Database], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        database = Database.from_settings(settings)
        try:
            await check_readiness(database)
            return await work(database)
        finally:
            await database.dispose()

    return asyncio.run(run())
