"""Import pipeline: parse and render the next batch while the previous one is written."""

import asyncio
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterator,
    Sequence,
)
from functools import partial
from typing import NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import recheck
from app.auth.permissions import Action, may
from app.core import clock
from app.core.errors import InvalidInput, LimitReached, QuotaExceeded
from app.core.limits import LimitKind
from app.core.threads import FairThreadPool
from app.db.retry import retry
from app.db.session import COMMIT_LOG, Database
from app.services import limits
from app.services.bulk import statements
from app.services.bulk.comments import render_comments, size_of
from app.services.bulk.ndjson import Line, ResolveAuthor, parse_lines, read_lines
from app.services.bulk.planning import Simulation
from app.services.bulk.records import (
    Importer,
    KeySet,
    Outcome,
    ParsedRecord,
    Position,
    PreparedRecord,
    Result,
    prepare_record,
)
from app.services.bulk.sizes import total_bytes
from app.services.bulk.texts import RenderTexts, paced, render_texts
from app.services.bulk.writing import write

BATCH = 500
BATCH_BYTES = 2 * 1024 * 1024
"""The maximum size of a batch, unless a single record is larger."""
MAX_QUEUED = 100
"""Imports of this process at the same time: each has one job at most."""


class ImportStopped(Exception):
    """A limit was reached: the record at `position` and all later records are not written."""

    def __init__(self, position: Position, message: str) -> None:
        super().__init__(message)
        self.position = position
        self.message = message


Batches = AsyncIterator[list[ParsedRecord]]
Report = Callable[[Sequence[Result]], None]
Prepare = Callable[[list[PreparedRecord]], Awaitable[list[PreparedRecord]]]
"""Changes the texts of records before they are rendered."""
DryRunSetup = Callable[[AsyncSession], Awaitable[None]]


class ImportContext(NamedTuple):
    """The state of an import."""

    database: Database
    importer: Importer
    seen: KeySet
    report: Report
    dry_run: DryRunSetup | None
    simulation: Simulation | None
    prepare: Prepare | None
    render: RenderTexts


threads = FairThreadPool("import", size=1, what="imports", max_jobs=MAX_QUEUED)
"""One thread for all imports of this process, which leaves CPU time for requests."""

_write_locks: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


def _write_lock() -> asyncio.Lock:
    """Return the lock that lets only one import of this process hold a connection."""
    return _write_locks.setdefault(asyncio.get_running_loop(), asyncio.Lock())


async def import_articles(
    database: Database,
    batches: Batches,
    *,
    importer: Importer,
    report: Report,
    dry_run: DryRunSetup | None = None,
    prepare: Prepare | None = None,
    render: RenderTexts = render_texts,
) -> None:
    """Import batches of records, and call `report` with the results, in any order.

    Each batch is a transaction: records that were reported as written stay. With `dry_run`, each
    batch is rolled back, and counted as checked; its transaction begins with a call of `dry_run`.
    The importer's permissions are checked again for each batch.

    Raises InvalidToken if the importer's access was withdrawn, and ServiceUnavailable if the
    database stays unavailable. Raises ImportStopped if a limit is reached, and errors of `batches`.
    """
    simulation = None if dry_run is None else Simulation()
    context = ImportContext(
        database, importer, KeySet(), report, dry_run, simulation, prepare, render
    )
    writing: asyncio.Task[None] | None = None
    try:
        async for batch in batches:
            items = await _prepare(context, batch)
            if writing is not None:
                await writing
            writing = asyncio.create_task(_write(context, items))
    except asyncio.CancelledError:
        if writing is not None:
            writing.cancel()
        raise
    finally:
        if writing is not None:
            await writing


async def _prepare(context: ImportContext, batch: Sequence[ParsedRecord]) -> list[PreparedRecord]:
    """Return the rendered records to write, and report the results of all others."""
    user_id = context.importer.user_id
    results = [
        Result(item, Outcome.LEFT_OUT, item.left_out)
        if item.left_out
        else Result(item, Outcome.FAILED, item.problem)
        for item in batch
        if item.record is None
    ]
    items = await threads.run(
        partial(_prepare_records, batch, context.importer, context.seen), user_id=user_id
    )
    unchanged = await _unchanged(context, items)
    results += [
        Result(item.parsed, Outcome.UNCHANGED, source=item.source, source_id=item.source_id)
        for item in items
        if item.key in unchanged and not item.repeated
    ]
    items = [item for item in items if item.repeated or item.key not in unchanged]
    if context.prepare is not None:
        items = await context.prepare(items)
    texts = [item.record.content for item in items]
    rendered = await threads.run(partial(context.render, texts), user_id=user_id)
    results += [
        Result(item.parsed, Outcome.FAILED, f"content: {result}")
        for item, result in zip(items, rendered, strict=True)
        if isinstance(result, str)
    ]
    context.report(results)
    ready = [
        item._replace(rendered=result)
        for item, result in zip(items, rendered, strict=True)
        if not isinstance(result, str)
    ]
    with_comments = paced(map(_render_comments, ready), user_id=user_id)
    return await threads.run(partial(list[PreparedRecord], with_comments), user_id=user_id)


def _render_comments(item: PreparedRecord) -> PreparedRecord:
    comments = item.record.comments
    return item._replace(comments=render_comments(comments)) if comments else item


def _prepare_records(
    batch: Sequence[ParsedRecord], importer: Importer, seen: KeySet
) -> list[PreparedRecord]:
    """Return the valid records of a batch with their keys and digests."""
    prepared_items = (
        _mark_repeated(prepare_record(item, item.record, importer=importer), seen)
        for item in batch
        if item.record is not None
    )
    return list(paced(prepared_items, user_id=importer.user_id))


def _mark_repeated(item: PreparedRecord, seen: KeySet) -> PreparedRecord:
    """Mark the record as repeated if an earlier record had its key."""
    return item if seen.add(item.key) else item._replace(repeated=True)


async def _unchanged(context: ImportContext, items: Sequence[PreparedRecord]) -> frozenset[bytes]:
    """Return the keys of records that are already imported unchanged, to skip rendering them."""
    if not items:
        return frozenset()
    digests: dict[bytes, bytes] = {}
    for item in items:
        digests.setdefault(item.key, item.digest)  # the first record with a key counts
    identity = context.importer.identity
    async with context.database.autocommit() as connection:
        if identity is not None:  # check the permission before rendering
            identity = await recheck(connection, identity)
        known = await connection.execute(statements.IMPORT_RECORDS, {"keys": list(digests)})
    return frozenset(
        row.key
        for row in known
        if row.digest == digests[row.key]
        and (identity is None or may(identity, Action.CHANGE_ARTICLE, owner_id=row.author_id))
    )


async def _write(context: ImportContext, items: Sequence[PreparedRecord]) -> None:
    """Write a batch. A record with the id of an earlier one comes after it."""
    while items:
        first: dict[bytes, PreparedRecord] = {}
        for item in items:
            first.setdefault(item.key, item)
        await _write_different(context, list(first.values()))
        items = [item for item in items if first[item.key] is not item]


async def _write_different(context: ImportContext, items: Sequence[PreparedRecord]) -> None:
    """Write records with different ids.

    If the database rejects the batch, split it, and report only the invalid records. If the batch
    exceeds a limit, write the records before the first one that exceeds it. Then raise
    ImportStopped.
    """

    async def write_batch(session: AsyncSession) -> list[Result]:
        if context.dry_run is not None:
            await context.dry_run(session)
        results = await write(
            session, items, importer=context.importer, simulation=context.simulation
        )
        if context.dry_run is not None:
            await roll_back(session)
            await _spend_check(session, items, importer=context.importer)
        return results

    try:
        async with _write_lock():
            results = await retry(context.database, write_batch)
    except (InvalidInput, IntegrityError, LimitReached, QuotaExceeded) as error:
        if len(items) == 1:
            if isinstance(error, LimitReached | QuotaExceeded):
                raise ImportStopped(items[0].parsed.position, str(error)) from None
            results = [Result(items[0].parsed, Outcome.FAILED, InvalidInput.message)]
        else:
            half = len(items) // 2
            await _write_different(context, items[:half])
            await _write_different(context, items[half:])
            return
    if context.simulation is not None:
        _remember(context.simulation, items, results)
    context.report(results)


async def _spend_check(
    session: AsyncSession, items: Sequence[PreparedRecord], *, importer: Importer
) -> None:
    """Count records that a dry run has checked. Raises LimitReached.

    They have limits of their own: a dry run must not use up the limits of the import that follows.
    """
    if importer.identity is not None:
        comments = sum(len(item.record.comments) for item in items)
        costs = {
            LimitKind.CHECKED_RECORDS: len(items) + comments,
            LimitKind.CHECKED_TEXT: sum(map(total_bytes, items)),
        }
        await limits.spend(session, importer.identity, costs)


def _remember(
    simulation: Simulation, items: Sequence[PreparedRecord], results: Sequence[Result]
) -> None:
    """Note what a batch wrote before it was rolled back, for the following batches."""
    written = {Outcome.CREATED, Outcome.UPDATED, Outcome.UNCHANGED}
    by_number = {result.parsed.number: result for result in results}
    for item in items:
        result = by_number.get(item.parsed.number)
        if result is None or result.outcome not in written:
            continue
        simulation.add(item, result.slug)
        if result.slug:
            at = item.record.published_at
            is_published = item.record.published if at is None else at <= clock.now()
            is_public = is_published and not item.record.archived
            author = "" if is_public else (item.record.author or "").lower()
            simulation.take(result.slug, author)


async def roll_back(session: AsyncSession) -> None:
    """Roll back a unit of work, and discard its pending notifications."""
    await session.rollback()
    session.info[COMMIT_LOG].clear()


async def from_lines(
    chunks: AsyncIterable[bytes],
    *,
    resolve_author: ResolveAuthor | None = None,
    user_id: int | None = None,
) -> AsyncIterator[list[ParsedRecord]]:
    """Yield the batches of an NDJSON stream, parsed in a thread. `user_id` is the importer."""
    pending: list[Line] = []
    size = 0
    async for lines in read_lines(chunks):
        for line in lines:
            length = len(line.text or b"")
            if pending and (len(pending) >= BATCH or size + length > BATCH_BYTES):
                yield await threads.run(
                    partial(parse_lines, pending, resolve_author), user_id=user_id
                )
                pending, size = [], 0
            pending.append(line)
            size += length
    if pending:
        yield await threads.run(partial(parse_lines, pending, resolve_author), user_id=user_id)


async def from_records(
    records: Iterator[ParsedRecord], *, user_id: int | None = None
) -> AsyncIterator[list[ParsedRecord]]:
    """Yield the batches of a source, numbered and read in a thread. `user_id` is the importer."""
    numbered = (item._replace(number=number) for number, item in enumerate(records, 1))
    items = paced(numbered, user_id=user_id)
    while batch := await threads.run(partial(_next_batch, items), user_id=user_id):
        yield batch


def _next_batch(records: Iterator[ParsedRecord]) -> list[ParsedRecord]:
    batch: list[ParsedRecord] = []
    size = 0
    for item in records:
        batch.append(item)
        size += len(item.record.content) + size_of(item.record.comments) if item.record else 0
        if len(batch) >= BATCH or size >= BATCH_BYTES:
            break
    return batch
