"""Tags: equality of names, slugs, and what unlisted tags must not reveal or cost."""

import json
import sys
import unicodedata
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.content.slugs import tag_key, tag_slug
from app.core import clock
from app.core.enums import Role
from app.db.session import Database
from app.models import Article, ArticleTag, Tag, User
from app.services.articles import tags
from app.services.articles.tagging import lock_tags
from tests.factories import bearer, create_article, create_articles, create_user

ARTICLE = {"title": "Tags", "content": "Some content for it."}
TOGETHER = 16
"""The number of characters in a name with which functions are compared."""


@pytest.fixture
async def ada(session: AsyncSession) -> User:
    return await create_user(session)


@pytest.fixture
async def ben(session: AsyncSession) -> User:
    return await create_user(session)


@pytest.fixture
async def editor(session: AsyncSession) -> User:
    return await create_user(session, role=Role.EDITOR)


async def write(
    client: httpx.AsyncClient, user: User, tags: Sequence[str], **fields: Any
) -> dict[str, Any]:
    body = {**ARTICLE, "tags": list(tags), **fields}
    response = await client.post("/articles", json=body, headers=bearer(user))
    assert response.status_code == 201, response.text
    created: dict[str, Any] = response.json()
    return created


async def publish(client: httpx.AsyncClient, user: User, *tags: str) -> dict[str, Any]:
    return await write(client, user, tags, published=True)


async def slugs_of(client: httpx.AsyncClient, user: User | None = None) -> dict[str, str]:
    headers = bearer(user) if user else {}
    return {tag["name"]: tag["slug"] for tag in (await client.get("/tags", headers=headers)).json()}


async def found(client: httpx.AsyncClient, tag: str, user: User | None = None) -> set[int]:
    headers = bearer(user) if user else {}
    response = await client.get("/articles", params={"tag": tag}, headers=headers)
    return {article["id"] for article in response.json()}


class TestKeys:
    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("Engines", "ENGINES"),
            ("steam engines", "Steam\u00a0 Engines"),
            ("\uff23\uff0b\uff0b", "c++"),
            ("ｶﾀｶﾅ", "カタカナ"),
            ("Straße", "STRASSE"),
            ("ΣΑΣ", "σας"),
            ("e\u0301te\u0301", "Été"),
            ("❤\ufe0f", "❤"),
            ("پی\u200cشی", "پیشی"),
            ("#python", "Python"),
            ("\uff03python", "Python"),
            ("mc²", "MC2"),
            ("\u210cilbert", "hilbert"),  # a symbol whose normal form is a capital letter
            ("so\u00adft", "soft"),
        ],
    )
    def test_equal_names_have_the_same_key(self, one: str, other: str) -> None:
        assert tag_key(one) == tag_key(other)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("背景", "北京"),
            ("权力", "权利"),
            ("公示", "公式"),
            ("回忆", "會議"),
            ("C", "C++"),
            ("C#", "C++"),
            (".NET", "net"),
            ("node.js", "node js"),
            ("été", "ete"),
            ("s\u0131", "si"),
            ("İ", "I"),
            ("\u0430", "a"),  # Cyrillic
            ("👍", "👎"),
            ("\U0001f3f4\U000e0067\U000e0062\U000e007f", "\U0001f3f4"),
        ],
    )
    def test_different_names_have_different_keys(self, one: str, other: str) -> None:
        assert tag_key(one) != tag_key(other)

    @pytest.mark.parametrize(
        ("name", "slug"),
        [
            ("C", "c"),
            ("C++", "c-plus-plus"),
            ("C#", "c-sharp"),
            (".NET", "dot-net"),
            ("#python", "python"),
            ("背景", "bei-jing"),
            ("1", "tag-1"),
            ("❤", "heart"),
        ],
    )
    def test_slug_is_derived_from_the_key(self, name: str, slug: str) -> None:
        assert tag_slug(tag_key(name)) == slug

    async def test_sql_function_returns_the_same_key(self, session: AsyncSession) -> None:
        """For each assigned character, surrounded by characters that may combine with it."""
        assigned = [
            chr(code)
            for code in range(1, sys.maxunicode + 1)
            if unicodedata.category(chr(code)) not in {"Cn", "Cs", "Co"}
        ]
        around = [f"A{one} {one}ß" for one in assigned]
        together = range(0, len(around), TOGETHER)  # calls take longer than their characters
        names = [f"#{''.join(around[start : start + TOGETHER])}" for start in together]
        expected = [tag_key(name) for name in names]
        assert [tag_key(key) for key in expected] == expected
        statement = text("SELECT tag_key(name) FROM unnest(CAST(:names AS text[])) AS name")
        keys = (await session.scalars(statement, {"names": names})).all()
        different = [each for each in zip(names, keys, expected, strict=True) if each[1] != each[2]]
        assert not different


class TestWriting:
    @pytest.mark.parametrize("published", [True, False])
    async def test_equal_transliterations_are_different_tags(
        self, client: httpx.AsyncClient, ada: User, editor: User, *, published: bool
    ) -> None:
        names = ["C", "C++", "C#", "北京", "背景", ".NET", "net"]
        for name in names:
            assert (await write(client, ada, [name], published=published))["tags"] == [name]
        together = await write(client, ada, names, published=published)
        assert sorted(together["tags"]) == sorted(names)
        slugs = await slugs_of(client, None if published else editor)
        assert slugs == {
            "C": "c", "C++": "c-plus-plus", "C#": "c-sharp", "北京": "bei-jing",
            "背景": "bei-jing-2", ".NET": "dot-net", "net": "net",
        }  # fmt: skip

    async def test_duplicate_names_in_an_article_are_one_tag(
        self, client: httpx.AsyncClient, ada: User
    ) -> None:
        names = ["c++", "C++", "\uff23\uff0b\uff0b", "#C++", "c"]
        assert (await publish(client, ada, *names))["tags"] == ["c", "c++"]

    async def test_realworld_api_distinguishes_them(
        self, client: httpx.AsyncClient, ada: User
    ) -> None:
        article = {"title": "T", "description": "d", "body": "Long enough.", "tagList": ["背景"]}
        await publish(client, ada, "北京")
        response = await client.post(
            "/api/articles", json={"article": article}, headers=bearer(ada)
        )
        assert response.json()["article"]["tagList"] == ["背景"]
        listed = await client.get("/api/articles", params={"tag": "背景"})
        assert listed.json()["articlesCount"] == 1
        assert set((await client.get("/api/tags")).json()["tags"]) == {"北京", "背景"}

    async def test_renaming_to_equal_transliteration_does_not_merge(
        self, client: httpx.AsyncClient, ada: User, editor: User
    ) -> None:
        await publish(client, ada, "北京")
        await publish(client, ada, "Wires")
        response = await client.put("/tags/wires", json={"name": "背景"}, headers=bearer(editor))
        assert response.json() == {"name": "背景", "slug": "bei-jing-2", "article_count": 1}
        assert "X-Merged-Into" not in response.headers
        again = await client.put("/tags/bei-jing-2", json={"name": "北京"}, headers=bearer(editor))
        assert again.headers["X-Merged-Into"] == "bei-jing"


class TestFilters:
    async def test_filter_accepts_name_or_slug(self, client: httpx.AsyncClient, ada: User) -> None:
        capital = (await publish(client, ada, "北京"))["id"]
        background = (await publish(client, ada, "背景"))["id"]
        for tag in ("北京", "bei-jing", "Bei-Jing"):
            assert await found(client, tag) == {capital}
        for tag in ("背景", "bei-jing-2"):
            assert await found(client, tag) == {background}
        assert await found(client, "bei jing") == set()

    async def test_name_takes_precedence_over_slug(
        self, client: httpx.AsyncClient, ada: User, ben: User
    ) -> None:
        capital = (await publish(client, ada, "北京"))["id"]
        await write(client, ben, ["bei-jing"])
        assert await found(client, "bei-jing") == {capital}  # the other name is not public
        named = (await publish(client, ada, "bei-jing"))["id"]
        assert await found(client, "bei-jing") == {named}
        assert await found(client, "北京") == {capital}

    async def test_tags_are_found_by_prefix_of_name_or_slug(
        self, client: httpx.AsyncClient, ada: User
    ) -> None:
        await publish(client, ada, "C", "C++", "C#", "北京")
        for prefix, names in (
            ("c", {"C", "C++", "C#"}),
            ("c+", {"C++"}),
            ("#c#", {"C#"}),
            ("bei", {"北京"}),
            ("北", {"北京"}),
            ("%", set()),
        ):
            response = await client.get("/tags", params={"q": prefix})
            assert {tag["name"] for tag in response.json()} == names


class TestHiddenSpellings:
    async def test_spelling_in_a_draft_is_not_disclosed(
        self, client: httpx.AsyncClient, ada: User, ben: User, editor: User
    ) -> None:
        secret = await write(client, ada, ["SECRET Project"])
        draft = await write(client, ben, ["secret project"])
        assert secret["tags"] == ["SECRET Project"]
        assert draft["tags"] == ["secret project"]
        lines = (await client.get("/articles/export", headers=bearer(editor))).text.splitlines()
        assert [json.loads(line)["tags"] for line in lines] == [
            ["SECRET Project"], ["secret project"],
        ]  # fmt: skip
        public = await publish(client, ben, "Secret project")
        assert public["tags"] == ["Secret project"]
        for article in (secret, draft):  # with the public spelling from now on
            read = await client.get(f"/articles/{article['id']}", headers=bearer(editor))
            assert read.json()["tags"] == ["Secret project"]
        assert await slugs_of(client) == {"Secret project": "secret-project"}
        assert (await client.get("/api/tags")).json() == {"tags": ["Secret project"]}
        feed = (await client.get("/tags/secret-project/feed.json")).json()
        assert feed["title"].startswith("Secret project")
        assert (await publish(client, ada, "SECRET project"))["tags"] == ["Secret project"]

    async def test_publishing_sets_the_spelling(
        self, client: httpx.AsyncClient, ada: User, ben: User
    ) -> None:
        await write(client, ada, ["SECRET"])
        draft = await write(client, ben, ["Secret"])
        url, headers = f"/articles/{draft['id']}", bearer(ben)
        again = await client.patch(url, json={"tags": ["sEcReT"]}, headers=headers)
        assert again.json()["tags"] == ["sEcReT"]
        assert again.json()["version"] == draft["version"] + 1
        published = await client.patch(url, json={"published": True}, headers=headers)
        assert published.json()["tags"] == ["sEcReT"]
        assert await slugs_of(client) == {"sEcReT": "secret"}
        same = await client.patch(url, json={"tags": ["secret"]}, headers=headers)
        assert same.json()["version"] == published.json()["version"]

    async def test_due_article_sets_the_spelling_without_a_write(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        ada: User,
        ben: User,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        soon = clock.now() + timedelta(hours=1)
        await create_article(session, author=ada, tags=["FIRST draft"], published=False)
        later = soon + timedelta(minutes=1)
        await create_article(session, author=ada, tags=["First Draft"], published_at=later)
        await create_article(session, author=ben, tags=["first draft"], published_at=soon)
        assert await slugs_of(client) == {}
        monkeypatch.setattr(clock, "now", lambda: later)
        for sort in ("name", "count"):
            response = await client.get(f"/tags?sort={sort}")
            assert response.json() == [
                {"name": "first draft", "slug": "first-draft", "article_count": 2}
            ]
        assert (await client.get("/tags/first-draft")).json()["name"] == "first draft"
        feed = (await client.get("/tags/first-draft/feed.json")).json()
        assert feed["title"].startswith("first draft")
        assert len(await found(client, "FIRST DRAFT")) == 2

    async def test_announcement_lists_the_tag(self, session: AsyncSession, ada: User) -> None:
        soon = clock.now() + timedelta(hours=1)
        article = await create_article(session, author=ada, tags=["Soon"], published_at=soon)
        assert not await session.scalar(select(Tag.is_listed))
        for statement in (  # one hour passes
            "SET LOCAL session_replication_role = replica",
            "UPDATE articles SET published_at = now() - interval '1 minute'",
            "UPDATE article_tags SET listed_at = now() - interval '1 minute'",
            "SET LOCAL session_replication_role = origin",
        ):
            await session.execute(text(statement))
        announce = "UPDATE articles SET awaits_publication = false WHERE id = :id"
        await session.execute(text(announce), {"id": article.id})
        assert await session.scalar(select(Tag.is_listed))

    async def test_renaming_replaces_spellings_in_drafts(
        self, client: httpx.AsyncClient, ada: User, ben: User, editor: User
    ) -> None:
        secret = await write(client, ada, ["SECRET"])
        other = await write(client, ben, ["Other"])
        for slug in ("other", "secret"):
            response = await client.put(
                f"/tags/{slug}", json={"name": "Secret!"}, headers=bearer(editor)
            )
            assert response.json()["name"] == "Secret!"
        for article in (secret, other):
            read = await client.get(f"/articles/{article['id']}", headers=bearer(editor))
            assert read.json()["tags"] == ["Secret!"]


class TestHiddenSlugs:
    async def test_unlisted_tag_does_not_occupy_a_slug(
        self, client: httpx.AsyncClient, ada: User, ben: User, editor: User
    ) -> None:
        for name in ("secret project", "Sécret project", "secrét project"):
            await write(client, ada, [name])
        await publish(client, ben, "secret-project")
        assert await slugs_of(client) == {"secret-project": "secret-project"}
        every = await slugs_of(client, editor)
        assert len(set(every.values())) == 4
        await publish(client, ada, "secrét project")
        assert (await slugs_of(client))["secrét project"] == "secret-project-2"

    async def test_freed_slug_is_reused(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User, ben: User
    ) -> None:
        await write(client, ada, ["北京"])
        await write(client, ben, ["背景"])
        await session.execute(text("DELETE FROM tags WHERE name = '北京'"))
        await publish(client, ben, "背景")
        assert await slugs_of(client) == {"背景": "bei-jing"}

    async def test_order_of_tags_does_not_disclose_it(
        self, client: httpx.AsyncClient, ada: User, ben: User
    ) -> None:
        names = ["bei-jing 10", "背景"]
        before = (await write(client, ben, names))["tags"]
        await write(client, ada, ["北京"])
        after = (await write(client, ben, names))["tags"]
        assert before == after == ["背景", "bei-jing 10"]


ROWS_READ = text(
    "SELECT sum(seq_tup_read + idx_tup_fetch) FROM pg_stat_xact_user_tables"
    " WHERE relname IN ('tags', 'article_tags', 'articles')"
)
"""Return the number of rows that this transaction has read, including filtered ones."""


MANY = 2000


class TestPerformance:
    @pytest.mark.parametrize("scheduled", [False, True])
    async def test_unlisted_tags_do_not_slow_down_reads(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        ada: User,
        *,
        scheduled: bool,
    ) -> None:
        """Lists read no rows of unlisted tags, however many exist."""
        await create_article(session, author=ada, tags=["Seen"])
        far = clock.now() + timedelta(days=365)
        when: dict[str, Any] = {"published_at": far} if scheduled else {"published": False}
        await create_articles(session, [{"title": "Hidden", **when}] * (MANY // 20), author=ada)
        await session.execute(
            text(
                "INSERT INTO tags (name, slug)"
                " SELECT 'hidden ' || n, 'hidden-' || n FROM generate_series(1, :many) AS n"
            ),
            {"many": MANY},
        )
        await session.execute(
            text(
                "INSERT INTO article_tags (article_id, tag_id) SELECT a.id, t.id"
                " FROM (SELECT id, row_number() OVER (ORDER BY id) AS n FROM articles"
                "  WHERE title = 'Hidden') AS a"
                " JOIN (SELECT id, row_number() OVER (ORDER BY id) AS n FROM tags"
                "  WHERE slug LIKE 'hidden-%') AS t ON t.n % :articles = a.n % :articles"
            ),
            {"articles": MANY // 20},
        )
        await session.execute(text("ANALYZE tags, article_tags, articles"))
        for path in (
            "/tags?sort=name",
            "/tags?sort=count",
            "/tags?sort=name&q=hidden",
            "/tags?sort=count&q=hidden",
            "/api/tags",
        ):
            before = await session.scalar(ROWS_READ)
            assert (await client.get(path)).status_code == 200
            assert await session.scalar(ROWS_READ) - before < 25, path


class TestCleanup:
    async def test_unused_tag_is_deleted(
        self, database: Database, session: AsyncSession, ada: User
    ) -> None:
        article = await create_article(session, author=ada, tags=["Kept", "Gone", "Lost"])
        await create_article(session, author=ada, tags=["Hidden"], published=False)
        await session.execute(
            text(
                "DELETE FROM article_tags USING tags WHERE tag_id = id AND slug <> 'kept'"
                " AND article_id = :id"
            ),
            {"id": article.id},
        )
        await tags.clean_up(database)
        rows = await session.execute(select(Tag.slug, Tag.is_listed).order_by(Tag.slug))
        assert [tuple(row) for row in rows] == [("hidden", False), ("kept", True)]

    async def test_tag_without_public_articles_is_unlisted(
        self,
        client: httpx.AsyncClient,
        database: Database,
        session: AsyncSession,
        ada: User,
        ben: User,
    ) -> None:
        article = await publish(client, ada, "Once")
        url = f"/articles/{article['id']}"
        await client.patch(url, json={"published": False}, headers=bearer(ada))
        assert await slugs_of(client) == {}
        await tags.clean_up(database)
        assert not await session.scalar(select(Tag.is_listed))
        assert (await publish(client, ben, "ONCE"))["tags"] == ["ONCE"]


class TestPreviousRelease:
    async def test_previous_release_may_insert_tags(
        self, client: httpx.AsyncClient, database: Database, session: AsyncSession, ada: User
    ) -> None:
        insert = "INSERT INTO tags (name, slug) VALUES (:name, :slug) ON CONFLICT (slug) DO NOTHING"
        first = await publish(client, ada, "C#")  # c-sharp
        for name, slug in (("C#", "c"), ("Été", "ete"), ("ete", "ete")):
            await session.execute(text(insert), {"name": name, "slug": slug})
        rows = await session.execute(select(Tag.slug, Tag.key).order_by(Tag.slug))
        assert {row.slug: row.key for row in rows} == {"c": None, "c-sharp": "c#", "ete": "été"}
        article = await create_article(session, author=ada)
        tagging = (
            "INSERT INTO article_tags (article_id, tag_id)"
            " SELECT :id, id FROM tags WHERE slug = 'c'"
        )
        await session.execute(text(tagging), {"id": article.id})
        await tags.clean_up(database)  # merges both into one tag
        assert await found(client, "c#") == {first["id"], article.id}
        assert await slugs_of(client) == {"C#": "c-sharp"}

    async def test_previous_release_may_rename_tags(self, session: AsyncSession, ada: User) -> None:
        await create_article(session, author=ada, tags=["Engines"])
        await session.execute(text("UPDATE tags SET name = 'Été', slug = 'ete'"))
        assert await session.scalar(select(Tag.key)) == "été"


class TestImporting:
    async def test_tags_keep_their_order(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        record = {**ARTICLE, "slug": "imported", "tags": ["zebra", "apple"]}

        async def imported(**fields: Any) -> dict[str, int]:
            headers = {**bearer(ada), "Content-Type": "application/x-ndjson"}
            body = json.dumps({**record, **fields})
            response = await client.post("/articles/import", content=body, headers=headers)
            report: dict[str, int] = response.json()
            return report

        async def order() -> list[str]:
            names = select(Tag.name).join(ArticleTag).order_by(ArticleTag.position)
            return list(await session.scalars(names))

        assert (await imported())["created"] == 1
        assert await order() == ["zebra", "apple"]
        exported = (await client.get("/articles/export", headers=bearer(ada))).json()
        assert exported["tags"] == ["zebra", "apple"]
        assert (await imported(tags=["apple", "zebra"]))["unchanged"] == 1
        assert await order() == ["zebra", "apple"]
        assert (await imported(tags=["mole", "zebra", "apple"]))["updated"] == 1
        assert await order() == ["mole", "zebra", "apple"]
        assert await session.scalar(select(Article.version)) == 2

    async def test_digests_of_earlier_releases_stay_valid(self) -> None:
        from app.services.bulk.records import _canonical_tag

        names = ("Steam  Engines", "go", "北京", "C++", "Été")
        assert [_canonical_tag(name) for name in names] == [
            "steam-engines", "go", "北京", "c++", "été",
        ]  # fmt: skip


async def test_import_may_create_more_tags_than_statement_parameters(
    session: AsyncSession,
) -> None:
    names = [f"tag number {number}" for number in range(10_000)]  # 500 records with 20 tags each
    created = await lock_tags(session, names)
    assert [tag.default_spelling for tag in created.by_key.values()] == names
    again = await lock_tags(session, names)
    assert again.by_key == created.by_key
