"""Comments of people without an account: import, threads, both APIs, export."""

import json
import random
import re
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.content.markdown import render_comment
from app.core.enums import CommentStatus, Role
from app.models import Article, ArticleCounts, Comment, User
from app.schemas.bulk_comment import CommentRecord
from app.services.bulk import comments as module
from app.services.bulk.comment_texts import render_plain, to_markdown
from tests.bulk.exports import wordpress_post, wxr
from tests.bulk.test_bulk import counts, export, lines, post
from tests.bulk.test_cli import ADA, Write, another_database, use, write
from tests.bulk.test_cli import counts as printed_counts
from tests.bulk.test_fields import comment
from tests.commands import fetch, run
from tests.databases import execute
from tests.factories import bearer, create_article, create_comment, create_user

__all__ = ["another_database", "write"]

pytestmark = pytest.mark.usefixtures("restored_environment")

GUEST: dict[str, Any] = {
    "id": "1",
    "name": "Ann Reader",
    "url": "https://ann.example/",
    "content": "Nice *text*!",
    "created_at": "2020-01-03T00:00:00Z",
}
RECORD: dict[str, Any] = {
    "title": "Talked about",
    "slug": "talked-about",
    "content": "A text with comments.",
    "published_at": "2020-01-02T00:00:00Z",
    "comments": [
        GUEST,
        {"id": "2", "parent": "1", "author": "ada", "content": "Thanks."},
        {"id": "3", "parent": "2", "name": "Bob", "content": "To the reply.", "status": "pending"},
        {"id": "4", "content": "Of nobody.", "status": "hidden"},
    ],
}
ALL_COMMENTS = """
    SELECT c.source_id, p.source_id AS parent, r.source_id AS root, c.guest_name, c.guest_url,
      u.username, c.status, c.content, c.created_at::text
    FROM comments c LEFT JOIN comments p ON p.id = c.parent_id
    LEFT JOIN comments r ON r.id = c.root_id LEFT JOIN users u ON u.id = c.author_id
    ORDER BY c.article_id, c.id
"""


@pytest.fixture
async def ada(session: AsyncSession) -> User:
    return await create_user(session, username="ada")


async def threads(client: httpx.AsyncClient, article: Article) -> list[dict[str, Any]]:
    response = await client.get(f"/articles/{article.id}/comments?sort=oldest")
    found: list[dict[str, Any]] = response.json()
    return found


async def the_article(session: AsyncSession) -> Article:
    return (await session.scalars(select(Article))).one()


class TestApi:
    async def test_guests_are_shown_with_their_names(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        assert counts(await post(client, bearer(ada), lines(RECORD))) == (1, 0, 0, 0)
        article = await the_article(session)
        (thread,) = await threads(client, article)
        assert thread["guest"] == {"name": "Ann Reader", "url": "https://ann.example/"}
        assert (thread["author"], thread["removed"]) == (None, False)
        assert thread["html"] == "<p>Nice <em>text</em>!</p>\n"
        assert thread["created_at"] == "2020-01-03T00:00:00Z"
        (reply,) = thread["replies"]
        assert (reply["author"]["username"], reply["guest"]) == ("ada", None)
        pending = (await client.get("/comments?status=pending", headers=bearer(ada))).json()
        assert [each["guest"] for each in pending] == [{"name": "Bob", "url": None}]
        hidden = (await client.get("/comments?status=hidden", headers=bearer(ada))).json()
        assert [each["guest"]["name"] for each in hidden] == ["Anonymous"]
        count = select(ArticleCounts.comments).where(ArticleCounts.article_id == article.id)
        assert await session.scalar(count) == 2

    async def test_guests_of_the_conduit_api_are_no_usernames(
        self, client: httpx.AsyncClient, ada: User
    ) -> None:
        guest = {**GUEST, "name": "ada"}
        await post(client, bearer(ada), lines({**RECORD, "comments": [guest]}))
        found = (await client.get("/api/articles/talked-about/comments")).json()["comments"]
        assert [each["author"] for each in found] == [
            {"username": "ada (guest)", "bio": None, "image": None, "following": False}
        ]

    async def test_removed_comment_of_a_guest_hides_the_name(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        await post(client, bearer(ada), lines(RECORD))
        root = (await session.scalars(select(Comment).where(Comment.source_id == "1"))).one()
        url = f"/comments/{root.id}"
        changes = {"status": "hidden"}
        moderated = await client.patch(f"{url}/moderation", json=changes, headers=bearer(ada))
        assert moderated.json()["guest"]["name"] == "Ann Reader"
        (thread,) = await threads(client, await the_article(session))
        assert (thread["removed"], thread["guest"], thread["content"]) == (True, None, None)
        patched = await client.patch(url, json={"content": "Mine."}, headers=bearer(ada))
        assert patched.status_code == 403
        assert (await client.delete(url, headers=bearer(ada))).status_code == 204

    async def test_policy_is_imported(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        record = {**RECORD, "comment_policy": "closed"}
        await post(client, bearer(ada), lines(record))
        article = await the_article(session)
        url = f"/articles/{article.id}/comments"
        response = await client.post(url, json={"content": "More."}, headers=bearer(ada))
        assert response.json()["code"] == "comments_closed"
        assert (await export(client, bearer(ada)))[0]["comment_policy"] == "closed"
        assert counts(await post(client, bearer(ada), lines(RECORD))) == (0, 0, 1, 0)
        del record["comment_policy"]
        changed = {**record, "comment_policy": "open"}
        assert counts(await post(client, bearer(ada), lines(changed))) == (0, 1, 0, 0)


class TestPermissions:
    @pytest.mark.parametrize("role", [Role.AUTHOR, Role.EDITOR])
    async def test_only_editors_import_comments_of_other_users(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User, role: Role
    ) -> None:
        user = await create_user(session, username="importer", role=role)
        names = ["ada", "importer", "nobody"]
        comments = [{**GUEST, "id": name, "author": name, "name": None} for name in names]
        report = await post(client, bearer(user), lines({**RECORD, "comments": comments}))
        assert counts(report) == (1, 0, 0, 0)
        (await the_article(session)).author_id = user.id
        found = await session.execute(select(Comment.guest_name, Comment.author_id))
        assert [tuple(row) for row in found] == [
            (None, ada.id) if role is Role.EDITOR else ("ada", None),
            (None, user.id),
            ("nobody", None),
        ]

    async def test_comments_count_against_the_limits(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        await post(client, bearer(ada), lines(RECORD))
        query = text("SELECT kind, level FROM limit_uses WHERE subject = :subject")
        rows = await session.execute(query, {"subject": f"user {ada.id}"})
        found = {kind: round(level) for kind, level in rows}
        assert found["imported_records"] == 1 + len(RECORD["comments"])
        names = await session.scalar(text("SELECT source || source_id FROM import_records"))
        comments = [
            each["content"] + each["id"] + (each.get("url") or "") for each in RECORD["comments"]
        ]
        stored = [RECORD["content"], names or "", *comments]
        assert found["text_kept"] == sum(len(each.encode()) for each in stored)

    @pytest.mark.parametrize(
        "change",
        [{"id": ""}, {"content": ""}, {"content": "\0"}, {"url": "javascript:alert(1)"},
         {"status": "spam"}, {"name": "a\nb"}, {"unknown": 1}, {"created_at": "1969-01-01"}],
    )  # fmt: skip
    async def test_invalid_comment_is_refused_with_its_record(
        self, client: httpx.AsyncClient, ada: User, change: dict[str, Any]
    ) -> None:
        record = {**RECORD, "comments": [{**GUEST, **change}]}
        report = await post(client, bearer(ada), lines(record))
        assert counts(report) == (0, 0, 0, 1)
        assert report["errors"][0]["message"].startswith("comments.0.")


class TestAgain:
    async def test_repeated_import_adds_only_new_comments(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        await post(client, bearer(ada), lines(RECORD))
        before = (await session.execute(text("SELECT to_jsonb(c) FROM comments c"))).all()
        assert counts(await post(client, bearer(ada), lines(RECORD))) == (0, 0, 1, 0)
        assert (await session.execute(text("SELECT to_jsonb(c) FROM comments c"))).all() == before
        more = [
            {"id": "5", "parent": "3", "content": "To a comment imported earlier."},
            {"id": "0", "content": "An old one.", "created_at": "2019-01-01T00:00:00Z"},
        ]
        version = (await the_article(session)).version
        record = {**RECORD, "comments": [*RECORD["comments"], *more]}
        report = await post(client, bearer(ada), lines(record))
        assert counts(report) == (0, 1, 0, 0)
        assert report["notes"] == [{"line": 1, "message": "comments added: 2"}]
        found = (await session.execute(text(ALL_COMMENTS))).all()
        assert [(row.source_id, row.parent, row.root) for row in found] == [
            ("1", None, None), ("2", "1", "1"), ("3", "2", "1"), ("4", None, None),
            ("0", None, None), ("5", "3", "1"),
        ]  # fmt: skip
        session.expire_all()
        assert (await the_article(session)).version == version

    async def test_moderation_here_is_kept(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        comments = [{**GUEST, "id": str(n), "content": f"Text {n}."} for n in range(4)]
        comments[2]["status"] = comments[3]["status"] = "pending"
        await post(client, bearer(ada), lines({**RECORD, "comments": comments}))
        rows = await session.execute(select(Comment.source_id, Comment.id))
        ids = {row.source_id: row.id for row in rows}
        await client.delete(f"/comments/{ids['0']}", headers=bearer(ada))
        for number in ("1", "3"):
            url = f"/comments/{ids[number]}/moderation"
            await client.patch(url, json={"status": "hidden"}, headers=bearer(ada))
        again = [{**each, "status": "visible", "content": "Changed."} for each in comments]
        report = await post(client, bearer(ada), lines({**RECORD, "comments": again}))
        message = "comments changed: 3; comments approved: 1"
        assert report["notes"] == [{"line": 1, "message": message}]
        rows = await session.execute(select(Comment.status, Comment.content).order_by(Comment.id))
        assert [tuple(row) for row in rows] == [
            (CommentStatus.VISIBLE, "Text 0."),  # deleted
            (CommentStatus.HIDDEN, "Changed."),
            (CommentStatus.VISIBLE, "Changed."),
            (CommentStatus.HIDDEN, "Changed."),
        ]

    async def test_circles_and_missing_parents_begin_threads(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        parents = {"a": "b", "b": "c", "c": "b", "d": "d", "e": "x", "f": "a", "g": "f"}
        comments = [
            {"id": name, "parent": parent, "content": name} for name, parent in parents.items()
        ]
        await post(client, bearer(ada), lines({**RECORD, "comments": comments}))
        found = (await session.execute(text(ALL_COMMENTS))).all()
        assert [(row.source_id, row.parent, row.root) for row in found] == [
            ("a", "b", "b"), ("b", None, None), ("c", "b", "b"), ("d", None, None),
            ("e", None, None), ("f", "a", "b"), ("g", "f", "b"),
        ]  # fmt: skip

    async def test_long_thread_takes_linear_time(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        comments = [{"id": str(n), "parent": str(n + 1), "content": "x"} for n in range(1500)]
        await post(client, bearer(ada), lines({**RECORD, "comments": comments}))
        roots = select(Comment.root_id).distinct().where(Comment.root_id.is_not(None))
        assert len((await session.scalars(roots)).all()) == 1


class TestExport:
    async def test_export_is_imported_as_it_was(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        article = await create_article(session, author=ada, slug="commented")
        root = await create_comment(session, article=article, author=ada, content="Root.")
        gone = await create_comment(session, article=article, author=ada, parent=root)
        reply = await create_comment(session, article=article, author=ada, parent=gone)
        reply.status = CommentStatus.HIDDEN
        await session.flush()
        headers = bearer(ada)
        await client.delete(f"/comments/{gone.id}", headers=headers)
        await client.patch(
            f"/comments/{root.id}/moderation", json={"locked": True}, headers=headers
        )
        (record,) = await export(client, headers)
        first, second = record["comments"]
        assert first["id"].startswith(f"pressroom-{root.id}-")
        assert (first["author"], first["content"], first["locked"]) == ("ada", "Root.", True)
        assert (second["parent"], second["status"]) == (first["id"], "hidden")
        assert counts(await post(client, headers, lines(record))) == (0, 0, 1, 0)
        copy = {**record, "slug": "copy"}
        assert counts(await post(client, headers, lines(copy))) == (1, 0, 0, 0)
        copies = {each["slug"]: each for each in await export(client, headers)}
        assert copies["copy"]["comments"] == record["comments"]

    def test_round_trip_between_servers(
        self,
        own_database: str,
        another_database: str,
        write: Write,
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        for url in (own_database, another_database):
            execute(url, ADA)
        path = write("in.ndjson", json.dumps({**RECORD, "author": "ada"}))
        assert run("import", str(path)) == 0
        first, second = tmp_path / "first.ndjson", tmp_path / "second.ndjson"
        assert run("export", str(first)) == 0
        use(another_database, monkeypatch)
        assert run("import", str(first)) == 0
        assert run("export", str(second)) == 0
        assert json.loads(first.read_text())["comments"][0] == GUEST
        assert second.read_text() == first.read_text()


class TestWordPress:
    def test_every_comment_exactly_once(
        self, own_database: str, write: Write, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A file that ends early, as an import that was killed, is completed by the whole file."""
        execute(own_database, ADA)
        posts = [
            wordpress_post(n, more=comment(2 * n) + comment(2 * n + 1, parent=str(2 * n)))
            for n in range(1, 6)
        ]
        whole = wxr("".join(posts))
        path = write("wp.xml", whole[: whole.index("Post 4")])
        assert run("import", str(path), "--author", "ada", "--source", "x") == 1
        path.write_text(whole)
        assert run("import", str(path), "--author", "ada", "--source", "x") == 0
        assert printed_counts(capsys.readouterr().out.rpartition("Source")[2])[:3] == [2, 0, 3]
        rows = fetch(own_database, ALL_COMMENTS)
        assert [row["source_id"] for row in rows] == [str(n) for n in range(2, 12)]
        assert all(row["parent"] == row["root"] for row in rows)
        assert [row["parent"] for row in rows[:2]] == [None, "2"]
        assert {row["guest_name"] for row in rows} == {"A Reader"}
        assert fetch(own_database, "SELECT 1 FROM mails") == []


TEXTS = [
    ("Plain words.", "Plain words."),
    ("One\nline\n\n\nTwo", "One\\\nline\n\nTwo"),
    ("<p>One</p><p>Two</p>", "One\n\nTwo"),
    ("<b>Bold</b> and <i>not</i>", "**Bold** and *not*"),
    ("<b>Note:</b>text", "Note:text"),
    ("<h2>Title</h2>text", "Title\n\ntext"),
    ("x<sup>2</sup>", "x2"),
    ("<blockquote>Said</blockquote>Yes", "> Said\n\nYes"),
    ("<ul><li>a</li><li>b</li></ul>", "- a\n- b"),
    ("<script>alert(1)</script>Text", "Text"),
    ('<a href="javascript:alert(1)" onclick="x">Link</a>', "Link"),
    ("<table><tr><td>a</td><td>b</td></tr></table>", "a b"),
    ("&lt;div&gt; &amp; <em>x</em>", "<div> & *x*"),
]


class TestTexts:
    @pytest.mark.parametrize(("html", "markdown"), TEXTS)
    def test_html_becomes_the_markdown_of_comments(self, html: str, markdown: str) -> None:
        assert to_markdown(html).replace("\\<", "<").replace("\\&", "&") == markdown

    def test_links_and_images(self) -> None:
        html = render_comment(
            to_markdown('<img src="https://a.example/b.png" alt="A &amp; B"> https://c.example/d_e')
        )
        assert re.findall(r'href="([^"]*)"[^>]*>([^<]*)<', html) == [
            ("https://a.example/b.png", "A &amp; B"),
            ("https://c.example/d_e", "https://c.example/d_e"),
        ]

    def test_plain_text_is_shown_as_it_was(self) -> None:
        """The words and lines of any text without tags, and no markup, whatever it contains."""
        random.seed(7)
        marks = [*"*_~`#>+-=.)(![]|\\:;&'\"/@1a ", "\n", "\n\n", "www.a.example", "http://b.example/",
                 "word", "1.", "é", "漢字", "  ", "&amp;", "&#35;"]  # fmt: skip
        for _ in range(1500):
            source = "".join(random.choice(marks) for _ in range(random.randrange(1, 12)))
            markdown = to_markdown(source)
            html = render_comment(markdown)
            shown = unescape(re.sub(r"</?(?:p|a|br)\b[^<>]*>", "", html))
            assert "<" not in re.sub(r"</?(?:p|a|br)\b[^<>]*>", "", html), source
            assert shown.split() == unescape(source).split(), (source, markdown, html)
            plain = render_plain(markdown)
            assert plain in {None, html}, (source, markdown)

    def test_plain_words_need_no_renderer(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(module, "render_comment")
        record = CommentRecord(id="1", content='It\'s "so": one, two.\\\nThree!\n\nFour (4).')
        assert module.render_comments([record]) == (
            '<p>It\'s "so": one, two.<br>\nThree!</p>\n<p>Four (4).</p>\n',
        )

    def test_too_complex_text_is_shown_as_it_was_typed(self) -> None:
        content = "*a_ " * 20_000 + "<b>"
        (html,) = module.render_comments([CommentRecord(id="1", content=content)])
        assert html == f"<p>{content.replace('<b>', '&lt;b&gt;')}</p>\n"
