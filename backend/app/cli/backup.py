"""The commands backup: create, list, verify, prune, restore, schedule, new-key."""

import asyncio
import json
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.filesize import decimal
from rich.progress import Progress

from app.cli.base import console, run_with_database
from app.cli.restoring import end_clients, print_counts
from app.core import clock
from app.core.config import Settings, SetupError, get_settings
from app.core.errors import PressroomError
from app.core.logging import configure_logging
from app.core.plurals import counted
from app.db import migrate
from app.db.embedded import ensure_database_url
from app.services import job_runs
from app.services.backup import checking, creating, pruning, recording, restoring, scheduling
from app.services.backup.encryption import NoKey, key_of, new_key
from app.services.backup.manifest import Manifest, list_backups
from app.services.backup.targets import Target, open_target
from app.services.media.storage import open_storage

cli = typer.Typer(no_args_is_help=True, help="Backups of the database and the images.")

TargetOption = Annotated[
    str | None,
    typer.Option(
        "--target", help="The folder of the backups, or s3://bucket/prefix; default: BACKUP_TARGET."
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one line of JSON.")]
KeepKeysOption = Annotated[
    bool,
    typer.Option(
        "--keep-keys", help="Keep API keys and preview links, also those deleted since the backup."
    ),
]


@cli.command()
def create(target: TargetOption = None, as_json: JsonOption = False) -> None:
    """Back up the database and the images, while the site is in use.

    Files that the target has already are not copied again. The exit status is 3 if the backup is
    complete, except for images whose files do not exist.
    """
    with _reporting(as_json) as report:
        settings = ensure_database_url(_settings())
        with (
            _recording(settings, job_runs.BACKUP) as run,
            _progress("Images", as_json=as_json) as progress,
        ):
            place, key = open_target(settings, target), key_of(settings)
            manifest = asyncio.run(
                creating.create(
                    settings,
                    target=place,
                    key=key,
                    storage=open_storage(settings),
                    progress=progress,
                )
            )
            run["rows"] = manifest.database.bytes + manifest.media_bytes
        report(_values(manifest), _describe(manifest))
        if manifest.missing:
            folders = ", ".join(manifest.missing[:10])
            _warn(f"{counted(len(manifest.missing), 'image')} had no files: {folders}")
    if manifest.missing:
        raise typer.Exit(scheduling.INCOMPLETE)


@cli.command("list")
def list_all(target: TargetOption = None, as_json: JsonOption = False) -> None:
    """List the backups, oldest first, and what is wrong with those that cannot be used."""
    with _reporting(as_json) as report:
        place, key = _open(target)
        backups = list_backups(place, key)
        lines = [
            (each.manifest and _describe(each.manifest)) or f"{each.id}  {each.problem}"
            for each in backups
        ]
        values = [
            _values(each.manifest) if each.manifest else {"id": each.id, "problem": each.problem}
            for each in backups
        ]
        report({"backups": values}, "\n".join(lines) or f"There are no backups in {place.name}")


@cli.command()
def verify(
    backup: Annotated[str | None, typer.Argument(help="The id; by default the newest.")] = None,
    target: TargetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Read a whole backup, and compare it with its checksums."""
    with _reporting(as_json) as report:
        settings = _settings()
        with (
            _recording(settings, recording.VERIFICATION),
            _progress("Images", as_json=as_json) as progress,
        ):
            place, key = open_target(settings, target), key_of(settings)
            manifest = asyncio.run(checking.verify(place, backup, key=key, progress=progress))
        report(_values(manifest), f"{_describe(manifest)}\nIt is complete and undamaged")


@cli.command()
def prune(
    keep: Annotated[int, typer.Option(min=1, help="How many of the newest are kept.")] = 7,
    keep_days: Annotated[
        int, typer.Option("--keep-days", min=0, help="All of these last days are kept, too.")
    ] = 30,
    target: TargetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Delete old and incomplete backups, and the files that no other backup needs."""
    with _reporting(as_json) as report:
        place, key = _open(target)
        work = pruning.prune(place, key=key, keep=keep, keep_days=keep_days)
        deleted, kept, freed = asyncio.run(work)
        text = f"{counted(len(deleted), 'backup')} deleted, {kept} kept, {decimal(freed)} freed"
        report({"deleted": deleted, "kept": kept, "freed_bytes": freed}, text)


@cli.command()
def restore(
    backup: Annotated[str | None, typer.Argument(help="The id; by default the newest.")] = None,
    target: TargetOption = None,
    images_only: Annotated[
        bool,
        typer.Option(
            "--images-only",
            help="Restore the images, and not the database: after a point-in-time recovery.",
        ),
    ] = False,
    keep_keys: KeepKeysOption = False,
    as_json: JsonOption = False,
) -> None:
    """Restore a backup into an empty database, migrate it, and end sessions.

    It ends with `pressroom after-restore`. Start the backend afterwards.
    """
    with _reporting(as_json) as report:
        settings = _settings()
        place, key = open_target(settings, target), key_of(settings)
        if images_only:
            storage = open_storage(settings)
            with _progress("Images", as_json=as_json) as progress:
                manifest = asyncio.run(
                    restoring.restore_images(
                        backup, target=place, key=key, storage=storage, progress=progress
                    )
                )
            report(_values(manifest), f"Restored the images of {_describe(manifest)}")
            return
        settings = ensure_database_url(settings)
        storage = open_storage(settings)
        with _progress("Images", as_json=as_json) as progress:
            manifest = asyncio.run(
                restoring.restore(
                    settings, backup, target=place, key=key, storage=storage, progress=progress
                )
            )
        migrate.upgrade_as_owner(settings)
        counts = run_with_database(
            settings, lambda database: end_clients(database, storage, keep_keys=keep_keys)
        )
        report(_values(manifest) | {"after_restore": counts}, f"Restored {_describe(manifest)}")
    if not as_json:
        print_counts(counts)


@cli.command()
def schedule(target: TargetOption = None) -> None:
    """Make and prune backups every BACKUP_HOURS, and verify one every BACKUP_VERIFY_HOURS.

    Each run prints one line of JSON. A failed one is repeated after 15 minutes. It runs until it
    gets a signal, and continues with the schedule that the database records.
    """
    options = () if target is None else ("--target", target)
    runner = scheduling.Schedule(_settings(), write=typer.echo, options=options)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, runner.stop)
    runner.run()


@cli.command("new-key")
def create_key() -> None:
    """Print a new key for BACKUP_KEY_FILE. Keep a copy elsewhere: without it, backups are lost."""
    typer.echo(new_key())


def _settings() -> Settings:
    settings = get_settings()
    configure_logging(settings.model_copy(update={"log_level": "WARNING"}))
    return settings


def _open(target: str | None) -> tuple[Target, NoKey]:
    settings = _settings()
    return open_target(settings, target), key_of(settings)


def _values(manifest: Manifest) -> dict[str, Any]:
    return manifest.model_dump(mode="json")


def _describe(manifest: Manifest) -> str:
    size = decimal(manifest.database.bytes)
    images = f"{counted(manifest.images, 'image')} ({decimal(manifest.media_bytes)})"
    lost = f", {len(manifest.missing)} without files" if manifest.missing else ""
    locked = "encrypted" if manifest.key else "not encrypted"
    return f"{manifest.id}  database {size}, {images}{lost}, {locked}"


def _warn(text: str) -> None:
    Console(stderr=True).print(text, style="yellow", markup=False, soft_wrap=True)


@contextmanager
def _reporting(as_json: bool) -> Iterator[Callable[[Mapping[str, Any], str], None]]:
    """Yield a function that prints a result. With JSON, also an error is one line."""

    def report(values: Mapping[str, Any], text: str) -> None:
        if as_json:
            typer.echo(json.dumps({"ok": True, **values}))
        else:
            console.print(text, markup=False, highlight=False, soft_wrap=True)

    try:
        yield report
    except (PressroomError, SetupError) as error:
        if not as_json:
            raise
        typer.echo(json.dumps({"ok": False, "error": str(error)}))
        raise typer.Exit(1) from error


@contextmanager
def _recording(settings: Settings, job: str) -> Iterator[dict[str, int]]:
    """Record the run in the database, also if it fails. The yielded `rows` are recorded."""
    started_at = clock.now()
    values: dict[str, int] = {}
    try:
        yield values
    except (PressroomError, SetupError) as error:
        recording.record(settings, job, started_at=started_at, error=str(error))
        raise
    recording.record(settings, job, started_at=started_at, rows=values.get("rows", 0))


@contextmanager
def _progress(title: str, *, as_json: bool) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on a terminal, and nothing elsewhere."""
    bar = Console(stderr=True)
    with Progress(console=bar, transient=True, disable=as_json or not bar.is_terminal) as shown:
        task = shown.add_task(title, total=None)
        yield lambda done, total: shown.update(task, completed=done, total=total)
