"""Commands for the database: migrate."""

import typer

from app.auth.keys import signing_keys
from app.cli.base import console
from app.core.config import get_settings
from app.core.errors import ServiceUnavailable
from app.core.logging import configure_logging
from app.db import migrate as migrations
from app.db.embedded import ensure_database_url

TEMPORARY_FAILURE = 75
"""The exit status of a failure after which the command can be run again (EX_TEMPFAIL)."""


def migrate() -> None:
    """Migrate the database to this release.

    A database of a newer release stays as it is, so that a rollback can start. The exit status is
    75 if the database is not available or a table is locked: run the command again.

    It changes nothing if a setting or a signing key is wrong, because the backend would not start.
    """
    settings = get_settings()
    signing_keys()
    configure_logging(settings)
    try:
        migrations.upgrade_as_owner(ensure_database_url(settings))
    except ServiceUnavailable as error:
        console.print(f"Not migrated: {error}", style="red", markup=False, soft_wrap=True)
        raise typer.Exit(TEMPORARY_FAILURE) from error
