"""Reads: statements of SQLAlchemy's, compiled once, on the driver's own connections.

A read is one statement, and each statement is a transaction of its own: there is nothing to begin,
to commit or to roll back. So a reader holds no connection, it takes one for each statement, and
gives it back as soon as the rows are there.

SQLAlchemy says what is asked for and how values are converted; between that and asyncpg it would
take more time than PostgreSQL takes to answer (docs/decisions/0026-reading-on-the-driver.md).
"""

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn, TypeAlias, cast

import asyncpg
from sqlalchemy import Enum, SelectBase, TextClause
from sqlalchemy.dialects.postgresql.asyncpg import PGDialect_asyncpg
from sqlalchemy.sql.compiler import SQLCompiler

from app.core.errors import ServiceUnavailable
from app.core.logging import get_logger
from app.db.failures import LOST, ends_connection, hide_details, log_database_error, translated
from app.db.pool import ConnectionPool

logger = get_logger(__name__)

MAX_STATEMENTS = 2048
"""How many compiled statements are kept, a process: lists have hundreds, by their filters."""

_DIALECT: Any = cast("Any", PGDialect_asyncpg)()

Statement: TypeAlias = SelectBase | TextClause
Convert: TypeAlias = Callable[[Any], Any]


class Row(asyncpg.Record):
    """A row: a sequence of its values, which have their columns' names as well."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None


class Rows(list[Any]):
    """What a statement has found, with SQLAlchemy's words for how much of it is meant."""

    def all(self) -> "Rows":
        """Every row."""
        return self

    def one_or_none(self) -> Any:
        """The only row, or None. Raises ValueError where there are several."""
        if len(self) > 1:
            raise ValueError(f"{len(self)} rows where one at most was expected")
        return self[0] if self else None

    def one(self) -> Any:
        """The only row. Raises ValueError where there is none, or several."""
        if not self:
            raise ValueError("no row where one was expected")
        return self.one_or_none()


class Compiled(NamedTuple):
    """A statement as PostgreSQL gets it."""

    sql: str
    parameters: Sequence[tuple[str, Any, Convert | None]]
    """In the order of `$1`, `$2`, …: the name, the value that the statement itself has for it, and
    how a value is converted."""
    required: frozenset[str]
    """Those that the statement itself has no value for."""
    make_row: Callable[[Row], Any] | None
    """How a row is converted, where any of its columns has to be."""

    def arguments(self, given: Mapping[str, Any]) -> list[Any]:
        """The values of the parameters: those that are given, else the statement's own."""
        if not self.required <= given.keys():
            raise TypeError(f"no value for {', '.join(sorted(self.required - given.keys()))}")
        return [
            value if convert is None else convert(value)
            for value, convert in (
                (given.get(name, own), convert) for name, own, convert in self.parameters
            )
        ]


class Reader:
    """A process's way to read, from the primary or from a replica.

    Raises ServiceUnavailable where the database cannot be reached, is overloaded or does not answer
    in time, and InvalidInput where it refuses a value.
    """

    def __init__(self, pool: ConnectionPool, *, echo: bool = False) -> None:
        """`echo` logs every statement."""
        self.pool = pool
        self._echo = echo

    async def execute(
        self, statement: Statement, parameters: Mapping[str, Any] | None = None
    ) -> Rows:
        """The rows that a statement finds. Build statements once: they are kept, and not small."""
        compiled = _compiled(statement)
        found = await self._fetch(compiled.sql, compiled.arguments(parameters or {}))
        return Rows(found if compiled.make_row is None else map(compiled.make_row, found))

    async def scalar(
        self, statement: Statement, parameters: Mapping[str, Any] | None = None
    ) -> Any:
        """The first column of the first row; None where there is no row."""
        rows = await self.execute(statement, parameters)
        return rows[0][0] if rows else None

    async def scalars(
        self, statement: Statement, parameters: Mapping[str, Any] | None = None
    ) -> list[Any]:
        """The first column of every row."""
        return [row[0] for row in await self.execute(statement, parameters)]

    async def _fetch(self, sql: str, arguments: Sequence[Any]) -> list[Row]:
        if self._echo:
            logger.info(sql)
        pool = self.pool
        connection = pool.take() or await pool.wait()
        try:
            rows: list[Row] = await connection.fetch(sql, *arguments, record_class=Row)
        except BaseException as error:
            is_lost = connection.is_closed() or isinstance(error, LOST)
            pool.give_back(connection, is_broken=ends_connection(error))
            if isinstance(error, FAILURES):
                _fail(error, is_lost=is_lost)
            raise
        pool.give_back(connection)
        return rows


@lru_cache(maxsize=MAX_STATEMENTS)
def _compiled(statement: Statement) -> Compiled:
    """By the statement itself, not by what it says: two that say the same are compiled twice."""
    compiled = statement.compile(dialect=_DIALECT)
    assert isinstance(compiled, SQLCompiler)  # noqa: S101 - what is executed is no DDL
    if compiled.post_compile_params or compiled.literal_execute_params:
        raise TypeError("IN with a list is another statement for each length: use = ANY")
    names = compiled.positiontup or ()
    return Compiled(
        sql=compiled.string,
        parameters=[
            (name, compiled.params[name], _bind_processor(compiled, name)) for name in names
        ],
        required=frozenset(name for name in names if compiled.binds[name].required),
        make_row=None if isinstance(statement, TextClause) else _row_maker(statement),
    )


def _bind_processor(compiled: SQLCompiler, name: str) -> Convert | None:
    return compiled.binds[name].type.dialect_impl(_DIALECT).bind_processor(_DIALECT)


def _result_processor(of: Any) -> Convert | None:
    convert: Convert | None = None
    if isinstance(of, Enum):
        convert = cast("Any", of).result_processor(_DIALECT, None)
    return convert


def _row_maker(statement: SelectBase) -> Callable[[Row], Any] | None:
    """What converts a row with enumerations; all other types are as the driver gives them."""
    columns = list(statement.selected_columns)
    converts = [_result_processor(column.type) for column in columns]
    if not any(converts):
        return None
    make: Any = namedtuple("Row", [column.name for column in columns], rename=True)  # type: ignore[misc]  # noqa: PYI024 - its fields are known only now

    def convert(row: Row) -> Any:
        return make._make(
            value if convert is None else convert(value)
            for value, convert in zip(row, converts, strict=True)
        )

    return convert


FAILURES = (asyncpg.PostgresError, asyncpg.InterfaceError, *LOST)
"""What asyncpg raises."""


def _fail(error: Exception, *, is_lost: bool) -> NoReturn:
    """Raise the catalogue's error for the driver's, or that one where the mistake is ours."""
    hide_details(error)
    known = ServiceUnavailable() if is_lost else translated(error)
    if known is None:
        raise error
    log_database_error(error)
    raise known from error
