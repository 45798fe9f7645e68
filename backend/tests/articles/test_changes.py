"""The change feed: its entries, and that clients miss none of them.

Entries are written on commit, so these tests commit in a database of their own.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import cycle
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from app.core import clock
from app.core.config import Settings
from app.core.enums import Role
from app.db.session import Database
from app.jobs.housekeeping import delete_expired
from app.main import create_app
from app.models import User
from app.schemas.articles.change import MAX_CHANGES
from app.services.articles.changes import announce_due, begin_generation
from app.services.pages.cursors import encode_cursor
from tests.databases import driver_url, migrated_database, run
from tests.factories import PASSWORD, article_of, author_of, bearer, create_article
from tests.processes import DEADLINE

LOCK = 1717921124
BODY = "Long enough for an article."

Connect = Callable[[], Awaitable["asyncpg.Connection[Any]"]]


@pytest.fixture(scope="module")
def committing_url() -> Iterator[str]:
    with migrated_database() as url:
        yield url


@pytest.fixture(scope="module")
async def committing(settings: Settings, committing_url: str) -> AsyncIterator[FastAPI]:
    """An application whose requests commit."""
    changes = {"database_url": committing_url, "database_pool_size": 10}
    own = settings.model_copy(update=changes)
    app = create_app(own)
    app.state.database = Database.from_settings(own)
    yield app
    await app.state.database.dispose()


@pytest.fixture
def database(committing: FastAPI) -> Database:
    database: Database = committing.state.database
    return database


@pytest.fixture
async def client(committing: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(committing, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        yield client


@pytest.fixture
async def connect(committing_url: str) -> AsyncIterator[Connect]:
    """Return a function that opens connections to the same database."""
    url, opened = driver_url(committing_url), []

    async def connect() -> "asyncpg.Connection[Any]":
        connection: asyncpg.Connection[Any] = await asyncpg.connect(url)
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        with suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
            await connection.close(timeout=5)


class Follower:
    """A client that polls the change feed."""

    def __init__(self, client: httpx.AsyncClient, cursor: str) -> None:
        self.client = client
        self.cursor = cursor
        self.requests = 0

    async def new_changes(self, limit: int = 100) -> list[dict[str, Any]]:
        """Read all new entries, page by page."""
        found: list[dict[str, Any]] = []
        while True:
            query: dict[str, str | int] = {"cursor": self.cursor, "limit": limit}
            response = await self.client.get("/changes", params=query)
            self.requests += 1
            assert response.status_code == 200, response.text
            page = response.json()
            self.cursor = page["next"]
            if not page["changes"]:
                return found
            assert page["next"] == page["changes"][-1]["cursor"]
            found += page["changes"]

    async def new_entries(self) -> list[tuple[str, int, str]]:
        return [
            (each["kind"], each["article_id"], each["slug"]) for each in await self.new_changes()
        ]

    async def kinds(self) -> list[str]:
        return [each["kind"] for each in await self.new_changes()]


@pytest.fixture
async def follower(client: httpx.AsyncClient) -> Follower:
    """A client that has read all earlier entries."""
    start = (await client.get("/changes", params={"cursor": "latest"})).json()
    assert start["changes"] == []
    return Follower(client, start["next"])


class TestEntries:
    async def test_lifecycle_of_an_article(
        self, client: httpx.AsyncClient, database: Database, follower: Follower
    ) -> None:
        headers = bearer(await author_of(database))
        new = {"title": "A life", "content": BODY}
        article = (await client.post("/articles", json=new, headers=headers)).json()
        url = f"/articles/{article['id']}"

        async def change(**fields: object) -> list[tuple[str, int, str]]:
            response = await client.patch(url, json=fields, headers=headers)
            assert response.status_code == 200, response.text
            return await follower.new_entries()

        this = article["id"], article["slug"]
        assert await change(title="A draft's title") == []
        assert await change(published=True) == [("created", *this)]
        assert await change(content="Other words than before.") == [("updated", *this)]
        assert await change(tags=["Engines"]) == [("updated", *this)]
        assert await change(published=False) == [("unpublished", *this)]
        assert await change(content="Nobody sees these words.") == []
        assert await change(published=True) == [("created", *this)]
        assert await change(archived=True) == [("unpublished", *this)]
        assert await change(archived=False) == [("created", *this)]
        assert await change(slug="another-life") == [("updated", article["id"], "another-life")]
        # An unpublished article is reported with its last public slug.
        hidden = await change(published=False, slug="a-secret")
        assert hidden == [("unpublished", article["id"], "another-life")]
        assert await change(published=True, slug="another-life") != []
        assert (await client.delete(url, headers=headers)).status_code == 204
        assert await follower.new_entries() == [("deleted", article["id"], "another-life")]

    async def test_publishing_on_creation_is_one_entry(
        self, client: httpx.AsyncClient, database: Database, follower: Follower
    ) -> None:
        headers = bearer(await author_of(database))
        new = {"title": "At once", "content": BODY, "published": True, "tags": ["a", "b"]}
        before = datetime.now(UTC)
        article = (await client.post("/articles", json=new, headers=headers)).json()
        (entry,) = await follower.new_changes()
        assert set(entry) == {"cursor", "kind", "article_id", "slug", "occurred_at"}
        assert (entry["kind"], entry["article_id"], entry["slug"]) == (
            "created",
            article["id"],
            article["slug"],
        )
        moment = datetime.fromisoformat(entry["occurred_at"])
        assert before <= moment <= datetime.now(UTC)

    async def test_changes_in_one_transaction_are_merged(
        self, database: Database, follower: Follower
    ) -> None:
        author = await author_of(database)
        async with database.unit_of_work() as session:
            article = await create_article(session, author=author, published=False)
            article.published_at = clock.now()
            await session.flush()
            article.title = "A third statement"
        assert await follower.kinds() == ["created"]
        async with database.unit_of_work() as session:
            for title in ("One", "Two", "Three"):
                await session.execute(
                    text("UPDATE articles SET title = :title WHERE id = :id"),
                    {"title": title, "id": article.id},
                )
        assert await follower.kinds() == ["updated"]

    @pytest.mark.parametrize("state", [{"published": False}, {"archived_at": datetime.now(UTC)}])
    async def test_hidden_articles_have_no_entries(
        self, client: httpx.AsyncClient, database: Database, follower: Follower, state: Any
    ) -> None:
        author = await author_of(database)
        article = await article_of(database, author, **state)
        url, headers = f"/articles/{article.id}", bearer(author)
        changed = await client.patch(url, json={"title": "Other"}, headers=headers)
        assert changed.status_code == 200
        assert (await client.delete(url, headers=headers)).status_code == 204
        assert await follower.new_entries() == []

    async def test_deleting_an_unpublished_article_adds_no_entry(
        self, client: httpx.AsyncClient, database: Database, follower: Follower
    ) -> None:
        author = await author_of(database)
        article = await article_of(database, author)
        url, headers = f"/articles/{article.id}", bearer(author)
        await client.patch(url, json={"published": False}, headers=headers)
        await client.delete(url, headers=headers)
        assert await follower.kinds() == ["created", "unpublished"]

    async def test_restored_article_is_created_again(
        self, client: httpx.AsyncClient, database: Database, follower: Follower
    ) -> None:
        author = await author_of(database)
        article = await article_of(database, author)
        await client.delete(f"/articles/{article.id}", headers=bearer(author))
        await run(database, "UPDATE articles SET deleted_at = NULL WHERE id = :id", id=article.id)
        assert await follower.kinds() == ["created", "deleted", "created"]
        await run(database, "UPDATE articles SET deleted_at = now() WHERE id = :id", id=article.id)
        await run(database, "DELETE FROM articles WHERE id = :id", id=article.id)
        assert await follower.kinds() == ["deleted"]

    async def test_renamed_author_updates_all_articles(
        self, client: httpx.AsyncClient, database: Database, follower: Follower
    ) -> None:
        author = await author_of(database)
        others = await article_of(database, await author_of(database))
        visible = [await article_of(database, author) for _ in range(3)]
        for hidden in (
            {"published": False},
            {"published_at": clock.now() + timedelta(days=1)},
            {"archived_at": clock.now()},
            {"deleted_at": clock.now()},
        ):
            await article_of(database, author, **hidden)
        assert {each for _, each, _ in await follower.new_entries()} == {
            others.id,
            *(article.id for article in visible),
        }
        for changes in ({"name": "Another Name"}, {"username": f"{author.username}-2"}):
            await client.patch("/users/me", json=changes, headers=bearer(author))
            assert await follower.new_entries() == [
                ("updated", article.id, article.slug) for article in visible
            ]
        await client.patch("/users/me", json={"name": "Another Name"}, headers=bearer(author))
        await run(database, "UPDATE users SET is_active = false WHERE id = :id", id=author.id)
        assert await follower.new_entries() == []

    async def test_deleting_the_author_deletes_articles(
        self, client: httpx.AsyncClient, database: Database, follower: Follower
    ) -> None:
        author = await author_of(database)
        visible = [await article_of(database, author) for _ in range(2)]
        await article_of(database, author, published=False)
        await follower.new_changes()
        response = await client.request(
            "DELETE", f"/users/{author.id}", json={"password": PASSWORD}, headers=bearer(author)
        )
        assert response.status_code == 204
        assert sorted(await follower.new_entries()) == [
            ("deleted", article.id, article.slug) for article in visible
        ]

    async def test_writes_of_previous_release_are_recorded(
        self, database: Database, follower: Follower
    ) -> None:
        author = await author_of(database)
        await run(
            database,
            "INSERT INTO articles (title, content, published, author_id)"
            " VALUES ('Old', 'By the old release.', true, :author)",
            author=author.id,
        )
        ((_, article_id, slug),) = await follower.new_entries()
        assert slug == f"article-{article_id}"
        for change, kind in (
            ("title = 'Older'", "updated"),
            ("published = false", "unpublished"),
            ("published = true", "created"),
        ):
            await run(database, f"UPDATE articles SET {change} WHERE id = :id", id=article_id)
            assert await follower.new_entries() == [(kind, article_id, slug)]
        await run(database, "DELETE FROM articles WHERE id = :id", id=article_id)
        assert await follower.new_entries() == [("deleted", article_id, slug)]

    async def test_invisible_changes_have_no_entries(
        self, database: Database, follower: Follower
    ) -> None:
        author, editor = await author_of(database), await author_of(database, role=Role.EDITOR)
        article = await article_of(database, author, edited_by=editor.id)
        await follower.new_changes()
        for change in ("rendered_with = 99", "plain_text = 'x'", "awaits_publication = true"):
            await run(database, f"UPDATE articles SET {change} WHERE id = :id", id=article.id)
        await run(database, "DELETE FROM users WHERE id = :id", id=editor.id)  # sets edited_by
        assert await follower.new_entries() == []

    async def test_transaction_id_from_before_a_restore(
        self, database: Database, follower: Follower
    ) -> None:
        """After a restore into a new cluster, entries contain future transaction ids."""
        article = await article_of(database, await author_of(database))
        await follower.new_changes()
        async with database.unit_of_work() as session:
            this = "pg_current_xact_id()::text::bigint"
            await session.execute(text(f"UPDATE changes SET transaction_id = {this}"))
            await session.execute(
                text("UPDATE articles SET title = 'New' WHERE id = :id"), {"id": article.id}
            )
        assert await follower.kinds() == ["updated"]


class TestScheduled:
    async def test_scheduled_article_is_announced_once_due(
        self, client: httpx.AsyncClient, database: Database, follower: Follower
    ) -> None:
        author = await author_of(database)
        moment = datetime.now(UTC) + timedelta(seconds=0.4)
        article = await article_of(database, author, published_at=moment)
        other = await article_of(database, author, published_at=moment + timedelta(hours=1))
        await announce_due(database)
        assert await follower.new_entries() == []
        before = (await client.get(f"/articles/{other.id}", headers=bearer(author))).json()

        async def visible() -> bool:
            return (await client.get(f"/articles/{article.id}")).status_code == 200

        await until(visible)
        assert datetime.now(UTC) >= moment
        expected = (await client.get(f"/articles/{article.id}")).json()
        for _ in range(2):
            await asyncio.gather(*(announce_due(database) for _ in range(5)))
        assert await follower.new_entries() == [("created", article.id, article.slug)]
        # The article itself is unchanged: same version and `updated_at`.
        assert (await client.get(f"/articles/{article.id}")).json() == expected
        after = (await client.get(f"/articles/{other.id}", headers=bearer(author))).json()
        assert after == before

    async def test_due_by_both_clocks(
        self,
        database: Database,
        follower: Follower,
        connect: Connect,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Announced articles must be visible, whichever clock is behind."""
        moment, connection = datetime.now(UTC), await connect()
        article = await article_of(database, await author_of(database), published=False)
        await run(
            database,
            "UPDATE articles SET published_at = :moment WHERE id = :id",
            moment=moment + timedelta(hours=1),
            id=article.id,
        )
        with monkeypatch.context() as patch:
            patch.setattr(clock, "now", lambda: moment + timedelta(hours=2))
            row = "SELECT xmin FROM articles WHERE id = $1"
            before = await connection.fetchval(row, article.id)
            await announce_due(database)  # not due by the database's clock
            assert await connection.fetchval(row, article.id) == before
            assert await follower.new_entries() == []
            patch.setattr(clock, "now", lambda: moment)
            soon = "clock_timestamp() + interval '0.3 seconds'"
            await run(
                database, f"UPDATE articles SET published_at = {soon} WHERE id = :id", id=article.id
            )
            due = f"SELECT clock_timestamp() > published_at FROM articles WHERE id = {article.id}"
            await until(lambda: connection.fetchval(due))
            await announce_due(database)  # we say: not yet
            assert await follower.new_entries() == []
        await announce_due(database)
        assert await follower.kinds() == ["created"]

    async def test_all_due_articles_except_locked_ones(
        self, database: Database, follower: Follower, connect: Connect
    ) -> None:
        author = await author_of(database)
        await run(
            database,
            "INSERT INTO articles (title, content, published_at, author_id) SELECT 'One of many',"
            " 'Long enough for it.', clock_timestamp() + interval '1 s', :author"
            " FROM generate_series(1, 450)",
            author=author.id,
        )
        count = "SELECT count(*) FROM articles WHERE awaits_publication AND published_at < now()"
        connection, editor = await connect(), await connect()
        assert await follower.new_entries() == []

        async def due() -> bool:
            number: int = await connection.fetchval(count)
            return number == 450

        await until(due)
        await editor.execute("BEGIN")
        edited = await editor.fetchval(
            "UPDATE articles SET title = 'Edited'"
            " WHERE id = (SELECT max(id) FROM articles) RETURNING id"
        )
        await announce_due(database)
        assert Counter(kind for kind, _, _ in await follower.new_entries()) == {"created": 449}
        await editor.execute("COMMIT")
        assert [entry[:2] for entry in await follower.new_entries()] == [("created", edited)]
        await announce_due(database)
        assert await follower.new_entries() == []

    async def test_rescheduled_article_is_unpublished(
        self, client: httpx.AsyncClient, database: Database, follower: Follower
    ) -> None:
        author = await author_of(database)
        article = await article_of(database, author)
        later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        response = await client.patch(
            f"/articles/{article.id}", json={"published_at": later}, headers=bearer(author)
        )
        assert response.json()["status"] == "scheduled"
        assert await follower.kinds() == ["created", "unpublished"]


class TestPages:
    async def test_pages_cover_all_entries(
        self, client: httpx.AsyncClient, database: Database, follower: Follower
    ) -> None:
        author = await author_of(database)
        ids = [(await article_of(database, author)).id for _ in range(7)]
        start = follower.cursor
        for limit in (1, 2, 3, 7, 8):
            follower.cursor = start
            found = await follower.new_changes(limit=limit)
            assert [each["article_id"] for each in found] == ids
            assert len({each["cursor"] for each in found}) == 7
        everything = Follower(client, "")
        assert [each["article_id"] for each in await everything.new_changes(limit=MAX_CHANGES)][
            -7:
        ] == ids
        assert everything.cursor == follower.cursor

    async def test_link_header_has_first_and_next_page(
        self, client: httpx.AsyncClient, database: Database, follower: Follower
    ) -> None:
        author = await author_of(database)
        ids = [(await article_of(database, author)).id for _ in range(3)]
        query: dict[str, str | int] = {"cursor": follower.cursor, "limit": 2}
        response = await client.get("/changes", params=query)
        found = [each["article_id"] for each in response.json()["changes"]]
        response = await client.get(response.links["next"]["url"])
        found += [each["article_id"] for each in response.json()["changes"]]
        assert found == ids
        assert response.links["first"]["url"] == "/changes?limit=2"
        # Also without further entries: the client polls with it later.
        response = await client.get(response.links["next"]["url"])
        assert response.json()["changes"] == []
        address = httpx.URL(response.links["next"]["url"])
        assert address.params["cursor"] == response.json()["next"]

    async def test_continue_after_any_entry(self, database: Database, follower: Follower) -> None:
        author = await author_of(database)
        for _ in range(3):
            await article_of(database, author)
        first, second, third = await follower.new_changes()
        follower.cursor = first["cursor"]
        assert await follower.new_changes() == [second, third]

    @pytest.mark.parametrize("cursor", ["x", "latest ", "1", "%00", "ä", "A" * 40])
    async def test_forged_cursor_is_rejected(self, client: httpx.AsyncClient, cursor: str) -> None:
        response = await client.get("/changes", params={"cursor": cursor})
        assert response.status_code == 422
        assert response.json()["code"] == "invalid_cursor"

    async def test_modified_or_foreign_cursor_is_rejected(
        self, client: httpx.AsyncClient, follower: Follower
    ) -> None:
        ours = follower.cursor
        for cursor in (encode_cursor("articles", [1]), ours[:-4], ours.swapcase(), "AAAA" + ours):
            response = await client.get("/changes", params={"cursor": cursor})
            assert response.status_code == 422
            assert response.json()["code"] == "invalid_cursor"

    async def test_cursor_from_before_a_restore_is_rejected(
        self, client: httpx.AsyncClient, database: Database, follower: Follower
    ) -> None:
        """Also from before the first one, and from between two restores of the same backup."""
        author = await author_of(database)
        for _ in range(2):
            before = follower.cursor
            await begin_generation(database)
            response = await client.get("/changes", params={"cursor": before})
            assert (response.status_code, response.json()["code"]) == (422, "invalid_cursor")
            follower.cursor = (await client.get("/changes?cursor=latest")).json()["next"]
            article = await article_of(database, author)
            assert [each["article_id"] for each in await follower.new_changes()] == [article.id]

    async def test_cursor_of_an_earlier_release_is_known(
        self, client: httpx.AsyncClient, database: Database, follower: Follower
    ) -> None:
        async with database.autocommit() as connection:
            await connection.execute(text("UPDATE installation SET generation = NULL"))
        follower.cursor = encode_cursor("changes", [0])
        article = await article_of(database, await author_of(database))
        assert [each["article_id"] for each in await follower.new_changes()][-1:] == [article.id]

    @pytest.mark.parametrize("query", ["limit=0", f"limit={MAX_CHANGES + 1}", "limit=x", "skip=1"])
    async def test_invalid_page_is_rejected(self, client: httpx.AsyncClient, query: str) -> None:
        response = await client.get(f"/changes?{query}")
        assert response.status_code == 422
        assert response.json()["detail"][0]["loc"] == ["query", query.split("=", maxsplit=1)[0]]

    async def test_unchanged_feed_returns_304(
        self, client: httpx.AsyncClient, follower: Follower
    ) -> None:
        response = await client.get("/changes", params={"cursor": follower.cursor})
        tag = response.headers["ETag"]
        again = await client.get(
            "/changes", params={"cursor": follower.cursor}, headers={"If-None-Match": tag}
        )
        assert again.status_code == 304


async def test_superseded_entries_are_purged(
    client: httpx.AsyncClient, database: Database, follower: Follower
) -> None:
    author = await author_of(database)
    edited, deleted, quiet = [await article_of(database, author) for _ in range(3)]
    for title in ("Second", "Third"):
        await run(database, "UPDATE articles SET title = :t WHERE id = :id", t=title, id=edited.id)
    await run(database, "DELETE FROM articles WHERE id = :id", id=deleted.id)
    start = follower.cursor
    entries = await follower.new_changes()
    assert len(entries) == 6

    async def left() -> list[tuple[int, str]]:
        follower.cursor = start
        return [(each["article_id"], each["kind"]) for each in await follower.new_changes()]

    await delete_expired(database)
    assert len(await left()) == 6  # none of them is old
    last = [
        (quiet.id, "created"),
        (edited.id, "updated"),
        (deleted.id, "deleted"),
    ]
    # All except the last of each article; one entry of `edited` is too recent.
    await run(
        database,
        "UPDATE changes SET occurred_at = now() - interval '31 days' WHERE article_id = ANY(:ids)"
        " AND seq <> (SELECT max(seq) FROM changes WHERE article_id = :edited)",
        ids=[edited.id, deleted.id, quiet.id],
        edited=edited.id,
    )
    await delete_expired(database)
    assert await left() == last
    await run(database, "UPDATE changes SET occurred_at = now() - interval '10 years'")
    await delete_expired(database)
    assert await left() == last
    # A client whose last entry was purged continues after it.
    follower.cursor = entries[1]["cursor"]
    assert [each["article_id"] for each in await follower.new_changes()] == [
        each for each, _ in last
    ]


class TestOrder:
    """Concurrent transactions, as of several processes."""

    async def publish(self, connection: "asyncpg.Connection[Any]", author: User) -> int:
        article_id: int = await connection.fetchval(
            "INSERT INTO articles (title, content, published_at, author_id)"
            " VALUES ('Title', 'Long enough.', now(), $1) RETURNING id",
            author.id,
        )
        return article_id

    async def test_order_follows_commits(
        self, database: Database, follower: Follower, connect: Connect
    ) -> None:
        author = await author_of(database)
        early, late = await connect(), await connect()
        await early.execute("BEGIN")
        first = await self.publish(early, author)
        second = await self.publish(late, author)
        assert [each[1] for each in await follower.new_entries()] == [second]
        await early.execute("COMMIT")
        assert [each[1] for each in await follower.new_entries()] == [first]

    async def test_early_trigger_blocks_other_writers(
        self, database: Database, follower: Follower, connect: Connect
    ) -> None:
        author = await author_of(database)
        early, late = await connect(), await connect()
        await early.execute("BEGIN")
        first = await self.publish(early, author)
        await early.execute("SET CONSTRAINTS ALL IMMEDIATE")
        waiting = asyncio.create_task(self.publish(late, author))
        await blocked(await connect())
        assert await follower.new_entries() == []
        third = await self.publish(early, author)
        await early.execute("COMMIT")
        second = await waiting
        assert [each[1] for each in await follower.new_entries()] == [first, third, second]

    async def test_rollback_to_savepoint_leaves_no_entry(
        self, database: Database, follower: Follower, connect: Connect
    ) -> None:
        author = await author_of(database)
        early, late = await connect(), await connect()
        await early.execute("BEGIN; SAVEPOINT s; SET CONSTRAINTS ALL IMMEDIATE")
        await self.publish(early, author)  # writes the entry and takes the lock
        await early.execute("ROLLBACK TO s")
        second = await self.publish(late, author)  # the rollback has released it
        assert [each[1] for each in await follower.new_entries()] == [second]
        await early.execute("SAVEPOINT t; SET CONSTRAINTS ALL IMMEDIATE")
        third = await self.publish(early, author)
        await early.execute("RELEASE t")
        waiting = asyncio.create_task(self.publish(late, author))
        await blocked(await connect())
        await early.execute("COMMIT")
        fourth = await waiting
        assert [each[1] for each in await follower.new_entries()] == [third, fourth]

    async def test_crash_between_write_and_commit(
        self, database: Database, follower: Follower, connect: Connect
    ) -> None:
        author = await author_of(database)
        early, late, killer = await connect(), await connect(), await connect()
        await early.execute("BEGIN")
        await self.publish(early, author)
        await early.execute("SET CONSTRAINTS ALL IMMEDIATE")
        waiting = asyncio.create_task(self.publish(late, author))
        await blocked(killer)
        await killer.execute("SELECT pg_terminate_backend($1)", early.get_server_pid())
        second = await waiting
        assert [each[1] for each in await follower.new_entries()] == [second]

    async def test_trigger_sees_the_committed_state(
        self, database: Database, follower: Follower, connect: Connect
    ) -> None:
        """A rename affects articles that a concurrent transaction unpublishes or publishes."""
        author = await author_of(database)
        article = await article_of(database, author)
        draft = await article_of(database, author, published=False)
        await follower.new_changes()
        editor, renamer = await connect(), await connect()
        await editor.execute("BEGIN")
        await editor.execute("UPDATE articles SET published_at = NULL WHERE id = $1", article.id)
        await editor.execute("UPDATE articles SET published_at = now() WHERE id = $1", draft.id)
        await editor.execute("SET CONSTRAINTS ALL IMMEDIATE")
        rename = f"UPDATE users SET name = 'Renamed' WHERE id = {author.id}"
        waiting = asyncio.create_task(renamer.execute(rename))
        await blocked(await connect())
        await editor.execute("COMMIT")
        await waiting
        assert [each[:2] for each in await follower.new_entries()] == [
            ("unpublished", article.id),
            ("created", draft.id),
            ("updated", draft.id),
        ]

    async def test_unpublishing_sees_a_concurrent_first_entry(
        self, database: Database, follower: Follower, connect: Connect
    ) -> None:
        """A rename writes the first entry of an article that is being unpublished concurrently."""
        author = await author_of(database)
        article = await article_of(database, author)
        await run(database, "DELETE FROM changes WHERE article_id = :id", id=article.id)
        await follower.new_changes()
        editor, renamer = await connect(), await connect()
        await renamer.execute("BEGIN")
        await renamer.execute("UPDATE users SET name = 'Renamed' WHERE id = $1", author.id)
        await renamer.execute("SET CONSTRAINTS ALL IMMEDIATE")
        unpublish = f"UPDATE articles SET published_at = NULL WHERE id = {article.id}"
        waiting = asyncio.create_task(editor.execute(unpublish))
        await blocked(await connect())
        await renamer.execute("COMMIT")
        await waiting
        assert await follower.kinds() == ["created", "unpublished"]

    async def test_drafts_do_not_wait_for_locks(
        self, client: httpx.AsyncClient, database: Database, connect: Connect
    ) -> None:
        author = await author_of(database)
        holder = await connect()
        await holder.execute(f"BEGIN; SELECT pg_advisory_xact_lock({LOCK})")
        new = {"title": "A draft", "content": BODY}
        async with asyncio.timeout(10):
            created = await client.post("/articles", json=new, headers=bearer(author))
            url = f"/articles/{created.json()['id']}"
            await client.patch(url, json={"title": "Another"}, headers=bearer(author))
            await client.delete(url, headers=bearer(author))
        await holder.execute("ROLLBACK")

    async def test_write_order_causes_no_deadlock(
        self, database: Database, follower: Follower, connect: Connect
    ) -> None:
        """Two transactions update different rows in opposite order, and commit at the same time."""
        author = await author_of(database)
        ids = [(await article_of(database, author)).id for _ in range(4)]
        await follower.new_changes()
        one, other = await connect(), await connect()
        update = "UPDATE articles SET version = version + 1 WHERE id = $1"
        for _ in range(20):
            await asyncio.gather(one.execute("BEGIN"), other.execute("BEGIN"))
            for mine, theirs in ((ids[0], ids[3]), (ids[1], ids[2])):
                await asyncio.gather(one.execute(update, mine), other.execute(update, theirs))
            await asyncio.gather(one.execute("COMMIT"), other.execute("COMMIT"))
        assert await follower.kinds() == ["updated"] * 80

    async def test_sequence_is_monotonic(
        self, database: Database, follower: Follower, connect: Connect
    ) -> None:
        """A restore or a failover may set the sequence back."""
        author = await author_of(database)
        await article_of(database, author)
        connection = await connect()
        await connection.execute("SELECT setval('changes_seq_seq', 1)")
        await follower.new_changes()
        article = await article_of(database, author)
        assert [each[1] for each in await follower.new_entries()] == [article.id]

    async def test_clock_set_back_keeps_sequence_monotonic(
        self, database: Database, follower: Follower, connect: Connect
    ) -> None:
        author = await author_of(database)
        connection = await connect()
        ahead = "SELECT setval('changes_seq_seq', nextval('changes_seq_seq') + 3600000000)"
        before = await connection.fetchval(ahead)
        article = await article_of(database, author)
        assert [each[1] for each in await follower.new_entries()] == [article.id]
        assert await connection.fetchval("SELECT max(seq) FROM changes") == before + 1

    async def test_concurrent_writers_and_reader(
        self, database: Database, follower: Follower, connect: Connect
    ) -> None:
        author, busy = await author_of(database), await author_of(database)
        ids = [(await article_of(database, author)).id for _ in range(12)]
        await follower.new_changes()
        start = await (await connect()).fetchval("SELECT max(seq) FROM changes")
        writers = [write(await connect(), author, ids, busy, seed) for seed in range(8)]
        writing = asyncio.gather(*writers)
        polled: list[dict[str, Any]] = []
        follower.requests = 0
        limits = cycle((3, 1000))  # pages of some new entries, and of all
        while not writing.done():
            polled += await follower.new_changes(limit=next(limits))
        await writing
        assert follower.requests > 40
        polled += await follower.new_changes()
        entries = await (await connect()).fetch(
            "SELECT article_id, kind, slug FROM changes WHERE seq > $1 ORDER BY seq", start
        )
        assert [(each["article_id"], each["kind"], each["slug"]) for each in polled] == [
            tuple(each) for each in entries
        ]
        assert len({each["cursor"] for each in polled}) == len(polled)
        assert len(polled) > 400
        assert {each["kind"] for each in polled} == {
            "created",
            "updated",
            "unpublished",
            "deleted",
        }
        await assert_feed_reproduces_state(polled, await connect())


async def write(
    connection: "asyncpg.Connection[Any]", author: User, ids: list[int], busy: User, seed: int
) -> None:
    """Run transactions of all kinds; one in ten is rolled back, one in ten waits before its end."""
    chance = random.Random(seed)
    changes = (
        "UPDATE articles SET version = version + 1 WHERE id = $1",
        "UPDATE articles SET published_at = now(), archived_at = NULL WHERE id = $1",
        "UPDATE articles SET published_at = NULL WHERE id = $1",
        "UPDATE articles SET archived_at = now() WHERE id = $1",
        "UPDATE articles SET deleted_at = now() WHERE id = $1",
        "UPDATE articles SET deleted_at = NULL WHERE id = $1",
    )
    new = (
        "INSERT INTO articles (title, content, published_at, author_id)"
        " VALUES ('New', 'Long enough.', now(), $1)"
    )
    for number in range(80):
        await connection.execute("BEGIN")
        if number % 40 == seed:
            await connection.execute(
                "UPDATE users SET name = $2 WHERE id = $1", author.id, f"Name {number}"
            )
        else:
            await connection.execute(new, busy.id)
            for article_id in sorted(chance.sample(ids, chance.randrange(3))):
                await connection.execute(chance.choice(changes), article_id)
        if chance.random() < 0.1:
            for _ in range(chance.randrange(20)):
                await asyncio.sleep(0)
        await connection.execute("ROLLBACK" if chance.random() < 0.1 else "COMMIT")


async def assert_feed_reproduces_state(
    polled: list[dict[str, Any]], connection: "asyncpg.Connection[Any]"
) -> None:
    """A client that applies the entries has the visible state."""
    shown: dict[int, bool] = {}
    for each in polled:
        shown[each["article_id"]] = each["kind"] in {"created", "updated"}
    rows = await connection.fetch(
        "SELECT id, published_at <= now() AND archived_at IS NULL AND deleted_at IS NULL AS visible"
        " FROM articles"
    )
    visible = {row["id"]: bool(row["visible"]) for row in rows}
    assert shown.keys() <= visible.keys()
    assert {each: visible[each] for each in shown} == shown


async def blocked(connection: "asyncpg.Connection[Any]") -> None:
    """Wait until a connection waits for the feed's lock."""
    query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"

    async def is_lock_awaited() -> bool:
        return bool(await connection.fetchval(query))

    await until(is_lock_awaited)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until the condition holds."""
    deadline = time.monotonic() + DEADLINE
    while not await condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)
