"""Sessions: list, refresh and end."""

from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.auth.identity import find_by_session
from app.core import clock
from app.db.session import Database
from app.models import AuditEvent, UserSession
from tests.factories import PASSWORD, api_key, bearer, create_session, create_user
from tests.test_lists import statements

Json = dict[str, Any]


async def log_in(client: httpx.AsyncClient, username: str = "ada", **headers: str) -> Json:
    form = {"username": username, "password": PASSWORD}
    response = await client.post("/auth/login", data=form, headers=headers)
    assert response.status_code == 200, response.text
    tokens: Json = response.json()
    return tokens


def bearing(tokens: Json) -> dict[str, str]:
    return {"Authorization": f"Bearer {tokens['access_token']}"}


class TestList:
    async def test_lists_active_sessions(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session, username="ada")
        await create_session(session, user=await create_user(session))
        here = await log_in(client, **{"User-Agent": "Browser/1.0" + "x" * 300})
        response = await client.get("/auth/sessions", headers=bearing(here))
        assert response.headers["Cache-Control"] == "no-store"
        first, second = response.json()
        assert set(first) == {
            "id",
            "created_at",
            "last_used_at",
            "expires_at",
            "ip",
            "user_agent",
            "current",
        }
        assert first["current"] is True
        assert first["ip"] == "127.0.0.1"
        assert first["user_agent"] == ("Browser/1.0" + "x" * 300)[:300]
        assert second["current"] is False
        assert second["ip"] is None
        assert await session.get(UserSession, second["id"]) is not None
        assert {first["id"], second["id"]} == set(
            await session.scalars(select(UserSession.id).where(UserSession.user_id == user.id))
        )

    @pytest.mark.parametrize("ended", ["revoked", "expired", "idle"])
    async def test_omits_ended_sessions(
        self, client: httpx.AsyncClient, session: AsyncSession, ended: str
    ) -> None:
        user = await create_user(session)
        login = await create_session(session, user=user)
        now = clock.now()
        changes = {
            "revoked": ("revoked_at", now),
            "expired": ("expires_at", now),
            "idle": ("last_used_at", now - timedelta(days=14)),
        }
        setattr(login, *changes[ended])
        await session.flush()
        listed = (await client.get("/auth/sessions", headers=bearer(user))).json()
        assert len(listed) == 1

    async def test_list_is_paged(self, client: httpx.AsyncClient, session: AsyncSession) -> None:
        user = await create_user(session)
        for _ in range(3):
            await create_session(session, user=user)
        page = await client.get("/auth/sessions?skip=1&limit=2", headers=bearer(user))
        assert len(page.json()) == 2


class TestRefresh:
    async def test_returns_the_next_pair(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        await create_user(session, username="ada")
        first = await log_in(client)
        body = {"refresh_token": first["refresh_token"]}
        response = await client.post("/auth/refresh", json=body)
        assert response.status_code == 200
        second = response.json()
        assert set(second) == {"access_token", "refresh_token", "token_type", "expires_in"}
        assert second["refresh_token"] != first["refresh_token"]
        assert response.headers["Cache-Control"] == "no-store"
        for tokens in (first, second):
            assert (await client.get("/auth/me", headers=bearing(tokens))).status_code == 200

    async def test_updates_last_use_and_keeps_expiry(
        self, client: httpx.AsyncClient, session: AsyncSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await create_user(session, username="ada")
        tokens = await log_in(client)
        [before, _] = (await client.get("/auth/sessions", headers=bearing(tokens))).json()
        later = clock.now() + timedelta(minutes=14)
        monkeypatch.setattr(clock, "now", lambda: later)
        await client.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
        [after, _] = (await client.get("/auth/sessions", headers=bearing(tokens))).json()
        assert after["last_used_at"] > before["last_used_at"]
        assert after["expires_at"] == before["expires_at"]

    async def test_takes_at_most_two_round_trips(
        self, client: httpx.AsyncClient, session: AsyncSession, connection: AsyncConnection
    ) -> None:
        await create_user(session, username="ada")
        tokens = await log_in(client)
        with statements(connection) as executed:
            await client.post("/auth/refresh", json={"refresh_token": tokens["refresh_token"]})
        assert len([each for each in executed if "SAVEPOINT" not in each]) == 1

    @pytest.mark.parametrize("body", [None, {}, {"refresh_token": None}])
    async def test_missing_token_is_refused(
        self, client: httpx.AsyncClient, body: Json | None
    ) -> None:
        response = await client.post("/auth/refresh", json=body)
        assert response.status_code == 401
        assert response.json()["code"] == "invalid_refresh_token"


class TestEnd:
    async def test_ends_an_own_session(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session, username="ada")
        there = await log_in(client)
        [other, _] = (await client.get("/auth/sessions", headers=bearer(user))).json()
        ended = await client.delete(f"/auth/sessions/{other['id']}", headers=bearer(user))
        assert ended.status_code == 204
        refused = await client.get("/auth/me", headers=bearing(there))
        assert refused.status_code == 401
        assert refused.json()["code"] == "token_revoked"
        again = await client.delete(f"/auth/sessions/{other['id']}", headers=bearer(user))
        assert again.status_code == 404
        event = await session.scalar(select(AuditEvent).order_by(AuditEvent.id.desc()))
        assert event is not None
        assert (event.action, event.subject_type, event.subject_id, event.actor_id) == (
            "REVOKE_SESSION",
            "session",
            other["id"],
            user.id,
        )

    async def test_logout_ends_only_the_current_session(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session, username="ada")
        tokens = await log_in(client)
        assert (await client.post("/auth/logout", headers=bearing(tokens))).status_code == 204
        assert (await client.get("/auth/me", headers=bearing(tokens))).status_code == 401
        body = {"refresh_token": tokens["refresh_token"]}
        assert (await client.post("/auth/refresh", json=body)).status_code == 401
        assert (await client.get("/auth/me", headers=bearer(user))).status_code == 200

    async def test_refresh_token_logs_out_with_expired_access_token(
        self, client: httpx.AsyncClient, session: AsyncSession, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await create_user(session, username="ada")
        tokens = await log_in(client)
        later = clock.now() + timedelta(hours=1)
        monkeypatch.setattr(clock, "now", lambda: later)
        body = {"refresh_token": tokens["refresh_token"]}
        for _ in range(2):  # the second time it has already ended
            left = await client.post("/auth/logout", json=body, headers=bearing(tokens))
            assert left.status_code == 204
        assert (await client.post("/auth/refresh", json=body)).status_code == 401

    async def test_logout_everywhere_ends_sessions_and_keeps_api_keys(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session, username="ada")
        other_user = await create_user(session)
        program = await api_key(session, user=user, scopes=["users:read"])
        tokens = await log_in(client)
        assert (await client.post("/auth/logout-all", headers=bearer(user))).status_code == 204
        for headers in (bearer(user), bearing(tokens)):
            response = await client.get("/auth/me", headers=headers)
            assert response.json()["code"] == "token_revoked"
        for headers in (bearer(other_user), program):
            assert (await client.get("/auth/me", headers=headers)).status_code == 200

    async def test_sessions_are_deleted_with_their_user(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user = await create_user(session)
        await client.request(
            "DELETE", f"/users/{user.id}", json={"password": PASSWORD}, headers=bearer(user)
        )
        response = await client.get("/auth/me", headers=bearer(user))
        assert response.json()["code"] == "invalid_token"


async def test_authentication_takes_one_round_trip(
    client: httpx.AsyncClient, session: AsyncSession, connection: AsyncConnection
) -> None:
    user = await create_user(session)
    for headers in (bearer(user), await api_key(session, user=user, scopes=["users:read"])):
        await client.get("/auth/me", headers=headers)  # stores the last use of the key
        with statements(connection) as executed:
            assert (await client.get("/auth/me", headers=headers)).status_code == 200
        assert len(executed) == 1


async def test_session_missing_on_replica_is_read_from_primary(
    client: httpx.AsyncClient,
    session: AsyncSession,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from app.auth import dependencies

    user = await create_user(session)
    lookups = 0

    async def lagging(connection: Any, **ids: int) -> Any:
        nonlocal lookups
        lookups += 1
        return None if lookups < 3 else await find_by_session(connection, **ids)

    monkeypatch.setattr(dependencies, "find_by_session", lagging)
    assert (await client.get("/auth/me", headers=bearer(user))).status_code == 401
    monkeypatch.setattr(Database, "has_replicas", True)
    assert (await client.get("/auth/me", headers=bearer(user))).status_code == 200
    assert lookups == 3
