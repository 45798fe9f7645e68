"""Totals of large lists and tags are correct after each change, although they are cached."""

from collections.abc import Iterator
from typing import Any

import pytest

from app.services.articles import counting
from tests.databases import migrated_database
from tests.postgres import fetch
from tests.processes import Api, Checkout, serving

pytestmark = pytest.mark.e2e

FILL = f"""
    INSERT INTO articles (title, content, slug, author_id, published_at)
    SELECT 'Title', 'Long enough.', 'filled-' || number, 1, now() - interval '1 day'
    FROM generate_series(1, {counting.MIN_CACHED_COUNT}) AS number
    RETURNING 1
"""
TAG = """
    WITH tag AS (
        INSERT INTO tags (name, key, slug) VALUES ('filled', 'filled', 'filled') RETURNING id
    )
    INSERT INTO article_tags (article_id, tag_id) SELECT articles.id, tag.id FROM articles, tag
    RETURNING 1
"""


@pytest.fixture(scope="module")
def filled() -> Iterator[str]:
    with migrated_database() as url:
        yield url


@pytest.fixture(scope="module")
def large(checkout: Checkout, filled: str) -> Iterator[Api]:
    with serving(checkout, DATABASE_URL=filled) as api:
        api.register("writer")
        fetch(filled, FILL)
        fetch(filled, TAG)
        yield api


def test_total_is_correct_after_each_change(large: Api, filled: str) -> None:
    headers = large.bearer("writer")
    client = large.client

    def total(query: str = "") -> int:
        if query == "tags":
            most: int = client.get("/tags?sort=count&limit=1").json()[0]["article_count"]
            return most
        number: int = client.get(f"/api/articles?limit=1{query}").json()["articlesCount"]
        return number

    expected = {
        "": counting.MIN_CACHED_COUNT,
        "&author=writer": counting.MIN_CACHED_COUNT,
        "&tag=looms": 0,
        "tags": counting.MIN_CACHED_COUNT,
    }

    def check() -> None:
        for _ in range(2):
            for query, number in expected.items():
                assert total(query) == number, query

    check()
    for _ in range(5):
        assert total() == counting.MIN_CACHED_COUNT
    check()
    new: dict[str, Any] = {
        "title": "New", "content": "Long enough.", "tags": ["looms", "filled"], "published": True
    }  # fmt: skip
    article = client.post("/articles", json=new, headers=headers).json()["id"]
    expected = {query: number + 1 for query, number in expected.items()}
    check()
    for change, difference in (
        ({"published": False}, -1),
        ({"published": True}, 1),
        ({"archived": True}, -1),
        ({"archived": False}, 1),
    ):
        client.patch(f"/articles/{article}", json=change, headers=headers)
        expected = {query: number + difference for query, number in expected.items()}
        check()
    client.patch(f"/articles/{article}", json={"tags": []}, headers=headers)
    expected["&tag=looms"] -= 1
    expected["tags"] -= 1
    check()
    client.patch("/users/me", json={"username": "another"}, headers=headers)
    expected["&author=writer"] = 0
    check()
    client.delete(f"/articles/{article}", headers=headers)
    expected[""] -= 1
    check()
