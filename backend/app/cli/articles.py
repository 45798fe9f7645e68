"""Commands for articles: import, export and seed."""

import asyncio
import re
from collections.abc import Callable
from contextlib import ExitStack
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, BinaryIO

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from app.cli.base import console, prepare_settings, run_with_database
from app.core import clock
from app.core.config import Environment, Settings, SetupError
from app.db.session import Database
from app.services.bulk import exporting, files, markdown, sources
from app.services.bulk import seed as seeding
from app.services.bulk.dates import DateError, find_zone
from app.services.bulk.foreign import SourceError
from app.services.bulk.records import Outcome
from app.services.bulk.reporting import Report
from app.services.bulk.sources import Format, ImportOptions

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

MAX_SHOWN = 500
"""Maximum number of records whose messages `import` prints."""
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


def _print_report(report: Report) -> None:
    """Print the messages of records to the error console, and the counts to the other one."""
    errors = Console(stderr=True)
    entries = (entry for entry in report.entries() if entry.messages)
    shown = (entry for entry in entries if entry.outcome != "left out")
    for entry in islice(shown, MAX_SHOWN):
        position = entry.position
        place = f"line {position}" if isinstance(position, int) else _escape(position)
        style = "red" if entry.outcome == "refused" else "yellow"
        for message in entry.messages:
            _print(errors, f"{place}: {_escape(message)}", style=style)
    if further := sum(1 for _ in shown):
        _print(errors, f"… and {further} more records: --report FILE writes all of them")
    _print(console, f"Source: {_escape(report.source)} ({report.source_format})")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    for name, count in report.numbers().items():
        table.add_row(name, str(count))
    console.print(table)
    for line in report.sentences():
        _print(console, _escape(line))


def _print(target: Console, text: str, *, style: str | None = None) -> None:
    target.print(text, style=style, markup=False, highlight=False, soft_wrap=True)


def _escape(text: str) -> str:
    """Escape control characters, which could manipulate the terminal."""
    return _CONTROL_CHARACTERS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def import_articles(
    path: Annotated[
        Path, typer.Argument(exists=True, help="A file, or a folder of Markdown files.")
    ],
    *,
    form: Annotated[
        Format, typer.Option("--format", help="The format; detected from the file by default.")
    ] = Format.AUTO,
    author: Annotated[
        str | None, typer.Option(help="The user who becomes the author of all articles.")
    ] = None,
    source_name: Annotated[
        str | None,
        typer.Option(
            "--source",
            help="The name of the source. By default the address of the exported site, or the "
            "absolute path. A record is the same as in an earlier import of the same source.",
        ),
    ] = None,
    timezone: Annotated[
        str | None,
        typer.Option(
            help="The time zone of dates without one, such as Europe/Berlin. By default the "
            "exported site's, or UTC."
        ),
    ] = None,
    publish_restricted: Annotated[
        bool,
        typer.Option(
            "--publish-restricted",
            help="Publish what only some readers could read: members, private, with a password, "
            "expired. By default these become drafts.",
        ),
    ] = False,
    report_path: Annotated[
        Path | None,
        typer.Option(
            "--report",
            help="Write the report on every record, as FILE.json and FILE.html.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Report what would change, and change nothing.")
    ] = False,
) -> None:
    """Import articles: NDJSON, Markdown (a file or a folder), a Ghost or WordPress export.

    Importing the same file again changes nothing. Invalid records are reported and skipped.
    Articles that were written here are never changed.
    """
    settings = prepare_settings(log_level="WARNING")
    try:
        zone = find_zone(timezone) if timezone else None
    except DateError as error:
        raise SetupError(str(error)) from error
    options = ImportOptions(
        source=source_name,
        author=author,
        zone=zone,
        publish_restricted=publish_restricted,
        dry_run=dry_run,
    )
    with ExitStack() as stack:
        report = stack.enter_context(Report(now=clock.now()))
        targets = _report_files(report_path, stack)
        _import(settings, path, form, options, report)
        _print_report(report)
        if dry_run:
            _print(Console(stderr=True), "This was a dry run: nothing was changed.")
        for write, file in zip((report.write_json, report.write_html), targets, strict=False):
            write(file)
    if report.counts[Outcome.FAILED]:
        raise typer.Exit(1)


def _report_files(path: Path | None, stack: ExitStack) -> list[BinaryIO]:
    """Open the files of the report before the import begins."""
    if path is None:
        return []
    base = path.with_suffix("") if path.suffix.lower() in {".json", ".html", ".htm"} else path
    try:
        return [
            stack.enter_context(files.create(base.with_name(base.name + suffix)))
            for suffix in (".json", ".html")
        ]
    except OSError as error:
        raise SetupError(f"Cannot write {error.filename or path} ({error.strerror})") from error


def _import(
    settings: Settings, path: Path, form: Format, options: ImportOptions, report: Report
) -> None:
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

        async def import_all(database: Database) -> None:
            await sources.import_source(
                database,
                source,
                options=options,
                report=report,
                advance=lambda count: progress.advance(import_task, count),
            )

        try:
            run_with_database(settings, import_all)
        except SourceError as error:
            raise SetupError(str(error)) from error


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
                # An article with many comments has several records.
                number = len({(record["slug"], record["author"]) for record in records})
                count += number
                progress.advance(task, number)
        return count

    return run_with_database(settings, export_all)
