"""Responses and response times do not reveal who has an account."""

import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.config import Registration, Settings
from app.db.session import Database
from app.main import create_app
from app.models import Attempt
from tests.factories import create_user
from tests.security.answers import answer
from tests.security.conftest import ClientAt, Install

SAMPLES = 200
TOLERANCE = 0.25
"""Maximum difference of medians on a busy machine. A skipped hash changes them by half."""
COST = 6
"""bcrypt cost at which a hash takes as long as the rest of a request, so its absence shows."""
PASSWORD = "a password that is hashed at this cost"

Ask = Callable[[httpx.AsyncClient, str], Awaitable[httpx.Response]]


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
async def known(session: AsyncSession, install: Install) -> str:
    """Create a user whose password hash has COST; return their email."""
    install(BCRYPT_COST=COST)
    user = await create_user(session, username="ada", email="ada@example.com", password=PASSWORD)
    await create_user(session, email="gone@example.com", password=PASSWORD, is_active=False)
    return user.email


def unknown_emails() -> Iterator[str]:
    return (f"nobody{number}@example.com" for number in count())


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


ASKED: dict[str, tuple[Ask, int]] = {
    "login": (log_in, 401),
    "registration": (register, 202),
    "forgotten password": (request_reset, 202),
    "verification": (resend, 202),
}
"""Requests by an anonymous client with an email, and the status of the response."""


@pytest.mark.parametrize("asked", ASKED)
async def test_known_and_unknown_email_get_equal_responses(
    by_email: httpx.AsyncClient, known: str, asked: str
) -> None:
    ask, status = ASKED[asked]
    names = (
        known,
        known.upper(),
        "gone@example.com",
        *(f"nobody{n}@example.com" for n in range(2)),
    )
    answers = [answer(await ask(by_email, name)) for name in names]
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


@pytest.mark.parametrize("asked", ASKED)
async def test_known_and_unknown_email_take_equally_long(
    by_email: httpx.AsyncClient, session: AsyncSession, known: str, asked: str
) -> None:
    """Requests alternate, so that other load affects both alike."""
    ask, _ = ASKED[asked]
    nobody = unknown_emails()
    await ask(by_email, next(nobody))  # computes the dummy hash once
    seconds: dict[str, list[float]] = {"known": [], "unknown": []}
    for _ in range(SAMPLES):
        for kind, name in (("known", known), ("unknown", next(nobody))):
            await session.execute(delete(Attempt))  # avoids the limits on guessing
            started = time.perf_counter()
            await ask(by_email, name)
            seconds[kind].append(time.perf_counter() - started)
    quartiles = {kind: statistics.quantiles(each, n=4) for kind, each in seconds.items()}
    for kind, each in quartiles.items():
        print(f"{asked}, {kind}: {' / '.join(f'{1000 * quartile:.2f}' for quartile in each)} ms")
    (low, median, high), (other_low, other_median, other_high) = quartiles.values()
    assert abs(median - other_median) < TOLERANCE * max(median, other_median)
    assert max(low, other_low) < min(high, other_high)


async def test_public_lists_show_no_email(client_at: ClientAt, known: str) -> None:
    async with client_at() as client:
        for path in ("/users", "/users?limit=100"):
            assert known not in (await client.get(path)).text
