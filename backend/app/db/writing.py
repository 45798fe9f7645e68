"""Statements of a unit of work on its asyncpg connection.

`fetch` takes a third of the time of `AsyncSession.execute`. The statement is part of the session's
transaction. Errors and listeners are the same, but pending objects are not flushed first.
"""

import time
from collections.abc import Mapping
from typing import Any, NamedTuple, cast

from sqlalchemy import BindParameter, ColumnElement, Connection, any_, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession
from sqlalchemy.orm import SessionTransaction

from app.core import metrics
from app.db.reading import Reader, Row, Rows, Statement, compile_statement

_DRIVER = "driver"
"""Key in `session.info` of a transaction and its connection."""


class _Driver(NamedTuple):
    """A connection: of SQLAlchemy, of its adapter, and of asyncpg."""

    connection: AsyncConnection
    adapter: Any
    asyncpg: Any


async def fetch(
    scope: Reader | AsyncSession | AsyncConnection,
    statement: Statement,
    parameters: Mapping[str, Any] | None = None,
) -> Rows:
    """Return the rows of a statement, which is executed in the transaction of a session.

    A reader and a connection in autocommit mode have no transaction. Build each statement once:
    compiled statements are cached by the identity of the statement. Raises the same errors as
    `scope.execute`.
    """
    if isinstance(scope, Reader):
        return await scope.execute(statement, parameters)
    compiled = compile_statement(statement)
    arguments = compiled.arguments(parameters or {})
    driver = await (_of_session(scope) if isinstance(scope, AsyncSession) else _of(scope))
    recorder = metrics.recorder()
    try:
        async with driver.adapter._execute_mutex:  # noqa: SLF001 - tests share a connection
            if driver.adapter._transaction is None:  # noqa: SLF001 - SQLAlchemy begins it lazily
                await driver.adapter._start_transaction()  # noqa: SLF001
            _notify(driver.connection, compiled.sql, arguments)
            started = time.perf_counter() if recorder is not None else 0.0
            rows: list[Row] = await driver.asyncpg.fetch(compiled.sql, *arguments, record_class=Row)
            if recorder is not None:
                recorder.statements["write"].add(time.perf_counter() - started)
    except BaseException as error:
        await driver.connection.run_sync(_raise, driver.adapter, error, compiled.sql)
        raise
    return Rows(rows if compiled.make_row is None else map(compiled.make_row, rows))


async def fetch_value(
    scope: Reader | AsyncSession | AsyncConnection,
    statement: Statement,
    parameters: Mapping[str, Any] | None = None,
) -> Any:
    """Return the first column of the first row, or None without rows. See `fetch`."""
    rows = await fetch(scope, statement, parameters)
    return rows[0][0] if rows else None


def planned_once(values: BindParameter[Any]) -> ColumnElement[Any]:
    """Return `ANY` of an array parameter, so that PostgreSQL plans a frequent statement once.

    It plans a statement again for each execution if a plan for the values seems to be cheaper. With
    `= ANY ($1)`, a plan for one value always does. Planning takes longer than the lookup.
    """
    return any_(func.array(select(func.unnest(values)).scalar_subquery()))


async def _of_session(session: AsyncSession) -> _Driver:
    """Return the connection of the session's transaction, which is begun if necessary."""
    begun, driver = session.info.get(_DRIVER, (None, None))
    if driver is None or begun is not _innermost(session):
        driver = await _of(await session.connection())  # this also sets a pending savepoint
        session.info[_DRIVER] = _innermost(session), driver
    return cast("_Driver", driver)


def _innermost(session: AsyncSession) -> SessionTransaction | None:
    """Return the savepoint or the transaction that the session is in."""
    sync = session.sync_session
    return sync.get_nested_transaction() or sync.get_transaction()


async def _of(connection: AsyncConnection) -> _Driver:
    raw = await connection.get_raw_connection()
    return _Driver(connection, raw.dbapi_connection, raw.driver_connection)


def _notify(connection: AsyncConnection, sql: str, arguments: list[Any]) -> None:
    """Call the listeners of the connection, which see every statement."""
    assert connection.sync_connection is not None  # noqa: S101 - it is open
    for note in connection.sync_connection.dispatch.before_cursor_execute:
        note(connection.sync_connection, None, sql, arguments, None, False)


def _raise(connection: Connection, adapter: Any, error: BaseException, sql: str) -> None:
    """Raise SQLAlchemy's error for an error of asyncpg; discard a connection that is lost."""
    try:
        if isinstance(error, Exception):
            adapter._handle_exception(error)  # noqa: SLF001 - as the adapter's cursor does
        raise error  # noqa: TRY301 - SQLAlchemy needs the exception that is handled
    except BaseException as raised:  # noqa: BLE001 - it is raised again
        connection._handle_dbapi_exception(raised, sql, None, None, None)  # noqa: SLF001
