"""Publishing, scheduling, archiving and versions of articles, and derived columns."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from sqlalchemy import select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import clock
from app.core.enums import Role
from app.db.session import Database
from app.models import Article, ArticleRevision
from app.services.articles.rendering import render_stale
from tests.factories import bearer, create_article, create_user

TEXT = "The engine *weaves* patterns."
MoveTo = Callable[[datetime], None]


@pytest.fixture
def move_to(monkeypatch: pytest.MonkeyPatch) -> MoveTo:
    return lambda moment: monkeypatch.setattr(clock, "now", lambda: moment)


class TestSchedule:
    async def test_scheduled_article_becomes_public_without_a_job(
        self, client: httpx.AsyncClient, session: AsyncSession, move_to: MoveTo
    ) -> None:
        author, moment = await create_user(session), clock.now() + timedelta(minutes=10)
        body = {"title": "Soon", "content": TEXT, "published_at": moment.isoformat()}
        written = (await client.post("/articles", json=body, headers=bearer(author))).json()
        assert (written["status"], written["published"]) == ("scheduled", False)
        url, slug = f"/articles/{written['id']}", f"/articles/by-slug/{written['slug']}"
        paths = url, slug
        for path in paths:
            assert (await client.get(path)).status_code == 404
            assert (await client.get(path, headers=bearer(author))).status_code == 200
        assert (await client.get("/articles")).json() == []
        move_to(moment)
        for path in paths:
            body = (await client.get(path)).json()
            assert (body["status"], body["published"]) == ("published", True)
        assert [row["id"] for row in (await client.get("/articles")).json()] == [written["id"]]

    @pytest.mark.parametrize("offset", ["+02:00", "Z", "-11:30"])
    async def test_dates_are_converted_to_utc(
        self, client: httpx.AsyncClient, session: AsyncSession, offset: str
    ) -> None:
        author = await create_user(session)
        body = {"title": "Then", "content": TEXT, "published_at": f"2020-05-05T12:00:00{offset}"}
        written = (await client.post("/articles", json=body, headers=bearer(author))).json()
        sent = datetime.fromisoformat(body["published_at"]).astimezone(UTC)
        assert written["published_at"] == sent.isoformat().replace("+00:00", "Z")
        assert written["published"] is True

    async def test_published_true_publishes_a_scheduled_article_now(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        author = await create_user(session)
        later = clock.now() + timedelta(days=1)
        article = await create_article(session, author=author, published_at=later)
        url = f"/articles/{article.id}"
        now = await client.patch(url, json={"published": True}, headers=bearer(author))
        assert now.json()["status"] == "published"
        first = now.json()["published_at"]
        again = await client.patch(url, json={"published": True}, headers=bearer(author))
        assert again.json()["published_at"] == first
        assert again.json()["version"] == now.json()["version"]

    @pytest.mark.parametrize("change", [{"published": False}, {"published_at": None}])
    async def test_unpublishing_makes_a_draft(
        self, client: httpx.AsyncClient, session: AsyncSession, change: dict[str, object]
    ) -> None:
        author = await create_user(session)
        article = await create_article(session, author=author)
        url = f"/articles/{article.id}"
        response = await client.patch(url, json=change, headers=bearer(author))
        assert response.json()["status"] == "draft"
        assert response.json()["published_at"] is None
        assert (await client.get(url)).status_code == 404

    async def test_unchanged_response_can_be_sent_back(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        """A client may send all fields back unchanged, including a generated excerpt."""
        author = await create_user(session)
        later = clock.now() + timedelta(days=1)
        articles = [
            await create_article(session, author=author),
            await create_article(session, author=author, published=False),
            await create_article(session, author=author, published_at=later),
            await create_article(session, author=author, archived_at=clock.now()),
        ]
        for article in articles:
            url, mine = f"/articles/{article.id}", bearer(author)
            before = (await client.get(url, headers=mine)).json()
            names = ("title", "content", "slug", "excerpt", "cover_image_url", "language", "tags")
            sent = {name: before[name] for name in (*names, "published", "published_at")}
            if sent["published_at"] is None:
                del sent["published_at"]
            assert (await client.patch(url, json=sent, headers=mine)).json() == before
            text = {"content": "Another text altogether."}
            anew = await client.patch(url, json=text, headers=mine)
            assert anew.json()["excerpt"] == "Another text altogether."

    @pytest.mark.parametrize("published_at", ["2020-01-01T00:00:00Z", None])
    async def test_draft_with_past_date_is_rejected(
        self, client: httpx.AsyncClient, session: AsyncSession, published_at: str | None
    ) -> None:
        author = await create_user(session)
        body = {"title": "T", "content": TEXT, "published": False, "published_at": published_at}
        response = await client.post("/articles", json=body, headers=bearer(author))
        assert response.status_code == (201 if published_at is None else 422)


class TestArchive:
    async def test_publishing_unarchives(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        author = await create_user(session)
        article = await create_article(session, author=author, archived_at=clock.now())
        url, mine = f"/articles/{article.id}", bearer(author)
        published_at = (await client.get(url, headers=mine)).json()["published_at"]
        kept = await client.patch(url, json={"published": False}, headers=mine)
        assert kept.json()["published_at"] == published_at
        again = await client.patch(url, json={"published": True}, headers=mine)
        assert (again.json()["status"], again.json()["published_at"]) == ("published", published_at)

    async def test_archived_article_is_hidden_and_restored_unchanged(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        author, editor = await create_user(session), await create_user(session, role=Role.EDITOR)
        article = await create_article(session, author=author)
        url, mine = f"/articles/{article.id}", bearer(author)
        before = (await client.get(url)).json()
        archived = (await client.patch(url, json={"archived": True}, headers=mine)).json()
        assert (archived["status"], archived["published"]) == ("archived", False)
        assert (await client.get(url)).status_code == 404
        for headers in ({}, mine, bearer(editor)):
            assert (await client.get("/articles", headers=headers)).json() == []
        listed = await client.get("/articles?status=archived", headers=mine)
        assert [row["id"] for row in listed.json()] == [article.id]
        assert (await client.get("/articles?status=archived")).json() == []
        back = (await client.patch(url, json={"archived": False}, headers=mine)).json()
        assert back["published_at"] == before["published_at"]
        assert (await client.get(url)).json()["status"] == "published"


class TestTrash:
    async def test_deleted_article_is_not_found_by_anyone(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        author, admin = await create_user(session), await create_user(session, role=Role.ADMIN)
        article = await create_article(session, author=author)
        await client.delete(f"/articles/{article.id}", headers=bearer(author))
        for headers in ({}, bearer(author), bearer(admin)):
            for path in (f"/articles/{article.id}", f"/articles/by-slug/{article.slug}"):
                assert (await client.get(path, headers=headers)).status_code == 404
            assert (await client.get("/articles", headers=headers)).json() == []
            assert (await client.get("/articles?status=published", headers=headers)).json() == []
        assert await session.scalar(select(Article.id)) == article.id


class TestVersion:
    async def test_version_counts_changes_only(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        author = await create_user(session)
        body = {"title": "T", "content": TEXT, "tags": ["one"]}
        article = (await client.post("/articles", json=body, headers=bearer(author))).json()
        url, versions = f"/articles/{article['id']}", [article["version"]]
        same = {**body, "slug": article["slug"], "language": "en", "archived": False}
        for change in (same, {}, {"tags": ["ONE"]}, {"tags": ["two"]}, {"excerpt": "Short."}):
            response = await client.patch(url, json=change, headers=bearer(author))
            assert response.status_code == 200, response.text
            versions.append(response.json()["version"])
        assert versions == [1, 1, 1, 2, 3, 4]  # a draft keeps its own spelling of a tag

    async def test_only_text_changes_create_revisions(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        author, editor = await create_user(session), await create_user(session, role=Role.EDITOR)
        body = {"title": "First", "content": TEXT}
        article = (await client.post("/articles", json=body, headers=bearer(author))).json()
        url = f"/articles/{article['id']}"
        await client.patch(url, json={"tags": ["x"], "published": True}, headers=bearer(author))
        await client.patch(url, json={"title": "Second"}, headers=bearer(editor))
        await client.patch(url, json={"content": TEXT + " More."}, headers=bearer(author))
        query = select(ArticleRevision).order_by(ArticleRevision.id)
        kept = (await session.scalars(query)).all()
        assert [(row.version, row.title, row.author_id) for row in kept] == [
            (2, "First", author.id),
            (3, "Second", editor.id),
        ]
        assert kept[0].created_at.isoformat().replace("+00:00", "Z") == article["created_at"]


class TestDerivedColumns:
    async def test_derived_columns_are_set_on_write(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        author = await create_user(session)
        content = f"## A heading\n\n{TEXT}\n\n" + "word " * 500
        body = {"title": "T", "content": content}
        article = (await client.post("/articles", json=body, headers=bearer(author))).json()
        assert "<em>weaves</em>" in article["html"]
        assert article["word_count"] == 506
        assert article["reading_time"] in {2, 3}
        (entry,) = article["toc"]
        assert entry["text"] == "A heading"
        assert f'id="{entry["id"]}"' in article["html"]
        assert article["excerpt"].endswith("…")
        assert len(article["excerpt"]) <= 500

    async def test_custom_excerpt_stays_until_reset(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        author = await create_user(session)
        body = {"title": "T", "content": TEXT, "excerpt": "Mine."}
        article = (await client.post("/articles", json=body, headers=bearer(author))).json()
        url = f"/articles/{article['id']}"
        excerpts = []
        for change in ({"content": "Something else."}, {"excerpt": None}, {"content": TEXT}):
            response = await client.patch(url, json=change, headers=bearer(author))
            excerpts.append(response.json()["excerpt"])
        assert excerpts == ["Mine.", "Something else.", "The engine weaves patterns."]

    async def test_stale_renderings_are_renewed(
        self, client: httpx.AsyncClient, session: AsyncSession, database: Database
    ) -> None:
        author = await create_user(session)
        article = await create_article(session, author=author, content=TEXT)
        url = f"/articles/{article.id}"
        before = (await client.get(url)).json()
        lost = {"rendered_with": 0, "html": "", "plain_text": "", "word_count": 0}
        await session.execute(update(Article).values(**lost, updated_at=Article.updated_at))
        assert await render_stale(database) == 1
        assert await render_stale(database) == 0
        assert (await client.get(url)).json() == before

    async def test_previous_release_may_write_during_upgrade(
        self, client: httpx.AsyncClient, session: AsyncSession, database: Database
    ) -> None:
        """It sets neither slug, dates nor HTML: the trigger and the renderer do."""
        author = await create_user(session)
        added = text(
            "INSERT INTO articles (title, content, published, author_id)"
            " VALUES ('Old', :content, true, :author) RETURNING id"
        )
        parameters = {"content": TEXT, "author": author.id}
        article_id = await session.scalar(added, parameters)
        await render_stale(database)
        body = (await client.get(f"/articles/{article_id}")).json()
        assert body["slug"] == f"article-{article_id}"
        assert "<em>weaves</em>" in body["html"]
        rewritten = "UPDATE articles SET content = 'Something **else**.', published = false"
        await session.execute(text(rewritten))
        assert (await client.get(f"/articles/{article_id}")).status_code == 404
        await render_stale(database)
        mine = await client.get(f"/articles/{article_id}", headers=bearer(author))
        assert "<strong>else</strong>" in mine.json()["html"]
