"""Links between imported texts, and copies of the images of the old site."""

import asyncio
import json
import os
import random
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import pytest

from app.core import clock
from app.core.config import get_settings
from app.db.session import Database
from app.schemas.bulk import ArticleRecord
from app.services.bulk import references, relinking, sources
from app.services.bulk.records import ParsedRecord, PreparedRecord
from app.services.bulk.references import FileName, OldAddress, without_size
from app.services.bulk.relinking import FileIndex, Relinker, _Found
from app.services.bulk.reporting import AddressReport, Report
from app.services.bulk.sources import Format, ImportOptions
from app.services.media.storage import open_storage
from tests.bulk.exports import ghost_export, meta, wordpress_post, wxr
from tests.bulk.sites import local_fetcher, response, serve
from tests.bulk.test_cli import ADA, Write, write
from tests.commands import fetch, run
from tests.databases import execute
from tests.images import image_bytes
from tests.linear import grows_too_fast

__all__ = ["write"]
pytestmark = pytest.mark.usefixtures("restored_environment")

PAGE = "http://localhost:8000/read/articles/"
SITE = "https://wp.example.com"
TEXTS = "SELECT coalesce(draft_slug, slug) slug, content, cover_image_url cover, html FROM articles"
REMAINING = "SELECT address FROM imported_addresses ORDER BY address"
PNG, JPEG = image_bytes("PNG", size=(40, 30)), image_bytes("JPEG", size=(60, 30))

Import = Callable[..., str]


@pytest.fixture
def media_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "media"
    monkeypatch.setenv("MEDIA_DIR", str(folder))
    get_settings.cache_clear()
    return folder


@pytest.fixture
def load(own_database: str, media_dir: Path, capsys: pytest.CaptureFixture[str]) -> Import:
    """Import a source for the user `ada`. Return the output, which a dry run prints, too."""
    execute(own_database, ADA)

    def load(path: Path, *options: str, is_dry: bool = False) -> str:
        arguments = ("import", str(path), "--author", "ada", *options)
        if is_dry:
            before = fetch(own_database, TEXTS)
            assert run(*arguments, "--dry-run") == 0
            dry = capsys.readouterr()
            assert fetch(own_database, TEXTS) == before
        assert run(*arguments) == 0
        real = capsys.readouterr()
        if is_dry:
            assert real.out == dry.out
            assert real.err == dry.err.removesuffix("This was a dry run: nothing was changed.\n")
        return real.out + real.err

    return load


def texts(url: str) -> dict[str, str]:
    return {row["slug"]: row["content"] for row in fetch(url, TEXTS)}


def remaining(url: str) -> list[str]:
    return [row["address"] for row in fetch(url, REMAINING)]


def export(*items: str, site: str = SITE) -> str:
    return wxr("".join(items)).replace("</title>", f"</title><link>{site}</link>", 1)


class TestLinks:
    def test_wordpress_links_lead_to_the_articles_in_both_directions(
        self, own_database: str, write: Write, load: Import
    ) -> None:
        links = {
            "https://wp.example.com/post-2/#part": "post-2#part",
            "http://www.wp.example.com/post-2": "post-2",
            "/post-2/?utm_source=x": "post-2",
            "/?p=2": "post-2",
            "https://wp.example.com/?p=2#c-1": "post-2#c-1",
            "//wp.example.com/former/": "post-2",
            "/post-1/": "post-1",
        }
        others = ["https://wp.example.com/about/", "https://other.example/post-2/", "mailto:a@b.c"]
        html = "".join(f'<p><a href="{url}">x</a></p>' for url in [*links, *others])
        path = write(
            "wp.xml",
            export(
                wordpress_post(1, content=html),
                wordpress_post(
                    2,
                    content='<a href="/post-1/">back</a> and <code>/post-1/</code>',
                    more=meta("_wp_old_slug", "former"),
                ),
            ),
        )
        output = load(path, is_dry=True)
        found = texts(own_database)
        for target in links.values():
            assert f"[x]({PAGE}{target})" in found["post-1"]
        assert found["post-1"].count(PAGE) == len(links)
        assert all(f"]({url})" in found["post-1"] for url in others)
        assert found["post-2"] == f"[back]({PAGE}post-1) and `/post-1/`"
        assert "New URLs: 8 links to imported articles, 0 copied images" in output
        assert "post-1: https://wp.example.com/about/: no article with this URL" in output
        assert remaining(own_database) == ["https://wp.example.com/about/"]
        before = fetch(own_database, "SELECT to_jsonb(a) FROM articles a ORDER BY id")
        assert "New URLs" not in load(path, is_dry=True)
        assert fetch(own_database, "SELECT to_jsonb(a) FROM articles a ORDER BY id") == before

    def test_article_that_is_imported_later_is_linked(
        self, own_database: str, write: Write, load: Import
    ) -> None:
        first = wordpress_post(1, content='<a href="/post-2/">later</a> <a href="/post-3/">x</a>')
        load(write("wp.xml", export(first)))
        assert f"[later]({SITE}/post-2/)" in texts(own_database)["post-1"]
        both = write("both.xml", export(first, wordpress_post(2)))
        assert "New URLs: 1 link " in load(both)
        assert texts(own_database)["post-1"] == f"[later]({PAGE}post-2) [x]({SITE}/post-3/)"
        (row,) = fetch(own_database, "SELECT html FROM articles WHERE slug = 'post-1'")
        assert f'href="{PAGE}post-2"' in row["html"]

    def test_only_addresses_of_the_import_are_replaced(
        self, own_database: str, write: Write, load: Import
    ) -> None:
        post = wordpress_post(1, content='<a href="/post-2/">x</a>')
        load(write("wp.xml", export(post)))
        written = f"[x]({SITE}/post-2/) [mine]({SITE}/post-3/)"
        execute(own_database, f"UPDATE articles SET content = '{written}'")
        everything = export(post, wordpress_post(2), wordpress_post(3))
        load(write("all.xml", everything))
        assert texts(own_database)["post-1"] == f"[x]({PAGE}post-2) [mine]({SITE}/post-3/)"

    def test_changed_text_has_its_new_addresses_at_once(
        self, own_database: str, write: Write, load: Import
    ) -> None:
        posts = wordpress_post(1, content='<a href="/post-2/">x</a>') + wordpress_post(2)
        load(write("wp.xml", export(posts)))
        changed = posts.replace("Post 1", "Another title")
        load(write("wp.xml", export(changed)))
        assert texts(own_database)["post-1"] == f"[x]({PAGE}post-2)"
        (revision,) = fetch(own_database, "SELECT content FROM article_revisions")
        assert revision["content"] == f"[x]({PAGE}post-2)"

    def test_ghost_links(self, own_database: str, write: Write, load: Import) -> None:
        posts = [
            {
                "id": str(number),
                "uuid": f"u-{number}",
                "slug": f"post-{number}",
                "title": f"Post {number}",
                "html": f'<p><a href="__GHOST_URL__/post-{3 - number}/#x">x</a></p>',
                "status": "published",
                "published_at": "2020-01-01 00:00:00",
            }
            for number in (1, 2)
        ]
        path = write("ghost.json", json.dumps(ghost_export(posts)))
        load(path, "--site", "https://ghost.example/blog")
        assert texts(own_database) == {
            "post-1": f"[x]({PAGE}post-2#x)",
            "post-2": f"[x]({PAGE}post-1#x)",
        }

    @pytest.mark.parametrize("site", [(), ("--site", "https://old.example")])
    def test_links_between_files(
        self, own_database: str, write: Write, load: Import, tmp_path: Path, site: tuple[str, ...]
    ) -> None:
        head = "---\ndate: 2020-01-01\n---\n"
        links = [
            "[a](../other.md#part)", "[b](/posts/2020-02-02-dated.md)",
            "[c](/2020/02/02/dated.html)", "[d]({% post_url 2020-02-02-dated %})",
            '[e]({{< ref "bundle" >}})', '[f]({{< relref "/posts/bundle/index.md#x" >}})',
            "[g](bundle/)", "[h](./2020-02-02-dated.md)",
            "[i]({% link posts/2020-02-02-dated.md %})", "[j](/posts/bundle)", "[k][ref]",
        ]  # fmt: skip
        targets = [
            "other#part", "dated", "dated", "dated", "bundle", "bundle#x", "bundle", "dated",
            "dated", "bundle",
        ]  # fmt: skip
        text = head + "\n\n".join(links) + "\n\n[ref]: ../other.md\n\n[no](missing.md)"
        write("blog/posts/links.md", text)
        write("blog/other.md", head + "Other, back to [links](posts/links.md).")
        write("blog/posts/2020-02-02-dated.md", head + "Dated.")
        write("blog/posts/bundle/index.md", head + "Bundle, see [other](../../other.md).")
        output = load(tmp_path / "blog", *site, is_dry=True)
        found = texts(own_database)
        for letter, target in zip("abcdefghij", targets, strict=True):
            assert f"[{letter}]({PAGE}{target})" in found["links"], letter
        assert f"[ref]: {PAGE}other\n" in found["links"]
        assert found["other"] == f"Other, back to [links]({PAGE}links)."
        assert found["bundle"] == f"Bundle, see [other]({PAGE}other)."
        assert "missing.md: no article with this URL was imported" in output

    def test_file_name_that_two_texts_have_is_no_link(
        self, own_database: str, write: Write, load: Import, tmp_path: Path
    ) -> None:
        head = "---\ndate: 2020-01-01\n---\n"
        for folder in ("a", "b"):
            write(f"blog/{folder}/same.md", head + folder)
        write("blog/c/x.md", head + "[x](same.md) [y](../a/same.md)")
        load(tmp_path / "blog")
        assert texts(own_database)["x"] == f"[x](same.md) [y]({PAGE}same)"

    def test_own_exports_keep_their_addresses(
        self, own_database: str, write: Write, load: Import
    ) -> None:
        record = {"title": "A", "content": "[x](/b/) ![y](../y.png)", "published": True}
        load(write("in.ndjson", json.dumps(record)))
        assert list(texts(own_database).values()) == ["[x](/b/) ![y](../y.png)"]

    def test_killed_import_continues(self, own_database: str, write: Write, load: Import) -> None:
        posts = wordpress_post(1, content='<a href="/post-2/">x</a>') + wordpress_post(2)
        path = write("wp.xml", export(posts))

        async def import_without_end(database: Database) -> None:
            with Report(now=clock.now()) as report:
                source = sources.open_source(
                    path, source_format=Format.AUTO, advance=lambda _: None
                )
                options = ImportOptions(author="ada")
                task = asyncio.create_task(
                    sources.import_source(
                        database,
                        source,
                        options=options,
                        report=report,
                        advance=lambda _: None,
                        storage=open_storage(get_settings()),
                    )
                )
                while report.counts.total() < 2:  # noqa: ASYNC110 - the report has no event
                    await asyncio.sleep(0)
                task.cancel()
                await asyncio.wait([task])

        in_database(import_without_end)
        assert texts(own_database)["post-1"] == f"[x]({SITE}/post-2/)"
        assert "New URLs: 1 link " in load(path)
        assert texts(own_database)["post-1"] == f"[x]({PAGE}post-2)"


class Counted(str):
    """A text that counts how often it is compared."""

    __slots__ = ()
    comparisons = 0

    def __eq__(self, other: object) -> bool:
        Counted.comparisons += 1
        return str.__eq__(self, other)

    def __lt__(self, other: str) -> bool:
        Counted.comparisons += 1
        return str.__lt__(self, other)

    def startswith(self, *arguments: Any) -> bool:
        Counted.comparisons += 1
        return str.startswith(self, *arguments)

    __hash__ = str.__hash__


class TestFileIndex:
    def test_links_are_found_without_comparing_all_files(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        backwards = relinking._backwards
        monkeypatch.setattr(relinking, "_backwards", lambda stem: Counted(backwards(stem)))
        index = FileIndex({f"d{number}/a.md": f"a-{number}" for number in range(4096)})
        Counted.comparisons = 0
        for number in range(100):
            assert index.find([FileName(f"d{number}/a")]) == f"a-{number}"
            missing = FileName(f"x{number}/a")
            assert index.find([missing, missing._replace(is_loose=True)]) is None
            assert index.find([FileName("a", is_loose=True)]) is None
        assert 0 < Counted.comparisons < 400 * 40  # 12 steps, and the two nearest files

    def test_many_links_in_a_text_take_linear_time(self) -> None:
        record = ArticleRecord.model_validate({"title": "A", "content": "Text."})
        item = PreparedRecord(ParsedRecord(1, record), record, "blog", "a.md", b"", b"", b"")
        site = references.Site()
        report = AddressReport()
        relinker = Relinker(
            cast("Database", None),
            source="blog",
            site=site,
            copier=None,
            report=report,
            is_dry_run=False,
        )

        def run(text: str) -> None:
            found = [OldAddress(f"/{number}", f"/{number}", False) for number in range(len(text))]
            targets = {("a.md", each): "/x" for each in found[::2]}
            addresses = _Found(None, {each.address: each for each in found})
            changed = relinker._replace_in(item, addresses, targets)
            assert changed.addresses == found[1::2]

        assert not grows_too_fast(run, partial(str.ljust, ""), short=4_000, floor=0.05)

    def test_only_one_file_may_be_meant(self) -> None:
        choice = random.Random(1)
        for _ in range(500):
            stems = ["/".join(choice.choices("abc", k=choice.randint(1, 3))) for _ in range(5)]
            files = {f"{stem}.{choice.choice(['md', 'html'])}": stem for stem in stems}
            name = FileName("/".join(choice.choices("abc", k=choice.randint(1, 2))), is_loose=True)
            for each in (name, name._replace(is_loose=False)):
                found = [stem for stem in files.values() if stem == each.stem]
                if not found and each.is_loose:
                    found = [stem for stem in files.values() if stem.endswith(f"/{each.stem}")]
                expected = found[0] if len(found) == 1 else None
                assert FileIndex(files).find([each]) == expected, (files, each)

    def test_first_name_with_one_file_counts(self) -> None:
        index = FileIndex({"a/x.md": "one", "b/x.md": "two", "c/index.md": "three"})
        names = [FileName("x", is_loose=True), FileName("missing"), FileName("c")]
        assert index.find(names) == "three"

    def test_files_are_looked_up_in_a_thread(
        self,
        own_database: str,
        write: Write,
        load: Import,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A text can have thousands of links, which would block the event loop."""
        threads = set()
        find, create = FileIndex.find, FileIndex.__init__

        def noted(function: Callable[..., Any]) -> Callable[..., Any]:
            def note(*arguments: Any) -> Any:
                threads.add(threading.current_thread())
                return function(*arguments)

            return note

        monkeypatch.setattr(FileIndex, "find", noted(find))
        monkeypatch.setattr(FileIndex, "__init__", noted(create))
        write("blog/a.md", "---\ndate: 2020-01-01\n---\n[x](b.md)")
        write("blog/b.md", "---\ndate: 2020-01-01\n---\nText.")
        load(tmp_path / "blog")
        assert texts(own_database)["a"] == f"[x]({PAGE}b)"
        assert threads
        assert threading.main_thread() not in threads


def in_database(work: Callable[[Database], Coroutine[Any, Any, None]]) -> None:
    """Run `work` with the database of the settings."""

    async def run() -> None:
        database = Database.from_settings(get_settings())
        try:
            await work(database)
        finally:
            await database.dispose()

    asyncio.run(run())


class Run(NamedTuple):
    """An import from a site."""

    report: Report
    requests: Counter[str]


def import_from(
    path: Path, answers: Mapping[str, Any], *changes: Mapping[str, Any], **options: Any
) -> list[Run]:
    """Import a source with images from a site, and again after each change of its answers.

    `PORT` in the source is that of the site.
    """
    runs: list[Run] = []

    async def import_once(database: Database, target: Path, requests: Counter[str]) -> None:
        source = sources.open_source(target, source_format=Format.AUTO, advance=lambda _: None)
        with Report(now=clock.now()) as report:
            async with local_fetcher() as fetcher:
                await sources.import_source(
                    database,
                    source,
                    options=ImportOptions(author="ada", **options),
                    report=report,
                    advance=lambda _: None,
                    storage=open_storage(get_settings()),
                    fetcher=fetcher,
                )
        runs.append(Run(report, Counter(requests)))

    async def import_all(database: Database) -> None:
        async with serve(answers) as site:
            target = _with_port(path, site.port)
            for change in ({}, *changes):
                site.answers.update(change)
                site.requests.clear()
                await import_once(database, target, site.requests)

    in_database(import_all)
    return runs


def _with_port(path: Path, port: int) -> Path:
    target = path.with_suffix(f".port{path.suffix}")
    target.write_text(path.read_text().replace("PORT", str(port)))
    return target


def reasons(report: Report) -> dict[str, str]:
    return {each.address.rpartition("/")[2]: each.reason for each in report.addresses.remaining}


@pytest.fixture
def ada(own_database: str, media_dir: Path) -> str:
    execute(own_database, ADA)
    return own_database


MEDIA = "SELECT id, alt, width, folder FROM media ORDER BY id"
UPLOADS = "/wp-content/uploads/2020/01"


class TestFetchedImages:
    def test_texts_and_covers_show_copies(self, ada: str, write: Write) -> None:
        site = "http://127.0.0.1:PORT"
        html = (
            f'<figure><img src="{site}{UPLOADS}/a.png" alt="A cat"><figcaption>It sleeps'
            f'</figcaption></figure><p><a href="{site}{UPLOADS}/b.jpg"><img alt="B" src='
            f'"{UPLOADS}/b-300x200.jpg?w=300"></a></p><img src="{UPLOADS}/gone.png">'
            f'<img src="{UPLOADS}/page.png"><img src="{UPLOADS}/x.svg">'
            '<img src="https://other.example/y.png">'
        )
        attachment = wordpress_post(
            9, type="attachment", more=f"<wp:attachment_url>{site}/cover.png</wp:attachment_url>"
        )
        post = wordpress_post(1, content=html, more=meta("_thumbnail_id", "9"))
        path = write("wp.xml", export(attachment, post, site=site))
        answers: dict[str, Any] = {
            f"{UPLOADS}/a.png": response(PNG),
            f"{UPLOADS}/b.jpg": response(JPEG, kind="image/jpeg"),
            f"{UPLOADS}/b-300x200.jpg": response(JPEG, kind="application/octet-stream"),
            "/cover.png": response(PNG),
            f"{UPLOADS}/page.png": response(b"<html>", kind="text/html"),
            f"{UPLOADS}/x.svg": response(b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
        }
        gone = f"{UPLOADS}/gone.png"
        run, again = import_from(path, answers, {gone: response(PNG)})
        first, second = fetch(ada, MEDIA)  # each content once
        (row,) = fetch(ada, TEXTS)
        urls = [f"http://localhost:8000/media/{each['folder']}/picture" for each in (first, second)]
        png, jpeg = urls if first["width"] == 40 else reversed(urls)
        content = row["content"]
        assert row["cover"] == f"{png}.png"
        assert f"![A cat]({png}.png)" in content
        assert "It sleeps" in content
        assert f"[![B]({jpeg}.jpg)]({jpeg}.jpg)" in content
        assert "https://other.example/y.png" in content
        assert f"{png}.png" in row["html"]
        assert run.report.addresses.images == 4
        assert reasons(run.report) == {
            "gone.png": "the server answered 404",
            "page.png": "it is not an image, but text/html",
            "x.svg": "SVG is not supported because it can contain scripts: send JPEG, PNG, WebP,"
            " GIF or AVIF",
        }
        assert {each.slug for each in run.report.addresses.remaining} == {"post-1"}
        references = fetch(ada, "SELECT media_id FROM article_media ORDER BY media_id")
        assert [each["media_id"] for each in references] == [first["id"], second["id"]]
        assert set(run.requests.values()) == {1}
        # The second import asked only for what was missing, and found one more image.
        assert set(again.requests) == {gone, f"{UPLOADS}/page.png", f"{UPLOADS}/x.svg"}
        assert set(reasons(again.report)) == {"page.png", "x.svg"}
        assert again.report.addresses.images == 1

    def test_image_of_two_articles_is_fetched_once(self, ada: str, write: Write) -> None:
        html = '<img src="/a.png">'
        posts = [wordpress_post(number, content=html) for number in range(30)]
        path = write("wp.xml", export(*posts, site="http://127.0.0.1:PORT"))
        run, again = import_from(path, {"/a.png": response(PNG)}, {})
        assert run.requests == {"/a.png": 1}
        assert run.report.addresses.images == 30
        assert (again.requests, again.report.addresses.remaining) == ({}, [])
        assert len(fetch(ada, MEDIA)) == 1

    def test_without_a_fetcher_nothing_is_asked(
        self, own_database: str, write: Write, load: Import
    ) -> None:
        html = '<img src="a.png" alt="A"><img src="/b.png"><img src="//wp.example.com/c.png">'
        html += '<a href="/d.pdf">D</a>'
        output = load(write("wp.xml", export(wordpress_post(1, content=html))))
        (content,) = texts(own_database).values()
        for url in ("/post-1/a.png", "/b.png", "/c.png"):
            assert f"]({SITE}{url})" in content
            assert f"post-1: {SITE}{url}: the image was not copied" in output
        assert f"post-1: {SITE}/d.pdf: only images are copied, not other files" in output

    def test_this_machine_is_not_asked(self, own_database: str, write: Write, load: Import) -> None:
        site = "http://localhost:1"
        html = '<img src="/a.png">'
        path = write("wp.xml", export(wordpress_post(1, content=html), site=site))
        output = load(path, "--fetch-media")
        assert "/a.png: the host has the address " in output
        assert "which is not public" in output


class TestFolders:
    def test_images_of_a_folder(
        self, own_database: str, write: Write, load: Import, tmp_path: Path, media_dir: Path
    ) -> None:
        uploads = tmp_path / "backup" / "wp-content" / "uploads"
        (uploads / "2020/01").mkdir(parents=True)
        for name, content in {
            "2020/01/a.png": PNG, "2020/01/b.jpg": JPEG, "2020/01/c ä.png": PNG,
            "text.png": b"text",
        }.items():  # fmt: skip
            (uploads / name).write_bytes(content)
        html = "".join(
            f'<p><img src="{SITE}/wp-content/uploads/{name}" alt="{number}"></p>'
            for number, name in enumerate(
                [
                    "2020/01/a.png",
                    "2020/01/b-60x30.jpg",
                    "2020/01/c%20%C3%A4.png",
                    "no.png",
                    "text.png",
                ]
            )
        )
        path = write("wp.xml", export(wordpress_post(1, content=html)))
        output = load(path, "--media", str(uploads))
        (row,) = fetch(own_database, TEXTS)
        assert row["content"].count("http://localhost:8000/media/") == 3
        assert len(fetch(own_database, MEDIA)) == 2
        assert "no.png: the file is not in the folder" in output
        assert "text.png: " in output
        folders = {each["folder"] for each in fetch(own_database, MEDIA)}
        assert {each.name for each in (media_dir / "files").iterdir()} == folders
        assert not list((media_dir / "incoming").iterdir())

    def test_page_bundles_and_static_folders(
        self, own_database: str, write: Write, load: Import, tmp_path: Path
    ) -> None:
        blog = tmp_path / "blog"
        write(
            "blog/content/posts/a/index.md",
            "---\ndate: 2020-01-01\ncover: cover.jpg\n---\n"
            "![here](photo.png 'T') ![up](../b/x.png) ![static](/images/s.png) ![no](no.png)",
        )
        for name, content in {
            "content/posts/a/photo.png": PNG, "content/posts/a/cover.jpg": JPEG,
            "content/posts/b/x.png": image_bytes("PNG", size=(20, 20)),
            "static/images/s.png": image_bytes("PNG", size=(30, 20)),
        }.items():  # fmt: skip
            (blog / name).parent.mkdir(parents=True, exist_ok=True)
            (blog / name).write_bytes(content)
        output = load(blog, "--media", str(blog), is_dry=True)
        (row,) = fetch(own_database, TEXTS)
        assert row["content"].count("](http://localhost:8000/media/") == 3
        assert ".png 'T')" in row["content"]
        assert "![no](no.png)" in row["content"]
        assert row["cover"].startswith("http://localhost:8000/media/")
        assert "a: no.png: the file is not in the folder" in output
        assert "cover image" not in output
        (article,) = fetch(own_database, "SELECT imported FROM articles")
        assert "cover_image" not in (article["imported"] or "")

    @pytest.mark.parametrize("site", [(), ("--source", "https://old.example")])
    def test_folders_of_hexo_beside_texts(
        self, own_database: str, write: Write, load: Import, tmp_path: Path, site: tuple[str, ...]
    ) -> None:
        for number, name in enumerate(("a", "b"), 1):
            head = f"---\ndate: 2020-01-01\npermalink: /2020/{name}/\n---\n"
            text = "{% asset_img photo.png %} ![again](photo.png)"
            image = write(f"source/_posts/{name}.md", head + text).with_suffix("") / "photo.png"
            image.parent.mkdir()
            image.write_bytes(image_bytes("PNG", size=(20, 10 * number)))
        load(tmp_path / "source", "--media", str(tmp_path / "source"), *site)
        for row in fetch(own_database, TEXTS):
            assert row["content"].count("](http://localhost:8000/media/") == 2
        assert len(fetch(own_database, MEDIA)) == 2

    def test_files_outside_are_not_read(
        self, own_database: str, write: Write, load: Import, tmp_path: Path
    ) -> None:
        folder, secret = tmp_path / "folder", tmp_path / "secret"
        for each in (folder, secret):
            each.mkdir()
        (secret / "s.png").write_bytes(PNG)
        (folder / "file.png").symlink_to(secret / "s.png")
        (folder / "linked").symlink_to(secret)
        (folder / "loop").symlink_to(folder)
        os.mkfifo(folder / "pipe.png")
        names = [
            "file.png", "linked/s.png", "../secret/s.png", "..%2fsecret/s.png",
            "loop/loop/file.png", "pipe.png", "%00.png", f"{'x' * 300}.png",
        ]  # fmt: skip
        html = "".join(f'<p><img src="{SITE}/{name}"></p>' for name in names)
        path = write("wp.xml", export(wordpress_post(1, content=html)))
        output = load(path, "--media", str(folder))
        assert fetch(own_database, MEDIA) == []
        assert output.count("symbolic links are not followed") == 3
        assert "not a regular file" in output

    def test_quota_of_the_author_does_not_apply(
        self,
        own_database: str,
        write: Write,
        load: Import,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.setenv("MEDIA_QUOTA_BYTES", "1")
        get_settings.cache_clear()
        (tmp_path / "images").mkdir()
        (tmp_path / "images" / "a.png").write_bytes(PNG)
        html = f'<img src="{SITE}/images/a.png">'
        load(
            write("wp.xml", export(wordpress_post(1, content=html))),
            "--media",
            str(tmp_path / "images"),
        )
        assert len(fetch(own_database, MEDIA)) == 1


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("2020/a-300x200.jpg", "2020/a.jpg"),
        ("a-b-1024x768.jpeg", "a-b.jpeg"),
        ("content/images/size/w600/2020/a.png", "content/images/2020/a.png"),
        ("content/images/size/w30h30/format/webp/a.png", "content/images/a.png"),
        ("a-300.jpg", None),
        ("300x200.jpg", None),
    ],
)
def test_smaller_versions_of_images(name: str, whole: str | None) -> None:
    assert without_size(name) == whole
