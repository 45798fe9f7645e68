"""Deleting revisions and audit events that the settings no longer keep."""

from typing import Annotated

import typer

from app.cli.base import console, start, with_database
from app.services import retention as rules


def retention(
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only show how many rows would be deleted."),
    ] = False,
) -> None:
    """Delete revisions and audit events that the settings no longer keep.

    The server does this once an hour. Each batch is committed, so an interrupted run can be
    repeated.
    """
    done = "would be deleted" if dry_run else "deleted"
    expired = with_database(
        start(log_level="WARNING"), lambda database: rules.apply(database, dry_run=dry_run)
    )
    for kind, rows, rule in expired:
        console.print(f"{rows} {kind} {done} (kept: {rule})", highlight=False, soft_wrap=True)
