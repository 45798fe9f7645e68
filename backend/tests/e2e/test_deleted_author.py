"""Promise: whoever is deleted while they write gets 401, and leaves nothing behind."""

import threading

import httpx
import pytest

from tests.processes import Api

pytestmark = pytest.mark.e2e


def test_a_post_of_a_user_who_is_just_deleted_is_401(api: Api) -> None:
    statuses: list[int] = []
    article = {"title": "Last words", "content": "Written while leaving."}
    for number in range(5):
        headers = api.bearer(f"leaver{number}")
        user_id = api.client.get("/users/me", headers=headers).json()["id"]
        ready = threading.Barrier(2)

        def post(headers: dict[str, str] = headers, ready: threading.Barrier = ready) -> None:
            ready.wait()
            for _ in range(10):
                answer = httpx.post(f"{api.url}/articles", json=article, headers=headers)
                statuses.append(answer.status_code)

        writer = threading.Thread(target=post)
        writer.start()
        ready.wait()
        assert api.client.delete(f"/users/{user_id}", headers=headers).status_code == 204
        writer.join()
    assert set(statuses) <= {201, 401}
    assert 401 in statuses
