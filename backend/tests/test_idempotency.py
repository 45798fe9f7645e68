"""Idempotency-Key: a repeated request is executed once and gets the stored response."""

import asyncio
import json
from collections.abc import Callable, Mapping
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
from app.auth.security import hash_password
from app.core import clock
from app.core.config import Registration
from app.db.session import Database
from app.main import create_app
from app.models import Address, ApiKey, Article, IdempotencyKey, PreviewLink, User
from app.services import idempotency
from app.services.purging import Batch
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
    """A request that creates rows, their model, and a different body for the same route."""

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
    return bool(response.headers.get("Idempotency-Replayed") == "true")


class TestRepetition:
    async def test_returns_the_same_bytes_and_creates_one_row(
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

    async def test_without_key_creates_another_row(
        self, client: httpx.AsyncClient, session: AsyncSession, user: User, creation: Creation
    ) -> None:
        for _ in range(2):
            response = await client.post(creation.path, json=creation.body, headers=bearer(user))
            assert not is_replay(response)
        assert await count(session, creation.model) == 2
        assert await count(session, IdempotencyKey) == 0

    async def test_different_body_is_refused(
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

    async def test_different_path_is_refused(
        self, client: httpx.AsyncClient, session: AsyncSession, user: User
    ) -> None:
        headers = keyed(bearer(user))
        one, other = [await create_article(session, author=user) for _ in range(2)]
        body = {"content": "The same for both."}
        made = await client.post(f"/articles/{one.id}/comments", json=body, headers=headers)
        assert made.status_code == 201
        refused = await client.post(f"/articles/{other.id}/comments", json=body, headers=headers)
        assert refused.json()["code"] == "idempotency_key_reused"

    async def test_equal_keys_of_two_users_are_independent(
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

    async def test_api_key_and_login_of_one_user_share_keys(
        self, client: httpx.AsyncClient, session: AsyncSession, user: User
    ) -> None:
        url, key = f"/users/{user.id}/addresses", str(uuid4())
        program = await api_key(session, user=user, scopes=["addresses:write"])
        first = await client.post(url, json=ADDRESS, headers=keyed(program, key))
        again = await client.post(url, json=ADDRESS, headers=keyed(bearer(user), key))
        assert again.content == first.content
        weak = await api_key(session, user=user, scopes=["addresses:read"])
        assert (await client.post(url, json=ADDRESS, headers=keyed(weak, key))).status_code == 403

    async def test_ended_session_gets_no_stored_response(
        self, client: httpx.AsyncClient, user: User
    ) -> None:
        headers = keyed(bearer(user))
        url = f"/users/{user.id}/addresses"
        await client.post(url, json=ADDRESS, headers=headers)
        await client.post("/auth/logout-all", headers=bearer(user))
        assert (await client.post(url, json=ADDRESS, headers=headers)).status_code == 401


class TestLargeResponses:
    """Bodies over 64 KiB are not stored; the created resource is read again."""

    @pytest.fixture
    async def requests(self, session: AsyncSession, user: User) -> dict[str, dict[str, Any]]:
        article = await create_article(session, author=user)
        return {
            "/articles": {**ARTICLE, "content": "Long. " * 6000},
            f"/articles/{article.id}/comments": {"content": "😀" * 9999},
        }

    async def test_resource_is_read_again(
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

    async def test_resource_is_returned_in_its_current_state(
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

    async def test_write_only_api_key_gets_the_response(
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

    async def test_concurrent_requests_create_one_row(
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
    async def test_errors_are_not_stored(
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
    async def test_malformed_key_is_rejected(
        self, client: httpx.AsyncClient, session: AsyncSession, user: User, key: str
    ) -> None:
        lines = [(b"authorization", bearer(user)["Authorization"].encode())]
        lines.append((b"idempotency-key", key.encode()))
        response = await client.post(f"/users/{user.id}/addresses", json=ADDRESS, headers=lines)
        assert response.status_code == 422
        assert response.json()["detail"][0]["loc"] == ["header", "Idempotency-Key"]
        assert await count(session, Address) == 0

    async def test_two_key_headers_are_rejected(
        self, client: httpx.AsyncClient, session: AsyncSession, user: User
    ) -> None:
        lines = [*bearer(user).items(), ("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
        response = await client.post(f"/users/{user.id}/addresses", json=ADDRESS, headers=lines)
        assert response.status_code == 422
        assert await count(session, Address) == 0

    @pytest.mark.parametrize(
        "key", ["x", "x" * 255, '"8e03978e-40d5-43e8-bc93-6894a57f9324"', "!~"]
    )
    async def test_any_visible_ascii_is_accepted(
        self, client: httpx.AsyncClient, user: User, key: str
    ) -> None:
        response = await client.post(
            f"/users/{user.id}/addresses", json=ADDRESS, headers=keyed(bearer(user), key)
        )
        assert response.status_code == 201


class TestStorage:
    async def test_key_expires_after_one_day(
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

    async def test_expired_keys_are_deleted(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        user: User,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        url = f"/users/{user.id}/addresses"
        await client.post(url, json=ADDRESS, headers=keyed(bearer(user)))
        await idempotency.purge(session, Batch())
        assert await count(session, IdempotencyKey) == 1
        later = clock.now() + timedelta(hours=25)
        monkeypatch.setattr(clock, "now", lambda: later)
        await idempotency.purge(session, Batch())
        assert await count(session, IdempotencyKey) == 0

    async def test_body_is_encrypted(
        self, client: httpx.AsyncClient, session: AsyncSession, user: User
    ) -> None:
        """The row reveals neither the secret in the response nor the password in the request."""
        key = str(uuid4())
        made = await client.post(
            "/users/me/api-keys", json=KEY_FOR_SITE, headers=keyed(bearer(user), key)
        )
        row = (await session.scalars(select(IdempotencyKey))).one()
        stored = f"{row.sealed_body} {row.headers} {row.key.hex()} {row.fingerprint.hex()}"
        for secret in (made.json()["key"], PASSWORD, user.email, key):
            assert secret not in stored

    async def test_stored_hashes_are_keyed(
        self, client: httpx.AsyncClient, session: AsyncSession, install: Install
    ) -> None:
        """Plain hashes of bodies would allow guessing passwords without bcrypt."""
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

    async def test_key_is_valid_after_secret_key_rotation(
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

    async def test_undecryptable_response_is_a_conflict(
        self, client: httpx.AsyncClient, session: AsyncSession, user: User, install: Install
    ) -> None:
        program = await api_key(session, user=user, scopes=["addresses:write"])
        headers, url = keyed(program), f"/users/{user.id}/addresses"
        install(SECRET_KEY="o" * 40)
        await client.post(url, json=ADDRESS, headers=headers)
        install(SECRET_KEY="n" * 40)
        refused = await client.post(url, json=ADDRESS, headers=headers)
        assert refused.status_code == 409
        assert "can no longer be read" in refused.json()["message"]
        assert await count(session, Address) == 1


class TestAnonymous:
    async def test_repeated_registration_creates_one_user(
        self, client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
    ) -> None:
        headers, body = keyed({}), registration()
        first = await client.post("/users", json=body, headers=headers)
        assert first.status_code == 201
        again = await client.post("/users", json=body, headers=headers)
        assert (again.status_code, is_replay(again)) == (201, True)
        assert again.content == first.content
        assert await count(session, User) == 1

    async def test_stored_responses_and_keys_of_others_are_not_revealed(
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

    async def test_users_and_anonymous_clients_do_not_share_keys(
        self, client: httpx.AsyncClient, session: AsyncSession, user: User
    ) -> None:
        """Routes without authentication ignore the token."""
        body = registration()
        first = await client.post("/users", json=body, headers=keyed({}, "1"))
        again = await client.post("/users", json=body, headers=keyed(bearer(user), "1"))
        assert again.content == first.content

    async def test_repeated_registration_by_mail_sends_one_mail(
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
                response = await client.post("/users", json=body, headers=headers)
                assert (response.status_code, is_replay(response)) == (202, expected)
            assert await session.scalar(text("SELECT count(*) FROM mails")) == 1
            token = await inbox.token()
            confirmation, headers = {"token": token, "password": PASSWORD}, keyed({})
            first = await client.post("/users/confirm", json=confirmation, headers=headers)
            assert first.status_code == 201
            again = await client.post("/users/confirm", json=confirmation, headers=headers)
            assert again.content == first.content
            without = await client.post("/users/confirm", json=confirmation)
            assert without.status_code == 400


class TestConcurrency:
    """With real commits, and a separate connection for each request."""

    @pytest.fixture
    async def live_user(self, live_rows: Rows) -> User:
        async with live_rows() as session:
            return await create_user(session)

    @pytest.mark.parametrize("path", ["addresses", "api-keys"])
    async def test_twenty_requests_create_one_row(
        self, live: httpx.AsyncClient, live_rows: Rows, live_user: User, path: str
    ) -> None:
        body: Mapping[str, object] = ADDRESS
        url = f"/users/{live_user.id}/addresses"
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

    async def test_twenty_registrations_create_one_user(
        self, live: httpx.AsyncClient, live_rows: Rows
    ) -> None:
        body, headers = registration(), keyed({})
        answers = await asyncio.gather(
            *(live.post("/users", json=body, headers=headers) for _ in range(20))
        )
        codes = {(answer.status_code, answer.json().get("code")) for answer in answers}
        assert codes <= {(201, None), (409, "request_in_progress")}  # but not email_taken
        assert sum(answer.status_code == 201 and not is_replay(answer) for answer in answers) == 1
        async with live_rows() as session:
            theirs = select(func.count()).select_from(User).where(User.email == body["email"])
            assert await session.scalar(theirs) == 1

    async def test_rollback_releases_the_key(
        self, live: httpx.AsyncClient, live_rows: Rows, live_user: User, live_app: Any
    ) -> None:
        """A concurrent request gets 409; a request after the failure is executed."""
        url, headers = f"/users/{live_user.id}/addresses", keyed(bearer(live_user))
        database: Database = live_app.state.database
        async with database.unit_of_work() as session:
            login = await create_session(session, user=live_user)
            caller = await find_by_session(session, user_id=live_user.id, session_id=login.id)
            await idempotency.claim(
                session,
                database=database,
                caller=caller,
                key=headers["Idempotency-Key"],
                content=[b"another replica"],
            )
            waiting = await live.post(url, json=ADDRESS, headers=headers)
            assert waiting.json()["code"] == "request_in_progress"
            await session.rollback()
        assert (await live.post(url, json=ADDRESS, headers=headers)).status_code == 201

    async def test_failed_commit_stores_neither_row_nor_response(
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

    async def test_unexecuted_requests_release_their_connections(
        self, live: httpx.AsyncClient, live_app: Any, live_user: User
    ) -> None:
        """Each outcome is repeated more often than there are connections."""
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
        assert pool.checkedout() == 0

    async def test_no_connection_is_held_during_password_hashing(
        self, live: httpx.AsyncClient, live_app: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from app.services.accounts import users

        pool = live_app.state.database._sessions.kw["bind"].pool
        held: list[int] = []

        async def counting(password: str) -> str:
            held.append(pool.checkedout())
            return await hash_password(password)

        monkeypatch.setattr(users, "hash_password", counting)
        made = await live.post("/users", json=registration(), headers=keyed({}))
        assert made.status_code == 201
        assert held == [0]


async def test_claim_takes_two_statements_and_response_one(
    client: httpx.AsyncClient, session: AsyncSession, user: User, connection: Any
) -> None:
    executed: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        executed.append(statement)

    url = f"/users/{user.id}/addresses"
    counts = []
    await client.post(
        url, json=ADDRESS, headers=bearer(user)
    )  # the first request measures the totals
    for headers in (bearer(user), keyed(bearer(user))):
        event.listen(connection.sync_connection, "before_cursor_execute", note)
        await client.post(url, json=ADDRESS, headers=headers)
        event.remove(connection.sync_connection, "before_cursor_execute", note)
        counts.append(len(executed))
        executed.clear()
    assert counts[1] - counts[0] == 3


def test_encoding_of_parts_is_unambiguous() -> None:
    assert idempotency._encode_parts([b"a", b"bc"]) != idempotency._encode_parts([b"ab", b"c"])
    assert idempotency._hmacs(b"a", b"b") != idempotency._hmacs(b"ab")
    assert len(idempotency._hmacs(b"a")) == len(derived_keys(idempotency.PURPOSE))
