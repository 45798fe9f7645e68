"""Password guessing is slowed down for attackers and not for other users."""

from collections.abc import Callable, Iterable, Iterator
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
from tests.security.conftest import ClientAt, Install, Timeline, new_address

pytestmark = pytest.mark.usefixtures("timeline")  # no lockout ends while the machine is busy

MIN_FREE_MISTAKES = 5
"""Minimum number of mistakes that cause no lockout."""
MAX_PER_ACCOUNT, MAX_FROM_KNOWN_NETWORK, MAX_PER_ADDRESS = 15, 25, 35
"""Maximum numbers of consecutive guesses before the first lockout."""
FEW = 2
"""A low limit, for tests of what is counted together."""


async def guess(
    client: httpx.AsyncClient, name: str = "ada", password: str = "wrong", **headers: str
) -> httpx.Response:
    form = {"username": name, "password": password}
    return await client.post("/auth/login", data=form, headers=headers)


def retry_after(response: httpx.Response) -> int:
    """Return the Retry-After seconds of a refused guess."""
    assert response.status_code == 429
    assert response.json()["code"] == "too_many_attempts"
    return int(response.headers["Retry-After"])


async def guess_until_lockout(
    client: httpx.AsyncClient,
    names: Iterable[str] = repeat("ada"),
    *,
    least: int = MIN_FREE_MISTAKES,
    most: int = MAX_PER_ACCOUNT,
) -> int:
    """Guess with the names until the first lockout; return the number of guesses."""
    for number, name in enumerate(islice(names, most + 1)):
        response = await guess(client, name)
        if response.status_code == 429:
            assert number >= least
            return number
        assert response.status_code == 401
    raise AssertionError(f"{most + 1} guesses were compared")


async def guess_between_lockouts(
    client: httpx.AsyncClient, timeline: Timeline, *, names: Iterator[str], minutes: int
) -> tuple[int, list[int]]:
    """Guess after each lockout; return the number of compared guesses and the lockouts."""
    compared, waits, end = 0, [], timeline.now + timedelta(minutes=minutes)
    while timeline.now < end:
        response = await guess(client, next(names))
        if response.status_code == 429:
            waits.append(retry_after(response))
            timeline.advance(waits[-1])
        else:
            compared += 1
            assert compared < 100, "guesses cost no time"
    return compared, waits


@pytest.fixture
def few_per_name(install: Install) -> None:
    install(ATTEMPTS_PER_NAME=FEW)


@pytest.fixture
def few_per_address(install: Install) -> None:
    install(ATTEMPTS_PER_ADDRESS=FEW)


@pytest.fixture
async def user(session: AsyncSession) -> User:
    return await create_user(session, username="ada", email="ada@example.com")


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list of the passwords that are compared with a hash."""
    verify, compared = security.verify_password, list[str]()

    async def note(password: str, hashed: str | None) -> bool:
        compared.append(password)
        return await verify(password, hashed)

    monkeypatch.setattr(security, "verify_password", note)
    return compared


@pytest.mark.usefixtures("user")
class TestOneAccount:
    async def test_four_hours_allow_at_most_40_guesses(
        self, client: httpx.AsyncClient, timeline: Timeline
    ) -> None:
        compared, waits = await guess_between_lockouts(
            client, timeline, names=repeat("ada"), minutes=240
        )
        assert waits[:9] == [2**step for step in range(9)]
        assert waits == sorted(waits)
        assert waits[-1] == 15 * 60
        assert compared <= 40

    async def test_guesses_during_lockout_are_not_hashed_or_counted(
        self, client: httpx.AsyncClient, timeline: Timeline, hashed: list[str]
    ) -> None:
        compared = await guess_until_lockout(client)
        for _ in range(3):
            assert retry_after(await guess(client)) == 1
        assert (await guess(client, password=PASSWORD)).status_code == 429
        assert len(hashed) == compared
        timeline.advance(1)
        assert (await guess(client, password=PASSWORD)).status_code == 200

    @pytest.mark.usefixtures("few_per_name")
    async def test_guesses_from_many_addresses_share_the_limit(
        self, client_at: ClientAt, hashed: list[str]
    ) -> None:
        for _ in range(FEW + 4):
            async with client_at() as client:
                response = await guess(client)
        assert response.status_code == 429
        assert len(hashed) == FEW + 1

    @pytest.mark.usefixtures("few_per_name")
    async def test_success_resets_the_limit(self, client_at: ClientAt) -> None:
        for _ in range(3):
            async with client_at() as other_client:
                answers = [(await guess(other_client)).status_code for _ in range(FEW)]
                assert answers == [401] * FEW
                assert (await guess(other_client, password=PASSWORD)).status_code == 200
        async with client_at() as another:
            assert await guess_until_lockout(another, least=FEW) == FEW + 1

    @pytest.mark.usefixtures("few_per_name")
    async def test_failures_decay_within_one_day(
        self, client: httpx.AsyncClient, timeline: Timeline
    ) -> None:
        compared = await guess_until_lockout(client, least=FEW)
        timeline.advance(days=1, seconds=1)
        assert await guess_until_lockout(client, least=FEW) == compared

    async def test_attempts_per_name_is_a_setting(
        self, client: httpx.AsyncClient, timeline: Timeline, install: Install
    ) -> None:
        """After 150 minutes, as many failures as are free no longer count: of 5, one is left."""
        install(ATTEMPTS_PER_NAME=4)
        assert await guess_until_lockout(client, least=4) == 5
        timeline.advance(150 * 60)
        assert await guess_until_lockout(client, least=4) == 4

    @pytest.mark.usefixtures("few_per_name")
    async def test_other_accounts_are_not_affected(self, client: httpx.AsyncClient) -> None:
        await guess_until_lockout(client, least=FEW)
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


@pytest.mark.usefixtures("few_per_name")
@pytest.mark.parametrize("spelling", SPELLINGS)
async def test_spellings_of_a_name_share_a_limit(
    client_at: ClientAt, session: AsyncSession, spelling: str
) -> None:
    """Otherwise each spelling would allow additional guesses."""
    name, another = SPELLINGS[spelling]
    if "@" in name:
        await create_user(session, email=name)
    else:
        await create_user(session, username=name)
    async with client_at() as owner:
        is_same_user = (await guess(owner, another, PASSWORD)).status_code == 200
    async with client_at() as attacker:
        await guess_until_lockout(attacker, repeat(name), least=FEW)
        assert not is_same_user or retry_after(await guess(attacker, another))


@pytest.mark.usefixtures("user")
class TestKnownClients:
    @pytest.fixture
    async def known_address(self, client_at: ClientAt) -> str:
        """Log in from an address, then lock the account for unknown clients; return the address."""
        address = new_address()
        async with client_at(address) as client:
            assert (await guess(client, password=PASSWORD)).status_code == 200
        return address

    @staticmethod
    async def attack(client_at: ClientAt) -> None:
        async with client_at() as attacker:
            await guess_until_lockout(attacker, least=FEW)
            assert (await guess(attacker, password=PASSWORD)).status_code == 429

    @pytest.mark.usefixtures("few_per_name")
    async def test_user_can_log_in_from_known_address(
        self, client_at: ClientAt, known_address: str
    ) -> None:
        await self.attack(client_at)
        async with client_at(known_address) as client:
            assert (await guess(client)).status_code == 401
            assert (await guess(client, password=PASSWORD)).status_code == 200

    @pytest.mark.usefixtures("few_per_name")
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
    async def test_user_can_log_in_from_known_address_in_another_form(
        self, client_at: ClientAt, before: str, now: str
    ) -> None:
        async with client_at(before) as client:
            assert (await guess(client, password=PASSWORD)).status_code == 200
        await self.attack(client_at)
        async with client_at(now) as client:
            assert (await guess(client, password=PASSWORD)).status_code == 200

    @pytest.mark.usefixtures("few_per_name")
    @pytest.mark.parametrize("state", ["live", "refreshed", "ended"])
    async def test_user_can_log_in_with_own_cookie(self, client_at: ClientAt, state: str) -> None:
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

    @pytest.mark.usefixtures("few_per_name")
    async def test_cookie_of_another_user_or_guessed_cookie_does_not_help(
        self, client_at: ClientAt, session: AsyncSession
    ) -> None:
        """Neither cookie makes the attacker a known client."""
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

    async def test_guesses_from_a_known_network_are_limited(
        self, client_at: ClientAt, timeline: Timeline, known_address: str
    ) -> None:
        async with client_at(known_address) as neighbour:
            await guess_until_lockout(neighbour, most=MAX_FROM_KNOWN_NETWORK)
            compared, waits = await guess_between_lockouts(
                neighbour, timeline, names=repeat("ada"), minutes=5
            )
        assert waits == sorted(waits)
        assert waits[-1] == 60
        assert compared <= 12

    @pytest.mark.usefixtures("few_per_name")
    async def test_lockout_of_a_known_network_affects_only_that_network(
        self, client_at: ClientAt, known_address: str
    ) -> None:
        async with client_at(known_address) as neighbour:
            await guess_until_lockout(neighbour, least=2 * FEW)
        async with client_at() as elsewhere:
            assert (await guess(elsewhere, password=PASSWORD)).status_code == 200


def many_names() -> Iterator[str]:
    return (f"user-{number}" for number in count())


class TestOneAddress:
    async def test_one_password_cannot_be_tried_with_many_names(
        self, client: httpx.AsyncClient, timeline: Timeline, hashed: list[str]
    ) -> None:
        compared, waits = await guess_between_lockouts(
            client, timeline, names=many_names(), minutes=15
        )
        assert waits[:5] == [2**step for step in range(5)]
        assert compared == len(hashed) <= MAX_PER_ADDRESS + 25

    async def test_attempts_per_address_is_a_setting(
        self, client: httpx.AsyncClient, timeline: Timeline, install: Install
    ) -> None:
        install(ATTEMPTS_PER_ADDRESS=4)
        assert await guess_until_lockout(client, many_names(), least=4) == 5
        timeline.advance(30 * 60)
        assert await guess_until_lockout(client, many_names(), least=4) == 4

    @pytest.mark.usefixtures("few_per_address")
    async def test_own_logins_in_between_do_not_reset_the_limit(
        self, client_at: ClientAt, session: AsyncSession
    ) -> None:
        """Repeated registrations do not help either."""
        async with client_at() as client:
            compared = 0
            for name in islice(many_names(), FEW + 2):
                own = await create_user(session)
                await guess(client, own.username, PASSWORD)
                compared += (await guess(client, name)).status_code == 401
            assert compared == FEW + 1

    @pytest.mark.usefixtures("few_per_name", "few_per_address")
    async def test_refused_guesses_do_not_count_for_the_names(
        self, client_at: ClientAt, user: User
    ) -> None:
        """Otherwise one address could lock many accounts."""
        async with client_at() as attacker:
            await guess_until_lockout(attacker, many_names(), least=FEW)
            for _ in range(FEW + 2):
                assert retry_after(await guess(attacker))
        async with client_at() as elsewhere:
            assert (await guess(elsewhere, password=PASSWORD)).status_code == 200

    @pytest.mark.usefixtures("few_per_address")
    @pytest.mark.parametrize(
        "address",
        [
            lambda number: f"2001:db8:1:2:{number:x}::{number:x}",
            lambda number: ("203.0.113.9", "::ffff:203.0.113.9")[number % 2],
            lambda number: ("::ffff:203.0.113.10", "::ffff:cb00:710a")[number % 2],
        ],
        ids=["hosts of one IPv6 site", "IPv4 and its mapped form", "two spellings"],
    )
    async def test_addresses_of_one_network_share_a_limit(
        self, client_at: ClientAt, address: Callable[[int], str]
    ) -> None:
        compared = 0
        for number, name in enumerate(islice(many_names(), FEW + 2)):
            async with client_at(address(number)) as client:
                compared += (await guess(client, name)).status_code == 401
        assert compared == FEW + 1

    @pytest.mark.usefixtures("few_per_address")
    async def test_different_networks_have_separate_limits(self, client_at: ClientAt) -> None:
        async with client_at("2001:db8:1:3::1") as client:
            await guess_until_lockout(client, many_names(), least=FEW)
        for address in ("2001:db8:1:4::1", "203.0.113.11"):
            async with client_at(address) as client:
                assert (await guess(client, "user-0")).status_code == 401

    @pytest.mark.usefixtures("few_per_address")
    async def test_forwarded_address_is_ignored(self, client: httpx.AsyncClient) -> None:
        """The server decides which proxies to trust, and sets the client address."""
        compared = 0
        for name in islice(many_names(), FEW + 2):
            claims = dict.fromkeys(("X-Forwarded-For", "X-Real-IP", "Client-IP"), new_address())
            compared += (await guess(client, name, **claims)).status_code == 401
        assert compared == FEW + 1


@pytest.mark.usefixtures("few_per_name")
async def test_known_unknown_and_disabled_names_get_equal_responses(
    client_at: ClientAt, session: AsyncSession, user: User, timeline: Timeline
) -> None:
    await create_user(session, username="gone", is_active=False)
    names = {
        "ada": "wrong",
        "nobody": "wrong",
        "nobody@example.com": "wrong",
        "gone": PASSWORD,
    }
    responses: dict[str, list[Answer]] = {name: [] for name in names}
    for step in range(8):
        for name, password in names.items():
            async with client_at() as client:
                responses[name].append(answer(await guess(client, name, password)))
        timeline.advance(step % 3)
    first: list[Any] = responses["ada"]
    assert {status for status, *_ in first} == {401, 429}
    assert len({headers.get("retry-after") for _, _, headers in first}) > 2
    assert all(each == first for each in responses.values())
