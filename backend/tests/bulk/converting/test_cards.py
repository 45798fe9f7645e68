# ruff: noqa: E501 - long lines of input are easier to compare
"""Ghost's posts: cards in HTML, Lexical and Mobiledoc."""

import json
from typing import Any

import pytest

from app.services.bulk.converting.documents import (
    from_ghost_html,
    from_ghost_markdown,
    from_lexical,
    from_mobiledoc,
)
from app.services.bulk.converting.results import Context, Converted, InvalidDocument

CONTEXT = Context(site="https://old.example/")

Node = dict[str, Any]


def lexical(*nodes: Node) -> Converted:
    return from_lexical(json.dumps({"root": {"children": nodes}}), CONTEXT)


def mobiledoc(name: str, payload: Node) -> Converted:
    document = {"cards": [[name, payload]], "sections": [[10, 0]], "markups": [], "atoms": []}
    return from_mobiledoc(json.dumps(document), CONTEXT)


def text(words: str, form: int = 0) -> Node:
    return {"type": "extended-text", "text": words, "format": form}


def block(kind: str, *children: Node, **more: Any) -> Node:
    return {"type": kind, "children": list(children), **more}


PLAYER = (
    '<div class="kg-video-player"><span class="kg-video-current-time">0:00</span>'
    '<button class="kg-video-playback-rate">1x</button></div>'
)


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        (
            (
                '<figure class="kg-card kg-bookmark-card kg-card-hascaption"><a class='
                '"kg-bookmark-container" href="https://a.example/b"><div class="kg-bookmark-content">'
                '<div class="kg-bookmark-title">Title</div><div class="kg-bookmark-description">About'
                '</div><div class="kg-bookmark-metadata"><img class="kg-bookmark-icon" src="/i.png">'
                '<span class="kg-bookmark-author">x</span></div></div><div class="kg-bookmark-thumbnail">'
                '<img src="/t.png"></div></a><figcaption>cap</figcaption></figure>'
            ),
            "<figure>\n\n[Title](https://a.example/b)\\\nAbout\n\n<figcaption>cap</figcaption>\n</figure>",
        ),
        (
            (
                '<div class="kg-card kg-file-card"><a class="kg-file-card-container" href="/f.pdf"><div '
                'class="kg-file-card-contents"><div class="kg-file-card-title">The file</div><div class='
                '"kg-file-card-caption">About</div><div class="kg-file-card-metadata"><div class='
                '"kg-file-card-filename">f.pdf</div><div class="kg-file-card-filesize">1 KB</div></div>'
                '</div><div class="kg-file-card-icon"><svg></svg></div></a></div>'
            ),
            "[The file](/f.pdf)\\\nAbout\\\nf.pdf",
        ),
        (
            (
                '<figure class="kg-card kg-video-card"><div class="kg-video-container"><video src='
                f'"__GHOST_URL__/content/media/v.mp4"></video>{PLAYER}</div></figure>'
            ),
            "https://old.example/content/media/v.mp4",
        ),
        (
            (
                '<div class="kg-card kg-audio-card"><img src="" alt="audio-thumbnail" class="kg-audio-hide">'
                '<div class="kg-audio-player-container"><audio src="/a.mp3"></audio><div class='
                '"kg-audio-title">A song</div><div class="kg-audio-player"><span>0:00</span></div></div></div>'
            ),
            "A song\n\n[a.mp3](/a.mp3)",
        ),
        (
            (
                '<div class="kg-card kg-toggle-card"><div class="kg-toggle-heading"><h4 class='
                '"kg-toggle-heading-text">Why?</h4><button class="kg-toggle-card-icon"><svg></svg></button>'
                '</div><div class="kg-toggle-content"><p>Because.</p></div></div>'
            ),
            "<details>\n<summary>Why?</summary>\n\nBecause.\n\n</details>",
        ),
        (
            (
                '<div class="kg-card kg-callout-card"><div class="kg-callout-emoji">💡</div><div class='
                '"kg-callout-text">Look <a href="/x">here</a></div></div>'
            ),
            "> 💡 Look [here](/x)",
        ),
        (
            '<div class="kg-card kg-product-card"><div class="kg-product-card-container"><img src='
            '"/p.png"><h4 class="kg-product-card-title">Thing</h4><div class="kg-product-card-rating">'
            + '<span class="kg-product-card-rating-active kg-product-card-rating-star"></span>'
            * 4
            + '<span class="kg-product-card-rating-star"></span></div><div class='
            '"kg-product-card-description"><p>Good.</p></div><a href="/buy" class='
            '"kg-product-card-button"><span>Buy</span></a></div></div>',
            "![](/p.png)\n\n#### Thing\n\n★★★★☆\n\nGood.\n\n[Buy](/buy)",
        ),
        (
            '<div class="kg-card kg-button-card"><a href="/x" class="kg-btn">Go</a></div>',
            "[Go](/x)",
        ),
        (
            (
                '<div class="kg-card kg-signup-card"><h2 class="kg-signup-card-heading">Join</h2><form '
                '><input type="email"><button>Subscribe</button></form></div>'
            ),
            "Join",
        ),
        (
            (
                '<figure class="kg-card kg-gallery-card"><div class="kg-gallery-container"><div><img src='
                '"/1.png" alt="a"></div><div><img src="/2.png" alt="b"></div></div><figcaption>c'
                "</figcaption></figure>"
            ),
            "<figure>\n\n![a](/1.png)\n\n![b](/2.png)\n\n<figcaption>c</figcaption>\n</figure>",
        ),
        (
            (
                '<div class="kg-card kg-header-card" style="background-image: url(/b.png)"><h2>Head</h2>'
                "<p>Sub</p></div>"
            ),
            "![](/b.png)\n\n## Head\n\nSub",
        ),
        (
            (
                '<figure class="kg-card kg-embed-card"><iframe src="https://player.vimeo.com/video/1">'
                "</iframe></figure>"
            ),
            "https://vimeo.com/1",
        ),
        (
            (
                '<p>a<sup class="footnote-ref"><a href="#fn1" id="fnref1">[1]</a></sup></p><hr class='
                '"footnotes-sep"><section class="footnotes"><ol><li id="fn1"><p>b <a href="#fnref1">↩︎</a>'
                "</p></li></ol></section>"
            ),
            "a[^1]\n\n[^1]: b",
        ),
    ],
)
def test_card_in_html_is_reduced_to_its_content(html: str, expected: str) -> None:
    assert from_ghost_html(html, CONTEXT).markdown == expected


CARDS: list[tuple[str, Node, str]] = [
    (
        "image",
        {"src": "/a.png", "alt": "a", "caption": "<b>c</b>", "href": "/b"},
        "<figure>\n\n[![a](/a.png)](/b)\n\n<figcaption><strong>c</strong></figcaption>\n</figure>",
    ),
    ("gallery", {"images": [{"src": "/1.png"}, {"src": "/2.png"}, 3]}, "![](/1.png)\n\n![](/2.png)"),
    ("codeblock", {"code": "\n  a ``` <b>", "language": "sh"}, "```sh\n  a ``` <b>\n```"),
    ("code", {"code": "```\nx"}, "````\n```\nx\n````"),
    ("html", {"html": "<p>a <i>b</i></p>"}, "a *b*"),
    ("horizontalrule", {}, "---"),
    ("bookmark", {"url": "https://a.example/", "title": "T", "description": "D"}, "[T](https://a.example/)\\\nD"),
    ("bookmark", {"metadata": {"url": "/x", "title": "T"}}, "[T](/x)"),
    ("embed", {"url": "https://youtu.be/abcdefghijk", "html": "<x>"}, "https://www.youtube.com/watch?v=abcdefghijk"),
    ("embed", {"html": "<blockquote><a href='/t'>tweet</a></blockquote><script></script>"}, "> [tweet](/t)"),
    ("video", {"src": "__GHOST_URL__/v.mp4"}, "https://old.example/v.mp4"),
    ("audio", {"src": "/a.mp3", "title": "A"}, "A\n\n[a.mp3](/a.mp3)"),
    ("file", {"src": "/f.pdf", "fileTitle": "F", "fileName": "f.pdf"}, "[F](/f.pdf)\\\nf.pdf"),
    ("toggle", {"heading": "H", "content": "<p>c</p>"}, "<details>\n<summary>H</summary>\n\nc\n\n</details>"),
    ("callout", {"calloutEmoji": "!", "calloutText": "<p>a</p><p>b</p>"}, "> ! a\n>\n> b"),
    ("button", {"buttonText": "B", "buttonUrl": "/b"}, "[B](/b)"),
    (
        "product",
        {"productTitle": "P", "productDescription": "<p>d</p>", "productRatingEnabled": True,
         "productStarRating": 3, "productButtonEnabled": True, "productButton": "Buy", "productUrl": "/b"},
        "#### P\n\n★★★☆☆\n\nd\n\n[Buy](/b)",
    ),
    ("header", {"header": "H", "subheader": "S", "buttonEnabled": True, "buttonText": "B", "buttonUrl": "/b"},
     "## H\n\nS\n\n[B](/b)"),
    ("call-to-action", {"textValue": "<p>t</p>", "showButton": True, "buttonText": "B", "buttonUrl": "/b"}, "t\n\n[B](/b)"),
    ("signup", {"header": "H"}, "H"),
    ("before-after", {"beforeImage": {"src": "/1.png"}, "afterImage": {"src": "/2.png"}}, "![](/1.png)\n\n![](/2.png)"),
    ("markdown", {"markdown": "*a*\n\n| x |\n"}, "*a*\n\n| x |"),
    ("markdown", {"markdown": "```\nopen <b>"}, "```\nopen <b>\n```"),
    ("email", {"html": "<p>x</p>"}, ""),
    ("unheard-of", {"url": "https://a.example/x"}, "[https://a.example/x](https://a.example/x)"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "payload", "expected"), CARDS)
def test_card_is_converted(name: str, payload: Node, expected: str) -> None:
    assert lexical({"type": name, **payload}).markdown == expected
    assert mobiledoc(name, payload).markdown == expected


def test_drawings_on_buttons_are_no_loss() -> None:
    icon = '<button class="kg-toggle-card-icon"> <svg><path/></svg></button>'
    assert from_ghost_html(f"<p>a</p>{icon}<p>b</p>").notes == ()
    drawing = from_ghost_html(f"<p>a</p>{icon}<p><svg><path/></svg>b</p>")
    assert (drawing.markdown, len(drawing.notes)) == ("a\n\nb", 1)


def test_markdown_card_does_not_change_what_follows() -> None:
    found = lexical(
        {"type": "markdown", "markdown": "<!-- open"}, block("paragraph", text("after"))
    )
    assert found.markdown == "after"
    after = lexical(
        {"type": "markdown", "markdown": "- a\n"}, block("list", block("listitem", text("b")))
    )
    assert after.markdown == "- a\n\n+ b"


def test_lexical_blocks_and_formats() -> None:
    found = lexical(
        block("extended-heading", text("Head"), tag="h3"),
        block(
            "paragraph",
            text("a "),
            text("bold ", 1),
            text("both", 3),
            text("c*", 16),
            text("2", 64),
        ),
        block("paragraph", text("one"), {"type": "linebreak"}, text("two", 4)),
        block(
            "list",
            block("listitem", text("x"), checked=True),
            block("listitem", block("list", block("listitem", text("y")), listType="bullet")),
            listType="number",
            start=3,
        ),
        block("quote", text("said")),
        block("paragraph", block("link", text("there"), url="https://a.example/")),
        {"type": "unheard-of", "text": 3},
    )
    assert found.markdown == (
        "### Head\n\na **bold** **_both_**`c*`<sup>2</sup>\n\none\\\n~~two~~\n\n"
        "3. [x] x\n   - y\n\n> said\n\n[there](https://a.example/)"
    )
    assert any("unheard-of" in note for note in found.notes)


def test_mobiledoc_is_converted() -> None:
    document = {
        "markups": [["strong"], ["a", ["rel", "x", "href", "https://a.example/"]]],
        "atoms": [["soft-return", "", {}], ["mention", "@b", {}]],
        "cards": [["markdown", {"markdown": "*m*"}], ["hr", {}]],
        "sections": [
            [1, "h2", [[0, [], 0, "Head"]]],
            [1, "p", [[0, [0], 1, "bold"], [1, [], 0, 0], [0, [1], 1, "link"], [1, [], 0, 1]]],
            [1, "aside", [[0, [], 0, "said"]]],
            [3, "ol", [[[0, [], 0, "x"]], [[0, [], 0, "y"]]]],
            [2, "/a.png"],
            [10, 0],
            [10, 1],
        ],
    }
    assert from_mobiledoc(json.dumps(document)).markdown == (
        "## Head\n\n**bold**\\\n[link](https://a.example/)@b\n\n> said\n\n1. x\n2. y\n\n"
        "![](/a.png)\n\n*m*\n\n---"
    )


@pytest.mark.parametrize(
    "document", ["", "[]", "{}", '{"root": 1}', "[" * 10_000, '{"sections": [[10, 5]]}']
)
def test_invalid_documents_are_rejected(document: str) -> None:
    for convert in (from_lexical, from_mobiledoc):
        with pytest.raises(InvalidDocument):
            convert(document)


def test_parts_of_unknown_form_are_left_out() -> None:
    found = lexical(
        text("a"),
        {"type": "paragraph", "children": "none"},
        block("heading", text("b"), tag="h9"),
        block("paragraph", text("c"), {"type": "tab"}, {"type": "zwnj"}, block("mark", text("d"))),
        block("paragraph", block("list", block("listitem", text("e")))),
    )
    assert found.markdown == "a\n\n## b\n\nc d\n\n- e"
    mobiledoc = {"sections": [[1, "p", [[1, [], 0, 7], [0, [], 0, "a"]]], [99, "x"]]}
    assert from_mobiledoc(json.dumps(mobiledoc)).markdown == "a"


def test_deep_nesting_is_rejected() -> None:
    node = text("x")
    for _ in range(120):
        node = block("list", block("listitem", node))
    with pytest.raises(InvalidDocument, match="deeply"):
        lexical(node)


def test_parts_for_members_are_marked() -> None:
    assert from_ghost_html("<p>a</p><!--members-only--><p>b</p>").has_restricted_parts
    assert from_ghost_html("<p>a</p><!-- Members-only --><p>b</p>").has_restricted_parts
    gated = '<!--kg-gated-block:begin nonMember:false memberSegment:"status:paid" --><p>a</p>'
    assert from_ghost_html(gated).has_restricted_parts
    assert not from_ghost_html(gated.replace("false", "true")).has_restricted_parts
    assert lexical({"type": "paywall"}).has_restricted_parts
    visibility = {"web": {"nonMember": False, "memberSegment": ""}}
    assert lexical({"type": "html", "html": "x", "visibility": visibility}).has_restricted_parts
    assert not lexical({"type": "html", "html": "x"}).has_restricted_parts


def test_markdown_of_old_ghost_is_kept() -> None:
    assert (
        from_ghost_markdown("*a* \x00__GHOST_URL__/b", CONTEXT).markdown
        == "*a* https://old.example/b"
    )
