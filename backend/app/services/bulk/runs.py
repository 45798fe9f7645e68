"""Imports over HTTP, which run in the background of a process.

The body is received into a file, because some formats are read twice. It is deleted when the import
ends. If the process is killed, `jobs.media` deletes the file, and the import counts as interrupted.
"""

import asyncio
import io
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import tzinfo
from functools import partial
from pathlib import Path
from typing import Any

from app.auth.identity import Identity
from app.core import clock
from app.core.config import get_settings
from app.core.enums import ImportState
from app.core.errors import (
    ContentTooLarge,
    InvalidInput,
    InvalidToken,
    PressroomError,
    RequestTimedOut,
    ServiceUnavailable,
    UnsupportedMediaType,
)
from app.core.logging import get_logger
from app.core.streams import Deadline
from app.core.threads import LOWEST_PRIORITY, FairThreadPool
from app.db.session import Database
from app.schemas.imports import MAX_MESSAGES, ImportQuery, ImportResponse
from app.services.bulk import archives, imports, sources
from app.services.bulk.dates import DateError, find_zone
from app.services.bulk.foreign import SourceError
from app.services.bulk.importing import ImportStopped
from app.services.bulk.reading import ReadingProcess
from app.services.bulk.records import Outcome
from app.services.bulk.reporting import Report
from app.services.bulk.sources import Format, ImportOptions
from app.services.media.storage import Storage
from app.services.space import available_bytes

logger = get_logger(__name__)

CONTENT_TYPES: Mapping[str, Format] = {
    "application/x-ndjson": Format.NDJSON,
    "application/ndjson": Format.NDJSON,
    "application/xml": Format.WORDPRESS,
    "text/xml": Format.WORDPRESS,
    "application/rss+xml": Format.WORDPRESS,
    "application/json": Format.GHOST,
    "application/zip": Format.MARKDOWN,
    "application/x-zip-compressed": Format.MARKDOWN,
}
"""The formats by media type. Browsers send different ones for the same file."""
MAX_FOREIGN_BYTES = 128 * 1024 * 1024
"""The maximum size of formats other than NDJSON. The command has no limit."""
MAX_REPORTED_RECORDS = 20_000
MAX_REPORT_BYTES = 2 * 1024 * 1024
"""The maximum size of the entries of a report. The rest is limited to half of it."""
MAX_MESSAGE = 1000
WAIT_SECONDS = 10
"""How long the response waits for the end of the import."""
UPDATE_SECONDS = 2
MAX_QUEUED = 100
WRITE_BYTES = 1024 * 1024
FIRST_RESERVATION = 1024 * 1024
"""The space that is reserved for a body of unknown size. It is doubled while the body grows."""
TOO_LARGE = "An import in this format may have {0} bytes"
_NO_SITE = "The file does not name its site: send the query parameter `source` with a name for it"
_SUFFIXES = {Format.NDJSON: ".ndjson", Format.WORDPRESS: ".xml", Format.GHOST: ".json"}

_surveys = FairThreadPool(
    "survey", size=1, what="imports", max_jobs=MAX_QUEUED, niceness=LOWEST_PRIORITY
)
"""The first reading of a source takes long. It must not delay the batches of other imports."""


@dataclass
class _Run:
    """An import in progress."""

    id: int
    identity: Identity
    source_format: Format
    query: ImportQuery
    zone: tzinfo | None
    directory: Path
    report: Report
    source: str | None = None
    reserved: int = 0
    size: int = 0
    total: int = 0
    read: int = 0
    stopped: Mapping[str, Any] | None = None
    deadline: float = 0
    paused_at: float = 0
    error: Exception | None = None
    process: ReadingProcess | None = None
    problems: list[str] = field(default_factory=list)

    @property
    def progress(self) -> float:
        """The part of the source that was read."""
        return round(min(self.read / self.total, 1), 3) if self.total else 0

    def advance(self, count: int) -> None:
        """Note what was read, in a thread. Let the event loop run. Raises RequestTimedOut."""
        self.read += count
        now = time.monotonic()
        if now > self.deadline:
            raise RequestTimedOut
        if now - self.paused_at > 0.001:
            time.sleep(0.000_05)
            self.paused_at = time.monotonic()

    def summary(self, *, messages: bool) -> dict[str, Any]:
        """Return the counts of the report, and its first messages."""
        counts = self.report.counts
        errors, notes = _first_messages(self.report) if messages else ([], [])
        return {
            "records": self.report.records,
            "created": counts[Outcome.CREATED],
            "updated": counts[Outcome.UPDATED],
            "unchanged": counts[Outcome.UNCHANGED],
            "failed": counts[Outcome.FAILED],
            "left_out": counts[Outcome.LEFT_OUT],
            "stopped": self.stopped,
            "remarks": self.report.sentences(),
            "errors": errors,
            "notes": notes,
        }


def _first_messages(report: Report) -> tuple[list[Any], list[Any]]:
    errors: list[Any] = []
    notes: list[Any] = []
    for entry in report.entries():
        first = errors if entry.outcome == "refused" else notes
        if entry.messages and entry.outcome != "left out" and len(first) < MAX_MESSAGES:
            first.append(_message(entry.position, "; ".join(entry.messages)))
    return errors, notes


def _message(position: int | str, text: str) -> dict[str, Any]:
    return {"line": position, "message": text[:MAX_MESSAGE]}


class ImportRuns:
    """The imports that this process runs."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self._foreign = asyncio.Lock()
        """Only one file that is not NDJSON at a time: what their parsers remember takes memory."""

    async def stop(self) -> None:
        """Interrupt all imports, and wait until their results are stored."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def run(
        self,
        database: Database,
        *,
        storage: Storage,
        identity: Identity,
        content_type: str,
        query: ImportQuery,
        content_length: int | None,
        body: AsyncIterator[bytes],
        waits: bool = True,
    ) -> ImportResponse:
        """Receive the body and import it. Return the import when it ends, or after WAIT_SECONDS.

        Without `waits`, it is returned when the body is received. The permissions are checked again
        for each batch.

        Raises UnsupportedMediaType, InvalidInput, ImportInProgress, LimitReached, ContentTooLarge,
        ServiceUnavailable, RequestTimedOut, InvalidToken.
        """
        source_format = CONTENT_TYPES.get(content_type)
        if source_format is None:
            known = ", ".join(CONTENT_TYPES)
            raise UnsupportedMediaType(f"Send the records with one of these Content-Types: {known}")
        zone = _checked_options(source_format, query)
        limit = _max_bytes(source_format)
        if content_length is not None and content_length > limit:
            raise ContentTooLarge(TOO_LARGE.format(limit))
        reserved = FIRST_RESERVATION if content_length is None else content_length
        import_id = await imports.create(
            database,
            identity=identity,
            source_format=source_format,
            dry_run=query.dry_run,
            reserved=reserved,
            available=await available_bytes(storage.incoming),
        )
        run = _Run(
            import_id,
            identity,
            source_format,
            query,
            zone,
            storage.incoming / secrets.token_hex(16),
            Report(now=clock.now(), max_entries=MAX_REPORTED_RECORDS, max_bytes=MAX_REPORT_BYTES),
            reserved=reserved,
        )
        seconds = get_settings().stream_seconds
        run.deadline = time.monotonic() + seconds
        delay = WAIT_SECONDS + UPDATE_SECONDS if waits else UPDATE_SECONDS
        updates = asyncio.create_task(_update_repeatedly(database, run, delay=delay))
        try:
            await _receive(database, run, Deadline(seconds).limit(body), limit=limit)
            await imports.start(database, run.id, size=run.size)
        except BaseException:
            updates.cancel()
            await _clean_up(run)
            with suppress(ServiceUnavailable):
                await imports.discard(database, run.id)
            raise
        task = asyncio.create_task(self._import(database, storage, run, updates))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        updates.add_done_callback(lambda done: done.cancelled() or task.cancel())
        if waits:
            await asyncio.wait({task}, timeout=WAIT_SECONDS)
        if isinstance(run.error, InvalidToken):
            raise run.error
        return await imports.get_import(database, import_id=run.id, user=identity)

    async def _import(
        self, database: Database, storage: Storage, run: _Run, updates: "asyncio.Task[None]"
    ) -> None:
        """Import the received file, and store the result."""
        state, message = ImportState.COMPLETED, None
        try:
            await self._import_file(database, storage, run)
        except ImportStopped as stop:
            state, message = ImportState.STOPPED, stop.message
            run.stopped = _message(stop.position, stop.message)
        except asyncio.CancelledError:
            state, message = ImportState.INTERRUPTED, imports.INTERRUPTED
        except (TimeoutError, RequestTimedOut):
            seconds = get_settings().stream_seconds
            state = ImportState.FAILED
            message = f"The import took longer than the limit of {seconds:g} seconds"
        except InvalidToken as error:
            state, message = ImportState.FAILED, f"{error}. Your access ended during the import"
            run.error = error
        except (PressroomError, SourceError) as error:
            state, message = ImportState.FAILED, str(error)
        except Exception:
            logger.exception("An import failed")
            state, message = ImportState.FAILED, "Internal server error"
        updates.cancel()
        try:
            await _store_result(database, run, state, message)
        except Exception:  # then the import counts as interrupted
            logger.exception("The result of an import could not be stored")
        finally:
            await _clean_up(run)

    async def _import_file(self, database: Database, storage: Storage, run: _Run) -> None:
        if run.source_format is Format.NDJSON:
            await _import_source(database, storage, run)
            return
        async with self._foreign:
            await _import_source(database, storage, run)


def _checked_options(source_format: Format, query: ImportQuery) -> tzinfo | None:
    """Return the time zone. Raises InvalidInput."""
    if source_format is Format.MARKDOWN and query.source is None:
        raise InvalidInput("source: a ZIP file needs a name for its source")
    try:
        return find_zone(query.timezone) if query.timezone else None
    except DateError as error:
        raise InvalidInput(f"timezone: {error}") from error


def _max_bytes(source_format: Format) -> int:
    limit = get_settings().max_import_bytes
    return limit if source_format is Format.NDJSON else min(limit, MAX_FOREIGN_BYTES)


async def _reserve(database: Database, run: _Run, size: int) -> None:
    """Reserve disk space for the files of an import. Raises ServiceUnavailable."""
    available = await available_bytes(run.directory)
    await imports.reserve(database, run.id, size=size, available=available)
    run.reserved = size


async def _receive(
    database: Database, run: _Run, body: AsyncIterator[bytes], *, limit: int
) -> None:
    """Write the body to a file, for which space is reserved first.

    Raises ContentTooLarge, ServiceUnavailable and errors of `body`.
    """
    try:
        await asyncio.to_thread(run.directory.mkdir, mode=0o700, parents=True)
        with (run.directory / "body").open("xb") as file:
            pending: list[bytes] = []
            waiting = 0
            async for chunk in body:
                run.size += len(chunk)
                if run.size > limit:
                    raise ContentTooLarge(TOO_LARGE.format(limit))
                if run.size > run.reserved:
                    await _reserve(database, run, min(2 * run.size, limit))
                pending.append(chunk)
                waiting += len(chunk)
                if waiting >= WRITE_BYTES:
                    await asyncio.to_thread(file.writelines, pending)
                    pending, waiting = [], 0
            await asyncio.to_thread(file.writelines, pending)
    except OSError as error:
        logger.warning(f"The body of an import cannot be stored: {error.strerror}")
        raise ServiceUnavailable("The import cannot be stored at the moment") from error


async def _import_source(database: Database, storage: Storage, run: _Run) -> None:
    """Survey and import the received file. Raises SourceError, and what `import_source` raises."""
    seconds = get_settings().stream_seconds
    run.deadline = time.monotonic() + seconds
    async with asyncio.timeout(seconds):
        if run.source_format is Format.MARKDOWN:
            path = run.directory / "body"
            await _reserve(database, run, await asyncio.to_thread(archives.size_of_texts, path))
        source = await _surveys.run(partial(_open, run), user_id=run.identity.id)
        run.source = run.query.source or source.survey.site
        if source.source_format is Format.NDJSON:
            run.source = run.query.source or "api"
        if not run.source:
            raise SourceError(_NO_SITE)
        run.read, run.total = 0, source.total or run.read
        options = ImportOptions(
            source=run.source,
            author=run.query.author,
            zone=run.zone,
            publish_restricted=run.query.publish_restricted,
            site=run.query.site,
            dry_run=run.query.dry_run,
            identity=run.identity,
        )
        run.report.problems += run.problems
        await sources.import_source(
            database,
            source,
            options=options,
            report=run.report,
            advance=run.advance,
            storage=storage,
        )
        run.read = run.total


def _open(run: _Run) -> sources.SurveyedSource:
    """Survey the file, in a thread. An archive is unpacked first. Raises SourceError."""
    path = run.directory / "body"
    try:
        if run.source_format is Format.MARKDOWN:
            folder = run.directory / "files"
            run.problems += archives.extract(path, folder, advance=run.advance)
            path.unlink()
            path, run.read = folder, 0
        started = sources.start_source(path, source_format=run.source_format)
        run.process = started.process
        return started.survey(run.advance)
    except OSError as error:
        raise SourceError(f"The file cannot be read ({error.strerror})") from error


async def _update_repeatedly(database: Database, run: _Run, *, delay: float) -> None:
    """Store the progress every few seconds. Return when the import was cancelled or deleted."""
    await asyncio.sleep(delay)
    while True:
        with suppress(ServiceUnavailable):
            may_continue = await imports.update_progress(
                database,
                run.id,
                progress=run.progress,
                source=run.source,
                summary=run.summary(messages=False),
            )
            if not may_continue:
                return
        with suppress(OSError):  # old folders are deleted
            await asyncio.to_thread(os.utime, run.directory)
        await asyncio.sleep(UPDATE_SECONDS)


async def _store_result(
    database: Database, run: _Run, state: ImportState, message: str | None
) -> None:
    summary, report = await asyncio.to_thread(_result, run)
    await imports.finish(
        database,
        run.id,
        state=state,
        message=message,
        progress=run.progress,
        source=run.source,
        summary=summary,
        report=report,
    )


def _result(run: _Run) -> tuple[dict[str, Any], str]:
    file = io.BytesIO()
    run.report.write_json(file)
    return run.summary(messages=True), file.getvalue().decode()


async def _clean_up(run: _Run) -> None:
    if run.process is not None:
        await asyncio.to_thread(run.process.close)
    run.report.__exit__()
    await asyncio.to_thread(shutil.rmtree, run.directory, ignore_errors=True)
