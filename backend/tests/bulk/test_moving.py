"""Moving a blog by the command `import`: identity of records, redirects and the report."""

import json
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from app.services.bulk import importing
from tests.bulk.exports import WXR, ghost_export, wordpress_post, wxr
from tests.bulk.test_cli import ADA, RECORD, Write, counts, write
from tests.commands import fetch, run
from tests.databases import execute

__all__ = ["write"]

pytestmark = pytest.mark.usefixtures("restored_environment")

NATIVE = """
    INSERT INTO articles (title, slug, content, author_id, created_at, updated_at, published_at)
    SELECT 'Written here', 'taken', 'A text that was written here.', id, now(), now(), now()
    FROM users
"""
ARTICLES = "SELECT title, coalesce(draft_slug, slug) slug FROM articles ORDER BY id"
RECORDS = "SELECT source, source_id FROM import_records ORDER BY source, source_id"

Import = Callable[..., str]


@pytest.fixture
def load(own_database: str, capsys: pytest.CaptureFixture[str]) -> Import:
    """Import a source for the user `ada`. Return the output."""
    execute(own_database, ADA)

    def load(path: Path, *options: str, status: int = 0) -> str:
        assert run("import", str(path), "--author", "ada", *options) == status
        captured = capsys.readouterr()
        return captured.out + captured.err

    return load


class TestIdentity:
    def test_equal_paths_of_two_folders_are_two_articles(
        self, own_database: str, write: Write, tmp_path: Path, load: Import
    ) -> None:
        for blog in ("a", "b"):
            write(f"{blog}/posts/hello.md", f"---\ntitle: {blog}\ndate: 2020-01-01\n---\nText.")
        assert counts(load(tmp_path / "a"))[:4] == [1, 0, 0, 0]
        output = load(tmp_path / "b")
        assert counts(output)[:4] == [1, 0, 0, 0]
        assert f"Source: {tmp_path}/b (markdown)\n" in output
        write("a/posts/hello.md", "---\ntitle: a2\ndate: 2020-01-01\n---\nAnother text.")
        assert counts(load(tmp_path / "a"))[:4] == [0, 1, 0, 0]
        assert [tuple(row) for row in fetch(own_database, ARTICLES)] == [
            ("a2", "hello"),
            ("b", "hello-2"),
        ]
        assert [tuple(row) for row in fetch(own_database, RECORDS)] == [
            (f"{tmp_path}/{blog}", "posts/hello.md") for blog in ("a", "b")
        ]

    def test_moved_folder_is_the_same_with_a_source(
        self, write: Write, tmp_path: Path, load: Import
    ) -> None:
        write("a/x.md", "---\ndate: 2020-01-01\n---\nText.")
        assert counts(load(tmp_path / "a", "--source", "my blog"))[:4] == [1, 0, 0, 0]
        (tmp_path / "a").rename(tmp_path / "b")
        assert counts(load(tmp_path / "b", "--source", "my blog"))[:4] == [0, 0, 1, 0]
        assert counts(load(tmp_path / "b"))[:4] == [1, 0, 0, 0]

    def test_articles_written_here_are_not_changed(
        self, own_database: str, write: Write, tmp_path: Path, load: Import
    ) -> None:
        execute(own_database, NATIVE)
        before = fetch(own_database, "SELECT to_jsonb(a) FROM articles a")
        post = wordpress_post(1, name="taken")
        ghost = ghost_export(
            [{"id": "1", "uuid": "u-1", "slug": "taken", "html": "<p>Text.</p>", "status": "draft"}]
        )
        ndjson = {**RECORD, "slug": "taken"}
        write("folder/x.md", "---\nslug: taken\ndate: 2020-01-01\n---\nText.")
        for path in (
            write("wp.xml", wxr(post)),
            write("ghost.json", json.dumps(ghost)),
            write("in.ndjson", json.dumps(ndjson)),
            tmp_path / "folder",
        ):
            for expected in ([1, 0, 0, 0], [0, 0, 1, 0]):
                output = load(path)
                assert counts(output)[:4] == expected
                assert ("because 'taken' is taken" in output) is (expected[0] == 1)
        assert (
            fetch(own_database, "SELECT to_jsonb(a) FROM articles a WHERE title = 'Written here'")
            == before
        )
        slugs = [row["slug"] for row in fetch(own_database, ARTICLES)]
        assert slugs == ["taken", *(f"taken-{number}" for number in range(2, 6))]
        found = fetch(
            own_database,
            "SELECT path, slug FROM redirects r JOIN articles a ON a.id = article_id"
            " WHERE path = '/taken/' ORDER BY r.article_id",
        )
        assert {row["slug"] for row in found} == {"taken-2", "taken-3", "taken-5"}

    def test_equal_guids_with_different_ids_are_two_articles(
        self, own_database: str, write: Write, load: Import
    ) -> None:
        guid = "<guid>https://wp.example.com/?p=1</guid>"
        second = wordpress_post(2).replace(
            '<guid isPermaLink="false">https://wp.example.com/?p=2</guid>', guid
        )
        assert guid in second
        site = "</title><link>https://wp.example.com/</link>"
        text = wxr(wordpress_post(1) + second).replace("</title>", site, 1)
        path = write("wp.xml", text)
        output = load(path)
        assert counts(output)[:4] == [2, 0, 0, 0]
        assert "Source: https://wp.example.com (wordpress)\n" in output
        moved = path.read_text().replace("https://wp", "http://www.wp").replace("Post 1", "New")
        assert counts(load(write("again.xml", moved)))[:4] == [0, 1, 1, 0]
        assert [row["title"] for row in fetch(own_database, ARTICLES)] == ["New", "Post 2"]

    def test_changed_slugs_are_reported_and_redirect(
        self, own_database: str, write: Write, load: Import
    ) -> None:
        names = {"%e6%9d%b1%e4%ba%ac": "dong-jing", "old_post": "old-post"}
        posts = [wordpress_post(number, name=name) for number, name in enumerate(names)]
        output = load(write("wp.xml", wxr("".join(posts))))
        assert "the slug is 'dong-jing', because '東京' is not a valid slug here" in output
        found = fetch(
            own_database,
            "SELECT path, slug FROM redirects JOIN articles a ON a.id = article_id ORDER BY path",
        )
        assert {tuple(row) for row in found} >= {
            ("/%E6%9D%B1%E4%BA%AC/", "dong-jing"),
            ("/old_post/", "old-post"),
        }


class _Rows(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.rows: list[list[str]] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag in {"tr", "p"}:
            self.rows.append([])
        if tag in {"td", "th"}:
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data.strip()


class TestReport:
    def test_every_record_is_accounted_for(
        self, write: Write, tmp_path: Path, load: Import
    ) -> None:
        comment = "<wp:comment><wp:comment_approved>spam</wp:comment_approved></wp:comment>"
        posts = wordpress_post(60, more=comment * 2) + wordpress_post(61, content="")
        posts += wordpress_post(62, title="<b>&amp; <script>", status="pending")
        path = write("wp.xml", WXR.replace("</channel>", f"{posts}</channel>"))
        target = tmp_path / "report.json"
        output = load(path, "--report", str(target), status=1)
        assert counts(output) == [8, 0, 0, 1, 3, 12]
        left_out = "media files: 1, posts in the trash: 1, menu items: 1, spam comments: 2"
        assert f"Left out: {left_out}" in output
        assert "item 11: the text is empty" in output
        report = json.loads(target.read_text())
        assert report["counts"] == {
            "created": 8, "updated": 0, "unchanged": 0, "refused": 1, "left_out": 3, "records": 12,
        }  # fmt: skip
        assert len(report["records"]) == 12
        assert sum(report["left_out"].values()) == 3
        assert report["parts_left_out"] == {"spam comments": 2}
        by_position = {record["position"]: record for record in report["records"]}
        assert [record["position"] for record in report["records"]] == [
            f"item {number}" for number in range(1, 13)
        ]
        assert by_position["item 10"] == {
            "position": "item 10",
            "outcome": "created",
            "title": "Post 60",
            "source_id": "60",
            "slug": "post-60",
            "state": "public",
            "messages": ["2 spam comments were not imported"],
        }
        assert by_position["item 12"]["state"] == "draft"
        page = _Rows()
        page.feed((tmp_path / "report.html").read_text())
        cells = {row[0]: row[1:] for row in page.rows if row}
        assert cells["item 12"][:3] == ["& <script>", "created, draft", "post-62"]
        assert cells["records"] == ["12"]

    @pytest.mark.parametrize("batch", [1, 2, 500])
    def test_dry_run_reports_what_the_real_run_does(
        self,
        own_database: str,
        write: Write,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        load: Import,
        batch: int,
    ) -> None:
        """Slugs and ids of one batch are also taken in the next one."""
        monkeypatch.setattr(importing, "BATCH", batch)
        execute(own_database, NATIVE)
        base = {"content": "Long enough.", "published_at": "2020-01-01T00:00:00Z"}
        records = [
            *({**base, "title": f"T {number}", "source_id": str(number), "slug": "taken"}
              for number in range(13)),
            {**base, "title": "T 3", "source_id": "3", "slug": "taken"},
            {**base, "title": "Other", "source_id": "3", "slug": "taken"},
            *({"content": f"Draft {number}", "title": "taken", "source_id": f"d{number}"}
              for number in range(3)),
            {**base, "title": "Later", "source_id": "l", "published_at": "2999-01-01T00:00:00Z"},
            {"content": "Long", "title": "Later", "source_id": "m"},
            {**base, "title": "Later", "source_id": "n"},
            {"title": "No content"},
        ]  # fmt: skip
        path = write("in.ndjson", "\n".join(map(json.dumps, records)))
        target = tmp_path / "dry"
        dry = load(path, "--dry-run", "--report", str(target), status=1)
        dry_report = target.with_name("dry.json").read_text()
        real = load(path, "--report", str(tmp_path / "real"), status=1)
        assert dry.replace("This was a dry run: nothing was changed.\n", "") == real
        assert dry_report == (tmp_path / "real.json").read_text()
        assert counts(real) == [19, 0, 1, 2, 0, 22]

    def test_unwritable_report_is_noticed_before_the_import(
        self, own_database: str, write: Write, tmp_path: Path, load: Import
    ) -> None:
        path = write("in.ndjson", json.dumps(RECORD))
        output = load(path, "--report", str(tmp_path / "no" / "where.json"), status=1)
        assert "Cannot write" in output
        assert fetch(own_database, ARTICLES) == []

    def test_unknown_time_zone_is_reported(self, write: Write, load: Import) -> None:
        output = load(write("a.ndjson", ""), "--timezone", "Mars/Base", status=1)
        assert "Unknown time zone 'Mars/Base'" in output
