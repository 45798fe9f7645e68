"""Commands for articles: import, export and seed."""

import asyncio
import re
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, ExitStack
from functools import partial
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
from app.core.enums import ExportFormat
from app.core.plurals import counted
from app.db.session import Database
from app.services.bulk import exporting, files, redirects, sources
from app.services.bulk import seed as seeding
from app.services.bulk.dates import DateError, find_zone
from app.services.bulk.fetching import Fetcher
from app.services.bulk.foreign import SourceError
from app.services.bulk.ghost_writing import GhostWriter
from app.services.bulk.markdown_writing import FolderWriter
from app.services.bulk.records import Outcome
from app.services.bulk.redirects import MapFormat
from app.services.bulk.references import is_site_address
from app.services.bulk.relinking import spellings_of_source
from app.services.bulk.reporting import Report
from app.services.bulk.sources import Format, ImportOptions
from app.services.bulk.texts import Renderers
from app.services.bulk.workers import set_up_collector
from app.services.media.storage import open_storage

_CONTROL_CHARACTERS = re.compile(r"[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")

MAX_SHOWN = 500
"""Maximum number of records whose messages `import` prints."""
MAX_JOBS = 64
"""Maximum number of processes of `import`."""
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
    console.print(
        f"Added {counted(user_count, 'user')} (password {seeding.PASSWORD})", highlight=False
    )
    console.print(f"Added {counted(article_count, 'article')}", highlight=False)


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
        _print(errors, f"… and {counted(further, 'more record')}: --report FILE writes all of them")
    _print(console, f"Source: {_escape(report.source)} ({report.source_format})")
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column()
    table.add_column(justify="right")
    for name, count in report.numbers().items():
        table.add_row(name, str(count))
    console.print(table)
    for line in report.sentences():
        _print(console, _escape(line))
    for remaining in report.addresses.remaining[:MAX_SHOWN]:
        line = f"{remaining.slug}: {remaining.address}: {remaining.reason}"
        _print(errors, _escape(line), style="yellow")
    if further := len(report.addresses.remaining[MAX_SHOWN:]) + report.addresses.further:
        _print(
            errors,
            f"… and {counted(further, 'more URL')}: --report FILE lists them",
        )


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
            help="The name of the source. By default the URL of the exported site, or the "
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
    site: Annotated[
        str | None,
        typer.Option(
            help="The URL of the old site, such as https://blog.example, if the source does "
            "not contain it. Relative URLs become absolute with it."
        ),
    ] = None,
    media: Annotated[
        list[Path] | None,
        typer.Option(
            exists=True,
            file_okay=False,
            help="A folder with the images of the old site, such as wp-content/uploads, "
            "content/images or static. Can be repeated.",
        ),
    ] = None,
    fetch_media: Annotated[
        bool,
        typer.Option(
            "--fetch-media", help="Download images from the old site that are in no folder."
        ),
    ] = False,
    media_hosts: Annotated[
        list[str] | None,
        typer.Option(
            "--media-host", help="Another host with images of the old site. Can be repeated."
        ),
    ] = None,
    redirects_path: Annotated[
        Path | None,
        typer.Option(
            "--redirects",
            help="Write the redirects from old URLs: FILE.conf for nginx, FILE_redirects for "
            "Netlify, FILE.json. A name that ends like one of these gets this format only.",
        ),
    ] = None,
    report_path: Annotated[
        Path | None,
        typer.Option(
            "--report",
            help="Write the report on every record, as FILE.json and FILE.html.",
        ),
    ] = None,
    jobs: Annotated[
        int, typer.Option(min=1, max=MAX_JOBS, help="Processes that render texts.")
    ] = 1,
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
        site=_site_address(site),
        media=media or (),
        media_hosts=media_hosts or (),
    )
    with ExitStack() as stack:
        report = stack.enter_context(Report(now=clock.now()))
        targets = _report_files(report_path, stack)
        maps = {} if dry_run else _map_files(redirects_path, stack)
        count = _import(
            settings, path, form, options, report, fetch_media=fetch_media, maps=maps, jobs=jobs
        )
        _print_report(report)
        if maps:
            _print(console, f"Redirects written: {count}, to articles that are public")
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


def _site_address(site: str | None) -> str | None:
    if site is not None and not is_site_address(site):
        raise SetupError("--site must be a URL such as https://blog.example")
    return site


def _map_files(path: Path | None, stack: ExitStack) -> dict[BinaryIO, MapFormat]:
    """Open the files of the redirects before the import begins."""
    if path is None:
        return {}
    try:
        return {
            stack.enter_context(files.create(each)): form
            for each, form in redirects.map_files(path).items()
        }
    except OSError as error:
        raise SetupError(f"Cannot write {error.filename or path} ({error.strerror})") from error


def _import(
    settings: Settings,
    path: Path,
    form: Format,
    options: ImportOptions,
    report: Report,
    *,
    fetch_media: bool,
    maps: dict[BinaryIO, MapFormat],
    jobs: int,
) -> int:
    """Import a source, and write its redirects; return the number of these."""
    set_up_collector()
    try:  # before the thread of Progress
        started = sources.start_source(path, source_format=form)
        render = Renderers(jobs)
    except SourceError as error:
        raise SetupError(str(error)) from error
    with Progress(console=console) as progress:
        scan_task = progress.add_task("Scanning", total=None)
        try:
            source = started.survey(lambda count: progress.advance(scan_task, count))
        except SourceError as error:
            raise SetupError(str(error)) from error
        file_count = progress.tasks[0].completed
        progress.remove_task(scan_task)
        import_task = progress.add_task("Importing", total=source.total or file_count)

        address_task = progress.add_task("Links and images", total=None)

        async def import_all(database: Database) -> int:
            async with AsyncExitStack() as stack:
                await sources.import_source(
                    database,
                    source,
                    options=options,
                    report=report,
                    advance=lambda count: progress.advance(import_task, count),
                    storage=open_storage(settings),
                    fetcher=await stack.enter_async_context(Fetcher()) if fetch_media else None,
                    advance_addresses=lambda count: progress.advance(address_task, count),
                    render=render,
                )
            if not maps:
                return 0
            name = report.source
            return await redirects.write_maps(
                database,
                maps,
                sources=spellings_of_source(name),
                site=options.site or (name if is_site_address(name) else ""),
            )

        try:
            return run_with_database(settings, import_all)
        except SourceError as error:
            raise SetupError(str(error)) from error


def export_articles(
    path: Annotated[
        Path, typer.Argument(help="A file for NDJSON or Ghost, a folder for Markdown.")
    ],
    form: Annotated[
        ExportFormat | None,
        typer.Option(
            "--format", help="ndjson for *.ndjson and *.jsonl, ghost for *.json, else markdown."
        ),
    ] = None,
) -> None:
    """Export all articles, including drafts: as NDJSON, a file for Ghost, or Markdown files.

    NDJSON has everything that an article has. For the other formats, the output says what is left
    out.
    """
    settings = prepare_settings(log_level="WARNING")
    if form is None:
        form = _FORMATS_BY_SUFFIX.get(path.suffix.lower(), ExportFormat.MARKDOWN)
    lost: Mapping[str, int] = {}
    try:
        if form is ExportFormat.MARKDOWN:
            path.mkdir(parents=True, exist_ok=True)
            folder = FolderWriter(path)
            count = _export(settings, folder.write_all)
            lost = folder.lost
        else:
            partial_path = path.with_name(f"{path.name}.part")
            with files.create(partial_path) as file:
                if form is ExportFormat.NDJSON:
                    lines = partial(map, exporting.to_line)
                    count = _export(settings, lambda records: file.writelines(lines(records)))
                else:
                    with GhostWriter(api_url=settings.api_url) as writer:
                        file.write(writer.head())
                        count = _export(settings, lambda records: file.write(writer.posts(records)))
                        file.writelines(writer.tail(exporting.remarks(form, writer.lost)))
                    lost = writer.lost
            partial_path.replace(path)
    except OSError as error:
        raise SetupError(f"Cannot write {error.filename or path} ({error.strerror})") from error
    console.print(f"Exported {counted(count, 'article')}", highlight=False)
    for line in exporting.remarks(form, lost):
        _print(console, line)


_FORMATS_BY_SUFFIX = {
    ".ndjson": ExportFormat.NDJSON,
    ".jsonl": ExportFormat.NDJSON,
    ".json": ExportFormat.GHOST,
}


def _export(settings: Settings, write: Callable[[list[dict[str, Any]]], object]) -> int:
    """Call `write` with batches of all articles; return the number of articles."""

    async def export_all(database: Database) -> int:
        count = 0
        with Progress(console=console) as progress:
            total = await exporting.count_articles(database)
            task = progress.add_task("Exporting", total=total)
            async for records in exporting.export_articles(database, viewer=None):
                await asyncio.to_thread(write, records)
                count += len(records)
                progress.advance(task, len(records))
        return count

    return run_with_database(settings, export_all)


redirects_cli = typer.Typer(no_args_is_help=True, help="Redirects from URLs of old sites.")


@redirects_cli.command("export")
def export_redirects(
    path: Annotated[
        Path,
        typer.Argument(
            help="*.conf for nginx, *_redirects for Netlify, or *.json. Otherwise one of each."
        ),
    ],
    *,
    source_name: Annotated[
        str | None, typer.Option("--source", help="The source of the import. By default all.")
    ] = None,
) -> None:
    """Write the old addresses of imported articles, and the addresses that they have now."""
    settings = prepare_settings(log_level="WARNING")
    names = None if source_name is None else spellings_of_source(source_name)
    site = source_name if source_name and is_site_address(source_name) else ""
    with ExitStack() as stack:
        maps = _map_files(path, stack)
        write = partial(redirects.write_maps, files=maps, sources=names, site=site)
        count = run_with_database(settings, write)
    console.print(f"Exported {counted(count, 'redirect')}", highlight=False)
