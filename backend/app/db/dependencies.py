"""The HTTP side of the database: what a handler asks for to read or to write.

`scope="function"` ends a unit of work before the response is sent: a client that reads 2xx can rely
on the data being there. A reader has nothing to end: it holds no connection between statements.
"""

from collections.abc import AsyncIterator, Sequence
from typing import Annotated

from fastapi import BackgroundTasks, Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.reading import Reader
from app.db.session import Database, announce


async def get_database(request: Request) -> Database:
    """The application's database. Async, lest FastAPI run it in a thread for each request."""
    database: Database = request.app.state.database
    return database


CurrentDatabase = Annotated[Database, Depends(get_database)]
"""For the few services that need units of work of their own."""


async def write_session(
    database: CurrentDatabase, background_tasks: BackgroundTasks
) -> AsyncIterator[AsyncSession]:
    """One unit of work for the request; what it announces is logged after the response."""

    def announce_later(lines: Sequence[str]) -> None:
        background_tasks.add_task(announce, lines)

    async with database.unit_of_work(announce_later) as session:
        yield session


async def get_reader(request: Request) -> Reader:
    """The application's reader."""
    reader: Reader = request.app.state.database.reader
    return reader


WriteSession = Annotated[AsyncSession, Depends(write_session, scope="function")]
ReadConnection = Annotated[Reader, Depends(get_reader)]
