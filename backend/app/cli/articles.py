"""Commands for articles: import, export and seed."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from app.cli.base import console, prepare_settings, run_with_database
from app.core.config import Environment, Settings, SetupError
from app.db.session import Database
from app.services.bulk import exporting, files, markdown, sources
from app.services.bulk import seed as seeding
from app.services.bulk.foreign import SourceError
from app.services.bulk.records import Outcome, Result
from app.services.bulk.sources import Format

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

MAX_SEED_ROWS = 10_000_000
"""Maximum users or articles that one `seed` adds."""


def seed(
    user_count: Annotated[
        int, typer.Option("--users", min=0, max=MAX_SEED_ROWS, help="Authors to add.")
    ] = 10,
    article_count: Annotated[
        int, typer.Option("--articles", min=0, max=MAX_SEED_ROWS, help="Articles to add.")
    ] = 100,
    length: Annotated[
        int, typer.Option(min=100, max=100_000, help="Average characters of an article.")
    ] = seeding.MEAN_CONTENT_LENGTH,
) -> None:
    """Add example authors and articles. An empty database always gets the same ones."""
    settings = prepare_settings(log_level="WARNING")
    if settings.environment is Environment.PRODUCTION:
        raise SetupError("seed creates accounts with a known password: do not use it in production")

    async def add_rows(database: Database) -> None:
        with Progress(console=console) as progress:
            task = progress.add_task("Seeding", total=user_count + article_count)
            await seeding.seed(
                database,
                users=user_count,
                articles=article_count,
                length=length,
                advance=lambda rows: progress.advance(task, rows),
            )

    run_with_database(settings, add_rows)
    console.print(f"Added {user_count} users (password {seeding.PASSWORD})", highlight=False)
    console.print(f"Added {article_count} articles", highlight=False)


class ExportFormat(StrEnum):
    """The output format of `export`."""

    NDJSON = "ndjson"
    MARKDOWN = "markdown"


class _ImportReport:
    """Counts the outcomes of records, and prints each message to the error console."""

    def __init__(self, errors: Console) -> None:
        self.counts: Counter[Outcome] = Counter()
        self._errors = errors

    def add(self, results: Sequence[Result]) -> None:
        self.counts.update(result.outcome for result in results)
        for position, outcome, message in results:
            if message:
                source = f"line {position}" if isinstance(position, int) else _escape(position)
                failed = outcome is Outcome.FAILED
                self._errors.print(
                    f"{source}: {_escape(message)}",
                    style="red" if failed else "yellow",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )


def _escape(text: str) -> str:
    """Escape control characters, which could manipulate the terminal."""
    return _CONTROL_CHARACTERS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def import_articles(
    path: Annotated[
        Path, typer.Argument(exists=True, help="A file, or a folder of Markdown files.")
    ],
    form: Annotated[
        Format, typer.Option("--format", help="The format; detected from the file by default.")
    ] = Format.AUTO,
    author: Annotated[
        str | None, typer.Option(help="The user who becomes the author of all articles.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Report what would change, and change nothing.")
    ] = False,
) -> None:
    """Import articles: NDJSON, Markdown (a file or a folder), a Ghost or WordPress export.

    Importing the same file again changes nothing. Invalid records are reported and skipped.
    """
    settings = prepare_settings(log_level="WARNING")
    report = _ImportReport(Console(stderr=True))
    with Progress(console=console) as progress:
        scan_task = progress.add_task("Scanning", total=None)
        try:
            source = sources.open_source(
                path, source_format=form, advance=lambda count: progress.advance(scan_task, count)
            )
        except SourceError as error:
            raise SetupError(str(error)) from error
        file_count = progress.tasks[0].completed
        progress.remove_task(scan_task)
        import_task = progress.add_task("Importing", total=source.total or file_count)

        async def import_all(database: Database) -> Sequence[str]:
            return await sources.import_source(
                database,
                source,
                author=author,
                dry_run=dry_run,
                report=report.add,
                advance=lambda count: progress.advance(import_task, count),
            )

        try:
            created = run_with_database(settings, import_all)
        except SourceError as error:
            raise SetupError(str(error)) from error
    counts = report.counts
    summary = ", ".join(f"{outcome} {counts[outcome]}" for outcome in Outcome)
    lines = [f"Nothing was changed. {summary}" if dry_run else summary.capitalize()]
    if created:
        label = "Users to create" if dry_run else "Created users with a random password"
        lines.append(f"{label}: {', '.join(created)}")
    skipped = ", ".join(f"{count} {kind}" for kind, count in source.survey.skipped.items())
    if skipped:
        lines.append(f"Skipped: {skipped}")
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)
    if counts[Outcome.FAILED]:
        raise typer.Exit(1)


def export_articles(
    path: Annotated[Path, typer.Argument(help="A file for NDJSON, a folder for Markdown.")],
    form: Annotated[
        ExportFormat | None,
        typer.Option("--format", help="ndjson for *.ndjson and *.jsonl, else markdown."),
    ] = None,
) -> None:
    """Export all articles, including drafts, as NDJSON or as a folder of Markdown files."""
    settings = prepare_settings(log_level="WARNING")
    if form is None:
        is_ndjson = path.suffix.lower() in {".ndjson", ".jsonl"}
        form = ExportFormat.NDJSON if is_ndjson else ExportFormat.MARKDOWN

    try:
        if form is ExportFormat.MARKDOWN:
            path.mkdir(parents=True, exist_ok=True)
            count = _export(settings, lambda record: markdown.write(path, record))
        else:
            partial_path = path.with_name(f"{path.name}.part")
            with files.create(partial_path) as file:
                count = _export(settings, lambda record: file.write(exporting.to_line(record)))
            partial_path.replace(path)
    except OSError as error:
        raise SetupError(f"Cannot write {error.filename or path} ({error.strerror})") from error
    console.print(f"Exported {count} articles", highlight=False)


def _export(settings: Settings, write: Callable[[dict[str, Any]], object]) -> int:
    """Call `write` for every article; return the number of articles."""

    def write_all(records: list[dict[str, Any]]) -> None:
        for record in records:
            write(record)

    async def export_all(database: Database) -> int:
        count = 0
        with Progress(console=console) as progress:
            total = await exporting.count_articles(database)
            task = progress.add_task("Exporting", total=total)
            async for records in exporting.export_articles(database, viewer=None):
                await asyncio.to_thread(write_all, records)
                count += len(records)
                progress.advance(task, len(records))
        return count

    return run_with_database(settings, export_all)
