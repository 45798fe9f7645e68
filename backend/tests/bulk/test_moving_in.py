"""docs/moving-in.md: its commands print the reports that it shows, and its tables are true."""

import io
import json
import re
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from app.core.config import PROJECT_DIR, get_settings
from app.services.bulk import ghost, markdown, wordpress
from app.services.bulk.converting.pages import from_html
from app.services.bulk.foreign import Survey
from app.services.bulk.records import ParsedRecord
from tests.bulk.exports import LEXICAL, ghost_export, meta, wordpress_post, wxr
from tests.bulk.test_cli import ADA
from tests.bulk.test_fields import (
    CATEGORIES,
    GHOST_POST,
    GHOST_USERS,
    Write,
    attachment,
    category,
    comment,
    load,
    record,
    write,
)
from tests.commands import fetch, run
from tests.databases import execute
from tests.images import image_bytes

__all__ = ["write"]

PAGE = PROJECT_DIR / "docs" / "moving-in.md"

# --- commands

EXAMPLES = Path(__file__).parent / "examples"
IMAGES = (
    "ghost/content/images/2024/05/kettle.png",
    "ghost/content/images/2024/05/cover.png",
    "wordpress/uploads/2023/04/bench.png",
    "site/static/images/frost.png",
    "site/content/posts/seed-list/packets.png",
)
BLOCK = re.compile(r"^```bash\n(.*?)^```\n(?:\n```text\n(.*?)^```$)?", re.MULTILINE | re.DOTALL)
MOUNT = re.compile(r'--volume "\$PWD/([a-z]+):(/[a-z]+)(?::ro)?"')
SQL = re.compile(r'psql -U pressroom -c "([^"]+)"')
NOT_SHOWN = re.compile(r".*━|(?:\x1b\S*)?\d{4}-\d\d-\d\dT|$")
"""Progress bars, log lines and empty lines."""
DRY_RUN = "This was a dry run: nothing was changed."


class Reader:
    """Runs the commands of the page in this process, with other folders."""

    def __init__(self, folder: Path, database: str, mounts: Mapping[str, str]) -> None:
        self.folders = {f"{mount}/": f"{folder / name}/" for name, mount in mounts.items()}
        self.database = database

    def run(self, line: str) -> list[str]:
        """Run a line; return what it prints."""
        if statement := SQL.search(line):
            return [f"UPDATE {len(fetch(self.database, f'{statement[1]} RETURNING id'))}"]
        arguments = shlex.split(line)
        arguments = arguments[arguments.index("pressroom") + 1 :]
        for mount, folder in self.folders.items():
            arguments = [
                folder + each.removeprefix(mount) if each.startswith(mount) else each
                for each in arguments
            ]
        output = io.StringIO()
        with redirect_stdout(output), redirect_stderr(output):
            status = run(*arguments)
        lines = [each.rstrip() for each in output.getvalue().splitlines()]
        lines = [each for each in lines if not NOT_SHOWN.match(each)]
        has_refused = any(re.fullmatch(r"refused +[1-9]\d*", each) for each in lines)
        assert status == int(has_refused), lines
        return lines


@pytest.mark.checkout
@pytest.mark.usefixtures("restored_environment")
def test_commands_print_what_the_page_shows(
    own_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDIA_DIR", str(tmp_path / "media"))
    get_settings.cache_clear()
    execute(own_database, ADA)
    shutil.copytree(EXAMPLES, tmp_path / "from")
    (tmp_path / "reports").mkdir()
    for name in IMAGES:
        path = tmp_path / "from" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image_bytes("PNG", size=(40, 30 + len(name))))
    (setup, _), *steps = BLOCK.findall(PAGE.read_text())
    reader = Reader(tmp_path, own_database, dict(MOUNT.findall(setup)))
    dry: list[str] = []
    for commands, shown in steps:
        printed = [line for command in commands.splitlines() for line in reader.run(command)]
        expected = shown.splitlines()
        if "--redirects" in commands:  # the page shows the lines that a dry run has not printed
            assert dry[-1] == DRY_RUN
            expected = dry[:-1] + expected
        assert printed == expected, commands
        dry = printed if "--dry-run" in commands else []
    assert len(steps) == 10
    names = {path.name for path in (tmp_path / "reports").iterdir()}
    reports = {
        f"{name}.{end}" for name in ("ghost", "wordpress", "site") for end in ("json", "html")
    }
    maps = {f"{name}{end}" for name in ("kettle", "garden", "frost")
            for end in (".conf", "_redirects", ".json")}  # fmt: skip
    assert names == reports | maps
    # The last step has deleted the articles: they can be imported from the beginning.
    assert "created    4" in reader.run("pressroom import /from/wordpress/export.xml --dry-run")


# --- tables

ROW = re.compile(r"^\| (.+?) \| (kept|changed|dropped) \|", re.MULTILINE)


class Found(NamedTuple):
    """What an import makes of a source."""

    fields: Mapping[str, Any]
    notes: Sequence[str] = ()
    counted: Sequence[str] = ()
    """Kinds of what was left out."""
    problem: str = ""


Source = Callable[[Write], Found]


class Case(NamedTuple):
    """A source, and what must be true of the article."""

    source: Source
    fields: Mapping[str, Any] = {}
    """Fields with these values."""
    text: str = ""
    """Part of the text."""
    note: str = ""
    """Part of a note."""
    counted: Sequence[str] = ()
    lacks: Sequence[str] = ()
    """What no field contains."""
    problem: str = ""
    """Why the record is refused."""


def found_in(survey: Survey, items: Sequence[ParsedRecord], item: ParsedRecord) -> Found:
    kinds = [each.left_out for each in items if each.left_out]
    fields = record(item) if item.record else {}
    return Found(fields, item.notes, [*survey.left_out, *item.parts, *kinds], item.problem)


def html(text: str) -> Source:
    def read(_: Write) -> Found:
        converted = from_html(text)
        return Found({"content": converted.markdown}, converted.notes)

    return read


def post(content: str = "Text.", *, head: str = "", before: str = "", **parts: str) -> Source:
    """A WordPress post after other parts of an export. `head` is about the site."""

    def read(write: Write) -> Found:
        export = wxr(before + wordpress_post(1, content=content, **parts))
        export = export.replace("</title>", f"</title>{head}", 1)
        survey, items = load(wordpress, write("wp.xml", export))
        return found_in(survey, items, items[-1])

    return read


def entry(fields: Mapping[str, Any] = {}, *, redirects: str = "", **tables: Any) -> Source:
    """A post of Ghost with these fields, and the rows of further tables."""

    def read(write: Write) -> Found:
        if redirects:
            write("redirects.json", redirects)
        export = ghost_export([{**GHOST_POST, **fields}], **{"users": GHOST_USERS, **tables})
        survey, items = load(ghost, write("ghost.json", json.dumps(export)))
        return found_in(survey, items, items[0])

    return read


def cards(*nodes: Mapping[str, Any]) -> Source:
    """A post of Ghost with a paragraph and these cards."""
    paragraph = {"type": "paragraph", "children": [{"type": "text", "text": "Text."}]}
    root = {"root": {"children": [paragraph, *nodes]}}
    return entry({"html": None, "lexical": json.dumps(root)})


def page(
    front: str = "",
    text: str = "Text.",
    *,
    name: str = "posts/a.md",
    whole: str = "",
    others: Mapping[str, str] = {},
) -> Source:
    """A text of a static site, and other files. `whole` is all that the file contains."""

    def read(write: Write) -> Found:
        for other, content in others.items():
            write(other, content)
        path = write(name, whole or f"---\ndate: 2020-01-01\n{front}\n---\n{text}")
        survey, items = load(markdown, path.parents[len(Path(name).parts) - 1], str)
        (item,) = (each for each in items if each.position == name)
        return found_in(survey, items, item)

    return read


def below(write: Write, folder: str) -> Write:
    return lambda name, content: write(f"{folder}/{name}", content)


def draft(source: Source, note: str = "") -> Case:
    return Case(source, note=note, lacks=["published_at"])


def reader_comment(number: int, **parts: str) -> dict[str, str]:
    """The record of a comment that `comment` makes."""
    fixed = {"name": "A Reader", "content": "Nice.", "created_at": f"2020-03-05T10:00:{number:02}Z"}
    return {"id": str(number), **fixed, **parts}


FOOTNOTE = meta("footnotes", '[{"content": "b", "id": "f1"}]')
REFERENCE = '<p>a<sup data-fn="f1" class="fn"><a href="#f1" id="f1-link">1</a></sup></p>'
BLOCK_7 = "<!-- wp:paragraph --><p>Used twice.</p><!-- /wp:paragraph -->"
BOB = "<wp:author><wp:author_id>2</wp:author_id><wp:author_login>bob</wp:author_login></wp:author>"
MEMBER_COMMENT = {
    "id": "a", "post_id": "1", "html": "<p>One</p>", "status": "published", "member_id": "m",
    "created_at": "2022-01-01T00:00:00.000Z",
}  # fmt: skip
PATTERNS = "redirects that are patterns or lead elsewhere"

TEXTS: dict[str, list[Case]] = {
    "paragraphs, headings, lists, quotes, code, tables, links, images, bold and italic words": [
        Case(html(source), text=text)
        for source, text in {
            "<p>a</p><p>b</p>": "a\n\nb",
            "<h2>a</h2>": "## a",
            "<ul><li>a</ul>": "- a",
            "<blockquote>a</blockquote>": "> a",
            "<pre>a</pre>": "```\na\n```",
            "<table><tr><th>a<th>b<tr><td>c<td>d</table>": "| a | b |\n| --- | --- |\n| c | d |",
            "<a href='/x'>a</a>": "[a](/x)",
            "<img src='/x.png' alt='a'>": "![a](/x.png)",
            "<b>a</b> <i>b</i>": "**a** *b*",
        }.items()
    ],
    "`sup`, `sub`, `kbd`, `mark`, `details`, definition lists": [
        Case(html("<sup>a</sup><sub>b</sub>"), text="<sup>a</sup><sub>b</sub>"),
        Case(html("<kbd>a</kbd><mark>b</mark>"), text="<kbd>a</kbd><mark>b</mark>"),
        Case(html("<details><summary>a</summary>b</details>"), text="<summary>a</summary>"),
        Case(html("<dl><dt>a<dd>b</dl>"), text="<dt>a</dt>\n<dd>b</dd>"),
    ],
    "image with a caption": [
        Case(
            html("<figure><img src='/a.png'><figcaption>b</figcaption></figure>"),
            text="<figure>\n\n![](/a.png)\n\n<figcaption>b</figcaption>\n</figure>",
        )
    ],
    "footnotes": [
        Case(
            html(
                "a<sup><a href='#n1' id='r1'>1</a></sup><hr><ol><li id='n1'>b"
                " <a href='#r1'>back</a></ol>"
            ),
            text="a[^1]\n\n[^1]: b",
        )
    ],
    "table without a header": [
        Case(html("<table><tr><td>a<td>b<tr><td>c<td>d</table>"), text="| a | b |\n| --- | --- |"),
    ],
    "table with cells over several columns": [
        Case(
            html("<table><tr><td colspan=2>a<tr><td>b<td>c</table>"), text='<td colspan="2">a</td>'
        )
    ],
    "video, audio, frames, embeds": [
        Case(html("<video><source src='/a.webm'></video>"), text="[a.webm](/a.webm)"),
        Case(html("<audio src='/a.mp3'></audio>"), text="[a.mp3](/a.mp3)"),
        Case(html("<iframe src='//maps.example/?q=1'></iframe>"), text="<https://maps.example/?q=1>"),
        Case(
            html("<object><param name=movie value='//www.youtube.com/v/abcdefghijk'></object>"),
            text="https://www.youtube.com/watch?v=abcdefghijk",
        ),
    ],
    "MathML": [
        Case(
            html("<math><annotation encoding='application/x-tex'>x^2</annotation></math>"),
            text="x^2",
            note="a formula in MathML",
        )
    ],
    "links other than `http`, `https`, `mailto`, `tel`": [
        Case(html("<a href='ftp://x/'>a</a>"), text="a", note="was removed, its text was kept"),
        Case(html("<a href='mailto:a@b.example'>a</a>"), text="[a](mailto:a@b.example)"),
        Case(html("<a href='tel:+1'>a</a>"), text="[a](tel:+1)"),
    ],
    "forms": [
        Case(html("<form><p>a</p><input></form>"), text="a", note="a form", lacks=["form", "input"])
    ],
    "scripts, drawings (`svg`, `canvas`), images inside the text (`data:`)": [
        Case(html("a<script>x()</script>"), note="a script was left out", lacks=["x()"]),
        Case(html("a<svg><text>xx</text></svg>"), note="a drawing (SVG)", lacks=["xx"]),
        Case(html("a<canvas></canvas>"), note="a drawing (canvas)", lacks=["canvas"]),
        Case(html("a<img src='data:image/png;base64,xx'>"), note="an image", lacks=["data:"]),
    ],
    "colors, fonts, alignment, sizes of images, classes": [
        Case(html("<p style='color:red' align=center class=red><font color=red>a</font>"
                  "<img src='/b.png' width=1>"),
             text="a![](/b.png)", lacks=["red", "center", "width"])
    ],
    "post of more than 50,000 tags": [Case(post("<b>a</b>" * 25_001), problem="50000 tags")],
}  # fmt: skip

WORDPRESS: dict[str, list[Case]] = {
    "texts of the classic editor": [Case(post("a\n\nb\nc"), text="a\n\nb\\\nc")],
    "galleries, captions, audio, video, playlists, embeds": [
        Case(post(content, before=attachment(50, alt="A")), text=text)
        for content, text in {
            "[gallery ids='50']": "![A](https://wp.example.com/50.jpg)",
            '[caption caption="c"]<img src="/a.png">[/caption]': "<figcaption>c</figcaption>",
            "[audio https://a.example/a.mp3]": "https://a.example/a.mp3",
            '[video mp4="https://a.example/a.mp4"][/video]': "https://a.example/a.mp4",
            '[playlist ids="50"]': "](https://wp.example.com/50.jpg)",
            "[embed]https://a.example/x[/embed]": "<https://a.example/x>",
        }.items()
    ],
    "`[code]`, `[sourcecode]`, `[highlight]`": [
        Case(post(f"[{name} language='php']\n$a;\n[/{name}]"), text="```php\n$a;\n```")
        for name in ("code", "sourcecode", "highlight")
    ],
    "footnotes of the block editor and of plugins": [
        Case(post(f"{REFERENCE}<!-- wp:footnotes /-->", more=FOOTNOTE), text="a[^1]\n\n[^1]: b"),
        Case(post("a[efn_note]b[/efn_note]"), text="a[^1]\n\n[^1]: b"),
    ],
    "reusable blocks": [
        Case(
            post(
                '<!-- wp:block {"ref":7} /-->',
                before=wordpress_post(7, type="wp_block", content=BLOCK_7),
            ),
            text="Used twice.",
        )
    ],
    "other shortcodes": [
        Case(post("[foo]a[/foo]"), text="a", note="its content was kept"),
        Case(post("[map url='https://a.example/m']"), text="(https://a.example/m)", note="[map]"),
        Case(post("a [contact-form-7 id='1']"), note="the shortcode [contact-form-7] of a plugin"),
    ],
    "blocks that WordPress fills, such as the latest posts": [
        Case(
            post('a<!-- wp:latest-posts {"n":1} /-->'),
            note="'latest-posts'",
            lacks=["latest-posts"],
        )
    ],
    "`<!--more-->`, `<!--nextpage-->`": [
        Case(
            post("a\n\n<!--more-->\n\nb\n\n<!--nextpage-->\n\nc"),
            text="a\n\nb\n\nc",
            note="the pages of the post were joined",
            lacks=["<!--"],
        )
    ],
    "featured image, its alternative text and caption": [
        Case(
            post(before=attachment(50, alt="A", caption="B"), more=meta("_thumbnail_id", "50")),
            {
                "cover_image_url": "https://wp.example.com/50.jpg",
                "imported": {"cover_alt": "A", "cover_caption": "B"},
            },
        )
    ],
    "tags and categories": [
        Case(
            post(
                before=CATEGORIES,
                more=category("Local & near", key="local") + category("First", "post_tag"),
            ),
            {
                "tags": ["First", "Local & near", "News"],
                "imported": {"categories": ["News / Local & near"]},
            },
        )
    ],
    "post formats and other taxonomies": [
        Case(
            post(
                more=category("Aside", "post_format", "post-format-aside")
                + category("Trip", "series")
            ),
            {"imported": {"format": "aside", "taxonomies": {"series": ["Trip"]}}},
        )
    ],
    "language of the site, or Polylang's of the post": [
        Case(post(head="<language>de</language>"), {"language": "de"}),
        Case(post(more=category("Deutsch", "language", "de")), {"language": "de"}),
    ],
    "author, also a guest (Co-Authors Plus)": [
        Case(post(), {"author": "jane"}),
        Case(post(more=category("2", "author", "cap-2")), {"author": "joe"}),
    ],
    "further authors (Co-Authors Plus)": [
        Case(
            post(more=category("jane", "author") + category("hal", "author", "cap-hal")),
            {"author": "jane", "imported": {"further_authors": ["hal"]}},
            note="an article has one author",
        )
    ],
    "approved and unapproved comments, threads": [
        Case(
            post(more=comment(1) + comment(2, parent="1", approved="0")),
            {"comments": [reader_comment(1), reader_comment(2, parent="1", status="pending")]},
        )
    ],
    "name and website of a commenter": [
        Case(
            post(more=comment(1, author_url="https://ann.example/")),
            {"comments": [reader_comment(1, url="https://ann.example/")]},
        )
    ],
    "email and IP address of a commenter": [
        Case(post(more=comment(1)), lacks=["reader@example.net", "192.0.2.7"])
    ],
    "spam, comments in the trash, pingbacks, trackbacks": [
        Case(post(more=comment(1, "Buy now", **parts)), counted=[kind], lacks=["Buy now"])
        for kind, parts in (
            ("spam comments", {"approved": "spam"}),
            ("comments in the trash", {"approved": "trash"}),
            ("pingbacks and trackbacks", {"type": "pingback"}),
            ("pingbacks and trackbacks", {"type": "trackback"}),
        )
    ],
    "closed comments": [
        Case(
            post(more="<wp:comment_status>closed</wp:comment_status>"), {"comment_policy": "closed"}
        )
    ],
    "drafts and posts pending review": [
        draft(post(status="draft")),
        draft(post(status="pending"), "the post is pending review: imported as a draft"),
    ],
    "scheduled posts": [
        Case(
            post(status="future", date="2099-01-01 00:00:00"),
            {"published_at": "2099-01-01T00:00:00Z"},
        )
    ],
    "private posts, posts with a password, parts for members": [
        draft(post(status="private"), "the post is private: imported as a draft"),
        draft(post(password="hush"), "the post has a password: imported as a draft"),
        draft(post("a [membership]b[/membership]"), "parts of the text were for members only"),
        draft(post(more=meta("patreon-level", "5")), "a plugin restricted the post"),
    ],
    "pages": [
        draft(post(type="page"), "it is a page of the site: imported as a draft"),
        Case(post(type="page"), {"imported": {"page": True}}),
    ],
    "sticky posts": [
        Case(post(more="<wp:is_sticky>1</wp:is_sticky>"), {"imported": {"featured": True}})
    ],
    "fields of SEO plugins": [
        Case(
            post(
                more=meta("_yoast_wpseo_canonical", "https://a.example/")
                + meta("rank_math_description", "A")
            ),
            {"imported": {"canonical_url": "https://a.example/", "meta_description": "A"}},
        )
    ],
    "other custom fields": [
        Case(post(more=meta("rating", "5")), {"imported": {"custom_fields": {"rating": "5"}}}),
        Case(post(more=meta("layout", "x" * 9000)), note="'layout' is too long", lacks=["xxx"]),
    ],
    "permanent links, `?p=17`, former slugs": [
        Case(
            post(more=meta("_wp_old_slug", "former")),
            {"old_paths": ["/post-1/", "/?p=1", "/former/"]},
        )
    ],
    "posts in the trash, revisions, menus, products, other types": [
        Case(post(status="trash"), counted=["posts in the trash"]),
        Case(post(type="revision"), counted=["revisions"]),
        Case(post(type="nav_menu_item"), counted=["menu items"]),
        Case(post(type="product"), counted=["products"]),
        Case(post(type="tribe_events"), counted=["items of the type 'tribe_events'"]),
    ],
    "users, categories and tags without posts": [
        Case(
            post(before=BOB + CATEGORIES),
            counted=["users without posts", "categories and tags without posts"],
        )
    ],
}

GHOST: dict[str, list[Case]] = {
    "posts in HTML, Lexical, Mobiledoc and Markdown": [
        Case(entry({"html": "<p>a <b>b</b></p>"}), text="a **b**"),
        Case(
            entry({"html": None, "lexical": json.dumps(LEXICAL)}),
            text="A **draft** of [it](https://example.com).",
        ),
        Case(
            entry({"html": None, "mobiledoc": '{"sections": [[1, "p", [[0, [], 0, "a"]]]]}'}),
            {"content": "a"},
        ),
        Case(entry({"html": None, "markdown": "a *b*"}), {"content": "a *b*"}),
    ],
    "image, gallery, bookmark, file, video, audio, toggle, callout, button and product cards": [
        Case(cards({"type": name, **payload}), text=text)
        for name, payload, text in (
            ("image", {"src": "/a.png", "alt": "a", "caption": "c"}, "<figcaption>c</figcaption>"),
            ("gallery", {"images": [{"src": "/1.png"}, {"src": "/2.png"}]}, "![](/1.png)\n\n![]"),
            ("bookmark", {"url": "https://a.example/", "title": "T"}, "[T](https://a.example/)"),
            ("file", {"src": "/f.pdf", "fileTitle": "F"}, "[F](/f.pdf)"),
            ("video", {"src": "https://a.example/v.mp4"}, "https://a.example/v.mp4"),
            ("audio", {"src": "/a.mp3", "title": "A"}, "A\n\n[a.mp3](/a.mp3)"),
            ("toggle", {"heading": "H", "content": "<p>c</p>"}, "<summary>H</summary>\n\nc"),
            ("callout", {"calloutEmoji": "!", "calloutText": "<p>a</p>"}, "> ! a"),
            ("button", {"buttonText": "B", "buttonUrl": "/b"}, "[B](/b)"),
            ("product", {"productTitle": "P", "productDescription": "<p>d</p>"}, "#### P\n\nd"),
        )
    ],
    "other cards": [
        Case(
            cards({"type": "unheard-of", "url": "https://a.example/x"}),
            text="(https://a.example/x)",
            note="a card of the unknown type 'unheard-of'",
        )
    ],
    "email cards": [
        Case(
            cards({"type": "email", "html": "<p>Dear reader</p>"}),
            note="a part that was only sent by email was left out",
            lacks=["Dear reader"],
        )
    ],
    "sign-up forms": [
        Case(
            cards({"type": "signup", "header": "Join", "buttonText": "Send"}),
            text="Join",
            note="a sign-up form was left out, its texts were kept",
            lacks=["<form", "<input", "signup"],
        )
    ],
    "feature image, its alternative text and caption": [
        Case(
            entry(
                {"feature_image": "/content/images/c.jpg"},
                posts_meta=[
                    {"post_id": "1", "feature_image_alt": "A", "feature_image_caption": "B"}
                ],
            ),
            {
                "cover_image_url": "/content/images/c.jpg",
                "imported": {"cover_alt": "A", "cover_caption": "B"},
            },
        )
    ],
    "excerpt, language": [
        Case(
            entry({"custom_excerpt": "A", "locale": "fr"}), {"excerpt": "A", "language": "fr"}
        ),
        Case(entry(settings=[{"key": "locale", "value": "fr"}]), {"language": "fr"}),
    ],
    "tags": [
        Case(
            entry(
                tags=[{"id": "t1", "name": "#gallery", "visibility": "internal"},
                      {"id": "t2", "name": "News"}],
                posts_tags=[{"post_id": "1", "tag_id": "t1"}, {"post_id": "1", "tag_id": "t2"}],
            ),
            {"tags": ["News"], "imported": {"internal_tags": ["#gallery"]}},
        )
    ],
    "author": [Case(entry(), {"author": "jane"})],
    "further authors": [
        Case(
            entry(
                posts_authors=[{"post_id": "1", "author_id": "1", "sort_order": 0},
                               {"post_id": "1", "author_id": "2", "sort_order": 1}],
            ),
            {"author": "jane", "imported": {"further_authors": ["Joe"]}},
            note="an article has one author",
        )
    ],
    "featured posts": [Case(entry({"featured": True}), {"imported": {"featured": True}})],
    "canonical URL, meta fields, injected code": [
        Case(
            entry(
                {"canonical_url": "https://a.example/", "codeinjection_head": "<style>"},
                posts_meta=[{"post_id": "1", "meta_title": "M", "og_title": "O"}],
            ),
            {"imported": {"canonical_url": "https://a.example/", "codeinjection_head": "<style>",
                          "meta_title": "M", "og_title": "O"}},
        )
    ],
    "posts for members or tiers, parts behind a paywall, posts only sent by email, private sites": [
        draft(entry({"visibility": "members"}), "for some readers only (members)"),
        draft(entry({"visibility": "tiers"}), "for some readers only (tiers)"),
        draft(entry({"html": "<p>a</p><!--members-only--><p>b</p>"}), "parts of the text were for"),
        draft(entry({"status": "sent"}), "the post was only sent by email: imported as a draft"),
        draft(entry(settings=[{"key": "is_private", "value": "true"}]), "the site was private"),
    ],
    "pages": [
        draft(entry({"type": "page"}), "it is a page of the site: imported as a draft"),
        Case(entry({"type": "page"}), {"imported": {"page": True}}),
    ],
    "comments, if the export has all tables": [
        Case(
            entry(members=[{"id": "m", "name": "Mia"}], comments=[MEMBER_COMMENT]),
            {"comments": [{"id": "a", "name": "Mia", "content": "One",
                           "created_at": "2022-01-01T00:00:00Z"}]},
        )
    ],
    "deleted comments": [
        Case(
            entry(comments=[{**MEMBER_COMMENT, "status": "deleted"}]),
            counted=["deleted comments"],
            lacks=["One"],
        )
    ],
    "redirects beside the export": [
        Case(
            entry(redirects='[{"from": "^/old/?$", "to": "/post/"}, {"from": "/(.*)", "to": "/"}]'),
            {"old_paths": ["/post/", "/old"]},
            counted=[PATTERNS],
        )
    ],
    "members, newsletters, tiers, snippets, other tables": [
        Case(
            entry(members=[{}], newsletters=[{}], products=[{}], snippets=[{}], permissions=[{}]),
            counted=["members", "newsletters", "tiers for members", "snippets",
                     "rows of the table 'permissions'"],
        )
    ],
    "users and tags without posts": [
        Case(
            entry(tags=[{"id": "t", "name": "Unused"}]),
            counted=["users without posts", "tags without posts"],
        )
    ],
}  # fmt: skip

SITES: dict[str, list[Case]] = {
    "front matter in YAML, TOML or JSON": [
        Case(page(whole=whole), {"title": "T", "published_at": "2020-01-01T00:00:00Z"})
        for whole in (
            "---\ntitle: T\ndate: 2020-01-01\n---\nText.",
            '+++\ntitle = "T"\ndate = 2020-01-01\n+++\nText.',
            '{"title": "T", "date": "2020-01-01"}\n\nText.',
        )
    ],
    "shortcodes of Hugo, tags of Liquid, Octopress and Hexo, components of MDX": [
        Case(page(text="{{< youtube abcdefghijk >}}"), text="https://www.youtube.com/watch?v="),
        Case(page(text='{{< figure src="/a.png" caption="c" >}}'), text="<figcaption>\n\nc"),
        Case(page(text="{% highlight ruby %}\na\n{% endhighlight %}"), text="```ruby\na\n```"),
        Case(page(text='{% img left /a.png 350 200 "T" "A" %}'), text='![A](/a.png "T")'),
        Case(page(text="{% asset_img a.jpg A title %}"), text="![A title](a.jpg)"),
        Case(
            page(text='<Callout type="warning">\n**a**\n</Callout>', name="posts/a.mdx"),
            text="> [!WARNING]\n> **a**",
        ),
    ],
    "unknown shortcodes, tags and components": [
        Case(page(text="{{< foo >}}a{{< /foo >}}"), text="a", note="its content was kept"),
        Case(page(text='{% foo url="https://a.example/" %}'), text="https://a.example/"),
        Case(page(text="a {{< foo >}}"), note="the tag 'foo' of the generator was removed"),
    ],
    "conditions and loops of Liquid": [
        Case(
            page(text="{% if a %}b{% else %}c{% endif %}"), text="bc", note="depend on conditions"
        )
    ],
    "imports and exports of MDX; comments of Liquid, MDX and kramdown": [
        Case(
            page(text="import X from './x'\nexport const m = 1\n\na", name="posts/a.mdx"),
            text="a",
            lacks=["import X", "export const"],
        ),
        *(
            Case(page(text=f"a{text}", name="posts/a.mdx"), {"content": "a"}, lacks=["hidden"])
            for text in (
                "{% comment %}hidden{% endcomment %}",
                "{/* hidden */}",
                "{::comment}hidden{:/comment}",
            )
        ),
    ],
    "text without a title": [
        Case(page(text="# The heading\n\nText."), {"title": "The heading", "content": "Text."}),
        Case(page(name="posts/on-compost.md"), {"title": "on compost"}),
    ],
    "date in the front matter or the name of the file": [
        Case(page("title: T"), {"published_at": "2020-01-01T00:00:00Z"}),
        Case(
            page(name="posts/2020-01-02-t.md", whole="---\ntitle: T\n---\nText."),
            {"published_at": "2020-01-02T00:00:00Z"},
        ),
    ],
    "text without a date": [
        draft(page(whole="---\ntitle: T\n---\nText."), "there is no date of publication")
    ],
    "`draft`, `published`, `private`, `password`, `expires` and others; folders of drafts": [
        *(
            draft(page(front), ": imported as a draft")
            for front in ("draft: true", "published: no", "private: 1", "password: x",
                          "expires: 2020-02-02", "status: review")
        ),
        draft(page(name="_drafts/a.md"), "the file is in a folder of drafts"),
    ],
    "folders whose names begin with `_`, except `_posts` and what Jekyll publishes; not in Hugo": [
        draft(page(name="_old/a.md"), "the folder _old is not published"),
        Case(page(name="_posts/a.md"), {"published_at": "2020-01-01T00:00:00Z"}),
        Case(
            page(name="_old/a.md", others={"hugo.toml": ""}),
            {"published_at": "2020-01-01T00:00:00Z"},
        ),
    ],
    "files of Hugo beside an `index.md`, and below it": [
        draft(page(name=name, others={"hugo.toml": "", "posts/index.md": "Text."}), "Hugo does not")
        for name in ("posts/a.md", "posts/b/a.md")
    ],
    "shortcodes and comments around parts for some readers, such as `hugo-encryptor` and "
    "`<!--members-only-->`": [
        draft(page(text=text), "parts of the text were for members only")
        for text in (
            '{{% hugo-encryptor "x" %}}\nText.\n{{% /hugo-encryptor %}}',
            "Text.\n\n<!--members-only-->\n\nText.",
        )
    ],
    "configuration that hides texts: `defaults`, `exclude`, `cascade`, data files": [
        draft(page(others={name: text}), ": imported as a draft")
        for name, text in (
            ("_config.yml", "defaults: [{scope: {path: posts}, values: {published: false}}]"),
            ("_config.yml", "exclude: [posts/]"),
            ("hugo.toml", "[cascade]\ndraft = true"),
            ("posts/_index.md", "---\ncascade: {draft: true}\n---\n"),
            ("posts/posts.json", '{"draft": true}'),
            ("posts/posts.11tydata.js", "module.exports = {draft: process.env.X}"),
        )
    ],
    "tags and categories": [Case(page("tags: [a]\ncategories: [b]"), {"tags": ["a", "b"]})],
    "cover, its alternative text and caption": [
        Case(
            page("cover: {image: /c.jpg, alt: A, caption: B}"),
            {"cover_image_url": "/c.jpg", "imported": {"cover_alt": "A", "cover_caption": "B"}},
        )
    ],
    "author of the text or of the site": [
        Case(page("author: Ann"), {"author": "Ann"}),
        Case(page(others={"hugo.toml": "[params]\nauthor = 'Ann'"}), {"author": "Ann"}),
    ],
    "language in the front matter, the configuration, or the name (`post.fr.md`)": [
        Case(page("lang: fr"), {"language": "fr"}),
        Case(page(others={"hugo.toml": "languageCode = 'fr'"}), {"language": "fr"}),
        Case(page(name="posts/a.fr.md", others={"posts/a.md": "Text."}), {"language": "fr"}),
    ],
    "`permalink`, `aliases`, `redirect_from`, `_redirects`": [
        Case(page("permalink: /x/"), {"old_paths": ["/x/", "/posts/a/"]}),
        Case(page("aliases: [/x/]"), {"old_paths": ["/x/", "/posts/a/"]}),
        Case(page("redirect_from: /x/"), {"old_paths": ["/x/", "/posts/a/"]}),
        Case(
            page(others={"static/_redirects": "/x /posts/a/ 301\n/b/* /c/:splat\n"}),
            {"old_paths": ["/posts/a/", "/x"]},
            counted=[PATTERNS],
        ),
    ],
    "`featured`, `pinned`, `sticky`": [
        Case(page(f"{name}: true"), {"imported": {"featured": True}})
        for name in ("featured", "pinned", "sticky")
    ],
    "`comments: false`": [Case(page("comments: false"), {"comment_policy": "closed"})],
    "all other fields": [
        Case(page("mood: calm"), {"imported": {"front_matter": {"mood": "calm"}}})
    ],
    "pages of sections, templates, `.html` without front matter, other formats such as `.rst`": [
        Case(page(others={name: "a\n"}), counted=[kind])
        for name, kind in (
            ("posts/_index.md", "section pages"),
            ("_layouts/post.html", "files of themes and templates"),
            ("old.html", ".html files without front matter"),
            ("notes.rst", ".rst files"),
        )
    ],
    "comments in data files (Staticman)": [
        Case(page(others={"_data/comments/a/1.yml": "b: c"}), counted=["comments in data files"])
    ],
}  # fmt: skip

TABLES = {"Texts": TEXTS, "WordPress": WORDPRESS, "Ghost": GHOST, "Static sites": SITES}


@pytest.mark.checkout
def test_every_row_has_cases() -> None:
    tables = PAGE.read_text().partition("\n## What is kept, changed and dropped\n")[2]
    sections = (part.partition("\n") for part in tables.split("\n### ")[1:])
    rows = {title: dict(ROW.findall(text)) for title, _, text in sections}
    assert {title: list(found) for title, found in rows.items()} == {
        title: list(cases) for title, cases in TABLES.items()
    }
    for title, found in rows.items():
        for row, result in found.items():
            if result == "dropped":
                cases = TABLES[title][row]
                assert all(case.lacks or case.counted or case.problem for case in cases), row


@pytest.mark.parametrize(
    ("table", "row"), [(table, row) for table, rows in TABLES.items() for row in rows]
)
def test_row_is_true(write: Write, table: str, row: str) -> None:
    for number, case in enumerate(TABLES[table][row]):
        found = case.source(below(write, f"case {number}"))
        assert case.problem in found.problem
        assert bool(case.problem) == bool(found.problem)
        assert {name: found.fields.get(name) for name in case.fields} == case.fields
        assert case.text in found.fields.get("content", "")
        assert not case.note or any(case.note in note for note in found.notes), found.notes
        assert set(case.counted) <= set(found.counted)
        stored = json.dumps(found.fields)
        assert [part for part in case.lacks if part in stored] == []
