"""Front matter: visibility that is never widened, dates in all formats, text that stays text."""

from datetime import UTC, datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import pytest

from app.services.bulk import markdown
from app.services.bulk.dates import DateError, find_zone, read_date
from app.services.bulk.foreign import ReadOptions
from app.services.bulk.paths import old_path
from app.services.bulk.records import ParsedRecord

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HIDDEN = [
    'draft: "true"', "draft: yes", "draft: 1", "Draft: On", "draft: maybe", "isDraft: true",
    "published: false", 'published: "false"', "published: no", "published: 0", "published: draft",
    "publish: off", "status: draft", "status: Private", "status: pending review",
    "status: no idea", "post_status: trash", "visibility: members", "visibility: [public, paid]",
    "access: paid", "private: true", "hidden: yes", "unlisted: true", "password: sesame",
    "password: 1234", "members_only: true", "paywall: true", "tiers: [gold]", "tier: gold",
    "encrypted: true", "expiryDate: 2021-01-01", "expires: 2025-12-31T23:59:59Z",
    "unpublish_date: soon", "build: {render: never}", "_build: {list: false}", "headless: true",
    "public: false", "listed: false", "visible: no", "permalink: false", "wip: true",
    "eleventyExcludeFromCollections: true", "dg-publish: false", "visible: hide",
    "published: private", "state: private", "enc_pwd: 1",
]  # fmt: skip
SHOWN = [
    "draft: false", 'draft: "no"', "draft: 0", "draft:", "draft: ~", "published: true",
    "publish: yes", "status: published", "status: Public", "visibility: public", "access: free",
    "private: false", "password:", "password: ''", "expiryDate: 2099-01-01", "expires: never",
    "tiers: []", "tier: free", "build: {render: always}", "permalink: /a/b/", "members: false",
    "state: California", "mood: private", "visible: show",
]  # fmt: skip


def read_text(folder: Path, text: str, name: str = "a.md", **options: Any) -> ParsedRecord:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode())
    survey = markdown.survey(folder, lambda _: None)
    read_options = ReadOptions(now=NOW, **options)
    items = markdown.read(folder, survey, read_options, resolve_author=str, advance=lambda _: None)
    (item,) = (item for item in items if item.position == name)
    return item


def published_at(item: ParsedRecord) -> datetime | None:
    assert item.record is not None, item.problem
    return item.record.published_at


class TestVisibility:
    @pytest.mark.parametrize("field", HIDDEN)
    def test_hidden_texts_become_drafts(self, tmp_path: Path, field: str) -> None:
        text = f"---\ntitle: x\ndate: 2020-01-01\n{field}\n---\nThe text."
        item = read_text(tmp_path, text)
        assert published_at(item) is None
        assert item.record is not None
        assert item.record.created_at == datetime(2020, 1, 1, tzinfo=UTC)
        assert [note.endswith(": imported as a draft") for note in item.notes] == [True]

    @pytest.mark.parametrize("field", SHOWN)
    def test_public_texts_are_published(self, tmp_path: Path, field: str) -> None:
        item = read_text(tmp_path, f"---\ntitle: x\ndate: 2020-01-01\n{field}\n---\nThe text.")
        assert published_at(item) == datetime(2020, 1, 1, tzinfo=UTC)

    @pytest.mark.parametrize(
        ("text", "is_hidden"),
        [
            ('{{% hugo-encryptor "sesame" %}}\nIn.\n{{% /hugo-encryptor %}}', True),
            ('{{< fixit-encryptor "sesame" >}}\nIn.\n{{< /fixit-encryptor >}}', True),
            ("{% members_only %}In.{% endmembers_only %}", True),
            ("Free.\n\n<!-- members-only -->\n\nIn.", True),
            ("Free.\n\n<!--paywall-->\n\nIn.", True),
            ("<Paywall>\n\nIn.\n\n</Paywall>", True),
            ("{{< team-member name=x >}}In.{{< /team-member >}}", False),
            ("<!-- members of a group --> {{< protect-email a@b.example >}}", False),
            ('```\n{{% hugo-encryptor "sesame" %}}\nIn.\n{{% /hugo-encryptor %}}\n```', False),
        ],
    )
    def test_parts_for_some_readers_hide_the_text(
        self, tmp_path: Path, text: str, is_hidden: bool
    ) -> None:
        item = read_text(tmp_path, f"---\ntitle: x\ndate: 2020-01-01\n---\n{text}\n", "a.mdx")
        assert (published_at(item) is None) is is_hidden
        found = [note for note in item.notes if "for members only" in note]
        assert len(found) == is_hidden
        assert item.record is not None
        assert is_hidden is False or "sesame" not in item.record.content

    def test_toml_and_json_have_the_same_rules(self, tmp_path: Path) -> None:
        for text in (
            "+++\ntitle = 'x'\ndate = 2020-01-01\ndraft = true\n+++\nThe text.",
            "+++\ntitle = 'x'\ndate = 2020-01-01\n[build]\nrender = 'never'\n+++\nThe text.",
            '{"title": "x", "date": "2020-01-01", "draft": true}\n\nThe text.',
        ):
            assert published_at(read_text(tmp_path, text)) is None

    @pytest.mark.parametrize(
        ("name", "others"),
        [
            ("blog/_drafts/a.md", {}),
            ("_Drafts/2020/a.md", {}),
            ("drafts/a.md", {}),
            ("_a.md", {}),
            ("posts/deep/a.md", {"posts/_index.md": "---\ncascade:\n  draft: true\n---\n"}),
            ("posts/a.md", {"posts/_index.md": "+++\n[[cascade]]\ndraft = true\n+++\n"}),
            ("posts/a.md", {"posts/posts.json": '{"published": false, "tags": "posts"}'}),
            ("posts/a.md", {"posts/posts.11tydata.json": '{"permalink": false}'}),
        ],
    )
    def test_folders_hide_their_texts(
        self, tmp_path: Path, name: str, others: dict[str, str]
    ) -> None:
        for other, content in others.items():
            (tmp_path / other).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / other).write_text(content)
        item = read_text(tmp_path, "---\ndate: 2020-01-01\n---\nThe text.", name)
        assert published_at(item) is None
        assert item.notes[-1].endswith(": imported as a draft")

    def test_restricted_texts_are_published_on_demand(self, tmp_path: Path) -> None:
        """Unfinished texts stay drafts."""
        text = "---\ntitle: x\ndate: 2020-01-01\n{}\n---\nThe text."
        private = read_text(tmp_path, text.format("private: true"), publish_restricted=True)
        assert published_at(private) is not None
        assert private.notes == ("private: true: published because of --publish-restricted",)
        for field in ("draft: true", "draft: true\nprivate: true", "status: pending"):
            item = read_text(tmp_path, text.format(field), publish_restricted=True)
            assert published_at(item) is None

    def test_scheduled_and_expiring_texts_are_reported(self, tmp_path: Path) -> None:
        text = "---\ntitle: x\ndate: 2030-01-01\nexpires: 2031-01-01\n---\nThe text."
        item = read_text(tmp_path, text)
        assert published_at(item) == datetime(2030, 1, 1, tzinfo=UTC)
        assert set(item.notes) == {
            "scheduled for 2030-01-01 00:00 UTC",
            "the text does not expire here (2031-01-01)",
        }
        assert item.record is not None
        assert item.record.imported == {"expires_at": "2031-01-01T00:00:00+00:00"}


CHINA = find_zone("Asia/Shanghai")
DATES: dict[str, str] = {
    "2016-01-02": "2016-01-02T00:00",
    "2016-1-2": "2016-01-02T00:00",
    "2016/01/02 10:20:30": "2016-01-02T10:20:30",
    "2016.01.02 10:20": "2016-01-02T10:20",
    "2016-01-02 9:05": "2016-01-02T09:05",
    "2016-01-02T10:20:30Z": "2016-01-02T10:20:30",
    "2016-01-02T10:20:30.5+09:00": "2016-01-02T01:20:30.5",
    "2016-01-02 10:20:30 +0800": "2016-01-02T02:20:30",
    "2016-01-02 10:20:30 -05": "2016-01-02T15:20:30",
    "2016-01-02 10:20:30 -0800 PST": "2016-01-02T18:20:30",
    "2016-1-2 9:5:3": "2016-01-02T09:05:03",
    "2016-01-02 10:00:00 CST": "2016-01-02T16:00",
    "2016-01-02 10:00 Asia/Tokyo": "2016-01-02T01:00",
    "2016-01-02T10:00:00+09:00[Asia/Tokyo]": "2016-01-02T01:00",
    "20160102T101500Z": "2016-01-02T10:15",
    "2016年1月2日": "2016-01-02T00:00",
    "2016년 1월 2일": "2016-01-02T00:00",
    "2016. 1. 2.": "2016-01-02T00:00",
    "2016. 1. 2. 10:20": "2016-01-02T10:20",
    "Jul 08 2022": "2022-07-08T00:00",
    "July 8, 2022": "2022-07-08T00:00",
    "8th of July 2022, 3:04 PM": "2022-07-08T15:04",
    "Sat, 02 Jan 2016 10:00:00 GMT": "2016-01-02T10:00",
    "Sat, 02 Jan 2016 10:00:00 -0500": "2016-01-02T15:00",
    "Sat Jan  2 10:00:00 UTC 2016": "2016-01-02T10:00",
    "Fri Jul 08 2022 10:00:00 GMT+0200 (Central European Summer Time)": "2022-07-08T08:00",
    "13/08/2022": "2022-08-13T00:00",
    "08/13/2022": "2022-08-13T00:00",
    "8.7.2022": "2022-07-08T00:00",
    "1451700000": "2016-01-02T02:00",
    "1451700000000": "2016-01-02T02:00",
    "2020-01-01T24:00:00Z": "2020-01-02T00:00",
    "2016-12-31T23:59:60Z": "2016-12-31T23:59:59",
}


class TestDates:
    @pytest.mark.parametrize("text", DATES)
    def test_every_format_is_read(self, text: str) -> None:
        found = read_date(text, UTC)
        assert found is not None
        assert found.at == datetime.fromisoformat(f"{DATES[text]}+00:00")

    @pytest.mark.parametrize(
        "text",
        ["yesterday", "2020-99-99", "12:30", "07/08/2022", "0000-00-00 00:00:00", "1.10", "x" * 99,
         "2020-01-01 25:00", "99999999999999999999", "May", "2020-01-01 10:00 +99:00"],
    )  # fmt: skip
    def test_other_texts_are_no_dates(self, text: str) -> None:
        with pytest.raises(DateError):
            read_date(text, UTC)

    @pytest.mark.parametrize(
        ("text", "zone", "expected"),
        [
            ("2016-07-01 10:00", find_zone("Europe/Berlin"), "2016-07-01T08:00"),
            ("2016-01-01 10:00", find_zone("Europe/Berlin"), "2016-01-01T09:00"),
            ("2016-01-01 10:00", find_zone("-03:30"), "2016-01-01T13:30"),
            ("2016-01-01 10:00 CST", CHINA, "2016-01-01T02:00"),
            ("2016-01-01T10:00Z", CHINA, "2016-01-01T10:00"),
        ],
    )
    def test_zone_of_dates_without_one(self, text: str, zone: tzinfo, expected: str) -> None:
        found = read_date(text, zone)
        assert found is not None
        assert found.at == datetime.fromisoformat(f"{expected}+00:00")

    def test_what_was_assumed_is_reported(self, tmp_path: Path) -> None:
        for front_matter, note in (
            ("date: 2016-01-02 10:00 CST", "date: the time zone CST is read as UTC-6"),
            ("date: 2016-01-02 10:00 XYZ", "date: the time zone XYZ is not known, UTC is used"),
            ("date: 2016", "date: 2016 is read as 2016-01-01"),
            ("date: 07/08/2022", "can be read as 2022-08-07 and as 2022-07-08"),
            ("date: 1965-01-01", "date: 1965-01-01 is before 1970 and was left out"),
            ("created: 2016-01-01", "the date of creation is used as the date of publication"),
        ):
            item = read_text(tmp_path, f"---\ntitle: x\n{front_matter}\n---\nThe text.")
            assert any(note in each for each in item.notes), front_matter
        text = "---\ntitle: x\ndate: 2020-02-01\n---\nThe text."
        item = read_text(tmp_path, text, "2020-01-01-x.md")
        assert item.notes == (
            "the file is named 2020-01-01, but its date is 2020-02-01: this is used",
        )

    @pytest.mark.parametrize(
        ("name", "fields"),
        [
            ("a.md", "created: 2024-01-01\ndate: 05/06/2030"),
            ("2024-01-01-a.md", "date: 05/06/2030"),
            ("2024-01-01-a.md", "publishDate: next year\ndate: 2024-01-01"),
            ("2024-01-01-a.md", "published: soon"),
            ("2024-01-01-a.md", "date: {day: 1}"),
        ],
    )
    def test_unreadable_date_of_publication_hides_the_text(
        self, tmp_path: Path, name: str, fields: str
    ) -> None:
        text = f"---\ntitle: x\n{fields}\n---\nThe text."
        item = read_text(tmp_path, text, name, publish_restricted=True)
        assert published_at(item) is None
        assert any(
            note.startswith(("date: ", "published: ")) and note.endswith(": imported as a draft")
            for note in item.notes
        )

    def test_unreadable_other_dates_do_not_hide_the_text(self, tmp_path: Path) -> None:
        text = "---\ntitle: x\ndate: 2020-01-01\ncreated: soon\nupdated: soon\n---\nThe text."
        assert published_at(read_text(tmp_path, text)) == datetime(2020, 1, 1, tzinfo=UTC)

    def test_clock_of_python_is_not_needed(self) -> None:
        found = read_date(datetime(2020, 1, 1, tzinfo=UTC) + timedelta(hours=1), CHINA)
        assert found is not None
        assert found.at.hour == 1


LIST = "tags: [no, yes, 1.10]"
JSON = '"title": "12:30", "date": "2020-01-01", "tags": ["no", "yes", 1.10]'
TOML = "title = '12:30'\ndate = 2020-01-01"
FRONT_MATTERS = {
    "yaml": f"---\ntitle: 12:30\ndate: 2020-01-01\n{LIST}\n---\n",
    "BOM and CRLF": "\ufeff---\r\ntitle: 12:30\r\ndate: 2020-01-01\r\ntags:\r\n- no\r\n- yes\r\n"
    "- 1.10\r\n---\r\n",
    "blank lines first": f"\n\n---\ntitle: 12:30\ndate: 2020-01-01\n{LIST}\n---\n",
    "tabs": "---\ntitle: 12:30\ndate: 2020-01-01\ntags:\n\t- no\n\t- yes\n\t- 1.10\n---\n",
    "long fences": f"-----\ntitle: 12:30\ndate: 2020-01-01\n{LIST}\n-----\n",
    "no opening": f"title: 12:30\ndate: 2020-01-01\n{LIST}\n---\n",
    "no fences": "Title: 12:30\nDate: 2020-01-01\nTags: no, yes, 1.10\n\n",
    "toml": f"+++\n{TOML}\ntags = ['no', 'yes', 1.10]\n+++\n",
    "toml with BOM and CRLF": f"\ufeff+++\n{TOML}\ntags = ['no', 'yes', 1.10]\n+++\n".replace(
        "\n", "\r\n"
    ),
    "json": f"{{{JSON}}}\n\n",
    "hexo json": f"{JSON}\n;;;\n",
    "named": f"---json\n{{{JSON}}}\n---\n",
    "unknown tags": "---\ntitle: !x 12:30\ndate: 2020-01-01\ntags: !y [no, yes, 1.10]\n---\n",
    "zola": f"+++\n{TOML}\n[taxonomies]\ntags = ['no', 'yes', '1.10']\n+++\n",
}


class TestFrontMatter:
    @pytest.mark.parametrize("form", FRONT_MATTERS)
    def test_every_form_is_read(self, tmp_path: Path, form: str) -> None:
        item = read_text(tmp_path, f"{FRONT_MATTERS[form]}The text.")
        assert item.record is not None, item.problem
        assert item.record.title == "12:30"
        assert item.record.tags == ["no", "yes", "1.10"]
        assert published_at(item) == datetime(2020, 1, 1, tzinfo=UTC)
        assert item.record.content.strip() == "The text."
        assert item.notes == ()

    @pytest.mark.parametrize(
        "text",
        [
            "---\n\nA rule.\n\n---\n\nMore text.",
            "Note: this is text.\n\n---\n\nMore text.",
            '{"a": 1} is JSON.\n\nMore text.',
            "- a\n- b\n\nMore text.",
        ],
    )
    def test_text_is_not_front_matter(self, tmp_path: Path, text: str) -> None:
        item = read_text(tmp_path, text)
        assert item.record is not None
        assert "More text." in item.record.content
        assert item.record.title == "a"
        assert len(item.record.content.split()) == len(text.split())

    def test_further_fields_addresses_and_authors_are_kept(self, tmp_path: Path) -> None:
        text = """---
title: "Using <a> &amp; more"
date: 2020-01-01
categories: [[Sports, Baseball], [Play]]
permalink: /2019/old/
aliases: [/older/, "older.html#x", http://a.example/öld]
lang: zh-Hans-CN
authors: [Ada, Bob]
math: true
weight: 1.10
password: ~
---
The text."""
        item = read_text(tmp_path, text, "posts/2020-01-01-x.md")
        assert item.record is not None
        assert item.record.title == "Using <a> &amp; more"
        assert item.record.tags == ["Sports", "Baseball", "Play"]
        assert item.record.language == "zh-Hans-CN"
        assert item.record.old_paths[:2] == ["/2019/old/", "/older/"]
        assert item.record.imported == {
            "further_authors": ["Bob"],
            "front_matter": {"math": "true", "weight": "1.10"},
        }
        assert "not imported as authors: Bob" in " ".join(item.notes)
        assert "/2019/old/, /older/" in " ".join(item.notes)

    def test_aliases_are_beside_the_text(self, tmp_path: Path) -> None:
        text = "---\ntitle: x\naliases: [b.html]\n---\nThe text."
        for name, path in {"a.md": "/b.html", "c/a.md": "/c/b.html"}.items():
            item = read_text(tmp_path, text, name)
            assert item.record is not None
            assert item.record.old_paths[0] == path


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://a.example/2020/a/", "/2020/a/"),
        ("/東京/", "/%E6%9D%B1%E4%BA%AC/"),
        ("/%e6%9d%b1/?utm=x#y", "/%E6%9D%B1/"),
        ("https://a.example/?p=17&preview=1", "/?p=17"),
        ("a b", "/a%20b"),
        ("//a", None),
        ("https://a.example/", None),
        ("mailto:a@b.example", None),
        ("/a/../b", None),
        ("/" + "x" * 2000, None),
        ("http://[", None),
    ],
)
def test_old_addresses_have_one_spelling(address: str, expected: str | None) -> None:
    assert old_path(address) == expected
