"""Deleting what is older than the settings keep."""

from typing import Annotated

import typer

from app.cli.base import console, start, with_database
from app.services import retention as rules


def retention(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be deleted, and delete nothing.")
    ] = False,
) -> None:
    """Delete revisions and audit events that are older than they are kept.

    The server does the same once an hour. Each batch is committed: interrupted, it can be run
    again.
    """
    done = "would be deleted" if dry_run else "deleted"
    expired = with_database(
        start(log_level="WARNING"), lambda database: rules.apply(database, dry_run=dry_run)
    )
    for kind, rows, rule in expired:
        console.print(f"{rows} {kind} {done} (kept: {rule})", highlight=False, soft_wrap=True)
