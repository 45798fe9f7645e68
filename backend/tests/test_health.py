"""Health checks."""

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.db.revisions import head
from app.services import health


async def test_live_does_not_need_a_database(app: FastAPI, client: httpx.AsyncClient) -> None:
    del app.state.database
    response = await client.get("/health/live")
    assert response.status_code == 200
    assert response.json() == {"status": "alive"}


async def test_ready_at_the_current_revision(client: httpx.AsyncClient) -> None:
    response = await client.get("/health/ready")
    assert response.status_code == 200
    assert response.json() == {
        "status": "ready",
        "revision": head(),
        "ahead": False,
        "warnings": [],
    }


async def test_ready_at_a_newer_revision(client: httpx.AsyncClient, session: AsyncSession) -> None:
    await session.execute(text("UPDATE alembic_version SET version_num = 'from_the_future'"))
    response = await client.get("/health/ready")
    assert response.status_code == 200
    assert response.json()["ahead"] is True


@pytest.mark.parametrize("statement", ["DELETE FROM alembic_version", "DROP TABLE alembic_version"])
async def test_not_ready_without_migrations(
    client: httpx.AsyncClient, session: AsyncSession, statement: str
) -> None:
    await session.execute(text(statement))
    response = await client.get("/health/ready")
    assert response.status_code == 503
    assert "pressroom migrate" in response.json()["message"]
    assert response.headers["Retry-After"]


async def test_not_ready_at_an_older_revision(
    client: httpx.AsyncClient, session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    await session.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    monkeypatch.setattr(health, "head", lambda: "9999")
    response = await client.get("/health/ready")
    assert response.status_code == 503
    assert "at revision 0001, but this release needs 9999" in response.json()["message"]
