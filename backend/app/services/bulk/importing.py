"""Importing: from a source's batches to the database, reading ahead while one is written."""

import asyncio
import time
from collections.abc import (
    AsyncIterable,
    AsyncIterator,
    Awaitable,
    Callable,
    Iterable,
    Iterator,
    Sequence,
)
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from hashlib import sha256
from typing import NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import recheck
from app.auth.permissions import Action, may
from app.core.errors import (
    ContentTooComplex,
    InvalidInput,
    LimitReached,
    QuotaExceeded,
    ServiceUnavailable,
)
from app.core.markdown import Rendered, render_sync
from app.db.session import COMMIT_LOG, Database
from app.services.bulk import statements
from app.services.bulk.ndjson import AuthorOf, Line, parse_lines, read_lines
from app.services.bulk.records import (
    Importer,
    Incoming,
    Outcome,
    Position,
    Prepared,
    Result,
    Seen,
    prepared,
)
from app.services.bulk.writing import write

BATCH = 500
BATCH_BYTES = 2 * 1024 * 1024
"""What a batch holds at most, unless one record alone holds more."""
ATTEMPTS = 4
BETWEEN_PAUSES = 0.001
"""Seconds that the thread works without letting the event loop in."""
PAUSE = 0.5
"""Seconds before a batch that the database could not take just now is tried again."""


class ImportStopped(Exception):
    """A limit of the importer was reached: `position` and all later records are not written."""

    def __init__(self, position: Position, message: str) -> None:
        super().__init__(message)
        self.position = position
        self.message = message


Item = TypeVar("Item")
Batches = AsyncIterator[list[Incoming]]
Report = Callable[[Sequence[Result]], None]
Rehearse = Callable[[AsyncSession], Awaitable[None]]


class Desk(NamedTuple):
    """What an import works with."""

    database: Database
    importer: Importer
    seen: Seen
    made: Seen
    report: Report
    rehearse: Rehearse | None


@lru_cache(maxsize=1)
def _thread() -> ThreadPoolExecutor:
    """For all imports of this process together: they take turns, and requests come in between."""
    return ThreadPoolExecutor(1, thread_name_prefix="import")


_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = WeakKeyDictionary()


def _turn() -> asyncio.Lock:
    """One import of this process writes at a time: no two hold a connection."""
    return _turns.setdefault(asyncio.get_running_loop(), asyncio.Lock())


async def import_articles(
    database: Database,
    batches: Batches,
    *,
    importer: Importer,
    report: Report,
    rehearse: Rehearse | None = None,
) -> None:
    """Write what the batches bring; tell `report` what became of each record, in any order.

    Each batch is a unit of work of its own: what was reported as written stays, whatever comes
    after. With `rehearse` nothing is written: each batch is rolled back, and begins with it.
    Each batch is written with the rights that the importer has by then.
    Raises InvalidToken once the importer's access was withdrawn, ServiceUnavailable where the
    database stays away, ImportStopped where a limit of the importer is reached, and what `batches`
    raises.
    """
    desk = Desk(database, importer, Seen(), Seen(), report, rehearse)
    writing: asyncio.Task[None] | None = None
    try:
        async for batch in batches:
            items = await _prepare(desk, batch)
            if writing is not None:
                await writing
            writing = asyncio.create_task(_write(desk, items))
    finally:
        if writing is not None:
            await writing


async def _prepare(desk: Desk, batch: Sequence[Incoming]) -> list[Prepared]:
    """What of a batch is to be written, rendered; the rest is reported."""
    loop = asyncio.get_running_loop()
    results = [
        Result(item.position, Outcome.FAILED, item.problem) for item in batch if item.record is None
    ]
    items = await loop.run_in_executor(_thread(), _named, batch, desk.importer, desk.seen)
    unchanged = await _unchanged(desk, items)
    results += [
        Result(item.incoming.position, Outcome.UNCHANGED)
        for item in items
        if item.key in unchanged and not item.repeated
    ]
    items = [item for item in items if item.repeated or item.key not in unchanged]
    texts = [item.record.content for item in items]
    rendered = await loop.run_in_executor(_thread(), render_texts, texts)
    results += [
        Result(item.incoming.position, Outcome.FAILED, f"content: {made}")
        for item, made in zip(items, rendered, strict=True)
        if isinstance(made, str)
    ]
    desk.report(results)
    return [
        item._replace(rendered=made)
        for item, made in zip(items, rendered, strict=True)
        if not isinstance(made, str)
    ]


def render_texts(texts: Sequence[str]) -> list[Rendered | str]:
    """Each text rendered, or why it was not."""
    return list(_pausing(map(_render, texts)))


def _pausing(items: Iterable[Item]) -> Iterator[Item]:
    """The items, with a pause now and then: whoever waits for the interpreter's lock gets it.

    The event loop would otherwise wait 5 ms for it, after each of its own short steps.
    """
    pause_at = time.perf_counter() + BETWEEN_PAUSES
    for item in items:
        yield item
        if time.perf_counter() > pause_at:
            time.sleep(0.000_05)
            pause_at = time.perf_counter() + BETWEEN_PAUSES


def _render(text: str) -> Rendered | str:
    try:
        return render_sync(text)
    except ContentTooComplex as error:
        return str(error.detail)


def _named(batch: Sequence[Incoming], importer: Importer, seen: Seen) -> list[Prepared]:
    """The good records of a batch, each with what it is known by."""
    named = (
        _noticed(prepared(item, item.record, importer=importer), seen)
        for item in batch
        if item.record is not None
    )
    return list(_pausing(named))


def _noticed(item: Prepared, seen: Seen) -> Prepared:
    """The record, marked where its key or its slug has come by already."""
    new = seen.add(item.key)
    if item.record.slug and item.incoming.identity:
        new &= seen.add(sha256(f"slug:{item.record.slug}".encode()).digest())
    return item if new else item._replace(repeated=True)


async def _unchanged(desk: Desk, items: Sequence[Prepared]) -> frozenset[bytes]:
    """The keys of the records that were imported as they are: nothing is rendered for them."""
    if not items:
        return frozenset()
    digests = {item.key: item.digest for item in items}
    identity = desk.importer.identity
    async with desk.database.autocommit() as connection:
        if identity is not None:  # before anything is rendered for somebody who may not write it
            identity = await recheck(connection, identity)
        known = await connection.execute(statements.KNOWN, {"keys": list(digests)})
    return frozenset(
        row.key
        for row in known
        if row.digest == digests[row.key]
        and (identity is None or may(identity, Action.CHANGE_ARTICLE, owner_id=row.author_id))
    )


async def _write(desk: Desk, items: Sequence[Prepared]) -> None:
    """Write a batch; of one that the database refuses, all but the records that are the reason.

    Of one that a limit refuses, what comes before the first record that is too many; then raises
    ImportStopped.
    """
    if not items:
        return
    try:
        results = await _write_patiently(desk, items)
    except (InvalidInput, IntegrityError, LimitReached, QuotaExceeded) as error:
        if len(items) == 1:
            if isinstance(error, LimitReached | QuotaExceeded):
                raise ImportStopped(items[0].incoming.position, str(error.detail)) from None
            results = [Result(items[0].incoming.position, Outcome.FAILED, InvalidInput.message)]
        else:
            half = len(items) // 2
            await _write(desk, items[:half])
            await _write(desk, items[half:])
            return
    desk.report(results)


async def _write_patiently(desk: Desk, items: Sequence[Prepared]) -> list[Result]:
    """Write a batch; again where the database could not take it just now: a deadlock, a restart."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            async with _turn(), desk.database.unit_of_work() as session:
                if desk.rehearse is not None:
                    await desk.rehearse(session)
                results = await write(session, items, importer=desk.importer, made=desk.made)
                if desk.rehearse is not None:
                    await undo(session)
        except ServiceUnavailable:
            if attempt == ATTEMPTS:
                raise
            await asyncio.sleep(PAUSE * attempt)
        else:
            return results
    raise AssertionError("unreachable")


async def undo(session: AsyncSession) -> None:
    """Take back what a unit of work has done, so that nothing is left to commit or announce."""
    await session.rollback()
    session.info[COMMIT_LOG].clear()


async def from_lines(
    chunks: AsyncIterable[bytes], *, author_of: AuthorOf | None = None
) -> AsyncIterator[list[Incoming]]:
    """The batches of an NDJSON stream, parsed in a thread."""
    loop = asyncio.get_running_loop()
    parse = partial(parse_lines, author_of=author_of)
    waiting: list[Line] = []
    size = 0
    async for lines in read_lines(chunks):
        for line in lines:
            length = len(line.text or b"")
            if waiting and (len(waiting) >= BATCH or size + length > BATCH_BYTES):
                yield await loop.run_in_executor(_thread(), parse, waiting)
                waiting, size = [], 0
            waiting.append(line)
            size += length
    if waiting:
        yield await loop.run_in_executor(_thread(), parse, waiting)


async def from_records(records: Iterator[Incoming]) -> AsyncIterator[list[Incoming]]:
    """The batches of a source that is read in a thread."""
    loop = asyncio.get_running_loop()
    while batch := await loop.run_in_executor(_thread(), _next_batch, records):
        yield batch


def _next_batch(records: Iterator[Incoming]) -> list[Incoming]:
    batch: list[Incoming] = []
    size = 0
    for item in records:
        batch.append(item)
        size += len(item.record.content) if item.record else 0
        if len(batch) >= BATCH or size >= BATCH_BYTES:
            break
    return batch
