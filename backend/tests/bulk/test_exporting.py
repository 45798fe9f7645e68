"""Exports lose nothing: importing and exporting again yields the same bytes."""

import io
import json
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core import clock
from app.core.config import get_settings
from app.core.enums import CommentPolicy, Role
from app.db.session import Database
from app.models import Article, FormerSlug, User
from app.schemas.types import EARLIEST
from app.services.bulk import exporting, sources
from app.services.bulk.markdown_writing import FolderWriter
from app.services.bulk.records import Outcome
from app.services.bulk.reporting import Report
from app.services.bulk.sources import Format, ImportOptions
from app.services.media.storage import open_storage
from tests.databases import savepoint_of
from tests.factories import bearer, create_article, create_comment, create_user

STORAGE = open_storage(get_settings())
Server = Callable[[], AbstractAsyncContextManager[None]]

AUTHORS = ("ada", "Grace.Hopper", "x_1")
TAGS = ("C", "C++", "C#", "背景", "北京", "Été", "naïve café", "ß", "日本語", "1.10", "no", "🎉 a")
LANGUAGES = ("en", "de", "pt-BR", "zh-Hans", "zh-Hans-CN", "ja", "fa", "ko")
COVERS = ("https://example.com/a.jpg?x=1&y=%20", "/media/0123/640.webp")

_visible = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029")
_storable = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
_text = st.characters(
    exclude_categories=["Cs"],
    exclude_characters="".join(map(chr, {*range(32), 0x7F} - {9, 10, 13})),
)


def lines_of_text(size: int) -> st.SearchStrategy[str]:
    return st.text(_visible, min_size=1, max_size=size).map(str.strip).filter(bool)


def timestamps() -> st.SearchStrategy[str]:
    """Return dates of the years 1970 to 9999."""
    latest = datetime(9999, 12, 31, 23, 59, 59, 999_999, UTC)
    return st.integers(0, (latest - EARLIEST) // timedelta(microseconds=1)).map(
        lambda count: _timestamp(EARLIEST + timedelta(microseconds=count))
    )


def _timestamp(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def in_order(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: in_order(value[name]) for name in sorted(value)}
    return [in_order(each) for each in value] if isinstance(value, list) else value


_floats = st.floats(-1e15, 1e15, allow_nan=False).filter(lambda number: str(number) != "-0.0")
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**30), 10**30) | _floats | st.text(_storable),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(_storable, max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)
_imported = st.dictionaries(st.text(_storable, max_size=10), _json, max_size=4).map(in_order)
_paths = st.from_regex(r"\A/[!#-;=?-~]{1,30}\Z")


@st.composite
def comments(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Return comments in the order of their dates, some of which are replies."""
    ids = draw(st.lists(lines_of_text(20), unique=True, max_size=4))
    made: list[dict[str, Any]] = []
    for comment_id, at in zip(ids, sorted(draw(timestamps()) for _ in ids), strict=True):
        parent = draw(st.none() | st.sampled_from(made)) if made else None
        author = draw(st.none() | st.sampled_from(AUTHORS))
        fields = {
            "id": comment_id,
            "parent": parent and parent["id"],
            "author": author,
            "name": None if author else draw(lines_of_text(100)),
            "url": None if author else draw(st.none() | st.just("https://example.com/~a?b=1")),
            "content": draw(st.text(_text, min_size=1, max_size=100)),
            "status": draw(st.sampled_from((None, "pending", "hidden"))),
            "locked": parent is None and draw(st.booleans()),
            "created_at": at,
            "edited_at": draw(st.none() | timestamps()),
        }
        made.append({name: value for name, value in fields.items() if value not in (None, False)})
    return made


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    """Return the fields of a record in the order of an export, without slug and id."""
    fields = {
        "title": draw(lines_of_text(200)),
        "slug": "",
        "content": draw(st.text(_text, min_size=1, max_size=300)),
        "excerpt": draw(st.none() | lines_of_text(500)),
        "cover_image_url": draw(st.none() | st.sampled_from(COVERS)),
        "language": draw(st.sampled_from(LANGUAGES)),
        "tags": draw(st.lists(st.sampled_from(TAGS), unique=True)),
        "published_at": draw(st.none() | timestamps()),
        "archived": draw(st.booleans()),
        "created_at": draw(timestamps()),
        "updated_at": draw(timestamps()),
        "old_paths": sorted(draw(st.lists(_paths, unique=True, max_size=5))),
        "former_slugs": draw(st.integers(0, 3)) * [""],
        "imported": draw(st.none() | _imported),
        "author": draw(st.sampled_from(AUTHORS)),
        "source": draw(lines_of_text(500)),
        "source_id": draw(lines_of_text(400)),
        "comment_policy": draw(st.sampled_from((None, "held", "closed"))),
        "comments": draw(comments()),
    }
    return {name: value for name, value in fields.items() if value not in (None, False, [])}


def generated(count: int) -> list[dict[str, Any]]:
    """Return different records, the same in each run."""
    found: list[dict[str, Any]] = []

    @settings(
        max_examples=count,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(records())
    def collect(record: dict[str, Any]) -> None:
        number = len(found)
        record["slug"] = f"{number}" if number % 5 == 0 else f"a-{number}"
        record["source_id"] = f"{record['source_id']} {number}"
        if "former_slugs" in record:
            last = len(record["former_slugs"])
            record["former_slugs"] = [f"former-{number}-{each}" for each in range(last)]
        found.append(record)

    collect()
    return found


def to_lines(items: Iterable[dict[str, Any]]) -> bytes:
    text = "".join(
        json.dumps(item, ensure_ascii=False, separators=(",", ":")) + "\n" for item in items
    )
    return text.translate({0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}).encode()


async def export(database: Database) -> bytes:
    """Return the export of the operator."""
    batches = exporting.export_articles(database, viewer=None)
    return b"".join([exporting.to_line(record) async for part in batches for record in part])


async def load(database: Database, body: bytes, **options: Any) -> Report:
    """Import NDJSON as the command does. Return the report, whose file is closed."""

    async def chunks() -> AsyncIterator[bytes]:
        yield body

    path = Path("/all.ndjson")
    source = sources.SurveyedSource(path, Format.NDJSON, sources.Survey())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "_chunks", lambda *_: chunks())
        return await run_import(database, source, **options)


async def run_import(database: Database, source: sources.SurveyedSource, **options: Any) -> Report:
    """Import a source without a refused record. Return the report, whose file is closed."""
    with Report(now=clock.now()) as report:
        await sources.import_source(
            database,
            source,
            options=ImportOptions(**options),
            report=report,
            advance=lambda _: None,
            storage=STORAGE,
        )
        assert [entry for entry in report.entries() if entry.outcome == "refused"] == []
        return report


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def only(outcome: Outcome, count: int) -> dict[Outcome, int]:
    return {outcome: count}


STATE = """
    SELECT to_jsonb(a) AS article,
      (SELECT jsonb_agg(t ORDER BY tag_id) FROM article_tags t WHERE t.article_id = a.id) AS tags,
      (SELECT jsonb_agg(c ORDER BY id) FROM comments c WHERE c.article_id = a.id) AS comments,
      (SELECT jsonb_agg(r ORDER BY path) FROM redirects r WHERE r.article_id = a.id) AS redirects,
      (SELECT count(*) FROM article_revisions) AS revisions,
      (SELECT jsonb_agg(slug ORDER BY slug) FROM former_slugs WHERE article_id = a.id) AS slugs
    FROM articles a ORDER BY id
"""


async def state(database: Database) -> Sequence[Any]:
    async with database.autocommit() as connection:
        return (await connection.execute(text(STATE))).all()


@pytest.fixture
def server(connection: AsyncConnection) -> Server:
    """Return a block with an empty database, in which another server may have the same address."""
    return partial(savepoint_of, connection)


class TestRoundTrip:
    async def test_export_of_imported_records_is_the_same(
        self, database: Database, server: Server
    ) -> None:
        items = generated(150)
        body = to_lines(items)
        async with server():
            report = await load(database, body)
            assert report.counts == only(Outcome.CREATED, len(items))
            assert set(report.users) >= {item["author"] for item in items}
            exported = await export(database)
            for given_line, line in zip(body.splitlines(), exported.splitlines(), strict=True):
                assert line.decode() == given_line.decode()
            before = await state(database)
            for again in (body, exported):
                report = await load(database, again)
                assert report.counts == only(Outcome.UNCHANGED, len(items))
            assert await state(database) == before

    async def test_articles_written_here_keep_their_identity(
        self, database: Database, server: Server
    ) -> None:
        async with server():
            await write_articles(database)
            exported = await export(database)
            before = await state(database)
            report = await load(database, exported)
            assert report.counts == only(Outcome.UNCHANGED, len(before))
            assert await state(database) == before
            assert await export(database) == exported
        first = [json.loads(line) for line in exported.splitlines()]
        assert {item["source"][:11] for item in first} == {"pressroom: "}
        async with server():
            for outcome in (Outcome.CREATED, Outcome.UNCHANGED):
                assert (await load(database, exported)).counts == only(outcome, len(first))
            assert await export(database) == exported
            changed = [{**item, "title": f"{item['title']} 2"} for item in first]
            report = await load(database, to_lines(changed))
            assert report.counts == only(Outcome.UPDATED, len(first))

    async def test_exports_of_two_servers_are_not_confused(
        self, database: Database, server: Server
    ) -> None:
        """Ids, slugs and authors of both are equal, and so are their addresses."""
        exports = []
        for name in ("first", "second"):
            async with server():
                await database_unit(database, text("SELECT setval('articles_id_seq', 1, false)"))
                await write_articles(database, title=name)
                exports.append(await export(database))
        async with server():
            for exported in exports:
                count = len(exported.splitlines())
                assert (await load(database, exported)).counts == only(Outcome.CREATED, count)
            for exported in exports:
                count = len(exported.splitlines())
                assert (await load(database, exported)).counts == only(Outcome.UNCHANGED, count)

    async def test_changed_record_of_an_own_article_creates_another(
        self, database: Database, server: Server
    ) -> None:
        """An import never changes an article that was written here."""
        async with server():
            await write_articles(database)
            exported = [json.loads(line) for line in (await export(database)).splitlines()]
            before = await state(database)
            for change in (
                {"title": "Changed"},
                {"slug": "changed"},
                {"old_paths": ["/changed/"]},
                {"former_slugs": ["changed-before"]},
                {"comment_policy": "closed"},
            ):
                async with server():
                    report = await load(database, to_lines([{**exported[0], **change}]))
                    assert report.counts == only(Outcome.CREATED, 1), change
                    assert (await state(database))[: len(before)] == before
                    ids = [json.loads(each) for each in (await export(database)).splitlines()]
                    assert len({each["source_id"] for each in ids}) == len(before) + 1

    async def test_users_exports_are_their_own(
        self, client: httpx.AsyncClient, database: Database, server: Server
    ) -> None:
        """A user's export can be imported at the same server, and by another user elsewhere."""

        async def put(user: User, body: bytes) -> tuple[int, ...]:
            headers = {**bearer(user), "Content-Type": "application/x-ndjson"}
            answer = await client.post("/articles/import", content=body, headers=headers)
            found = answer.json()
            assert found["failed"] == 0, found
            return found["created"], found["updated"], found["unchanged"]

        async def get(user: User) -> bytes:
            answer = await client.get("/articles/export", headers=bearer(user))
            return answer.content

        record = {
            "title": "T",
            "content": "Some text.",
            "slug": "t",
            "source": "s",
            "source_id": "1",
        }
        async with server():
            async with database.unit_of_work() as session:
                editor = await create_user(session, username="editor", role=Role.EDITOR)
                ada = await create_user(session, username="ada")
            await write_articles(database, create_authors=False)
            assert await put(ada, to_lines([record])) == (1, 0, 0)
            exports = [await get(editor), await get(ada)]
            assert b'"source":"s","source_id":"1"' in exports[1]
            assert b'"source":"s"' not in exports[0]  # the ids of others are not exported
            for user, exported in ((editor, exports[0]), (ada, exports[1])):
                assert await put(user, exported) == (0, 0, len(exported.splitlines()))
                assert await get(user) == exported
        async with server():
            async with database.unit_of_work() as session:
                await create_user(session, username="other")
                editor = await create_user(session, username="editor", role=Role.EDITOR)
                ada = await create_user(session, username="ada")
            for user, exported in ((editor, exports[0]), (ada, exports[1])):
                if user is ada:
                    await database_unit(database, text("DELETE FROM articles"))
                count = len(exported.splitlines())
                assert await put(user, exported) == (count, 0, 0)
                assert await get(user) == exported
                assert await put(user, exported) == (0, 0, count)


async def database_unit(database: Database, *statements: Any) -> None:
    async with database.unit_of_work() as session:
        for statement in statements:
            await session.execute(statement)


async def write_articles(
    database: Database, *, title: str = "Written here", create_authors: bool = True
) -> None:
    """Write articles with everything that an author can use."""
    async with database.unit_of_work() as session:
        if create_authors:
            await create_user(session, username="ada")
        ada = (await session.scalars(select(User).where(User.username == "ada"))).one()
        await create_user(session, username="reader")
        reader = (await session.scalars(select(User).where(User.username == "reader"))).one()
        first = await create_article(
            session,
            author=ada,
            title=title,
            slug="first",
            tags=["Zebra", "apple"],
            comment_policy=CommentPolicy.HELD,
            cover_image_url=COVERS[1],
        )
        session.add(FormerSlug(slug="first-before", article_id=first.id))
        comment = await create_comment(session, article=first, author=reader)
        await create_comment(session, article=first, author=ada, parent=comment)
        await create_article(session, author=ada, title=title, published=False, tags=["ÉTÉ"])
        await create_article(
            session, author=ada, published_at=datetime(2999, 1, 1, tzinfo=UTC), slug="scheduled"
        )
        await create_article(session, author=ada, slug="archived", archived_at=clock.now())
        await create_article(session, author=ada, deleted_at=clock.now())


class TestFormerSlugs:
    async def test_former_slugs_redirect(
        self, client: httpx.AsyncClient, database: Database
    ) -> None:
        record = {
            "title": "T",
            "content": "Some text.",
            "slug": "now",
            "former_slugs": ["before", "taken", "now"],
            "published_at": "2020-01-01T00:00:00Z",
        }
        async with database.unit_of_work() as session:
            ada = await create_user(session)
            await create_article(session, author=ada, slug="taken")
        headers = {**bearer(ada), "Content-Type": "application/x-ndjson"}
        answer = await client.post("/articles/import", content=to_lines([record]), headers=headers)
        assert answer.json()["created"] == 1
        (note,) = answer.json()["notes"]
        assert note["message"] == "former addresses that belong to another article: taken"
        moved = await client.get("/articles/by-slug/before")
        assert (moved.status_code, moved.json()["moved_to"]) == (301, "now")
        taken = await client.get("/articles/by-slug/taken")
        assert taken.json()["slug"] == "taken"


class TestOtherFormats:
    async def test_markdown_folder_and_archive(
        self, client: httpx.AsyncClient, database: Database, server: Server, tmp_path: Path
    ) -> None:
        async with server():
            await write_articles(database)
            async with database.unit_of_work() as session:
                admin = await create_user(session, role=Role.ADMIN)
            answer = await client.get("/articles/export?format=markdown", headers=bearer(admin))
            assert answer.headers["content-type"] == "application/zip"
            assert 'filename="articles.zip"' in answer.headers["content-disposition"]
            with ZipFile(io.BytesIO(answer.content)) as archive:
                names = archive.namelist()
                texts = {name: archive.read(name) for name in names}
            assert archive.testzip() is None or names
            readme = texts.pop("README.txt").decode()
            assert "Markdown files contain no comments" in readme
            assert "Left out here: 2 comments." in readme
            writer = FolderWriter(tmp_path)
            async for part in exporting.export_articles(database, viewer=None):
                writer.write_all(part)
            assert files_in(tmp_path) == texts
            assert len(texts) == 4
            assert writer.lost["comments"] == 2
            before = await state(database)
            source = sources.open_source(
                tmp_path, source_format=Format.MARKDOWN, advance=lambda _: None
            )
            with Report(now=clock.now()) as report:
                await sources.import_source(
                    database,
                    source,
                    options=ImportOptions(),
                    report=report,
                    advance=lambda _: None,
                    storage=STORAGE,
                )
            assert report.counts == only(Outcome.UNCHANGED, 4)
            assert await state(database) == before
        async with server():
            with Report(now=clock.now()) as report:
                await sources.import_source(
                    database,
                    source,
                    options=ImportOptions(),
                    report=report,
                    advance=lambda _: None,
                    storage=STORAGE,
                )
            rows = {row.article["slug"]: row for row in await state(database)}
            assert rows["first"].slugs == ["first-before"]
            assert rows["first"].article["comment_policy"] == "held"

    async def test_ghost_file(
        self, client: httpx.AsyncClient, database: Database, server: Server, tmp_path: Path
    ) -> None:
        record = {
            "title": "With fields",
            "slug": "with-fields",
            "content": "A picture:\n\n![A](/media/0123/640.webp)\n\n> quoted `code`",
            "excerpt": "e" * 400,
            "published_at": "2020-01-01T00:00:00Z",
            "old_paths": ["/old/"],
            "imported": {"featured": True, "cover_alt": "Alt", "meta_title": "M", "other": 1},
            "author": "ada",
        }
        async with server():
            await write_articles(database)
            await load(database, to_lines([record]))
            async with database.unit_of_work() as session:
                admin = await create_user(session, role=Role.ADMIN)
            answer = await client.get("/articles/export?format=ghost", headers=bearer(admin))
        assert answer.headers["content-type"] == "application/json"
        (file,) = answer.json()["db"]
        assert list(answer.json()) == ["db"]  # Ghost accepts nothing else beside it
        remarks = " ".join(file["meta"]["not_exported"])
        assert "2 comments, 1 old addresses, 1 former slugs, 1 comment policies" in remarks
        assert "1 archived articles, which become drafts, 1 further fields" in remarks
        assert "1 excerpts after 300 characters" in remarks
        posts = {post["slug"]: post for post in file["data"]["posts"]}
        statuses = {slug: post["status"] for slug, post in posts.items()}
        assert statuses["first"] == "published"
        assert statuses["scheduled"] == "scheduled"
        assert statuses["archived"] == "draft"
        card = json.loads(posts["with-fields"]["lexical"])["root"]["children"][0]
        assert "![A](http" in card["markdown"]
        assert posts["with-fields"]["featured"] is True
        tags = {tag["id"]: tag["name"] for tag in file["data"]["tags"]}
        of_first = [
            tags[row["tag_id"]]
            for row in file["data"]["posts_tags"]
            if row["post_id"] == posts["first"]["id"]
        ]
        assert of_first == ["Zebra", "apple"]
        path = tmp_path / "ghost.json"
        path.write_bytes(answer.content)
        source = sources.open_source(path, source_format=Format.GHOST, advance=lambda _: None)
        async with server():
            with Report(now=clock.now()) as report:
                await sources.import_source(
                    database,
                    source,
                    options=ImportOptions(),
                    report=report,
                    advance=lambda _: None,
                    storage=STORAGE,
                )
            assert report.counts == only(Outcome.CREATED, 5)
            async with database.unit_of_work() as session:
                found = (
                    await session.scalars(select(Article).where(Article.slug == "with-fields"))
                ).one()
                imported = await session.scalar(
                    select(Article.imported).where(Article.id == found.id)
                )
            assert "> quoted `code`" in found.content
            assert imported == {"featured": True, "cover_alt": "Alt", "meta_title": "M"}

    async def test_large_archives_are_refused(
        self, client: httpx.AsyncClient, database: Database, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(exporting, "MAX_ARCHIVED", 1)
        async with database.unit_of_work() as session:
            ada, bob = await create_user(session), await create_user(session)
            for _ in range(2):
                await create_article(session, author=ada)
            await create_article(session, author=bob)
        statuses = [
            (await client.get("/articles/export?format=markdown", headers=bearer(user))).status_code
            for user in (ada, bob)
        ]
        assert statuses == [422, 200]


class TestLongComments:
    async def test_comments_that_are_too_long_for_a_line_are_divided(
        self, database: Database, server: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(exporting, "MAX_RECORD_BYTES", 1500)
        thread = [
            {"id": f"c{number}", "name": "Bob", "content": "ü" * 400, **replied}
            for number in range(5)
            for replied in [{"parent": f"c{number - 1}"} if number else {}]
        ]
        record = {"title": "T", "content": "Some text.", "slug": "t", "author": "ada"}
        async with server():
            await load(database, to_lines([{**record, "comments": thread}]))
            exported = await export(database)
        lines = [json.loads(line) for line in exported.splitlines()]
        assert len(lines) == 5
        assert all(len(line) < 1500 for line in exported.splitlines())
        async with server():
            dry = await load(database, exported, dry_run=True)
            report = await load(database, exported)
            assert dry.counts == report.counts == {Outcome.CREATED: 1, Outcome.UPDATED: 4}
            assert await export(database) == exported
            for _ in range(2):
                assert (await load(database, exported)).counts == only(Outcome.UNCHANGED, 5)
            rows = (await state(database))[0].comments
            assert [row["parent_id"] for row in rows] == [None, *(row["id"] for row in rows[:-1])]

    async def test_other_records_with_the_same_id_are_refused(
        self, client: httpx.AsyncClient, database: Database
    ) -> None:
        async with database.unit_of_work() as session:
            ada = await create_user(session)
        record = {"title": "T", "content": "Some text.", "slug": "t", "source_id": "1"}
        comments = {"comments": [{"id": "1", "name": "Bob", "content": "Hello"}]}
        items = [record, {**record, **comments}, {**record, **comments, "title": "Other"}]
        headers = {**bearer(ada), "Content-Type": "application/x-ndjson"}
        for query in ("?dry_run=true", ""):
            answer = await client.post(
                f"/articles/import{query}", content=to_lines(items), headers=headers
            )
            found = answer.json()
            assert (found["created"], found["updated"], found["failed"]) == (1, 1, 1)
            assert "the same id in the source" in found["errors"][0]["message"]
