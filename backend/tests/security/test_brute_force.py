"""Guessing passwords: slowed down for whoever guesses, and for nobody else."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from itertools import count, islice, repeat
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import security
from app.models import User
from tests.factories import PASSWORD, create_user
from tests.security.answers import Answer, answer
from tests.security.conftest import ClientAt, Timeline, new_address

AS_FORGIVING = 5
"""A user's own slips that cost no wait, at least."""
ONE_ACCOUNT, WHERE_KNOWN, ONE_ADDRESS = 15, 25, 35
"""Guesses in a row that are compared before the first wait, at most."""


async def guess(
    client: httpx.AsyncClient, name: str = "ada", password: str = "wrong", **headers: str
) -> httpx.Response:
    form = {"username": name, "password": password}
    return await client.post("/auth/login", data=form, headers=headers)


def wait_of(response: httpx.Response) -> int:
    """The seconds that a refused guess is told to wait."""
    assert response.status_code == 429
    assert response.json()["code"] == "too_many_attempts"
    return int(response.headers["Retry-After"])


async def close_the_door(client: httpx.AsyncClient, *names: str, most: int = ONE_ACCOUNT) -> int:
    """Guess, by each name in turn, until the door closes; how many guesses that took."""
    for number in range(most + 1):
        response = await guess(client, (names or ("ada",))[number % max(len(names), 1)])
        if response.status_code == 429:
            assert number >= AS_FORGIVING
            return number
        assert response.status_code == 401
    raise AssertionError(f"{most + 1} guesses were compared")


async def keep_guessing(
    client: httpx.AsyncClient, timeline: Timeline, *, names: Iterator[str], minutes: int
) -> tuple[int, list[int]]:
    """Guess as soon as the door opens: how many guesses were compared, and what waits it took."""
    compared, waits, end = 0, [], timeline.now + timedelta(minutes=minutes)
    while timeline.now < end:
        response = await guess(client, next(names))
        if response.status_code == 429:
            waits.append(wait_of(response))
            timeline.advance(waits[-1])
        else:
            compared += 1
            assert compared < 100, "guesses cost no time"
    return compared, waits


@pytest.fixture
async def user(session: AsyncSession) -> User:
    return await create_user(session, username="ada", email="ada@example.com")


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The passwords that were compared with a hash."""
    verify, compared = security.verify_password, list[str]()

    async def note(password: str, hashed: str | None) -> bool:
        compared.append(password)
        return await verify(password, hashed)

    monkeypatch.setattr(security, "verify_password", note)
    return compared


@pytest.mark.usefixtures("user")
class TestOneAccount:
    async def test_four_hours_are_good_for_40_guesses(
        self, client: httpx.AsyncClient, timeline: Timeline
    ) -> None:
        compared, waits = await keep_guessing(client, timeline, names=repeat("ada"), minutes=240)
        assert waits[:9] == [2**step for step in range(9)]
        assert waits == sorted(waits)
        assert waits[-1] == 15 * 60
        assert compared <= 40

    async def test_guesses_meanwhile_are_not_hashed_and_change_nothing(
        self, client: httpx.AsyncClient, timeline: Timeline, hashed: list[str]
    ) -> None:
        compared = await close_the_door(client)
        for _ in range(20):
            assert wait_of(await guess(client)) == 1
        assert (await guess(client, password=PASSWORD)).status_code == 429
        assert len(hashed) == compared
        timeline.advance(1)
        assert (await guess(client, password=PASSWORD)).status_code == 200

    async def test_it_does_not_help_to_guess_from_many_addresses(
        self, client_at: ClientAt, timeline: Timeline, hashed: list[str]
    ) -> None:
        for _ in range(ONE_ACCOUNT + 5):
            async with client_at() as client:
                response = await guess(client)
        assert response.status_code == 429
        assert len(hashed) <= ONE_ACCOUNT

    async def test_a_success_starts_anew(self, client_at: ClientAt) -> None:
        for _ in range(ONE_ACCOUNT // AS_FORGIVING + 1):
            async with client_at() as stranger:
                answers = [(await guess(stranger)).status_code for _ in range(AS_FORGIVING)]
                assert answers == [401] * AS_FORGIVING
                assert (await guess(stranger, password=PASSWORD)).status_code == 200
        async with client_at() as another:
            await close_the_door(another)

    async def test_a_day_of_peace_starts_anew(
        self, client: httpx.AsyncClient, timeline: Timeline
    ) -> None:
        compared = await close_the_door(client)
        timeline.advance(days=1, seconds=1)
        assert await close_the_door(client) == compared

    async def test_another_account_is_not_concerned(self, client: httpx.AsyncClient) -> None:
        await close_the_door(client)
        assert (await guess(client, "grace")).status_code == 401


SPELLINGS = {
    "capitals": ("ada", "ADA"),
    "an email in capitals": ("ada@example.com", "Ada@Example.COM"),
    "letters of full width in a domain": ("ada@example.com", "ada@\uff45xample.com"),
    "a full stop of another script": ("ada@example.com", "ada@example\u3002com"),
    "a domain in punycode": ("ada@exämple.com", "ada@xn--exmple-cua.com"),
    "an accent of its own": ("adá@example.com", "ada\u0301@example.com"),
    "a capital I with a dot": ("alice", "al\u0130ce"),
    "a sign for kelvin": ("kate", "\u212aate"),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_however_a_name_is_spelt_it_is_one(
    client_at: ClientAt, session: AsyncSession, spelling: str
) -> None:
    """Or each spelling would be good for as many guesses again."""
    name, another = SPELLINGS[spelling]
    if "@" in name:
        await create_user(session, email=name)
    else:
        await create_user(session, username=name)
    async with client_at() as owner:
        is_the_same = (await guess(owner, another, PASSWORD)).status_code == 200
    async with client_at() as attacker:
        await close_the_door(attacker, name)
        assert not is_the_same or wait_of(await guess(attacker, another))


@pytest.mark.usefixtures("user")
class TestNobodyIsLockedOut:
    @pytest.fixture
    async def home(self, client_at: ClientAt) -> str:
        """An address that the user has logged in from, before an attacker closed the door."""
        address = new_address()
        async with client_at(address) as client:
            assert (await guess(client, password=PASSWORD)).status_code == 200
        return address

    @staticmethod
    async def attack(client_at: ClientAt) -> None:
        async with client_at() as attacker:
            await close_the_door(attacker)
            assert (await guess(attacker, password=PASSWORD)).status_code == 429

    async def test_at_an_address_of_theirs(self, client_at: ClientAt, home: str) -> None:
        await self.attack(client_at)
        async with client_at(home) as client:
            assert (await guess(client)).status_code == 401
            assert (await guess(client, password=PASSWORD)).status_code == 200

    @pytest.mark.parametrize(
        ("before", "now"),
        [
            ("203.0.113.20", "203.0.113.20"),
            ("203.0.113.21", "::ffff:203.0.113.21"),
            ("::ffff:203.0.113.22", "203.0.113.22"),
            ("::ffff:203.0.113.23", "::ffff:203.0.113.23"),
            ("2001:db8:5:6::1", "2001:db8:5:6:7:8:9:a"),
            ("fe80::1%eth0", "fe80::1%eth0"),
        ],
    )
    async def test_at_an_address_that_is_theirs_in_another_form(
        self, client_at: ClientAt, before: str, now: str
    ) -> None:
        async with client_at(before) as client:
            assert (await guess(client, password=PASSWORD)).status_code == 200
        await self.attack(client_at)
        async with client_at(now) as client:
            assert (await guess(client, password=PASSWORD)).status_code == 200

    @pytest.mark.parametrize("state", ["live", "refreshed", "ended"])
    async def test_with_a_cookie_of_theirs(self, client_at: ClientAt, state: str) -> None:
        async with client_at() as client:
            login = await guess(client, password=PASSWORD)
            body = {"refresh_token": login.json()["refresh_token"]}
            if state == "refreshed":
                await client.post("/auth/refresh", json=body)
            elif state == "ended":
                await client.post("/auth/logout", json=body)
        await self.attack(client_at)
        async with client_at() as elsewhere:
            cookie = f"refresh_token={body['refresh_token']}"
            response = await guess(elsewhere, password=PASSWORD, Cookie=cookie)
            assert response.status_code == 200

    async def test_with_a_cookie_of_another_user_or_a_guess(
        self, client_at: ClientAt, session: AsyncSession
    ) -> None:
        """Neither makes an attacker known to the user."""
        await create_user(session, username="mallory")
        async with client_at() as client:
            theirs = (await guess(client, password=PASSWORD)).json()["refresh_token"]
            own = (await guess(client, "mallory", PASSWORD)).json()["refresh_token"]
        await self.attack(client_at)
        prefix, number, _ = theirs.split("_", 2)
        for token in (own, f"{prefix}_{number}_{own.split('_', 2)[2]}", f"{prefix}_{number}_", ""):
            async with client_at() as attacker:
                cookie = f"refresh_token={token}"
                response = await guess(attacker, password=PASSWORD, Cookie=cookie)
                assert response.status_code == 429

    async def test_a_neighbour_cannot_guess_for_ever(
        self, client_at: ClientAt, timeline: Timeline, home: str
    ) -> None:
        async with client_at(home) as neighbour:
            await close_the_door(neighbour, most=WHERE_KNOWN)
            compared, waits = await keep_guessing(
                neighbour, timeline, names=repeat("ada"), minutes=15
            )
        assert waits == sorted(waits)
        assert waits[-1] == 60
        assert compared <= 25

    async def test_a_neighbour_closes_that_door_alone(self, client_at: ClientAt, home: str) -> None:
        async with client_at(home) as neighbour:
            await close_the_door(neighbour, most=WHERE_KNOWN)
        async with client_at() as elsewhere:
            assert (await guess(elsewhere, password=PASSWORD)).status_code == 200


def many_names() -> Iterator[str]:
    return (f"user-{number}" for number in count())


class TestOneAddress:
    async def test_it_cannot_try_one_password_with_every_name(
        self, client: httpx.AsyncClient, timeline: Timeline, hashed: list[str]
    ) -> None:
        compared, waits = await keep_guessing(client, timeline, names=many_names(), minutes=15)
        assert waits[:5] == [2**step for step in range(5)]
        assert compared == len(hashed) <= ONE_ADDRESS + 25

    async def test_logging_in_oneself_in_between_does_not_help(
        self, client_at: ClientAt, session: AsyncSession, timeline: Timeline
    ) -> None:
        """Nor to register for that, over and over: each account is new at this address."""
        async with client_at() as client:
            compared = 0
            for name in islice(many_names(), ONE_ADDRESS + 1):
                own = await create_user(session)
                await guess(client, own.username, PASSWORD)
                compared += (await guess(client, name)).status_code == 401
            assert compared <= ONE_ADDRESS

    async def test_refused_guesses_are_not_counted_against_the_names(
        self, client_at: ClientAt, user: User
    ) -> None:
        """Or one address could close all doors at once."""
        async with client_at() as sprayer:
            await close_the_door(sprayer, *islice(many_names(), 100), most=ONE_ADDRESS)
            for _ in range(ONE_ACCOUNT):
                assert wait_of(await guess(sprayer))
        async with client_at() as elsewhere:
            assert (await guess(elsewhere, password=PASSWORD)).status_code == 200

    @pytest.mark.parametrize(
        "address",
        [
            lambda number: f"2001:db8:1:2:{number:x}::{number:x}",
            lambda number: ("203.0.113.9", "::ffff:203.0.113.9")[number % 2],
            lambda number: ("::ffff:203.0.113.10", "::ffff:cb00:710a")[number % 2],
        ],
        ids=["hosts of one IPv6 site", "IPv4 and its mapped form", "two spellings"],
    )
    async def test_many_that_are_one(
        self, client_at: ClientAt, timeline: Timeline, address: Callable[[int], str]
    ) -> None:
        compared = 0
        for number, name in enumerate(islice(many_names(), ONE_ADDRESS + 1)):
            async with client_at(address(number)) as client:
                compared += (await guess(client, name)).status_code == 401
        assert compared <= ONE_ADDRESS

    async def test_two_that_are_two(self, client_at: ClientAt) -> None:
        async with client_at("2001:db8:1:3::1") as client:
            await close_the_door(client, *islice(many_names(), 100), most=ONE_ADDRESS)
        for address in ("2001:db8:1:4::1", "203.0.113.11"):
            async with client_at(address) as client:
                assert (await guess(client, "user-0")).status_code == 401

    async def test_a_forwarded_address_is_not_believed(self, client: httpx.AsyncClient) -> None:
        """Which proxy to believe is the server's business: it sets the client's address."""
        compared = 0
        for name in islice(many_names(), ONE_ADDRESS + 1):
            claims = dict.fromkeys(("X-Forwarded-For", "X-Real-IP", "Client-IP"), new_address())
            compared += (await guess(client, name, **claims)).status_code == 401
        assert compared <= ONE_ADDRESS


async def test_known_unknown_and_disabled_names_are_alike_at_each_step(
    client_at: ClientAt, session: AsyncSession, user: User, timeline: Timeline
) -> None:
    await create_user(session, username="gone", is_active=False)
    names = {
        "ada": "wrong",
        "nobody": "wrong",
        "nobody@example.com": "wrong",
        "gone": PASSWORD,
    }
    stories: dict[str, list[Answer]] = {name: [] for name in names}
    for step in range(ONE_ACCOUNT + 3):
        for name, password in names.items():
            async with client_at() as client:
                stories[name].append(answer(await guess(client, name, password)))
        timeline.advance(step % 3)
    first: list[Any] = stories["ada"]
    assert {status for status, *_ in first} == {401, 429}
    assert len({headers.get("retry-after") for _, _, headers in first}) > 2
    assert all(story == first for story in stories.values())
