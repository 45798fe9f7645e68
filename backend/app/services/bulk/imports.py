"""Imports over HTTP as rows: creating, reading, cancelling and deleting them.

An unfinished import updates its row every few seconds. If it does not, its process was killed: the
import counts as interrupted.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    DateTime,
    String,
    and_,
    bindparam,
    case,
    delete,
    literal,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity, recheck
from app.core import clock
from app.core.enums import ImportState
from app.core.errors import ImportInProgress, ImportNotFound
from app.core.limits import LimitKind
from app.db.selection import Selection
from app.db.session import Database, constraint_errors
from app.models.bulk import Import
from app.schemas.imports import ImportResponse
from app.schemas.page import CursorQuery
from app.services import limits
from app.services.pages.keyset import keyset, read_page
from app.services.pages.paging import ListPage
from app.services.purging import Batch, delete_oldest
from app.services.space import IMPORT_LOST_AFTER, require_space

RETENTION = timedelta(days=30)
KEPT = 20
"""The number of finished imports of a user that are kept."""
INTERRUPTED = "The server was restarted: send the same import again to complete it"
CANCELLED = "The import was cancelled"
EMPTY_SUMMARY: Mapping[str, Any] = {
    "records": 0,
    "created": 0,
    "updated": 0,
    "unchanged": 0,
    "failed": 0,
    "left_out": 0,
    "stopped": None,
    "remarks": [],
    "errors": [],
    "notes": [],
}

_LOST_BEFORE = bindparam("lost_before", type_=DateTime(timezone=True))
_IS_LOST = and_(Import.finished_at.is_(None), Import.active_at < _LOST_BEFORE)
_IS_MINE = and_(Import.id == bindparam("import_id"), Import.user_id == bindparam("owner_id"))
_IS_CANCELLED = Import.state == ImportState.CANCELLED
_ENDS_AS_LOST = and_(_IS_LOST, ~_IS_CANCELLED)


def _response(fields: dict[str, Any]) -> ImportResponse:
    return ImportResponse.model_validate({**EMPTY_SUMMARY, **fields, **fields["summary"]})


_IMPORT = Selection(
    _response,
    {
        "id": Import.id,
        "state": case((_ENDS_AS_LOST, literal(ImportState.INTERRUPTED.value)), else_=Import.state),
        "format": Import.format,
        "source": Import.source,
        "dry_run": Import.dry_run,
        "bytes": Import.bytes,
        "progress": Import.progress,
        "summary": Import.summary,
        "message": case((_ENDS_AS_LOST, literal(INTERRUPTED)), else_=Import.message),
        "created_at": Import.created_at,
        "finished_at": case((_IS_LOST, Import.active_at), else_=Import.finished_at),
    },
)
_ONE = select(*_IMPORT.columns).where(_IS_MINE)
_REPORT = select(Import.report, Import.finished_at, _IS_LOST.label("is_lost")).where(_IS_MINE)
_END_LOST = (
    update(Import)
    .where(_IS_LOST)
    .values(
        state=case((_IS_CANCELLED, Import.state), else_=literal(ImportState.INTERRUPTED.value)),
        message=case((_IS_CANCELLED, Import.message), else_=literal(INTERRUPTED)),
        finished_at=Import.active_at,
    )
    .execution_options(synchronize_session=False)
)
_EXCESS = (
    select(Import.id)
    .where(Import.user_id == bindparam("owner_id"), Import.finished_at.is_not(None))
    .order_by(Import.id.desc())
    .offset(KEPT - 1)
)
_UPDATE = (
    update(Import)
    .where(Import.id == bindparam("import_id"), Import.finished_at.is_(None))
    .values(
        active_at=bindparam("now"),
        progress=bindparam("part"),
        source=bindparam("name"),
        summary=bindparam("counts", type_=JSONB),
    )
    .returning(Import.state)
)
_START = (
    update(Import)
    .where(Import.id == bindparam("import_id"), Import.state == ImportState.RECEIVING)
    .values(
        state=ImportState.RUNNING,
        bytes=bindparam("size"),
        reserved_bytes=0,
        active_at=bindparam("now"),
    )
)
_RESERVE = (
    update(Import)
    .where(Import.id == bindparam("import_id"), Import.finished_at.is_(None))
    .values(reserved_bytes=bindparam("size"))
    .execution_options(synchronize_session=False)
)
_FINISH = (
    update(Import)
    .where(Import.id == bindparam("import_id"))
    .values(
        state=case((_IS_CANCELLED, Import.state), else_=bindparam("new_state", type_=String)),
        message=case((_IS_CANCELLED, literal(CANCELLED)), else_=bindparam("reason", type_=String)),
        progress=bindparam("part"),
        source=bindparam("name"),
        summary=bindparam("counts", type_=JSONB),
        report=bindparam("json"),
        active_at=bindparam("now"),
        finished_at=bindparam("now"),
    )
)
_CANCEL = (
    update(Import)
    .where(_IS_MINE, Import.finished_at.is_(None))
    .values(state=ImportState.CANCELLED)
    .execution_options(synchronize_session=False)
)


def _lost_before() -> datetime:
    return clock.now() - IMPORT_LOST_AFTER


async def create(
    database: Database,
    *,
    identity: Identity,
    source_format: str,
    dry_run: bool,
    reserved: int,
    available: int,
) -> int:
    """Add an import of a user, and return its id. Older ones than the last KEPT are deleted.

    It reserves disk space, of which some is `available`.

    Raises ImportInProgress if the user has an unfinished import, InvalidToken, LimitReached,
    ServiceUnavailable.
    """
    now = clock.now()
    async with database.unit_of_work() as session:
        await recheck(session, identity)
        await limits.spend(session, identity, {LimitKind.IMPORTS: 1})
        of_user = Import.user_id == identity.id
        await session.execute(_END_LOST.where(of_user), {"lost_before": now - IMPORT_LOST_AFTER})
        excess = list(await session.scalars(_EXCESS, {"owner_id": identity.id}))
        if excess:
            await session.execute(delete(Import).where(Import.id.in_(excess)))
        row = Import(
            user_id=identity.id,
            state=ImportState.RECEIVING,
            format=source_format,
            dry_run=dry_run,
            reserved_bytes=reserved,
            created_at=now,
            active_at=now,
        )
        session.add(row)
        with constraint_errors({"uq_imports_unfinished": ImportInProgress}):
            await session.flush()
        await require_space(session, available)
        return row.id


async def reserve(database: Database, import_id: int, *, size: int, available: int) -> None:
    """Reserve disk space for an import, instead of what it has. Raises ServiceUnavailable."""
    async with database.unit_of_work() as session:
        await session.execute(_RESERVE, {"import_id": import_id, "size": size})
        await require_space(session, available)


async def discard(database: Database, import_id: int) -> None:
    """Delete an import whose body was not received."""
    async with database.autocommit() as connection:
        await connection.execute(delete(Import).where(Import.id == import_id))


async def start(database: Database, import_id: int, *, size: int) -> None:
    """Note that the body was received, and takes the space that was reserved for it."""
    parameters = {"import_id": import_id, "size": size, "now": clock.now()}
    async with database.autocommit() as connection:
        await connection.execute(_START, parameters)


async def update_progress(
    database: Database,
    import_id: int,
    *,
    progress: float,
    source: str | None,
    summary: Mapping[str, Any],
) -> bool:
    """Store the progress. Return whether the import may continue: it was not cancelled."""
    parameters = {
        "import_id": import_id,
        "part": progress,
        "name": source,
        "counts": summary,
        "now": clock.now(),
    }
    async with database.autocommit() as connection:
        state = await connection.scalar(_UPDATE, parameters)
    return state in {ImportState.RECEIVING, ImportState.RUNNING}


async def finish(
    database: Database,
    import_id: int,
    *,
    state: ImportState,
    message: str | None,
    progress: float,
    source: str | None,
    summary: Mapping[str, Any],
    report: str,
) -> None:
    """Store the result. A cancelled import stays cancelled."""
    parameters = {
        "import_id": import_id,
        "new_state": state.value,
        "reason": message,
        "part": progress,
        "name": source,
        "counts": summary,
        "json": report,
        "now": clock.now(),
    }
    async with database.autocommit() as connection:
        await connection.execute(_FINISH, parameters)


async def get_import(database: Database, *, import_id: int, user: Identity) -> ImportResponse:
    """Return an import of a user, as the primary has it. Raises ImportNotFound."""
    parameters = {"import_id": import_id, "owner_id": user.id, "lost_before": _lost_before()}
    async with database.autocommit() as connection:
        row = (await connection.execute(_ONE, parameters)).one_or_none()
    if row is None:
        raise ImportNotFound
    return _IMPORT.read(row)


async def get_report(database: Database, *, import_id: int, user: Identity) -> str:
    """Return the report on every record, as JSON. Raises ImportNotFound, ImportInProgress."""
    parameters = {"import_id": import_id, "owner_id": user.id, "lost_before": _lost_before()}
    async with database.autocommit() as connection:
        row = (await connection.execute(_REPORT, parameters)).one_or_none()
    if row is not None and row.finished_at is None and not row.is_lost:
        raise ImportInProgress("The import is running: its report is complete when it has ended")
    if row is None or row.report is None:
        raise ImportNotFound("There is no report of this import")
    report: str = row.report
    return report


_LIST = keyset(
    "imports",
    _IMPORT,
    select(*_IMPORT.columns).where(Import.user_id == bindparam("owner_id")),
    Import.id,
)


async def list_imports(
    database: Database, *, user: Identity, query: CursorQuery
) -> ListPage[ImportResponse]:
    """List the imports of a user, newest first. Raises InvalidCursor."""
    parameters = {"owner_id": user.id, "lost_before": _lost_before()}
    return await read_page(database.reader, _LIST, query=query, parameters=parameters, of=user.id)


async def cancel(session: AsyncSession, *, import_id: int, actor: Identity) -> ImportResponse:
    """Let an import end after a few seconds. A finished one stays as it is.

    Raises ImportNotFound, LimitReached.
    """
    parameters = {"import_id": import_id, "owner_id": actor.id}
    await session.execute(_CANCEL, parameters)
    found = await session.execute(_ONE, {**parameters, "lost_before": _lost_before()})
    row = found.one_or_none()
    if row is None:
        raise ImportNotFound
    await limits.spend(session, actor, {LimitKind.CHANGES: 1})
    return _IMPORT.read(row)


async def end_lost(session: AsyncSession, batch: Batch) -> int:
    """End the imports whose process was killed; return their number."""
    del batch  # all of them: a user has at most one
    result = await session.execute(_END_LOST.returning(Import.id), {"lost_before": _lost_before()})
    return len(result.all())


async def purge(session: AsyncSession, batch: Batch) -> int:
    """Delete a batch of old imports with their reports; return how many."""
    column = Import.finished_at
    before = clock.now() - RETENTION
    return await delete_oldest(session, batch, Import.id, column < before, order_by=column)
