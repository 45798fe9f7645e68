"""Concurrent requests for the same slug or tags succeed, and do not affect other articles."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from tests.postgres import fetch
from tests.processes import Api

pytestmark = pytest.mark.e2e

WRITERS = 20


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(WRITERS) as threads:
        yield threads


def test_concurrent_articles_with_one_title_succeed(
    gunicorn_api: Api, threads: ThreadPoolExecutor
) -> None:
    authors = [gunicorn_api.bearer(f"racer{number}") for number in range(4)]
    title = f"Same title {uuid4().hex[:8]}"

    def post(number: int) -> tuple[int, str]:
        names = [f"race {letter}" for letter in "abcdef"]
        body = {
            "title": title,
            "content": "Long enough.",
            "tags": names if number % 2 else names[::-1],
            "published": True,
        }
        response = gunicorn_api.client.post("/articles", json=body, headers=authors[number % 4])
        return response.status_code, response.json().get("slug", "")

    answers = list(threads.map(post, range(WRITERS)))
    assert {status for status, _ in answers} == {201}
    slugs = {slug for _, slug in answers}
    assert len(slugs) == WRITERS
    assert title.lower().replace(" ", "-") in slugs


def test_concurrent_publishing_with_hidden_slugs_succeeds(
    gunicorn_api: Api, api_database: str, threads: ThreadPoolExecutor
) -> None:
    authors = [gunicorn_api.bearer(f"racer{number}") for number in range(4)]
    title = f"Crowded {uuid4().hex[:8]}"
    slug = title.lower().replace(" ", "-")

    def post(number: int) -> tuple[int, str, int]:
        body: dict[str, Any] = {"title": title, "content": "Long enough."}
        if number % 3 == 1:
            body["published_at"] = "2999-01-01T00:00:00Z"
        elif number % 3 == 2:
            body["published"] = True
        response = gunicorn_api.client.post("/articles", json=body, headers=authors[number % 4])
        return response.status_code, response.json().get("status", ""), response.json().get("id", 0)

    def publish(article_id: int) -> int:
        url, change = f"/articles/{article_id}", {"published": True}
        statuses = [
            gunicorn_api.client.patch(url, json=change, headers=author).status_code
            for author in authors
        ]
        assert statuses.count(200) == 1
        return min(statuses)

    answers = list(threads.map(post, range(WRITERS)))
    assert {status for status, _, _ in answers} == {201}
    hidden = [number for _, status, number in answers if status != "published"]
    assert set(threads.map(publish, hidden)) == {200}
    query = f"SELECT slug, draft_slug FROM articles WHERE title = '{title}'"
    rows = fetch(api_database, query)
    assert {row["draft_slug"] for row in rows} == {None}
    assert len({row["slug"] for row in rows}) == WRITERS
    assert slug in {row["slug"] for row in rows}
    assert all(row["slug"].startswith(slug) for row in rows)


def test_one_concurrent_request_gets_the_slug(
    gunicorn_api: Api, api_database: str, threads: ThreadPoolExecutor
) -> None:
    author = gunicorn_api.bearer("racer")
    slug = f"wanted-{uuid4().hex[:8]}"

    def write(number: int) -> int:
        body = {"title": f"{slug} {number}", "content": "Long enough."}
        article: int = gunicorn_api.client.post("/articles", json=body, headers=author).json()["id"]
        return article

    def claim(article_id: int) -> int:
        url, change = f"/articles/{article_id}", {"slug": slug}
        return gunicorn_api.client.patch(url, json=change, headers=author).status_code

    written = list(threads.map(write, range(WRITERS)))
    assert sorted(threads.map(claim, written)) == [200] + (WRITERS - 1) * [409]
    assert len(fetch(api_database, f"SELECT id FROM articles WHERE slug = '{slug}'")) == 1


def test_concurrent_renames_get_different_slugs(
    gunicorn_api: Api, threads: ThreadPoolExecutor
) -> None:
    author, title = gunicorn_api.bearer("racer"), f"Renamed {uuid4().hex[:8]}"

    def write(number: int) -> int:
        body = {"title": f"{title} {number}", "content": "Long enough."}
        article: int = gunicorn_api.client.post("/articles", json=body, headers=author).json()["id"]
        return article

    def rename(article_id: int) -> tuple[int, str]:
        url, change = f"/articles/{article_id}", {"title": title, "slug": None}
        response = gunicorn_api.client.patch(url, json=change, headers=author)
        return response.status_code, response.json().get("slug", "")

    answers = list(threads.map(rename, list(threads.map(write, range(8)))))
    assert {status for status, _ in answers} == {200}
    assert len({slug for _, slug in answers}) == 8


def test_concurrent_changes_are_serialized(
    gunicorn_api: Api, api_database: str, threads: ThreadPoolExecutor
) -> None:
    author = gunicorn_api.bearer("racer")
    body = {"title": "Title 0", "content": "Long enough."}
    article = gunicorn_api.client.post("/articles", json=body, headers=author).json()
    url = f"/articles/{article['id']}"

    def change(number: int) -> int:
        changes = {"title": f"Title {number + 1}", "tags": [f"many {number}"]}
        return gunicorn_api.client.patch(url, json=changes, headers=author).status_code

    assert set(threads.map(change, range(WRITERS))) == {200}
    last = gunicorn_api.client.get(url, headers=author).json()
    assert last["version"] == WRITERS + 1
    assert last["tags"] == [f"many {int(last['title'].split()[1]) - 1}"]
    query = f"SELECT title FROM article_revisions WHERE article_id = {article['id']}"
    kept = {row["title"] for row in fetch(api_database, query)}
    assert kept == {f"Title {number}" for number in range(WRITERS + 1)} - {last["title"]}
