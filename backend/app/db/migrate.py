"""Database migrations from code, equivalent to `alembic upgrade`."""

from alembic import command
from alembic.config import Config
from sqlalchemy.exc import DBAPIError

from app.core.config import BACKEND_DIR, Settings
from app.core.errors import ServiceUnavailable
from app.db.connecting import refused_setting
from app.db.failures import DEADLOCK_DETECTED, LOCK_NOT_AVAILABLE, sqlstate


def alembic_config(
    url: str | None = None,
    application_url: str | None = None,
    monitor_password: str | None = None,
    pooled_timeout: float | None = None,
) -> Config:
    """Return the Alembic configuration for the database at `url`, or for the settings.

    `application_url` is a direct URL of the application if `url` is that of the owner.
    """
    config = Config(BACKEND_DIR / "alembic.ini")
    config.attributes |= {
        "url": url,
        "application_url": application_url,
        "monitor_password": monitor_password,
        "pooled_timeout": pooled_timeout,
    }
    return config


def upgrade(
    url: str,
    revision: str = "head",
    *,
    application_url: str | None = None,
    monitor_password: str | None = None,
    pooled_timeout: float | None = None,
) -> None:
    """Upgrade the database at `url` to `revision`. Do not call it while an event loop runs.

    The role of `application_url` gets access to the tables. With `monitor_password`, the role for
    monitoring can log in. `pooled_timeout` is the timeout of statements in seconds if the
    application connects through a pooler (app.db.roles). A database at a revision of a newer
    release stays as it is, with a warning (decision 0006). Raises ServiceUnavailable if the
    database is not available or a table is locked, and SetupError if a role cannot be prepared.
    """
    config = alembic_config(url, application_url, monitor_password, pooled_timeout)
    config.attributes["may_be_ahead"] = True  # alembic/env.py checks it under the lock
    try:
        command.upgrade(config, revision)
    except DBAPIError as error:
        if sqlstate(error.orig) not in {LOCK_NOT_AVAILABLE, DEADLOCK_DETECTED}:
            raise
        raise ServiceUnavailable("A table is locked: run the migration again") from error


def upgrade_as_owner(settings: Settings) -> None:
    """Upgrade the database of `settings`, and let the role of DATABASE_URL access it.

    Raises SetupError if PostgreSQL refuses one of the URLs, and what `upgrade` raises.
    """
    url = settings.database_direct_url or settings.database_url or ""
    is_pooled = settings.database_direct_url is not None
    name = "DATABASE_OWNER_URL" if settings.database_owner_url else "DATABASE_URL"
    try:
        upgrade(
            settings.database_owner_url or url,
            application_url=url,
            monitor_password=settings.database_monitor_password,
            pooled_timeout=settings.database_statement_timeout if is_pooled else None,
        )
    except ServiceUnavailable as error:
        raise refused_setting(error, name) or error from error.__cause__
