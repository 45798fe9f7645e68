"""Maintenance mode: reads go on, and writes get 503 with the administrator's sentence."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.routing import Mount

from app.auth.identity import COMMAND_LINE
from app.core.enums import Role
from app.core.maintenance import MaintenanceState
from app.db.session import Database
from app.http.routing import StrictRoute, is_refused_in_maintenance
from app.jobs.background import Job, run_jobs
from app.models import Article, AuditEvent, Installation, User
from app.schemas.maintenance import MaintenanceUpdate
from app.services import maintenance
from tests.factories import PASSWORD, bearer, create_article, create_user

SENTENCE = "We move to another host until 14:00 UTC."
ARTICLE = {"title": "Title", "content": "Long enough."}

ALLOWED = {
    # sessions
    "POST /auth/login",
    "POST /auth/login/second-factor",
    "POST /auth/refresh",
    "POST /auth/logout",
    "POST /auth/logout-all",
    "DELETE /auth/sessions/{session_id}",
    "DELETE /admin/sessions/{session_id}",
    "POST /api/users/login",
    "POST /studio/sign-in",
    "POST /studio/sign-in/code",
    "POST /studio/sign-out",
    "POST /studio/confirm",
    "POST /studio/account/sessions/others/end",
    "POST /studio/account/sessions/all/end",
    "POST /studio/account/sessions/{session_id}/end",
    "POST /studio/admin/users/{user_id}/sessions/end",
    # the mode itself
    "PUT /admin/maintenance",
    "DELETE /admin/maintenance",
    "POST /studio/admin/maintenance",
    "POST /studio/admin/maintenance/end",
    # an import that is running
    "POST /articles/imports/{import_id}/cancel",
    "POST /studio/admin/imports/{import_id}/cancel",
    # each tool that changes something is refused
    "POST /mcp",
    # nothing is stored but the attempt
    "POST /users/me/export",
    "POST /studio/account/data",
    "POST /studio/articles/preview",
    "POST /studio/language",
}


@pytest.fixture
def state(app: FastAPI) -> Iterator[MaintenanceState]:
    """Return the state of the application, which is not in maintenance after the test."""
    state: MaintenanceState = app.state.maintenance
    yield state
    state.set(None, None)


@pytest.fixture
async def admin(session: AsyncSession) -> User:
    return await create_user(session, username="root", role=Role.ADMIN)


Begin = Callable[[], Awaitable[None]]


@pytest.fixture
def begin(
    client: httpx.AsyncClient, admin: User, database: Database, state: MaintenanceState
) -> Begin:
    """Return a function that begins the maintenance, and lets the process notice it."""

    async def begin() -> None:
        body = {"message": SENTENCE}
        response = await client.put("/admin/maintenance", json=body, headers=bearer(admin))
        assert response.status_code == 200
        assert response.json()["active"] is True
        await maintenance.refresh(database, state)

    return begin


def unsafe_routes(app: FastAPI) -> dict[str, APIRoute]:
    """Return all routes of both APIs and of the pages that accept an unsafe method."""
    found: dict[str, APIRoute] = {}

    def add(routes: Any, prefix: str) -> None:
        for route in routes:
            if isinstance(route, Mount):
                add(route.routes, prefix + route.path)
            for method in set(getattr(route, "methods", None) or ()) - {"GET", "HEAD"}:
                if isinstance(route, APIRoute):
                    found[f"{method} {prefix}{route.path_format}"] = route
                else:  # the path of the mount itself, where nothing is
                    assert route.path == "/api"

    add(app.routes, "")
    add(app.state.pages.routes, "")
    return found


def test_every_unsafe_route_is_refused_or_listed(shared_app: FastAPI) -> None:
    routes = unsafe_routes(shared_app)
    assert all(isinstance(route, StrictRoute) for route in routes.values())
    allowed = {name for name, route in routes.items() if not is_refused_in_maintenance(route)}
    assert allowed == ALLOWED
    assert len(routes) > 2 * len(ALLOWED)


async def test_writes_are_refused_and_reads_go_on(
    client: httpx.AsyncClient, session: AsyncSession, admin: User, begin: Begin
) -> None:
    article = await create_article(session, author=admin)
    await begin()
    headers = bearer(admin)
    for method, path in [
        ("POST", "/articles"),
        ("PATCH", f"/articles/{article.id}"),
        ("DELETE", f"/articles/{article.id}"),
        ("PUT", f"/articles/{article.id}/favorite"),
    ]:
        response = await client.request(method, path, json=ARTICLE, headers=headers)
        assert response.status_code == 503, path
        assert response.json()["code"] == "maintenance"
        assert response.json()["message"] == SENTENCE
        assert response.headers["Retry-After"] == "60"
    assert await session.scalar(select(func.count()).select_from(Article)) == 1
    for path in ("/articles", f"/articles/{article.id}", "/feed.xml", "/read"):
        assert (await client.get(path)).status_code == 200, path
    assert (await client.get("/users/me", headers=headers)).status_code == 200


async def test_realworld_api_refuses_writes_in_its_format(
    client: httpx.AsyncClient, admin: User, begin: Begin
) -> None:
    await begin()
    token = bearer(admin)["Authorization"].removeprefix("Bearer ")
    body = {"article": {"title": "New", "description": "About", "body": "Long enough."}}
    headers = {"Authorization": f"Token {token}"}
    response = await client.post("/api/articles", json=body, headers=headers)
    assert response.status_code == 503
    assert SENTENCE in str(response.json()["errors"])
    assert response.headers["Retry-After"] == "60"
    assert (await client.get("/api/articles")).status_code == 200


async def test_administrators_log_in_and_end_it(
    client: httpx.AsyncClient, database: Database, admin: User, begin: Begin,
    state: MaintenanceState,
) -> None:  # fmt: skip
    await begin()
    form = {"username": "root", "password": PASSWORD}
    login = await client.post("/auth/login", data=form)
    assert login.status_code == 200
    refreshed = await client.post(
        "/auth/refresh", json={"refresh_token": login.json()["refresh_token"]}
    )
    headers = {"Authorization": f"Bearer {refreshed.json()['access_token']}"}
    found = (await client.get("/admin/maintenance", headers=headers)).json()
    assert (found["active"], found["message"]) == (True, SENTENCE)
    assert (await client.get("/admin/health", headers=headers)).json()["maintenance"] == SENTENCE
    for _ in range(2):
        assert (await client.delete("/admin/maintenance", headers=headers)).status_code == 204
    await maintenance.refresh(database, state)
    response = await client.post("/articles", json=ARTICLE, headers=headers)
    assert response.status_code == 201


async def test_maintenance_is_recorded_once(
    client: httpx.AsyncClient, session: AsyncSession, admin: User, begin: Begin
) -> None:
    await begin()
    since = await session.scalar(select(Installation.maintenance_since))
    await begin()
    assert await session.scalar(select(Installation.maintenance_since)) == since
    await client.delete("/admin/maintenance", headers=bearer(admin))
    await client.delete("/admin/maintenance", headers=bearer(admin))
    events = await session.execute(
        select(AuditEvent.action, AuditEvent.message)
        .where(AuditEvent.subject_type == "installation")
        .order_by(AuditEvent.id)
    )
    assert [event.action for event in events] == [*["BEGIN_MAINTENANCE"] * 2, "END_MAINTENANCE"]


@pytest.mark.parametrize("message", ["", "two\nlines", "x" * 501, None])
async def test_sentence_is_one_line(
    client: httpx.AsyncClient, admin: User, message: str | None
) -> None:
    response = await client.put(
        "/admin/maintenance", json={"message": message}, headers=bearer(admin)
    )
    assert response.status_code == 422


async def test_processes_follow_the_database(database: Database, state: MaintenanceState) -> None:
    """A process notices the mode, and keeps it while the database is not available."""
    other = MaintenanceState()
    async with database.unit_of_work() as session:
        new = MaintenanceUpdate(message=SENTENCE)
        await maintenance.begin(session, new=new, actor=COMMAND_LINE)
    async with maintenance.following(database, other):
        assert other.message == SENTENCE


async def test_jobs_pause(state: MaintenanceState) -> None:
    runs = 0
    ran = asyncio.Event()

    async def work() -> None:
        nonlocal runs
        runs += 1
        ran.set()

    state.set(SENTENCE, None)
    async with run_jobs([Job("work", work, interval=0)], wait=state.wait_for_end):
        for _ in range(20):
            await asyncio.sleep(0)
        assert runs == 0
        state.set(None, None)
        async with asyncio.timeout(5):
            await ran.wait()
