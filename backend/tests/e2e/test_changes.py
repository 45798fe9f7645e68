"""Scheduled articles become visible on time and are announced once by any number of processes.
Clients of the change feed miss no change, even after a crash."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from tests.databases import driver_url, execute
from tests.postgres import fetch, server
from tests.processes import Api, Checkout, serving, wait_until

pytestmark = pytest.mark.e2e


@pytest.fixture
def replicas(checkout: Checkout, own_database: str) -> Iterator[list[Api]]:
    """Start three processes with one database. Each announces scheduled articles."""
    with ExitStack() as stack:
        yield [stack.enter_context(serving(checkout, DATABASE_URL=own_database)) for _ in range(3)]


def read_changes(api: Api, cursor: str) -> list[dict[str, Any]]:
    changes: list[dict[str, Any]] = api.client.get("/changes", params={"cursor": cursor}).json()[
        "changes"
    ]
    return changes


def test_scheduled_article_is_announced_once(replicas: list[Api], own_database: str) -> None:
    api, other, _ = replicas
    headers = api.bearer("planner")
    later = datetime.now(UTC) + timedelta(hours=1)
    article = {"title": "Later", "content": "Not yet, but soon.", "published_at": str(later)}
    posted = [api.client.post("/articles", json=article, headers=headers) for _ in range(3)]
    assert {answer.json()["status"] for answer in posted} == {"scheduled"}
    ids = {answer.json()["id"] for answer in posted}
    moment = datetime.now(UTC) + timedelta(seconds=1)
    execute(own_database, f"UPDATE articles SET published_at = '{moment}'")

    def visible() -> bool:
        changes = read_changes(
            other, ""
        )  # read first: the feed must not contain invisible articles
        is_there = other.client.get(f"/articles/{max(ids)}").status_code == 200
        assert is_there or changes == []
        return is_there

    wait_until(visible, "the articles are visible")
    assert moment <= datetime.now(UTC)
    wait_until(lambda: len(read_changes(other, "")) == 3, "the articles are announced")
    changes = read_changes(api, "")
    assert [each["kind"] for each in changes] == ["created"] * 3
    assert {each["article_id"] for each in changes} == ids
    # The jobs of all processes run again.
    ended = datetime.now(UTC) + timedelta(seconds=2)
    wait_until(lambda: datetime.now(UTC) > ended, "two seconds have passed")
    assert read_changes(api, "") == changes
    assert fetch(own_database, "SELECT id FROM articles WHERE awaits_publication") == []


@pytest.mark.checkout
def test_no_change_is_missed_after_a_crash(checkout: Checkout) -> None:
    with server() as postgres, serving(checkout, DATABASE_URL=postgres.url) as api:
        headers = api.bearer("writer")
        article = {"title": "News", "content": "Something happened.", "published": True}
        api.client.post("/articles", json=article, headers=headers)
        page = api.client.get("/changes").json()
        assert len(page["changes"]) == 1
        author = fetch(postgres.url, "SELECT id FROM users")[0]["id"]
        with asyncio.Runner() as runner:
            # It has its entry and the lock, but is not committed.
            lost: asyncpg.Connection[Any] = runner.run(asyncpg.connect(driver_url(postgres.url)))
            runner.run(
                lost.execute(
                    "BEGIN; INSERT INTO articles (title, content, published_at, author_id)"
                    f" VALUES ('Lost', 'In the crash.', now(), {author});"
                    "SET CONSTRAINTS ALL IMMEDIATE"
                )
            )
            execute(postgres.url, "CHECKPOINT")  # the test server writes slowly
            postgres.stop("immediate")
            postgres.start()
            with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                runner.run(lost.close(timeout=2))

        def post() -> bool:
            answer = api.client.post("/articles", json=article, headers=headers)
            assert answer.status_code in {201, 503}, answer.text
            return answer.status_code == 201

        wait_until(post, "an article is posted after the crash", log=api.process.log)
        wait_until(lambda: api.client.get("/changes").is_success, "reads go on as well")
        after = read_changes(api, page["next"])
        assert [each["kind"] for each in after] == ["created"]
        assert after[0]["article_id"] > page["changes"][0]["article_id"]
        assert read_changes(api, "") == page["changes"] + after
