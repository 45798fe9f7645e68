"""PASSWORD_MIN_LENGTH and PASSWORD_REFUSE_COMMON apply wherever a password is set."""

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.main import create_app
from tests.declared import document_of
from tests.factories import PASSWORD, bearer, create_user
from tests.security.conftest import Install

ACCOUNT = {"email": "ada@example.com", "username": "ada", "name": "Ada"}
TOO_SHORT, COMMON = "at least", "most common passwords"


async def refusal(client: httpx.AsyncClient, password: str) -> str:
    """Register with a password. Return why it is refused, or an empty string."""
    response = await client.post("/users", json={**ACCOUNT, "password": password})
    return "" if response.status_code == 201 else str(response.json()["detail"][0]["msg"])


@pytest.mark.parametrize(
    ("password", "changes", "reason"),
    [
        ("seven77", {}, f"{TOO_SHORT} 8 characters"),
        ("", {}, f"{TOO_SHORT} 8 characters"),
        ("password123", {}, COMMON),
        ("PassWord123", {}, COMMON),
        ("password123", {"PASSWORD_REFUSE_COMMON": "false"}, ""),
        ("password123", {"ENVIRONMENT": "development"}, ""),
        ("seven77", {"ENVIRONMENT": "development"}, f"{TOO_SHORT} 8 characters"),
        ("x", {"ENVIRONMENT": "development", "PASSWORD_MIN_LENGTH": "1"}, ""),
        ("", {"ENVIRONMENT": "development", "PASSWORD_MIN_LENGTH": "1"}, f"{TOO_SHORT} 1"),
        ("dragon", {"PASSWORD_MIN_LENGTH": "4"}, COMMON),
        ("eleven11111", {"PASSWORD_MIN_LENGTH": "12"}, f"{TOO_SHORT} 12 characters"),
        ("twelve 111 12", {"PASSWORD_MIN_LENGTH": "12"}, ""),
        ("e\u0301" * 4, {"PASSWORD_MIN_LENGTH": "5"}, f"{TOO_SHORT} 5 characters"),
    ],
)
async def test_registration_follows_the_settings(
    client: httpx.AsyncClient,
    install: Install,
    password: str,
    changes: dict[str, str],
    reason: str,
) -> None:
    install(**changes)
    found = await refusal(client, password)
    assert reason in found
    assert bool(found) is bool(reason)


async def test_every_new_password_follows_the_settings(
    client: httpx.AsyncClient, session: AsyncSession, install: Install
) -> None:
    user = await create_user(session)
    change = {"current_password": PASSWORD, "new_password": "password123"}
    account = {"email": ACCOUNT["email"], "username": "ada", "password": "password123"}
    statuses = []
    for refuse in ("true", "false"):
        install(PASSWORD_REFUSE_COMMON=refuse)
        changed = await client.post("/users/me/password", json=change, headers=bearer(user))
        registered = await client.post("/api/users", json={"user": account})
        statuses.append((changed.status_code, registered.status_code))
    assert statuses == [(422, 422), (204, 201)]


def test_openapi_publishes_the_minimum_length(install: Install) -> None:
    for minimum in (8, 12):
        settings = install(PASSWORD_MIN_LENGTH=minimum)
        document = document_of(create_app(settings), "/users", "/auth/login")
        schemas = document["components"]["schemas"]
        assert schemas["UserCreate"]["properties"]["password"]["minLength"] == minimum
        login = [each for each in schemas if "login" in each.lower()]
        assert login
        assert f"'minLength': {minimum}" not in str([schemas[each] for each in login])
