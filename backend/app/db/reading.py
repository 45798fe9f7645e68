"""Reads: SQLAlchemy statements, compiled once and executed on asyncpg connections.

A read is one statement in its own transaction. A reader acquires a connection for each statement
and releases it when the rows have arrived.

SQLAlchemy compiles the statements and converts values. Its execution layer would take more time
than PostgreSQL itself (docs/decisions/0026-reading-on-the-driver.md).
"""

import asyncio
import time
from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn, TypeAlias, cast

import asyncpg
from sqlalchemy import Delete, Enum, Insert, SelectBase, TextClause, Update
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.sql.compiler import SQLCompiler

from app.core import metrics
from app.core.errors import ServiceUnavailable
from app.core.logging import get_logger
from app.db.failures import (
    CONNECTION_ERRORS,
    DRIVER_ERRORS,
    ends_connection,
    hide_details,
    log_database_error,
    translate,
)
from app.db.pool import ConnectionPool, NoFreeConnection

logger = get_logger(__name__)

MAX_STATEMENTS = 2048
"""Size of the cache of compiled statements; lists need hundreds for their filters."""

_DIALECT: Any = cast("Any", PGDialect_asyncpg)()

Statement: TypeAlias = SelectBase | TextClause | Insert | Update | Delete
Convert: TypeAlias = Callable[[Any], Any]
Arguments: TypeAlias = Callable[[], Sequence[Any]]


class Row(asyncpg.Record):
    """A row: a sequence of values, which are also attributes by column name."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Rows(list[Any]):
    """The rows of a result, with the methods of SQLAlchemy's Result."""

    def all(self) -> "Rows":
        """Return all rows."""
        return self

    def one_or_none(self) -> Any:
        """Return the only row, or None. Raises ValueError for several rows."""
        if len(self) > 1:
            raise ValueError(f"expected at most one row, got {len(self)}")
        return self[0] if self else None

    def one(self) -> Any:
        """Return the only row. Raises ValueError for no row or several rows."""
        if not self:
            raise ValueError("expected one row, got none")
        return self.one_or_none()


class Compiled(NamedTuple):
    """A compiled statement."""

    sql: str
    parameters: Sequence[tuple[str, Any, Convert | None]]
    """Name, default value and conversion of each parameter, in the order of `$1`, `$2`, …"""
    required: frozenset[str]
    """Names of the parameters without a default value."""
    make_row: Callable[[Row], Any] | None
    """The conversion of a row; None if no column needs one."""

    def arguments(self, values: Mapping[str, Any]) -> list[Any]:
        """Return the arguments: `values`, completed by the defaults of the statement."""
        if not self.required <= values.keys():
            raise TypeError(f"no value for {', '.join(sorted(self.required - values.keys()))}")
        return [
            value if convert is None else convert(value)
            for value, convert in (
                (values.get(name, default), convert) for name, default, convert in self.parameters
            )
        ]

    def convert(self, rows: Sequence[Row]) -> Rows:
        """Return the rows, with converted values."""
        return Rows(rows if self.make_row is None else map(self.make_row, rows))


_Call: TypeAlias = "tuple[int, asyncio.Future[Row | None]]"
"""A call of `find` that shares a statement: the key and its row."""


def _fail(calls: Sequence[_Call], error: Exception) -> None:
    for _, future in calls:
        if not future.done():  # its caller was not cancelled
            future.set_exception(error)


class Reader:
    """Executes read statements on the primary or on a replica.

    Raises ServiceUnavailable if the database is unreachable, overloaded or too slow, and
    InvalidInput if it rejects a value.
    """

    def __init__(
        self, pool: ConnectionPool, *, echo: bool = False, pool_name: str = "read"
    ) -> None:
        """Acquire connections from `pool`; `echo` logs every statement.

        `pool_name` is the label of the statements in the metrics: `read` or `write`.
        """
        self.pool = pool
        self._echo = echo
        self._pool_name = pool_name
        self._shared: dict[Statement, list[_Call]] = {}
        """Calls of `find` by the statement that they share, until it has a connection."""
        self._tasks: set[asyncio.Task[None]] = set()
        """The tasks that execute shared statements."""

    async def execute(
        self, statement: Statement, parameters: Mapping[str, Any] | None = None
    ) -> Rows:
        """Return the rows of a statement.

        Build each statement once: compiled statements are cached by the identity of the statement.
        """
        compiled = compile_statement(statement)
        arguments = compiled.arguments(parameters or {})
        rows = await self._fetch(self.pool, compiled.sql, lambda: arguments)
        return compiled.convert(rows)

    async def find(self, statement: Statement, key: int) -> Any:
        """Return the row whose column `key` has this value, or None.

        The statement has the parameter `keys`. While all connections are in use, calls share it:
        the busier the pool, the fewer statements are executed. It is executed after all of them,
        in a task of its own, so that a cancelled call does not affect the others.
        """
        compiled = compile_statement(statement)
        if self.pool.is_busy:
            row = await self._share(statement, key)
        else:
            rows = await self._fetch(self.pool, compiled.sql, lambda: [[key]])
            row = rows[0] if rows else None
        return row if row is None or compiled.make_row is None else compiled.make_row(row)

    def _share(self, statement: Statement, key: int) -> "asyncio.Future[Row | None]":
        calls = self._shared.get(statement)
        if calls is None:
            calls = self._shared[statement] = []
            task = asyncio.create_task(self._execute_shared(statement, calls))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        future: asyncio.Future[Row | None] = asyncio.get_running_loop().create_future()
        calls.append((key, future))
        return future

    async def _execute_shared(self, statement: Statement, calls: list[_Call]) -> None:
        """Execute a statement for all calls. Each waits for a connection twice at most."""

        def close() -> Sequence[Any]:
            """Let no further call join. Return the arguments."""
            if self._shared.get(statement) is calls:
                del self._shared[statement]
            return [list({key for key, _ in calls})]

        sql = compile_statement(statement).sql
        while calls:
            earlier = len(calls)
            try:
                rows = await self._fetch(self.pool, sql, close)
            except NoFreeConnection as error:  # the others have waited less
                _fail(calls[:earlier], error)
                del calls[:earlier]
            except Exception as error:  # noqa: BLE001 - the calls raise it
                close()
                _fail(calls, error)
                return
            else:
                found = {row.key: row for row in rows}
                for key, future in calls:
                    if not future.done():
                        future.set_result(found.get(key))
                return
        close()

    async def scalar(
        self, statement: Statement, parameters: Mapping[str, Any] | None = None
    ) -> Any:
        """Return the first column of the first row, or None without rows."""
        rows = await self.execute(statement, parameters)
        return rows[0][0] if rows else None

    async def scalars(
        self, statement: Statement, parameters: Mapping[str, Any] | None = None
    ) -> list[Any]:
        """Return the first column of every row."""
        return [row[0] for row in await self.execute(statement, parameters)]

    async def _fetch(self, pool: ConnectionPool, sql: str, arguments: Arguments) -> list[Row]:
        """Execute a statement.

        `arguments` is called as soon as it has a connection, and before one is opened.
        """
        if self._echo:
            logger.info(sql)
        connection = pool.acquire_idle() or await pool.acquire(arguments)
        recorder = metrics.recorder()
        started = time.perf_counter() if recorder is not None else 0.0
        try:
            rows: list[Row] = await connection.fetch(sql, *arguments(), record_class=Row)
        except BaseException as error:
            is_lost = connection.is_closed() or isinstance(error, CONNECTION_ERRORS)
            pool.release(connection, is_broken=ends_connection(error))
            if isinstance(error, DRIVER_ERRORS):
                _raise_translated(error, is_lost=is_lost)
            raise
        finally:
            if recorder is not None:
                recorder.statements[self._pool_name].add(time.perf_counter() - started)
        pool.release(connection)
        return rows


@lru_cache(maxsize=MAX_STATEMENTS)
def compile_statement(statement: Statement) -> Compiled:
    """Compile a statement. Equal statements that are built twice are compiled twice."""
    compiled = statement.compile(dialect=_DIALECT)
    assert isinstance(compiled, SQLCompiler)  # noqa: S101 - DDL is never executed here
    if compiled.post_compile_params or compiled.literal_execute_params:
        raise TypeError("IN with a list compiles to one statement per length: use = ANY")
    names = compiled.positiontup or ()
    return Compiled(
        sql=compiled.string,
        parameters=[
            (name, compiled.params[name], _bind_processor(compiled, name)) for name in names
        ],
        required=frozenset(name for name in names if compiled.binds[name].required),
        make_row=_row_maker(statement),
    )


def _bind_processor(compiled: SQLCompiler, name: str) -> Convert | None:
    return compiled.binds[name].type.dialect_impl(_DIALECT).bind_processor(_DIALECT)


def _result_processor(column_type: Any) -> Convert | None:
    convert: Convert | None = None
    if isinstance(column_type, Enum):
        convert = cast("Any", column_type).result_processor(_DIALECT, None)
    return convert


def _row_maker(statement: Statement) -> Callable[[Row], Any] | None:
    """Return the conversion of rows with enumerations; asyncpg converts all other types."""
    if isinstance(statement, TextClause):
        return None
    columns = list(
        statement.selected_columns
        if isinstance(statement, SelectBase)
        else statement.exported_columns
    )
    converts = [_result_processor(column.type) for column in columns]
    if not any(converts):
        return None
    make: Any = namedtuple("Row", [column.name for column in columns], rename=True)  # type: ignore[misc]  # noqa: PYI024 - the fields are dynamic

    def convert(row: Row) -> Any:
        return make._make(
            value if convert is None else convert(value)
            for value, convert in zip(row, converts, strict=True)
        )

    return convert


def _raise_translated(error: Exception, *, is_lost: bool) -> NoReturn:
    """Raise the catalogue's error for an asyncpg error, or the error itself if there is none."""
    hide_details(error)
    translated = ServiceUnavailable() if is_lost else translate(error)
    if translated is None:
        raise error
    log_database_error(error)
    raise translated from error
