"""Exports lose nothing: importing and exporting again yields the same bytes."""

import io
import json
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from random import Random
from tempfile import NamedTemporaryFile
from typing import Any
from zipfile import ZipFile

import httpx
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.core import clock
from app.core.config import get_settings
from app.core.enums import CommentPolicy, Role
from app.db.session import Database
from app.models import Article, FormerSlug, User
from app.schemas.types import EARLIEST, LATEST
from app.services.bulk import exporting, sources
from app.services.bulk.foreign import Survey
from app.services.bulk.markdown_writing import FolderWriter
from app.services.bulk.records import Outcome
from app.services.bulk.reporting import Report
from app.services.bulk.sources import Format, ImportOptions
from app.services.media.storage import open_storage
from tests.databases import savepoint_of
from tests.factories import bearer, create_article, create_comment, create_user
from tests.test_lists import statements

STORAGE = open_storage(get_settings())
Server = Callable[[], AbstractAsyncContextManager[None]]

ROUNDS, RECORDS = 3, 40
AUTHORS = ("ada", "Grace.Hopper", "x_1")
TAGS = ("C", "C++", "C#", "背景", "北京", "Été", "naïve café", "ß", "日本語", "1.10", "no", "🎉 a")
LANGUAGES = ("en", "de", "pt-BR", "zh-Hans", "zh-Hans-CN", "ja", "fa", "ko")
COVERS = ("https://example.com/a.jpg?x=1&y=%20", "/media/0123/640.webp")

RANGES = (
    (0x21, 0x7E), (0x21, 0x7E), (0xA0, 0x24F), (0x300, 0x36F), (0x400, 0x4FF), (0x5D0, 0x6FF),
    (0xE01, 0xE5B), (0x200B, 0x2027), (0x202A, 0x206F), (0x3041, 0x30FF), (0x4E00, 0x9FFF),
    (0xAC00, 0xD7A3), (0xE000, 0xE010), (0xFDD0, 0xFDEF), (0xFFF0, 0xFFFF), (0x1F300, 0x1FAFF),
    (0xE0000, 0xE007F), (0x10FFF0, 0x10FFFF),
)  # fmt: skip
SPECIAL = ('"', "\\", "</script>", "[a](b)", "**", "<b>", "&amp;", "{{x}}", "---", "\u00a0", " ")
BREAKS = ("\n", "\r\n", "\t", "\n\n", "\x85", "\u2028", "\u2029", "\x80", "\x9f")
CONTROL = ("\x01", "\x1f", "\x7f")


class Records:
    """Random records, with the fields in the order of an export."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed)

    def record(self) -> dict[str, Any]:
        """Return the fields of a record, without those that have their default value."""
        random = self._random
        fields = {
            "title": self.line(200),
            "slug": "",
            "content": self.text(300, BREAKS),
            "excerpt": self.maybe(self.line, 500),
            "cover_image_url": random.choice((None, *COVERS)),
            "language": random.choice(LANGUAGES),
            "tags": random.sample(TAGS, random.choice((0, 1, 3, len(TAGS)))),
            "published_at": self.maybe(self.timestamp),
            "archived": random.random() < 0.2,
            "created_at": self.timestamp(),
            "updated_at": self.timestamp(),
            "old_paths": sorted({self.path() for _ in range(random.choice((0, 0, 1, 5)))}),
            "former_slugs": random.choice((0, 0, 1, 3)) * [""],
            "imported": self.maybe(self.members, 3),
            "author": random.choice(AUTHORS),
            "source": self.line(500),
            "source_id": self.line(400),
            "comment_policy": random.choice((None, "held", "closed")),
            "comments": self.comments(),
        }
        return without_defaults(fields)

    def maybe(self, make: Callable[..., Any], *arguments: Any) -> Any:
        return make(*arguments) if self._random.random() < 0.5 else None

    def text(self, size: int, more: Sequence[str] = ()) -> str:
        """Return a text of 1 to `size` characters, often a short one and sometimes the longest."""
        random = self._random
        length = random.choice((1, 2, random.randint(1, size), size))
        letters = (self.letter(more) for _ in range(length))
        return "".join(letters)[:size] or "x"

    def letter(self, more: Sequence[str]) -> str:
        random = self._random
        if random.random() < 0.15:
            return random.choice((*SPECIAL, *more))
        return chr(random.randint(*random.choice(RANGES)))

    def line(self, size: int) -> str:
        return self.text(size).strip() or "x"

    def path(self) -> str:
        random = self._random
        allowed = sorted({*map(chr, range(0x21, 0x7F))} - {*'"<>'})
        return "/" + "".join(random.choices(allowed, k=random.randint(1, 30)))

    def timestamp(self) -> str:
        latest = (LATEST - EARLIEST) // timedelta(microseconds=1)
        count = self._random.choice((0, latest, self._random.randint(0, latest), 10**15))
        at = EARLIEST + timedelta(microseconds=count)
        return at.isoformat().replace("+00:00", "Z")

    def members(self, depth: int) -> dict[str, Any]:
        names = {self.text(10, CONTROL) for _ in range(self._random.randint(0, 4))}
        return {name: self.value(depth - 1) for name in sorted(names)}

    def value(self, depth: int) -> Any:
        random = self._random
        made: list[Callable[[], Any]] = [
            lambda: None,
            lambda: random.random() < 0.5,
            lambda: random.choice((0, -1, 2**63, -(10**30), random.randint(-(10**6), 10**6))),
            lambda: random.choice((0.0, 1.0, 1e-7, 1.5e-300, 1e15, random.uniform(-1e9, 1e9))),
            lambda: self.text(40, (*BREAKS, *CONTROL)),
            lambda: "",
        ]
        if depth:
            made += [
                lambda: self.members(depth),
                lambda: [self.value(depth - 1) for _ in range(random.randint(0, 3))],
            ]
        return random.choice(made)()

    def comments(self) -> list[dict[str, Any]]:
        """Return comments in the order of their dates, some of which are replies."""
        random = self._random
        dates = sorted(self.timestamp() for _ in range(random.choice((0, 0, 1, 4))))
        made: list[dict[str, Any]] = []
        for number, at in enumerate(dates):
            parent = random.choice((None, *made))
            author = random.choice((None, *AUTHORS))
            fields = {
                "id": f"{self.line(20)} {number}",
                "parent": parent and parent["id"],
                "author": author,
                "name": None if author else self.line(100),
                "url": None if author else random.choice((None, "https://example.com/~a?b=1")),
                "content": self.text(100, BREAKS),
                "status": random.choice((None, "pending", "hidden")),
                "locked": parent is None and random.random() < 0.3,
                "created_at": at,
                "edited_at": self.maybe(self.timestamp),
            }
            made.append(without_defaults(fields))
        return made


def without_defaults(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, False, [])}


def records_of(seed: int, count: int) -> list[dict[str, Any]]:
    """Return records with different ids and slugs."""
    made = Records(seed)
    items = [made.record() for _ in range(count)]
    for number, item in enumerate(items):
        item["slug"] = f"{number}" if number % 5 == 0 else f"a-{number}"
        item["source_id"] = f"{item['source_id']} {number}"
        if former := item.get("former_slugs"):
            item["former_slugs"] = [f"former-{number}-{each}" for each in range(len(former))]
    return items


def seeds(count: int) -> list[int]:
    """Return seeds from Hypothesis: drawing each part of a record takes 20 times as long."""
    found: list[int] = []

    @settings(max_examples=count, database=None, phases=[Phase.generate])
    @given(st.integers(0, 2**32))
    def collect(seed: int) -> None:
        found.append(seed)

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
    with NamedTemporaryFile(suffix=".ndjson") as file:
        file.write(body)
        file.flush()
        source = sources.SurveyedSource(Path(file.name), Format.NDJSON, Survey())
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


def without_comments(body: bytes) -> list[dict[str, Any]]:
    return [{**json.loads(line), "comments": []} for line in body.splitlines()]


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
      (SELECT jsonb_agg(slug ORDER BY slug) FROM former_slugs WHERE article_id = a.id) AS slugs,
      (SELECT jsonb_agg(slug ORDER BY slug) FROM draft_former_slugs WHERE article_id = a.id)
        AS draft_slugs
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
        for seed in seeds(ROUNDS):
            print(f"seed {seed}")
            await self.check(database, server, records_of(seed, RECORDS))

    async def check(
        self, database: Database, server: Server, items: Sequence[dict[str, Any]]
    ) -> None:
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
            assert report.counts == only(Outcome.UNCHANGED, len(exported.splitlines()))
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
                    assert len({each["source_id"] for each in ids}) == len(exported) + 1

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
                await create_user(session, username="reader")
                editor = await create_user(session, username="editor", role=Role.EDITOR)
                ada = await create_user(session, username="ada")
            for user, exported in ((editor, exports[0]), (ada, exports[1])):
                if user is ada:
                    await database_unit(database, text("DELETE FROM articles"))
                count = len(exported.splitlines())
                assert await put(user, exported) == (count, 0, 0)
                got = await get(user)
                assert without_comments(got) == without_comments(exported)
                assert (got == exported) == (user is editor)  # commenters become guests
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
        assert note["message"] == "former slugs that belong to another article: taken"
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
            readme = texts.pop("README.txt").decode()
            assert "Markdown files contain no comments" in readme
            assert "Left out here: comments: 2." in readme
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
            report = await run_import(database, source)
            assert report.counts == only(Outcome.UNCHANGED, 4)
            assert await state(database) == before
        async with server():
            await run_import(database, source)
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
        assert "comments: 2, old URLs: 1, former slugs: 1, comment policies: 1" in remarks
        assert "archived articles, which become drafts: 1, further fields" in remarks
        assert "excerpts after 300 characters: 1" in remarks
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
            report = await run_import(database, source)
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
        items: list[dict[str, Any]] = [
            record,
            {**record, **comments},
            {**record, **comments, "title": "Other"},
        ]
        headers = {**bearer(ada), "Content-Type": "application/x-ndjson"}
        for query in ("?dry_run=true", ""):
            answer = await client.post(
                f"/articles/import{query}", content=to_lines(items), headers=headers
            )
            found = answer.json()
            assert (found["created"], found["updated"], found["failed"]) == (1, 1, 1)
            assert "the same id in the source" in found["errors"][0]["message"]


@pytest.mark.parametrize("export_format", ["ndjson", "markdown", "ghost"])
async def test_head_reads_no_articles(
    client: httpx.AsyncClient,
    session: AsyncSession,
    connection: AsyncConnection,
    export_format: str,
) -> None:
    author = await create_user(session)
    await create_article(session, author=author)
    path = f"/articles/export?format={export_format}"
    with statements(connection) as ran:
        head = await client.head(path, headers=bearer(author))
    assert not [statement for statement in ran if "articles.content" in statement]
    answer = await client.get(path, headers=bearer(author))
    assert answer.content
    own = {"x-request-id", "x-process-time"}
    assert {name: head.headers[name] for name in head.headers if name not in own} == {
        name: answer.headers[name] for name in answer.headers if name not in own
    }
