"""What the configuration and the folders of static sites declare for their texts."""

import json
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from app.services.bulk import directories, markdown
from app.services.bulk.permalinks import expand
from app.services.bulk.records import ParsedRecord
from tests.bulk.test_fields import Write, load, record, write

__all__ = ["write"]

TEXT = "---\ndate: 2020-01-02\n---\nText."
Records = dict[str, ParsedRecord]
Site = Callable[..., Records]


@pytest.fixture
def site(write: Write, tmp_path: Path) -> Site:
    """Return a function that writes files, and returns the records of the folder by path."""

    def make(files: dict[str, str], below: str = ".") -> Records:
        for name, text in files.items():
            write(name, text)
        _, items = load(markdown, tmp_path / below)
        return {str(item.position): item for item in items if item.record}

    return make


def public(records: Records) -> set[str]:
    return {name for name, item in records.items() if "published_at" in record(item)}


class TestVisibility:
    @pytest.mark.parametrize(
        ("files", "shown"),
        [
            ({"_config.yml": "defaults: [{scope: {path: a}, values: {published: false}}]"}, "b"),
            ({"_config.yml": "defaults:\n- scope: {path: ''}\n  values: {draft: true}\n"
              "- scope: {path: b}\n  values: {draft: false}"}, "b"),
            ({"_config.yml": "defaults: [{scope: {path: a, type: posts}, "
              "values: {published: false}}]"}, "ab"),
            ({"_config.yml": "defaults: [{scope: {path: 'a*'}, values: {private: yes}}]"}, "b"),
            ({"_config.yml": "exclude: [a/]"}, "b"),
            ({"_config.yml": "exclude: ['*/x.md']"}, ""),
            ({"_config.yml": "exclude: ['**/" + "*/" * 9 + "nothing']"}, "ab"),
            ({"_config.yml": "exclude: ['[a-z]/x.{md,txt}', 'c']"}, ""),
            ({"_config.yml": "exclude: ['[!a]/*.md']"}, "a"),
            ({"_config.yml": f"exclude: ['{'{c,cc}' * 20}']"}, ""),
            ({"_config.yml": "exclude: [" + "aaaaaaaaaa, " * 2_000 + "c]"}, ""),
            ({"_config.yml": "defaults:\n- scope: {path: '[[:alpha:]]'}\n  values: {draft: no}"},
             ""),
            ({"hugo.toml": "ignoreFiles = ['b/.+\\.(md|html)$', '^c']"}, "a"),
            ({"hugo.toml": "ignoreFiles = ['(c|cc)+$']"}, ""),
            ({"hugo.toml": "[cascade]\ndraft = false\n[cascade.target]\npath = '"
              + "{c,cc}" * 20 + "'"}, ""),
            ({"a/_index.md": "---\ncascade: {_target: {kind: '" + "{c,cc}" * 9
              + "'}, lang: de}\n---\n"}, "b"),
            ({".eleventyignore": "# ours\na\n"}, "b"),
            ({"hugo.toml": "ignoreFiles = ['a/x\\.md$']"}, "b"),
            ({"hugo.toml": "[cascade]\ndraft = true\n[cascade.target]\npath = '/a/**'"}, "b"),
            ({"config/_default/hugo.yaml": "cascade: {draft: true, _target: {path: '{/a/**,/c}'}}"},
             "b"),
            ({"config/_default/cascade.toml": "draft = true"}, ""),
            ({"hugo.json": '{"cascade": [{"draft": true, "target": {"kind": "section"}}]}'}, "ab"),
            ({"hugo.json": '{"cascade": [{"draft": true, "target": {"environment": "staging"}}]}'},
             "ab"),
            ({"a/_index.md": "---\ncascade: {build: {render: never}}\n---\n"}, "b"),
            ({"a/_index.md": "---\ncascade: {params: {private: true}}\n---\n"}, "b"),
            ({"a/_index.md": "---\ncascade: {_target: {path: /b/**}, draft: true}\n---\n"}, "ab"),
            ({"a/_index.md": "---\ndraft: true\n---\n"}, "b"),
            ({"a/_index.md": "---\nbuild: {render: never}\n---\n"}, "ab"),
            ({"a/_index.de.md": "+++\nexpiryDate = 2020-02-02\n+++\n"}, "b"),
            ({"a/_index.md": "---\ncascade: {draft: true\n---\n"}, "b"),
            ({"a/a.json": '{"permalink": false}'}, "b"),
            ({"a/a.11tydata.json": '{"draft": "true", "tags": "post"}'}, "b"),
            ({"a/a.json": "{"}, "b"),
            ({"a/x.json": '{"eleventyExcludeFromCollections": true}'}, "b"),
            ({"a/a.11tydata.js": "module.exports = {draft: process.env.X}"}, "b"),
            ({"a/x.11tydata.mjs": "export default {...hide}"}, "b"),
            ({"a/a.11tydata.ts": "export default {permalink: (data) => false}"}, "b"),
            ({"a/a.11tydata.cjs": "const x = require('./x'); module.exports = x"}, "b"),
            ({"a/a.11tydata.js": "// no draft\nmodule.exports = {layout: 'x' /* permalink */}"},
             "ab"),
            ({"other.11tydata.js": "module.exports = {draft: true}"}, "ab"),
        ],
    )  # fmt: skip
    def test_declared_restrictions_are_respected(
        self, site: Site, files: dict[str, str], shown: str
    ) -> None:
        found = site({"a/x.md": TEXT, "b/x.md": TEXT, **files})
        assert public(found) == {f"{folder}/x.md" for folder in shown}
        hidden = [item.notes for name, item in found.items() if name not in public(found)]
        assert all(any("imported as a draft" in note for note in notes) for notes in hidden)

    def test_own_fields_and_near_folders_take_precedence(self, site: Site) -> None:
        found = site(
            {
                "a/a.json": '{"draft": true}',
                "a/x.md": TEXT,
                "a/y.md": TEXT.replace("date", "draft: false\ndate"),
                "a/b/b.json": '{"draft": false}',
                "a/b/z.md": TEXT,
            }
        )
        assert public(found) == {"a/y.md", "a/b/z.md"}

    def test_folders_that_jekyll_does_not_publish(self, site: Site) -> None:
        config = "include: [_pages]\ncollections: {recipes: {output: true}, notes: {output: false}}"
        names = [
            "_pages/a.md",
            "_recipes/a.md",
            "_notes/a.md",
            "_old/a.md",
            "_posts/2020-01-02-a.md",
        ]
        found = site({"_config.yml": config, **dict.fromkeys(names, TEXT)})
        assert public(found) == {"_pages/a.md", "_recipes/a.md", "_posts/2020-01-02-a.md"}

    def test_passwords_in_the_configuration_of_hexo(self, site: Site) -> None:
        config = (
            "new_post_name: :title.md\nencrypt:\n  tags: [{name: Diary, password: x}]\n"
            "  blogs: [{title: My plans, password: y}]\n"
        )
        texts = {
            "tag": "tags: [diary]",
            "title": "title: My plans",
            "without": "tags: [diary]\npassword: ''",
            "other": "tags: My plans",
        }
        files = {
            f"source/_posts/{name}.md": TEXT.replace("date", f"{text}\ndate", 1)
            for name, text in texts.items()
        }
        found = site({"_config.yml": config, **files})
        shown = {name.rpartition("/")[2].removesuffix(".md") for name in public(found)}
        assert shown == {"without", "other"}

    def test_only_jekyll_separates_tags_by_spaces(self, site: Site) -> None:
        text = TEXT.replace("date", "layout: post\ntags: Steam Engines\ndate", 1)
        name = "_posts/2020-01-02-a.md"
        for config, tags in {
            "": ["Steam", "Engines"],
            "new_post_name: x": ["Steam Engines"],
        }.items():
            found = site({"_config.yml": config, name: text})
            assert record(found[name])["tags"] == tags

    @pytest.mark.parametrize("below", ["content", "content/posts"])
    def test_configuration_above_the_folder(self, site: Site, below: str) -> None:
        files = {
            "hugo.toml": "timeZone = 'Asia/Tokyo'\n[[cascade]]\nprivate = true\n"
            "[cascade.target]\npath = '/posts/a'",
            "content/posts/a.md": TEXT,
            "content/posts/b.md": TEXT,
        }
        found = site(files, below)
        assert {name.rpartition("/")[2] for name in public(found)} == {"b.md"}
        assert all(record(item)["created_at"] == "2020-01-01T15:00:00Z" for item in found.values())

    @pytest.mark.parametrize("below", [".", "source"])
    def test_paths_are_relative_to_the_source_of_jekyll(self, site: Site, below: str) -> None:
        config = "source: source\ndefaults: [{scope: {path: old}, values: {published: false}}]"
        names = ["source/old/_posts/2020-01-02-a.md", "source/_posts/2020-01-02-b.md"]
        found = site({"_config.yml": config, **dict.fromkeys(names, TEXT)}, below)
        old, new = (record(found[name]) for name in sorted(found, key=lambda name: "-b" in name))
        assert ("published_at" in old, "published_at" in new) == (False, True)
        assert (old["tags"], new.get("tags", [])) == (["old"], [])
        assert "/2020/01/02/b.html" in new["old_paths"]

    def test_damaged_configuration_is_a_problem(self, write: Write, tmp_path: Path) -> None:
        write("a.md", TEXT)
        write("_config.yml", "a: [")
        (tmp_path / "hugo.toml").symlink_to(write("x/hugo.toml", ""))
        (tmp_path / ".eleventyignore").mkdir()
        survey, items = load(markdown, tmp_path)
        assert [problem.split(" ")[0] for problem in survey.problems] == [
            "_config.yml", "hugo.toml", ".eleventyignore",
        ]  # fmt: skip
        assert "published_at" in record(items[0])

    def test_unsupported_patterns_are_problems(self, write: Write, tmp_path: Path) -> None:
        write("a.md", TEXT)
        write("hugo.toml", f"ignoreFiles = {['(c|cc)+$', '[[:alpha:]]'] * 20}")
        survey, items = load(markdown, tmp_path)
        end = "All texts may be hidden, and become drafts"
        assert survey.problems == (
            f"hugo.toml: '(c|cc)+$' is not supported (a special or repeated group). {end}",
            f"hugo.toml: '[[:alpha:]]' is not supported (a set with escapes or names). {end}",
        )
        assert any("patterns that are not supported" in note for note in items[0].notes)

    def test_long_files_with_values_are_not_read(self, write: Write, tmp_path: Path) -> None:
        long = json.dumps({"title": "a" * directories.MAX_CONFIGURATION})
        for name in ("hugo.json", "a/a.json"):
            write(name, long)
        write("a/x.md", TEXT)
        write("b/x.md", TEXT)
        survey, items = load(markdown, tmp_path)
        assert survey.problems == ("hugo.json cannot be read: it is longer than 262144 characters",)
        assert ["published_at" in record(item) for item in items] == [False, True]

    @pytest.mark.parametrize("linked", ["config", "config/_default", "_data", "static"])
    def test_linked_folders_of_configurations_are_not_read(
        self, write: Write, tmp_path: Path, linked: str
    ) -> None:
        for name, text in {
            "config/_default/hugo.toml": "timeZone = 'Asia/Tokyo'",
            "config/_default/cascade.toml": "draft = true",
            "_data/authors.yml": "jane: {name: Of another folder}",
            "static/_redirects": "/old /a/ 301",
        }.items():
            write(f"outside/{name}", text)
        write("blog/a.md", TEXT.replace("date", "author: jane\ndate"))
        link = tmp_path / "blog" / linked
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(tmp_path / "outside" / linked)
        survey, items = load(markdown, tmp_path / "blog", str)
        whole = f"{linked} cannot be read: symbolic links are not followed"
        if linked == "config":
            whole = whole.replace("config", "config/_default", 1)
        assert survey.problems == (whole,)
        assert survey.zone is None
        assert [each.name for each in survey.authors] == ["jane"]
        (found,) = (record(each) for each in items if each.position == "a.md")
        assert "published_at" in found
        assert "/old" not in found["old_paths"]

    @pytest.mark.parametrize(
        "config",
        [
            {"cascade": [{"lang": "de"}] * (directories.MAX_TABLES + 1)},
            {"defaults": [{"scope": {}, "values": {"a": 1}}] * (directories.MAX_TABLES + 1)},
        ],
    )
    def test_number_of_tables_is_limited(self, site: Site, config: dict[str, Any]) -> None:
        assert public(site({"config.json": json.dumps(config), "a.md": TEXT})) == set()

    def test_number_of_tables_is_limited_over_all_folders(self, site: Site) -> None:
        """A far table that hides texts is not forgotten: all texts below become drafts."""
        each = directories.MAX_TABLES - 50
        section = "---\n" + json.dumps({"cascade": [{"lang": "de"}] * each}) + "\n---\n"
        found = site({"a/_index.md": section, "a/x.md": TEXT, "a/b/_index.md": section,
                      "a/b/c/y.md": TEXT})  # fmt: skip
        assert public(found) == {"a/x.md"}


class TestValues:
    def test_site_and_folders_have_values_for_all_texts(self, write: Write, tmp_path: Path) -> None:
        config = "author: {name: Jane, email: j@x.org}\nlang: zh-Hans-CN\ntimezone: Europe/Berlin\n"
        write("_config.yml", f"{config}defaults: [{{scope: {{path: b}}, values: {{author: joe}}}}]")
        write("_data/authors.yml", "joe: {name: Joe Doe, email: joe@x.org}")
        write("a.md", TEXT)
        write("b/b.md", TEXT)
        survey, items = load(markdown, tmp_path, str)
        assert survey.zone is not None
        assert [(each.handle, each.name, each.email) for each in survey.authors] == [
            ("Jane", "Jane", "j@x.org"), ("joe", "Joe Doe", "joe@x.org"),
        ]  # fmt: skip
        found = [record(item) for item in items]
        assert [each["author"] for each in found] == ["Jane", "joe"]
        assert {each["language"] for each in found} == {"zh-Hans-CN"}
        assert {each["published_at"] for each in found} == {"2020-01-01T23:00:00Z"}

    @pytest.mark.parametrize(
        ("files", "name", "path"),
        [
            ({"_config.yml": "permalink: pretty"}, "x/_posts/2020-01-02-t.md", "/x/2020/01/02/t/"),
            ({"_config.yml": "a: b"}, "_posts/2020-01-02-t.md", "/2020/01/02/t.html"),
            ({"_config.yml": "permalink: /:year/:i_day/:slug"}, "_posts/2020-01-02-t.md",
             "/2020/2/t"),
            ({"_config.yml": "post_asset_folder: true\npermalink: :year/:title/"},
             "source/_posts/t.md", "/2020/t/"),
            ({"config.yaml": "permalinks: {posts: '/:year/:slug/'}"}, "content/posts/t.md",
             "/2020/t/"),
            ({"hugo.toml": "[permalinks.page]\nposts = '/:sections/:slugorfilename/'"},
             "content/posts/in/t.md", "/posts/in/t/"),
            ({"x/x.json": '{"permalink": "/blog/{{ page.fileSlug }}/index.html"}'}, "x/t.md",
             "/blog/t/"),
        ],
    )  # fmt: skip
    def test_addresses_from_patterns(
        self, site: Site, files: dict[str, str], name: str, path: str
    ) -> None:
        found = site({**files, name: TEXT})
        assert path in record(found[name])["old_paths"]

    @pytest.mark.parametrize("pattern", ["/:unknown/", "/{{ title | upcase }}/", "/:year/"])
    def test_unknown_patterns_make_no_address(self, pattern: str) -> None:
        assert expand(pattern, at=None, values={"title": "t"}) == ""

    def test_long_patterns_and_values_make_no_address(self) -> None:
        """A short pattern with many places could make a text of any length."""
        assert expand("/:title" * 200, at=None, values={"title": "t"}) == ""
        assert expand("/:title", at=None, values={"title": "t" * 2000}) == ""
        assert expand("/:title" * 100, at=None, values={"title": "t"}) == "/t" * 100

    def test_redirects_of_the_host(self, site: Site, write: Write, tmp_path: Path) -> None:
        rules = "/old /a/ 301!\n# x\n/b/* /a/:splat\n/c https://x.example\n/d /a 200\n/e /a\nbad\n"
        found = site({"static/_redirects": rules, "a.md": TEXT})
        assert set(record(found["a.md"])["old_paths"]) == {"/a/", "/old", "/e"}
        survey, _ = load(markdown, tmp_path)
        assert survey.left_out["redirects that are patterns or lead elsewhere"] == 3

    def test_folders_above_posts_are_categories(self, site: Site) -> None:
        name = "News/in town/_posts/2020-01-02-t.md"
        found = site({"_config.yml": "a: b", name: TEXT})
        assert record(found[name])["tags"] == ["News", "in town"]
        assert "/news/in%20town/2020/01/02/t.html" in record(found[name])["old_paths"]

    def test_zone_must_exist(self, write: Write, tmp_path: Path) -> None:
        write("_config.yml", "timezone: Mars/Base")
        write("a.md", TEXT)
        survey, _ = load(markdown, tmp_path)
        assert (survey.zone, survey.problems) == (
            None, ("_config.yml: Unknown time zone 'Mars/Base'",),
        )  # fmt: skip
        write("_config.yml", "timezone: '+02:00'")
        zone = load(markdown, tmp_path)[0].zone
        assert zone is not None
        assert zone.utcoffset(None) == timedelta(hours=2)
