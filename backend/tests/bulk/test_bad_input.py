"""Hostile and broken sources: bounded memory and time, an error, and the other records.

Memory is that of a process that reads the source as `pressroom import` does, without a database.
"""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest

from app.core.config import BACKEND_DIR
from tests.bulk.exports import ghost_export, wordpress_post, wxr
from tests.commands import fetch
from tests.processes import Checkout, Fork

MIB = 1024 * 1024
MAX_MIB = 75
"""What reading may take. The program itself takes about 100 MiB; an import has 200 in all."""

Read = tuple[list[str], list[str], float]


Run = Callable[..., Any]


@pytest.fixture
def run_module(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a function that runs a module of the tests, and returns the JSON that it prints."""
    checkout = Checkout(directory=BACKEND_DIR, logs=tmp_path_factory.mktemp("logs"))

    def run(name: str, *arguments: str, **settings: str) -> Any:
        settings = {"ENVIRONMENT": "test", "BCRYPT_COST": "4", **settings}
        module = f"tests.bulk.{name}"
        with Fork(module, *arguments, checkout=checkout, settings=settings) as process:
            assert process.wait() == 0, process.log[-2000:]
            return json.loads(process.log.splitlines()[-1])

    return run


def read(run_module: Run, form: str, paths: Mapping[str, Path]) -> dict[str, Read]:
    """Return the titles, the problems and the MiB of each source."""
    sources = [[form, str(path)] for path in paths.values()]
    results = run_module("reading", json.dumps(sources))
    for path in paths.values():
        if path.is_file():  # large; temporary files may be in memory
            path.unlink()
    return dict(zip(paths, results, strict=True))


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
    "one attribute": (['<wp:x a="', ("x", 40 * MIB), '"/></item>'], "larger than"),
    "one text": (in_content(("word ", 16 * MIB)), "larger than"),
    "lines": (in_content(("ab\n", 600_000)), "lines"),
    "astral characters": (in_content("\U0001f600", ("x", 7 * MIB)), "longer than"),
    "tags": ([("<a/>", 450_000), "</item>"], "tags"),
    "nested elements": ([("<a>", 450_000), "</item>"], "tags"),
    "nested HTML": (in_content(("<div>", 20_000), ("<b>x", 900)), "nested too deeply"),
    "HTML attributes": (in_content("<p ", ("a b c ", 100_000), ">"), "attributes"),
    "shortcodes": (in_content(("[caption]", 20_000)), ""),
    "comments": (in_content(("<!-- wp:x ", 100_000)), ""),
    "brackets": (in_content(("<", 450_000)), "tags"),
    "marks": (in_content(("*_`[", 50_000)), ""),
    "no end": ([("<item>", 30_000)], "no end"),
    "entities": (["&e9;</item>"], ""),
}


class TestMemory:
    def test_wordpress(self, run_module: Run, tmp_path: Path) -> None:
        paths: dict[str, Path] = {}
        for name, (bomb, _) in WXR_BOMBS.items():
            doctype = f"<!DOCTYPE rss [{ENTITIES}]>" if name == "entities" else ""
            start = BEFORE.replace("<rss", f"{doctype}<rss", 1)
            end = POST.replace("Good", "Also"), AFTER
            paths[name] = write(tmp_path / f"{len(paths)}.xml", start, *bomb, *end)
        for name, (titles, problems, mib) in read(run_module, "xml", paths).items():
            assert (titles[0], titles[-1]) == ("Good", "Also"), name
            assert all(WXR_BOMBS[name][1] in each for each in problems[:1]), (name, problems)
            assert mib < MAX_MIB, name

    def test_ghost(self, run_module: Run, tmp_path: Path) -> None:
        bombs: dict[str, Parts] = {
            "text": ['"html": "', ("x", 40 * MIB), '"'],
            "parts": ['"a": [1', (",[]", 400_000), "]"],
            "nesting": ['"a": ', ("[", 100_000), ("]", 100_000)],
            "keys": ['"a": {"b": 1', (',"key\\u0000": 1', 400_000), "}"],
            "lexical": ['"lexical": "{\\"root\\":[', ("{},", 300_000), '{}]}"'],
        }
        good = {"id": "1", "title": "Good", "html": "<p>Text.</p>"}
        also = {**good, "id": "2", "title": "Also"}
        before, after = json.dumps(ghost_export([good, "|", also])).split('"|"')
        paths = {
            name: write(
                tmp_path / f"{name}.json", before, '{"id": "3", "title": "Bad", ', *bomb, "}", after
            )
            for name, bomb in bombs.items()
        }
        for name, (titles, problems, mib) in read(run_module, "json", paths).items():
            assert titles == ["Good", "Also"], (name, problems)
            assert len(problems) == 1, (name, problems)
            assert mib < MAX_MIB / 2, name

    def test_markdown(self, run_module: Run, tmp_path: Path) -> None:
        aliases = "".join(f"a{n}: &a{n} [{f'*a{n - 1}, ' * 10 if n else 'x'}]\n" for n in range(10))
        texts = {
            "aliases": f"---\n{aliases}---\nText.",
            "good": "---\ntitle: Good\ndate: 2020-01-01\n---\nText.",
            "large": "x" * 5 * MIB,
            "nested": "---\na: " + "[" * 100_000 + "\n---\nText.",
            "tags": "{{< a >}}" * 20_000 + "Text.",
        }
        folder = tmp_path / "blog"
        folder.mkdir()
        for name, text in texts.items():
            (folder / f"{name}.md").write_text(text)
        (folder / "loop").symlink_to(folder)
        (folder / "self").symlink_to("self")
        os.mkfifo(folder / "pipe.md")
        titles, problems, mib = read(run_module, "md", {"": folder})[""]
        assert "Good" in titles
        assert any("symbolic links" in each for each in problems)
        assert any("larger than" in each for each in problems)
        assert mib < MAX_MIB


def wordpress_source(folder: Path) -> Path:
    posts = (wordpress_post(number=number) for number in range(1, 41))
    return write(folder / "wp.xml", wxr("".join(posts)))


def ghost_source(folder: Path) -> Path:
    posts = [
        {"id": f"{n}", "uuid": f"u{n}", "slug": f"post-{n}", "title": f"Post {n}", "html": "Text.",
         "author_id": "1"}
        for n in range(1, 41)
    ]  # fmt: skip
    users = [{"id": "1", "name": "Jane", "slug": "jane", "email": "jane@example.com"}]
    return write(folder / "ghost.json", json.dumps(ghost_export(posts, users=users)))


def markdown_source(folder: Path) -> Path:
    for number in range(1, 41):
        text = f"---\ntitle: Post {number}\nauthor: Jane\ntags: [x, y{number % 3}]\n---\nText."
        write(folder / f"post-{number}.md", text)
    return folder


class TestKilled:
    @pytest.mark.parametrize("source", [wordpress_source, ghost_source, markdown_source])
    def test_every_record_is_imported_once(
        self, run_module: Run, own_database: str, tmp_path: Path, source: Callable[[Path], Path]
    ) -> None:
        path = source(tmp_path)
        kill_at = [Random().randrange(start, start + 20) for start in (1, 20, 40)]
        *killed, last = run_module(
            "killing", json.dumps([*kill_at, 0]), str(path), DATABASE_URL=own_database
        )
        assert -9 in killed, kill_at
        assert last == 0, kill_at
        (found,) = fetch(
            own_database,
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
