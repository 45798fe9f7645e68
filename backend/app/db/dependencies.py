"""FastAPI dependencies for reading and writing.

`scope="function"` commits a unit of work before the response is sent. So a client with a 2xx
response can read its data. A reader holds no connection between statements.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from fastapi import BackgroundTasks, Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.reading import Reader
from app.db.session import Database, log_lines


async def get_database(request: Request) -> Database:
    """Return the application's database. FastAPI would run a sync function in a thread."""
    database: Database = request.app.state.database
    return database


CurrentDatabase = Annotated[Database, Depends(get_database)]
"""The database, for handlers whose services open their own units of work."""


async def write_session(
    database: CurrentDatabase, background_tasks: BackgroundTasks
) -> AsyncIterator[AsyncSession]:
    """Yield the session of one unit of work; its log lines are written after the response."""

    async def log(lines: Sequence[str]) -> None:  # async, so that it needs no thread
        log_lines(lines)

    def log_later(lines: Sequence[str]) -> None:
        background_tasks.add_task(log, lines)

    async with database.unit_of_work(log_later) as session:
        yield session


async def get_reader(request: Request) -> Reader:
    """Return the application's reader."""
    reader: Reader = request.app.state.database.reader
    return reader


UnitOfWork = AsyncSession
"""The type of a `WriteSession`, for dependencies that return one."""
WriteSession = Annotated[AsyncSession, Depends(write_session, scope="function")]
ReadConnection = Annotated[Reader, Depends(get_reader)]
