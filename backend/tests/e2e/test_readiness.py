"""/health/ready tells whether the database matches this release, and otherwise what to do."""

from collections.abc import Iterator

import pytest

from app.db import migrate
from tests.databases import execute, temporary_database
from tests.processes import Api, Checkout, serving

pytestmark = pytest.mark.e2e


@pytest.fixture
def empty_database() -> Iterator[str]:
    with temporary_database() as url:
        yield url


@pytest.fixture
def waiting(checkout: Checkout, empty_database: str) -> Iterator[Api]:
    with serving(checkout, DATABASE_URL=empty_database) as api:
        yield api


def test_readiness_follows_migrations_without_restart(waiting: Api, empty_database: str) -> None:
    for prepare in ((), ("CREATE TABLE alembic_version (version_num varchar(32) PRIMARY KEY)",)):
        execute(empty_database, *prepare)
        unmigrated = waiting.client.get("/health/ready")
        assert unmigrated.status_code == 503
        assert unmigrated.json()["code"] == "service_unavailable"
        assert "pressroom migrate" in unmigrated.json()["message"]
        assert "Retry-After" in unmigrated.headers

    migrate.upgrade(empty_database)
    ready = waiting.client.get("/health/ready")
    assert (ready.status_code, ready.json()["ahead"]) == (200, False)

    execute(empty_database, "UPDATE alembic_version SET version_num = 'from-the-future'")
    ahead = waiting.client.get("/health/ready")
    assert ahead.status_code == 200
    assert ahead.json() == {
        "status": "ready",
        "revision": "from-the-future",
        "ahead": True,
        "warnings": [],
    }
