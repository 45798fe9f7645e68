"""What can be imported from: a file or a folder, in one of the formats that there are."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from enum import StrEnum
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import UserNotFound
from app.db.session import Database
from app.services import users
from app.services.bulk import ghost, importing, markdown, wordpress
from app.services.bulk.authors import admit, unknown_password
from app.services.bulk.foreign import Advance, Source, SourceError, Survey
from app.services.bulk.importing import Batches, Rehearse, Report, import_articles, undo
from app.services.bulk.ndjson import AuthorOf
from app.services.bulk.records import MAX_RECORD_BYTES, Importer

CHUNK = 256 * 1024


class Format(StrEnum):
    """In which form articles come."""

    AUTO = "auto"
    NDJSON = "ndjson"
    MARKDOWN = "markdown"
    GHOST = "ghost"
    WORDPRESS = "wordpress"


_READERS: dict[Format, ModuleType] = {
    Format.MARKDOWN: markdown,
    Format.GHOST: ghost,
    Format.WORDPRESS: wordpress,
}


class Opened(NamedTuple):
    """A source whose format is known, and what it holds besides its articles."""

    path: Path
    form: Format
    survey: Survey

    @property
    def total(self) -> int | None:
        """How far there is to read, in what `Advance` is told; None where nobody knows."""
        return None if self.form is Format.MARKDOWN else self.path.stat().st_size


def open_source(path: Path, *, form: Format, advance: Advance) -> Opened:
    """Look a source through. Raises SourceError where it cannot be read."""
    try:
        if form is Format.AUTO:
            form = _detect(path)
        if path.is_dir() and form is not Format.MARKDOWN:
            raise SourceError(f"{path} is a folder: the format has to be markdown")
        if form is Format.NDJSON:
            return Opened(path, form, Survey())
        look_through: Callable[[Path, Advance], Survey] = _READERS[form].survey
        return Opened(path, form, look_through(path, advance))
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror})") from error


async def import_source(
    database: Database,
    source: Opened,
    *,
    author: str | None = None,
    dry_run: bool = False,
    report: Report,
    advance: Advance,
) -> Sequence[str]:
    """Import a source as the operator, and say which users were created for its authors.

    `author` names the user who is given all articles. With `dry_run` nothing stays. Raises
    UserNotFound, and what `import_articles` does.
    """
    created: Sequence[str] = ()
    author_of: AuthorOf | None = None
    rehearse: Rehearse = _nothing
    if author is not None:
        if not await users.username_exists(database.reader, username=author):
            raise UserNotFound(f"Nobody is called {author}")
        author_of = partial(_always, author)
    elif source.form is not Format.NDJSON:
        authors = source.survey.authors
        hashed = await unknown_password() if authors else ""
        rehearse = partial(_admit, authors=authors, hashed_password=hashed)
        async with database.unit_of_work() as session:
            usernames, created = await admit(session, authors, hashed_password=hashed)
            if dry_run:
                await undo(session)
        author_of = usernames.get
    await import_articles(
        database,
        batches_of(source, author_of=author_of, advance=advance),
        importer=Importer(None),
        report=report,
        rehearse=rehearse if dry_run else None,
    )
    return created


def _always(author: str, _: str) -> str:
    return author


async def _nothing(session: AsyncSession) -> None:
    """What comes before a batch that is rolled back, where it needs nothing."""


async def _admit(session: AsyncSession, **arguments: Any) -> None:
    await admit(session, **arguments)


def batches_of(source: Opened, *, author_of: AuthorOf | None, advance: Advance) -> Batches:
    """The source's records. `author_of` says who its authors are; None: NDJSON names users."""
    if source.form is Format.NDJSON:
        return importing.from_lines(_chunks(source.path, advance), author_of=author_of)
    records = _READERS[source.form].read(
        source.path, source.survey, author_of=author_of or str, advance=advance
    )
    return importing.from_records(records)


def _detect(path: Path) -> Format:
    """By the name; for JSON by what its first line is."""
    if path.is_dir():
        return Format.MARKDOWN
    suffix = path.suffix.lower()
    if suffix in {".ndjson", ".jsonl"}:
        return Format.NDJSON
    if suffix == ".xml":
        return Format.WORDPRESS
    if suffix in markdown.SUFFIXES:
        return Format.MARKDOWN
    if suffix != ".json":
        raise SourceError(f"{path} could be anything: say --format")
    with path.open("rb") as file:
        first = file.readline(MAX_RECORD_BYTES)
    try:
        record = json.loads(first)
    except (ValueError, RecursionError):
        return Format.GHOST
    return Format.NDJSON if isinstance(record, dict) and "title" in record else Format.GHOST


async def _chunks(path: Path, advance: Advance) -> AsyncIterator[bytes]:
    with Source(path, advance) as source:
        while chunk := await asyncio.to_thread(source.read, CHUNK):
            source.record_ended()
            yield chunk
