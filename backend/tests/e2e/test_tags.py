"""Tags can be renamed and merged while articles are tagged, without deadlocks."""

import asyncio
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import asyncpg
import httpx
import pytest

from app.content.slugs import tag_key
from app.core.config import get_settings
from app.db.session import Database
from app.services.articles import tags
from tests.databases import driver_url, execute, migrated_database
from tests.postgres import fetch, holding, wait_until_blocked
from tests.processes import Api, Checkout, serving

pytestmark = pytest.mark.e2e

ARTICLE = {"title": "An engine", "content": "Long enough to be one.", "published": True}


@pytest.fixture(scope="module")
def tags_database() -> Iterator[str]:
    with migrated_database() as url:
        yield url


@pytest.fixture(scope="module")
def tags_api(checkout: Checkout, tags_database: str) -> Iterator[Api]:
    with serving(checkout, DATABASE_URL=tags_database) as api:
        yield api


@pytest.fixture
def editor(tags_api: Api, tags_database: str) -> dict[str, str]:
    headers = tags_api.bearer("editor")
    execute(tags_database, "UPDATE users SET role = 'editor' WHERE username = 'editor'")
    return headers


def write(api: Api, headers: dict[str, str], *tags: str) -> int:
    response = api.client.post("/articles", json={**ARTICLE, "tags": tags}, headers=headers)
    assert response.status_code == 201, response.text
    number: int = response.json()["id"]
    return number


def rename(api: Api, headers: dict[str, str], slug: str, name: str) -> httpx.Response:
    return api.client.put(f"/tags/{slug}", json={"name": name}, headers=headers)


def read(api: Api, article_id: int) -> tuple[list[str], int]:
    article = api.client.get(f"/articles/{article_id}").json()
    return article["tags"], article["version"]


def test_concurrent_tagging_and_merging_succeeds(
    tags_api: Api, tags_database: str, editor: dict[str, str]
) -> None:
    """Merges in both directions, renames and new tags concurrently affect the same articles."""
    words = ["alpha", "beta", "gamma", "delta"]
    articles = [write(tags_api, editor, *words) for _ in range(12)]

    def tag(seed: int) -> Sequence[int]:
        random_source, statuses = random.Random(seed), []
        for _ in range(10):
            body = {"tags": random_source.sample(words, 3)}
            url = f"/articles/{random_source.choice(articles)}"
            statuses.append(tags_api.client.patch(url, json=body, headers=editor).status_code)
        return statuses

    def merge(pair: tuple[str, str]) -> Sequence[int]:
        return [rename(tags_api, editor, *pair).status_code for _ in range(8)]

    pairs = [("alpha", "Beta"), ("beta", "Alpha"), ("gamma", "Delta"), ("delta", "Epsilon")]
    with ThreadPoolExecutor(10) as threads:
        taggers = [threads.submit(tag, seed) for seed in range(5)]
        editors = [threads.submit(merge, pair) for pair in pairs]
        tagged = [status for tagger in taggers for status in tagger.result()]
        merged = [status for each in editors for status in each.result()]

    assert set(tagged) == {200}, tags_api.process.log
    assert set(merged) <= {200, 404}, tags_api.process.log
    assert merged.count(200) > 4
    for article_id in articles:  # the article and the tags agree
        query = """SELECT tags.slug FROM article_tags JOIN tags ON tags.id = tag_id
            WHERE article_id = $1 ORDER BY tags.slug"""
        slugs = [row["slug"] for row in fetch(tags_database, query, article_id)]
        assert [name.lower() for name in read(tags_api, article_id)[0]] == slugs


def test_tag_change_waits_for_article_writes(
    tags_api: Api, tags_database: str, editor: dict[str, str]
) -> None:
    article_id = write(tags_api, editor, "Slow one")
    change = f"UPDATE articles SET version = version + 1 WHERE id = {article_id}"
    with ThreadPoolExecutor(1) as threads:
        with holding(tags_database, change, end="COMMIT"):
            renaming = threads.submit(rename, tags_api, editor, "slow-one", "Quick one")
            wait_until_blocked(tags_database)
        assert renaming.result().status_code == 200
    assert read(tags_api, article_id) == (["Quick one"], 3)


def test_opposite_locks_do_not_deadlock(
    tags_api: Api, tags_database: str, editor: dict[str, str]
) -> None:
    """The author's transaction has locked the tag and waits for an article of the editor's.

    A deadlock could abort the author's transaction.
    """
    tagged, other = write(tags_api, editor, "Wanted"), write(tags_api, editor)

    async def author() -> None:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(driver_url(tags_database))
        try:
            async with connection.transaction():
                await connection.execute(
                    "INSERT INTO article_tags (article_id, tag_id)"
                    " SELECT $1, id FROM tags WHERE slug = 'wanted'",
                    other,
                )
                renaming = asyncio.create_task(
                    asyncio.to_thread(rename, tags_api, editor, "wanted", "Found")
                )
                await asyncio.to_thread(wait_until_blocked, tags_database)
                change = "UPDATE articles SET version = version + 1 WHERE id = $1"
                await connection.execute("SET LOCAL deadlock_timeout = '500ms'")
                await connection.execute(change, tagged, timeout=5)
            assert (await renaming).status_code == 200
        finally:
            await connection.close()

    asyncio.run(author())
    assert read(tags_api, tagged) == (["Found"], 3)
    assert read(tags_api, other) == (["Found"], 2)


def test_concurrently_tagged_article_is_included(
    tags_api: Api, tags_database: str, editor: dict[str, str]
) -> None:
    write(tags_api, editor, "Late")
    other = write(tags_api, editor)
    insert = f"""INSERT INTO article_tags (article_id, tag_id)
        SELECT {other}, id FROM tags WHERE slug = 'late'"""
    with ThreadPoolExecutor(1) as threads:
        with holding(tags_database, insert, end="COMMIT"):
            renaming = threads.submit(rename, tags_api, editor, "late", "In time")
            wait_until_blocked(tags_database)
        assert renaming.result().status_code == 200
    assert read(tags_api, other) == (["In time"], 2)


@pytest.mark.parametrize(("end", "merged"), [("COMMIT", True), ("ROLLBACK", False)])
def test_concurrent_renames_to_one_name(
    tags_api: Api, tags_database: str, editor: dict[str, str], end: str, *, merged: bool
) -> None:
    old, new = f"Before {end}", f"After {end}"
    article_id = write(tags_api, editor, old)
    slugs = [name.lower().replace(" ", "-") for name in (old, new)]
    insert = f"INSERT INTO tags (name, slug) VALUES ('{new}', '{slugs[1]}')"
    with ThreadPoolExecutor(1) as threads:
        with holding(tags_database, insert, end=end):
            renaming = threads.submit(rename, tags_api, editor, slugs[0], new)
            wait_until_blocked(tags_database)
        response = renaming.result()
    assert response.status_code == 200
    assert ("X-Merged-Into" in response.headers) is merged
    assert read(tags_api, article_id) == ([new], 2)


def test_change_feed_contains_every_article(
    tags_api: Api, tags_database: str, editor: dict[str, str]
) -> None:
    articles = {write(tags_api, editor, "Fed") for _ in range(3)}
    latest = fetch(tags_database, "SELECT max(seq) AS seq FROM changes")[0]["seq"]
    assert rename(tags_api, editor, "fed", "Well fed").status_code == 200
    query = "SELECT article_id, kind FROM changes WHERE seq > $1"
    rows = fetch(tags_database, query, latest)
    assert {row["article_id"] for row in rows} == articles
    assert {row["kind"] for row in rows} == {"updated"}


def test_concurrent_new_tags_merges_and_housekeeping_succeed(
    tags_api: Api, tags_database: str, editor: dict[str, str]
) -> None:
    """Ten users create the same tags in different orders, some in published articles."""
    names = ["C", "C++", "C#", "北京", "背景", "Été", "ete", "#new", "New 2", "🙂", "Straße", "a b"]
    writers, rounds = 10, 3
    database = Database.from_settings(
        get_settings().model_copy(update={"database_url": tags_database})
    )

    def work(seed: int) -> Sequence[int]:
        random_source, statuses = random.Random(seed), []
        for number in range(rounds):
            chosen = [name.upper() if random_source.random() < 0.5 else name for name in names]
            random_source.shuffle(chosen)
            body = {**ARTICLE, "tags": chosen[:8], "published": number % 2 == 0}
            response = tags_api.client.post("/articles", json=body, headers=editor)
            statuses.append(response.status_code)
            url = f"/articles/{response.json().get('id')}"
            change = {"tags": chosen[4:], "published": True}
            response = tags_api.client.patch(url, json=change, headers=editor)
            statuses.append(response.status_code)
        return statuses

    async def housekeeping(writing: Sequence[Future[Sequence[int]]]) -> None:
        while not all(each.done() for each in writing):
            await tags.clean_up(database)
        await tags.clean_up(database)
        await database.dispose()

    def merge() -> Sequence[int]:
        pairs = [("ete", "Été"), ("a-b", "New 2"), ("new-2", "a b")] * 2
        return [rename(tags_api, editor, *pair).status_code for pair in pairs]

    with ThreadPoolExecutor(writers + 1) as threads:
        writing = [threads.submit(work, seed) for seed in range(writers)]
        merging = threads.submit(merge)
        asyncio.run(housekeeping(writing))
        statuses = [status for each in writing for status in each.result()]
        assert set(merging.result()) <= {200, 404}, tags_api.process.log

    assert set(statuses) == {200, 201}, tags_api.process.log
    rows = fetch(tags_database, "SELECT name, key, slug, is_listed FROM tags")
    assert {row["key"] for row in rows} >= {"c", "c++", "c#", "北京", "背景", "strasse"}
    assert all(row["key"] == tag_key(row["name"]) for row in rows)
    wrong = """SELECT slug FROM tags WHERE is_listed <> EXISTS (
        SELECT FROM article_tags WHERE tag_id = tags.id AND listed_at <= now())"""
    assert not fetch(tags_database, wrong)
