"""Responses and response times do not reveal who has an account."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from typing import Any

import bcrypt
import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.core.config import Registration, Settings
from app.db.session import Database
from app.main import create_app
from tests.factories import create_user
from tests.security.answers import answer
from tests.security.conftest import ClientAt

PASSWORD = "a password that takes time to hash"

Send = Callable[[httpx.AsyncClient, str], Awaitable[httpx.Response]]


@pytest.fixture(scope="module")
def by_email_app_without_database(settings: Settings) -> FastAPI:
    return create_app(settings.model_copy(update={"registration": Registration.BY_EMAIL}))


@pytest.fixture
async def by_email(
    by_email_app_without_database: FastAPI, database: Database
) -> AsyncIterator[httpx.AsyncClient]:
    """Return a client of an application with REGISTRATION=by_email."""
    by_email_app_without_database.state.database = database
    transport = httpx.ASGITransport(by_email_app_without_database, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        yield client


@pytest.fixture
async def known(session: AsyncSession) -> str:
    """The email address of a user."""
    user = await create_user(session, username="ada", email="ada@example.com", password=PASSWORD)
    await create_user(session, email="gone@example.com", password=PASSWORD, is_active=False)
    return user.email


usernames = (f"newcomer{number}" for number in count())


async def log_in(client: httpx.AsyncClient, email: str) -> httpx.Response:
    return await client.post("/auth/login", data={"username": email, "password": "wrong"})


async def request_reset(client: httpx.AsyncClient, email: str) -> httpx.Response:
    return await client.post("/auth/password/forgot", json={"email": email})


async def resend(client: httpx.AsyncClient, email: str) -> httpx.Response:
    return await client.post("/auth/email/verify/resend", json={"email": email})


async def register(client: httpx.AsyncClient, email: str) -> httpx.Response:
    account = {
        "email": email,
        "username": next(usernames),
        "name": "New Comer",
        "password": PASSWORD,
    }
    return await client.post("/users", json=account)


REQUESTS: dict[str, tuple[Send, int]] = {
    "login": (log_in, 401),
    "registration": (register, 202),
    "forgotten password": (request_reset, 202),
    "verification": (resend, 202),
}
"""Requests by an anonymous client with an email, and the status of the response."""


@pytest.mark.parametrize("request_name", REQUESTS)
async def test_known_and_unknown_email_get_equal_responses(
    by_email: httpx.AsyncClient, known: str, request_name: str
) -> None:
    send, status = REQUESTS[request_name]
    names = (
        known,
        known.upper(),
        "gone@example.com",
        *(f"nobody{n}@example.com" for n in range(2)),
    )
    answers = [answer(await send(by_email, name)) for name in names]
    assert {each.status for each in answers} == {status}
    assert all(each == answers[0] for each in answers)


async def test_invalid_link_reveals_nothing(by_email: httpx.AsyncClient, known: str) -> None:
    places = {"/auth/email/verify": {}, "/auth/password/reset": {"password": PASSWORD}}
    answers = [
        answer(await by_email.post(path, json={"token": token, **rest}))
        for path, rest in places.items()
        for token in ("x" * 43, "short", known.replace("@", "_"))
    ]
    assert {each.status for each in answers} == {400}
    assert all(each == answers[0] for each in answers)


@pytest.fixture
def work(connection: AsyncConnection, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The statements of requests, and the cost of each password hash."""
    done: list[str] = []
    hash_password = bcrypt.hashpw

    def hash_and_record(password: bytes, salt: bytes) -> bytes:
        done.append(f"bcrypt {salt[:7].decode()}")
        return hash_password(password, salt)

    def note(connection: object, cursor: object, statement: str, *rest: Any) -> None:
        done.append(statement.rstrip("0123456789"))  # a savepoint has a number

    monkeypatch.setattr(bcrypt, "hashpw", hash_and_record)
    event.listen(connection.sync_connection, "before_cursor_execute", note)
    yield done
    event.remove(connection.sync_connection, "before_cursor_execute", note)


@pytest.mark.parametrize("request_name", REQUESTS)
async def test_answers_take_the_same_work(
    by_email: httpx.AsyncClient, known: str, work: list[str], request_name: str
) -> None:
    send, _ = REQUESTS[request_name]
    await send(by_email, "first@example.com")  # computes the dummy hash
    done = []
    for name in (known, "nobody@example.com", "gone@example.com"):
        work.clear()
        await send(by_email, name)
        done.append(work.copy())
    assert done[0] == done[1] == done[2]
    hashes = [each for each in done[0] if each.startswith("bcrypt")]
    assert len(hashes) == (request_name in {"login", "registration"})


async def test_public_lists_show_no_email(client_at: ClientAt, known: str) -> None:
    async with client_at() as client:
        for path in ("/users", "/users?limit=100"):
            assert known not in (await client.get(path)).text
