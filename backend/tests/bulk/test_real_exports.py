"""What real exports and sites contain: restrictions of plugins, parts of texts, bylines."""

import json
from typing import Any

import pytest

from app.services.bulk import ghost, wordpress
from app.services.bulk.converting.generators import from_site, from_site_html
from app.services.bulk.records import ParsedRecord
from tests.bulk.exports import ghost_export, meta, wordpress_post, wxr
from tests.bulk.test_directories import TEXT, Site, public, site
from tests.bulk.test_fields import (
    GHOST_POST,
    GHOST_USERS,
    Write,
    category,
    imported,
    load,
    record,
    write,
)

__all__ = ["site", "write"]

UM = 'a:2:{{s:26:"_um_custom_access_settings";b:{};s:14:"_um_accessible";s:1:"2";}}'
LEAKY = 'a:1:{{s:15:"visibility_type";s:{}:"{}";}}'
BLOCK = '<!-- wp:block {"ref":7} /-->'


def posts(write: Write, items: str) -> list[ParsedRecord]:
    found = load(wordpress, write("wp.xml", wxr(items)), str)[1]
    return [item for item in found if item.record is not None]


def is_public(item: ParsedRecord) -> bool:
    return "published_at" in record(item)


class TestWordPress:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("patreon-level", "5"),
            ("patreon-total-patronage-level", "10"),
            ("patreon-active-patrons-only", "1"),
            ("um_content_restriction", UM.format(1)),
            ("memberful_acl", 'a:1:{s:7:"product";a:1:{i:0;i:12;}}'),
            ("memberful_available_to_any_registered_user", "1"),
            ("s2member_ccaps_req", 'a:1:{i:0;s:5:"music";}'),
            ("pms-content-restrict-user-status", "loggedin"),
            ("pms-content-restrict-subscription-plan", "8665"),
            ("wppb-content-restrict-user-status", "loggedin"),
            ("groups-read", "3"),
            ("groups-groups_read_post", "gold"),
            ("_wppcp_post_page_visibility", "member"),
            ("_issuem_leaky_paywall_visibility", LEAKY.format(4, "only")),
        ],
    )
    def test_fields_of_plugins_hide_posts(self, write: Write, name: str, value: str) -> None:
        (item,) = posts(write, wordpress_post(more=meta(name, value)))
        assert not is_public(item)
        assert f"a plugin restricted the post ({name}): imported as a draft" in item.notes

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("patreon-level", "0"),
            ("um_content_restriction", UM.format(0)),
            ("memberful_acl", 'a:2:{s:7:"product";a:0:{}s:12:"subscription";a:0:{}}'),
            ("s2member_ccaps_req", 'a:1:{i:0;s:0:"";}'),
            ("_wppcp_post_page_visibility", "none"),
            ("_issuem_leaky_paywall_visibility", LEAKY.format(7, "default")),
        ],
    )
    def test_public_values_of_plugins(self, write: Write, name: str, value: str) -> None:
        (item,) = posts(write, wordpress_post(more=meta(name, value)))
        assert is_public(item)

    @pytest.mark.parametrize(
        "content",
        [
            "a [membership level='1']b[/membership]",
            "a [ppwp passwords=123]b[/ppwp]",
            "a [um_show_content roles='member']b[/um_show_content]",
            "a [content_control]b[/content_control]",
            "a [MM_Access_Decision access='true']b[/MM_Access_Decision]",
            "a [am4show have='1']b[/am4show]",
            '<!-- wp:paragraph {"um_is_restrict":true} --><p>b</p><!-- /wp:paragraph -->',
        ],
    )
    @pytest.mark.parametrize("is_reusable", [False, True])
    def test_parts_for_members_hide_posts(
        self, write: Write, content: str, is_reusable: bool
    ) -> None:
        block = wordpress_post(7, type="wp_block", content=content)
        item = posts(write, block + wordpress_post(content=BLOCK if is_reusable else content))[-1]
        assert not is_public(item)
        assert any("for members only (" in note for note in item.notes)

    @pytest.mark.parametrize(
        "parts",
        [{"status": "draft"}, {"status": "private"}, {"status": "trash"}, {"password": "x"}],
    )
    def test_reusable_blocks_that_are_not_public_are_left_out(
        self, write: Write, parts: dict[str, str]
    ) -> None:
        block = wordpress_post(7, type="wp_block", content="<p>Hidden.</p>", **parts)
        (item,) = posts(write, block + wordpress_post(content=f"<p>Text.</p>{BLOCK}"))
        assert record(item)["content"] == "Text."
        assert any("a reusable block that is not" in note for note in item.notes)

    @pytest.mark.parametrize(
        ("bylines", "author", "further"),
        [
            ([], "jane", None),
            ([("gina", "cap-gina")], "gina", None),
            ([("gina", "cap-gina"), ("hal", "cap-hal")], "gina", ["hal"]),
            ([("gina", "cap-gina"), ("jane", "cap-jane")], "jane", ["Gina Guest"]),
            ([("Jane Doe", "jane-d")], "jane", None),
            ([("bob.b", "cap-bob-b")], "bob.b", None),
        ],
    )
    @pytest.mark.parametrize("is_late", [False, True])
    def test_guests_are_the_authors_of_their_posts(
        self,
        write: Write,
        bylines: list[tuple[str, str]],
        author: str,
        further: list[str] | None,
        is_late: bool,
    ) -> None:
        guest = wordpress_post(90, type="guest-author", name="cap-gina", title="Gina Guest")
        bob = "<wp:author><wp:author_login>bob.b</wp:author_login></wp:author>"
        post = wordpress_post(more="".join(category(n, "author", key) for n, key in bylines))
        survey, items = load(
            wordpress, write("wp.xml", wxr(bob + (post + guest if is_late else guest + post))), str
        )
        (item,) = (item for item in items if item.record is not None)
        assert record(item)["author"] == author
        assert imported(item).get("further_authors") == further
        (found,) = survey.authors
        names = {"jane": "Jane Doe", "gina": "Gina Guest"}
        assert (found.handle, found.name) == (author, names.get(author, ""))

    def test_addresses_of_posts_come_before_former_ones(self, write: Write) -> None:
        """A new post has the former slug of another one; a page has the slug of a post."""
        old = wordpress_post(1, name="best-2019", more=meta("_wp_old_slug", "best"))
        page = wordpress_post(3, type="page", name="about")
        other = wordpress_post(4, name="about").replace("/about/</link>", "/2020/about/</link>")
        found = posts(write, old + wordpress_post(2, name="best") + page + other)
        paths = [record(item)["old_paths"] for item in found]
        assert paths == [
            ["/best-2019/", "/?p=1"],
            ["/best/", "/?p=2"],
            ["/about/", "/?page_id=3"],
            ["/2020/about/", "/?p=4"],
        ]

    def test_authors_of_old_exports_of_the_command_line(self, write: Write) -> None:
        text = wxr(wordpress_post()).replace("wp:author>", "wp:wp_author>")
        survey, _ = load(wordpress, write("wp.xml", text))
        (author,) = survey.authors
        assert (author.email, author.name) == ("jane@example.com", "Jane Doe")


class TestGhost:
    @pytest.mark.parametrize("key", ["is_private", "isPrivate"])
    @pytest.mark.parametrize(
        ("value", "is_shown"), [("true", False), (True, False), ("false", True)]
    )
    def test_posts_of_private_sites_are_drafts(
        self, write: Write, key: str, value: Any, is_shown: bool
    ) -> None:
        settings = [{"key": key, "value": value}]
        export = ghost_export(
            [GHOST_POST, {**GHOST_POST, "id": "2", "uuid": "u-2", "status": "draft"}],
            users=GHOST_USERS,
            settings=settings,
        )
        _, (post, draft) = load(ghost, write("ghost.json", json.dumps(export)))
        assert is_public(post) is is_shown
        assert ("the site was private: imported as a draft" in post.notes) is not is_shown
        assert draft.notes == ()


class TestStaticSites:
    def test_files_of_bundles_of_hugo_are_not_pages(self, site: Site) -> None:
        names = [
            "content/posts/a.md", "content/posts/b/index.md", "content/posts/b/notes.md",
            "content/posts/b/more/index.md", "content/posts/c/index.fr.md",
            "content/home/index.md", "content/home/hero.md",
        ]  # fmt: skip
        texts = dict.fromkeys(names, TEXT)
        texts["content/home/index.md"] = TEXT.replace("date", "headless: true\ndate", 1)
        shown = {"content/posts/a.md", "content/posts/b/index.md", "content/posts/c/index.fr.md"}
        found = site({**texts, "hugo.toml": ""})
        assert public(found) == shown
        (note,) = found["content/posts/b/notes.md"].notes
        assert note == "Hugo does not publish files beside index.md: imported as a draft"

    def test_other_generators_publish_files_beside_an_index(self, site: Site) -> None:
        texts = dict.fromkeys(["posts/b/index.md", "posts/b/notes.md"], TEXT)
        assert public(site(texts)) == set(texts)
        assert public(site({**texts, "_config.yml": "a: b", "config.json": "{}"})) == set(texts)

    @pytest.mark.parametrize(
        ("config", "shown"),
        [
            ({}, {"_posts/2020-01-02-a.md", "blog/a.md"}),
            ({"_config.yml": "new_post_name: x"}, {"_posts/2020-01-02-a.md", "blog/a.md"}),
            ({"hugo.toml": ""}, {"_posts/2020-01-02-a.md", "blog/a.md", "blog/_old/a.md"}),
        ],
    )
    def test_folders_whose_names_begin_with_an_underscore(
        self, site: Site, config: dict[str, str], shown: set[str]
    ) -> None:
        names = ["_posts/2020-01-02-a.md", "blog/a.md", "blog/_old/a.md"]
        assert public(site({**dict.fromkeys(names, TEXT), **config})) == shown

    @pytest.mark.parametrize(
        ("lines", "is_shown"),
        [("src/hidden", False), ("/src/hidden/", False), ("hidden/*.md", False), ("hid", True)],
    )
    def test_ignored_files_are_named_above_the_input_folder(
        self, site: Site, lines: str, is_shown: bool
    ) -> None:
        files = {"src/a.md": TEXT, "src/hidden/b.md": TEXT, ".eleventyignore": lines}
        assert public(site(files, "src")) == {"a.md", *(["hidden/b.md"] if is_shown else [])}

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("a{::comment}b{:/comment}c", "ac"),
            ("a\n\n{::comment}\nb\n\n```\nc\n```\n{:/}\n\nd", "a\n\nd"),
            ("`{::comment}`a", "`{::comment}`a"),
            ("a{::comment}b", "ab"),
        ],
    )
    def test_comments_of_kramdown_are_left_out(self, text: str, expected: str) -> None:
        assert from_site(text).markdown.strip() == expected
        html = from_site_html("<p>a</p>{::comment}<p>b</p>{:/comment}").markdown
        assert html == "a"
