"""Retries in savepoints and in units of work, mostly on real connections."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import SimpleNamespace

import pytest
from sqlalchemy import select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.config import Settings
from app.core.errors import ServiceUnavailable
from app.db import retry as retry_module
from app.db.retry import ATTEMPTS, TryAgain, retry
from app.db.session import Database
from app.models import User
from tests.databases import delete_all_rows, execute
from tests.factories import create_user

Work = Callable[[AsyncSession], Awaitable[int]]


def failing(times: int, failure: Callable[[AsyncSession], Awaitable[object]]) -> Work:
    """Return work that adds a user and then fails, this many times; it returns its attempts."""
    attempts = 0

    async def work(session: AsyncSession) -> int:
        nonlocal attempts
        attempts += 1
        await create_user(session)
        if attempts <= times:
            await failure(session)
        return attempts

    return work


async def conflict(session: AsyncSession) -> None:
    raise TryAgain


async def lose_connection(session: AsyncSession) -> None:
    raise ServiceUnavailable


def raising(sqlstate: str) -> Callable[[AsyncSession], Awaitable[object]]:
    raised = text(f"DO $$ BEGIN RAISE EXCEPTION 'test' USING ERRCODE = '{sqlstate}'; END $$")
    return lambda session: session.execute(raised)


@pytest.fixture
def delays(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The delays between the attempts, which do not take place."""
    delays: list[float] = []

    async def sleep(seconds: float) -> None:
        delays.append(seconds)

    monkeypatch.setattr(retry_module, "asyncio", SimpleNamespace(sleep=sleep))
    monkeypatch.setattr(retry_module, "random", SimpleNamespace(uniform=lambda low, high: low))
    return delays


@pytest.fixture
def _no_users_afterwards(database_url: str) -> Iterator[None]:
    yield
    execute(database_url, delete_all_rows())


@pytest.fixture
async def real(settings: Settings, _no_users_afterwards: None) -> AsyncIterator[Database]:
    """Return a database with real commits."""
    database = Database.from_settings(settings)
    yield database
    await database.dispose()


async def number_of_users(session: AsyncSession) -> int:
    return len((await session.scalars(select(User.id))).all())


class TestSavepoint:
    @pytest.mark.parametrize("failure", [conflict, raising("23505")])
    async def test_conflict_is_repeated_at_once(
        self,
        session: AsyncSession,
        delays: list[float],
        failure: Callable[[AsyncSession], Awaitable[object]],
    ) -> None:
        await create_user(session)
        assert await retry(session, failing(2, failure)) == 3
        assert await number_of_users(session) == 2  # the first user, and that of the last attempt
        assert delays == []

    async def test_lock_timeout_is_repeated_after_growing_delays(
        self, session: AsyncSession, delays: list[float]
    ) -> None:
        assert await retry(session, failing(6, raising("55P03"))) == 7
        assert await number_of_users(session) == 1
        assert delays == [0.01, 0.02, 0.04, 0.08, 0.125, 0.125]

    @pytest.mark.parametrize("failure", [conflict, raising("23505"), raising("55P03")])
    async def test_attempts_are_limited(
        self,
        session: AsyncSession,
        delays: list[float],
        failure: Callable[[AsyncSession], Awaitable[object]],
    ) -> None:
        with pytest.raises(ServiceUnavailable, match="Other requests"):
            await retry(session, failing(ATTEMPTS, failure))
        assert await number_of_users(session) == 0
        assert len(delays) in {0, ATTEMPTS - 1}

    async def test_last_attempt_may_succeed(
        self, session: AsyncSession, delays: list[float]
    ) -> None:
        assert await retry(session, failing(ATTEMPTS - 1, conflict)) == ATTEMPTS

    @pytest.mark.parametrize("sqlstate", ["40P01", "23503", "22012"])
    async def test_other_errors_are_not_repeated(
        self, session: AsyncSession, sqlstate: str
    ) -> None:
        with pytest.raises(DBAPIError):
            await retry(session, failing(1, raising(sqlstate)))

    async def test_unavailable_database_is_not_repeated(self, session: AsyncSession) -> None:
        with pytest.raises(ServiceUnavailable):
            await retry(session, failing(1, lose_connection))


class TestTransaction:
    @pytest.mark.parametrize("failure", [lose_connection, raising("40P01"), raising("57P01")])
    async def test_temporary_failure_is_repeated_after_a_delay(
        self,
        real: Database,
        delays: list[float],
        failure: Callable[[AsyncSession], Awaitable[object]],
    ) -> None:
        assert await retry(real, failing(2, failure)) == 3
        async with real.unit_of_work() as session:
            assert await number_of_users(session) == 1
        assert len(delays) == 2

    async def test_last_error_is_raised(self, real: Database, delays: list[float]) -> None:
        with pytest.raises(ServiceUnavailable, match="The database is not available"):
            await retry(real, failing(ATTEMPTS, lose_connection))
        assert len(delays) == ATTEMPTS - 1

    async def test_unique_violation_is_not_repeated(self, real: Database) -> None:
        with pytest.raises(DBAPIError):
            await retry(real, failing(1, raising("23505")))
