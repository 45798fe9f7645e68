"""A code works once for concurrent requests, and a second factor is enabled once. Requests that
wait for the check of a code hold no connection that the check needs."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pyotp
import pytest

from tests.postgres import fetch, holding, wait_until_blocked
from tests.processes import PASSWORD, Api, Checkout, serving

pytestmark = pytest.mark.e2e

BASE = "/auth/second-factor"
AT_ONCE = 4


def code(secret: str, steps: int = 0) -> str:
    return pyotp.TOTP(secret).at(time.time(), counter_offset=steps)


def begin(api: Api, username: str) -> tuple[dict[str, str], str]:
    """Start the setup of a second factor. Return the user's headers and the secret."""
    headers = api.bearer(username)
    response = api.client.post(BASE, json={"password": PASSWORD}, headers=headers)
    assert response.status_code == 201, response.text
    return headers, response.json()["secret"]


def enable(api: Api, username: str) -> tuple[dict[str, str], str, list[str]]:
    """Enable a second factor with the previous code. Return also the recovery codes."""
    headers, secret = begin(api, username)
    form = {"code": code(secret, -1)}
    response = api.client.post(f"{BASE}/confirm", json=form, headers=headers)
    assert response.status_code == 200, response.text
    return headers, secret, response.json()["recovery_codes"]


def run_concurrently(
    api: Api, api_database: str, request: Callable[[], httpx.Response]
) -> list[int]:
    """Run requests that all start before the first one can write. Return the statuses."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        with holding(api_database, "LOCK second_factors, recovery_codes IN SHARE MODE"):
            sent = [threads.submit(request) for _ in range(AT_ONCE)]
            wait_until_blocked(api_database, requests=AT_ONCE)
        return sorted(each.result().status_code for each in sent)


@pytest.mark.parametrize("kind", ["authenticator", "recovery"])
def test_code_works_once_for_concurrent_logins(api: Api, api_database: str, kind: str) -> None:
    _, secret, recovery_codes = enable(api, kind)
    challenge = api.log_in(kind).json()["challenge"]
    text = code(secret) if kind == "authenticator" else recovery_codes[0]
    form = {"challenge": challenge, "code": text}

    statuses = run_concurrently(
        api, api_database, lambda: api.client.post("/auth/login/second-factor", json=form)
    )

    assert statuses == [200] + (AT_ONCE - 1) * [401]
    events = "SELECT 1 FROM audit_events JOIN users ON users.id = actor_id AND username = $1"
    logins = fetch(api_database, f"{events} WHERE action = 'LOGIN'", kind)
    assert len(logins) == 2  # the earlier login and this one


def test_second_factor_is_enabled_once(api: Api, api_database: str) -> None:
    headers, secret = begin(api, "eager")
    form = {"code": code(secret)}

    statuses = run_concurrently(
        api, api_database, lambda: api.client.post(f"{BASE}/confirm", json=form, headers=headers)
    )

    assert statuses == [200] + (AT_ONCE - 1) * [409]
    query = "SELECT 1 FROM recovery_codes JOIN users ON id = user_id WHERE username = 'eager'"
    assert len(fetch(api_database, query)) == 10


def test_password_change_ends_the_challenge(api: Api, api_database: str) -> None:
    _, secret, _ = enable(api, "hurried")
    form = {"challenge": api.log_in("hurried").json()["challenge"], "code": code(secret)}
    change = "UPDATE users SET hashed_password = 'changed' WHERE username = 'hurried'"
    with ThreadPoolExecutor(1) as threads:
        with holding(api_database, change, end="COMMIT"):
            sent = threads.submit(api.client.post, "/auth/login/second-factor", json=form)
            wait_until_blocked(api_database)
        assert sent.result().json()["code"] == "invalid_challenge"


def test_code_check_needs_one_connection(checkout: Checkout, api_database: str) -> None:
    with serving(
        checkout, DATABASE_URL=api_database, DATABASE_POOL_SIZE="1", DATABASE_POOL_TIMEOUT="0.5"
    ) as api:
        headers, secret, recovery_codes = enable(api, "frugal")
        challenge = api.log_in("frugal").json()["challenge"]
        for text, status in (("abcd", 401), (code(secret), 200)):
            form = {"challenge": challenge, "code": text}
            response = api.client.post("/auth/login/second-factor", json=form)
            assert response.status_code == status, response.text
        for path, text, status in (
            ("recovery-codes", "abcd", 403),
            ("recovery-codes", recovery_codes[0], 200),
            ("disable", code(secret, 1), 204),
        ):
            form = {"password": PASSWORD, "code": text}
            response = api.client.post(f"{BASE}/{path}", json=form, headers=headers)
            assert response.status_code == status, response.text
