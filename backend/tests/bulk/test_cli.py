"""The commands `import`, `export` and `seed`, each test with its own database."""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.content.markdown import make_excerpt, render_sync
from app.core.config import get_settings
from app.services.bulk import importing
from tests.bulk.exports import GHOST, WXR, wxr
from tests.commands import fetch, run
from tests.databases import execute, kept_connection, migrated_database

pytestmark = pytest.mark.usefixtures("restored_environment")

ADA = (
    "INSERT INTO users (email, username, name, hashed_password) VALUES ('a@x.org', 'ada', 'A', '')"
)
RECORD = {
    "title": "Title",
    "content": "Long enough.",
    "slug": "title",
    "author": "ada",
    "published_at": "2020-01-01T00:00:00Z",
    "tags": ["One"],
}
EVERYTHING = """
    SELECT (SELECT jsonb_agg(to_jsonb(a) ORDER BY id) FROM articles a) articles,
      (SELECT jsonb_agg(to_jsonb(t) ORDER BY article_id, tag_id) FROM article_tags t) tags,
      (SELECT count(*) FROM article_revisions) revisions, (SELECT count(*) FROM users) users,
      (SELECT count(*) FROM changes) changes, (SELECT count(*) FROM import_records) records
"""

Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    return write


@pytest.fixture
def another_database() -> Iterator[str]:
    with migrated_database() as url, kept_connection(url):
        yield url


def use(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", url)
    get_settings.cache_clear()


def source(form: str, write: Write) -> Path:
    """Write a source of at least three articles in this format."""
    if form == "ndjson":
        records = [{**RECORD, "slug": f"a-{number}"} for number in range(3)]
        return write("in.ndjson", "\n".join(map(json.dumps, records)))
    if form == "ghost":
        return write("ghost.json", json.dumps(GHOST))
    if form == "wordpress":
        return write("wp.xml", WXR)
    for name in ("a", "b/c", "2020-01-01-d"):
        text = (
            f"---\ndate: 2020-01-01\nauthor: Ada Lovelace\ntags: [x]\n---\n# {name}\n\nLong enough."
        )
        write(f"folder/{name}.md", text)
    return write("folder/e.md", "---\nslug: own\nauthor: ada\n---\nLong enough.").parent


def counts(output: str) -> list[int]:
    """Return the counts of a report; they add up to the last one, the number of records."""
    names = ("created", "updated", "unchanged", "refused", "left out", "records")
    lines = dict(line.rsplit(maxsplit=1) for line in output.splitlines() if line.startswith(names))
    numbers = [int(lines[name]) for name in names]
    assert sum(numbers[:-1]) == numbers[-1]
    return numbers


class TestImport:
    @pytest.mark.parametrize("form", ["ndjson", "markdown", "ghost", "wordpress"])
    def test_repeated_import_changes_nothing(
        self, own_database: str, write: Write, capsys: pytest.CaptureFixture[str], form: str
    ) -> None:
        execute(own_database, ADA)
        path = source(form, write)
        before = fetch(own_database, EVERYTHING)
        assert run("import", str(path), "--dry-run") == 0, capsys.readouterr()
        dry = capsys.readouterr()
        assert dry.err.endswith("This was a dry run: nothing was changed.\n")
        assert fetch(own_database, EVERYTHING) == before
        assert run("import", str(path)) == 0, capsys.readouterr()
        created = {"ndjson": 3, "markdown": 4, "ghost": 4, "wordpress": 6}[form]
        left_out = {"ghost": 1, "wordpress": 3}.get(form, 0)
        real = capsys.readouterr()
        assert counts(real.out) == [created, 0, 0, 0, left_out, created + left_out]
        assert (real.out, real.err) == (dry.out, dry.err.rpartition("This was")[0])
        (after,) = fetch(own_database, EVERYTHING)
        assert len(json.loads(after["articles"])) == after["records"] == created
        assert run("import", str(path)) == 0
        assert counts(capsys.readouterr().out)[:4] == [0, 0, created, 0]
        assert fetch(own_database, EVERYTHING) == [after]

    def test_authors_are_matched_or_created(
        self, own_database: str, write: Write, capsys: pytest.CaptureFixture[str]
    ) -> None:
        execute(own_database, ADA.replace("a@x.org", "Jane@Example.com").replace("ada", "janet"))
        assert run("import", str(source("ghost", write))) == 0
        captured = capsys.readouterr()
        assert "Users for authors without an account: joe\n" in captured.out
        assert "Left out: pages without text: 1, users without posts: 1\n" in captured.out
        assert "post 4: scheduled for 2099-01-01 00:00 UTC\n" in captured.err
        found = fetch(
            own_database,
            "SELECT username, role, email_verified_at, array_agg(slug ORDER BY a.id) slugs"
            " FROM users u JOIN articles a ON author_id = u.id GROUP BY u.id ORDER BY u.id",
        )
        assert [tuple(row) for row in found] == [
            ("janet", "author", None, ["welcome", "soon"]),
            ("joe", "author", None, ["a-draft", "o-la-la"]),
        ]
        assert fetch(own_database, "SELECT 1 FROM mails") == []
        events = fetch(own_database, "SELECT message FROM audit_events ORDER BY id")
        messages = [re.sub(r"\d+", "N", event["message"]) for event in events]
        assert messages == [
            "User N created from the command line",
            "N articles imported from the command line",
        ]

    def test_author_without_email_gets_an_invalid_address(
        self, own_database: str, write: Write
    ) -> None:
        assert run("import", str(source("markdown", write))) == 0
        users = fetch(own_database, "SELECT username, email, name FROM users ORDER BY id")
        assert {tuple(user) for user in users} == {
            ("ada-lovelace", "ada-lovelace@import.invalid", "Ada Lovelace"),
            ("ada", "ada@import.invalid", "ada"),
        }

    def test_author_option_assigns_all_articles(
        self, own_database: str, write: Write, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("import", str(source("wordpress", write)), "--author", "ada") == 1
        assert "There is no user ada" in capsys.readouterr().err
        execute(own_database, ADA)
        for form in ("wordpress", "ndjson", "ghost", "markdown"):
            assert run("import", str(source(form, write)), "--author", "ADA") == 0
        rows = fetch(
            own_database,
            "SELECT DISTINCT username FROM articles a JOIN users u ON u.id = author_id",
        )
        assert [row["username"] for row in rows] == ["ada"]
        assert len(fetch(own_database, "SELECT 1 FROM users")) == 1

    @pytest.mark.parametrize(
        ("form", "position"),
        [
            ("ndjson", "line 4"),
            ("markdown", "bad.md"),
            ("wordpress", "item 1"),
            ("ghost", "post 5"),
        ],
    )
    def test_invalid_record_is_reported_with_its_position(
        self,
        own_database: str,
        write: Write,
        capsys: pytest.CaptureFixture[str],
        form: str,
        position: str,
    ) -> None:
        execute(own_database, ADA)
        path = source(form, write)
        if form == "ndjson":
            path.write_text(path.read_text() + "\n{}\n" + json.dumps({**RECORD, "slug": "b"}))
        elif form == "markdown":
            (path / "bad.md").write_text("---\ntitle: Empty\n---\n")
        elif form == "wordpress":
            post = "<item><wp:post_type>post</wp:post_type><wp:status>draft</wp:status></item>"
            path.write_text(wxr(post + WXR[WXR.index("<item>") : WXR.rindex("</item>") + 7]))
        else:
            export = json.loads(path.read_text())
            export["db"][0]["data"]["posts"][4]["markdown"] = ""
            path.write_text(json.dumps(export))
        assert run("import", str(path)) == 1
        captured = capsys.readouterr()
        assert f"\n{position}: " in f"\n{captured.err}"
        assert counts(captured.out)[3] == 1
        assert "Traceback" not in captured.err
        assert len(fetch(own_database, "SELECT 1 FROM articles")) >= 3

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("a.bin", "", "set --format"),
            ("a.xml", "<rss>", "not XML"),
            ("a.json", "{}", "not a Ghost export"),
        ],
    )
    def test_unreadable_source_is_reported_without_a_traceback(
        self,
        own_database: str,
        write: Write,
        capsys: pytest.CaptureFixture[str],
        name: str,
        content: str,
        message: str,
    ) -> None:
        assert run("import", str(write(name, content))) == 1
        error = capsys.readouterr().err
        assert message in error
        assert "Traceback" not in error

    def test_import_in_several_batches(
        self, own_database: str, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(importing, "BATCH", 100)
        execute(own_database, ADA)
        records = [{**RECORD, "slug": f"a-{number}"} for number in range(260)]
        records += records[:10]
        path = write("in.ndjson", "\n".join(map(json.dumps, records)))
        assert run("import", str(path)) == 0
        (row,) = fetch(
            own_database,
            "SELECT (SELECT count(*) FROM articles) articles, (SELECT count(*) FROM changes) news,"
            " (SELECT count(*) FROM audit_events) batches, (SELECT count(*) FROM tags) tags",
        )
        assert tuple(row) == (260, 260, 3, 1)

    def test_posts_with_the_same_slug_become_two_articles(
        self, own_database: str, write: Write, capsys: pytest.CaptureFixture[str]
    ) -> None:
        execute(own_database, ADA)
        assert run("import", str(source("ghost", write)), "--author", "ada") == 0
        path = source("wordpress", write)
        path.write_text(WXR.replace("hello-world", "welcome"))
        assert run("import", str(path), "--author", "ada") == 0
        captured = capsys.readouterr()
        assert counts(captured.out)[:4] == [6, 0, 0, 0]
        assert "item 2: the slug is 'welcome-2', because 'welcome' is taken\n" in captured.err
        assert fetch(own_database, "SELECT 1 FROM article_revisions") == []


class TestExport:
    @pytest.mark.parametrize("target", ["out.ndjson", "folder"])
    def test_exported_articles_are_imported_unchanged(
        self,
        own_database: str,
        another_database: str,
        write: Write,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        target: str,
    ) -> None:
        execute(own_database, ADA)
        for form in ("wordpress", "ghost", "markdown", "ndjson"):
            assert run("import", str(source(form, write)), "--author", "ada") == 0
        path = tmp_path / "made" / target
        path.parent.mkdir()
        assert run("export", str(path)) == 0
        assert "Exported 17 articles" in capsys.readouterr().out
        before = fetch(own_database, EVERYTHING)
        assert run("import", str(path)) == 0
        assert counts(capsys.readouterr().out)[:4] == [0, 0, 17, 0]
        after = fetch(own_database, EVERYTHING)
        assert after[0]["articles"] == before[0]["articles"]
        assert after[0]["tags"] == before[0]["tags"]

        use(another_database, monkeypatch)
        execute(another_database, ADA)
        assert run("import", str(path)) == 0
        same = """
            SELECT title, slug, content, html, plain_text, toc, excerpt, own_excerpt,
              cover_image_url, language, published_at, archived_at IS NULL live, created_at,
              updated_at, word_count, (SELECT username FROM users WHERE id = author_id) author,
              (SELECT array_agg(t.slug ORDER BY t.slug)
                FROM article_tags s JOIN tags t ON t.id = s.tag_id WHERE article_id = a.id) tags
            FROM articles a ORDER BY slug
        """
        assert fetch(another_database, same) == fetch(own_database, same)
        again = tmp_path / "made" / f"again-{target}"
        assert run("export", str(again)) == 0
        assert contents(again) == contents(path)

    def test_unwritable_target_is_reported(
        self, own_database: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert run("export", str(tmp_path / "no" / "where.ndjson")) == 1
        assert "(No such file or directory)" in capsys.readouterr().err

    def test_file_that_cannot_be_written_is_named(
        self, own_database: str, write: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        execute(own_database, ADA)
        assert run("import", str(write("in.ndjson", json.dumps(RECORD)))) == 0
        link = tmp_path / "out" / "2020-01-01-title.md"
        link.parent.mkdir()
        link.symlink_to(tmp_path / "elsewhere")
        assert run("export", str(link.parent)) == 1
        assert f"Cannot write {link} (symbolic links are not" in capsys.readouterr().err


def contents(path: Path) -> list[bytes]:
    """Return the sorted lines of a file, or the sorted contents of the files of a folder."""
    if path.is_dir():
        return sorted(file.read_bytes() for file in path.iterdir())
    return sorted(path.read_bytes().splitlines())


class TestSeed:
    def test_rows_have_the_distribution_for_benchmarks(self, own_database: str) -> None:
        assert run("seed", "--users", "3", "--articles", "1100", "--length", "500") == 0
        (row,) = fetch(
            own_database,
            """
            SELECT count(*) n, avg(length(content)) size, count(*) FILTER (WHERE published) out,
              count(*) FILTER (WHERE search_vector @@ to_tsquery('english', 'harbour')) often,
              count(*) FILTER (WHERE search_vector @@ to_tsquery('english', 'zeppelin')) seldom,
              count(*) FILTER (WHERE search_vector @@ to_tsquery('english', 'quokka')) once,
              (SELECT count(*) FROM tags) tags,
              (SELECT max(n) FROM (SELECT count(*) n FROM article_tags GROUP BY tag_id) _) top,
              (SELECT count(DISTINCT position) FROM article_tags) positions,
              bool_and(edited_by = author_id AND edited_at = created_at) edited
            FROM articles
            """,
        )
        assert 450 < row["size"] < 600
        assert (row["often"], row["seldom"], row["once"], row["tags"]) == (550, 2, 1, 300)
        assert 0.25 < row["top"] / 1100 < 0.35
        assert 0.87 < row["out"] / 1100 < 0.93
        assert (row["positions"], row["edited"]) == (3, True)

    def test_stored_html_matches_the_renderer(self, own_database: str) -> None:
        assert run("seed", "--users", "1", "--articles", "50") == 0
        for row in fetch(own_database, "SELECT * FROM articles"):
            rendered = render_sync(row["content"])
            assert row["html"] == rendered.html
            assert row["plain_text"] == rendered.text
            assert json.loads(row["toc"]) == rendered.toc
            assert (row["word_count"], row["reading_time"]) == (
                rendered.word_count,
                rendered.reading_time,
            )
            assert row["excerpt"] == make_excerpt(rendered.text)
