"""Parsers for exports of other systems: field mapping and rejected files."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from app.services.bulk import foreign, ghost, markdown, wordpress
from app.services.bulk.foreign import SourceError
from app.services.bulk.records import ParsedRecord
from app.services.bulk.sources import Format, open_source
from tests.bulk.exports import GHOST, WXR, ghost_export, wxr

USERNAMES = {"1": "jane", "2": "joe", "jane": "jane", "joe": "joe", "null": "null"}
"""Usernames by handle. Other handles have no user."""


def read(module: ModuleType, path: Path) -> list[ParsedRecord]:
    survey = module.survey(path, lambda _: None)
    return list(module.read(path, survey, resolve_author=USERNAMES.get, advance=lambda _: None))


def fields(item: ParsedRecord) -> dict[str, Any]:
    assert item.record is not None, item.problem
    return item.record.model_dump(mode="json", exclude_defaults=True)


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


Write = Callable[[str, str | bytes], Path]

MARKDOWN: dict[str, tuple[str, str, str | dict[str, Any]]] = {
    "hugo": (
        "posts/hello-world.md",
        """
title: Hello
date: 2020-05-01T10:00:00+02:00
lastmod: 2020-06-01
tags: [Go, 'C#']
categories: [Code]
authors: [jane]
summary: Short.
images: [/img/a.png]
""",
        {
            "title": "Hello",
            "tags": ["Go", "C#", "Code"],
            "published_at": "2020-05-01T08:00:00Z",
            "created_at": "2020-05-01T08:00:00Z",
            "updated_at": "2020-06-01T00:00:00Z",
            "author": "jane",
            "excerpt": "Short.",
            "cover_image_url": "/img/a.png",
        },
    ),
    "jekyll": (
        "_posts/2019-12-31-the-end.md",
        "layout: post\ntitle: 'The End'\ntags: one two\nauthor: {name: joe, email: j@example.com}",
        {
            "title": "The End",
            "tags": ["one", "two"],
            "published_at": "2019-12-31T00:00:00Z",
            "created_at": None,
            "author": "joe",
        },
    ),
    "jekyll draft": (
        "_drafts/idea.md",
        "title: Idea\ndate: 2020-01-01\n",
        {"published_at": None, "created_at": "2020-01-01T00:00:00Z"},
    ),
    "jekyll unpublished": ("a.md", "published: false\ndate: 2020-01-01", {"published_at": None}),
    "astro": (
        "blog/first.md",
        "title: 'First'\ndescription: What it is\npubDate: 'Jul 08 2022'\n",
        "published_at",
    ),
    "astro again": (
        "blog/first.md",
        """
title: 'First'
description: What it is
pubDate: 2022-07-08
updatedDate: 2022-07-09
heroImage: ../images/a picture.jpg
lang: pt_br
slug: the-first
""",
        {
            "slug": "the-first",
            "excerpt": "What it is",
            "language": "pt-BR",
            "updated_at": "2022-07-09T00:00:00Z",
            "cover_image_url": None,
        },
    ),
    "capitals": ("a.md", "Title: Hello\nDate: 2020-01-01\nDraft: true\n", {"title": "Hello"}),
    "nothing": ("my-file_name.md", "layout: x", {"title": "my file name", "published_at": None}),
    "papermod": (
        "a.md",
        "date: 2020-01-01\ncover: {image: 'https://example.com/ü.png', alt: x}\n",
        {"cover_image_url": "https://example.com/%C3%BC.png"},
    ),
}


class TestMarkdown:
    @pytest.mark.parametrize("case", MARKDOWN)
    def test_front_matter_of_all_variants_is_read(
        self, tmp_path: Path, write: Write, case: str
    ) -> None:
        name, front_matter, expected = MARKDOWN[case]
        write(name, f"---\n{front_matter.strip()}\n---\n\nThe text of it all.\n")
        (item,) = read(markdown, tmp_path)
        assert item.position == name
        if isinstance(expected, str):
            assert item.problem.startswith(expected)
            return
        found = fields(item)
        assert found["content"] == "The text of it all.\n"
        assert {key: found.get(key) for key in expected} == expected

    def test_title_is_taken_from_the_first_heading(self, tmp_path: Path, write: Write) -> None:
        write("a.md", "\n# The *Title* #\n\nThe text of it all.")
        (item,) = read(markdown, tmp_path)
        assert fields(item)["title"] == "The *Title*"
        assert fields(item)["content"] == "The text of it all."
        assert item.note == "the file has no date: imported as a draft"

    def test_selected_files_and_slugs(self, tmp_path: Path, write: Write) -> None:
        for name in (
            "b.md", "a.markdown", "x/index.md", "x/_index.md", ".git/c.md", "c.txt", ".hidden.md",
            "node_modules/d.md", "x/2020-01-02-dated.md",
        ):  # fmt: skip
            write(name, "---\ndate: 2020-01-01\n---\nThe text of it all.")
        items = read(markdown, tmp_path)
        assert [(item.position, item.slug_source) for item in items] == [
            ("a.markdown", "a"),
            ("b.md", "b"),
            ("x/2020-01-02-dated.md", "dated"),
            ("x/index.md", "x"),
        ]
        assert [item.identity for item in items][:2] == ["markdown:a.markdown", "markdown:b.md"]

    def test_single_file_is_identified_by_its_absolute_path(
        self, tmp_path: Path, write: Write
    ) -> None:
        path = write("2020-01-02-dated.md", "The text of it all.")
        write("b.md", "The text of it all.")
        (item,) = read(markdown, path)
        assert (item.slug_source, fields(item)["published_at"]) == ("dated", "2020-01-02T00:00:00Z")
        assert item.identity == f"markdown:{path}"
        (tmp_path / "link.md").symlink_to(path)
        assert [item] == read(markdown, tmp_path / "link.md")  # the operator named the link
        (draft,) = read(
            markdown, write("_drafts/a.md", "---\ndate: 2020-01-01\n---\nThe text of it.")
        )
        assert "published_at" not in fields(draft)

    def test_single_file_must_be_regular(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.md")
        (item,) = read(markdown, tmp_path / "pipe.md")
        assert item.problem == "The file cannot be read (not a regular file)"

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("---\na: &a [x]\nb: *a\n---\nThe text.", "aliases"),
            ("---\ntitle: [\n---\nThe text.", "not valid YAML (line 3)"),
            ("---\n- a\n---\nThe text.", "YAML mapping"),
            ("---\n!!python/object/apply:os.system ['true']\n---\n", "not valid YAML"),
            ("---\n" + "[" * 5000 + "\n---\nThe text.", "front matter"),
            ("---\ntitle: " + "x" * 70_000 + "\n---\nThe text.", "longer than 65536"),
            ("+++\ntitle = 'x'\n+++\nThe text of it.", "TOML"),
            (b"---\ntitle: \xff\n---\nThe text.", "UTF-8"),
            ("x" * (4 * 1024 * 1024 + 1), "larger than"),
            ("---\ntitle: x\ndate: 2020-99-99\n---\nThe text of it.", ""),
            ("---\ntitle: x\n---\nshort", "content: "),
        ],
    )
    def test_invalid_file_is_reported(
        self, tmp_path: Path, write: Write, content: str | bytes, message: str
    ) -> None:
        write("a/bad.md", content)
        write("b.md", "The text of a good file.")
        good, bad = sorted(read(markdown, tmp_path), key=lambda item: item.record is None)
        assert good.position == "b.md"
        assert (bad.position, bad.record) == ("a/bad.md", None)
        assert message in bad.problem
        assert len(bad.problem) < 400

    def test_crlf_line_endings_are_accepted(self, tmp_path: Path, write: Write) -> None:
        write("a.md", "\ufeff---\r\ntitle: Hello\r\nslug: hi\r\n---\r\n\r\nThe text\r\nof it.")
        found = fields(read(markdown, tmp_path)[0])
        assert (found["title"], found["slug"]) == ("Hello", "hi")
        assert found["content"] == "The text\r\nof it."

    def test_horizontal_rule_is_not_front_matter(self, tmp_path: Path, write: Write) -> None:
        write("a.md", "The first part.\n\n---\n\nThe second part.\n")
        assert "---" in fields(read(markdown, tmp_path)[0])["content"]

    @pytest.mark.parametrize(
        "content",
        ["Long enough text.", "\nLong enough\n\n---\ntext: x\n---\n", "a\r\nb\r\nlong enough\r\n"],
    )
    def test_written_file_is_read_unchanged(self, tmp_path: Path, content: str) -> None:
        record = {
            "title": '  \'"Title": #1 - [x] & <b>  '.strip(),
            "slug": "the-slug",
            "content": content,
            "excerpt": "yes: no",
            "cover_image_url": "https://example.com/a.png",
            "language": "no",
            "tags": ["yes", "1", "été: x"],
            "published_at": "2020-01-01T00:00:00.000001Z",
            "archived": True,
            "created_at": "2019-01-01T00:00:00Z",
            "updated_at": "2021-01-01T00:00:00Z",
            "author": "null",
        }
        markdown.write(tmp_path, record)
        draft = {
            "title": "x",
            "slug": "b",
            "content": content,
            "created_at": "2019-01-01T00:00:00Z",
        }
        markdown.write(tmp_path, draft)
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "2019-01-01-b.md",
            "2020-01-01-the-slug.md",
        ]
        second, first = read(markdown, tmp_path)
        assert (fields(first), first.note, first.identity) == (record, "", "")
        assert (fields(second), second.note) == (draft, "")


class TestGhost:
    def test_posts_become_records(self, write: Write) -> None:
        path = write("ghost.json", json.dumps(GHOST))
        survey = ghost.survey(path, lambda _: None)
        assert survey.skipped == {"pages": 1}
        assert [(a.username, a.email, a.name) for a in survey.authors] == [
            ("jane", "jane@example.com", "Jane Doe"),
            ("joe", "joe@example.com", "Joe"),
        ]
        first, draft, scheduled, old = read(ghost, path)
        assert (first.position, first.identity) == ("post 1", "ghost:uuid-1")
        assert fields(first) == {
            "title": "Welcome, reader",
            "slug": "welcome",
            "content": (
                "## Begin\n\nSome **bold** text with a [link](/about/).\n\n"
                "```python\nprint('<hi>')\n```\n\n![A cat](/content/images/cat.jpg)"
            ),
            "excerpt": "What it is about",
            "cover_image_url": "/content/images/2020/cover%20picture.jpg",
            "tags": ["News", "Getting Started"],
            "published_at": "2020-01-02T03:04:05Z",
            "created_at": "2020-01-01T00:00:00Z",
            "updated_at": "2020-01-03T00:00:00Z",
            "author": "jane",
        }
        assert fields(draft).get("published_at") is None
        assert fields(draft)["content"] == "A **draft** of [it](https://example.com)."
        assert "lexical" in draft.note
        assert fields(draft)["author"] == "joe"
        assert fields(scheduled)["published_at"] == "2099-01-01T00:00:00Z"
        assert "mobiledoc" in scheduled.note
        assert fields(old)["published_at"] == "2014-05-17T21:20:00Z"
        assert old.identity == "ghost:4"
        assert "slug" not in fields(old)
        assert old.slug_source == "o-la-la"

    def test_invalid_post_is_reported(self, write: Write) -> None:
        posts = [
            {"id": 1, "title": "No content", "html": "", "status": "published"},
            {"id": 2, "title": "x" * 300, "html": "<p>Long enough.</p>", "status": "draft"},
            {"id": 3, "title": "Broken", "lexical": "{", "status": "draft"},
            {"id": 4, "title": "Deep", "html": "<div>" * 5000 + "x", "status": "draft"},
            {"id": 5, "title": "Dates", "html": "<p>Long enough.</p>", "created_at": "yesterday"},
            {"id": 6, "title": 7, "html": "<p>Long enough.</p>"},
            "nonsense",
            {"id": 8, "title": "Good", "html": "<p>Long enough.</p>"},
        ]
        items = read(ghost, write("ghost.json", json.dumps(ghost_export(posts))))
        assert [item.record is None for item in items] == [
            True, False, True, True, True, True, False,
        ]  # fmt: skip
        assert "cut to 200" in items[1].note
        assert items[4].problem.startswith("created_at: ")
        assert len(fields(items[1])["title"]) == 200

    @pytest.mark.parametrize(
        "text", ["", "{", "[]", "{}", '{"db": []}', '{"db":[{"data":{}}]}', "\x00", '{"posts": [']
    )
    def test_other_json_is_rejected(self, write: Write, text: str) -> None:
        with pytest.raises(SourceError):
            ghost.survey(write("ghost.json", text), lambda _: None)

    def test_truncated_export_is_reported(self, write: Write) -> None:
        posts = [{"id": n, "title": "Good", "html": "<p>Long enough.</p>"} for n in range(3)]
        whole = json.dumps(ghost_export(posts))
        path = write("ghost.json", whole)
        survey = ghost.survey(path, lambda _: None)
        path.write_text(whole[: whole.index('"id": 2')])
        items = list(ghost.read(path, survey, resolve_author=str, advance=lambda _: None))
        assert [item.position for item in items] == ["post 1", "post 2", "after post 2"]
        assert "rest of the file is not JSON" in items[-1].problem

    def test_endless_record_is_rejected(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(foreign, "MAX_PENDING_BYTES", 100_000)
        posts = [{"id": 1, "title": "Good", "html": "x" * 300_000}]
        with pytest.raises(SourceError, match="larger than"):
            ghost.survey(write("ghost.json", json.dumps(ghost_export(posts))), lambda _: None)

    def test_surplus_tags_are_dropped(self, write: Write) -> None:
        export = ghost_export([{"id": 1, "title": "Good", "html": "<p>Long enough.</p>"}])
        data = export["db"][0]["data"]
        data["tags"] = [{"id": n, "name": f"Tag {n}"} for n in range(30)]
        data["posts_tags"] = [{"post_id": 1, "tag_id": n, "sort_order": -n} for n in range(30)]
        (item,) = read(ghost, write("ghost.json", json.dumps(export)))
        assert fields(item)["tags"][0] == "Tag 29"
        assert item.note == "tags: only the first 20 of 30 were imported"


class TestWordPress:
    def test_posts_become_records(self, write: Write) -> None:
        path = write("wp.xml", WXR)
        survey = wordpress.survey(path, lambda _: None)
        assert dict(survey.skipped) == {"pages": 1, "posts in the trash": 1, "other items": 1}
        assert [(a.handle, a.email, a.name) for a in survey.authors] == [
            ("jane", "jane@example.com", "Jane Doe"),
            ("ghostwriter", "", "ghostwriter"),
        ]
        first, classic, private, secret, scheduled = read(wordpress, path)
        assert (first.position, first.identity) == (
            "item 2",
            "wordpress:https://wp.example.com/?p=1",
        )
        assert fields(first) == {
            "title": "Hello & world",
            "slug": "hello-world",
            "content": (
                "Some *text* with [a link](https://example.com/).\n\n## A heading\n\n"
                "```python\nif a < b:\n    pass\n```\n\n"
                "<figure>\n\n![A cat](https://wp.example.com/cat.jpg)\n\n"
                "<figcaption>The cat</figcaption>\n</figure>\n\n"
                "| A | B |\n| --- | --- |\n| 1 | 2 |"
            ),
            "excerpt": "In short.",
            "cover_image_url": "https://wp.example.com/cover.jpg",
            "tags": ["First", "News"],
            "published_at": "2020-01-02T03:04:05Z",
            "created_at": "2020-01-02T03:04:05Z",
            "updated_at": "2020-02-03T00:00:00Z",
            "author": "jane",
        }
        assert fields(classic)["content"] == (
            "First paragraph,\\\nbroken.\n\nSecond one after an image.\n\n"
            "<https://video.example.com/1>"
        )
        assert "published_at" not in fields(classic)
        assert (classic.slug_source, classic.note) == ("", "")
        assert "private" in private.note
        assert private.slug_source == "privet"
        assert "password" in secret.note
        assert "published_at" not in fields(secret)
        assert fields(scheduled)["published_at"] == "2099-01-01T00:00:00Z"

    @pytest.mark.parametrize(
        "prologue",
        [
            '<!DOCTYPE rss [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>',
            '<!DOCTYPE rss SYSTEM "file:///etc/passwd">',
            '<!DOCTYPE rss [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        ],
    )
    def test_entities_are_rejected(self, write: Write, prologue: str) -> None:
        text = wxr("").replace("<rss", f"{prologue}<rss", 1)
        with pytest.raises(SourceError, match="entities"):
            wordpress.survey(write("wp.xml", text), lambda _: None)

    @pytest.mark.parametrize("text", ["", "<rss>", "nonsense", "<rss><channel><item></rss>"])
    def test_invalid_xml_is_rejected(self, write: Write, text: str) -> None:
        with pytest.raises(SourceError, match="not XML"):
            wordpress.survey(write("wp.xml", text), lambda _: None)

    def test_truncated_file_is_reported(self, write: Write) -> None:
        path = write("wp.xml", WXR)
        survey = wordpress.survey(path, lambda _: None)
        path.write_text(WXR[: WXR.index("<title><![CDATA[Classic")])
        items = list(wordpress.read(path, survey, resolve_author=str, advance=lambda _: None))
        assert [item.position for item in items] == ["item 2", "after item 2"]
        assert "rest of the file is not XML" in items[1].problem

    def test_invalid_post_is_reported(self, write: Write) -> None:
        item = (
            "<item><title>{0}</title><content:encoded><![CDATA[{1}]]></content:encoded>"
            "<wp:post_type>post</wp:post_type><wp:status>draft</wp:status></item>"
        )
        posts = item.format("", "Long enough text.") + item.format("x", "short")
        deep = item.format("Deep", "<div>" * 10_000)
        path = write("wp.xml", wxr(posts + deep + item.format("Good", "Long enough text.")))
        items = read(wordpress, path)
        assert [found.record is None for found in items] == [True, True, True, False]
        assert [found.position for found in items][-1] == "item 4"
        assert "title: " in items[0].problem
        assert "inside each other" in items[2].problem

    def test_endless_item_is_rejected(self, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(foreign, "MAX_PENDING_BYTES", 200_000)
        path = write("wp.xml", wxr(f"<item><title>{'x' * 400_000}</title></item>"))
        with pytest.raises(SourceError, match="larger than"):
            wordpress.survey(path, lambda _: None)


class TestFormats:
    @pytest.mark.parametrize(
        ("name", "content", "expected"),
        [
            ("a.ndjson", "", Format.NDJSON),
            ("a.JSONL", "", Format.NDJSON),
            ("a.json", '{"title": "x"}\n', Format.NDJSON),
            ("a.json", json.dumps(GHOST), Format.GHOST),
            ("a.xml", WXR, Format.WORDPRESS),
            ("a.md", "", Format.MARKDOWN),
            ("a.markdown", "", Format.MARKDOWN),
        ],
    )
    def test_formats_are_detected(
        self, write: Write, name: str, content: str, expected: Format
    ) -> None:
        source = open_source(
            write(name, content), source_format=Format.AUTO, advance=lambda _: None
        )
        assert source.source_format is expected
        assert source.total == (None if expected is Format.MARKDOWN else len(content.encode()))

    def test_unreadable_sources_are_rejected(self, write: Write, tmp_path: Path) -> None:
        for path, form, message in (
            (write("a.txt", ""), Format.AUTO, "set --format"),
            (tmp_path, Format.GHOST, "is a folder"),
            (tmp_path / "nowhere.xml", Format.AUTO, "cannot be read"),
        ):
            with pytest.raises(SourceError, match=message):
                open_source(path, source_format=form, advance=lambda _: None)
