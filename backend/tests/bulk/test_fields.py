"""Fields of WordPress, Ghost and static sites besides title, text and dates."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from app.services.bulk import ghost, markdown, wordpress, wordpress_comments
from app.services.bulk.foreign import ReadOptions, Survey
from app.services.bulk.markdown_writing import FolderWriter
from app.services.bulk.records import ParsedRecord
from tests.bulk.exports import ghost_export, meta, wordpress_post, wxr

USERNAMES = {"jane": "jane", "1": "jane", "2": "joe"}
Write = Callable[[str, str], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(name: str, content: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        return path

    return write


def load(
    module: ModuleType, path: Path, resolve: Callable[[str], str | None] = USERNAMES.get
) -> tuple[Survey, list[ParsedRecord]]:
    survey = module.survey(path, lambda _: None)
    options = ReadOptions(now=datetime(2026, 1, 1, tzinfo=UTC), zone=survey.zone or UTC)
    records = module.read(path, survey, options, resolve_author=resolve, advance=lambda _: None)
    return survey, list(records)


def record(item: ParsedRecord) -> dict[str, Any]:
    assert item.record is not None, item.problem
    found: dict[str, Any] = item.record.model_dump(mode="json", exclude_defaults=True)
    return found


def imported(item: ParsedRecord) -> dict[str, Any]:
    kept: dict[str, Any] = record(item).get("imported", {})
    return kept


CATEGORIES = """
<wp:category><wp:category_nicename>news</wp:category_nicename><wp:category_parent/>
  <wp:cat_name><![CDATA[News]]></wp:cat_name></wp:category>
<wp:category><wp:category_nicename>local</wp:category_nicename>
  <wp:category_parent>news</wp:category_parent><wp:cat_name>Local &amp; near</wp:cat_name>
</wp:category>
<wp:category><wp:category_nicename>loop</wp:category_nicename>
  <wp:category_parent>loop</wp:category_parent><wp:cat_name>Loop</wp:cat_name></wp:category>
<wp:category><wp:category_nicename>empty</wp:category_nicename><wp:category_parent/>
  <wp:cat_name>Empty</wp:cat_name></wp:category>
<wp:tag><wp:tag_slug>unused</wp:tag_slug><wp:tag_name>Unused</wp:tag_name></wp:tag>
<wp:term><wp:term_taxonomy>nav_menu</wp:term_taxonomy><wp:term_slug>top</wp:term_slug></wp:term>
"""


def category(name: str, domain: str = "category", key: str = "") -> str:
    key = key or name.lower()
    return f'<category domain="{domain}" nicename="{key}"><![CDATA[{name}]]></category>'


def attachment(number: int, *, alt: str = "", caption: str = "") -> str:
    return wordpress_post(
        number,
        type="attachment",
        excerpt=caption,
        more=f"<wp:attachment_url>https://wp.example.com/{number}.jpg</wp:attachment_url>"
        + meta("_wp_attachment_image_alt", alt),
    )


def comment(number: int, content: str = "Nice.", **parts: str) -> str:
    values = {
        "id": str(number),
        "author": "A Reader",
        "author_email": "reader@example.net",
        "author_url": "",
        "author_IP": "192.0.2.7",
        "date": "2020-03-05 11:00:00",
        "date_gmt": f"2020-03-05 10:00:{number:02}",
        "approved": "1",
        "type": "comment",
        "parent": "0",
        "user_id": "0",
        **parts,
    }
    fields = "".join(
        f"<wp:comment_{name}><![CDATA[{value}]]></wp:comment_{name}>"
        for name, value in values.items()
    )
    text = f"<wp:comment_content><![CDATA[{content}]]></wp:comment_content>"
    return f"<wp:comment>{fields}{text}</wp:comment>"


def wordpress_record(write: Write, header: str = "", others: str = "", **parts: str) -> Any:
    path = write("wp.xml", wxr(header + others + wordpress_post(1, **parts)))
    return load(wordpress, path)[1][-1]


class TestWordPress:
    def test_nested_categories_and_other_terms(self, write: Write) -> None:
        more = (
            category("Local & near", key="local")
            + category("Loop")
            + category("First", "post_tag")
            + category("Aside", "post_format", "post-format-aside")
            + category("Trip", "series")
            + category("Deutsch", "language", "de")
        )
        path = write("wp.xml", wxr(CATEGORIES + wordpress_post(1, more=more)))
        survey, (item,) = load(wordpress, path)
        assert record(item)["tags"] == ["First", "Local & near", "Loop", "News"]
        assert record(item)["language"] == "de"
        assert imported(item) == {
            "format": "aside",
            "categories": ["News / Local & near"],
            "taxonomies": {"series": ["Trip"]},
        }
        assert survey.left_out == {"categories and tags without posts": 2, "menus": 1}

    def test_terms_are_limited(self, write: Write) -> None:
        name, count = "n" * 1000, 50
        header = "".join(
            f"<wp:category><wp:category_nicename>c{number}</wp:category_nicename>"
            f"<wp:category_parent>c{number + 1}</wp:category_parent>"
            f"<wp:cat_name>{number} {name}</wp:cat_name></wp:category>"
            for number in range(count)
        )
        more = category("Leaf", key="c0") * count + category(name, "series")
        kept = imported(
            load(wordpress, write("wp.xml", wxr(header + wordpress_post(more=more))))[1][0]
        )
        assert len(kept["categories"]) == 1
        assert kept["categories"][0].count(" / ") == wordpress.MAX_CATEGORY_DEPTH
        assert max(map(len, kept["categories"][0].split(" / "))) == wordpress.MAX_NAME
        assert kept["taxonomies"] == {"series": [name[: wordpress.MAX_NAME]]}

    def test_paths_of_categories_are_limited(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(wordpress, "MAX_PATHS", 1)
        more = category("Local", key="local") + category("Loop")
        item = wordpress_record(
            write,
            CATEGORIES.replace(">loop</wp:category_parent>", ">news</wp:category_parent>"),
            more=more,
        )
        assert imported(item)["categories"] == ["News / Local"]
        assert "only the first 1 paths of categories were kept" in item.notes

    def test_names_of_authors_are_limited(self, write: Write) -> None:
        long = "n" * (wordpress.MAX_NAME + 1)
        author = (
            "<wp:author><wp:author_login>joe</wp:author_login>"
            f"<wp:author_display_name>{long}</wp:author_display_name></wp:author>"
        )
        guest = wordpress_post(2, type="guest-author", name="cap-ann", title=long)
        survey, _ = load(wordpress, write("wp.xml", wxr(author + guest + wordpress_post())))
        assert {len(survey.index.names[name]) for name in ("joe", "ann")} == {wordpress.MAX_NAME}

    def test_texts_of_media_files_are_limited(self, write: Write) -> None:
        long = "c" * (wordpress.MAX_CAPTION + 1)
        survey, _ = load(wordpress, write("wp.xml", wxr(attachment(1, alt=long, caption=long))))
        image = survey.index.attachments["1"]
        assert {len(image.alt), len(image.caption)} == {wordpress.MAX_CAPTION}

    def test_entities_are_decoded_once(self, write: Write) -> None:
        item = wordpress_record(
            write,
            title="Q&amp;A &#8211; caf&eacute; &amp;lt;b&amp;gt; <em>x</em>",
            more=category("News &amp; Views", key="news-views"),
        )
        assert record(item)["title"] == "Q&A \u2013 café &lt;b&gt; x"
        assert record(item)["tags"] == ["News & Views"]

    def test_tags_of_old_exports(self, write: Write) -> None:
        """Before WordPress 3.1, terms occur twice, and tags have another domain."""
        tag = "<wp:tag><wp:tag_slug>first</wp:tag_slug><wp:tag_name>First</wp:tag_name></wp:tag>"
        terms = "<category>News</category><category domain='tag'>First</category>"
        more = terms + category("News") + category("First", "tag")
        path = write("wp.xml", wxr(tag + wordpress_post(1, more=more)))
        survey, (item,) = load(wordpress, path)
        assert (record(item)["tags"], imported(item), survey.left_out) == (
            ["First", "News"],
            {},
            {},
        )

    @pytest.mark.parametrize(
        ("language", "expected"),
        [("zh-Hans-CN", "zh-Hans-CN"), ("de-DE", "de-DE"), ("en-xx", "en"), ("?", None)],
    )
    def test_language_of_the_site(self, write: Write, language: str, expected: str | None) -> None:
        path = write("wp.xml", wxr(wordpress_post(1)))
        text = path.read_text().replace("</title>", f"</title><language>{language}</language>", 1)
        _, (item,) = load(wordpress, write("wp.xml", text))
        assert record(item).get("language") == expected
        assert any(language in note for note in item.notes) is (expected != language)

    def test_cover_with_texts(self, write: Write) -> None:
        item = wordpress_record(
            write,
            others=attachment(50, alt="A <b>cat</b>", caption="On &amp; off"),
            more=meta("_thumbnail_id", "50"),
        )
        assert record(item)["cover_image_url"] == "https://wp.example.com/50.jpg"
        assert imported(item) == {"cover_alt": "A cat", "cover_caption": "On & off"}

    def test_cover_whose_file_is_not_in_the_export(self, write: Write) -> None:
        number = meta("_thumbnail_id", "51")
        item = wordpress_record(write, more=number)
        assert "cover image: the media file 51 is not in the export" in item.notes
        assert imported(item) == {"cover_image": "attachment 51"}
        shown = '<img class="size-full wp-image-51" src="https://wp.example.com/c.jpg">'
        item = wordpress_record(write, content=f"Text. {shown}", more=number)
        assert record(item)["cover_image_url"] == "https://wp.example.com/c.jpg"
        address = meta("fifu_image_url", "https://cdn.example.com/é.jpg")
        item = wordpress_record(write, more=number + address)
        assert record(item)["cover_image_url"] == "https://cdn.example.com/%C3%A9.jpg"

    def test_custom_fields_are_kept(self, write: Write) -> None:
        more = (
            "<wp:comment_status>closed</wp:comment_status><wp:is_sticky>1</wp:is_sticky>"
            "<wp:menu_order>7</wp:menu_order>"
            + meta("_yoast_wpseo_canonical", "https://other.example/post/")
            + meta("_yoast_wpseo_metadesc", "What it is about")
            + meta("rating", "5")
            + meta("mood", "calm")
            + meta("mood", "happy")
            + meta("empty", " ")
            + meta("_edit_lock", "1:2")
            + meta("_oembed_0123", "<iframe>")
            + meta("_elementor_data", "x" * 9000)
        )
        item = wordpress_record(write, more=more)
        assert record(item)["comment_policy"] == "closed"
        assert imported(item) == {
            "featured": True,
            "menu_order": 7,
            "canonical_url": "https://other.example/post/",
            "meta_description": "What it is about",
            "custom_fields": {"rating": "5", "mood": ["calm", "happy"]},
        }
        assert "the custom field '_elementor_data' is too long and was left out" in item.notes

    def test_too_many_custom_fields_are_named(self, write: Write) -> None:
        many = "".join(meta(f"field{number}", "x" * 8000) for number in range(10))
        item = wordpress_record(write, more=many + meta("rating", "5"))
        kept = imported(item)["custom_fields"]
        assert kept["rating"] == "5"
        assert 6 <= len(kept) <= 9
        (note,) = item.notes
        assert note.startswith("further fields are too long and were left out: field")

    def test_several_authors(self, write: Write) -> None:
        guest = wordpress_post(
            90, type="guest-author", more=meta("cap-display_name", "Gina Guest")
            + meta("cap-user_login", "gina"),
        )  # fmt: skip
        more = (
            category("jane", "author", "cap-jane")
            + category("gina", "author", "cap-gina")
            + category("hal", "author", "cap-hal")
        )
        item = wordpress_record(write, others=guest, more=more)
        assert record(item)["author"] == "jane"
        assert imported(item) == {"further_authors": ["Gina Guest", "hal"]}

    def test_pages_are_drafts(self, write: Write) -> None:
        posts = wordpress_post(1, type="page") + wordpress_post(2, type="page", content="")
        posts += wordpress_post(3, type="product", more=comment(1) + comment(2))
        posts += wordpress_post(4, type="tribe_events")
        _, (page, empty, product, event) = load(wordpress, write("wp.xml", wxr(posts)))
        assert record(page)["created_at"] == "2020-01-02T03:04:05Z"
        assert "published_at" not in record(page)
        assert imported(page) == {"page": True}
        assert record(page)["old_paths"] == ["/post-1/", "/?page_id=1"]
        assert (empty.left_out, empty.problem) == ("pages without text", "")
        assert (product.left_out, product.parts) == ("products", {"comments on products": 2})
        assert event.left_out == "items of the type 'tribe_events'"

    def test_former_dates_redirect(self, write: Write) -> None:
        text = wordpress_post(1, more=meta("_wp_old_date", "2019-12-31"))
        text = text.replace("/post-1/</link>", "/2020/01/02/post-1/</link>")
        _, (item,) = load(wordpress, write("wp.xml", wxr(text)))
        assert record(item)["old_paths"] == [
            "/2020/01/02/post-1/", "/post-1/", "/?p=1", "/2019/12/31/post-1/",
        ]  # fmt: skip

    def test_comments(self, write: Write) -> None:
        comments = [
            comment(1, "See http://x.example/a_b_c.\n\n<b>Yes</b>", author="<i>Ann</i> &amp; Bob",
                    author_url="https://ann.example/ü"),
            comment(2, "Reply", parent="1", user_id="1", author="Jane Doe"),
            comment(3, "Buy now", approved="spam"),
            comment(4, "To spam", parent="3", author="", author_url="javascript:alert(1)"),
            comment(5, "To a reply to spam", parent="4", approved="0"),
            comment(6, "In the trash", approved="trash", parent="2"),
            comment(7, "Below", parent="6", date_gmt="0000-00-00 00:00:00"),
            comment(8, "[…] quoted […]", type="pingback"),
            comment(9, "Order paid", type="order_note"),
            comment(10, " <p></p> "),
            comment(1, "The same number again"),
            comment(12, "Missing parent", parent="99", date="", date_gmt="1969-01-01 00:00:00"),
        ]  # fmt: skip
        author = "<wp:author_id>1</wp:author_id><wp:author_login><![CDATA[jane]]>"
        path = write("wp.xml", wxr(wordpress_post(1, more="".join(comments))))
        assert author in path.read_text()
        _, (item,) = load(wordpress, path)
        first = {
            "id": "1", "name": "Ann & Bob", "url": "https://ann.example/%C3%BC",
            "content": "See <http://x.example/a_b_c>.\n\n**Yes**",
            "created_at": "2020-03-05T10:00:01Z",
        }  # fmt: skip
        found = record(item)["comments"]
        assert "<http" in found[0]["content"] or "[http" in found[0]["content"]
        first["content"] = found[0]["content"]
        assert found == [
            first,
            {"id": "2", "parent": "1", "author": "jane", "name": "Jane Doe", "content": "Reply",
             "created_at": "2020-03-05T10:00:02Z"},
            {"id": "4", "content": "To spam", "created_at": "2020-03-05T10:00:04Z"},
            {"id": "5", "parent": "4", "name": "A Reader", "content": "To a reply to spam",
             "status": "pending", "created_at": "2020-03-05T10:00:05Z"},
            {"id": "7", "parent": "2", "name": "A Reader", "content": "Below",
             "created_at": "2020-03-05T10:00:00Z"},
            {"id": "12", "name": "A Reader", "content": "Missing parent",
             "created_at": "2020-01-02T03:04:05Z"},
        ]  # fmt: skip
        assert item.parts == {
            "spam comments": 1,
            "comments in the trash": 1,
            "pingbacks and trackbacks": 1,
            "comments of the type 'order_note'": 1,
            "empty comments": 1,
            "comments with the number of another comment": 1,
        }
        assert sum(item.parts.values()) + len(found) == len(comments)
        assert not {"reader@example.net", "192.0.2.7"} & set(json.dumps(record(item)).split('"'))
        _, (item,) = load(wordpress, path, lambda _: "ada")
        assert not any("author" in each for each in record(item)["comments"])

    def test_scheduled_post_without_a_readable_date_is_not_published(self, write: Write) -> None:
        post = wordpress_post(status="future", date="soon")
        text = wxr(post.replace("2020-01-02 04:04:05", "soon"))
        _, (item,) = load(wordpress, write("wp.xml", text))
        assert "published_at" not in record(item)
        assert any("still scheduled" in note for note in item.notes)

    @pytest.mark.parametrize("number", ["", "<wp:author_id/>", "<wp:author_id>0</wp:author_id>"])
    def test_authors_without_a_number_write_no_comments(self, write: Write, number: str) -> None:
        header = f"<wp:author>{number}<wp:author_login>joe</wp:author_login></wp:author>"
        more = comment(1, user_id="") + comment(2, user_id="0")
        path = write("wp.xml", wxr(header + wordpress_post(more=more)))
        _, (item,) = load(wordpress, path, {"joe": "joe", "jane": "jane"}.get)
        assert [each.get("author") for each in record(item)["comments"]] == [None, None]

    def test_threads_of_spam_are_searched_once(
        self, write: Write, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        count, searched = 200, 0

        class Parents(dict[str, str]):
            def get(self, key: str, default: str = "") -> str:  # type: ignore[override]
                nonlocal searched
                searched += 1
                return super().get(key, default)

        find = wordpress_comments._parent
        parents = Parents()

        def find_parent(number: str, found: dict[str, str], kept: Any) -> str | None:
            parents.update(found if not parents else {})
            return find(number, parents, kept)

        monkeypatch.setattr(wordpress_comments, "_parent", find_parent)
        spam = [comment(n, approved="spam", parent=str(n - 1)) for n in range(2, count)]
        replies = [comment(n, "Hi", parent=str(count - 1)) for n in range(count, 2 * count)]
        for root, expected in ((comment(1), "1"), ("", None)):
            searched = 0
            parents.clear()
            item = wordpress_record(write, more=root + "".join(spam + replies))
            found = {each.get("parent") for each in record(item)["comments"] if each["id"] != "1"}
            assert found == {expected}
            assert searched < 5 * count


GHOST_POST = {
    "id": "1", "uuid": "u-1", "title": "Post", "slug": "post", "html": "<p>Text.</p>",
    "status": "published", "published_at": "2020-01-01T00:00:00.000Z", "author_id": "1",
}  # fmt: skip
GHOST_USERS = [
    {"id": str(number), "name": name, "slug": name.lower(), "email": f"{name}@x.org"}
    for number, name in enumerate(("Jane", "Joe"), 1)
]


class TestGhost:
    def load(self, write: Write, *posts: dict[str, Any], **tables: Any) -> Any:
        export = ghost_export(list(posts), **{"users": GHOST_USERS, **tables})
        return load(ghost, write("ghost.json", json.dumps(export)))

    @pytest.mark.parametrize("is_old", [False, True])
    def test_fields_of_old_and_new_exports(self, write: Write, is_old: bool) -> None:
        texts = {
            "meta_title": "Meta",
            "meta_description": "About it",
            "og_image": "__GHOST_URL__/content/images/og.png",
            "feature_image_alt": "A cat",
            "feature_image_caption": "On &amp; <b>off</b>",
        }
        cover = {"image" if is_old else "feature_image": "/content/images/c.jpg"}
        post = {
            **GHOST_POST, **cover, "featured": 1 if is_old else True, "custom_excerpt": "Short",
            "canonical_url": "https://other.example/", "codeinjection_head": "<script></script>",
            "language": "zh-Hans-CN",
        }  # fmt: skip
        if is_old:
            _, (item,) = self.load(write, {**post, **texts})
        else:
            _, (item,) = self.load(write, post, posts_meta=[{"id": "m", "post_id": "1", **texts}])
        found = record(item)
        assert found["cover_image_url"] == "/content/images/c.jpg"
        assert (found["excerpt"], found["language"]) == ("Short", "zh-Hans-CN")
        assert found["imported"] == {
            "featured": True,
            "canonical_url": "https://other.example/",
            "codeinjection_head": "<script></script>",
            "meta_title": "Meta",
            "meta_description": "About it",
            "og_image": "/content/images/og.png",
            "cover_alt": "A cat",
            "cover_caption": "On & off",
        }

    @pytest.mark.parametrize(
        ("cover", "expected"),
        [
            ("content/images/c.jpg", "/content/images/c.jpg"),
            ("//cdn.example/c d.jpg", "https://cdn.example/c%20d.jpg"),
        ],
    )
    def test_covers_without_a_scheme(self, write: Write, cover: str, expected: str) -> None:
        _, (item,) = self.load(write, {**GHOST_POST, "image": cover})
        assert record(item)["cover_image_url"] == expected

    def test_language_authors_and_internal_tags(self, write: Write) -> None:
        _, (item,) = self.load(
            write,
            GHOST_POST,
            settings=[{"key": "locale", "value": "fr"}],
            tags=[{"id": "t1", "name": "#gallery", "visibility": "internal"},
                  {"id": "t2", "name": "News"}, {"id": "t3", "name": "Unused"}],
            posts_tags=[{"post_id": "1", "tag_id": "t1"}, {"post_id": "1", "tag_id": "t2"}],
            posts_authors=[{"post_id": "1", "author_id": "2", "sort_order": 1},
                           {"post_id": "1", "author_id": "1", "sort_order": 0}],
        )  # fmt: skip
        found = record(item)
        assert (found["language"], found["tags"], found["author"]) == ("fr", ["News"], "jane")
        assert found["imported"] == {"internal_tags": ["#gallery"], "further_authors": ["Joe"]}

    def test_pages_are_drafts(self, write: Write) -> None:
        for kind in ({"type": "page"}, {"page": 1}, {"page": True}):
            _, (item,) = self.load(write, {**GHOST_POST, **kind})
            assert "published_at" not in record(item)
            assert imported(item) == {"page": True}

    def test_every_table_is_counted(self, write: Write) -> None:
        survey, _ = self.load(
            write,
            GHOST_POST,
            newsletters=[{"id": 1}],
            products=[{"id": 1}, {"id": 2}],
            members=[{"id": "m"}],
            tags=[{"id": "t", "name": "Unused"}],
            permissions=[{"id": 1}, {"id": 2}, "x"],
            comments=[{"id": "c", "post_id": "gone", "html": "<p>x</p>"}],
        )
        assert survey.left_out == {
            "users without posts": 1,
            "tags without posts": 1,
            "comments on posts that are not in the export": 1,
            "newsletters": 1,
            "tiers for members": 2,
            "members": 1,
            "rows of the table 'permissions'": 3,
        }

    def test_comments_of_members(self, write: Write) -> None:
        rows = [
            {"id": "a", "html": "<p>One</p><p>Two &lt;3</p>", "status": "published",
             "member_id": "m", "created_at": "2022-01-01T00:00:00.000Z",
             "edited_at": "2022-01-02T00:00:00.000Z"},
            {"id": "b", "html": "<p>Gone</p>", "status": "deleted", "parent_id": "a"},
            {"id": "c", "html": "<p>Hidden</p>", "status": "hidden", "parent_id": "a",
             "in_reply_to_id": "b"},
        ]  # fmt: skip
        _, (item,) = self.load(
            write,
            GHOST_POST,
            members=[{"id": "m", "name": "Mia Member", "email": "mia@example.org"}],
            comments=[{"post_id": "1", **row} for row in rows],
        )
        first, second = record(item)["comments"]
        assert first == {
            "id": "a",
            "name": "Mia Member",
            "content": "One\n\nTwo <3",
            "created_at": "2022-01-01T00:00:00Z",
            "edited_at": "2022-01-02T00:00:00Z",
        }
        assert (second["parent"], second["status"]) == ("a", "hidden")
        assert item.parts == {"deleted comments": 1}

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            (
                "redirects.json",
                json.dumps(
                    [
                        {"from": "^/old-post/?$", "to": "/post/", "permanent": True},
                        {"from": "/a\\.html", "to": "https://blog.example/2020/post"},
                        {"from": "^/tag/(.*)$", "to": "/post/"},
                        {"from": "/gone", "to": "/elsewhere/"},
                        "nonsense",
                    ]
                ),
            ),
            (
                "redirects.yaml",
                (
                    "301:\n  /old-post/: /post/\n  /a.html: /2020/post\n  ^\\/tag\\/(.*)$: /post/\n"
                    "302:\n  /gone: /elsewhere/\n  /other: /gone\n"
                ),
            ),
        ],
    )
    def test_redirects_beside_the_export(self, write: Write, name: str, text: str) -> None:
        write(name, text)
        survey, (item,) = self.load(write, GHOST_POST)
        paths = {path.rstrip("/") for path in record(item)["old_paths"]}
        assert paths == {"/post", "/old-post", "/a.html"}
        assert survey.left_out["redirects that are patterns or lead elsewhere"] == 3

    @pytest.mark.parametrize("text", ["[", "{}", "301: x", "- a", "a: &a [*a]", "\0"])
    def test_damaged_redirects_are_a_problem_at_most(self, write: Write, text: str) -> None:
        for name in ("redirects.json", "redirects.yaml"):
            write(name, text)
            _, (item,) = self.load(write, GHOST_POST)
            assert record(item)["old_paths"] == ["/post/"]
            (write("x", "").parent / name).unlink()

    def test_linked_redirects_are_not_read(self, write: Write, tmp_path: Path) -> None:
        target = write("elsewhere/secret.json", "[]")
        (tmp_path / "redirects.json").symlink_to(target)
        survey, _ = self.load(write, GHOST_POST)
        assert survey.problems == (
            "redirects.json cannot be read (symbolic links are not followed)",
        )


class TestStaticSites:
    def load(self, write: Write, front_matter: str, name: str = "posts/a.md") -> ParsedRecord:
        path = write(name, f"---\ndate: 2020-01-01\n{front_matter}\n---\nText.")
        root = path.parents[len(Path(name).parts) - 1]
        return next(item for item in load(markdown, root)[1] if item.position == name)

    def test_fields_without_a_column(self, write: Write) -> None:
        item = self.load(
            write,
            "cover: {image: /c.jpg, alt: A cat, caption: On and off}\n"
            "pinned: true\ncanonicalURL: https://other.example/\ncomments: false\n"
            "description: Meta\nexcerpt: Short\nmood: calm\nseries: [a, b]\nthumbnail: /t.jpg\n"
            "link: https://linked.example/\nkeywords: [k]\ntags: [t]\ndraft: no",
        )
        found = record(item)
        assert (found["excerpt"], found["cover_image_url"]) == ("Short", "/c.jpg")
        assert (found["tags"], found["comment_policy"]) == (["t"], "closed")
        assert found["imported"] == {
            "featured": True,
            "canonical_url": "https://other.example/",
            "cover_alt": "A cat",
            "cover_caption": "On and off",
            "front_matter": {
                "description": "Meta", "mood": "calm", "series": ["a", "b"], "thumbnail": "/t.jpg",
                "link": "https://linked.example/", "keywords": ["k"],
            },
        }  # fmt: skip

    def test_fields_in_tables_of_hugo_and_zola(self, write: Write) -> None:
        for name in ("params", "extra"):
            item = self.load(write, f"{name}: {{author: jane, lang: fr, x: 1}}")
            assert record(item)["author"] == "jane"
            assert imported(item)["front_matter"][name]["x"] == "1"
            item = self.load(write, f"{name}: {{draft: true}}")
            assert "published_at" not in record(item)

    def test_languages_in_names(self, write: Write) -> None:
        write("posts/a.md", "---\ndate: 2020-01-01\n---\nText.")
        item = self.load(write, "", "posts/a.zh-cn.md")
        assert record(item)["language"] == "zh-CN"
        assert item.slug_source == "a-zh-cn"
        assert "/zh-cn/posts/a/" in record(item)["old_paths"]
        assert "language" not in record(self.load(write, "", "posts/node.js.md"))
        assert record(self.load(write, "", "posts/b/index.fr.md"))["language"] == "fr"
        assert record(self.load(write, "lang: de", "posts/c/index.fr.md"))["language"] == "de"

    def test_own_files_keep_the_comment_policy(self, tmp_path: Path) -> None:
        fields = {
            "title": "x", "slug": "b", "content": "Text.", "created_at": "2019-01-01T00:00:00Z",
            "comment_policy": "held",
        }  # fmt: skip
        FolderWriter(tmp_path).write_all([fields])
        _, (item,) = load(markdown, tmp_path)
        assert record(item) == fields
