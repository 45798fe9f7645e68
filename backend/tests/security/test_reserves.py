"""Edge cases of the limits on guessing."""

import httpx
import pyotp
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth import security
from app.core import clock
from app.core.errors import ServiceUnavailable
from app.models import User
from tests.accounts.test_users import REGISTRATION
from tests.factories import PASSWORD, bearer, create_user
from tests.security.conftest import ClientAt, Install, new_address

pytestmark = pytest.mark.usefixtures("timeline")  # no lockout ends during a test

NEW_KEY = {"name": "mine", "scopes": ["users:read"]}


@pytest.fixture
async def user(session: AsyncSession) -> User:
    return await create_user(session, username="ada")


async def log_in(
    client: httpx.AsyncClient, password: str = PASSWORD, **headers: str
) -> httpx.Response:
    form = {"username": "ada", "password": password}
    return await client.post("/auth/login", data=form, headers=headers)


@pytest.mark.parametrize(
    ("path", "field", "rest"),
    [
        ("/users/me/password", "current_password", {"new_password": "staple of a battery"}),
        ("/users/me/email", "password", {"email": "thief@example.com"}),
        ("/users/me/api-keys", "password", NEW_KEY),
        ("/auth/second-factor", "password", {}),
    ],
)
async def test_guesses_with_a_stolen_session_are_limited_per_session(
    client_at: ClientAt, user: User, path: str, field: str, rest: dict[str, object]
) -> None:
    statuses = []
    for number in range(7):
        async with client_at() as thief:
            body = {field: f"guess {number}", **rest}
            response = await thief.post(path, json=body, headers=bearer(user))
            statuses.append(response.status_code)
    assert statuses == [403] * 6 + [429]
    async with client_at() as owner:  # a new session has its own limit
        tokens = (await log_in(owner)).json()
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        response = await owner.post(path, json={field: PASSWORD, **rest}, headers=headers)
        assert response.is_success


async def test_stolen_access_token_cannot_create_api_key(
    client: httpx.AsyncClient, user: User
) -> None:
    """A key would outlive the session and a password reset."""
    for body, status in ((NEW_KEY, 422), (NEW_KEY | {"password": "wrong"}, 403)):
        response = await client.post("/users/me/api-keys", json=body, headers=bearer(user))
        assert response.status_code == status
    assert (await client.get("/users/me/api-keys", headers=bearer(user))).json() == []


async def test_guesses_with_an_old_cookie_share_a_limit(
    client_at: ClientAt, user: User, install: Install
) -> None:
    install(ATTEMPTS_PER_NAME=2)
    async with client_at() as owner:
        token = (await log_in(owner)).json()["refresh_token"]
        await owner.post("/auth/logout-all", headers=bearer(user))
    compared = 0
    for number in range(7):
        async with client_at() as thief:
            cookie = {"Cookie": f"refresh_token={token}"}
            compared += (await log_in(thief, f"guess {number}", **cookie)).status_code == 401
    assert compared == 2 * 2 + 1


async def test_503_response_does_not_count_as_a_guess(
    client_at: ClientAt, user: User, install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(ATTEMPTS_PER_NAME=2, ATTEMPTS_PER_ADDRESS=2)
    verify = security.verify_password

    async def overloaded(password: str, hashed: str | None) -> bool:
        raise ServiceUnavailable

    address = new_address()
    async with client_at(address) as client:
        monkeypatch.setattr(security, "verify_password", overloaded)
        assert {(await log_in(client)).status_code for _ in range(4)} == {503}
        monkeypatch.setattr(security, "verify_password", verify)
        assert (await log_in(client)).status_code == 200


async def test_guessed_codes_do_not_lock_the_owner_out(client_at: ClientAt, user: User) -> None:
    home, url = new_address(), "/auth/login/second-factor"
    async with client_at(home) as owner:
        tokens = (await log_in(owner)).json()
        headers = {"Authorization": f"Bearer {tokens['access_token']}"}
        body = {"password": PASSWORD}
        secret = (await owner.post("/auth/second-factor", json=body, headers=headers)).json()
        totp = pyotp.TOTP(secret["secret"])
        body = {"code": totp.at(clock.now())}
        confirmed = await owner.post("/auth/second-factor/confirm", json=body, headers=headers)
        recovery_code = confirmed.json()["recovery_codes"][0]
        challenge = (await log_in(owner)).json()["challenge"]
    statuses = []
    for _ in range(24):
        async with client_at() as thief:
            guess = {"challenge": challenge, "code": "aaaa-aaaa-aaaa-aaaa"}
            statuses.append((await thief.post(url, json=guess)).status_code)
    assert statuses == [401] * 21 + [429] * 3
    async with client_at(home) as owner:
        challenge = (await log_in(owner)).json()["challenge"]
        right = {"challenge": challenge, "code": recovery_code}
        assert (await owner.post(url, json=right)).status_code == 200


@pytest.mark.parametrize("path", ["/users", "/raw/users"])
async def test_registrations_from_one_address_are_limited(
    client: httpx.AsyncClient, install: Install, path: str
) -> None:
    """Each registration causes a hash and a mail."""
    install(ATTEMPTS_PER_ADDRESS=2)
    statuses = []
    for number in range(5):
        account = {"email": f"victim{number}@example.com", "username": f"user{number}"}
        statuses.append((await client.post(path, json=REGISTRATION | account)).status_code)
    assert statuses == [201] * 3 + [429] * 2


@pytest.mark.parametrize("origin", [{"Origin": "https://evil.example"}, {"Origin": "null"}])
async def test_other_site_cannot_guess_from_addresses_of_its_visitors(
    client: httpx.AsyncClient, user: User, origin: dict[str, str]
) -> None:
    for password in ("wrong", PASSWORD):
        response = await log_in(client, password, **origin)
        assert response.status_code == 403
        assert response.json()["code"] == "cross_site_request"
    assert (await log_in(client, Origin="http://testserver")).status_code == 200
