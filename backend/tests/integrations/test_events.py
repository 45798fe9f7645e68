"""Events: which ones database triggers write, their order of reading, and their deletion.

Events of articles are written on commit, so these tests commit, on a server of their own.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import text

from app.core import clock
from app.core.config import Settings
from app.core.enums import CommentPolicy, CommentStatus, EventKind, Role
from app.db.session import Database
from app.jobs.housekeeping import delete_expired
from app.main import create_app
from app.models.integrations.event import EVENTS_CHANNEL
from app.services.articles.changes import announce_due
from app.services.integrations.events import AFTER, Position, latest_position
from tests.databases import driver_url, run
from tests.factories import (
    PASSWORD,
    article_of,
    author_of,
    bearer,
    create_article,
    create_comment,
    create_media,
    create_user,
)
from tests.processes import DEADLINE

BODY = "Long enough for an article."


@pytest.fixture(scope="module")
async def committing(settings: Settings, committing_url: str) -> AsyncIterator[FastAPI]:
    """An application whose requests commit."""
    own = settings.model_copy(update={"database_url": committing_url})
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


class Reading:
    """A reader of events that keeps its position."""

    def __init__(self, database: Database, position: Position) -> None:
        self._database = database
        self._position = position

    async def new(self) -> list[Any]:
        async with self._database.unit_of_work() as session:
            parameters = {**self._position._asdict(), "limit": 1000}
            rows = list((await session.execute(AFTER, parameters)).all())
        if rows:
            self._position = Position(rows[-1].xid, rows[-1].id)
        return rows

    async def kinds(self) -> list[str]:
        return [each.kind for each in await self.new()]


@pytest.fixture
async def reading(database: Database) -> Reading:
    async with database.unit_of_work() as session:
        return Reading(database, await latest_position(session))


class TestArticles:
    async def test_lifecycle(
        self, client: httpx.AsyncClient, database: Database, reading: Reading
    ) -> None:
        author = await author_of(database)
        headers = bearer(author)
        new = {"title": "A life", "content": BODY, "tags": ["Frost", "Apples"], "language": "de"}
        article = (await client.post("/articles", json=new, headers=headers)).json()
        url = f"/articles/{article['id']}"

        async def change(**fields: object) -> list[Any]:
            response = await client.patch(url, json=fields, headers=headers)
            assert response.status_code == 200, response.text
            return await reading.new()

        await reading.new()
        assert await change(title="A draft's title") == []
        (published,) = await change(published=True, title="A life", slug="a-life")
        assert published.kind == EventKind.ARTICLE_PUBLISHED
        assert (published.article_id, published.user_id) == (article["id"], author.id)
        assert published.is_public
        shown = {
            "slug": "a-life",
            "title": "A life",
            "language": "de",
            "tags": ["Apples", "Frost"],
            "author": author.username,
            "author_id": author.id,
        }
        assert published.data.keys() - shown.keys() == {"version", "published_at", "updated_at"}
        assert published.data | shown == published.data
        (updated,) = await change(content="Other words than before.")
        assert updated.kind == EventKind.ARTICLE_UPDATED
        assert updated.data["version"] == published.data["version"] + 1
        # What the article contains from now on is not public.
        hidden = {"title": "Secret", "slug": "secret", "language": "fr", "tags": ["Secret"]}
        (unpublished,) = await change(published=False, **hidden)
        assert unpublished.kind == EventKind.ARTICLE_UNPUBLISHED
        assert unpublished.data == shown
        assert [each.kind for each in await change(published=True)] == ["article.published"]
        assert (await client.delete(url, headers=headers)).status_code == 204
        (deleted,) = await reading.new()
        assert deleted.kind == EventKind.ARTICLE_DELETED
        assert deleted.data["title"] == "Secret"

    async def test_unpublished_article_does_not_show_its_new_tags(
        self, client: httpx.AsyncClient, database: Database, reading: Reading
    ) -> None:
        author = await author_of(database)
        article = await article_of(database, author, tags=["Frost"])
        await reading.new()
        response = await client.patch(
            f"/articles/{article.id}",
            json={"published": False, "tags": ["Layoffs"]},
            headers=bearer(author),
        )
        assert response.status_code == 200, response.text
        (unpublished,) = await reading.new()
        assert unpublished.kind == EventKind.ARTICLE_UNPUBLISHED
        assert unpublished.data["tags"] == ["Frost"]

    async def test_former_tags_language_and_author(
        self, client: httpx.AsyncClient, database: Database, reading: Reading
    ) -> None:
        """Filters of webhooks match what an article was before, too."""
        author, admin = await author_of(database), await author_of(database, role=Role.ADMIN)
        article = await article_of(database, author, tags=["Frost", "Apples"])
        url, headers = f"/articles/{article.id}", bearer(author)
        former = {"tags": ["Apples", "Frost"], "language": "en", "author_id": author.id}
        await reading.new()

        async def change(**fields: object) -> Any:
            response = await client.patch(url, json=fields, headers=headers)
            assert response.status_code == 200, response.text
            (event,) = await reading.new()
            assert event.kind == "article.updated"
            return event.data.get("former")

        assert await change(title="Other") is None
        assert await change(tags=["Apples"], content="Without frost") == former
        assert await change(content="Other words") is None
        assert await change(language="de") == {**former, "tags": ["Apples"]}
        assert await change(tags=[]) == {**former, "tags": ["Apples"], "language": "de"}
        assert await change(tags=["Frost"]) == {**former, "tags": [], "language": "de"}
        renamed = await client.put("/tags/frost", json={"name": "Ice"}, headers=bearer(admin))
        assert renamed.status_code == 200, renamed.text
        (event,) = await reading.new()
        assert event.data["tags"] == ["Ice"]
        assert event.data["former"]["tags"] == ["Frost"]

    async def test_drafts_have_no_events(
        self, client: httpx.AsyncClient, database: Database, reading: Reading
    ) -> None:
        author = await author_of(database)
        article = await article_of(database, author, published=False)
        await reading.new()
        url, headers = f"/articles/{article.id}", bearer(author)
        await client.patch(url, json={"title": "Other"}, headers=headers)
        await client.delete(url, headers=headers)
        await run(database, "DELETE FROM articles WHERE id = :id", id=article.id)
        assert await reading.kinds() == []

    async def test_moment_of_a_scheduled_article(
        self, client: httpx.AsyncClient, database: Database, reading: Reading
    ) -> None:
        author = await author_of(database)
        soon = clock.now() + timedelta(hours=1)
        first, second = [await article_of(database, author, published_at=soon) for _ in range(2)]
        assert await reading.kinds() == ["user.created"]
        # Without the triggers, the date would be replaced by a new one.
        async with database.unit_of_work() as session:
            await session.execute(text("SET LOCAL session_replication_role = replica"))
            past = "UPDATE articles SET published_at = now() WHERE id = :id"
            await session.execute(text(past), {"id": first.id})
        await announce_due(database)
        assert [(each.kind, each.article_id) for each in await reading.new()] == [
            ("article.published", first.id),
            ("article.scheduled", first.id),
        ]
        # Publishing at once is not the moment that was planned.
        json = {"published_at": clock.now().isoformat()}
        url = f"/articles/{second.id}"
        assert (await client.patch(url, json=json, headers=bearer(author))).status_code == 200
        assert await reading.kinds() == ["article.published"]

    async def test_deleted_rows_keep_their_data(
        self, client: httpx.AsyncClient, database: Database, reading: Reading
    ) -> None:
        author = await author_of(database)
        article = await article_of(database, author, title="Gone", tags=["Frost"])
        await reading.new()
        await run(database, "DELETE FROM users WHERE id = :id", id=author.id)
        (deleted,) = await reading.new()
        assert deleted.kind == EventKind.ARTICLE_DELETED
        assert (deleted.article_id, deleted.user_id) == (article.id, author.id)
        assert deleted.data["title"] == "Gone"
        assert deleted.data["tags"] == ["Frost"]
        assert deleted.data["author"] is None

    async def test_deleted_account(
        self, client: httpx.AsyncClient, database: Database, reading: Reading
    ) -> None:
        author = await author_of(database)
        article = await article_of(database, author)
        await reading.new()
        gone = await client.request(
            "DELETE", f"/users/{author.id}", json={"password": PASSWORD}, headers=bearer(author)
        )
        assert gone.status_code == 204
        found = [(each.kind, each.user_id) for each in await reading.new() if each.article_id]
        assert found == [("article.deleted", author.id)]
        assert article.author_id == author.id

    async def test_bulk_import_has_an_event_for_each_public_article(
        self, client: httpx.AsyncClient, database: Database, reading: Reading
    ) -> None:
        author = await author_of(database)
        await reading.new()
        lines = [
            json.dumps({"title": f"No. {number}", "content": BODY, "published": number % 2 == 0})
            for number in range(10)
        ]
        response = await client.post(
            "/articles/import",
            content="\n".join(lines),
            headers={**bearer(author), "Content-Type": "application/x-ndjson"},
        )
        assert response.json()["created"] == 10, response.text
        found = await reading.new()
        assert [each.kind for each in found] == ["article.published"] * 5


class TestComments:
    async def test_lifecycle(
        self, client: httpx.AsyncClient, database: Database, reading: Reading
    ) -> None:
        author, reader = await author_of(database), await author_of(database)
        article = await article_of(database, author, comment_policy=CommentPolicy.HELD)
        await reading.new()
        url = f"/articles/{article.id}/comments"
        held = await client.post(url, json={"content": "First."}, headers=bearer(reader))
        assert held.status_code == 201, held.text
        (event,) = await reading.new()
        assert (event.kind, event.is_public) == (EventKind.COMMENT_HELD, False)
        assert (event.article_id, event.user_id) == (article.id, reader.id)
        assert event.comment_id == held.json()["id"]
        assert "First." not in str(event.data)
        assert event.data["user"] == reader.username
        assert (event.data["author"], event.data["author_id"]) == (author.username, author.id)

        changes = (
            ("status = 'visible'", "comment.created", True),
            ("status = 'hidden'", "comment.deleted", True),
            ("status = 'visible'", "comment.created", True),
            ("status = 'pending'", "comment.held", True),
            ("status = 'hidden'", "comment.deleted", False),
            ("status = 'visible'", "comment.created", True),
            ("deleted_at = now()", "comment.deleted", True),
        )
        comment = {"id": held.json()["id"]}
        for change, kind, is_public in changes:
            await run(database, f"UPDATE comments SET {change} WHERE id = :id", **comment)
            (event,) = await reading.new()
            assert (event.kind, event.is_public) == (kind, is_public), change
        assert (event.data["status"], event.data["was"]) == ("deleted", "visible")
        for change in ("content = 'x'", "locked_at = now()", "status = 'hidden'"):
            await run(database, f"UPDATE comments SET {change} WHERE id = :id", **comment)
        await run(database, "DELETE FROM comments WHERE id = :id", **comment)
        assert await reading.kinds() == []

    async def test_comment_on_a_hidden_article_is_not_public(
        self, database: Database, reading: Reading
    ) -> None:
        author = await author_of(database)
        article = await article_of(database, author, published=False)
        await reading.new()
        async with database.unit_of_work() as session:
            await create_comment(session, article=article, author=author)
        (event,) = await reading.new()
        assert (event.kind, event.is_public) == ("comment.created", False)

    async def test_imported_comments_have_no_events(
        self, database: Database, reading: Reading
    ) -> None:
        author = await author_of(database)
        article = await article_of(database, author)
        await reading.new()
        async with database.unit_of_work() as session:
            await create_comment(session, article=article, author=author, source_id="7")
        assert await reading.kinds() == []

    async def test_deleting_the_account_deletes_comments(
        self, database: Database, reading: Reading
    ) -> None:
        author, reader = await author_of(database), await author_of(database)
        article = await article_of(database, author)
        async with database.unit_of_work() as session:
            for status in (CommentStatus.VISIBLE, CommentStatus.PENDING, CommentStatus.HIDDEN):
                await create_comment(session, article=article, author=reader, status=status)
        await reading.new()
        await run(database, "DELETE FROM users WHERE id = :id", id=reader.id)
        found = await reading.new()
        assert [(each.kind, each.is_public, each.user_id) for each in found] == [
            ("comment.deleted", True, reader.id),
            ("comment.deleted", False, reader.id),
        ]


class TestUsersAndMedia:
    async def test_users(self, database: Database, reading: Reading) -> None:
        user = await author_of(database)
        (created,) = await reading.new()
        assert (created.kind, created.user_id) == (EventKind.USER_CREATED, user.id)
        assert created.data == {"username": user.username, "role": "author"}
        assert not created.is_public
        for change in ("is_active = false", "is_active = false", "name = 'x'", "is_active = true"):
            await run(database, f"UPDATE users SET {change} WHERE id = :id", id=user.id)
        assert await reading.kinds() == [EventKind.USER_DISABLED]

    async def test_media(self, database: Database, reading: Reading) -> None:
        user = await author_of(database)
        await reading.new()
        async with database.unit_of_work() as session:
            media = await create_media(session, owner=user)
        (created,) = await reading.new()
        assert (created.kind, created.media_id) == (EventKind.MEDIA_CREATED, media.id)
        assert (created.user_id, created.is_public) == (user.id, False)
        assert media.folder not in str(created.data)


class TestTransactions:
    async def test_rollback_leaves_no_event(self, database: Database, reading: Reading) -> None:
        async with database.unit_of_work() as session:
            author = await create_user(session)
            await create_article(session, author=author)
            await session.rollback()
        assert await reading.kinds() == []

    async def test_one_notification_for_each_transaction(
        self, database: Database, committing_url: str
    ) -> None:
        connection: asyncpg.Connection[Any] = await asyncpg.connect(driver_url(committing_url))
        received = asyncio.Queue[str]()
        try:
            await connection.add_listener(
                EVENTS_CHANNEL, lambda *arguments: received.put_nowait(arguments[3])
            )
            async with database.unit_of_work() as session:
                for _ in range(5):
                    author = await create_user(session)
                    await create_article(session, author=author)
            await author_of(database)
            # The mark comes after all notifications of before.
            await run(database, f"NOTIFY {EVENTS_CHANNEL}, 'mark'")
            found = [await asyncio.wait_for(received.get(), DEADLINE)]
            while found[-1] != "mark":
                found.append(await asyncio.wait_for(received.get(), DEADLINE))
            assert found == ["", "", "mark"]
        finally:
            await connection.close()

    async def test_event_that_commits_later_is_not_missed(
        self, database: Database, reading: Reading, committing_url: str
    ) -> None:
        """An open transaction holds back the events of all that began after it."""
        connection: asyncpg.Connection[Any] = await asyncpg.connect(driver_url(committing_url))
        try:
            transaction = connection.transaction()
            await transaction.start()
            insert = "INSERT INTO events (kind, data) VALUES ('media.created', '{}')"
            await connection.execute(insert)
            await author_of(database)
            assert await reading.kinds() == []
            await transaction.commit()
            assert await reading.kinds() == ["media.created", "user.created"]
        finally:
            await connection.close()


async def test_old_events_are_deleted(
    database: Database, reading: Reading, monkeypatch: pytest.MonkeyPatch
) -> None:
    await author_of(database)
    await run(database, "UPDATE events SET occurred_at = now() - interval '13 days'")
    await delete_expired(database)
    assert await reading.kinds() == ["user.created"]
    new = await author_of(database)
    age = "UPDATE events SET occurred_at = now() - interval '15 days' WHERE id < :latest"
    async with database.unit_of_work() as session:
        latest = await latest_position(session)
    await run(database, age, latest=latest.id)
    monkeypatch.setattr("app.services.purging.BATCH", 2)
    await delete_expired(database)
    async with database.unit_of_work() as session:
        left = await session.execute(AFTER, {"xid": 0, "id": 0, "limit": 100})
        assert [each.user_id for each in left] == [new.id]
