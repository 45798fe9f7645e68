"""Parsers for exports of other systems: field mapping and rejected files."""

import json
import os
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import Any
from zipfile import ZipFile

import pytest

from app.services.bulk import foreign, ghost, json_source, markdown, wordpress
from app.services.bulk import wxr as wxr_module
from app.services.bulk.converting.posts import from_wordpress
from app.services.bulk.foreign import ReadOptions, SourceError
from app.services.bulk.markdown_writing import ArchiveWriter, FolderWriter
from app.services.bulk.records import ParsedRecord
from app.services.bulk.sources import Format, open_source
from tests.bulk.exports import (
    CLASSIC,
    GHOST,
    GUTENBERG,
    WXR,
    ghost_export,
    meta,
    wordpress_post,
    wxr,
)

USERNAMES = {"1": "jane", "2": "joe", "jane": "jane", "joe": "joe", "null": "null"}
"""Usernames by handle. Other handles have no user."""


OPTIONS = ReadOptions(now=datetime(2026, 1, 1, tzinfo=UTC))


def read(
    module: ModuleType, path: Path, options: ReadOptions = OPTIONS, survey: Any = None
) -> list[ParsedRecord]:
    survey = survey or module.survey(path, lambda _: None)
    return list(
        module.read(path, survey, options, resolve_author=USERNAMES.get, advance=lambda _: None)
    )


def articles(items: list[ParsedRecord]) -> list[ParsedRecord]:
    return [item for item in items if not item.left_out]


def fields(item: ParsedRecord) -> dict[str, Any]:
    assert item.record is not None, item.problem
    return item.record.model_dump(
        mode="json", exclude_defaults=True, exclude={"old_paths", "imported"}
    )


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str | bytes], Path]:
    def write(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


Write = Callable[[str, str | bytes], Path]

MARKDOWN: dict[str, tuple[str, str, dict[str, Any]]] = {
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
            "created_at": "2019-12-31T00:00:00Z",
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
        {"published_at": "2022-07-08T00:00:00Z"},
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
    "astropaper": (
        "blog/second.md",
        "pubDatetime: 2022-09-23T15:22:00Z\nmodDatetime: 2022-09-24T00:00:00Z\ntags:\n  - docs\n",
        {
            "published_at": "2022-09-23T15:22:00Z",
            "updated_at": "2022-09-24T00:00:00Z",
            "tags": ["docs"],
        },
    ),
    "fluid": (
        "source/_posts/a.md",
        "date: 2020-01-01\nindex_img: /a.png\nbanner_img: /b.png\nlastModDate: 2020-02-01\n",
        {"cover_image_url": "/a.png", "updated_at": "2020-02-01T00:00:00Z"},
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
        found = fields(item)
        assert found["content"] == "The text of it all.\n"
        assert {key: found.get(key) for key in expected} == expected

    def test_title_is_taken_from_the_first_heading(self, tmp_path: Path, write: Write) -> None:
        write("a.md", "\n# The *Title* #\n\nThe text of it all.")
        (item,) = read(markdown, tmp_path)
        assert fields(item)["title"] == "The *Title*"
        assert fields(item)["content"] == "The text of it all."
        assert item.notes == ("there is no date of publication: imported as a draft",)

    def test_every_file_is_an_article_or_left_out(self, tmp_path: Path, write: Write) -> None:
        for name in (
            "b.MD", "a.markdown", "x/index.md", "x/_index.md", ".git/c.md", "c.txt", ".hidden.md",
            "node_modules/d.md", "x/2020-01-02-dated.md", "e.mdx", "f.HTML", "g.png",
            "themes/a/LICENSE.md", "x/_h.md",
        ):  # fmt: skip
            write(name, "---\ndate: 2020-01-01\n---\nThe text of it all.")
        write("i.html", "<html>A page of a template</html>")
        survey = markdown.survey(tmp_path, lambda _: None)
        assert survey.left_out == {"other files (.png)": 1}
        items = read(markdown, tmp_path)
        assert [(item.source_id, item.slug_source) for item in items if item.record] == [
            ("a.markdown", "a"),
            ("b.MD", "b"),
            ("e.mdx", "e"),
            ("f.HTML", "f"),
            ("x/2020-01-02-dated.md", "dated"),
            ("x/_h.md", "h"),
            ("x/index.md", "x"),
        ]
        assert {item.position: item.left_out for item in items if item.left_out} == {
            "c.txt": ".txt files",
            "i.html": ".html files without front matter",
            "themes/a/LICENSE.md": "files of themes and templates",
            "x/_index.md": "section pages",
        }

    def test_single_file_is_the_same_as_in_its_folder(self, tmp_path: Path, write: Write) -> None:
        path = write("2020-01-02-dated.md", "The text of it all.")
        (item,) = read(markdown, path)
        assert (item.slug_source, fields(item)["published_at"]) == ("dated", "2020-01-02T00:00:00Z")
        assert item.source_id == "2020-01-02-dated.md"
        assert markdown.survey(path, lambda _: None).site == str(tmp_path)
        assert [item] == read(markdown, tmp_path)
        (tmp_path / "link.md").symlink_to(path)
        assert [item] == read(markdown, tmp_path / "link.md")  # the operator named the link
        (draft,) = read(
            markdown, write("_drafts/a.md", "---\ndate: 2020-01-01\n---\nThe text of it.")
        )
        assert "published_at" not in fields(draft)

    def test_single_file_must_be_regular(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "pipe.md")
        (item,) = read(markdown, tmp_path / "pipe.md")
        assert item.problem == "the file cannot be read (not a regular file)"

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("x" * (4 * 1024 * 1024 + 1), "larger than"),
            ("---\ntitle: x\n---\n \n", "the text is empty"),
            ("", "the text is empty"),
            ("---\nauthor: stranger\n---\n" + "x" * 2_000_000, "content: "),
        ],
    )
    def test_invalid_file_is_reported(
        self, tmp_path: Path, write: Write, content: str, message: str
    ) -> None:
        write("a/bad.md", content)
        write("b.md", "The text of a good file.")
        good, bad = sorted(read(markdown, tmp_path), key=lambda item: item.record is None)
        assert good.position == "b.md"
        assert (bad.position, bad.record) == ("a/bad.md", None)
        assert message in bad.problem
        assert len(bad.problem) < 400

    @pytest.mark.parametrize(
        ("content", "damage"),
        [
            ("---\ntitle: Mine: yours\ntags: [a]\n---\nText.", "is not valid YAML (line 3)"),
            ("---\ntitle: Mine\nb: [\n---\nText.", "is not valid YAML"),
            ("---\ntitle: Mine\na: &a [*a]\n---\nText.", "contains itself"),
            ("---\ntitle: Mine\na: " + "[" * 5000 + "\n---\nText.", "front matter"),
            ("---\ntitle: Mine\nb: " + "x" * 70_000 + "\n---\nText.", "longer than 65536"),
            ("+++\ntitle: Mine\nb = \n+++\nText.", "is not valid TOML"),
            ("+++\ntitle = 'Mine'\nb = \n+++\nText.", "is not valid TOML"),
            ("---\ntitle: Mine\ndraft: false\n\nText.", "has no end"),
            ("---js\ntitle: Mine\n---\nText.", "cannot be read"),
        ],
    )
    def test_damaged_front_matter_makes_a_draft(
        self, tmp_path: Path, write: Write, content: str, damage: str
    ) -> None:
        """A field that says who may read the text may be among those that are missing."""
        write("a.md", content.replace("title", "date: 2020-01-01\ntitle", 1))
        (item,) = read(markdown, tmp_path)
        found = fields(item)
        assert (found["title"].split(":")[0], found["content"]) == ("Mine", "Text.")
        assert "published_at" not in found
        assert any(damage in note and note.endswith("imported as a draft") for note in item.notes)

    def test_aliases_that_grow_without_limit_are_not_expanded(
        self, tmp_path: Path, write: Write
    ) -> None:
        lines = [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]
        write("a.md", "---\na0: &a0 [x]\n" + "\n".join(lines) + "\n---\nThe text.")
        (item,) = read(markdown, tmp_path)
        assert "more than 10000 values" in item.notes[0]
        write("a.md", "---\ntags: &t [x]\ndate: 2020-01-01\nkeywords: *t\n---\nThe text.")
        assert fields(read(markdown, tmp_path)[0])["tags"] == ["x"]

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
        FolderWriter(tmp_path).write_all([record])
        draft = {
            "title": "x",
            "slug": "b",
            "content": content,
            "created_at": "2019-01-01T00:00:00Z",
        }
        FolderWriter(tmp_path).write_all([draft])
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "2019-01-01-b.md",
            "2020-01-01-the-slug.md",
        ]
        second, first = read(markdown, tmp_path)
        assert (fields(first), first.notes, first.is_own) == (record, (), True)
        assert fields(second) == draft

    def test_written_files_have_different_names(self, tmp_path: Path) -> None:
        slugs = ["post", "post-2", "post", "post-2-2", "post-2", "post"]
        records = [
            {"title": str(number), "slug": slug, "content": "Text.", "created_at": "2019-01-01"}
            for number, slug in enumerate(slugs)
        ]
        (tmp_path / "folder").mkdir()
        FolderWriter(tmp_path / "folder").write_all(records)
        archive = ArchiveWriter()
        data = archive.add([{**each, "updated_at": "2019-01-01T00:00:00Z"} for each in records])
        data += archive.finish("", at="2019-01-01T00:00:00Z")
        names = ZipFile(BytesIO(data)).namelist()
        assert len(set(names)) == len(names) == len(slugs) + 1
        written = {path.name for path in (tmp_path / "folder").iterdir()}
        assert written | {"README.txt"} == set(names)
        assert {fields(each)["title"] for each in read(markdown, tmp_path / "folder")} == set(
            "012345"
        )


PAYWALL = {
    "root": {"type": "root", "children": [
        {"type": "paragraph", "children": [{"type": "text", "text": "Free."}]}, {"type": "paywall"},
    ]},
}  # fmt: skip


class TestGhost:
    def test_posts_become_records(self, write: Write) -> None:
        path = write("ghost.json", json.dumps(GHOST))
        survey = ghost.survey(path, lambda _: None)
        assert survey.left_out == {"users without posts": 1}
        assert [(a.username, a.email, a.name) for a in survey.authors] == [
            ("jane", "jane@example.com", "Jane Doe"),
            ("joe", "joe@example.com", "Joe"),
        ]
        first, draft, page, scheduled, old = read(ghost, path)
        assert (first.position, first.source_id) == ("post 1", "uuid-1")
        assert (page.position, page.left_out, page.title) == (
            "post 3", "pages without text", "About",
        )  # fmt: skip
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
        assert fields(draft)["author"] == "joe"
        assert fields(scheduled)["published_at"] == "2099-01-01T00:00:00Z"
        assert scheduled.notes == ("scheduled for 2099-01-01 00:00 UTC",)
        assert fields(old)["published_at"] == "2014-05-17T21:20:00Z"
        assert (old.source_id, old.source_slug) == ("4", "Ô_là_là")
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
            True, False, True, False, False, False, True, False,
        ]  # fmt: skip
        assert "title: cut to 200 characters" in items[1].notes
        assert len(fields(items[1])["title"]) == 200
        assert "created_at: 'yesterday' is not a date" in items[4].notes
        assert fields(items[5])["title"] == "Long enough"  # its title is a number
        assert items[6].problem == "the record is not an object"

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
        items = read(ghost, path, survey=survey)
        assert [item.position for item in items] == ["post 1", "post 2", "after post 2"]
        assert "rest of the file is not JSON" in items[-1].problem

    def test_file_may_end_anywhere(self, write: Write) -> None:
        """Complete rows are imported, and one error is reported."""
        posts = [{"id": n, "html": '<p>\\ "Text".</p>', "is_last": "field"} for n in range(5)]
        export = ghost_export(posts, users=[{"id": 1, "name": "Jane"}])
        text = json.dumps(export)
        for end in range(1, len(text), len(text) // 80):
            complete = text[:end].count('"field"}')
            path = write("ghost.json", text[:end])
            try:
                survey = ghost.survey(path, lambda _: None)
            except SourceError:
                assert complete == 0
                continue
            items = read(ghost, path, survey=survey)
            assert not survey.problems
            assert [item.record is not None for item in items] == [True] * complete + [False]

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            (b"Long", b"Lo\xffng"),
            (b"Long", b"Lo\x00\x0b\nng"),
            (b"{", b"\xef\xbb\xbf\n\n{"),
            (b"Long", b"Lo\\ud800ng"),
        ],
    )
    def test_wrong_bytes_cost_no_record(self, write: Write, before: bytes, after: bytes) -> None:
        posts = [
            {"id": n, "title": f"{n}", "html": "<p>Long enough.</p>", "status": "draft"}
            for n in range(3)
        ]
        whole = json.dumps(ghost_export(posts)).encode()
        items = read(ghost, write("ghost.json", whole.replace(before, after, 1)))
        assert [item.source_id for item in items] == ["0", "1", "2"]
        assert all(item.record for item in items)

    def test_visibility_is_never_widened(self, write: Write) -> None:
        base = {"html": "<p>Text.</p>", "status": "published", "published_at": "2020-01-01"}
        restricted: list[dict[str, Any]] = [
            {"visibility": "members"}, {"visibility": "paid"}, {"visibility": "tiers"},
            {"visibility": "label:vip"}, {"status": "sent"}, {"status": "scheduled"},
            {"html": "<p>Free.</p><!--members-only--><p>Paid.</p>"},
            {"html": "", "lexical": json.dumps(PAYWALL)}, {"email_only": True},
        ]  # fmt: skip
        unfinished: list[dict[str, Any]] = [
            {"status": "draft"},
            {"status": "new"},
            {"status": None},
        ]
        public: list[dict[str, Any]] = [{}, {"visibility": None}, {"visibility": "public"}]
        cases = restricted + unfinished + public
        posts = [{"id": f"p{number}", **base, **case} for number, case in enumerate(cases)]
        path = write("ghost.json", json.dumps(ghost_export(posts)))
        is_public = ["published_at" in fields(item) for item in read(ghost, path)]
        assert is_public == [False] * 12 + [True] * 3
        items = read(ghost, path, OPTIONS._replace(publish_restricted=True))
        is_public = ["published_at" in fields(item) for item in items]
        assert is_public == [True] * 9 + [False] * 3 + [True] * 3

    def test_dangling_references(self, write: Write) -> None:
        export = ghost_export(
            [{"id": "1", "html": "<p>Text.</p>", "status": "draft"}],
            posts_tags=[{"post_id": "1", "tag_id": "t9"}, {"post_id": "1"}, {"tag_id": "t"}],
            posts_authors=[{"post_id": "1", "author_id": "u9"}],
        )
        (item,) = read(ghost, write("ghost.json", json.dumps(export)))
        assert "tags: 2 of the post are not in the export" in item.notes

    def test_too_large_record_is_refused(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(json_source, "MAX_TEXT", 100_000)
        monkeypatch.setattr(json_source, "MAX_PENDING_BYTES", 200_000)
        monkeypatch.setattr(json_source, "MAX_PARTS", 1000)
        posts = [
            {"id": 1, "html": 'x\\"' * 100_000},
            {"id": 2, "html": "x" * 400_000},
            {"id": 3, "more": [[]] * 2000},
            {"id": 4, "more": {"a": [{"b": {}}]}, "html": "<p>Text.</p>"},
        ]
        export = ghost_export(posts, users=[{"id": 9, "bio": "y" * 400_000}])
        *refused, good = read(ghost, write("ghost.json", json.dumps(export)))
        assert ["bytes" in item.problem for item in refused] == [True, True, True]
        assert good.source_id == "4"

    def test_surplus_tags_are_dropped(self, write: Write) -> None:
        export = ghost_export([{"id": 1, "title": "Good", "html": "<p>Long enough.</p>"}])
        data = export["db"][0]["data"]
        data["tags"] = [{"id": n, "name": f"Tag {n}"} for n in range(30)]
        data["posts_tags"] = [{"post_id": 1, "tag_id": n, "sort_order": -n} for n in range(30)]
        (item,) = read(ghost, write("ghost.json", json.dumps(export)))
        assert fields(item)["tags"][0] == "Tag 29"
        assert "tags: only the first 20 of 30 were imported" in item.notes


class TestWordPress:
    def test_posts_become_records(self, write: Write) -> None:
        path = write("wp.xml", WXR)
        survey = wordpress.survey(path, lambda _: None)
        assert (survey.site, survey.zone) == ("", timezone(timedelta(hours=1)))
        assert [(a.handle, a.email, a.name) for a in survey.authors] == [
            ("jane", "jane@example.com", "Jane Doe"),
            ("ghostwriter", "", "ghostwriter"),
        ]
        items = read(wordpress, path)
        assert [item.left_out for item in items if item.left_out] == [
            "media files", "posts in the trash", "menu items",
        ]  # fmt: skip
        first, classic, private, secret, scheduled, page = articles(items)
        assert (first.position, first.source_id) == ("item 2", "1")
        assert fields(first) == {
            "title": "Hello & world",
            "slug": "hello-world",
            "content": from_wordpress(GUTENBERG).markdown,
            "excerpt": "In short.",
            "cover_image_url": "https://wp.example.com/cover.jpg",
            "tags": ["First", "News"],
            "published_at": "2020-01-02T03:04:05Z",
            "created_at": "2020-01-02T03:04:05Z",
            "updated_at": "2020-02-03T00:00:00Z",
            "author": "jane",
        }
        assert fields(classic)["content"] == from_wordpress(CLASSIC).markdown
        assert "published_at" not in fields(classic)
        assert (classic.slug_source, classic.notes) == ("", ())
        assert private.notes == ("the post is private: imported as a draft",)
        assert (private.slug_source, private.source_slug) == ("privet", "привет")
        assert secret.notes == ("the post has a password: imported as a draft",)
        assert "published_at" not in fields(secret)
        assert fields(scheduled)["published_at"] == "2099-01-01T00:00:00Z"
        assert page.notes == ("it is a page of the site: imported as a draft",)

    @pytest.mark.parametrize(
        "prologue",
        [
            '<!DOCTYPE rss [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;">]>',
            '<!DOCTYPE rss SYSTEM "file:///etc/passwd">',
            '<!DOCTYPE rss [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
        ],
    )
    def test_entities_are_not_expanded(self, write: Write, prologue: str) -> None:
        post = wordpress_post(title="&b; &x; &nbsp;&copy; A&B")
        path = write("wp.xml", wxr(post).replace("<rss", f"{prologue}<rss", 1))
        survey = wordpress.survey(path, lambda _: None)
        assert survey.problems == ["The file declares a DTD or entities, which were not read"]
        (item,) = read(wordpress, path)
        assert fields(item)["title"] == "&b; &x; © A&B"

    @pytest.mark.parametrize("text", ["", "<rss>", "nonsense", "<html><item></html>"])
    def test_other_files_are_rejected(self, write: Write, text: str) -> None:
        with pytest.raises(SourceError, match="not XML"):
            wordpress.survey(write("wp.xml", text), lambda _: None)

    def test_only_empty_posts_are_refused(self, write: Write) -> None:
        posts = [
            wordpress_post(title="", content="The text is its own title. It has two sentences."),
            wordpress_post(title="x", content="ok"),
            wordpress_post(title="Empty", content="<p> </p>"),
            wordpress_post(title="Deep", content="<div>" * 5000 + "x"),
            wordpress_post(title="", content="![](/a.png)"),
        ]
        first, short, empty, deep, untitled = read(wordpress, write("a.xml", wxr("".join(posts))))
        assert fields(first)["title"] == "The text is its own title"
        assert any("no title" in note for note in first.notes)
        assert fields(short)["content"] == "ok"
        assert (empty.problem, empty.title) == ("the text is empty", "Empty")
        assert fields(deep)["content"] == "x"
        assert untitled.record is not None

    @pytest.mark.parametrize(
        ("before", "after"),
        [
            ("Long enough", "\x00Long\x0b enough"),
            ("Long enough", "Long \udcff enough"),
            ("</link>", "?a&b</link>"),
            ("<title>", "<title>&nbsp;&#0;"),
            ("<title>", "<x:unbound>y</x:unbound><title>"),
            ("]]></excerpt", "]]>]]></excerpt"),
            ("]]></content", " ]]> more text <b ]]></content"),
            ("<?xml", "\n\n<?xml"),
        ],
    )
    def test_a_fault_costs_at_most_its_record(self, write: Write, before: str, after: str) -> None:
        good, bad = wordpress_post(number=1), wordpress_post(number=2)
        text = wxr(good + bad.replace(before, after, 1) + wordpress_post(number=3))
        if before == "<?xml":
            text = text.replace(before, after)
        raw = text.encode(errors="surrogateescape")
        items = read(wordpress, write("wp.xml", raw))
        assert [item.source_id for item in items] == ["1", "2", "3"]
        assert all(item.record for item in items)
        assert fields(items[0]) == fields(items[2]) | {"slug": "post-1", "title": "Post 1"}

    def test_file_may_end_anywhere(self, write: Write) -> None:
        """Complete records are imported, and the others are refused."""
        text = wxr("".join(wordpress_post(number=number) for number in range(1, 6)))
        for end in range(0, len(text), len(text) // 80):
            part = text[:end]
            path = write("wp.xml", part)
            if "<channel" not in part:
                with pytest.raises(SourceError):
                    wordpress.survey(path, lambda _: None)
                continue
            survey = wordpress.survey(path, lambda _: None)
            is_complete = "</channel>" in part
            is_in_item = part.count("<item>") > part.count("</item>")
            assert bool(survey.problems) is not (is_complete or is_in_item)
            items = read(wordpress, path, survey=survey)
            complete = part.count("</item>")
            assert [item.record is not None for item in items[:complete]] == [True] * complete
            assert [item.problem for item in items[complete:]] == [
                "the file ends within this record"
            ] * (part.count("<item>") - complete)

    @pytest.mark.parametrize(
        ("declared", "actual"),
        [
            ("UTF-8", "utf-8"), ("ISO-8859-1", "utf-8"), ("ISO-8859-1", "latin-1"),
            ("windows-1252", "cp1252"), ("UTF-16", "utf-16"), ("UTF-16", "utf-8"),
            ("UTF-8", "utf-16"), ("UTF-8", "utf-16-le"), ("UTF-8", "utf-16-be"),
            ("UTF-8", "utf-32"), ("punycode", "utf-8"),
            ("no-such", "utf-8"), ("GBK", "gbk"), ("Shift_JIS", "utf-8"),
        ],
    )  # fmt: skip
    def test_declared_encodings_may_lie(self, write: Write, declared: str, actual: str) -> None:
        word = "中文" if actual == "gbk" else "café"
        text = wxr(wordpress_post(title=word)).replace("UTF-8", declared)
        (item,) = read(wordpress, write("wp.xml", text.encode(actual)))
        assert fields(item)["title"] == word

    @pytest.mark.parametrize("actual", ["gbk", "latin-1", "shift_jis"])
    def test_wrong_encoding_costs_characters(self, write: Write, actual: str) -> None:
        word = "caf\xe9" if actual == "latin-1" else "\u4e2d\u6587"
        text = wxr(wordpress_post(title=word) + wordpress_post(2))
        first, second = read(wordpress, write("wp.xml", text.encode(actual)))
        assert "bytes that are not UTF-8 were replaced by \ufffd" in first.notes
        assert fields(first)["content"] == fields(second)["content"] == "Long enough text."
        assert not second.notes

    def test_too_large_record_is_refused(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(foreign, "MAX_PENDING_BYTES", 200_000)
        monkeypatch.setattr(wxr_module, "MAX_TAGS", 1000)
        posts = [
            wordpress_post(title="x" * 400_000),
            wordpress_post(more=f'<wp:x a="{"x" * 400_000}"/>'),
            wordpress_post(more="<a/>" * 2000),
            wordpress_post(number=4),
        ]
        path = write("wp.xml", wxr("".join(posts)))
        *refused, good = read(wordpress, path)
        assert ["larger than" in item.problem for item in refused] == [True, True, False]
        assert refused[2].problem == "the record has more than 1000 tags"
        assert good.source_id == "4"

    @pytest.mark.parametrize(
        ("post", "note"),
        [
            ({"status": "pending"}, "the post is pending review"),
            ({"status": "private"}, "the post is private"),
            ({"status": "pitch"}, "the post has the status 'pitch'"),
            ({"status": ""}, "the post has the status ''"),
            ({"status": "future", "date": "2021-01-01 00:00:00"}, "the post was still scheduled"),
            ({"password": "hush"}, "the post has a password"),
            ({"content": "Free. <!-- wp:jetpack/paywall /--> Paid."}, "(jetpack/paywall)"),
            ({"content": "Free. [members_only]Paid.[/members_only]"}, "(members_only)"),
            ({"content": "Free. [member]Paid.[/member]"}, "(member)"),
            ({"content": "Free. [erphpdown]Paid.[/erphpdown]"}, "(erphpdown)"),
            ({"content": "Free. [reply]\nFor readers who comment.\n[/reply]"}, "(reply)"),
            (
                {"content": "<!-- wp:acme/paywalled {} -->Paid.<!-- /wp:acme/paywalled -->"},
                "(acme/paywalled)",
            ),
            (
                {
                    "content": '<!-- wp:group {"metadata":{"blockVisibility":false}} -->Hidden.'
                    "<!-- /wp:group -->"
                },
                "(blockVisibility)",
            ),
            ({"more": meta("_jetpack_newsletter_access", "paid_subscribers")}, "a plugin"),
            ({"more": meta("_expiration-date", "1577836800")}, "the post expired on 2020-01-01"),
            ({"more": meta("_expiration-date", "soon")}, "is not a date"),
        ],
    )
    def test_visibility_is_never_widened(
        self, write: Write, post: dict[str, str], note: str
    ) -> None:
        path = write("wp.xml", wxr(wordpress_post(1, **post)))
        (item,) = read(wordpress, path)
        assert "published_at" not in fields(item)
        (restricted,) = [each for each in item.notes if each.endswith(": imported as a draft")]
        assert note in restricted
        (item,) = read(wordpress, path, OPTIONS._replace(publish_restricted=True))
        is_unfinished = post.get("status") in {"pending", "pitch", ""}
        assert ("published_at" in fields(item)) is not is_unfinished

    def test_words_in_brackets_hide_nothing(self, write: Write) -> None:
        content = (
            "a [member] b [reply] c [team_member]d[/team_member] [email_protect]e[/email_protect]"
            '<!-- wp:premium/heading --><h2>f</h2><!-- /wp:premium/heading --><!-- wp:group {"meta'
            'data":{"blockVisibility":{"viewport":{"mobile":false}}}} -->g<!-- /wp:group -->'
        )
        (item,) = read(wordpress, write("wp.xml", wxr(wordpress_post(content=content))))
        assert "published_at" in fields(item)

    def test_dates_in_both_zones(self, write: Write) -> None:
        local = "<wp:post_date>2020-06-01 10:00:00</wp:post_date>"
        posts = [
            wordpress_post(date="2020-06-01 08:00:00", more=local),
            wordpress_post(number=2, date="0000-00-00 00:00:00", more=local),
            wordpress_post(number=3, date="2020-06-05 08:00:00", more=local),
        ]
        text = wxr("".join(posts)).replace(
            "<wp:post_date><![CDATA[2020-01-02 04:04:05]]></wp:post_date>", ""
        )
        path = write("wp.xml", text)
        survey = wordpress.survey(path, lambda _: None)
        assert survey.zone is not None
        options = OPTIONS._replace(zone=survey.zone)
        first, local_only, contradiction = read(wordpress, path, options, survey)
        assert fields(first)["published_at"] == "2020-06-01T08:00:00Z"
        assert fields(local_only)["published_at"] == "2020-06-01T08:00:00Z"
        assert fields(contradiction)["published_at"] == "2020-06-05T08:00:00Z"
        assert any("contradict" in note for note in contradiction.notes)

    def test_old_addresses(self, write: Write) -> None:
        more = meta("_wp_old_slug", "older")
        (item,) = read(wordpress, write("wp.xml", wxr(wordpress_post(number=7, more=more))))
        assert item.record is not None
        assert item.record.old_paths == ["/post-7/", "/?p=7", "/older/"]


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
