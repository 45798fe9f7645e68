"""Refresh tokens: reuse, guessing and expiry.

The tests use an application that commits, because the end of a session must survive the error.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

import httpx
import pytest
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.tokens import RefreshToken, new_secret
from app.models import AuditEvent, User, UserSession
from tests.factories import PASSWORD, create_user
from tests.security.answers import answer, assert_refused
from tests.security.conftest import Install, Timeline

REUSE_GRACE_PERIOD = 10
OLD, NEW = "the secret before: 32 bytes long.", "the secret after: 32 bytes long.."

Rows = Callable[[], AbstractAsyncContextManager[AsyncSession]]


class Pair(NamedTuple):
    """The tokens of a login or refresh response."""

    access: str
    refresh: str


class Victim:
    """A logged-in user whose tokens were stolen."""

    def __init__(self, client: httpx.AsyncClient, user: User, rows: Rows) -> None:
        self.client, self.user, self.rows = client, user, rows

    async def log_in(self) -> Pair:
        form = {"username": self.user.username, "password": PASSWORD}
        return self._pair(await self.client.post("/auth/login", data=form))

    async def refresh(self, pair: Pair) -> Pair:
        return self._pair(await self.present(pair.refresh))

    async def present(self, token: str) -> httpx.Response:
        return await self.client.post("/auth/refresh", json={"refresh_token": token})

    async def send(self, pair: Pair) -> httpx.Response:
        headers = {"Authorization": f"Bearer {pair.access}"}
        return await self.client.get("/auth/me", headers=headers)

    async def is_logged_in(self, pair: Pair) -> bool:
        return (await self.send(pair)).status_code == 200

    async def count_recorded_reuses(self) -> int:
        """Return the number of recorded reuses."""
        async with self.rows() as session:
            query = select(func.count()).where(
                AuditEvent.action == "REFRESH_REUSED", AuditEvent.subject_id == self.user.id
            )
            return await session.scalar(query) or 0

    async def change(self, model: type[User | UserSession], **values: Any) -> None:
        column = User.id if model is User else UserSession.user_id
        async with self.rows() as session:
            await session.execute(update(model).where(column == self.user.id).values(values))

    @staticmethod
    def _pair(response: httpx.Response) -> Pair:
        assert response.status_code == 200, response.text
        return Pair(response.json()["access_token"], response.json()["refresh_token"])


@pytest.fixture
async def victim(live: httpx.AsyncClient, live_rows: Rows, timeline: Timeline) -> Victim:
    async with live_rows() as session:
        user = await create_user(session)
    return Victim(live, user, live_rows)


def assert_no_session(response: httpx.Response) -> None:
    """Assert the standard response for an invalid refresh token."""
    assert response.status_code == 401, response.text
    assert response.headers["WWW-Authenticate"] == "Bearer"
    assert answer(response).body == {
        "success": False,
        "message": "The session has ended; sign in again",
        "detail": "The session has ended; sign in again",
        "code": "invalid_refresh_token",
    }


class TestReuse:
    async def test_reuse_within_grace_period_returns_the_same_successor(
        self, victim: Victim, timeline: Timeline
    ) -> None:
        parent = await victim.log_in()
        child = await victim.refresh(parent)
        timeline.advance(REUSE_GRACE_PERIOD)
        again = await victim.refresh(parent)
        assert again.refresh == child.refresh != parent.refresh
        assert await victim.is_logged_in(again)
        assert await victim.count_recorded_reuses() == 0

    async def test_reuse_after_grace_period_ends_the_session(
        self, victim: Victim, timeline: Timeline
    ) -> None:
        parent, elsewhere = await victim.log_in(), await victim.log_in()
        child = await victim.refresh(parent)
        timeline.advance(REUSE_GRACE_PERIOD + 1)
        assert_no_session(await victim.present(parent.refresh))
        for pair in (parent, child):
            assert_refused(await victim.send(pair), "token_revoked")
            assert_no_session(await victim.present(pair.refresh))
        assert await victim.count_recorded_reuses() == 1
        assert await victim.is_logged_in(elsewhere)

    async def test_refresh_by_victim_logs_out_the_thief(
        self, victim: Victim, timeline: Timeline
    ) -> None:
        stolen = await victim.log_in()
        refreshed = await victim.refresh(stolen)
        timeline.advance(60)
        refreshed = await victim.refresh(refreshed)
        timeline.advance(60)
        assert_no_session(await victim.present(stolen.refresh))
        assert_refused(await victim.send(refreshed), "token_revoked")
        assert_no_session(await victim.present(refreshed.refresh))

    async def test_older_predecessor_ends_the_session_at_once(self, victim: Victim) -> None:
        grandparent = await victim.log_in()
        child = await victim.refresh(await victim.refresh(grandparent))
        assert_no_session(await victim.present(grandparent.refresh))
        assert_refused(await victim.send(child), "token_revoked")
        assert await victim.count_recorded_reuses() == 1

    async def test_reuse_does_not_extend_the_grace_period(
        self, victim: Victim, timeline: Timeline
    ) -> None:
        parent = await victim.log_in()
        await victim.refresh(parent)
        for _ in range(2):
            timeline.advance(REUSE_GRACE_PERIOD / 2)
            await victim.refresh(parent)
        timeline.advance(1)
        assert_no_session(await victim.present(parent.refresh))


def with_other_secret(token: RefreshToken) -> RefreshToken:
    return token._replace(secret=new_secret())


GUESSES: dict[str, Callable[[RefreshToken, RefreshToken], object]] = {
    "another secret": lambda mine, _: with_other_secret(mine),
    "another tag": lambda mine, _: with_other_secret(mine)._replace(tag="A" * 22),
    "the tag of another secret": lambda mine, other: with_other_secret(mine)._replace(
        tag=other.tag
    ),
    "another session's secret and tag": lambda mine, other: other._replace(
        session_id=mine.session_id
    ),
    "nobody's session": lambda mine, _: mine._replace(session_id=10**17),
    "session beyond 64 bits": lambda mine, _: mine._replace(session_id=10**19),
    "session 0": lambda mine, _: mine._replace(session_id=0),
    "session with a zero in front": lambda mine, _: str(mine).replace("prt_", "prt_0"),
    "session in digits of full width": lambda mine, _: str(mine).replace("prt_", "prt_\uff11"),
    "cut short": lambda mine, _: str(mine)[:-1],
    "longer": lambda mine, _: f"{mine}A",
    "with a line break": lambda mine, _: f"{mine}\n",
    "with padding": lambda mine, _: f"{mine}=",
    "another prefix": lambda mine, _: str(mine).replace("prt_", "prk_"),
    "no prefix": lambda mine, _: str(mine).removeprefix("prt_"),
    "in capitals": lambda mine, _: str(mine).upper(),
    "SQL": lambda mine, _: f"prt_{mine.session_id}_' OR '1'='1",
    "empty": lambda mine, _: "",
    "huge": lambda mine, _: f"prt_{mine.session_id}_" + "A" * 1_000_000,
}


@pytest.mark.parametrize("guess", GUESSES)
async def test_guessed_token_is_refused_and_ends_no_session(victim: Victim, guess: str) -> None:
    """Otherwise anyone could log users out by guessing session ids."""
    mine, other = await victim.log_in(), await victim.log_in()
    tokens = [token for pair in (mine, other) if (token := RefreshToken.parse(pair.refresh))]
    response = await victim.present(str(GUESSES[guess](*tokens)))
    if response.status_code != 422:
        assert_no_session(response)
    assert await victim.is_logged_in(mine)
    assert await victim.is_logged_in(other)
    assert await victim.count_recorded_reuses() == 0
    await victim.refresh(mine)


async def test_valid_tag_with_wrong_secret_is_refused(victim: Victim) -> None:
    """The tag only proves the origin of a token. The secret decides."""
    pair = await victim.log_in()
    await victim.refresh(pair)
    token = RefreshToken.parse(pair.refresh)
    assert token is not None
    assert_no_session(await victim.present(str(token._replace(tag="A" * 22, secret="A" * 43))))
    assert await victim.is_logged_in(pair)


class TestEnd:
    """After the end of a session, refresh token and access token are refused."""

    async def test_refresh_token_is_refused_after_logout(self, victim: Victim) -> None:
        pair = await victim.log_in()
        child = await victim.refresh(pair)
        await victim.client.post("/auth/logout", json={"refresh_token": child.refresh})
        for token in (pair.refresh, child.refresh):
            assert_no_session(await victim.present(token))
        assert_refused(await victim.send(child), "token_revoked")

    async def test_refresh_token_is_refused_after_logout_everywhere(self, victim: Victim) -> None:
        here, there = await victim.log_in(), await victim.log_in()
        headers = {"Authorization": f"Bearer {here.access}"}
        await victim.client.post("/auth/logout-all", headers=headers)
        for pair in (here, there):
            assert_no_session(await victim.present(pair.refresh))
            assert_refused(await victim.send(pair), "token_revoked")

    async def test_refresh_token_is_refused_for_disabled_user(self, victim: Victim) -> None:
        pair = await victim.log_in()
        await victim.change(User, is_active=False)
        assert_no_session(await victim.present(pair.refresh))
        assert_refused(await victim.send(pair))

    async def test_refresh_token_expires_after_14_days_without_use(
        self, victim: Victim, timeline: Timeline
    ) -> None:
        pair = await victim.log_in()
        timeline.advance(days=14, seconds=-1)
        pair = await victim.refresh(pair)
        timeline.advance(days=14)
        assert_no_session(await victim.present(pair.refresh))

    async def test_refresh_token_expires_after_30_days_of_use(
        self, victim: Victim, timeline: Timeline
    ) -> None:
        pair = await victim.log_in()
        for _ in range(2):
            timeline.advance(days=13)
            pair = await victim.refresh(pair)
        timeline.advance(days=4, seconds=-1)
        pair = await victim.refresh(pair)
        timeline.advance(1)
        assert_no_session(await victim.present(pair.refresh))
        assert_refused(await victim.send(pair), "token_revoked")

    async def test_reuse_after_session_end_is_not_recorded(
        self, victim: Victim, timeline: Timeline
    ) -> None:
        parent = await victim.log_in()
        await victim.refresh(parent)
        timeline.advance(days=31)
        assert_no_session(await victim.present(parent.refresh))
        assert await victim.count_recorded_reuses() == 0


class TestRotatedKey:
    async def test_grace_period_applies_across_key_rotation(
        self, victim: Victim, install: Install
    ) -> None:
        install(SECRET_KEY=OLD)
        parent = await victim.log_in()
        child = await victim.refresh(parent)
        install(SECRET_KEY=NEW, SECRET_KEYS_PREVIOUS=OLD)
        again = await victim.refresh(parent)
        secrets = [RefreshToken.parse(pair.refresh) for pair in (child, again)]
        assert len({token and token.secret for token in secrets}) == 1
        await victim.refresh(child)

    async def test_replica_without_the_new_key_records_no_reuse(
        self, victim: Victim, install: Install
    ) -> None:
        install(SECRET_KEY=OLD)
        parent = await victim.log_in()
        install(SECRET_KEY=NEW, SECRET_KEYS_PREVIOUS=OLD)
        child = await victim.refresh(parent)
        install(SECRET_KEY=OLD, SECRET_KEYS_PREVIOUS="")
        assert_no_session(await victim.present(parent.refresh))
        install(SECRET_KEY=NEW, SECRET_KEYS_PREVIOUS=OLD)
        await victim.refresh(child)
        assert await victim.count_recorded_reuses() == 0

    async def test_reuse_is_detected_across_key_rotation(
        self, victim: Victim, install: Install, timeline: Timeline
    ) -> None:
        install(SECRET_KEY=OLD)
        parent = await victim.log_in()
        child = await victim.refresh(parent)
        install(SECRET_KEY=NEW, SECRET_KEYS_PREVIOUS=OLD)
        timeline.advance(REUSE_GRACE_PERIOD + 1)
        assert_no_session(await victim.present(parent.refresh))
        assert_no_session(await victim.present(child.refresh))
        assert await victim.count_recorded_reuses() == 1

    async def test_without_old_key_reuse_is_refused_without_ending_the_session(
        self, victim: Victim, install: Install, timeline: Timeline
    ) -> None:
        install(SECRET_KEY=OLD)
        parent = await victim.log_in()
        child = await victim.refresh(parent)
        install(SECRET_KEY=NEW, SECRET_KEYS_PREVIOUS="")
        timeline.advance(REUSE_GRACE_PERIOD + 1)
        assert_no_session(await victim.present(parent.refresh))
        assert await victim.count_recorded_reuses() == 0
        assert await victim.is_logged_in(await victim.refresh(child))
