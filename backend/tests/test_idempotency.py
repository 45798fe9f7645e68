"""Idempotency-Key: a request that is repeated is carried out once, and answered alike."""

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import event, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import find_by_session
from app.auth.keys import derived_keys
from app.core import clock
from app.core.config import Registration
from app.db.session import Database
from app.main import create_app
from app.models import Address, ApiKey, Article, IdempotencyKey, PreviewLink, User
from app.services import idempotency
from tests.factories import (
    PASSWORD,
    api_key,
    bearer,
    create_article,
    create_session,
    create_user,
)
from tests.inbox import Inbox
from tests.security.conftest import (
    Install,
    install,
    live,
    live_app,
    live_database_url,
    live_rows,
    new_address,
)

__all__ = ["install", "live", "live_app", "live_database_url", "live_rows"]

ADDRESS = {"label": "home", "line1": "1 Street", "city": "Town", "country": "GB"}
ARTICLE = {"title": "Once", "content": "Long enough, I think.", "tags": ["a"]}
KEY_FOR_SITE = {"name": "site", "scopes": ["articles:read"], "password": PASSWORD}

Headers = dict[str, str]
Rows = Callable[[], AbstractAsyncContextManager[AsyncSession]]


def keyed(headers: Headers, key: str | None = None) -> Headers:
    return {**headers, "Idempotency-Key": key or str(uuid4())}


def registration(name: str | None = None) -> dict[str, Any]:
    name = name or f"u{uuid4().hex[:12]}"
    return {
        "email": f"{name}@example.com",
        "username": name,
        "name": "Ada",
        "password": PASSWORD,
    }


class Creation(NamedTuple):
    """A request that creates, the rows that it makes, and another body for the same."""

    path: str
    body: dict[str, Any]
    other: dict[str, Any]
    model: Any


@pytest.fixture
async def user(session: AsyncSession) -> User:
    return await create_user(session)


@pytest.fixture(params=["address", "API key", "article", "preview link"])
async def creation(request: pytest.FixtureRequest, session: AsyncSession, user: User) -> Creation:
    creations = {
        "address": Creation(
            f"/users/{user.id}/addresses", ADDRESS, {**ADDRESS, "label": "x"}, Address
        ),
        "API key": Creation(
            "/users/me/api-keys", KEY_FOR_SITE, {**KEY_FOR_SITE, "name": "x"}, ApiKey
        ),
        "article": Creation("/articles", ARTICLE, {**ARTICLE, "title": "Another"}, Article),
    }
    if request.param == "preview link":
        draft = await create_article(session, author=user, published=False)
        path = f"/articles/{draft.id}/preview-links"
        return Creation(path, {"expires_in_hours": 1}, {"expires_in_hours": 2}, PreviewLink)
    return creations[request.param]


async def count(session: AsyncSession, model: Any) -> int:
    return await session.scalar(select(func.count()).select_from(model)) or 0


def is_replay(response: httpx.Response) -> bool:
    return response.headers.get("Idempotency-Replayed") == "true"


class TestRepeating:
    async def test_gets_the_same_bytes_and_makes_one_row(
        self, client: httpx.AsyncClient, session: AsyncSession, user: User, creation: Creation
    ) -> None:
        headers = keyed(bearer(user))
        first = await client.post(creation.path, json=creation.body, headers=headers)
        assert first.status_code == 201
        assert not is_replay(first)
        for path in (creation.path, f"{creation.path}/"):
            again = await client.post(path, json=creation.body, headers=headers)
            assert again.status_code == 201
            assert is_replay(again)
            assert again.content == first.content
            for name in ("ETag", "Cache-Control", "Content-Type", "Location", "Vary"):
                assert again.headers.get(name) == first.headers.get(name)
            assert again.headers["X-Request-ID"] != first.headers["X-Request-ID"]
        assert await count(session, creation.model) == 1

    async def test_without_a_key_makes_another(
        self, client: httpx.AsyncClient, session: AsyncSession, user: User, creation: Creation
    ) -> None:
        for _ in range(2):
            response = await client.post(creation.path, json=creation.body, headers=bearer(user))
            assert not is_replay(response)
        assert await count(session, creation.model) == 2
        assert await count(session, IdempotencyKey) == 0

    async def test_with_another_body_is_refused(
        self, client: httpx.AsyncClient, session: AsyncSession, user: User, creation: Creation
    ) -> None:
        headers = keyed(bearer(user))
        first = await client.post(creation.path, json=creation.body, headers=headers)
        spaced = {"content": json.dumps(creation.body, indent=3)}
        different: list[dict[str, Any]] = [
            {"json": creation.other},
            {**spaced, "headers": {**headers, "Content-Type": "application/json"}},
        ]
        for options in different:
            refused = await client.post(creation.path, **{"headers": headers, **options})
            assert refused.status_code == 422
            assert refused.json()["code"] == "idempotency_key_reused"
        assert await count(session, creation.model) == 1
        again = await client.post(creation.path, json=creation.body, headers=headers)
        assert again.content == first.content

    async def test_on_another_path_is_refused(self, client: httpx.AsyncClient, user: User) -> None:
        headers = keyed(bearer(user))
        made = await client.post(f"/users/{user.id}/addresses", json=ADDRESS, headers=headers)
        assert made.status_code == 201
        other = await client.post("/users/me/api-keys", json=KEY_FOR_SITE, headers=headers)
        assert other.json()["code"] == "idempotency_key_reused"

    async def test_another_users_same_key_is_another(
        self, client: httpx.AsyncClient, session: AsyncSession, user: User
    ) -> None:
        other = await create_user(session)
        ids = set()
        for each in (user, other):
            response = await client.post(
                "/users/me/api-keys", json=KEY_FOR_SITE, headers=keyed(bearer(each), "same")
            )
            assert response.status_code == 201
            assert not is_replay(response)
            ids.add(response.json()["id"])
        assert len(ids) == 2

    async def test_a_program_and_a_login_of_one_user_are_one(
        self, client: httpx.AsyncClient, session: AsyncSession, user: User
    ) -> None:
        url, key = f"/users/{user.id}/addresses", str(uuid4())
        program = await api_key(session, user=user, scopes=["addresses:write"])
        first = await client.post(url, json=ADDRESS, headers=keyed(program, key))
        again = await client.post(url, json=ADDRESS, headers=keyed(bearer(user), key))
        assert again.content == first.content
        weak = await api_key(session, user=user, scopes=["addresses:read"])
        assert (await client.post(url, json=ADDRESS, headers=keyed(weak, key))).status_code == 403

    async def test_whose_session_has_ended_gets_nothing(
        self, client: httpx.AsyncClient, user: User
    ) -> None:
        headers = keyed(bearer(user))
        url = f"/users/{user.id}/addresses"
        await client.post(url, json=ADDRESS, headers=headers)
        await client.post("/auth/logout-all", headers=bearer(user))
        assert (await client.post(url, json=ADDRESS, headers=headers)).status_code == 401


class TestLargeAnswers:
    """A body over 64 KiB is not stored: what the request created is read again."""

    @pytest.fixture
    async def requests(self, session: AsyncSession, user: User) -> dict[str, dict[str, Any]]:
        article = await create_article(session, author=user)
        return {
            "/articles": {**ARTICLE, "content": "Long. " * 6000},
            f"/articles/{article.id}/comments": {"content": "😀" * 9999},
        }

    async def test_are_read_again(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        user: User,
        requests: dict[str, dict[str, Any]],
    ) -> None:
        for path, body in requests.items():
            headers = keyed(bearer(user))
            first = await client.post(path, json=body, headers=headers)
            assert first.status_code == 201
            assert len(first.content) > idempotency.MAX_BODY_BYTES
            stored = (await session.scalars(select(IdempotencyKey))).one()
            assert stored.sealed_body == ""
            again = await client.post(path, json=body, headers=headers)
            assert (again.status_code, is_replay(again)) == (201, True)
            assert again.json() == first.json()
            for name in ("ETag", "Location", "Content-Type"):
                assert again.headers[name] == first.headers[name]
            read = await client.get(first.headers["Location"], headers=bearer(user))
            assert read.json() == first.json()
            assert read.headers["ETag"] == again.headers["ETag"]
            await session.delete(stored)

    async def test_show_what_is_there_now(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        user: User,
        requests: dict[str, dict[str, Any]],
    ) -> None:
        headers, body = keyed(bearer(user)), requests["/articles"]
        first = await client.post("/articles", json=body, headers=headers)
        url = first.headers["Location"]
        changed = await client.patch(url, json={"title": "Changed"}, headers=bearer(user))
        again = await client.post("/articles", json=body, headers=headers)
        assert again.json() == changed.json()
        assert again.headers["ETag"] == changed.headers["ETag"]
        assert (await client.delete(url, headers=bearer(user))).status_code == 204
        gone = await client.post("/articles", json=body, headers=headers)
        assert (gone.status_code, gone.json()["code"]) == (409, "already_carried_out")
        other = await client.post("/articles", json={**body, "title": "Another"}, headers=headers)
        assert other.json()["code"] == "idempotency_key_reused"
        assert await count(session, Article) == 2

    async def test_a_program_that_may_only_write_is_answered_too(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        user: User,
        requests: dict[str, dict[str, Any]],
    ) -> None:
        headers = keyed(await api_key(session, user=user, scopes=["articles:write"]))
        answers = [
            await client.post("/articles", json=requests["/articles"], headers=headers)
            for _ in range(2)
        ]
        assert [each.status_code for each in answers] == [201, 201]
        assert answers[0].json() == answers[1].json()

    async def test_at_once_make_one(
        self, live: httpx.AsyncClient, live_rows: Rows, requests: dict[str, dict[str, Any]]
    ) -> None:
        async with live_rows() as rows:
            user = await create_user(rows)
        headers = keyed(bearer(user))
        answers = await asyncio.gather(
            *(live.post("/articles", json=requests["/articles"], headers=headers) for _ in range(6))
        )
        assert {each.status_code for each in answers} <= {201, 409}
        assert len({each.json()["id"] for each in answers if each.status_code == 201}) == 1
        async with live_rows() as rows:
            made = select(func.count()).where(Article.author_id == user.id)
            assert await rows.scalar(made) == 1


class TestErrors:
    async def test_are_not_stored(
        self, client: httpx.AsyncClient, session: AsyncSession, user: User
    ) -> None:
        headers = keyed(bearer(user))
        wrong = {**KEY_FOR_SITE, "password": "not this one"}
        refused = await client.post("/users/me/api-keys", json=wrong, headers=headers)
        assert refused.status_code == 403
        invalid = await client.post("/users/me/api-keys", json={}, headers=headers)
        assert invalid.status_code == 422
        assert invalid.json()["code"] == "validation_error"
        assert await count(session, IdempotencyKey) == 0
        made = await client.post("/users/me/api-keys", json=KEY_FOR_SITE, headers=headers)
        assert made.status_code == 201

    @pytest.mark.parametrize("key", ["", "x" * 256, "with space", "tab\there", "ümlaut"])
    async def test_a_malformed_key(
        self, client: httpx.AsyncClient, session: AsyncSession, user: User, key: str
    ) -> None:
        lines = [(b"authorization", bearer(user)["Authorization"].encode())]
        lines.append((b"idempotency-key", key.encode()))
        response = await client.post(f"/users/{user.id}/addresses", json=ADDRESS, headers=lines)
        assert response.status_code == 422
        assert response.json()["detail"][0]["loc"] == ["header", "Idempotency-Key"]
        assert await count(session, Address) == 0

    async def test_two_keys(
        self, client: httpx.AsyncClient, session: AsyncSession, user: User
    ) -> None:
        lines = [*bearer(user).items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
        response = await client.post(f"/users/{user.id}/addresses", json=ADDRESS, headers=lines)
        assert response.status_code == 422
        assert await count(session, Address) == 0

    @pytest.mark.parametrize(
        "key", ["x", "x" * 255, '"8e03978e-40d5-43e8-bc93-6894a57f9324"', "!~"]
    )
    async def test_any_visible_ascii_is_a_key(
        self, client: httpx.AsyncClient, user: User, key: str
    ) -> None:
        response = await client.post(
            f"/users/{user.id}/addresses", json=ADDRESS, headers=keyed(bearer(user), key)
        )
        assert response.status_code == 201


class TestKeeping:
    async def test_ends_after_a_day(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        user: User,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        program = await api_key(session, user=user, scopes=["addresses:write"])
        headers, url = keyed(program), f"/users/{user.id}/addresses"
        first, began = await client.post(url, json=ADDRESS, headers=headers), clock.now()
        monkeypatch.setattr(clock, "now", lambda: began + timedelta(hours=23, minutes=59))
        assert is_replay(await client.post(url, json=ADDRESS, headers=headers))
        monkeypatch.setattr(clock, "now", lambda: began + timedelta(hours=24, minutes=1))
        second = await client.post(url, json={**ADDRESS, "label": "later"}, headers=headers)
        assert second.status_code == 201
        assert second.json()["id"] != first.json()["id"]
        assert await count(session, IdempotencyKey) == 1  # replaced
        again = await client.post(url, json={**ADDRESS, "label": "later"}, headers=headers)
        assert is_replay(again)
        assert again.content == second.content

    async def test_what_has_expired_is_deleted(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        user: User,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        url = f"/users/{user.id}/addresses"
        await client.post(url, json=ADDRESS, headers=keyed(bearer(user)))
        await idempotency.purge(session)
        assert await count(session, IdempotencyKey) == 1
        later = clock.now() + timedelta(hours=25)
        monkeypatch.setattr(clock, "now", lambda: later)
        await idempotency.purge(session)
        assert await count(session, IdempotencyKey) == 0

    async def test_is_sealed(
        self, client: httpx.AsyncClient, session: AsyncSession, user: User
    ) -> None:
        """Neither the secret in the answer nor the password in the request can be got out of it."""
        key = str(uuid4())
        made = await client.post(
            "/users/me/api-keys", json=KEY_FOR_SITE, headers=keyed(bearer(user), key)
        )
        row = (await session.scalars(select(IdempotencyKey))).one()
        stored = f"{row.sealed_body} {row.headers} {row.key.hex()} {row.fingerprint.hex()}"
        for secret in (made.json()["key"], PASSWORD, user.email, key):
            assert secret not in stored

    async def test_no_hash_of_a_request_can_be_tried_without_our_key(
        self, client: httpx.AsyncClient, session: AsyncSession, install: Install
    ) -> None:
        """Bodies hold passwords: who has the table could guess at them, past bcrypt."""
        body, rows = registration(), []
        for secret in ("o" * 40, "n" * 40):
            install(SECRET_KEY=secret)
            await client.post("/users", json=body, headers=keyed({}, "1"))
            rows.append((await session.scalars(select(IdempotencyKey))).one())
            await session.execute(text("DELETE FROM idempotency_keys"))
            await session.execute(text("DELETE FROM users"))
            session.expunge_all()
        one, other = rows
        assert one.key != other.key
        assert one.fingerprint != other.fingerprint

    async def test_outlives_a_new_secret_key(
        self, client: httpx.AsyncClient, session: AsyncSession, user: User, install: Install
    ) -> None:
        program = await api_key(session, user=user, scopes=["addresses:write"])
        headers, url = keyed(program), f"/users/{user.id}/addresses"
        old, new = "o" * 40, "n" * 40
        install(SECRET_KEY=old)
        first = await client.post(url, json=ADDRESS, headers=headers)
        body = registration()
        key = keyed({})
        registered = await client.post("/users", json=body, headers=key)
        install(SECRET_KEY=new, SECRET_KEYS_PREVIOUS=old)
        again = await client.post(url, json=ADDRESS, headers=headers)
        assert is_replay(again)
        assert again.content == first.content
        assert (await client.post("/users", json=body, headers=key)).content == registered.content
        other = await client.post(url, json={**ADDRESS, "label": "x"}, headers=headers)
        assert other.json()["code"] == "idempotency_key_reused"

    async def test_what_no_key_opens_is_a_conflict(
        self, client: httpx.AsyncClient, session: AsyncSession, user: User, install: Install
    ) -> None:
        program = await api_key(session, user=user, scopes=["addresses:write"])
        headers, url = keyed(program), f"/users/{user.id}/addresses"
        install(SECRET_KEY="o" * 40)
        await client.post(url, json=ADDRESS, headers=headers)
        install(SECRET_KEY="n" * 40)
        refused = await client.post(url, json=ADDRESS, headers=headers)
        assert refused.status_code == 409
        assert "cannot be read any more" in refused.json()["message"]
        assert await count(session, Address) == 1


class TestAnonymous:
    async def test_registering_twice_is_registering_once(
        self, client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
    ) -> None:
        headers, body = keyed({}), registration()
        first = await client.post("/users", json=body, headers=headers)
        assert first.status_code == 201
        again = await client.post("/users", json=body, headers=headers)
        assert (again.status_code, is_replay(again)) == (201, True)
        assert again.content == first.content
        assert await count(session, User) == 1

    async def test_nobody_reads_anothers_answer_or_learns_of_their_key(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        body = registration()
        await client.post("/users", json=body, headers=keyed({}, "1"))
        for guess in ({"password": "another " + PASSWORD}, {"name": "Eve"}):
            response = await client.post("/users", json={**body, **guess}, headers=keyed({}, "1"))
            assert response.status_code == 409
            assert response.json()["code"] == "email_taken"
        other = await client.post("/users", json=registration(), headers=keyed({}, "1"))
        assert other.status_code == 201
        assert not is_replay(other)

    async def test_a_users_key_is_not_an_anonymous_one(
        self, client: httpx.AsyncClient, session: AsyncSession, user: User
    ) -> None:
        """A token says nothing where nobody is asked who they are."""
        body = registration()
        first = await client.post("/users", json=body, headers=keyed({}, "1"))
        again = await client.post("/users", json=body, headers=keyed(bearer(user), "1"))
        assert again.content == first.content

    async def test_by_mail(
        self, settings: Any, database: Database, session: AsyncSession, inbox: Inbox
    ) -> None:
        app = create_app(
            settings.model_copy(
                update={"registration": Registration.BY_EMAIL, "raw_sql_reference": False}
            )
        )
        app.state.database = database
        transport = httpx.ASGITransport(app, client=(new_address(), 1))
        body, headers = registration(), keyed({})
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
            for expected in (False, True):
                asked = await client.post("/users", json=body, headers=headers)
                assert (asked.status_code, is_replay(asked)) == (202, expected)
            assert await session.scalar(text("SELECT count(*) FROM mails")) == 1
            token = await inbox.token()
            confirmation, headers = {"token": token, "password": PASSWORD}, keyed({})
            first = await client.post("/users/confirm", json=confirmation, headers=headers)
            assert first.status_code == 201
            again = await client.post("/users/confirm", json=confirmation, headers=headers)
            assert again.content == first.content
            without = await client.post("/users/confirm", json=confirmation)
            assert without.status_code == 400


class TestAtOnce:
    """With real commits, each request on a connection of its own."""

    @pytest.fixture
    async def live_user(self, live_rows: Rows) -> User:
        async with live_rows() as session:
            return await create_user(session)

    @pytest.mark.parametrize("path", ["addresses", "api-keys"])
    async def test_twenty_make_one(
        self, live: httpx.AsyncClient, live_rows: Rows, live_user: User, path: str
    ) -> None:
        url, body = f"/users/{live_user.id}/addresses", ADDRESS
        if path == "api-keys":
            url, body = "/users/me/api-keys", KEY_FOR_SITE
        headers = keyed(bearer(live_user))
        answers = await asyncio.gather(
            *(live.post(url, json=body, headers=headers) for _ in range(20))
        )
        made = [answer for answer in answers if answer.status_code == 201 and not is_replay(answer)]
        assert len(made) == 1
        for answer in answers:
            if answer.status_code == 201:
                assert answer.content == made[0].content
            else:
                assert (answer.status_code, answer.json()["code"]) == (409, "request_in_progress")
                assert answer.headers["Retry-After"] == "1"
        listed = await live.get(url, headers=bearer(live_user))
        assert len(listed.json()) == 1
        again = await live.post(url, json=body, headers=headers)
        assert is_replay(again)

    async def test_registering_twenty_times_registers_once(
        self, live: httpx.AsyncClient, live_rows: Rows
    ) -> None:
        body, headers = registration(), keyed({})
        answers = await asyncio.gather(
            *(live.post("/users", json=body, headers=headers) for _ in range(20))
        )
        codes = {(answer.status_code, answer.json().get("code")) for answer in answers}
        assert codes <= {(201, None), (409, "request_in_progress")}  # and not: email_taken
        assert sum(answer.status_code == 201 and not is_replay(answer) for answer in answers) == 1
        async with live_rows() as session:
            theirs = select(func.count()).select_from(User).where(User.email == body["email"])
            assert await session.scalar(theirs) == 1

    async def test_one_that_is_rolled_back_leaves_the_key_free(
        self, live: httpx.AsyncClient, live_rows: Rows, live_user: User, live_app: Any
    ) -> None:
        """While it runs another is told to wait; once it has failed, the next one may."""
        url, headers = f"/users/{live_user.id}/addresses", keyed(bearer(live_user))
        database: Database = live_app.state.database
        async with database.unit_of_work() as session:
            login = await create_session(session, user=live_user)
            caller = await find_by_session(session, user_id=live_user.id, session_id=login.id)
            who = {"database": database, "caller": caller, "key": headers["Idempotency-Key"]}
            await idempotency.claim(session, **who, content=[b"another replica"])
            waiting = await live.post(url, json=ADDRESS, headers=headers)
            assert waiting.json()["code"] == "request_in_progress"
            await session.rollback()
        assert (await live.post(url, json=ADDRESS, headers=headers)).status_code == 201

    async def test_a_commit_that_fails_leaves_neither_row_nor_answer(
        self, live: httpx.AsyncClient, live_rows: Rows, live_user: User
    ) -> None:
        url, headers = f"/users/{live_user.id}/addresses", keyed(bearer(live_user))
        async with live_rows() as session:
            await session.execute(
                text(
                    "CREATE FUNCTION refuse_address() RETURNS trigger LANGUAGE plpgsql AS"
                    " $$ BEGIN RAISE EXCEPTION 'refused at commit'; END $$"
                )
            )
            await session.execute(
                text(
                    "CREATE CONSTRAINT TRIGGER refuse_address AFTER INSERT ON addresses DEFERRABLE"
                    " INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse_address()"
                )
            )
        try:
            assert (await live.post(url, json=ADDRESS, headers=headers)).status_code == 500
        finally:
            async with live_rows() as session:
                await session.execute(text("DROP FUNCTION refuse_address CASCADE"))
        made = await live.post(url, json=ADDRESS, headers=headers)
        assert (made.status_code, is_replay(made)) == (201, False)

    async def test_what_is_not_carried_out_leaves_no_trace_and_no_connection(
        self, live: httpx.AsyncClient, live_app: Any, live_user: User
    ) -> None:
        """More often than there are connections, in each way that it can end."""
        database: Database = live_app.state.database
        pool = database._sessions.kw["bind"].pool
        body, headers = registration(), keyed({})
        url, mine = "/users/me/api-keys", keyed(bearer(live_user))
        assert (await live.post("/users", json=body, headers=headers)).status_code == 201
        await live.post(url, json=KEY_FOR_SITE, headers=mine)
        for _ in range(25):
            assert is_replay(await live.post("/users", json=body, headers=headers))
            assert is_replay(await live.post(url, json=KEY_FOR_SITE, headers=mine))
            reused = await live.post(url, json={**KEY_FOR_SITE, "name": "x"}, headers=mine)
            assert reused.status_code == 422
        assert pool.checkedout() == 0  # type: ignore[attr-defined]

    async def test_no_connection_is_held_while_a_password_is_hashed(
        self, live: httpx.AsyncClient, live_app: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from app.services import users

        pool, hash_password = live_app.state.database._sessions.kw["bind"].pool, users.hash_password
        held: list[int] = []

        async def counting(password: str) -> str:
            held.append(pool.checkedout())
            return await hash_password(password)

        monkeypatch.setattr(users, "hash_password", counting)
        made = await live.post("/users", json=registration(), headers=keyed({}))
        assert made.status_code == 201
        assert held == [0]


async def test_the_claim_costs_two_statements_and_the_answer_one(
    client: httpx.AsyncClient, session: AsyncSession, user: User, connection: Any
) -> None:
    seen: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        seen.append(statement)

    url = f"/users/{user.id}/addresses"
    counts = []
    await client.post(url, json=ADDRESS, headers=bearer(user))  # the first measures a limit's use
    for headers in (bearer(user), keyed(bearer(user))):
        event.listen(connection.sync_connection, "before_cursor_execute", note)
        await client.post(url, json=ADDRESS, headers=headers)
        event.remove(connection.sync_connection, "before_cursor_execute", note)
        counts.append(len(seen))
        seen.clear()
    assert counts[1] - counts[0] == 3


def test_content_cannot_be_moved_between_its_parts() -> None:
    assert idempotency._encode_parts([b"a", b"bc"]) != idempotency._encode_parts([b"ab", b"c"])
    assert idempotency._hmacs(b"a", b"b") != idempotency._hmacs(b"ab")
    assert len(idempotency._hmacs(b"a")) == len(derived_keys(idempotency.PURPOSE))
