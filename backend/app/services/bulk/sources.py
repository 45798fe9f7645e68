"""Import sources: files and folders in the supported formats."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from datetime import UTC, tzinfo
from enum import StrEnum
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.core import clock
from app.core.errors import UserNotFound
from app.db.session import Database
from app.services.accounts import users
from app.services.bulk import ghost, importing, markdown, reading, wordpress
from app.services.bulk.authors import AuthorsOfUser, hash_random_password, resolve_authors
from app.services.bulk.copying import Copier
from app.services.bulk.fetching import Fetcher
from app.services.bulk.folders import Folders
from app.services.bulk.foreign import Progress, ReadOptions, SourceError, SourceFile, Survey
from app.services.bulk.importing import Batches, DryRunSetup, import_articles, roll_back
from app.services.bulk.ndjson import ResolveAuthor, fixed_author
from app.services.bulk.reading import ReadingProcess
from app.services.bulk.records import MAX_RECORD_BYTES, Importer, Result
from app.services.bulk.references import Site, host_of, is_site_address
from app.services.bulk.relinking import Relinker
from app.services.bulk.reporting import Report
from app.services.bulk.texts import RenderTexts, render_texts
from app.services.media.storage import Storage

CHUNK = 256 * 1024


class Format(StrEnum):
    """The format of a source."""

    AUTO = "auto"
    NDJSON = "ndjson"
    MARKDOWN = "markdown"
    GHOST = "ghost"
    WORDPRESS = "wordpress"


_FORMAT_MODULES: dict[Format, ModuleType] = {
    Format.MARKDOWN: markdown,
    Format.GHOST: ghost,
    Format.WORDPRESS: wordpress,
}


class ImportOptions(NamedTuple):
    """How a source is imported."""

    source: str | None = None
    """The name of the source, instead of the one that it has by itself."""
    author: str | None = None
    """The username for all articles."""
    zone: tzinfo | None = None
    """The zone of dates without one. By default the site's, or else UTC."""
    publish_restricted: bool = False
    """Whether to publish what only some readers could read."""
    dry_run: bool = False
    identity: Identity | None = None
    """The importing user, or None for the operator."""
    site: str | None = None
    """The URL of the old site, if the source does not contain it."""
    media: Sequence[Path] = ()
    """Folders with the images of the old site."""
    media_hosts: Sequence[str] = ()
    """Further hosts that have its images."""


class SurveyedSource(NamedTuple):
    """A source with its format and its content besides articles."""

    path: Path
    source_format: Format
    survey: Survey
    process: ReadingProcess | None = None
    """The process that reads it; None for this one."""

    @property
    def name(self) -> str:
        """The name of the source: the address of its site, or else its absolute path."""
        return self.survey.site or str(self.path.resolve())

    @property
    def total(self) -> int | None:
        """The total for `Progress`; None if unknown."""
        return None if self.source_format is Format.MARKDOWN else self.path.stat().st_size


class StartedSource(NamedTuple):
    """A source with its format, and the process that reads it, if it is another one."""

    path: Path
    source_format: Format
    process: ReadingProcess | None

    def survey(self, advance: Progress) -> SurveyedSource:
        """Survey the source. Raises SourceError if it cannot be read."""
        path, source_format, process = self
        try:
            if process is not None:
                survey = process.survey(advance)
            elif source_format is Format.NDJSON:
                survey = Survey()
            else:
                survey = _FORMAT_MODULES[source_format].survey(path, advance)
        except OSError as error:
            raise _unreadable(path, error) from error
        return SurveyedSource(path, source_format, survey, process)


def open_source(path: Path, *, source_format: Format, advance: Progress) -> SurveyedSource:
    """Detect the format of a source and survey it. Raises SourceError if it cannot be read."""
    return start_source(path, source_format=source_format).survey(advance)


def start_source(path: Path, *, source_format: Format) -> StartedSource:
    """Detect the format of a source, and start the process that reads it.

    Call it before other threads start: then the process shares the memory of this one.

    Raises SourceError if the source cannot be read.
    """
    try:
        if source_format is Format.AUTO:
            source_format = _detect(path)
        if path.is_dir() and source_format is not Format.MARKDOWN:
            raise SourceError(f"{path} is a folder: use the format markdown")
        module = _FORMAT_MODULES.get(source_format)
        process = None if module is None else reading.start(path, module)
        return StartedSource(path, source_format, process)
    except OSError as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: OSError) -> SourceError:
    return SourceError(f"{path} cannot be read ({error.strerror})")


async def import_source(
    database: Database,
    source: SurveyedSource,
    *,
    options: ImportOptions,
    report: Report,
    advance: Progress,
    storage: Storage,
    fetcher: Fetcher | None = None,
    advance_addresses: Progress = lambda _: None,
    render: RenderTexts = render_texts,
) -> None:
    """Import a source as the operator or as a user. With `dry_run` all changes are rolled back.

    The operator's import creates users for authors without an account. A user becomes the author of
    their texts.

    Images are copied from the folders of the options, and otherwise downloaded by `fetcher`.
    `advance_addresses` is called with the number of addresses that were looked up at the end.

    Raises UserNotFound, and the errors of `import_articles`.
    """
    name, dry_run = options.source or source.name, options.dry_run
    report.source, report.source_format = name, source.source_format
    report.problems += source.survey.problems
    report.parts.update(source.survey.left_out)
    resolve_author, setup = await _authors(database, source, options=options, report=report)
    importer = Importer(options.identity, name)
    if resolve_author is None and options.identity is None:
        importer = importer._replace(new_author_password=await hash_random_password())
    site = _site(source, name, options)
    read_options = ReadOptions(
        now=clock.now(),
        zone=options.zone or source.survey.zone or UTC,
        publish_restricted=options.publish_restricted,
        site=site.address,
    )
    relinker = _relinker(
        database,
        source,
        name,
        options,
        report=report,
        storage=storage,
        fetcher=fetcher,
        site=site,
        render=render,
    )

    def add(results: Sequence[Result]) -> None:
        report.add(results)
        if relinker is not None:
            relinker.add(results)

    with ExitStack() as stack:
        batches = _batches(
            source,
            read_options,
            resolve_author=resolve_author,
            advance=advance,
            user_id=importer.user_id,
            stack=stack,
        )
        await import_articles(
            database,
            _counted(batches, report),
            importer=importer,
            report=add,
            dry_run=setup if dry_run else None,
            prepare=None if relinker is None else relinker.prepare,
            render=render,
        )
    if isinstance(resolve_author, AuthorsOfUser):
        report.problems += resolve_author.remarks()
    if relinker is not None:
        await relinker.finish(advance_addresses)


async def _authors(
    database: Database, source: SurveyedSource, *, options: ImportOptions, report: Report
) -> tuple[ResolveAuthor | None, DryRunSetup]:
    """Return how authors become users, and what a dry run sets up before each batch.

    Raises UserNotFound.
    """
    if options.author is not None:
        if not await users.username_exists(database.reader, username=options.author):
            raise UserNotFound(f"There is no user {options.author}")
        return partial(fixed_author, options.author), _no_setup
    if source.source_format is Format.NDJSON:
        return None, _no_setup
    authors = source.survey.authors
    if options.identity is not None:
        of_user = AuthorsOfUser(options.identity, authors)
        await of_user.look_up(database.reader)
        return of_user, _no_setup
    hashed = await hash_random_password() if authors else ""
    async with database.unit_of_work() as session:
        usernames, created = await resolve_authors(session, authors, hashed_password=hashed)
        report.users += created
        if options.dry_run:
            await roll_back(session)
    return usernames.get, partial(_resolve_authors, authors=authors, hashed_password=hashed)


def _site(source: SurveyedSource, name: str, options: ImportOptions) -> Site:
    """Return the old site. Its address is that of the options, the source, or its name."""
    known = (options.site or "", source.survey.site, name)
    address = next((each for each in known if is_site_address(each)), "").rstrip("/")
    hosts = {host_of(host) or host.lower() for host in options.media_hosts}
    hosts |= source.survey.hosts
    is_folder = source.source_format is Format.MARKDOWN
    return Site(address, frozenset(hosts - {""}), is_folder=is_folder)


def _relinker(
    database: Database,
    source: SurveyedSource,
    name: str,
    options: ImportOptions,
    *,
    report: Report,
    storage: Storage,
    fetcher: Fetcher | None,
    site: Site,
    render: RenderTexts,
) -> Relinker | None:
    """Return what replaces addresses. Our own exports keep theirs, unless an option says more."""
    copies = bool(options.media) or fetcher is not None
    if source.source_format is Format.NDJSON and not (copies or options.site):
        return None
    copier = None
    if copies:
        beside = [markdown.source_folder(source.path)] if options.media and site.is_folder else []
        folders = Folders([*options.media, *beside])
        copier = Copier(database, source=name, storage=storage, folders=folders, fetcher=fetcher)
    return Relinker(
        database,
        source=name,
        site=site,
        copier=copier,
        report=report.addresses,
        is_dry_run=options.dry_run,
        identity=options.identity,
        render=render,
    )


async def _counted(batches: Batches, report: Report) -> Batches:
    """Count the records of the source, before anything happens to them."""
    async for batch in batches:
        report.records += len(batch)
        yield batch


async def _no_setup(session: AsyncSession) -> None:
    """Set up nothing before a batch that is rolled back."""


async def _resolve_authors(session: AsyncSession, **arguments: Any) -> None:
    await resolve_authors(session, **arguments)


def _batches(
    source: SurveyedSource,
    options: ReadOptions,
    *,
    resolve_author: ResolveAuthor | None,
    advance: Progress,
    user_id: int | None,
    stack: ExitStack,
) -> Batches:
    """Return the source's records. `resolve_author` is None for NDJSON with usernames.

    `stack` closes the file of NDJSON, or ends the process, also after an import that ends early.
    """
    if source.source_format is Format.NDJSON:
        chunks = _chunks(stack.enter_context(SourceFile(source.path, advance)))
        return importing.from_lines(chunks, resolve_author=resolve_author, user_id=user_id)
    resolve_author = resolve_author or str
    if source.process is not None:
        stack.callback(source.process.close)
        records = source.process.read(options, resolve_author=resolve_author, advance=advance)
    else:
        records = _FORMAT_MODULES[source.source_format].read(
            source.path, source.survey, options, resolve_author=resolve_author, advance=advance
        )
    return importing.from_records(records, user_id=user_id)


def _detect(path: Path) -> Format:
    """Detect the format by the file name, and for JSON by the first line."""
    if path.is_dir():
        return Format.MARKDOWN
    suffix = path.suffix.lower()
    if suffix in {".ndjson", ".jsonl"}:
        return Format.NDJSON
    if suffix in {".xml", ".wxr"}:
        return Format.WORDPRESS
    if suffix in markdown.SUFFIXES:
        return Format.MARKDOWN
    if suffix == ".zip":
        raise SourceError(f"{path} is an archive: unpack it, and import its files or its folder")
    if suffix != ".json":
        raise SourceError(f"The format of {path} is unknown: set --format")
    with path.open("rb") as file:
        first = file.readline(MAX_RECORD_BYTES)
    try:
        record = json.loads(first)
    except (ValueError, RecursionError):
        return Format.GHOST
    return Format.NDJSON if isinstance(record, dict) and "title" in record else Format.GHOST


async def _chunks(source: SourceFile) -> AsyncIterator[bytes]:
    while chunk := await asyncio.to_thread(source.read, CHUNK):
        source.record_ended()
        yield chunk
