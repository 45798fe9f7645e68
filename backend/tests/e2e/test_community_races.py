"""Counts are correct after concurrent changes, and a block removes concurrent follows."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.databases import migrated_database
from tests.postgres import fetch
from tests.processes import GUNICORN, PASSWORD, Api, Checkout, serving

pytestmark = pytest.mark.e2e

READERS = 8
ROUNDS = 6
ARTICLE = {"title": "Counted", "content": "Long enough.", "published": True}
COUNTS = """
    SELECT counts.favorites, counts.comments,
      (SELECT count(*) FROM favorites WHERE article_id = counts.article_id) AS favorited,
      (SELECT count(*) FROM comments WHERE article_id = counts.article_id
        AND status = 'visible' AND deleted_at IS NULL) AS commented
    FROM article_counts AS counts
"""
REMAINING_ROWS = """
    SELECT 1 FROM follows JOIN blocks ON blocked_id = follower_id AND blocker_id = followed_id
"""
FOLLOWS = """
    SELECT counts.followers, counts.following,
      (SELECT count(*) FROM follows WHERE followed_id = counts.user_id) AS followed,
      (SELECT count(*) FROM follows WHERE follower_id = counts.user_id) AS follows
    FROM user_counts AS counts
"""


@pytest.fixture(scope="module")
def races_database() -> Iterator[str]:
    with migrated_database() as url:
        yield url


@pytest.fixture(scope="module")
def api(checkout: Checkout, races_database: str) -> Iterator[Api]:
    with serving(checkout, GUNICORN, DATABASE_URL=races_database) as api:
        yield api


def run_concurrently(tasks: list[Callable[[], int]]) -> list[int]:
    with ThreadPoolExecutor(READERS) as threads:
        return list(threads.map(lambda task: task(), tasks))


def test_counts_are_correct_after_concurrent_changes(api: Api, races_database: str) -> None:
    author = api.bearer("writer")
    articles = [
        api.client.post("/articles", json=ARTICLE, headers=author).json()["id"] for _ in range(2)
    ]
    readers = [api.bearer(f"reader{number}") for number in range(READERS)]

    def act(number: int, headers: dict[str, str]) -> Callable[[], int]:
        def run() -> int:
            article = articles[number % 2]
            highest = 0
            for step in range(ROUNDS):
                method = "DELETE" if (step + number) % 3 == 0 else "PUT"
                answers = [
                    api.client.request(method, f"/articles/{article}/favorite", headers=headers),
                    api.client.request(method, "/profiles/writer/follow", headers=headers),
                ]
                created = api.client.post(
                    f"/articles/{article}/comments", json={"content": "Yes."}, headers=headers
                )
                answers.append(created)
                if step % 2:
                    path = f"/comments/{created.json()['id']}"
                    answers.append(api.client.delete(path, headers=headers))
                highest = max(highest, *(answer.status_code for answer in answers))
            return highest

        return run

    statuses = run_concurrently([act(number, each) for number, each in enumerate(readers)])
    assert max(statuses) < 300
    for row in fetch(races_database, COUNTS):
        assert (row["favorites"], row["comments"]) == (row["favorited"], row["commented"])
        assert row["comments"] > 0
    for row in fetch(races_database, FOLLOWS):
        assert (row["followers"], row["following"]) == (row["followed"], row["follows"])

    # All accounts are deleted concurrently: their counts and comments are removed.
    def leave(headers: dict[str, str]) -> Callable[[], int]:
        def run() -> int:
            me = api.client.get("/users/me", headers=headers).json()["id"]
            body = {"password": PASSWORD}
            return api.client.request(
                "DELETE", f"/users/{me}", json=body, headers=headers
            ).status_code

        return run

    assert set(run_concurrently([leave(each) for each in readers])) == {204}
    assert {(row["favorites"], row["comments"]) for row in fetch(races_database, COUNTS)} == {
        (0, 0)
    }
    assert {(row["followers"], row["following"]) for row in fetch(races_database, FOLLOWS)} == {
        (0, 0)
    }


def test_concurrent_favorites_of_a_user_count_once(api: Api, races_database: str) -> None:
    author, reader = api.bearer("another"), api.bearer("keen")
    article = api.client.post("/articles", json=ARTICLE, headers=author).json()["id"]

    def favorite() -> int:
        url = f"/articles/{article}/favorite"
        return api.client.put(url, headers=reader).status_code

    assert run_concurrently([favorite] * 20) == [200] * 20
    counted = fetch(
        races_database, f"SELECT favorites FROM article_counts WHERE article_id = {article}"
    )
    assert counted[0]["favorites"] == 1


def test_block_removes_concurrent_follow(api: Api, races_database: str) -> None:
    blocker, follower = api.bearer("blocker"), api.bearer("follower")

    def follow() -> int:
        return api.client.put("/profiles/blocker/follow", headers=follower).status_code

    def block() -> int:
        return api.client.put("/profiles/follower/block", headers=blocker).status_code

    for _ in range(5):
        statuses = run_concurrently([follow, follow, follow, block, follow, follow])
        assert set(statuses) <= {200, 403}
        assert fetch(races_database, REMAINING_ROWS) == []
        api.client.delete("/profiles/follower/block", headers=blocker)
