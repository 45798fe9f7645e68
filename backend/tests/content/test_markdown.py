"""Markdown rendering: output, safety and cost.

xss.txt contains XSS vectors, separated by lines of %%. Two HTML parsers check their output.
"""

import asyncio
import random
import re
import signal
import threading
import time
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from xml.sax.saxutils import escape

import lxml.html
import nh3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lxml import etree
from markdown_it import MarkdownIt

from app.content import markdown
from app.content.markdown import make_excerpt, render, render_comment, render_sync
from app.core.config import get_settings
from app.core.errors import ContentTooComplex, ServiceUnavailable

MEGABYTE = 1_000_000
MAX_COST_RATIO = 4
"""Allowed CPU time of a text, relative to that of ordinary text which uses the whole budget.

The most expensive text is near 1.
"""

VECTORS = (Path(__file__).parent / "xss.txt").read_text("utf-8").split("\n%%\n")

IDS = re.compile(r"h-[a-z0-9-]+|fn-\d+|fnref-\d+(-\d+)?|user-content-.*", re.DOTALL)
CLASSES = re.compile(
    r"language-[a-z0-9][a-z0-9_+#.-]*|highlight|footnote-ref|footnotes|footnotes-list"
    r"|footnote-item|footnote-backref|embed|contains-task-list|task-list-item"
    r"|task-list-item-checkbox|markdown-alert markdown-alert-(note|tip|important|warning|caution)"
    r"|markdown-alert-title"
)
CHECKBOX_ATTRIBUTES = {"type": "checkbox", "class": "task-list-item-checkbox", "disabled": ""}
IFRAME_ATTRIBUTES = {
    "loading": "lazy",
    "referrerpolicy": "strict-origin",
    "allow": "fullscreen; encrypted-media; picture-in-picture",
    "sandbox": "allow-popups allow-presentation allow-same-origin allow-scripts",
}
IFRAME_HOST = "frames.example.org"
PYGMENTS = re.compile(r"[a-z][a-z0-9]{0,2}")
ALIGNMENTS = {"left", "center", "right"}
# Not the lists of the renderer, because a mistake in those must be detected.
ACTIVE_ELEMENT = re.compile(
    r"applet|audio|base|button|embed|form|frame|frameset|link|math|meta|object|portal|script|select"
    r"|style|svg|template|textarea|title|video"
)
ACTIVE_ATTRIBUTE = re.compile(r"on.*|style|srcset|srcdoc|action|formaction|ping|background|.*:.*")
SCHEMES = frozenset({"http", "https", "mailto", "tel"})
ALLOWED_ATTRIBUTES = {
    element: (markdown.ATTRIBUTES.get(element, set()) | {"dir", "lang", "title", "id", "class"})
    for element in markdown.ELEMENTS
}
REL = 'rel="noopener noreferrer nofollow"'
ALLOWED_ATTRIBUTES["a"] |= {"rel", "data-embed"}
ALLOWED_ATTRIBUTES["wbr"] -= markdown.ATTRIBUTES["wbr"]
ALLOWED_ATTRIBUTES["input"] = {*CHECKBOX_ATTRIBUTES, "checked"}
ALLOWED_ATTRIBUTES["iframe"] = {*IFRAME_ATTRIBUTES, "src", "title"}
ALLOWED_ATTRIBUTES["td"] |= {"align"}
ALLOWED_ATTRIBUTES["th"] |= {"align"}


# --------------------------------------------------------------------------------------- safety


@pytest.fixture(autouse=True, scope="module")
def allow_one_iframe_host() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        settings = get_settings().model_copy(update={"iframe_hosts": [IFRAME_HOST]})
        patch.setattr(markdown, "get_settings", lambda: settings)
        yield


def assert_allowed_element(name: str, attributes: dict[str, str]) -> None:
    if name == "input":
        assert {**attributes, "checked": ""} == {**CHECKBOX_ATTRIBUTES, "checked": ""}
        return
    if name == "iframe":
        assert re.fullmatch(rf"https://{IFRAME_HOST}(/[^\s\"'<>\\]*)?", attributes["src"])
        assert attributes == {**IFRAME_ATTRIBUTES, "src": attributes["src"], "title": IFRAME_HOST}
        return
    assert name in markdown.ELEMENTS, name
    assert not ACTIVE_ELEMENT.fullmatch(name), name
    for attribute, value in attributes.items():
        assert attribute in ALLOWED_ATTRIBUTES[name], (name, attribute)
        assert not ACTIVE_ATTRIBUTE.fullmatch(attribute), (name, attribute)
        if attribute == "id":
            assert IDS.fullmatch(value), value
        elif attribute == "class":
            assert (PYGMENTS if name == "span" else CLASSES).fullmatch(value), value
        elif attribute == "data-embed":
            assert value in {"youtube", "vimeo", "video", "audio"}
        elif attribute == "align":
            assert value in ALIGNMENTS
        elif attribute in {"href", "src"}:
            # Browsers remove surrounding control characters, and tabs and line breaks inside.
            # https://url.spec.whatwg.org/#concept-basic-url-parser
            url = re.sub(r"[\t\r\n]", "", value).strip("".join(map(chr, range(33))))
            scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]*):", url)
            assert scheme is None or scheme[1].lower() in SCHEMES, value
    if name == "a":
        assert attributes["rel"] == "noopener noreferrer nofollow"


class HtmlChecker(HTMLParser):
    """Checks HTML with html.parser, which repairs invalid HTML differently than libxml2."""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs)
        assert_allowed_element(tag, {name: value or "" for name, value in attrs})

    handle_startendtag = handle_starttag

    def handle_comment(self, data: str) -> None:
        pytest.fail(f"a comment: {data}")

    def handle_decl(self, decl: str) -> None:
        self.handle_comment(decl)

    handle_pi = unknown_decl = handle_comment


@cache
def assert_allowed_html(html: str) -> None:
    tree = lxml.html.fragment_fromstring(html, create_parent="div")
    for element in tree.iterdescendants():
        assert not isinstance(element, etree._Comment | etree._ProcessingInstruction), html
        assert_allowed_element(element.tag, dict(element.attrib))
    checker = HtmlChecker()
    checker.feed(html)
    checker.close()
    assert markdown._NONCE not in html
    etree.fromstring(f"<feed>{escape(html)}</feed>")


FINAL = nh3.Cleaner(
    tags={*markdown.ELEMENTS, "input", "iframe"},
    attributes={name: pairs - {"rel"} for name, pairs in ALLOWED_ATTRIBUTES.items()},
    url_schemes=set(markdown.SCHEMES),
    link_rel="noopener noreferrer nofollow",
)


def assert_stable(html: str) -> None:
    assert FINAL.clean(html) == html


def assert_safe(content: str) -> markdown.Rendered:
    rendered = render_sync(content)
    assert_allowed_html(rendered.html)
    assert_stable(rendered.html)
    assert not any(unicodedata.category(character) in {"Cc", "Cs"} for character in rendered.text)
    assert rendered.text == " ".join(rendered.text.split())
    assert all(f'id="{heading["id"]}"' in rendered.html for heading in rendered.toc)
    assert len({heading["id"] for heading in rendered.toc}) == len(rendered.toc)
    assert (rendered.reading_time > 0) == (rendered.word_count > 0)
    return rendered


def test_vectors_are_unique_and_numerous() -> None:
    assert len(VECTORS) > 250
    assert len(set(VECTORS)) == len(VECTORS)


@pytest.mark.parametrize("vector", VECTORS, ids=range(len(VECTORS)))
def test_attack_is_sanitized(vector: str) -> None:
    assert_safe(vector)


CONTEXTS = [
    "before\n\n{}\n\nafter",
    "before {} after",
    "> {}",
    "- {}",
    "# {}",
    "| {} |\n|---|\n| {} |",
    "*{}*",
    "[{}](/x)",
    "![{}](/x)",
    "[x]({})",
    "[x](/x '{}')",
    "[^1]\n\n[^1]: {}",
    "```{}\nx\n```",
    "<div>\n\n{}\n\n</div>",
    '<p title="{}">x</p>',
    "<div>{}</div>",
    "<svg><style>{}",
    "<math><mtext>{}",
    "<table>{}",
    "<a href=/>{}",
    "- [ ] {}",
    "- [x] > {}",
    "> [!NOTE]\n> {}",
    "> [!TIP]\n> - [ ] {}\n>   > [!CAUTION]\n>   > {}",
    "https://a.b/{}",
    "**中。{}。**中",
    "~{}~",
    "<a id=x name={}>",
    "<iframe src='https://frames.example.org/'>{}</iframe>",
    "<div title='\n\n- [x] {}\n\n<iframe src=\"https://frames.example.org/\"></iframe>\n\n'>",
]


@pytest.mark.parametrize("around", CONTEXTS)
def test_attack_is_sanitized_in_every_context(around: str) -> None:
    """Each vector occurs in every second context, each context with every second vector."""
    for vector in VECTORS[CONTEXTS.index(around) % 2 :: 2]:
        assert_safe(around.replace("{}", vector))


def test_combined_attacks_are_sanitized() -> None:
    rng = random.Random(4)
    for _ in range(500):
        first, second = rng.sample(VECTORS, 2)
        with suppress(ContentTooComplex):
            assert_safe(rng.choice(["{}{}", "{}\n{}", "{}\n\n{}"]).format(first, second))


def test_checks_detect_unsafe_html() -> None:
    for html in (
        "<script>alert(1)</script>",
        "<img src=x onerror=alert(1)>",
        '<a href="java\nscript:x" rel="noopener noreferrer nofollow">x</a>',
        '<a href="/">x</a>',
        '<b id="cookie">x</b>',
        '<b class="navbar">x</b>',
        '<p style="color: red">x</p>',
        "<!-- x -->",
    ):
        with pytest.raises((AssertionError, pytest.fail.Exception, KeyError)):
            assert_allowed_html(html)
    with pytest.raises(AssertionError):
        assert_stable("<p><p>x</p></p>")


PIECES = st.sampled_from(
    [
        *"*_~`[]()<>!#|-+=:&\\\"'^\n ",
        "\n\n",
        "a",
        "b c",
        "  \n",
        "    ",
        "\t",
        "> ",
        "- ",
        "1. ",
        "# ",
        "```",
        "~~~js\n",
        "|-|-|\n",
        "| a | b |\n",
        "[^1]",
        "[^1]: ",
        "[a]",
        "[a]: /b 'c'\n",
        "](/x)",
        "![",
        "<b>",
        "</b>",
        "<b a=1>",
        "<p>",
        "</p>",
        "<div>",
        "</div>",
        "<a href='/'>",
        "</a>",
        "<table>",
        "<tr><td>",
        "</table>",
        "<svg>",
        "</svg>",
        "<math>",
        "<mi>",
        "<style>",
        "</style>",
        "<title>",
        "<select>",
        "<button>",
        "<template>",
        "<ruby><rt>",
        "<ul><li>",
        "<details><summary>",
        "<!--",
        "-->",
        "<img alt='x' src=y>",
        "<br>",
        "&lt;",
        "&#0;",
        "&amp;amp;",
        "<http://a.b>",
        "http://a.b/",
        "www.a.b",
        "a@b.c",
        "mailto:",
        "https://youtu.be/abcdefghijk",
        "https://a.b/c.mp4",
        "- [ ] ",
        "1. [x] ",
        "> [!NOTE]\n",
        "> [!CAUTION]",
        "<a id=x>",
        "<a name='y z'>",
        "[x](#y)",
        "[x](tel:1)",
        "<input type=checkbox checked>",
        "<iframe src='https://frames.example.org/x'></iframe>",
        "<iframe src='//youtube.com/embed/abcdefghijk'></iframe>",
        "<iframe",
        "</iframe>",
        "<wbr>",
        "**。",
        "。**",
        "（",
        "한",
        "\u3000",
        "\ufe00",
        "\x00",
        "\ud800",
        "\u202e",
        "你好",
        "ไทย",
        "🙂",
        "e\u0301",
    ]
)


@settings(max_examples=200)
@given(st.lists(PIECES, max_size=40).map("".join) | st.text(max_size=300))
def test_arbitrary_text_is_rendered_safely(content: str) -> None:
    with suppress(ContentTooComplex):
        assert_safe(content)


# ------------------------------------------------------------------------------------- features


KBD = '<p>a <kbd id="user-content-z">b</kbd> c<br>d</p>'


@pytest.mark.parametrize(
    ("content", "html"),
    [
        ("*em* **strong** ~~gone~~", "<p><em>em</em> <strong>strong</strong> <s>gone</s></p>"),
        ("`a < b` \\* &copy;", "<p><code>a &lt; b</code> * ©</p>"),
        ("one  \ntwo\nthree", "<p>one<br>\ntwo\nthree</p>"),
        (
            "[x](https://a.b/c?d=e&f 'T') <me@a.b>",
            (
                f'<p><a href="https://a.b/c?d=e&amp;f" title="T" {REL}>x</a> '
                f'<a href="mailto:me@a.b" {REL}>me@a.b</a></p>'
            ),
        ),
        ("![*alt* `x`](/i.png)", '<p><img src="/i.png" alt="alt x"></p>'),
        ("![x](data:image/png;base64,AA)", '<p><img alt="x"></p>'),
        ("- a\n  1. b", "<ul>\n<li>a\n<ol>\n<li>b</li>\n</ol>\n</li>\n</ul>"),
        ("3. c", '<ol start="3">\n<li>c</li>\n</ol>'),
        ("> q", "<blockquote>\n<p>q</p>\n</blockquote>"),
        (
            "|a|b|\n|:-:|--:|\n|1|2|",
            (
                '<table>\n<thead>\n<tr>\n<th align="center">a</th>\n<th align="right">b</th>\n'
                '</tr>\n</thead>\n<tbody>\n<tr>\n<td align="center">1</td>\n'
                '<td align="right">2</td>\n</tr>\n'
                "</tbody>\n</table>"
            ),
        ),
        ("    a <b>\n", "<pre><code>a &lt;b&gt;\n</code></pre>"),
        ("```\na <b>\n```", "<pre><code>a &lt;b&gt;\n</code></pre>"),
        (
            "```mermaid\na --> b\n```",
            '<pre><code class="language-mermaid">a --&gt; b\n</code></pre>',
        ),
        (
            "```Py title=x\nx = 1\n```",
            (
                '<pre class="highlight"><code class="language-py"><span class="n">x</span> '
                '<span class="o">=</span> <span class="mi">1</span>\n</code></pre>'
            ),
        ),
        ("```{1,3}\nx\n```", "<pre><code>x\n</code></pre>"),
        (
            "<details><summary>S</summary>\n\n*m*\n\n</details>",
            "<details><summary>S</summary>\n<p><em>m</em></p>\n</details>",
        ),
        ("a <kbd onclick=x class=y id=z>b</kbd> c<br/>d", KBD),
        ("<center>kept</center>", "kept"),
        ("~one~ ~~two~~ ~~~three~~~ ~~a~", "<p><s>one</s> <s>two</s> ~~~three~~~ ~~a~</p>"),
        ("mc<sup>2</sup> H<sub>2</sub>O", "<p>mc<sup>2</sup> H<sub>2</sub>O</p>"),
        (
            "[call](tel:+49123) [write](mailto:a@b.c?subject=x)",
            (
                f'<p><a href="tel:+49123" {REL}>call</a> '
                f'<a href="mailto:a@b.c?subject=x" {REL}>write</a></p>'
            ),
        ),
        ('<input type="checkbox" disabled> <wbr data-checked="yes">', "<p> <wbr></p>"),
    ],
)
def test_markdown_is_rendered_to_html(content: str, html: str) -> None:
    assert render_sync(content).html.strip() == html


def test_footnotes_are_rendered() -> None:
    rendered = assert_safe("One[^b] two[^b].\n\n[^b]: The *note*.\n[^unused]: Nothing.")
    assert rendered.html == (
        '<p>One<sup class="footnote-ref"><a href="#fn-1" id="fnref-1" '
        'rel="noopener noreferrer nofollow">1</a></sup> two<sup class="footnote-ref">'
        '<a href="#fn-1" id="fnref-1-2" rel="noopener noreferrer nofollow">1</a></sup>.</p>\n'
        '<section class="footnotes">\n<ol class="footnotes-list">\n'
        '<li id="fn-1" class="footnote-item"><p>The <em>note</em>. '
        '<a href="#fnref-1" class="footnote-backref" rel="noopener noreferrer nofollow">↩︎</a> '
        '<a href="#fnref-1-2" class="footnote-backref" rel="noopener noreferrer nofollow">↩︎</a>'
        "</p>\n</li>\n</ol>\n</section>\n"
    )
    assert rendered.text == "One two. The note."


def mark_emphasis(text: str) -> str:
    return re.sub(r"</?(strong|em|s)>", lambda tag: "]" if "/" in tag[0] else "[", text)


@pytest.mark.parametrize(
    ("content", "html"),
    [
        ("**重要：**请看。", "[重要：]请看。"),
        ("这是**我想做的事。**所以", "这是[我想做的事。]所以"),
        ("これは**「重要」**です。", "これは[「重要」]です。"),
        ("**굵게(mark_emphasis)**는 것", "[굵게(mark_emphasis)]는 것"),
        ("한*(a)*국", "한[(a)]국"),
        ("中~~（a）~~中", "中[（a）]中"),
        ("中**“a”**中**b**", "中[“a”]中[b]"),
        ("葛\U000e0100**（a）**b", "葛\U000e0100[（a）]b"),
        ("。\ufe00**“a”** b", "。\ufe00[“a”] b"),
        ("**a。**b", "[a。]b"),
        ("𠮷**(a)**𠮷", "𠮷[(a)]𠮷"),
        # CommonMark rules apply: no CJK character is next to the run.
        ("**a.**b", "**a.**b"),
        ("a**(b)**c", "a**(b)**c"),
        ("🙂**(a)**🙂", "🙂[(a)]🙂"),
        ("a**🙂.**b", "a**🙂.**b"),
        ("中 ** a。** b", "中 ** a。** b"),
        ("snake_中_case", "snake_中_case"),
        ("中_a_中", "中_a_中"),
        ("中\u3000**\u3000a**", "中\u3000**\u3000a**"),
    ],
)
def test_emphasis_next_to_cjk_characters(content: str, html: str) -> None:
    assert mark_emphasis(render_sync(content).html).strip() == f"<p>{html}</p>"


@given(
    st.text(st.sampled_from(" *_~ab.(“🙂é—\n"), max_size=30),
)
def test_emphasis_without_cjk_follows_commonmark(content: str) -> None:
    md = markdown.make_parser()
    plain = MarkdownIt("commonmark", {"strikethrough_single_tilde": True, "xhtmlOut": False})
    plain.enable("strikethrough")
    for each in (md, plain):
        each.disable("fence")
    budget = {"budget": markdown._Budget()}
    actual = md.renderer.render(md.parse(content, budget), md.options, budget)
    assert actual == plain.render(content)


def mark_links(html: str) -> str:
    return re.sub(r'<a href="([^"]*)" rel="[^"]*">([^<]*)</a>', r"{\1|\2}", html)


@pytest.mark.parametrize(
    ("content", "html"),
    [
        ("see https://a.b/c.", "see {https://a.b/c|https://a.b/c}."),
        ("HTTP://A.b", "{HTTP://A.b|HTTP://A.b}"),
        ("www.a.b/c?d=e&f", "{http://www.a.b/c?d=e&amp;f|www.a.b/c?d=e&amp;f}"),
        ("(www.a.b)", "({http://www.a.b|www.a.b})"),
        ("(https://a.b/c_(d))", "({https://a.b/c_(d)|https://a.b/c_(d)})"),
        ("https://a.b/c_(d)_e_f", "{https://a.b/c_(d)_e_f|https://a.b/c_(d)_e_f}"),
        ("https://a.b/((c", "{https://a.b/((c|https://a.b/((c}"),
        ("https://a.b?!,:'\"", "{https://a.b|https://a.b}?!,:'\""),
        ("**https://a.b**", "<strong>{https://a.b|https://a.b}</strong>"),
        ("https://a.b/?x=1&copy;", "{https://a.b/?x=1|https://a.b/?x=1}©"),
        ("https://a.b/?x;", "{https://a.b/?x|https://a.b/?x};"),
        ("https://a.b<br>", "{https://a.b|https://a.b}<br>"),
        ("看https://a.b/c，次", "看{https://a.b/c|https://a.b/c}，次"),
        ("http://localhost:8000/", "{http://localhost:8000/|http://localhost:8000/}"),
        ("a_b+c@d-e.fg, x", "{mailto:a_b+c@d-e.fg|a_b+c@d-e.fg}, x"),
        ("mailto:a@b.c!", "{mailto:a@b.c|mailto:a@b.c}!"),
        ("**a@b.c**", "<strong>{mailto:a@b.c|a@b.c}</strong>"),
        *[
            (text, text)
            for text in (
                "www.", "www.a", "wwww.a.b", "http:// a", "http://", "xhttps://a.b", "ftp://a.b",
                "javascript://a.b", "http://a_b.c", "www.a.b_c", "a@b", "a@b.c-", "a@b.c_", "@b.c",
                "a@b@c.d@e.f@", f"{'a' * 65}@b.c", "//www.a.b", f"https://a.b/{'x' * 2000}",
            )
        ],
        (r"http\://a.b www\.a.b a\@b.c", "http://a.b www.a.b a@b.c"),
        ("`www.a.b` `a@b.c`", "<code>www.a.b</code> <code>a@b.c</code>"),
        ("[https://a.b](/c)", "{/c|https://a.b}"),
        ("[a@b.c www.d.e](/c)", "{/c|a@b.c www.d.e}"),
        ("<a href=/>a@b.c www.d.e</a>", "{/|a@b.c www.d.e}"),
        ("<https://a.b> <a@b.c>", "{https://a.b|https://a.b} {mailto:a@b.c|a@b.c}"),
        ("![https://a.b a@b.c](/i)", '<img src="/i" alt="https://a.b a@b.c">'),
    ],
)  # fmt: skip
def test_bare_urls_and_emails_become_links(content: str, html: str) -> None:
    rendered = assert_safe(content)
    assert mark_links(rendered.html) == f"<p>{html}</p>\n"


def test_footnote_after_a_bare_url() -> None:
    html = assert_safe("https://a.b[^1]\n\n[^1]: x").html
    assert html.startswith(f'<p><a href="https://a.b" {REL}>https://a.b</a><sup')


TASK = '<input type="checkbox" class="task-list-item-checkbox" disabled="">'
DONE = TASK[:-1] + ' checked="">'


def test_task_lists_are_rendered() -> None:
    rendered = assert_safe("- [ ] a\n- [x] b\n- [X] *c*\n- [ ]\n- [y] d\n- `[ ]` e")
    assert rendered.html == (
        '<ul class="contains-task-list">\n'
        f'<li class="task-list-item">{TASK} a</li>\n'
        f'<li class="task-list-item">{DONE} b</li>\n'
        f'<li class="task-list-item">{DONE} <em>c</em></li>\n'
        "<li>[ ]</li>\n<li>[y] d</li>\n<li><code>[ ]</code> e</li>\n</ul>\n"
    )
    assert rendered.text == "a b c [ ] [y] d [ ] e"
    loose = assert_safe("1. [ ] a\n\n2. [x] # b\n\n3. [x] > c").html
    assert f"<p>{TASK} a</p>" in loose
    assert f'<h1 id="h-b">{DONE} b</h1>' in loose
    assert f"{DONE} <blockquote>" in loose


@pytest.mark.parametrize("kind", ["note", "tip", "important", "warning", "caution"])
def test_alerts_are_rendered(kind: str) -> None:
    rendered = assert_safe(f"> [!{kind.upper()}]\n> Useful *words*.\n\nMore")
    assert rendered.html == (
        f'<div class="markdown-alert markdown-alert-{kind}">\n'
        f'<p class="markdown-alert-title">{kind.capitalize()}</p>\n'
        "<p>Useful <em>words</em>.</p>\n</div>\n<p>More</p>\n"
    )
    assert rendered.text == "Useful words. More"


def test_quote_with_invalid_marker_is_not_an_alert() -> None:
    for content in ("> [!NOTES]\n> x", "> [!NOTE] x", "> x\n> [!NOTE]", "[!NOTE]"):
        assert "markdown-alert" not in render_sync(content).html


def test_fragment_links_point_to_prefixed_ids() -> None:
    rendered = assert_safe(
        "# Über uns\n\n<a id=\"here\"></a><a href='/' name=there></a><h2 id='on page'>x</h2>\n\n"
        "[1](#here) [2](#there) [3](#über-uns) [4](#h-uber-uns) [5](#nowhere) [6](#fn-1)[^a]\n\n"
        "<a href='#here'>7</a> `<a href=\"#here\"`\n\n[^a]: x"
    )
    assert re.findall(r'<a href="(#[^"]*)"[^>]*>(\d)<', rendered.html) == [
        ("#user-content-here", "1"),
        ("#user-content-there", "2"),
        ("#h-uber-uns", "3"),
        ("#h-uber-uns", "4"),
        ("#nowhere", "5"),
        ("#fn-1", "6"),
        ("#fn-1", "1"),
        ("#user-content-here", "7"),
    ]
    assert '<h2 id="user-content-on page">x</h2>' in rendered.html
    assert '<code>&lt;a href="#here"</code>' in rendered.html


@pytest.mark.parametrize(
    ("url", "provider"),
    [
        ("https://www.youtube.com/watch?v=abcdefghijk&t=3", "youtube"),
        ("https://m.youtube.com/watch?list=x&v=abcdefghijk", "youtube"),
        ("https://youtu.be/abcdefghijk?t=3", "youtube"),
        ("https://www.youtube.com/shorts/abcdefghijk", "youtube"),
        ("https://www.youtube-nocookie.com/embed/abcdefghijk", "youtube"),
        ("https://vimeo.com/12345", "vimeo"),
        ("https://player.vimeo.com/video/12345", "vimeo"),
        ("https://a.b/c/film.MP4?x#t=3", "video"),
        ("http://a.b/c.opus", "audio"),
        ("https://www.youtube.com/@somebody", None),
        ("https://youtube.com.evil.example/watch?v=abcdefghijk", None),
        ("https://evil.example/https://youtu.be/abcdefghijk", None),
        ("https://vimeo.com/about", None),
        ("https://a.b/film.mp4/", None),
        ("https://film.mp4", None),
    ],
)
def test_media_url_in_its_own_paragraph_is_marked(url: str, provider: str | None) -> None:
    escaped = url.replace("&", "&amp;")
    embed, css = (f' data-embed="{provider}"', ' class="embed"') if provider else ("", "")
    paragraph = f'<p{css}><a href="{escaped}"{embed} {REL}>{escaped}</a></p>'
    for content in (url, f"<{url}>", f"a\n\n{url}  \n\nb"):
        assert paragraph in assert_safe(content).html
    for content in (f"See {url}", f"[x]({url})", f"{url}\n{url}", f"- {url}"):
        assert "embed=" not in render_sync(content).html
    assert "embed=" not in render_comment(url)


IFRAMES = [
    ('<iframe src="https://frames.example.org/?b&amp;c" onload=x srcdoc=y></iframe>', "/?b&amp;c"),
    ("<IFRAME\nwidth=3\nsrc = 'https://frames.example.org' allowfullscreen></IFRAME >", ""),
    ("<figure><iframe src='//frames.example.org/'> </iframe></figure>", "/"),
]


@pytest.mark.parametrize(("content", "path"), IFRAMES)
def test_iframe_of_an_allowed_host_is_kept(content: str, path: str) -> None:
    html = assert_safe(f"a\n\n{content}\n\nb").html
    attributes = " ".join(f'{name}="{value}"' for name, value in IFRAME_ATTRIBUTES.items())
    frame = (
        f'<iframe src="https://{IFRAME_HOST}{path}" title="{IFRAME_HOST}" {attributes}></iframe>'
    )
    assert frame in html
    assert html.endswith("<p>b</p>\n")


@pytest.mark.parametrize(
    "content",
    [
        "<iframe src='http://frames.example.org/'></iframe>",
        "<iframe src='https://frames.example.org:444/'></iframe>",
        "<iframe src='https://x@frames.example.org/'></iframe>",
        "<iframe src='https://frames.example.org@evil.example/'></iframe>",
        "<iframe src='https://frames.example.org.evil.example/'></iframe>",
        "<iframe src='https://x.frames.example.org/'></iframe>",
        "<iframe src='https://frames.example.org\\@evil.example/'></iframe>",
        "<iframe src='https://frames.example.org&#9;.evil.example/'></iframe>",
        "<iframe src='/\\frames.example.org/'></iframe>",
        "<iframe src='javascript:alert(1)//https://frames.example.org/'></iframe>",
        "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
        "<iframe src='https://frames.example.org/'><b>x</b></iframe>",
        "<iframe src='https://evil.example/'></iframe>",
        "<p title='<iframe src=\"https://frames.example.org/\"></iframe>'>x</p>",
        "`<iframe src='https://frames.example.org/'></iframe>`",
        "<!-- <iframe src='https://frames.example.org/'></iframe> -->",
        "<script><iframe src='https://frames.example.org/'></iframe></script>",
    ],
)
def test_iframe_of_another_host_is_removed(content: str) -> None:
    assert "<iframe" not in assert_safe(content).html


def test_iframes_are_removed_by_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(markdown, "get_settings", get_settings)
    assert get_settings().iframe_hosts == []
    for content, _ in IFRAMES:
        assert "<iframe" not in render_sync(content).html
    video = render_sync("<iframe src='https://www.youtube.com/embed/abcdefghijk'></iframe>\n\nb")
    assert video.html == (
        '<p class="embed"><a href="https://www.youtube.com/embed/abcdefghijk" data-embed="youtube" '
        f"{REL}>https://www.youtube.com/embed/abcdefghijk</a></p>\n<p>b</p>\n"
    )


def test_comments_support_inline_syntax_only() -> None:
    html = render_comment("- [ ] a\n\n> [!NOTE]\n> ~b~ www.c.d **中。**中\n\n<a id=x>")
    assert html == (
        "<ul>\n<li>[ ] a</li>\n</ul>\n<blockquote>\n<p>[!NOTE]\n"
        f'<s>b</s> <a href="http://www.c.d" {REL}>www.c.d</a> <strong>中。</strong>中</p>\n'
        "</blockquote>\n<p>&lt;a id=x&gt;</p>\n"
    )


def test_headings_form_the_table_of_contents() -> None:
    rendered = assert_safe(
        "# Über *uns*\n\n## `code` & <b>tags</b>\n\nSame\n====\n\n# Same\n\n# same-2\n\n# 2024\n\n"
        "# 你好\n\n# !!!\n\n###\n\n- # In a list\n\n> ###### Six ![alt](/x)\n\n<h2>Raw</h2>"
    )
    assert [tuple(heading.values()) for heading in rendered.toc] == [
        (1, "Über uns", "h-uber-uns"),
        (2, "code & tags", "h-code-tags"),
        (1, "Same", "h-same"),
        (1, "Same", "h-same-2"),
        (1, "same-2", "h-same-2-2"),
        (1, "2024", "h-section-2024"),
        (1, "你好", "h-ni-hao"),
        (1, "!!!", "h-section"),
        (1, "In a list", "h-in-a-list"),
        (6, "Six alt", "h-six-alt"),
    ]
    assert "<h3></h3>" in rendered.html
    assert "<h2>Raw</h2>" in rendered.html


def test_removed_heading_is_not_in_the_table_of_contents() -> None:
    rendered = assert_safe("<video>\n\n# Gone\n\n</video>\n\n# Here")
    assert [heading["text"] for heading in rendered.toc] == ["Here"]


def test_equal_headings_get_unique_ids() -> None:
    rendered = assert_safe("# a\n\n" * 500)
    assert rendered.toc[-1]["id"] == "h-a-500"


@pytest.mark.parametrize(
    ("content", "html"),
    [
        ("Use the <title> tag.\n\nMore", "<p>Use the &lt;title&gt; tag.</p>\n<p>More</p>\n"),
        ("A <script>, <plaintext>\n\nB", "<p>A &lt;script&gt;, &lt;plaintext&gt;</p>\n<p>B</p>\n"),
        ("<video>\n\nGone\n\n</video>\n\nMore", "\n<p>More</p>\n"),
        ("<div><svg>\n</div>\n\nMore", "<div>&lt;svg&gt;\n</div>\n<p>More</p>\n"),
        ("<div><!-- x\n</div>\n\nMore", "<div>&lt;!-- x\n</div>\n<p>More</p>\n"),
        ("A <script>alert(1)</script> b", "<p>A  b</p>\n"),
    ],
)
def test_unclosed_tag_does_not_hide_the_rest(content: str, html: str) -> None:
    assert render_sync(content).html == html


def test_plain_text_has_no_markup() -> None:
    rendered = assert_safe(
        "# A *head*ing\n\nLine\nbroken and **bo**ld.&nbsp;&lt;b&gt; &amp;amp;\n\n- x\n- y\n\n"
        '|c|d|\n|-|-|\n|e|f|\n\n```python\nif a<b: pass\n```\n\n`in line` ![Alt "text"](/x)\n\n'
        "<div title='not <this>'>raw</div>\n\n<script>not()</script>\n\n<!-- nor this -->\n\nA\x07B"
    )
    assert rendered.text == (
        "A heading Line broken and bold. <b> &amp; x y c d e f if a<b: pass in line "
        'Alt "text" raw A\ufffdB'
    )


@pytest.mark.parametrize(
    ("content", "words", "minutes"),
    [
        ("", 0, 0),
        ("…! — 🙂", 0, 0),
        ("one", 1, 1),
        ("don't re-read it", 3, 1),
        ("word " * 230, 230, 1),
        ("word " * 231, 231, 2),
        ("नमस्ते दुनिया", 2, 1),
        ("한국어 문장입니다", 2, 1),
        ("我喜欢写文章", 3, 1),
        ("写Python代码", 3, 1),
        ("字" * 4600, 2300, 10),
        ("これはテストです", 4, 1),
        ("สวัสดีชาวโลก", 3, 1),
        ("![two words](/x)", 2, 1),
    ],
)
def test_word_count_and_reading_time(content: str, words: int, minutes: int) -> None:
    rendered = render_sync(content)
    assert (rendered.word_count, rendered.reading_time) == (words, minutes)


@pytest.mark.parametrize(
    ("text", "excerpt"),
    [
        ("", ""),
        ("short", "short"),
        (" two\n\nlines\t", "two lines"),
        ("a" * 200, "a" * 200),
        ("a" * 201, "a" * 200 + "…"),
        ("word " * 100, "word " * 39 + "word…"),
        ("word, " * 100, "word, " * 32 + "word…"),
        ("字" * 300, "字" * 200 + "…"),
        ("e\u0301" * 300, "e\u0301" * 100 + "…"),
        ("x" + "e\u0301" * 300, "x" + "e\u0301" * 99 + "…"),
        ("x" + "👩\u200d🔬" * 300, "x" + "👩\u200d🔬" * 66 + "…"),
    ],
)
def test_excerpt_is_taken_from_the_text(text: str, excerpt: str) -> None:
    assert make_excerpt(text) == excerpt


@given(st.text(max_size=600))
def test_excerpt_is_one_short_line(text: str) -> None:
    excerpt = make_excerpt(text)
    assert len(excerpt) <= 201
    assert excerpt == " ".join(excerpt.split())


def test_code_that_is_long_or_slow_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "<span" in render_sync("```js\n" + "x = 1\n" * 100 + "```").html
    assert "<span" not in render_sync("```js\n" + "x = 1\n" * 4000 + "```").html
    slow = "```typescript\n" + "A." * 9000 + "\n```\n\n"
    monkeypatch.setattr(markdown, "MAX_HIGHLIGHT_SECONDS", 0.001)
    assert "<span" not in assert_safe(slow * 3).html


def test_every_language_has_a_lexer() -> None:
    for name in markdown.LANGUAGES | set(markdown.ALIASES):
        assert 'class="highlight"' in render_sync(f"```{name}\nx\n```").html, name


# ------------------------------------------------------------------------------------------ cost


def repeat_to(piece: str, size: int = MEGABYTE) -> str:
    return (piece * (size // len(piece) + 1))[:size]


def repeat_numbered(piece: str, count: int) -> str:
    return "".join(piece.replace("#i", str(i)) for i in range(count))


EXPENSIVE: dict[str, Callable[[int], str]] = {
    "quotes": lambda size: repeat_to(">", size),
    "quotes, spaced": lambda size: repeat_to("> ", size),
    "quotes on each line": lambda size: repeat_to(">>>>>>>>>> a\n", size),
    "quotes, increasing depth": lambda size: "\n".join(">" * i + " a" for i in range(1400)),
    "quotes and lazy lines": lambda size: "> " * 500 + repeat_to("a\n", size),
    "quotes, separate": lambda size: repeat_to("> a\n\n", size),
    "lists": lambda size: repeat_to("- ", size),
    "lists, increasing depth": lambda size: "".join("  " * i + "- a\n" for i in range(1000)),
    "a list": lambda size: repeat_to("- a\n", size),
    "numbers": lambda size: repeat_to("1. ", size),
    "alternating lists": lambda size: repeat_to("- a\n+ b\n", size),
    "lists in quotes": lambda size: repeat_to("> - ", size),
    "rules that are lists": lambda size: repeat_to("- ", size) + "a",
    "emphasis": lambda size: repeat_to("*a ", size),
    "emphasis of two kinds": lambda size: repeat_to("*a **a ", size),
    "stars": lambda size: repeat_to("*", size) + "a",
    "emphasis nested": lambda size: "*a " * (size // 6) + "b* " * (size // 6),
    "emphasis nested, small": lambda size: "*a " * 5000 + "b* " * 5000,
    "emphasis that fits": lambda size: repeat_to("*a* ", size),
    "emphasis mixed": lambda size: (
        repeat_to("_a __b *c **d ~~e ", size // 2) + repeat_to("a_ b__ c* d** e~~ ", size // 2)
    ),
    "rule of three": lambda size: repeat_to("a***b**c*d", size),
    "tildes": lambda size: "a " + repeat_to("~~~a", size),
    "brackets": lambda size: repeat_to("[", size),
    "brackets nested": lambda size: repeat_to("[", size // 2) + repeat_to("]", size // 2),
    "images": lambda size: repeat_to("![", size),
    "images nested": lambda size: "![" * (size // 6) + "a" + "](b)" * (size // 6),
    "images nested, small": lambda size: repeat_to("![" * 20 + "a" + "](b)" * 20 + " ", size),
    "links nested": lambda size: "[" * (size // 5) + "a" + "](b)" * (size // 5),
    "links unclosed": lambda size: repeat_to("[a](", size),
    "links with brackets": lambda size: repeat_to("[a](b(", size),
    "links": lambda size: repeat_to("[a](b) ", size),
    "a long link": lambda size: "[a](" + repeat_to("%é&amp;", size) + ")",
    "references": lambda size: repeat_numbered("[#i]: b\n", size // 11),
    "a reference's title": lambda size: "[a]: b '" + repeat_to("c\n", size),
    "references unclosed": lambda size: repeat_to("[a\n", size),
    "references used": lambda size: "[a]: " + "b" * 5000 + "\n\n" + repeat_to("[a] ", size),
    "footnotes": lambda size: repeat_numbered("[^#i]\n\n[^#i]: x\n\n", size // 25),
    "footnotes unused": lambda size: repeat_numbered("[^#i]: x\n", size // 10),
    "footnotes unclosed": lambda size: "[^a]: x\n\n" + repeat_to("[^aaaa", size),
    "footnotes nested": lambda size: repeat_to("[^a]: ", size),
    "a footnote of itself": lambda size: "[^a]\n\n[^a]: " + repeat_to("[^a]", size),
    "inline footnotes": lambda size: repeat_to("^[", size),
    "backticks": lambda size: repeat_to("`", size),
    "backticks, increasing length": lambda size: "".join("`" * i + "a " for i in range(1400)),
    "backticks, odd": lambda size: repeat_to("`a``b", size),
    "code": lambda size: repeat_to("`a` ", size),
    "entities": lambda size: repeat_to("&amp;", size),
    "backslashes": lambda size: repeat_to("\\", size),
    "lines": lambda size: repeat_to("a\n", size),
    "nothing": lambda size: repeat_to("\n", size),
    "spaces": lambda size: "a" + repeat_to(" ", size) + "b",
    "hard breaks": lambda size: repeat_to("a  \n", size),
    "headings": lambda size: repeat_to("# a\n", size),
    "headings with equal ids": lambda size: repeat_numbered("# a-#i\n# a\n", size // 16),
    "a long heading": lambda size: "# " + repeat_to("a ", size),
    "headings underlined": lambda size: repeat_to("a\n=\n", size),
    "columns": lambda size: (
        "|a" * 125_000 + "|\n" + "|-" * 125_000 + "|\n" + "|b" * 125_000 + "|\n"
    ),
    "rows": lambda size: "|a|b|\n|-|-|\n" + repeat_to("|c|d|\n", size),
    "missing cells": lambda size: "|a" * 250 + "|\n" + "|-" * 250 + "|\n" + repeat_to("|b\n", size),
    "tables": lambda size: repeat_to("|a|\n|-|\n\n", size),
    "almost tables": lambda size: repeat_to("-|" * 100 + "\n", size),
    "divs": lambda size: repeat_to("<div>", size),
    "divs, few": lambda size: repeat_to("<div>\n", 50_000),
    "divs and paragraphs": lambda size: (
        repeat_to("<div>\n", 29_000) + "\n" + repeat_to("a\n\n", 60_000)
    ),
    "lists in HTML": lambda size: repeat_to("<ul><li>\n", 40_000),
    "bold": lambda size: repeat_to("<b>a\n\n", size),
    "mark_emphasis with attributes": lambda size: (
        "<div>" + repeat_numbered("<b x#i>", 3000) + repeat_to("<p>a", 20_000)
    ),
    "fonts and paragraphs": lambda size: "<div>" + repeat_numbered("<font x#i><p>", 4000),
    "links and paragraphs in HTML": lambda size: repeat_to("<a><p>", 50_000),
    "incorrectly nested": lambda size: "<div>" + repeat_to("<b><i><p></b></i>", 50_000),
    "tables in HTML": lambda size: repeat_to("<table><tr><td>", 100_000),
    "tables of tables in HTML": lambda size: repeat_to("<table><b>", 50_000),
    "attributes": lambda size: "a <b " + repeat_numbered("x#i ", size // 8) + ">",
    "attributes, few": lambda size: "a <b " + repeat_numbered("x#i ", 9000) + ">",
    "comments unclosed": lambda size: "a " + repeat_to("<!-- ", size),
    "comments closed incorrectly": lambda size: "a " + repeat_to("<!--a ", size) + "--->",
    "instructions": lambda size: "a " + repeat_to("<?", size),
    "tags unclosed": lambda size: "a " + repeat_to('<a b="" ', size),
    "autolinks": lambda size: repeat_to("<http://a>", size),
    "email autolinks": lambda size: "a " + repeat_to("<a@b.c>", size),
    "a long email": lambda size: "<" + "a." * 200 + "@" + repeat_to("a.", size) + ">",
    "fences": lambda size: repeat_to("```\n", size),
    "code to highlight": lambda size: repeat_to("```python\nx=1\n```\n", size),
    "much code to highlight": lambda size: repeat_to("```typescript\n" + "A." * 9990 + "\n```\n"),
    "www": lambda size: repeat_to("www.", size),
    "www, spaced": lambda size: repeat_to("www.a.b ", size),
    "www, long": lambda size: (
        repeat_to("(www.a.b", size // 2) + repeat_to("(www.a.b/" + "x" * 1990 + "\n", size // 2)
    ),
    "schemes": lambda size: repeat_to("http://", size),
    "schemes, spaced": lambda size: repeat_to(" http://", size),
    "schemes and brackets": lambda size: repeat_to("http://((((", size),
    "colons": lambda size: repeat_to("http:", size),
    "bare URLs": lambda size: repeat_to("http://a.b ", size),
    "bare URLs in brackets": lambda size: repeat_to("(http://a.b)", size),
    "bare URLs, unended": lambda size: repeat_to("(http://a", size),
    "bare URLs and entities": lambda size: repeat_to("http://a.b" + "&a;" * 600 + " ", size),
    "a bare URL": lambda size: "http://a.b/" + repeat_to("(", size),
    "a bare URL's end": lambda size: repeat_to("http://a.b/" + ")" * 1900 + " ", size),
    "a host": lambda size: "http://" + repeat_to("a.", size),
    "hosts": lambda size: repeat_to("(http://" + "a." * 900, size),
    "emails": lambda size: repeat_to("a@b.c ", size),
    "emails together": lambda size: repeat_to("a@b.", size),
    "invalid emails": lambda size: repeat_to("a@", size),
    "a local part": lambda size: repeat_to("a.", size) + "@b.c",
    "a domain": lambda size: "a@" + repeat_to("b.", size),
    "mailto": lambda size: repeat_to("mailto:", size),
    "emails and emphasis": lambda size: repeat_to("*a@b.c* ", size),
    "tasks": lambda size: repeat_to("- [ ] a\n", size),
    "tasks in one line": lambda size: repeat_to("- [ ] ", size),
    "tasks nested": lambda size: (
        "".join("  " * i + "- [ ] a\n" for i in range(20)) * (size // 1000)
    ),
    "alerts": lambda size: repeat_to("> [!NOTE]\n\n", size),
    "alerts nested": lambda size: repeat_to("> [!NOTE]\n> ", size),
    "alerts in one line": lambda size: repeat_to("> [!NOTE] ", size),
    "Chinese emphasis": lambda size: repeat_to("**中", size),
    "Chinese emphasis and punctuation": lambda size: repeat_to("中**。**", size),
    "separate tildes": lambda size: repeat_to("~a ", size),
    "videos": lambda size: repeat_to("https://youtu.be/abcdefghijk\n\n", size),
    "URLs similar to videos": lambda size: repeat_to("https://a.b/" + ".mp4" * 480 + "x\n\n", size),
    "video URLs with long queries": lambda size: repeat_to(
        "<https://youtube.com/watch?" + "a&" * 900 + ">\n\n", size
    ),
    "iframes": lambda size: repeat_to(
        "<iframe src='https://frames.example.org/'></iframe>\n\n", size
    ),
    "iframes in one block": lambda size: repeat_to(
        "<iframe src='//frames.example.org/'></iframe>\n", size
    ),
    "iframes unclosed": lambda size: repeat_to("<iframe ", size),
    "iframes and quotes": lambda size: repeat_to("<iframe '\" ", size),
    "iframes with words": lambda size: repeat_to(
        "<iframe " + "src = " * 1000 + "></iframe>\n\n", size
    ),
    "anchors": lambda size: repeat_numbered("<a id=a#i></a>\n\n", 9000),
    "anchors by name": lambda size: repeat_to("<a b name=", size),
    "anchors with spaces": lambda size: repeat_to("<a" + " " * 500, size),
    "links to headings": lambda size: "# b\n\n" + repeat_to("[a](#bé) ", size),
    "zeros": lambda size: repeat_to("a\x00\n", size),
    "combining": lambda size: "a" + repeat_to("\u0301", size // 2),
    "punctuation": lambda size: repeat_to("!#$%&'()*+,-./:;<=>?@[\\]^_`{|}~", size),
    "random characters": lambda size: "".join(
        random.Random(7).choices("*_`[]()!<>~^#-+|\\&:\n ab\"'", k=size)
    ),
}


ORDINARY = """## A heading

Some words that are *about* something, and
[a link](https://a.b/c) to it.

- one
- two `code`

```js
let x = 1;
```

"""


@cache
def seconds_of_whole_budget() -> float:
    """Return the CPU time of ordinary text that uses the whole budget."""
    work = markdown._Budget()
    started = time.thread_time()
    markdown._render(ORDINARY * 200, work)
    return (time.thread_time() - started) * markdown.BUDGET / (markdown.BUDGET - work.left)


def render_or_reject(
    content: str, *, steps: int = markdown.BUDGET
) -> tuple[float, markdown.Rendered | None]:
    """Return the CPU seconds of rendering `content`, and the result unless it is rejected."""
    started, rendered = time.thread_time(), None
    with time_limit(), suppress(ContentTooComplex):
        rendered = markdown._render(content, markdown._Budget(steps))
    return time.thread_time() - started, rendered


def render_within_limit(content: str, *, share: float = 1.0) -> markdown.Rendered | None:
    """Render `content`, or return None if it is rejected.

    Fail if this takes more than `share` of the allowed CPU time in three attempts.
    """
    for _ in range(3):
        seconds, rendered = render_or_reject(content)
        if seconds < MAX_COST_RATIO * share * seconds_of_whole_budget():
            return rendered
    pytest.fail("the rendering takes too long")


@contextmanager
def time_limit() -> Iterator[None]:
    """Raise TimeoutError after five minutes. Quadratic code would take hours."""

    def stop(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 300)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def render_cheaply(make: Callable[[int], str], size: int) -> markdown.Rendered | None:
    """Render a 64th and a 16th of a text, or the whole if that appears to be too expensive.

    Each part has its share of the budget. The time of the whole is calculated on the assumption
    that it has a linear and a quadratic component. Some texts do not depend on `size`.
    """
    whole, small, large = make(size), make(size // 64), make(size // 16)
    if large == whole:
        return render_within_limit(whole)
    for _ in range(2):
        (low, low_cost, _), (high, high_cost, rendered) = (
            cost_per_share(part, len(part) / len(whole), rounds=rounds)
            for part, rounds in ((small, 2), (large, 1))
        )
        growth = max(high_cost - low_cost, 0) / (high - low)
        if high_cost + growth * (1 - high) < MAX_COST_RATIO * seconds_of_whole_budget():
            return rendered
    return render_within_limit(whole)


def cost_per_share(
    content: str, share: float, *, rounds: int
) -> tuple[float, float, markdown.Rendered | None]:
    """Return `share`, the CPU seconds of rendering divided by it, and the result.

    The first round may fill caches, which makes it slower than the following ones.
    """
    results = [render_or_reject(content, steps=int(share * markdown.BUDGET)) for _ in range(rounds)]
    return share, min(seconds for seconds, _ in results) / share, results[-1][1]


@pytest.mark.no_cover
@pytest.mark.parametrize("kind", EXPENSIVE)
def test_expensive_text_is_rendered_in_time_or_rejected(kind: str) -> None:
    rendered = render_cheaply(EXPENSIVE[kind], MEGABYTE)
    if rendered is not None and len(rendered.html) < 3 * MEGABYTE:
        assert_stable(rendered.html)


@pytest.mark.parametrize("kind", ["stars", "tildes", "columns", "fonts and paragraphs"])
def test_expensive_step_is_rejected_before_it_runs(kind: str) -> None:
    assert render_within_limit(EXPENSIVE[kind](MEGABYTE), share=0.1) is None


@pytest.mark.no_cover
@pytest.mark.parametrize("seed", range(30))
def test_random_punctuation_is_rendered_in_time_or_rejected(seed: int) -> None:
    rng = random.Random(seed)
    pieces = ["".join(rng.choices("*_`[]()!<>~^#-+|\\&:\n a\"'=1.", k=4)) for _ in range(3)]
    size = rng.choice([20_000, 100_000, MEGABYTE])
    render_cheaply(lambda size: "".join(repeat_to(piece, size // 3) for piece in pieces), size)


def test_long_ordinary_text_is_rendered() -> None:
    paragraph = "Some words that are *about* something, and\n[a link](https://a.b/c) to it.\n" * 4
    section = f"## A heading\n\n{paragraph}\n- one\n- two `code`\n\n```js\nlet x = 1;\n```\n\n"
    assert_safe(section * 40)
    plain = ("Plain words about a thing. " * 20 + "\n\n") * 180
    for content in (section * 40, plain):  # a tenth of the text with a tenth of the budget
        markdown._render(content, markdown._Budget(markdown.BUDGET // 10))
    assert render_sync(plain).word_count == 18_000


def test_nesting_is_limited() -> None:
    assert "deep" in render_sync("> " * 40 + "deep").text
    lists = "".join("  " * i + "- deep\n" for i in range(21))
    assert render_sync(lists[: lists.rindex(" " * 40)]).text.count("deep") == 20
    with pytest.raises(ContentTooComplex):
        render_sync(lists)
    with pytest.raises(ContentTooComplex):
        render_sync("> " * 41 + "deep")
    with pytest.raises(ContentTooComplex):
        render_sync("<span>" * 101 + "deep")
    with pytest.raises(ContentTooComplex):
        render_sync("*a " * 101 + "b* " * 101)


def test_cost_is_deterministic() -> None:
    content = "*a* [b](c) " * 200
    spent = set()
    for _ in range(3):
        budget = markdown._Budget()
        markdown._render(content, budget)
        spent.add(budget.left)
    assert len(spent) == 1


# ------------------------------------------------------------------------------------- threads


async def test_long_text_is_rendered_in_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[str] = []
    original = markdown._render

    def record_thread(content: str, budget: markdown._Budget) -> markdown.Rendered:
        threads.append(threading.current_thread().name)
        return original(content, budget)

    monkeypatch.setattr(markdown, "_render", record_thread)
    for content in ("short", "a " * 24_000, "é" * 24_000):
        assert await render(content) == original(content, markdown._Budget())
    assert set(threads) == {"MainThread"}
    threads.clear()
    for content in ("a " * 26_000, "é" * 26_000, "*" * 6000):
        assert await render(content) == original(content, markdown._Budget())
    assert len(threads) == 3
    assert all(name.startswith("rendering") for name in threads)


async def test_event_loop_is_not_blocked() -> None:
    content = "Some *words* and `code` and a [link](https://a.b/c).\n\n" * 1000
    rendering = asyncio.create_task(render(content))
    turns = 0
    while not rendering.done():
        await asyncio.sleep(0)
        turns += 1
    assert (await rendering).word_count == 7_000
    assert turns > 10


async def test_exception_is_raised_from_the_thread() -> None:
    with pytest.raises(ContentTooComplex):
        await render("> " * 100_000)


async def test_waiting_texts_are_limited() -> None:
    content = "a " * 30_000
    results = await asyncio.gather(
        *(render(content) for _ in range(markdown.MAX_QUEUED + 3)), return_exceptions=True
    )
    refused = [result for result in results if isinstance(result, ServiceUnavailable)]
    assert len(refused) == 3
    assert sum(isinstance(result, markdown.Rendered) for result in results) == markdown.MAX_QUEUED
    assert (await render(content)).word_count == 30_000


def test_rendering_is_thread_safe() -> None:
    contents = [
        f"# Head {i}\n\n*a* [b][{i}] [^{i}]\n\n[{i}]: /{i}\n[^{i}]: note {i}\n\n```py\nx={i}\n```\n"
        for i in range(50)
    ]
    alone = [render_sync(content) for content in contents]
    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(render_sync, contents)) == alone
