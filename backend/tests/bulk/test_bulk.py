"""Bulk import and export over HTTP."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.content.markdown import Rendered, render_sync
from app.core.enums import Role
from app.models import (
    Article,
    ArticleMedia,
    ArticleRevision,
    AuditEvent,
    FormerSlug,
    ImportRecord,
    Media,
    Redirect,
    User,
)
from app.services.bulk import ndjson, records
from tests.factories import api_key, bearer, create_article, create_user

NDJSON = {"Content-Type": "application/x-ndjson"}
RECORD: dict[str, Any] = {
    "title": "Notes on the Engine",
    "content": "The Engine **weaves** patterns.",
    "slug": "notes-on-the-engine",
}
FULL: dict[str, Any] = {
    **RECORD,
    "excerpt": "What it weaves",
    "cover_image_url": "https://example.com/loom.jpg",
    "language": "de",
    "tags": ["Engines", "Été"],
    "published_at": "1999-12-31T23:59:59.123456Z",
    "created_at": "1998-01-01T00:00:00Z",
    "updated_at": "2001-01-01T00:00:00Z",
}


def lines(*items: Mapping[str, Any] | str) -> bytes:
    texts = (item if isinstance(item, str) else json.dumps(item) for item in items)
    return "\n".join(texts).encode()


async def post(
    client: httpx.AsyncClient, headers: Mapping[str, str], body: bytes
) -> dict[str, Any]:
    response = await client.post("/articles/import", content=body, headers={**NDJSON, **headers})
    assert response.status_code == 200, response.text
    report: dict[str, Any] = response.json()
    return report


def counts(report: Mapping[str, Any]) -> tuple[int, int, int, int]:
    return report["created"], report["updated"], report["unchanged"], report["failed"]


async def export(client: httpx.AsyncClient, headers: Mapping[str, str]) -> list[dict[str, Any]]:
    response = await client.get("/articles/export", headers=headers)
    assert response.status_code == 200, response.text
    return [json.loads(line) for line in response.text.splitlines()]


async def rows(session: AsyncSession) -> Sequence[Any]:
    """Return all rows that an import can change."""
    found = await session.execute(
        text(
            "SELECT to_jsonb(a) AS article, (SELECT count(*) FROM article_revisions) AS revisions,"
            " (SELECT jsonb_agg(s ORDER BY tag_id) FROM article_tags s WHERE article_id = a.id)"
            " FROM articles a ORDER BY id"
        )
    )
    return found.all()


@pytest.fixture
async def ada(session: AsyncSession) -> User:
    return await create_user(session, username="ada")


class TestImport:
    async def test_all_fields_are_imported(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        assert counts(await post(client, bearer(ada), lines(FULL))) == (1, 0, 0, 0)
        article = (await client.get("/articles/by-slug/notes-on-the-engine")).json()
        for name, value in FULL.items():
            assert article[name] == value, name
        assert article["author"]["username"] == "ada"
        assert article["status"] == "published"
        assert "<strong>weaves</strong>" in article["html"]
        assert article["word_count"] == 4
        assert article["version"] == 1
        events = await session.scalars(select(AuditEvent).where(AuditEvent.subject_id.is_(None)))
        assert [(e.action, e.actor_id, e.message) for e in events] == [
            ("IMPORT_ARTICLES", ada.id, "1 article imported")
        ]

    async def test_defaults_of_missing_fields(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        await post(client, bearer(ada), lines({k: RECORD[k] for k in ("title", "content")}))
        article = (await session.scalars(select(Article))).one()
        assert article.slug == "notes-on-the-engine"
        assert article.published_at is None
        assert article.archived_at is None
        assert article.language == "en"
        assert not article.own_excerpt
        assert article.excerpt == "The Engine weaves patterns."
        assert article.author_id == ada.id

    async def test_published_without_date_is_published_now_and_keeps_its_date(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        record = {"title": "Title", "slug": "title", "content": "Long enough.", "published": True}
        assert counts(await post(client, bearer(ada), lines(record))) == (1, 0, 0, 0)
        article = (await client.get("/articles/by-slug/title")).json()
        assert article["published_at"] == article["created_at"]
        assert counts(await post(client, bearer(ada), lines(record))) == (0, 0, 1, 0)
        changed = {**record, "content": "Longer than enough."}
        assert counts(await post(client, bearer(ada), lines(changed))) == (0, 1, 0, 0)
        again = (await client.get("/articles/by-slug/title")).json()
        assert (again["content"], again["published_at"]) == (
            changed["content"],
            article["published_at"],
        )

    @pytest.mark.parametrize("record", [FULL, {k: FULL[k] for k in ("title", "content", "tags")}])
    async def test_repeated_import_changes_nothing(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User, record: dict[str, Any]
    ) -> None:
        await post(client, bearer(ada), lines(record))
        before = await rows(session)
        reordered = {name: record[name] for name in reversed(record)}
        for body in (lines(record), lines(reordered), lines({**record, "excerpt": None, **record})):
            assert counts(await post(client, bearer(ada), body)) == (0, 0, 1, 0)
        assert await rows(session) == before

    async def test_repeated_import_keeps_edits(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        await post(client, bearer(ada), lines(FULL))
        article = (await session.scalars(select(Article))).one()
        edit = {"title": "Another title", "slug": "another-slug"}
        edited = await client.patch(f"/articles/{article.id}", json=edit, headers=bearer(ada))
        assert edited.status_code == 200
        respelled = {**FULL, "tags": ["été", "ENGINES", "engines"]}
        for record in (FULL, respelled):
            assert counts(await post(client, bearer(ada), lines(record))) == (0, 0, 1, 0)
        assert (await client.get(f"/articles/{article.id}")).json()["title"] == "Another title"

    async def test_changed_record_updates_the_article(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        await post(client, bearer(ada), lines(FULL))
        changed = {
            **FULL,
            "title": "New title",
            "content": "An entirely new text.",
            "tags": ["Looms", "été"],
            "published_at": None,
            "archived": True,
        }
        del changed["excerpt"], changed["cover_image_url"]
        assert counts(await post(client, bearer(ada), lines(changed))) == (0, 1, 0, 0)
        article = (await session.scalars(select(Article))).one()
        shown = (await client.get(f"/articles/{article.id}", headers=bearer(ada))).json()
        assert shown["title"] == "New title"
        assert shown["tags"] == ["Été", "Looms"]  # the existing spelling is kept
        assert shown["excerpt"] == "An entirely new text."
        assert shown["html"].startswith("<p>An entirely new text.</p>")
        assert shown["cover_image_url"] is None
        assert (shown["status"], shown["published_at"]) == ("archived", None)
        assert shown["version"] == 2
        revision = (await session.scalars(select(ArticleRevision))).one()
        assert (revision.title, revision.content, revision.version, revision.author_id) == (
            FULL["title"],
            FULL["content"],
            1,
            ada.id,
        )
        before = await rows(session)
        assert counts(await post(client, bearer(ada), lines(changed))) == (0, 0, 1, 0)
        assert await rows(session) == before

    async def test_changed_cover_adds_no_revision(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        await post(client, bearer(ada), lines(FULL))
        changed = {**FULL, "cover_image_url": "/media/another.webp"}
        assert counts(await post(client, bearer(ada), lines(changed))) == (0, 1, 0, 0)
        assert await session.scalar(select(func.count()).select_from(ArticleRevision)) == 0
        article = (await session.scalars(select(Article))).one()
        assert (article.version, article.cover_image_url) == (2, "/media/another.webp")

    async def test_imported_articles_reference_media(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        first, second = "a" * 32, "b" * 32
        for folder in (first, second):
            session.add(
                Media(
                    owner_id=ada.id,
                    folder=folder,
                    content_type="image/webp",
                    bytes=1,
                    width=1,
                    height=1,
                    widths=[1],
                    color="#000000",
                    placeholder="",
                    created_at=datetime.now(UTC),
                )
            )
        await session.flush()
        used = select(Media.folder).join(ArticleMedia, ArticleMedia.media_id == Media.id)
        shown = {**RECORD, "content": f"![A cat](https://example.com/media/{first}/320.webp)"}
        assert counts(await post(client, bearer(ada), lines(shown))) == (1, 0, 0, 0)
        assert (await session.scalars(used)).all() == [first]
        other = {**RECORD, "cover_image_url": f"/media/{second}/320.webp"}
        assert counts(await post(client, bearer(ada), lines(other))) == (0, 1, 0, 0)
        assert (await session.scalars(used)).all() == [second]
        assert counts(await post(client, bearer(ada), lines(RECORD))) == (0, 1, 0, 0)
        assert (await session.scalars(used)).all() == []

    async def test_missing_slug_is_generated(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        same = [{"title": "Same", "content": f"Text number {number}."} for number in range(15)]
        taken = {"title": "Other", "content": "Text that has it.", "slug": "same"}
        assert counts(await post(client, bearer(ada), lines(*same, taken))) == (16, 0, 0, 0)
        assert counts(await post(client, bearer(ada), lines(*same, taken))) == (0, 0, 16, 0)
        slugs = set(await session.scalars(select(Article.slug)))
        assert len(slugs) == 16
        assert {"same", "same-2", "same-9"} <= slugs

    async def test_titles_in_other_scripts_have_slugs(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        titles = ["Привет, мир", "你好", "🎉", "2026"]
        bodies = [{"title": title, "content": "Long enough."} for title in titles]
        assert counts(await post(client, bearer(ada), lines(*bodies))) == (4, 0, 0, 0)
        assert all(slug and slug.isascii() for slug in await session.scalars(select(Article.slug)))

    async def test_bom_blank_lines_and_line_endings(
        self, client: httpx.AsyncClient, ada: User
    ) -> None:
        first, second = json.dumps(RECORD), json.dumps({**RECORD, "slug": "second"})
        body = f"\ufeff{first}\r\n\r\n  \n{second}".encode()
        assert counts(await post(client, bearer(ada), body)) == (2, 0, 0, 0)

    async def test_empty_import_changes_nothing(self, client: httpx.AsyncClient, ada: User) -> None:
        assert counts(await post(client, bearer(ada), b"")) == (0, 0, 0, 0)


INVALID_RECORDS = {
    "no JSON": ("{", "not JSON"),
    "no object": ("[]", "should be an object"),
    "a number": ("1", "should be an object"),
    "no title": (json.dumps({"content": RECORD["content"]}), "title: Field required"),
    "unknown field": (json.dumps({**RECORD, "titel": "x"}), "titel: Extra inputs"),
    "empty content": (json.dumps({**RECORD, "content": ""}), "content: "),
    "published and unpublished": (
        json.dumps({**RECORD, "published": False, "published_at": "2020-01-01T00:00:00Z"}),
        "published is false",
    ),
    "naive date": (json.dumps({**RECORD, "published_at": "2020-01-01T00:00:00"}), "published_at: "),
    "early date": (json.dumps({**RECORD, "created_at": "1969-12-31T23:59:59Z"}), "created_at: "),
    "100 tags": (json.dumps({**RECORD, "tags": [f"t{n}" for n in range(100)]}), "tags: "),
    "bad slug": (json.dumps({**RECORD, "slug": "Not a slug"}), "slug: "),
    "bad image": (json.dumps({**RECORD, "cover_image_url": "javascript:x"}), "cover_image_url: "),
    "NUL": (json.dumps({**RECORD, "content": "NUL \0 in a text"}), "content: "),
    "lone surrogate": ('{"title": "\\ud800", "content": "Long enough."}', "title: "),
    "twice the same name": (
        '{"title": "x", "title": "y", "content": "Long enough."}',
        "duplicate names",
    ),
    "not a number": ('{"title": NaN, "content": "Long enough."}', "NaN"),
    "deep": ("[" * 100_000, "nesting is too deep"),
    "many names": (json.dumps({str(n): n for n in range(200)}), "more than 100 members"),
    "long number": ("1" * 10_000, "not JSON"),
    "unknown author": (json.dumps({**RECORD, "author": "nobody"}), "author: there is no user"),
}


class TestInvalidRecords:
    @pytest.mark.parametrize("case", INVALID_RECORDS)
    async def test_invalid_record_is_reported_with_its_line(
        self, client: httpx.AsyncClient, ada: User, case: str
    ) -> None:
        bad, message = INVALID_RECORDS[case]
        good = [{**RECORD, "slug": f"good-{number}"} for number in range(2)]
        report = await post(client, bearer(ada), lines(good[0], "", bad, good[1]))
        assert counts(report) == (2, 0, 0, 1)
        (error,) = report["errors"]
        assert error["line"] == 3
        assert message in error["message"]
        assert len(error["message"]) < 600

    async def test_invalid_utf_8_is_reported(self, client: httpx.AsyncClient, ada: User) -> None:
        body = b'{"title": "\xff", "content": "Long enough."}\n' + lines(RECORD)
        report = await post(client, bearer(ada), body)
        assert counts(report) == (1, 0, 0, 1)
        (error,) = report["errors"]
        assert error["line"] == 1
        assert error["message"].endswith("not UTF-8 at character 12")

    async def test_too_long_line_is_reported(
        self, client: httpx.AsyncClient, ada: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(ndjson, "MAX_RECORD_BYTES", 1000)
        long = json.dumps({**RECORD, "slug": "long", "content": "x" * 1000})
        report = await post(client, bearer(ada), lines(RECORD, long, {**RECORD, "slug": "b"}, long))
        assert counts(report) == (2, 0, 0, 2)
        assert [error["line"] for error in report["errors"]] == [2, 4]
        assert "longer than" in report["errors"][0]["message"]

    async def test_only_the_first_100_errors_are_listed(
        self, client: httpx.AsyncClient, ada: User
    ) -> None:
        report = await post(client, bearer(ada), lines(*["{"] * 250))
        assert counts(report) == (0, 0, 0, 250)
        assert [error["line"] for error in report["errors"]] == list(range(1, 101))

    async def test_two_records_with_one_slug(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        other = {**RECORD, "title": "Other"}
        for expected in ((1, 0, 1, 1), (0, 0, 2, 1)):
            report = await post(client, bearer(ada), lines(RECORD, other, RECORD))
            assert counts(report) == expected
            (error,) = report["errors"]
            assert error["line"] == 2
            assert error["message"] == (
                "another record of this import has the same id in the source"
            )
        assert (await session.scalars(select(Article.title))).all() == [RECORD["title"]]

    async def test_changed_record_counts_before_an_unchanged_one(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        await post(client, bearer(ada), lines(RECORD))
        changed = {**RECORD, "title": "Changed"}
        assert counts(await post(client, bearer(ada), lines(changed, RECORD))) == (0, 1, 0, 1)
        assert (await session.scalars(select(Article.title))).all() == ["Changed"]

    async def test_slug_that_was_generated_for_an_earlier_record(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        ada: User,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """Both texts are kept, although they have the same author and slug."""
        from app.services.bulk import importing

        monkeypatch.setattr(importing, "BATCH", 1)
        unnamed = {"title": "Title", "content": "The first text."}
        named = {"title": "Other", "content": "The second text.", "slug": "title"}
        report = await post(client, bearer(ada), lines(unnamed, named))
        assert counts(report) == (2, 0, 0, 0)
        found = await session.execute(select(Article.draft_slug, Article.content))
        assert set(found) == {("title", "The first text."), ("title-2", "The second text.")}

    async def test_too_complex_text_is_reported(
        self, client: httpx.AsyncClient, ada: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from app.core.errors import ContentTooComplex
        from app.services.bulk import texts

        def refuse(content: str) -> Rendered:
            if "complex" in content:
                raise ContentTooComplex
            return render_sync(content)

        monkeypatch.setattr(texts, "render_sync", refuse)
        bad = {**RECORD, "slug": "bad", "content": "Much too complex."}
        report = await post(client, bearer(ada), lines(RECORD, bad))
        assert counts(report) == (1, 0, 0, 1)
        assert report["errors"][0]["line"] == 2
        assert report["errors"][0]["message"].startswith("content: ")

    async def test_record_rejected_by_the_database_is_reported(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        await session.execute(
            text("ALTER TABLE articles ADD CONSTRAINT picky CHECK (title <> 'Refused')")
        )
        items = [{**RECORD, "slug": f"a-{number}"} for number in range(7)]
        items[4]["title"] = "Refused"
        report = await post(client, bearer(ada), lines(*items))
        assert counts(report) == (6, 0, 0, 1)
        assert [error["line"] for error in report["errors"]] == [5]

    async def test_batch_is_repeated_after_deadlocks(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        await session.execute(text("CREATE SEQUENCE inserts"))  # a rollback does not reset it
        await session.execute(
            text("""
                CREATE FUNCTION deadlock_twice() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
                    IF nextval('inserts') <= 2 THEN
                        RAISE EXCEPTION USING ERRCODE = 'deadlock_detected';
                    END IF;
                    RETURN NULL;
                END $$
            """)
        )
        await session.execute(
            text("CREATE TRIGGER twice BEFORE INSERT ON articles EXECUTE FUNCTION deadlock_twice()")
        )
        assert counts(await post(client, bearer(ada), lines(RECORD))) == (1, 0, 0, 0)
        assert await session.scalar(text("SELECT last_value FROM inserts")) == 3


class TestIdentity:
    """A record is the same only by its source and id there: never by slug, title or text."""

    @pytest.mark.parametrize("owner", ["the importer", "another author"])
    @pytest.mark.parametrize("is_public", [True, False])
    async def test_articles_written_here_are_never_changed(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        ada: User,
        owner: str,
        is_public: bool,
    ) -> None:
        author = ada if owner == "the importer" else await create_user(session)
        slug = RECORD["slug"]
        article = await create_article(
            session, author=author, slug=slug, published=is_public, title=RECORD["title"]
        )
        before = (await rows(session))[0].article
        report = await post(client, bearer(ada), lines(RECORD))
        assert counts(report) == (1, 0, 0, 0)
        assert (await rows(session))[0].article == before
        found = select(Article.draft_slug).where(Article.id != article.id)
        is_seen = is_public or owner == "the importer"
        assert await session.scalar(found) == (f"{slug}-2" if is_seen else slug)
        notes = [note["message"] for note in report["notes"]]
        expected = f"the slug is '{slug}-2', because '{slug}' is taken"
        assert notes == ([expected] if is_seen else [])
        changed = {**RECORD, "content": "Another text of it."}
        assert counts(await post(client, bearer(ada), lines(changed))) == (0, 1, 0, 0)
        assert (await rows(session))[0].article == before
        assert await session.scalar(found) == (f"{slug}-2" if is_seen else slug)

    async def test_former_slugs_are_not_taken_over(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        article = await create_article(session, author=ada, slug="present")
        session.add(FormerSlug(slug=RECORD["slug"], article_id=article.id))
        await session.flush()
        public = {**RECORD, "published_at": "1999-12-31T00:00:00Z"}
        assert counts(await post(client, bearer(ada), lines(public))) == (1, 0, 0, 0)
        slugs = set(await session.scalars(select(Article.slug)))
        assert slugs == {"present", f"{RECORD['slug']}-2"}

    async def test_users_have_sources_of_their_own(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        """No user can occupy the ids of another, or learn of them."""
        bob = await create_user(session)
        named = {**RECORD, "source": "https://blog.example", "source_id": "17"}
        for user in (bob, ada):
            assert counts(await post(client, bearer(user), lines(named))) == (1, 0, 0, 0)
            assert counts(await post(client, bearer(user), lines(named))) == (0, 0, 1, 0)
        found = await session.execute(select(ImportRecord.source, ImportRecord.source_id))
        assert set(found) == {
            (f"user {user.id}: https://blog.example", "17") for user in (ada, bob)
        }

    async def test_source_and_id_decide(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        first = {**RECORD, "source": "https://www.blog.example/", "source_id": "1"}
        await post(client, bearer(ada), lines(first))
        moved = {**first, "source": "http://Blog.example", "slug": "moved", "title": "Moved"}
        assert counts(await post(client, bearer(ada), lines(moved))) == (0, 1, 0, 0)
        for other in ({"source": "https://other.example"}, {"source_id": "2"}):
            assert counts(await post(client, bearer(ada), lines({**first, **other}))) == (
                1,
                0,
                0,
                0,
            )
        titles = await session.scalars(select(Article.title).order_by(Article.id))
        assert titles.all() == ["Moved", RECORD["title"], RECORD["title"]]

    async def test_further_fields_and_old_addresses_are_stored(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        kept = {"canonical_url": "https://a.example/", "sticky": True, "n": [1, None, {"x": "ü"}]}
        record = {**RECORD, "imported": kept, "old_paths": ["/2019/a/", "/?p=7"]}
        assert counts(await post(client, bearer(ada), lines(record))) == (1, 0, 0, 0)
        assert await session.scalar(select(Article.imported)) == kept
        found = select(Redirect.path, Redirect.source).order_by(Redirect.path)
        source = f"user {ada.id}: api"
        assert (await session.execute(found)).all() == [("/2019/a/", source), ("/?p=7", source)]
        (exported,) = await export(client, bearer(ada))
        assert exported["imported"] == kept
        changed = {**RECORD, "old_paths": ["/b/"]}
        assert counts(await post(client, bearer(ada), lines(changed))) == (0, 1, 0, 0)
        assert await session.scalar(select(Article.imported)) is None
        paths = await session.scalars(select(Redirect.path).order_by(Redirect.path))
        assert paths.all() == ["/2019/a/", "/?p=7", "/b/"]  # old addresses stay old addresses

    @pytest.mark.parametrize(
        "fields",
        [
            {"imported": {"a": "\0"}},
            {"imported": {"a": "\ud800"}},
            {"imported": {"a": "x" * 70_000}},
            {"old_paths": ["no-slash"]},
            {"old_paths": ["/ä"]},
            {"source_id": "a\nb"},
        ],
    )
    async def test_values_that_cannot_be_stored_are_rejected(
        self, client: httpx.AsyncClient, ada: User, fields: dict[str, Any]
    ) -> None:
        report = await post(client, bearer(ada), lines({**RECORD, **fields}))
        assert counts(report) == (0, 0, 0, 1)

    async def test_records_of_earlier_releases(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        """They have no source. The same content is recognised, a shared slug alone is not."""
        await post(client, bearer(ada), lines(RECORD))
        record = (await session.scalars(select(ImportRecord))).one()
        record.key = sha256(f"slug:{RECORD['slug']}".encode()).digest()
        record.source = record.source_id = None
        await session.flush()
        assert counts(await post(client, bearer(ada), lines(RECORD))) == (0, 0, 1, 0)
        sources = await session.scalars(select(ImportRecord.source))
        assert sources.all() == [f"user {ada.id}: api"]
        changed = {**RECORD, "title": "Changed"}
        assert counts(await post(client, bearer(ada), lines(changed))) == (0, 1, 0, 0)

    async def test_equal_article_is_not_imported_again(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        await create_article(
            session, author=ada, slug=RECORD["slug"], title=RECORD["title"], published=False,
            content=RECORD["content"],
        )  # fmt: skip
        before = await rows(session)
        assert counts(await post(client, bearer(ada), lines(RECORD))) == (0, 0, 1, 0)
        assert await rows(session) == before
        assert await session.scalar(select(func.count()).select_from(ImportRecord)) == 0
        changed = {**RECORD, "title": "Other"}
        assert counts(await post(client, bearer(ada), lines(changed))) == (1, 0, 0, 0)
        assert (await rows(session))[0] == before[0]

    async def test_article_that_is_deleted_during_the_import_is_created_again(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        ada: User,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        from app.services.bulk import planning

        await post(client, bearer(ada), lines(RECORD))
        before = await session.scalar(select(Article.id))
        look_up_slugs = planning._look_up_slugs

        async def delete_first(session: AsyncSession, *arguments: Any) -> None:
            await session.execute(text("DELETE FROM articles WHERE id = :id"), {"id": before})
            await look_up_slugs(session, *arguments)

        monkeypatch.setattr(planning, "_look_up_slugs", delete_first)
        changed = {**RECORD, "title": "Changed"}
        assert counts(await post(client, bearer(ada), lines(changed))) == (1, 0, 0, 0)
        assert (await session.scalars(select(Article.id))).all() != [before]

    async def test_article_in_the_trash_is_rejected(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        await post(client, bearer(ada), lines(RECORD))
        article = (await session.scalars(select(Article))).one()
        await client.delete(f"/articles/{article.id}", headers=bearer(ada))
        assert counts(await post(client, bearer(ada), lines(RECORD))) == (0, 0, 1, 0)
        report = await post(client, bearer(ada), lines({**RECORD, "title": "Other"}))
        assert counts(report) == (0, 0, 0, 1)
        assert "trash" in report["errors"][0]["message"]

    async def test_slug_can_be_changed_back(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        public = {**RECORD, "published_at": "1999-12-31T00:00:00Z"}
        await post(client, bearer(ada), lines(public))
        article = (await session.scalars(select(Article))).one()
        url = f"/articles/{article.id}"
        await client.patch(url, json={"slug": "elsewhere"}, headers=bearer(ada))
        changed = {**public, "title": "Other"}
        assert counts(await post(client, bearer(ada), lines(changed))) == (0, 1, 0, 0)
        await session.refresh(article)
        assert article.slug == RECORD["slug"]
        assert (await session.scalars(select(FormerSlug.slug))).all() == ["elsewhere"]


class TestPermissions:
    async def test_anonymous_import_is_rejected(self, client: httpx.AsyncClient) -> None:
        for method, path in (("POST", "/articles/import"), ("GET", "/articles/export")):
            response = await client.request(method, path, content=lines(RECORD), headers=NDJSON)
            assert response.status_code == 401

    async def test_author_imports_own_articles(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        await create_user(session, username="bob")
        report = await post(
            client,
            bearer(ada),
            lines({**FULL, "author": "Ada"}, {**RECORD, "author": "bob", "slug": "b"}),
        )
        assert counts(report) == (1, 0, 0, 1)
        (error,) = report["errors"]
        assert (error["line"], error["message"]) == (
            2,
            "author: you may only import your own articles",
        )

    @pytest.mark.parametrize("role", [Role.EDITOR, Role.ADMIN])
    async def test_editor_imports_for_other_authors(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User, role: Role
    ) -> None:
        editor = await create_user(session, role=role)
        mine = {**RECORD, "slug": "mine"}
        await post(client, bearer(editor), lines({**RECORD, "author": "ada"}, mine))
        found = await session.execute(select(Article.slug, Article.author_id))
        assert set(found) == {(RECORD["slug"], ada.id), ("mine", editor.id)}

    async def test_api_keys_need_the_scope(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        writing = await api_key(session, user=ada, scopes=["articles:write"])
        reading = await api_key(session, user=ada, scopes=["articles:read"])
        assert counts(await post(client, writing, lines(RECORD))) == (1, 0, 0, 0)
        refused = await client.post(
            "/articles/import", content=lines(RECORD), headers={**NDJSON, **reading}
        )
        assert (refused.status_code, refused.json()["code"]) == (403, "insufficient_scope")
        assert len(await export(client, reading)) == 1
        assert (await client.get("/articles/export", headers=writing)).status_code == 403

    async def test_publishing_requires_a_verified_email_if_configured(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        ada: User,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        from app.core.config import get_settings

        monkeypatch.setenv("REQUIRE_VERIFIED_EMAIL", "true")
        get_settings.cache_clear()
        try:
            draft = {**RECORD, "slug": "draft"}
            report = await post(client, bearer(ada), lines(FULL, draft))
            assert counts(report) == (1, 0, 0, 1)
            assert "Verify your email" in report["errors"][0]["message"]
            released = {**draft, "published_at": "2020-01-01T00:00:00Z"}
            assert counts(await post(client, bearer(ada), lines(released))) == (0, 0, 0, 1)
            ada.email_verified_at = datetime.now(UTC)
            await session.flush()
            assert counts(await post(client, bearer(ada), lines(FULL, released))) == (1, 1, 0, 0)
        finally:
            get_settings.cache_clear()

    @pytest.mark.parametrize("media_type", ["application/pdf", "text/plain", ""])
    async def test_other_content_types_are_rejected(
        self, client: httpx.AsyncClient, ada: User, media_type: str
    ) -> None:
        headers = {**bearer(ada), "Content-Type": media_type}
        response = await client.post("/articles/import", content=lines(RECORD), headers=headers)
        assert response.status_code == 415
        assert "application/x-ndjson" in response.json()["message"]


class TestExport:
    async def test_export_and_import_preserve_articles(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        bob = await create_user(session, username="bob")
        editor = await create_user(session, role=Role.EDITOR)
        special = '# A\r\n\r\ntab\t `code` \u2028 \U0001f389 \\ " </script>\n\n```\nx\n```\n'
        items = [
            {**FULL, "author": "ada"},
            {**RECORD, "slug": "draft", "author": "bob"},
            {**FULL, "slug": "archived", "archived": True, "author": "bob", "content": special},
            {**FULL, "slug": "scheduled", "published_at": "2099-01-01T00:00:00Z", "author": "ada"},
        ]
        assert counts(await post(client, bearer(editor), lines(*items))) == (4, 0, 0, 0)
        exported = await export(client, bearer(editor))
        for given, got in zip(items, exported, strict=True):
            assert {name: got.get(name) for name in given} == given
        # An import into the same database changes nothing.
        before = await rows(session)
        assert counts(await post(client, bearer(editor), lines(*exported))) == (0, 0, 4, 0)
        assert await rows(session) == before
        # An import into an empty database creates the same articles.
        await session.execute(text("DELETE FROM articles"))
        assert counts(await post(client, bearer(editor), lines(*exported))) == (4, 0, 0, 0)
        assert await export(client, bearer(editor)) == exported
        assert bob.id != ada.id

    async def test_created_articles_are_unchanged_by_their_export(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        for number in range(5):
            await create_article(session, author=ada, tags=["One", f"Tag {number}"])
        await create_article(session, author=ada, published=False)
        exported = await export(client, bearer(ada))
        before = await rows(session)
        assert counts(await post(client, bearer(ada), lines(*exported))) == (0, 0, 6, 0)
        assert await rows(session) == before

    async def test_export_contains_editable_articles(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        bob = await create_user(session, username="bob")
        admin = await create_user(session, role=Role.ADMIN)
        for author in (ada, bob):
            await create_article(session, author=author)
            await create_article(session, author=author, published=False)
            await create_article(session, author=author, deleted_at=datetime.now(UTC))
        assert [item["author"] for item in await export(client, bearer(ada))] == ["ada"] * 2
        assert len(await export(client, bearer(admin))) == 4

    async def test_export_in_several_batches(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        ada: User,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        from app.services.bulk import exporting

        for number in range(12):
            await create_article(session, author=ada, content="x" * (10 + 50 * (number % 3)))
        for batch, size in ((5, 10**6), (100, 130), (100, 1), (12, 10**6)):
            monkeypatch.setattr(exporting, "BATCH", batch)
            monkeypatch.setattr(exporting, "BATCH_BYTES", size)
            assert len({item["slug"] for item in await export(client, bearer(ada))}) == 12

    async def test_export_headers(self, client: httpx.AsyncClient, ada: User) -> None:
        response = await client.get("/articles/export", headers=bearer(ada))
        assert response.headers["content-type"] == "application/x-ndjson"
        assert response.headers["content-disposition"].startswith("attachment")
        assert "no-store" in response.headers["cache-control"]
        head = await client.head("/articles/export", headers=bearer(ada))
        assert (head.status_code, head.content) == (200, b"")


class TestKeySet:
    def test_contains_added_keys(self) -> None:
        added = records.KeySet()
        keys = [number.to_bytes(8) * 4 for number in range(0, 40_000, 2)]
        assert all(added.add(key) for key in keys)
        assert not any(added.add(key) for key in keys)
        assert keys[7] in added
        other = (12345).to_bytes(8)
        assert other not in added
        assert added.add(other)


class TestLines:
    @pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
    async def test_lines_are_independent_of_chunks(self, size: int) -> None:
        body = b"one\n\ntwo\r\n" + b"x" * 50 + b"\nthree"

        async def chunks() -> Any:
            for start in range(0, len(body), size):
                yield body[start : start + size]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ndjson, "MAX_RECORD_BYTES", 20)
            found = [line async for some in ndjson.read_lines(chunks()) for line in some]
        assert found == [(1, b"one"), (3, b"two"), (4, None), (5, b"three")]
