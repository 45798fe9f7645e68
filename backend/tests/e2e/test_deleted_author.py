"""A user who is deleted during a request gets 401, and nothing is stored."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.postgres import fetch, holding, wait_until_blocked
from tests.processes import Api

pytestmark = pytest.mark.e2e


def test_post_of_a_concurrently_deleted_user_is_401(api: Api, api_database: str) -> None:
    headers = api.bearer("leaver")
    article = {"title": "Last words of a leaver", "content": "Written while leaving."}
    deletion = "DELETE FROM users WHERE username = 'leaver'"
    with ThreadPoolExecutor(1) as threads:
        with holding(api_database, deletion, end="COMMIT"):
            posted = threads.submit(api.client.post, "/articles", json=article, headers=headers)
            wait_until_blocked(
                api_database
            )  # the author was read, and the insert waits for the foreign key
        answer = posted.result()
    assert answer.status_code == 401
    assert answer.json()["code"] == "invalid_token"
    assert fetch(api_database, "SELECT 1 FROM articles WHERE title LIKE '%leaver'") == []
