"""Articles in bulk: imported, exported, and made up for trying things out."""

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

from app.cli.base import console, start, with_database
from app.core.config import Environment, Settings, SetupError
from app.db.session import Database
from app.services import seed as seeding
from app.services.bulk import exporting, files, markdown, sources
from app.services.bulk.foreign import SourceError
from app.services.bulk.records import Outcome, Result
from app.services.bulk.sources import Format

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

MOST = 10_000_000
"""Rows that `seed` adds at once."""


def seed(
    user_count: Annotated[
        int, typer.Option("--users", min=0, max=MOST, help="Authors to add.")
    ] = 10,
    article_count: Annotated[
        int, typer.Option("--articles", min=0, max=MOST, help="Articles to add.")
    ] = 100,
    length: Annotated[
        int, typer.Option(min=100, max=100_000, help="Characters of an article, on average.")
    ] = seeding.MEAN_CONTENT_LENGTH,
) -> None:
    """Add example authors and articles, the same each time on an empty database."""
    settings = start(log_level="WARNING")
    if settings.environment is Environment.PRODUCTION:
        raise SetupError("seed adds accounts with a known password: not in production")

    async def work(database: Database) -> None:
        with Progress(console=console) as progress:
            task = progress.add_task("Seeding", total=user_count + article_count)
            await seeding.seed(
                database,
                users=user_count,
                articles=article_count,
                length=length,
                advance=lambda rows: progress.advance(task, rows),
            )

    with_database(settings, work)
    console.print(f"Added {user_count} users (password {seeding.PASSWORD})", highlight=False)
    console.print(f"Added {article_count} articles", highlight=False)


class ExportFormat(StrEnum):
    """In which form articles go."""

    NDJSON = "ndjson"
    MARKDOWN = "markdown"


class _Said:
    """What became of the records: counted, and told as they come where there is a reason to."""

    def __init__(self, errors: Console) -> None:
        self.counts: Counter[Outcome] = Counter()
        self._errors = errors

    def add(self, results: Sequence[Result]) -> None:
        self.counts.update(result.outcome for result in results)
        for position, outcome, message in results:
            if message:
                where = f"line {position}" if isinstance(position, int) else _shown(position)
                failed = outcome is Outcome.FAILED
                self._errors.print(
                    f"{where}: {_shown(message)}",
                    style="red" if failed else "yellow",
                    markup=False,
                    highlight=False,
                    soft_wrap=True,
                )


def _shown(text: str) -> str:
    """Text from a file for the terminal, with control characters escaped."""
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


def import_articles(
    path: Annotated[
        Path, typer.Argument(exists=True, help="A file, or a folder of Markdown files.")
    ],
    form: Annotated[
        Format, typer.Option("--format", help="What is in it; told by its name where not given.")
    ] = Format.AUTO,
    author: Annotated[
        str | None, typer.Option(help="The user who is given all articles, whoever wrote them.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would happen, and change nothing.")
    ] = False,
) -> None:
    """Import articles: NDJSON, Markdown (a file or a folder), a Ghost or WordPress export.

    Importing the same again changes nothing. A bad record is reported, and the rest goes on.
    """
    settings = start(log_level="WARNING")
    said = _Said(Console(stderr=True))
    with Progress(console=console) as progress:
        looking = progress.add_task("Looking through", total=None)
        try:
            source = sources.open_source(
                path, source_format=form, advance=lambda done: progress.advance(looking, done)
            )
        except SourceError as error:
            raise SetupError(str(error)) from error
        files_seen = progress.tasks[0].completed
        progress.remove_task(looking)
        importing = progress.add_task("Importing", total=source.total or files_seen)

        async def work(database: Database) -> Sequence[str]:
            return await sources.import_source(
                database,
                source,
                author=author,
                dry_run=dry_run,
                report=said.add,
                advance=lambda done: progress.advance(importing, done),
            )

        try:
            created = with_database(settings, work)
        except SourceError as error:
            raise SetupError(str(error)) from error
    counts = said.counts
    summary = ", ".join(f"{outcome} {counts[outcome]}" for outcome in Outcome)
    lines = [f"Nothing was changed. {summary}" if dry_run else summary.capitalize()]
    if created:
        which = "Users to create" if dry_run else "Created users with a password that nobody knows"
        lines.append(f"{which}: {', '.join(created)}")
    skipped = ", ".join(f"{count} {what}" for what, count in source.survey.skipped.items())
    if skipped:
        lines.append(f"Left out: {skipped}")
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
    """Export all articles, drafts among them, as NDJSON or as a folder of Markdown files."""
    settings = start(log_level="WARNING")
    if form is None:
        lines = path.suffix.lower() in {".ndjson", ".jsonl"}
        form = ExportFormat.NDJSON if lines else ExportFormat.MARKDOWN

    try:
        if form is ExportFormat.MARKDOWN:
            path.mkdir(parents=True, exist_ok=True)
            count = _export(settings, lambda record: markdown.write(path, record))
        else:
            unfinished = path.with_name(f"{path.name}.part")
            with files.create(unfinished) as file:
                count = _export(settings, lambda record: file.write(exporting.to_line(record)))
            unfinished.replace(path)
    except OSError as error:
        where = error.filename or path
        raise SetupError(f"{where} cannot be written ({error.strerror})") from error
    console.print(f"Exported {count} articles", highlight=False)


def _export(settings: Settings, write: Callable[[dict[str, Any]], object]) -> int:
    """Have every article written; how many that were."""

    def write_all(records: list[dict[str, Any]]) -> None:
        for record in records:
            write(record)

    async def work(database: Database) -> int:
        count = 0
        with Progress(console=console) as progress:
            total = await exporting.count_articles(database)
            task = progress.add_task("Exporting", total=total)
            async for records in exporting.export_articles(database, viewer=None):
                await asyncio.to_thread(write_all, records)
                count += len(records)
                progress.advance(task, len(records))
        return count

    return with_database(settings, work)
