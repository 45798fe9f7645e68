"""Imports over HTTP: formats, progress, results, ownership, retention."""

import io
import json
import multiprocessing
import stat
import zipfile
from collections.abc import AsyncIterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import clock
from app.core.config import get_settings
from app.core.enums import ImportState, Role
from app.core.errors import ServiceUnavailable
from app.db.session import Database
from app.jobs.housekeeping import delete_expired
from app.models import Article, Import, User
from app.services.bulk import archives, imports, reading, runs, sources
from app.services.bulk.foreign import SourceError
from app.services.bulk.reporting import Report
from app.services.bulk.sources import ImportOptions
from app.services.bulk.workers import Worker, start_worker
from app.services.media.storage import open_storage
from tests.bulk.exports import GHOST, wordpress_post, wxr, zipped
from tests.factories import api_key, bearer, create_import, create_user
from tests.images import image_bytes
from tests.interpreter import forks_of_multiprocessing
from tests.security.conftest import (
    client_at,
    install,
    live,
    live_app,
    live_client_at,
    live_database_url,
    live_rows,
)
from tests.security.test_withdrawn_access import Batches, Rows, until

__all__ = [
    "client_at",
    "install",
    "live",
    "live_app",
    "live_client_at",
    "live_database_url",
    "live_rows",
]

STORAGE = open_storage(get_settings())
NDJSON, XML, JSON, ZIP = (
    "application/x-ndjson",
    "application/xml",
    "application/json",
    "application/zip",
)
COUNTS = ("created", "updated", "unchanged", "failed", "left_out", "records")


def line(number: int, **fields: Any) -> bytes:
    record = {"title": f"Title {number}", "slug": f"a-{number}", "content": "Some text.", **fields}
    return json.dumps(record).encode() + b"\n"


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def send(
    client: httpx.AsyncClient,
    user: User | Mapping[str, str],
    body: bytes,
    content_type: str = NDJSON,
    **query: str,
) -> httpx.Response:
    headers = bearer(user) if isinstance(user, User) else dict(user)
    return await client.post(
        "/articles/import",
        content=body,
        params=query,
        headers={**headers, "Content-Type": content_type},
    )


async def imported(
    client: httpx.AsyncClient,
    user: User,
    body: bytes,
    content_type: str = NDJSON,
    **query: str,
) -> dict[str, Any]:
    answer = await send(client, user, body, content_type, **query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def counts(found: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(found[name] for name in COUNTS)


@pytest.fixture
async def ada(session: AsyncSession) -> User:
    return await create_user(session, username="ada")


async def slugs(session: AsyncSession) -> dict[str, int]:
    rows = await session.execute(
        text("SELECT coalesce(draft_slug, slug) AS slug, author_id FROM articles")
    )
    return {row.slug: row.author_id for row in rows}


WXR = wxr(
    wordpress_post(1, content="A <b>bold</b> text.", creator="jane")
    + wordpress_post(2, type="page", creator="ada")
    + wordpress_post(3, status="trash")
).encode()
BLOG: dict[str, str | bytes] = {
    "blog-main/content/posts/first.md": "---\ntitle: First\ndate: 2020-01-01\n---\n\nA text.",
    "blog-main/content/posts/second.mdx": "---\ntitle: Second\n---\n\nAnother text.",
    "blog-main/static/cat.jpg": b"\xff\xd8",
    "blog-main/.git/config": "[core]",
    "blog-main/node_modules/a/readme.md": "No text of the blog.",
}


class TestResult:
    async def test_response_is_the_import(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        body = line(1) + b"{\n" + line(3, language="en-UK")
        answer = await send(client, ada, body)
        assert answer.status_code == 200
        found = answer.json()
        assert answer.headers["Location"] == f"/articles/imports/{found['id']}"
        assert (found["state"], found["format"], found["source"]) == ("completed", "ndjson", "api")
        assert counts(found) == (2, 0, 0, 1, 0, 3)
        assert (found["bytes"], found["progress"], found["dry_run"]) == (len(body), 1, False)
        ((error,), (note,)) = found["errors"], found["notes"]
        assert error["line"] == 2
        assert error["message"].startswith("The line is not JSON")
        assert (note["line"], note["message"]) == (3, "language: en instead of 'en-UK'")
        again = await client.get(answer.headers["Location"], headers=bearer(ada))
        assert again.json() == found
        listed = await client.get("/articles/imports", headers=bearer(ada))
        assert listed.json() == [found]

    @pytest.mark.parametrize(
        ("body", "content_type", "query"),
        [
            (line(1, source_id="1") + line(2, source_id="1") + b"[]\n", NDJSON, {}),
            (WXR, XML, {"source": "https://blog.example"}),
            (json.dumps(GHOST).encode(), JSON, {"source": "https://blog.example"}),
            (zipped(BLOG), ZIP, {"source": "my blog"}),
        ],
        ids=["ndjson", "wordpress", "ghost", "zip"],
    )
    async def test_report_is_that_of_the_command(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        database: Database,
        ada: User,
        tmp_path: Path,
        body: bytes,
        content_type: str,
        query: dict[str, str],
    ) -> None:
        found = await imported(client, ada, body, content_type, dry_run="true", **query)
        assert (found["state"], found["message"]) == ("completed", None)
        assert await slugs(session) == {}
        answer = await client.get(f"/articles/imports/{found['id']}/report", headers=bearer(ada))
        by_http = answer.json()

        path = tmp_path / "body"
        path.write_bytes(body)
        if content_type == ZIP:
            path = tmp_path / "files"
            archives.extract(tmp_path / "body", path, advance=lambda _: None)
        source = sources.open_source(
            path, source_format=runs.CONTENT_TYPES[content_type], advance=lambda _: None
        )
        options = ImportOptions(author="ada", source=by_http["source"], dry_run=True)
        with Report(now=clock.now()) as report:
            await sources.import_source(
                database,
                source,
                options=options,
                report=report,
                advance=lambda _: None,
                storage=STORAGE,
            )
            file = io.BytesIO()
            report.write_json(file)
        by_command = json.loads(file.getvalue())
        assert len(by_http["problems"]) <= 1  # whose texts become the importer's
        assert {**by_http, "problems": []} == {**by_command, "problems": []}
        assert sum(list(by_http["counts"].values())[:-1]) == by_http["counts"]["records"] > 0
        assert counts(found) == tuple(
            by_command["counts"]["refused" if name == "failed" else name] for name in COUNTS
        )

    @pytest.mark.parametrize(("body", "content_type"), [(WXR, XML), (json.dumps(GHOST), JSON)])
    async def test_a_large_file_is_read_by_a_process(
        self,
        client: httpx.AsyncClient,
        ada: User,
        monkeypatch: pytest.MonkeyPatch,
        body: bytes | str,
        content_type: str,
    ) -> None:
        body = body if isinstance(body, bytes) else body.encode()
        query = {"source": "https://blog.example", "dry_run": "true"}
        expected = await imported(client, ada, body, content_type, **query)
        started: list[str] = []

        def note_start(name: str, *arguments: Any) -> Worker | None:
            started.append(name)
            return start_worker(name, *arguments)

        monkeypatch.setattr(reading, "MIN_BYTES", 0)
        monkeypatch.setattr(reading, "start_worker", note_start)  # a spy
        with forks_of_multiprocessing():
            found = await imported(client, ada, body, content_type, **query)
        assert started == ["reading"]
        assert found["records"] > 0
        varying = {"id", "created_at", "finished_at"}
        assert {name: found[name] for name in found.keys() - varying} == {
            name: expected[name] for name in expected.keys() - varying
        }
        assert not multiprocessing.active_children()

    async def test_long_reports_are_cut(
        self, client: httpx.AsyncClient, ada: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runs, "MAX_REPORTED_RECORDS", 10)
        found = await imported(client, ada, b"".join(map(line, range(15))))
        assert counts(found) == (15, 0, 0, 0, 0, 15)
        assert found["remarks"] == ["The list of records ends before the last 5 records"]
        answer = await client.get(f"/articles/imports/{found['id']}/report", headers=bearer(ada))
        assert (len(answer.json()["records"]), answer.json()["counts"]["records"]) == (10, 15)

    async def test_reports_are_limited_in_bytes(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        ada: User,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr(runs, "MAX_REPORT_BYTES", 128 * 1024)
        texts = [f"[a](/old/{n}/{'x' * 1800})" for n in range(40)]
        long = {"title": "\U0001f600" * 200, "source_id": "\U0001f600" * 490}
        numbered = (line(n, **{**long, "source_id": f"{n}{long['source_id']}"}) for n in range(60))
        body = b"".join(numbered)
        body += b"".join(line(60 + n, content=content) for n, content in enumerate(texts))
        found = await imported(client, ada, body, site="https://old.example")
        assert found["records"] == 100
        size = await session.scalar(select(func.octet_length(Import.report)))
        assert runs.MAX_REPORT_BYTES < (size or 0) < runs.MAX_REPORT_BYTES * 1.5
        assert any("list of records ends before" in each for each in found["remarks"])
        answer = await client.get(f"/articles/imports/{found['id']}/report", headers=bearer(ada))
        report = answer.json()
        assert 0 < len(report["records"]) < 100
        assert "Addresses of the old site that remain: 40 (0 of images)" in found["remarks"]
        assert 0 < len(report["remaining_addresses"]) < 40
        summary = await session.scalar(select(func.pg_column_size(Import.summary)))
        assert (summary or 0) < 100_000


def test_problems_in_reports_are_limited() -> None:
    with Report(now=clock.now(), max_bytes=1000) as report:
        report.problems += ["x" * 10_000] * 10_000
        *listed, last = report.sentences()
    assert len(listed) == 200
    assert {len(each) for each in listed} == {500}
    assert last == "Further problems: 9800"


class TestFormats:
    async def test_author_imports_texts_of_others_as_own(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        await create_user(session, username="jane", email="jane@example.com")
        query = {"source": "https://blog.example"}
        found = await imported(client, ada, WXR, XML, **query)
        assert (found["state"], found["created"], found["left_out"]) == ("completed", 2, 1)
        assert found["remarks"][-1] == "You became the author of the records of: Jane Doe (1)"
        assert set((await slugs(session)).values()) == {ada.id}
        again = await imported(client, ada, WXR, XML, **query)
        assert (again["created"], again["unchanged"]) == (0, 2)

    async def test_editor_imports_for_users_with_the_same_name(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        editor = await create_user(session, role=Role.EDITOR)
        jane = await create_user(session, username="Jane", email="other@example.com")
        await imported(client, editor, WXR, XML, source="https://blog.example")
        assert set((await slugs(session)).values()) == {jane.id, ada.id}
        users = await session.scalar(text("SELECT count(*) FROM users"))
        assert users == 3

    async def test_editor_imports_no_texts_of_authors_whose_name_another_one_has(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        editor = await create_user(session, role=Role.EDITOR)
        li = await create_user(session, username="li-ming")
        files = {
            f"{number}.md": f"---\ntitle: x\nauthor: {author}\n---\nThe text."
            for number, author in enumerate(("\u674e\u660e", "\u9ece\u660e"))
        }
        await imported(client, editor, zipped(files), ZIP, source="blog")
        assert sorted((await slugs(session)).values()) == sorted([editor.id, li.id])

    async def test_author_parameter_needs_the_permission(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        editor = await create_user(session, role=Role.EDITOR)
        query = {"source": "https://blog.example"}
        refused = await imported(client, ada, WXR, XML, author=editor.username, **query)
        assert (refused["created"], refused["failed"]) == (0, 2)
        unknown = await imported(client, editor, WXR, XML, author="nobody", **query)
        assert (unknown["state"], unknown["message"]) == ("failed", "There is no user nobody")
        await imported(client, editor, WXR, XML, author="ada", **query)
        assert set((await slugs(session)).values()) == {ada.id}

    async def test_zip_of_texts(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        """The name of the outer folder does not matter. Files of programs are not read."""
        found = await imported(client, ada, zipped(BLOG), ZIP, source="my blog")
        assert (found["state"], found["created"], found["records"]) == ("completed", 2, 2)
        assert found["remarks"] == ["Left out: other files (.jpg): 1"]
        renamed = {name.replace("blog-main", "blog-1.2"): text for name, text in BLOG.items()}
        again = await imported(client, ada, zipped(renamed), ZIP, source="my blog")
        assert (again["created"], again["unchanged"]) == (0, 2)
        other = await imported(client, ada, zipped(renamed), ZIP, source="another blog")
        assert (other["created"], other["unchanged"]) == (2, 0)

    async def test_zip_has_what_hides_texts(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        """As in a folder: what Eleventy ignores, and programs that may hide texts."""
        page = "---\ntitle: x\ndate: 2020-01-01\n---\n\nA text."
        files: dict[str, str | bytes] = {
            "site/.eleventyignore": "ignored\n",
            "site/ignored/a.md": page,
            "site/posts/b.md": page,
            "site/posts/posts.11tydata.js": "module.exports = {draft: process.env.X}",
            "site/c.md": page,
            "site/_redirects": "/old /c/ 301\n/all/* /c/ 301\n",
        }
        found = await imported(client, ada, zipped(files), ZIP, source="a")
        assert (found["created"], found["failed"]) == (3, 0)
        rows = await session.execute(
            text(
                "SELECT source_id FROM import_records JOIN articles ON articles.id = article_id"
                " WHERE published_at IS NOT NULL"
            )
        )
        assert rows.scalars().all() == ["c.md"]
        paths = await session.execute(text("SELECT path FROM redirects ORDER BY path"))
        assert "/old" in paths.scalars().all()

    @pytest.mark.parametrize("name", ["export.xml", "ghost.json"])
    async def test_zip_of_an_export_is_refused(
        self, client: httpx.AsyncClient, ada: User, name: str
    ) -> None:
        body = zipped({f"site/{name}": "x", "site/images/a.png": b"x"})
        found = await imported(client, ada, body, ZIP, source="a")
        assert (found["state"], found["records"]) == ("failed", 0)
        assert "has no texts" in found["message"]

    async def test_zip_needs_a_source(self, client: httpx.AsyncClient, ada: User) -> None:
        answer = await send(client, ada, zipped(BLOG), ZIP)
        assert (answer.status_code, answer.json()["code"]) == (422, "validation_error")
        listed = await client.get("/articles/imports", headers=bearer(ada))
        assert listed.json() == []

    async def test_file_without_a_site_needs_a_source(
        self, client: httpx.AsyncClient, ada: User
    ) -> None:
        found = await imported(client, ada, json.dumps(GHOST).encode(), JSON)
        assert found["state"] == "failed"
        assert "query parameter `source`" in found["message"]

    @pytest.mark.parametrize(
        ("body", "content_type"),
        [(b"not a zip", ZIP), (b"{}", JSON), (zipped(BLOG)[:-30], ZIP), (b"", ZIP)],
    )
    async def test_unreadable_file_is_reported(
        self, client: httpx.AsyncClient, ada: User, body: bytes, content_type: str
    ) -> None:
        found = await imported(client, ada, body, content_type, source="a blog")
        assert found["state"] == "failed"
        assert found["message"]
        assert "/" not in found["message"]  # no path of the server

    async def test_options(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        files = {
            "a.md": "---\ntitle: A\ndate: 2020-01-01 12:00\n---\n\nA text.",
            "b.md": "---\ntitle: B\ndate: 2020-01-01\npassword: x\n---\n\nA text.",
        }
        query = {"source": "s", "timezone": "Asia/Tokyo", "publish_restricted": "true"}
        await imported(client, ada, zipped(files), ZIP, **query)
        rows = (await session.scalars(select(Article.published_at).order_by(Article.title))).all()
        assert [at and at.isoformat()[:16] for at in rows] == [
            "2020-01-01T03:00",
            "2019-12-31T15:00",
        ]
        for bad in ({"timezone": "Mars"}, {"dry_run": "perhaps"}, {"sauce": "x"}, {"author": "/"}):
            answer = await send(client, ada, zipped(files), ZIP, **{**query, **bad})
            assert answer.status_code == 422, bad

    async def test_foreign_formats_have_a_lower_limit(
        self, client: httpx.AsyncClient, ada: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(runs, "MAX_FOREIGN_BYTES", 1000)
        for content_type, status in ((XML, 413), (NDJSON, 200)):
            answer = await send(client, ada, b" " * 1001, content_type, source="x")
            assert answer.status_code == status


class TestArchives:
    @pytest.fixture
    def unpack(self, tmp_path: Path) -> Any:
        def unpack(body: bytes) -> tuple[list[str], list[str]]:
            (tmp_path / "a.zip").write_bytes(body)
            folder = tmp_path / "outer" / "files"
            folder.parent.mkdir()
            problems = archives.extract(tmp_path / "a.zip", folder, advance=lambda _: None)
            found = [path for path in tmp_path.rglob("*") if path.is_file()]
            assert all(folder in path.parents or path.name == "a.zip" for path in found)
            assert not any(path.is_symlink() for path in found)
            inside = (path.relative_to(folder) for path in found if folder in path.parents)
            return sorted(map(str, inside)), problems

        return unpack

    @pytest.mark.parametrize(
        "name",
        ["../evil.md", "a/../../evil.md", "/etc/evil.md", "..\\evil.md", "C:\\evil.md", "a\0b.md"],
    )
    def test_names_stay_within_the_folder(self, unpack: Any, name: str) -> None:
        found, _ = unpack(zipped({"good.md": "x", name: "evil"}))
        assert "good.md" in found
        assert not any("evil" in each for each in found)

    def test_links_are_refused(self, unpack: Any) -> None:
        link = zipped({"a.md": "/etc/passwd"}, external_attr=(stat.S_IFLNK | 0o777) << 16)
        found, (problem,) = unpack(link)
        assert found == []
        assert "symbolic links" in problem

    @pytest.mark.parametrize("compression", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    def test_compressions_without_a_limit_are_refused(self, unpack: Any, compression: int) -> None:
        found, (problem,) = unpack(zipped({"a.md": "x" * 1000}, compress_type=compression))
        assert found == []
        assert "only the compression Deflate" in problem

    def test_sizes_are_limited(self, unpack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archives, "MAX_UNPACKED", 10_000_000)
        bomb = zipped({f"{number}.md": b"x" * 5_000_000 for number in range(5)})
        assert len(bomb) < 100_000
        with pytest.raises(SourceError, match="more than 10000000 bytes"):
            unpack(bomb)

    def test_number_of_files_is_limited(self, unpack: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archives, "MAX_FILES", 10)
        with pytest.raises(SourceError, match="more than 10 files"):
            unpack(zipped({f"{number}.md": "x" for number in range(11)}))

    def test_list_of_files_is_limited_before_it_is_read(
        self, unpack: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(archives, "MAX_DIRECTORY", 1000)
        with pytest.raises(SourceError, match="too many files"):
            unpack(zipped({f"{number:0100}.md": "x" for number in range(20)}))

    def test_end_of_the_archive_is_the_last_record(
        self, unpack: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(archives, "MAX_DIRECTORY", 10)
        body = zipped({"a.md": "x"})[:-6] + b"PK\5\6" + bytes(2)
        with ZipFile(io.BytesIO(body)) as archive:
            assert archive.namelist() == ["a.md"]
        with pytest.raises(SourceError, match="cut off"):
            unpack(body)

    def test_lists_of_large_archives_are_limited(
        self, unpack: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The sizes in the record of ZIP64 count, even if the other record has smaller ones."""
        body = zipped({"a.md": "x"})
        end = body[-22:]
        count, size, offset = end[8:10], end[12:16], end[16:20]
        record = b"PK\6\6" + (44).to_bytes(8, "little") + bytes(12)
        record += b"".join(each.ljust(8, b"\0") for each in (count, count, size, offset))
        locator = b"PK\6\7" + bytes(4) + (len(body) - 22).to_bytes(8, "little") + b"\1\0\0\0"
        body = body[:-22] + record + locator + end[:12] + bytes(10)
        path = tmp_path / "b.zip"
        path.write_bytes(body)
        assert archives.size_of_texts(path) == 1
        path.unlink()
        monkeypatch.setattr(archives, "MAX_DIRECTORY", 10)
        with pytest.raises(SourceError, match="too many files"):
            unpack(body)

    def test_archives_may_have_comments(self, unpack: Any) -> None:
        target = io.BytesIO()
        with ZipFile(target, "w") as archive:
            archive.writestr("a.md", "x")
            archive.comment = b"A comment"
        assert unpack(target.getvalue()) == (["a.md"], [])

    def test_names_that_are_not_utf8_are_refused(self, unpack: Any) -> None:
        body = zipped({"\u00e9.md": "x"}).replace("\u00e9".encode(), b"\xff\xff")
        with pytest.raises(SourceError, match="not a ZIP file that can be read"):
            unpack(body)

    def test_files_that_are_also_folders(self, unpack: Any) -> None:
        found, problems = unpack(zipped({"a": "x", "a/b.md": "y", "c.md": "z", "c.md/d.md": "!"}))
        assert found == ["a", "c.md"]
        assert len(problems) == 2

    def test_damaged_file_costs_only_itself(self, unpack: Any) -> None:
        body = bytearray(zipped({"a.md": bytes(range(256)) * 4, "b.md": "y" * 1000}))
        body[100] ^= 0xFF
        found, (problem,) = unpack(bytes(body))
        assert found == ["b.md"]
        assert problem.startswith("a.md: the file cannot be unpacked")


class TestSpace:
    """All bodies together leave a part of the disk free."""

    @pytest.fixture
    async def other(self, session: AsyncSession) -> Import:
        """Return an import of another user, who has reserved a whole disk."""
        user = await create_user(session)
        return await create_import(
            session, user=user, state="running", finished_at=None, reserved_bytes=2**60
        )

    @pytest.mark.parametrize("end", ["finished", "lost"])
    async def test_bodies_wait_for_disk_space(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User, other: Import, end: str
    ) -> None:
        refused = await send(client, ada, line(1))
        assert (refused.status_code, refused.json()["code"]) == (503, "service_unavailable")
        assert "disk space" in refused.json()["message"]
        picture = {"file": ("a.jpg", image_bytes(), "image/jpeg")}
        upload = await client.post("/media", headers=bearer(ada), files=picture)
        assert (upload.status_code, upload.json()["message"]) == (503, refused.json()["message"])
        if end == "finished":
            other.finished_at = clock.now()
        else:
            other.active_at -= timedelta(minutes=2)
        await session.flush()
        assert (await send(client, ada, line(1))).json()["created"] == 1

    async def test_growing_body_reserves_more(
        self, client: httpx.AsyncClient, session: AsyncSession, app: FastAPI, ada: User
    ) -> None:
        seen: list[int] = []

        async def body() -> AsyncIterator[bytes]:
            for number in range(5):
                yield line(number, content="x" * 600_000)
                query = select(Import.reserved_bytes).where(Import.finished_at.is_(None))
                seen.append(await session.scalar(query) or 0)

        headers = {**bearer(ada), "Content-Type": NDJSON}
        answer = await client.post("/articles/import", content=body(), headers=headers)
        assert answer.json()["created"] == 5
        assert seen == sorted(seen)
        assert seen[0] == runs.FIRST_RESERVATION
        assert seen[-1] >= 5 * 600_000

    async def test_body_that_grows_beyond_the_space_is_refused(
        self, client: httpx.AsyncClient, session: AsyncSession, app: FastAPI, ada: User
    ) -> None:
        user = await create_user(session)

        async def body() -> AsyncIterator[bytes]:
            yield line(1)
            await create_import(
                session, user=user, state="running", finished_at=None, reserved_bytes=2**60
            )
            yield line(2, content="x" * runs.FIRST_RESERVATION)

        headers = {**bearer(ada), "Content-Type": NDJSON}
        answer = await client.post("/articles/import", content=body(), headers=headers)
        assert (answer.status_code, answer.json()["code"]) == (503, "service_unavailable")
        assert names_in(app.state.storage.incoming) == []
        assert await session.scalar(select(Import.id).where(Import.user_id == ada.id)) is None

    async def test_archive_reserves_what_it_unpacks(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        files: dict[str, str | bytes] = {"a.md": "x" * 300_000, "b.md": "Text.", "c.jpg": b"y" * 99}
        found = await imported(client, ada, zipped(files), ZIP, source="a")
        assert found["created"] == 2
        reserved = await session.scalar(select(Import.reserved_bytes))
        assert reserved == 300_005

    async def test_archive_without_space_is_not_unpacked(
        self, session: AsyncSession, database: Database, ada: User, tmp_path: Path
    ) -> None:
        path = tmp_path / "a.zip"
        path.write_bytes(zipped({f"{n}.md": "x" * 5_000_000 for n in range(3)}))
        assert archives.size_of_texts(path) < 15_000_000  # larger texts are not read to their end
        own = await create_import(session, user=ada, state="running", finished_at=None)
        size = archives.size_of_texts(path)
        with pytest.raises(ServiceUnavailable):
            await imports.reserve(database, own.id, size=size, available=size - 1)


class TestProgress:
    async def test_import_is_polled_until_it_has_ended(
        self,
        live: httpx.AsyncClient,
        live_rows: Rows,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setattr("app.services.bulk.importing.BATCH", 1)
        monkeypatch.setattr(runs, "UPDATE_SECONDS", 0.01)
        async with live_rows() as session:
            user, other = await create_user(session), await create_user(session)
        headers = {**bearer(user), "Content-Type": NDJSON, "Prefer": "respond-async, wait=5"}
        body = b"".join(line(number, slug=f"{user.username}-{number}") for number in range(3))

        async def read() -> dict[str, Any]:
            answer = await live.get(location, headers=bearer(user))
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()
            return found

        async with Batches(live_rows) as batches:
            answer = await live.post("/articles/import", content=body, headers=headers)
            assert answer.status_code == 202
            assert answer.headers["Preference-Applied"] == "respond-async"
            assert answer.headers["Retry-After"] == "1"
            location = answer.headers["Location"]
            assert location == f"/articles/imports/{answer.json()['id']}"
            assert (answer.json()["state"], answer.json()["finished_at"]) == ("running", None)
            refused = await send(live, user, b"")
            assert (refused.status_code, refused.json()["code"]) == (409, "import_in_progress")
            early = await live.get(f"{location}/report", headers=bearer(user))
            assert (early.status_code, early.json()["code"]) == (409, "import_in_progress")
            for path in (location, f"{location}/report"):
                hidden = await live.get(path, headers=bearer(other))
                assert (hidden.status_code, hidden.json()["code"]) == (404, "import_not_found")
            hidden = await live.post(f"{location}/cancel", headers=bearer(other))
            assert hidden.status_code == 404
            assert (await live.get("/articles/imports", headers=bearer(other))).json() == []
            await batches.pass_one()

            async def shows_progress() -> bool:
                return bool((await read())["created"] == 1)

            await until(shows_progress)

        async def has_ended() -> bool:
            return bool((await read())["state"] == "completed")

        await until(has_ended)
        assert counts(await read()) == (3, 0, 0, 0, 0, 3)
        assert (await send(live, user, b"")).status_code == 200

    async def test_import_can_be_cancelled(
        self, live: httpx.AsyncClient, live_rows: Rows, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("app.services.bulk.importing.BATCH", 1)
        monkeypatch.setattr(runs, "UPDATE_SECONDS", 0.01)
        async with live_rows() as session:
            user = await create_user(session)
        headers = {**bearer(user), "Content-Type": NDJSON, "Prefer": "respond-async"}
        body = b"".join(line(number, slug=f"{user.username}-{number}") for number in range(3))
        async with Batches(live_rows) as batches:
            answer = await live.post("/articles/import", content=body, headers=headers)
            await batches.pass_one()
            location = answer.headers["Location"]
            cancelled = await live.post(f"{location}/cancel", headers=bearer(user))
            assert cancelled.json()["state"] == "cancelled"

            async def has_ended() -> bool:
                found = await live.get(location, headers=bearer(user))
                return found.json()["finished_at"] is not None

            await until(has_ended)
        found = (await live.get(location, headers=bearer(user))).json()
        assert (found["state"], found["message"]) == ("cancelled", "The import was cancelled")
        assert found["created"] == 1
        again = await live.post(f"{location}/cancel", headers=bearer(user))
        assert again.json() == found
        assert (await send(live, user, body)).json()["unchanged"] == 1

    async def test_files_are_deleted(
        self, client: httpx.AsyncClient, app: FastAPI, ada: User
    ) -> None:
        incoming: Path = app.state.storage.incoming
        for body, content_type in ((line(1), NDJSON), (zipped(BLOG), ZIP), (b"x", ZIP)):
            await imported(client, ada, body, content_type, source="a")
            assert names_in(incoming) == []

    async def test_unexpected_error_is_not_shown(
        self, client: httpx.AsyncClient, ada: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        async def fail(*_: Any, **__: Any) -> None:
            raise ZeroDivisionError("secret")

        monkeypatch.setattr(sources, "import_source", fail)
        found = await imported(client, ada, line(1))
        assert (found["state"], found["message"]) == ("failed", "Internal server error")


class TestRetention:
    async def test_last_imports_are_kept(
        self, client: httpx.AsyncClient, ada: User, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(imports, "_EXCESS", imports._EXCESS.offset(2))
        ids = [(await imported(client, ada, line(number)))["id"] for number in range(4)]
        listed = (await client.get("/articles/imports", headers=bearer(ada))).json()
        assert [each["id"] for each in listed] == ids[:0:-1]

    async def test_list_has_pages(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        ids = [(await create_import(session, user=ada)).id for _ in range(3)]
        await create_import(session, user=await create_user(session))
        first = await client.get("/articles/imports?limit=2", headers=bearer(ada))
        assert [each["id"] for each in first.json()] == ids[:0:-1]
        following = first.links["next"]["url"]
        second = await client.get(following, headers=bearer(ada))
        assert [each["id"] for each in second.json()] == ids[:1]

    async def test_housekeeping_ends_lost_imports_and_deletes_old_ones(
        self, client: httpx.AsyncClient, session: AsyncSession, database: Database, ada: User
    ) -> None:
        now = clock.now()
        running = {"state": ImportState.RUNNING, "finished_at": None, "report": None}
        lost = await create_import(
            session, user=ada, **running, active_at=now - timedelta(minutes=2)
        )
        alive = await create_import(session, user=await create_user(session), **running)
        old = await create_import(session, user=ada, finished_at=now - timedelta(days=31))
        shown = (await client.get(f"/articles/imports/{lost.id}", headers=bearer(ada))).json()
        assert shown["state"] == "interrupted"
        await delete_expired(database)
        rows = (await session.execute(select(Import.id, Import.state))).all()
        assert set(rows) == {(lost.id, "interrupted"), (alive.id, "running")}
        assert old.id not in {row.id for row in rows}
        again = (await client.get(f"/articles/imports/{lost.id}", headers=bearer(ada))).json()
        assert again == shown
        report = await client.get(f"/articles/imports/{lost.id}/report", headers=bearer(ada))
        assert report.status_code == 404

    async def test_lost_import_does_not_block_the_next(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        running = {"state": ImportState.RUNNING, "finished_at": None}
        row = await create_import(session, user=ada, **running)
        assert (await send(client, ada, line(1))).status_code == 409
        before = clock.now() - timedelta(minutes=2)
        await session.execute(update(Import).values(active_at=before))
        assert (await send(client, ada, line(1))).status_code == 200
        await session.refresh(row)
        assert row.state == ImportState.INTERRUPTED

    async def test_key_with_the_scope_reads_its_imports(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        key = await api_key(session, user=ada, scopes=["articles:write"])
        answer = await send(client, key, line(1))
        assert answer.status_code == 200
        assert (await client.get(answer.headers["Location"], headers=key)).status_code == 200
