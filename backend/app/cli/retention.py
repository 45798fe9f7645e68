"""The command retention: delete expired revisions and audit events."""

from typing import Annotated

import typer

from app.cli.base import console, prepare_settings, run_with_database
from app.core.plurals import counted
from app.services import retention as rules


def retention(
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only show how many rows would be deleted."),
    ] = False,
) -> None:
    """Delete revisions and audit events that have expired according to the settings.

    The server also does this every hour. Each batch is committed, so an interrupted run can be
    repeated.
    """
    action = "would be deleted" if dry_run else "deleted"
    expired = run_with_database(
        prepare_settings(log_level="WARNING"),
        lambda database: rules.apply(database, dry_run=dry_run),
    )
    for kind, rows, rule in expired:
        text = f"{counted(rows, kind)} {action} (kept: {rule})"
        console.print(text, highlight=False, soft_wrap=True)
