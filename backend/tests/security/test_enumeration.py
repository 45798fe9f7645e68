"""Who has an account: no answer tells, and neither does the time that it takes."""

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
"""By how much medians may differ on a busy machine; a hash that is skipped makes half of it."""
COST = 6
"""Of bcrypt: a hash takes as long as all the rest of a request, and so shows where it lacks."""
PASSWORD = "a password that is hashed at this cost"

Ask = Callable[[httpx.AsyncClient, str], Awaitable[httpx.Response]]


@pytest.fixture(scope="module")
def by_email_app_without_database(settings: Settings) -> FastAPI:
    return create_app(settings.model_copy(update={"registration": Registration.BY_EMAIL}))


@pytest.fixture
async def by_email(
    by_email_app_without_database: FastAPI, database: Database
) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an installation in which registering takes a mail."""
    by_email_app_without_database.state.database = database
    transport = httpx.ASGITransport(by_email_app_without_database, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        yield client


@pytest.fixture
async def known(session: AsyncSession, install: Install) -> str:
    """The address of somebody who has an account, with a hash of the cost that we measure at."""
    install(BCRYPT_COST=COST)
    user = await create_user(session, username="ada", email="ada@example.com", password=PASSWORD)
    await create_user(session, email="gone@example.com", password=PASSWORD, is_active=False)
    return user.email


def strangers() -> Iterator[str]:
    return (f"nobody{number}@example.com" for number in count())


usernames = (f"newcomer{number}" for number in count())


async def log_in(client: httpx.AsyncClient, email: str) -> httpx.Response:
    return await client.post("/auth/login", data={"username": email, "password": "wrong"})


async def forget(client: httpx.AsyncClient, email: str) -> httpx.Response:
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
    "forgotten password": (forget, 202),
    "verification": (resend, 202),
}
"""What an anonymous client asks for by an email, and the status of the answer."""


@pytest.mark.parametrize("asked", ASKED)
async def test_answers_are_alike(by_email: httpx.AsyncClient, known: str, asked: str) -> None:
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


async def test_a_link_that_is_no_good_tells_nothing(
    by_email: httpx.AsyncClient, known: str
) -> None:
    places = {"/auth/email/verify": {}, "/auth/password/reset": {"password": PASSWORD}}
    answers = [
        answer(await by_email.post(path, json={"token": token, **rest}))
        for path, rest in places.items()
        for token in ("x" * 43, "short", known.replace("@", "_"))
    ]
    assert {each.status for each in answers} == {400}
    assert all(each == answers[0] for each in answers)


@pytest.mark.parametrize("asked", ASKED)
async def test_answers_take_as_long(
    by_email: httpx.AsyncClient, session: AsyncSession, known: str, asked: str
) -> None:
    """Turn by turn, so that whatever else the machine does hits both alike."""
    ask, _ = ASKED[asked]
    nobody = strangers()
    await ask(by_email, next(nobody))  # the hash that stands for unknown users is made once
    seconds: dict[str, list[float]] = {"known": [], "unknown": []}
    for _ in range(SAMPLES):
        for kind, name in (("known", known), ("unknown", next(nobody))):
            await session.execute(delete(Attempt))  # limits are another test's business
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
