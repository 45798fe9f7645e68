"""Settings, database and console for all commands."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Annotated, TypeVar
from uuid import uuid4

import typer
from pydantic import SecretStr
from rich.console import Console

from app.core.config import Environment, Settings, SetupError, get_settings
from app.core.errors import ServiceUnavailable
from app.core.logging import bind_request_id, configure_logging
from app.core.sources import read_secret
from app.db import migrate
from app.db.connecting import refused_setting
from app.db.embedded import ensure_database_url
from app.db.session import Database
from app.services.health import check_readiness

APPLICATION = "app.main:create_app"
"""The application factory as an import string, because `app.cli` must not import `app.main`."""

Result = TypeVar("Result")

console = Console()

PasswordOption = Annotated[
    str, typer.Option(envvar="PRESSROOM_ADMIN_PASSWORD", help="Prompted for if not given.")
]
PasswordFileOption = Annotated[
    Path | None,
    typer.Option(
        envvar="PRESSROOM_ADMIN_PASSWORD_FILE", help="A file that contains only the password."
    ),
]


def read_password(password: str, password_file: Path | None) -> SecretStr:
    """Return the password of one of the two options, or ask for it. Raises SetupError."""
    if password_file is not None:
        if password:
            raise SetupError("Pass either a password or a password file, not both")
        try:
            return SecretStr(read_secret(password_file))
        except ValueError as error:
            raise SetupError(f"The password file {password_file} {error}") from error
    prompt = partial(typer.prompt, "Password", hide_input=True, confirmation_prompt=True)
    return SecretStr(password or prompt())


def prepare_settings(*, log_level: str) -> Settings:
    """Configure logging and return settings with DATABASE_URL.

    If DATABASE_URL is not set, the embedded PostgreSQL is started. Outside production, the database
    is migrated, so that every command works on a fresh checkout.
    """
    settings = get_settings()
    configure_logging(settings.model_copy(update={"log_level": log_level}))
    settings = ensure_database_url(settings)
    if settings.environment is not Environment.PRODUCTION:
        migrate.upgrade_as_owner(settings)
    return settings


def run_with_database(settings: Settings, work: Callable[[Database], Awaitable[Result]]) -> Result:
    """Run `work` in a new event loop, once the database is reachable and migrated.

    The log lines and audit events of a command have the same id, such as `command-3f2b8c1de5a9`.
    """

    async def run() -> Result:
        bind_request_id(f"command-{uuid4().hex[:12]}")
        database = Database.from_settings(settings)
        try:
            await _check_readiness(settings, database)
            return await work(database)
        finally:
            await database.dispose()

    return asyncio.run(run())


async def _check_readiness(settings: Settings, database: Database) -> None:
    """Raise SetupError if PostgreSQL refuses the connection, and ServiceUnavailable."""
    try:
        await check_readiness(database)
    except ServiceUnavailable as error:
        name = "DATABASE_URL or DATABASE_READ_URL" if settings.database_read_url else "DATABASE_URL"
        raise refused_setting(error, name) or error from error.__cause__
