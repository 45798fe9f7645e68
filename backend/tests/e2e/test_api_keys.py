"""Concurrent requests cannot exceed the maximum number of API keys."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from app.services.accounts.api_keys import MAX_API_KEYS
from tests.postgres import fetch, holding, wait_until_blocked
from tests.processes import PASSWORD, Api

pytestmark = pytest.mark.e2e

AT_ONCE = 4


def test_concurrent_requests_create_one_last_key(api: Api, api_database: str) -> None:
    headers = api.bearer("collector")
    new = {"name": "Key", "scopes": ["articles:read"], "password": PASSWORD}

    def create() -> int:
        return api.client.post("/users/me/api-keys", json=new, headers=headers).status_code

    assert [create() for _ in range(MAX_API_KEYS - 1)] == (MAX_API_KEYS - 1) * [201]
    with ThreadPoolExecutor(AT_ONCE) as threads:
        with holding(api_database, "LOCK api_keys IN SHARE MODE"):
            sent = [threads.submit(create) for _ in range(AT_ONCE)]
            wait_until_blocked(api_database, requests=AT_ONCE)
        statuses = sorted(each.result() for each in sent)

    assert statuses == [201] + (AT_ONCE - 1) * [409]
    query = "SELECT 1 FROM api_keys JOIN users ON users.id = user_id WHERE username = 'collector'"
    assert len(fetch(api_database, query)) == MAX_API_KEYS
