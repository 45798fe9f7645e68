"""The command after-restore: end sessions and revoke credentials of a restored database."""

from collections.abc import Mapping
from typing import Annotated

import typer

from app.cli.base import console, prepare_settings, run_with_database
from app.db.session import Database
from app.services import limits, outbox
from app.services.accounts import account_tokens, api_keys, rate_limits, sessions
from app.services.articles import changes, previews
from app.services.integrations import events
from app.services.media.discarding import restore_referenced
from app.services.media.storage import Storage, open_storage
from app.services.purging import in_batches

ENDED = {
    "sessions ended": sessions.end_batch,
    "queued mails cancelled": outbox.cancel_batch,
    "links in mails revoked": account_tokens.delete_batch,
    "counts of login attempts reset": rate_limits.delete_batch,
    "upload reservations released": limits.release_batch,
}
"""What belongs to clients of the time of the dump."""
KEYS = {
    "API keys deleted": api_keys.delete_batch,
    "preview links deleted": previews.delete_batch,
}
"""What may have been withdrawn since the dump."""


def after_restore(
    keep_keys: Annotated[
        bool,
        typer.Option(
            "--keep-keys",
            help="Keep API keys and preview links, also those deleted since the dump.",
        ),
    ] = False,
) -> None:
    """End all sessions and drop queued mail after a restore, before the backend starts.

    Images that were deleted after the dump are served again. Cursors of the change feed become
    unknown. It can be repeated.
    """
    settings = prepare_settings(log_level="WARNING")
    storage = open_storage(settings)
    print_counts(
        run_with_database(
            settings, lambda database: end_clients(database, storage, keep_keys=keep_keys)
        )
    )


async def end_clients(database: Database, storage: Storage, *, keep_keys: bool) -> dict[str, int]:
    """Run all steps; return the number of rows that each of them changed."""
    steps = ENDED if keep_keys else ENDED | KEYS
    counts = {what: await in_batches(database, purge) for what, purge in steps.items()}
    counts["images restored"] = await restore_referenced(database, storage=storage)
    counts["events reordered"] = await events.forget_transactions(database)
    counts["change feeds restarted"] = await changes.begin_generation(database)
    return counts


def print_counts(counts: Mapping[str, int]) -> None:
    """Print the result of `end_clients`."""
    for what, count in counts.items():
        console.print(f"{what}: {count}", highlight=False)
