"""Fixtures: settings, a stopped clock, clients at many addresses, real commits."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from jose import jwt
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import security
from app.auth.keys import derived_keys, signing_keys
from app.core import clock
from app.core.config import Settings, get_settings
from app.db.session import Database
from app.main import create_app
from tests.databases import migrated_database
from tests.e2e.conftest import checkout
from tests.factories import create_session, create_user
from tests.security.forging import Forger

__all__ = ["checkout"]

Install = Callable[..., Settings]
ClientAt = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]

_numbers = itertools.count(1)


def new_address() -> str:
    """Return an unused address from the range of RFC 2544."""
    number = next(_numbers)
    return f"198.18.{number // 256}.{number % 256}"


def _forget_settings() -> None:
    for cached in (
        get_settings,
        signing_keys,
        derived_keys,
        security._password_context,
        security._dummy_hash,
    ):
        cached.cache_clear()


@pytest.fixture
def install() -> Iterator[Install]:
    """Return a function that sets environment variables until the test ends."""
    with pytest.MonkeyPatch.context() as patch:

        def install(**values: object) -> Settings:
            for name, value in values.items():
                patch.setenv(name, str(value))
            _forget_settings()
            return get_settings()

        yield install
    _forget_settings()


class Moment(datetime):
    """A datetime class that also replaces the clock of python-jose."""

    current: "Moment"

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> "Moment":
        assert tz is UTC
        return cls.current


class Timeline:
    """A stopped clock for the application and python-jose, which tests can advance."""

    def __init__(self) -> None:
        # Ahead of the database clock, because a refresh uses the later of the two.
        Moment.current = Moment.fromtimestamp(int(datetime.now(UTC).timestamp()) + 5, UTC)

    @property
    def now(self) -> datetime:
        return Moment.current

    def advance(self, seconds: float = 0, *, days: int = 0) -> None:
        Moment.current = Moment.current + timedelta(days=days, seconds=seconds)


@pytest.fixture
def timeline(monkeypatch: pytest.MonkeyPatch) -> Timeline:
    timeline = Timeline()
    monkeypatch.setattr(clock, "now", lambda: timeline.now)
    monkeypatch.setattr(jwt, "datetime", Moment)
    return timeline


@pytest.fixture
async def forger(session: AsyncSession) -> Forger:
    """Return a forger with a user and an active session."""
    user = await create_user(session)
    return Forger(user, await create_session(session, user=user))


@asynccontextmanager
async def _client_of(
    app: FastAPI, address: str | None, **options: Any
) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(
        app, raise_app_exceptions=False, client=(address or new_address(), 1)
    )
    async with httpx.AsyncClient(
        transport=transport, base_url="http://testserver", **options
    ) as client:
        yield client


@pytest.fixture
def client_at(app: FastAPI) -> ClientAt:
    """Return a function that creates a client at an address, by default an unused one."""
    return lambda address=None, **options: _client_of(app, address, **options)


@pytest.fixture(scope="session")
def live_database_url() -> Iterator[str]:
    """Create a database in which requests commit."""
    with migrated_database() as url:
        yield url


@pytest.fixture(scope="session")
async def live_app(settings: Settings, live_database_url: str) -> AsyncIterator[FastAPI]:
    """Create the application with its own pools, so that units of work really commit.

    Tests share its database, and use separate users and addresses.
    """
    changes = {"database_url": live_database_url, "database_pool_size": 20}
    app = create_app(settings.model_copy(update=changes))
    app.state.database = Database.from_settings(settings.model_copy(update=changes))
    yield app
    await app.state.database.dispose()


@pytest.fixture
async def live(live_app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of `live_app` at an unused address."""
    async with _client_of(live_app, None) as client:
        yield client


@pytest.fixture
def live_client_at(live_app: FastAPI) -> ClientAt:
    return lambda address=None, **options: _client_of(live_app, address, **options)


@pytest.fixture
def live_rows(live_app: FastAPI) -> Callable[[], AbstractAsyncContextManager[AsyncSession]]:
    """Return a function that opens a committing unit of work."""
    database: Database = live_app.state.database
    return database.unit_of_work


async def waiting_for_a_lock(
    rows: Callable[[], AbstractAsyncContextManager[AsyncSession]], *, count: int = 1
) -> None:
    """Return once `count` statements of this database wait for locks."""
    query = text(
        "SELECT count(*) FROM pg_stat_activity"
        " WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    async with asyncio.timeout(30), rows() as session:
        while (await session.scalar(query) or 0) < count:
            await session.rollback()
            await asyncio.sleep(0.01)
