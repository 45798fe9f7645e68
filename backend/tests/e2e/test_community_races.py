"""Promise: what is counted is right however many do it at once, and a block finds each follow."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.databases import migrated_database
from tests.postgres import fetch
from tests.processes import GUNICORN, PASSWORD, Api, Checkout, serving

pytestmark = pytest.mark.e2e

READERS = 8
ROUNDS = 12
ARTICLE = {"title": "Counted", "content": "Long enough.", "published": True}
COUNTS = """
    SELECT counts.favorites, counts.comments,
      (SELECT count(*) FROM favorites WHERE article_id = counts.article_id) AS favorited,
      (SELECT count(*) FROM comments WHERE article_id = counts.article_id
        AND status = 'visible' AND deleted_at IS NULL) AS commented
    FROM article_counts AS counts
"""
OUTLIVED = """
    SELECT 1 FROM follows JOIN blocks ON blocked_id = follower_id AND blocker_id = followed_id
"""
FOLLOWS = """
    SELECT counts.followers, counts.following,
      (SELECT count(*) FROM follows WHERE followed_id = counts.user_id) AS followed,
      (SELECT count(*) FROM follows WHERE follower_id = counts.user_id) AS follows
    FROM user_counts AS counts
"""


@pytest.fixture(scope="module")
def crowded_database() -> Iterator[str]:
    with migrated_database() as url:
        yield url


@pytest.fixture(scope="module")
def crowd(checkout: Checkout, crowded_database: str) -> Iterator[Api]:
    with serving(checkout, GUNICORN, DATABASE_URL=crowded_database) as api:
        yield api


def at_once(tasks: list[Callable[[], int]]) -> list[int]:
    with ThreadPoolExecutor(READERS) as threads:
        return list(threads.map(lambda task: task(), tasks))


def test_counts_are_correct_after_concurrent_changes(crowd: Api, crowded_database: str) -> None:
    author = crowd.bearer("writer")
    articles = [
        crowd.client.post("/articles", json=ARTICLE, headers=author).json()["id"] for _ in range(2)
    ]
    readers = [crowd.bearer(f"reader{number}") for number in range(READERS)]

    def act(number: int, headers: dict[str, str]) -> Callable[[], int]:
        def run() -> int:
            article = articles[number % 2]
            worst = 0
            for step in range(ROUNDS):
                method = "DELETE" if (step + number) % 3 == 0 else "PUT"
                answers = [
                    crowd.client.request(method, f"/articles/{article}/favorite", headers=headers),
                    crowd.client.request(method, "/profiles/writer/follow", headers=headers),
                ]
                said = crowd.client.post(
                    f"/articles/{article}/comments", json={"content": "Yes."}, headers=headers
                )
                answers.append(said)
                if step % 2:
                    path = f"/comments/{said.json()['id']}"
                    answers.append(crowd.client.delete(path, headers=headers))
                worst = max(worst, *(answer.status_code for answer in answers))
            return worst

        return run

    statuses = at_once([act(number, each) for number, each in enumerate(readers)])
    assert max(statuses) < 300
    for row in fetch(crowded_database, COUNTS):
        assert (row["favorites"], row["comments"]) == (row["favorited"], row["commented"])
        assert row["comments"] > 0
    for row in fetch(crowded_database, FOLLOWS):
        assert (row["followers"], row["following"]) == (row["followed"], row["follows"])

    # Everybody leaves at once; nobody is counted any more, and what they said is gone.
    def leave(headers: dict[str, str]) -> Callable[[], int]:
        def run() -> int:
            me = crowd.client.get("/users/me", headers=headers).json()["id"]
            body = {"password": PASSWORD}
            return crowd.client.request(
                "DELETE", f"/users/{me}", json=body, headers=headers
            ).status_code

        return run

    assert set(at_once([leave(each) for each in readers])) == {204}
    assert {(row["favorites"], row["comments"]) for row in fetch(crowded_database, COUNTS)} == {
        (0, 0)
    }
    assert {(row["followers"], row["following"]) for row in fetch(crowded_database, FOLLOWS)} == {
        (0, 0)
    }


def test_concurrent_favorites_of_a_user_count_once(crowd: Api, crowded_database: str) -> None:
    author, reader = crowd.bearer("another"), crowd.bearer("keen")
    article = crowd.client.post("/articles", json=ARTICLE, headers=author).json()["id"]

    def favorite() -> int:
        url = f"/articles/{article}/favorite"
        return crowd.client.put(url, headers=reader).status_code

    assert at_once([favorite] * 20) == [200] * 20
    counted = fetch(
        crowded_database, f"SELECT favorites FROM article_counts WHERE article_id = {article}"
    )
    assert counted[0]["favorites"] == 1


def test_block_removes_concurrent_follow(crowd: Api, crowded_database: str) -> None:
    blocker, follower = crowd.bearer("blocker"), crowd.bearer("follower")

    def follow() -> int:
        return crowd.client.put("/profiles/blocker/follow", headers=follower).status_code

    def block() -> int:
        return crowd.client.put("/profiles/follower/block", headers=blocker).status_code

    for _ in range(10):
        statuses = at_once([follow, follow, follow, block, follow, follow])
        assert set(statuses) <= {200, 403}
        assert fetch(crowded_database, OUTLIVED) == []
        crowd.client.delete("/profiles/follower/block", headers=blocker)
