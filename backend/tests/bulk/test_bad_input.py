"""Hostile and broken sources: bounded memory and time, an error, and the other records.

Memory is that of a process that reads the source as `pressroom import` does, without a database.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from app.core.config import BACKEND_DIR
from tests.bulk.exports import ghost_export, wordpress_post, wxr
from tests.commands import fetch
from tests.databases import migrated_database

MIB = 1024 * 1024
READ = """
import json, resource, sys
from datetime import UTC, datetime
from pathlib import Path
from app.services.bulk import ghost, markdown, wordpress
from app.services.bulk.foreign import ReadOptions, SourceError
from app.services.bulk.importing import render_texts

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

module, path = {"xml": wordpress, "json": ghost, "md": markdown}[sys.argv[1]], Path(sys.argv[2])
options = ReadOptions(now=datetime(2026, 1, 1, tzinfo=UTC))
before, titles, problems = peak(), [], []
try:
    survey = module.survey(path, lambda _: None)
    problems += survey.problems
    for item in module.read(path, survey, options, resolve_author=str, advance=lambda _: None):
        if item.record is not None:
            titles.append(item.record.title)
            render_texts([item.record.content])
        elif not item.left_out:
            problems.append(item.problem)
except SourceError as error:
    problems.append(str(error))
json.dump([titles, [text[:300] for text in problems], peak() - before], sys.stdout)
"""


def read(form: str, path: Path) -> tuple[list[str], list[str], float]:
    """Return the titles and problems of a source, and the MiB that reading it took."""
    command = [sys.executable, "-c", READ, form, str(path)]
    done = subprocess.run(
        command, cwd=BACKEND_DIR, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    titles, problems, mib = json.loads(done.stdout)
    return titles, problems, mib


def write(path: Path, *parts: str | tuple[str, int]) -> Path:
    """Write texts to a file; a pair is a text and how often it is repeated."""
    with path.open("w") as file:
        for part in parts:
            text, times = (part, 1) if isinstance(part, str) else part
            at_once = max(1, MIB // len(text))
            for _ in range(times // at_once):
                file.write(text * at_once)
            file.write(text * (times % at_once))
    return path


ENTITIES = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10 if n else "laugh"}">' for n in range(10))
POST = wordpress_post(number=7, title="Good")
BEFORE, AFTER = wxr(f"{POST}<item><title>Bad</title>|").split("|")
Parts = list[str | tuple[str, int]]


def in_content(*parts: str | tuple[str, int]) -> Parts:
    return ["<content:encoded><![CDATA[", *parts, "]]></content:encoded></item>"]


WXR_BOMBS: dict[str, tuple[Parts, str]] = {
    "one attribute": (['<wp:x a="', ("x", 100 * MIB), '"/></item>'], "larger than"),
    "one text": (in_content(("word ", 20 * MIB)), "larger than"),
    "lines": (in_content(("ab\n", 5 * MIB)), "longer than"),
    "astral characters": (in_content("\U0001f600", ("x", 10 * MIB)), "longer than"),
    "tags": ([("<a/>", 1_000_000), "</item>"], "tags"),
    "nested elements": ([("<a>", 1_000_000), "</item>"], "tags"),
    "nested HTML": (in_content(("<div>", 49_000), ("<b>x", 900)), "elements inside each other"),
    "HTML attributes": (in_content("<p ", ("a b c ", MIB), ">"), "attributes"),
    "shortcodes": (in_content(("[caption]", 100_000)), ""),
    "comments": (in_content(("<!-- wp:x ", 500_000)), ""),
    "brackets": (in_content(("<", 2 * MIB)), "tags"),
    "marks": (in_content(("*_`[", 200_000)), ""),
    "no end": ([("<item>", 300_000)], "no end"),
    "entities": (["&e9;</item>"], ""),
}


class TestMemory:
    """Reading takes at most 100 MiB more than the program, which takes about 100."""

    @pytest.mark.parametrize("name", WXR_BOMBS)
    def test_wordpress(self, tmp_path: Path, name: str) -> None:
        bomb, problem = WXR_BOMBS[name]
        doctype = f"<!DOCTYPE rss [{ENTITIES}]>" if name == "entities" else ""
        start = BEFORE.replace("<rss", f"{doctype}<rss", 1)
        path = write(tmp_path / "wp.xml", start, *bomb, POST.replace("Good", "Also"), AFTER)
        titles, problems, mib = read("xml", path)
        assert (titles[0], titles[-1]) == ("Good", "Also")
        assert all(problem in each for each in problems[:1])
        assert mib < 100, problems

    @pytest.mark.parametrize("name", ["text", "parts", "nesting", "keys", "lexical"])
    def test_ghost(self, tmp_path: Path, name: str) -> None:
        values: dict[str, Parts] = {
            "text": ['"html": "', ("x", 100 * MIB), '"'],
            "parts": ['"a": [1', (",[]", 3_000_000), "]"],
            "nesting": ['"a": ', ("[", 100_000), ("]", 100_000)],
            "keys": ['"a": {"b": 1', (',"key\\u0000": 1', 1_000_000), "}"],
            "lexical": ['"lexical": "{\\"root\\":[', ("{},", MIB), '{}]}"'],
        }
        good = {"id": "1", "title": "Good", "html": "<p>Text.</p>"}
        also = {**good, "id": "2", "title": "Also"}
        before, after = json.dumps(ghost_export([good, "|", also])).split('"|"')
        bomb: Parts = ['{"id": "3", "title": "Bad", ', *values[name], "}"]
        titles, problems, mib = read("json", write(tmp_path / "g.json", before, *bomb, after))
        assert titles == ["Good", "Also"]
        assert len(problems) == 1
        assert mib < 100, problems

    def test_markdown(self, tmp_path: Path) -> None:
        aliases = "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 10 if n else 'x'}]\n" for n in range(10))
        texts = {
            "aliases": f"---\n{aliases}---\nText.",
            "good": "---\ntitle: Good\ndate: 2020-01-01\n---\nText.",
            "large": "x" * 5 * MIB,
            "nested": "---\na: " + "[" * 100_000 + "\n---\nText.",
            "tags": "{{< a >}}" * 100_000 + "Text.",
        }
        folder = tmp_path / "blog"
        folder.mkdir()
        for name, text in texts.items():
            (folder / f"{name}.md").write_text(text)
        (folder / "loop").symlink_to(folder)
        (folder / "self").symlink_to("self")
        os.mkfifo(folder / "pipe.md")
        titles, problems, mib = read("md", folder)
        assert "Good" in titles
        assert any("symbolic links" in each for each in problems)
        assert any("larger than" in each for each in problems)
        assert mib < 100, problems


@pytest.fixture
def database() -> Iterator[str]:
    with migrated_database() as url:
        yield url


def wordpress_source(folder: Path) -> Path:
    posts = (wordpress_post(number=number) for number in range(1, 41))
    return write(folder / "wp.xml", wxr("".join(posts)))


def ghost_source(folder: Path) -> Path:
    posts = [
        {"id": f"{n}", "uuid": f"u{n}", "slug": f"post-{n}", "title": f"Post {n}", "html": "Text."}
        for n in range(1, 41)
    ]
    return write(folder / "ghost.json", json.dumps(ghost_export(posts)))


def markdown_source(folder: Path) -> Path:
    for number in range(1, 41):
        text = f"---\ntitle: Post {number}\nauthor: Jane\ntags: [x, y{number % 3}]\n---\nText."
        write(folder / f"post-{number}.md", text)
    return folder


class TestKilled:
    @pytest.mark.parametrize("source", [wordpress_source, ghost_source, markdown_source])
    def test_every_record_is_imported_once(
        self, database: str, tmp_path: Path, source: Callable[[Path], Path]
    ) -> None:
        path = source(tmp_path)
        random = Random()
        kill_at = random.sample(range(1, 50), 12)
        command = [sys.executable, "-m", "tests.bulk.killing", json.dumps([*kill_at, 0, 0])]
        done = subprocess.run(
            [*command, str(path)],
            cwd=BACKEND_DIR,
            env={**os.environ, "DATABASE_URL": database},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]
        *killed, first, second = json.loads(done.stdout)
        assert -9 in killed
        assert (first, second) == (0, 0), done.stderr[-2000:]
        (found,) = fetch(
            database,
            "SELECT (SELECT array_agg(slug ORDER BY id) FROM articles WHERE draft_slug IS NULL)"
            " || (SELECT array_agg(draft_slug ORDER BY id) FROM articles"
            " WHERE draft_slug IS NOT NULL) AS slugs,"
            " (SELECT count(DISTINCT (source, source_id)) FROM import_records) AS records,"
            " (SELECT count(*) FROM import_records) AS rows,"
            " (SELECT count(*) FROM article_revisions) AS revisions,"
            " (SELECT count(*) FROM users) AS users",
        )
        assert sorted(found["slugs"]) == sorted(f"post-{number}" for number in range(1, 41))
        assert (found["records"], found["rows"], found["revisions"]) == (40, 40, 0)
        assert found["users"] <= 1
