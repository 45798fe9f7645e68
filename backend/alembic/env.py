"""Run the migrations on the application's database, one process at a time."""

import asyncio
import sys
import time

from alembic import context
from sqlalchemy import Connection, pool, text
from sqlalchemy.ext.asyncio import create_async_engine

from app.core.config import SetupError, get_settings
from app.core.errors import ServiceUnavailable
from app.core.logging import configure_logging, get_logger
from app.db import roles
from app.db.base import Base
from app.db.connecting import connect
from app.db.embedded import ensure_database_url
from app.db.revisions import is_known
from app.models import User  # noqa: F401 - importing the package registers every table

logger = get_logger(__name__)

# A migration that waits for a lock blocks all later queries. It should fail and be run again.
LOCK_TIMEOUT = "5s"
STATEMENT_TIMEOUT = "10min"
# The key of the advisory lock of all migrations: "press" in ASCII.
MIGRATOR_LOCK = 0x7072657373
PAUSE_SECONDS = 0.2


def run_migrations(
    connection: Connection,
    application_url: str | None,
    monitor_password: str | None,
    pooled_timeout: float | None,
) -> None:
    """Migrate on an open connection, which holds the advisory lock until it is closed.

    The role of `application_url` gets access to all tables first, also to those that migrations
    create: triggers of existing tables may write to them at once.
    """
    connection.execute(text(f"SET statement_timeout = '{STATEMENT_TIMEOUT}'"))
    _wait_for_turn(connection)
    connection.execute(text(f"SET lock_timeout = '{LOCK_TIMEOUT}'"))
    connection.commit()
    if application_url is not None:
        roles.prepare(connection, url=application_url)
        if pooled_timeout is not None:
            roles.prepare_sessions(
                connection, url=application_url, statement_timeout=pooled_timeout
            )
    if monitor_password is not None:
        roles.prepare_monitor(connection, password=monitor_password)
    context.configure(
        connection=connection,
        target_metadata=Base.metadata,
        compare_server_default=True,
        transaction_per_migration=True,
    )
    if context.config.attributes.get("may_be_ahead"):
        unknown = [each for each in context.get_context().get_current_heads() if not is_known(each)]
        if unknown:
            logger.warning(
                "the database belongs to a newer release: there is nothing to migrate",
                revision=", ".join(unknown),
            )
            return
    with context.begin_transaction():
        context.run_migrations()


def _wait_for_turn(connection: Connection) -> None:
    """Acquire the advisory lock by polling.

    A blocking statement would hold a snapshot. CREATE INDEX CONCURRENTLY of the other process
    waits for the end of all snapshots, so both would wait forever.
    """
    try_lock = text("SELECT pg_try_advisory_lock(:key)")
    while not connection.scalar(try_lock, {"key": MIGRATOR_LOCK}):
        connection.commit()
        time.sleep(PAUSE_SECONDS)


async def migrate_online(
    url: str,
    application_url: str | None,
    monitor_password: str | None,
    pooled_timeout: float | None,
) -> None:
    """Open a connection to `url` and migrate."""
    connect_args = {"async_creator_fn": connect}
    engine = create_async_engine(url, poolclass=pool.NullPool, connect_args=connect_args)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(
                run_migrations, application_url, monitor_password, pooled_timeout
            )
    finally:
        await engine.dispose()


if context.is_offline_mode():
    context.configure(dialect_name="postgresql", target_metadata=Base.metadata, literal_binds=True)
    with context.begin_transaction():
        context.run_migrations()
else:
    given_url = context.config.attributes.get("url")
    if given_url is not None:  # called from code, which reports errors itself
        attributes = context.config.attributes
        names = ("application_url", "monitor_password", "pooled_timeout")
        asyncio.run(migrate_online(given_url, *map(attributes.get, names)))
    else:
        try:
            configure_logging(get_settings())
            settings = ensure_database_url(get_settings())
            application_url = settings.database_direct_url or settings.database_url or ""
            owner_url = settings.database_owner_url or application_url
            is_pooled = settings.database_direct_url is not None
            timeout = settings.database_statement_timeout if is_pooled else None
            asyncio.run(
                migrate_online(
                    owner_url, application_url, settings.database_monitor_password, timeout
                )
            )
        except SetupError as error:
            sys.exit(f"pressroom: {error}")
        except ServiceUnavailable as error:
            sys.exit(f"pressroom: {error}")
