# ruff: noqa: E501 - long lines of input are easier to compare
"""HTML to Markdown: places that the generated documents do not reach, and hostile input."""

from contextlib import suppress
from functools import partial
from random import Random

import pytest

from app.content.markdown import render_sync
from app.services.bulk.converting.addresses import find_addresses
from app.services.bulk.converting.generators import from_site
from app.services.bulk.converting.pages import from_html
from app.services.bulk.converting.posts import from_wordpress
from app.services.bulk.converting.results import TooComplex
from tests.linear import grows_too_fast, run_of


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("<h1>A</h1><p>b</p>", "# A\n\nb"),
        ("<script>alert(1)</script><p>b</p><style>p {}</style>", "b"),
        ("<p>a\x00\x08b\x85\ud800</p>", "ab"),
        ("a<br><br>b<br>c", "a\n\nb\\\nc"),
        ("<div>a<div>b</div>c</div>", "a\n\nb\n\nc"),
        ("<b>a</b><b>b</b> <b> </b> <i></i>c", "**a**__b__ c"),
        ("<b>Note:</b>text", "<strong>Note:</strong>text"),
        ("请看<b>“引号”</b>后面", "请看**“引号”**后面"),
        ("<a href='/x'><h3>T</h3><p>b</p></a>", "### [T](/x)\n\n[b](/x)"),
        ("<a href='data:x'>a</a><a href=' java\nscript:x'>b</a><a>c</a>", "abc"),
        ("<img src='data:image/png;base64,x'><img src='data:,' data-src='/a.png'>", "![](/a.png)"),
        ("<img srcset='/a.png 1x, /b.png 2x'>", "![](/a.png)"),
        ("<a name='here'></a><p>a <a href='#here'>b</a></p>", '<a id="here"></a>a [b](#here)'),
        ("<h2 id='x'>A</h2><a href='#x'>a</a>", '## <a id="x"></a>A\n\n[a](#x)'),
        ("<ul><li>a</li><ul><li>b</li></ul></ul>", "- a\n  - b"),
        ("<ul><li>a<ol start=3><li>b</ol></ul>", "- a\n\n  3. b"),
        ("<ul><li><input type=checkbox checked> a<li><input type=checkbox>b</ul>", "- [x] a\n- [ ] b"),
        ("<ul><li><hr></ul>", "- ***"),
        ("<ul>text<li>a</ul><p>b</p><ul><p>c</p><li>d</ul>", "- text\n- a\n\nb\n\n- c\n- d"),
        ("<dl><dt>a<dd>b</dd><p>c</p>text</dl><dl></dl>", "<dl>\n<dt>a</dt>\n<dd>b</dd>\n<dd>c</dd>\n<dd>text</dd>\n</dl>"),
        ("<table><caption>C</caption></table>a<table></table>", "C\n\na"),
        ("<iframe></iframe><iframe src='javascript:x'></iframe>a", "a"),
        ("<pre>a <img src='/a.png'> <a href='/x'>l</a> <i>c<br>d</i></pre>", '<pre>a <img src="/a.png" alt=""> <a href="/x">l</a> <em>c\nd</em></pre>'),
        ("<ul><li><dl><dt>a</dl><ul><li>b</ul></ul>", "- <dl>\n  <dt>a</dt>\n  </dl>\n\n  - b"),
        ("<ul><li>a</ul><b><ul><li>b</ul><ul><li>c</ul></b>", "- a\n\n+ **b**\n\n- **c**"),
        ("<ol><li>a</ol><ol><li>b</ol>", "1. a\n\n1) b"),
        ("<table><tr><td>a</table>", "a"),
        ("<table><tr><td align=right>a<td>b</table>", "| a | b |\n| ---: | --- |"),
        ("<table><tr><td colspan=2>a<tr><td>b<td>c</table>", "<table>\n<tr>\n<td colspan=\"2\">a</td>\n</tr>\n<tr>\n<td>b</td>\n<td>c</td>\n</tr>\n</table>"),
        ("<table><tr><td class=gutter><pre>1</pre><td class=code><pre class='lang-js'>a</pre></table>", "```js\na\n```"),
        ("<pre class='brush: php; gutter: false'>a</pre>", "```php\na\n```"),
        ("<pre><span class='lineno'>1</span>a\n<span class='lineno'>2</span>b</pre>", "```\na\nb\n```"),
        ("<pre><code class='language-go'><span class='ln'><a href='#x'>1</a></span><span class='cl'>a</span></code></pre>", "```go\na\n```"),
        ("<pre class='line-numbers'><code>a\n<span class='line-numbers-rows'><span></span></span></code></pre>", "```\na\n```"),
        ("<table><tr><td class='lntd'><pre><code><span class='lnt'>1\n</span></code></pre></td><td class='lntd'><pre><code data-lang='go'>a</code></pre></table>", "```go\na\n```"),
        ("<pre><span class='gutter'>1</span><b>x</b><br>y</pre>", "<pre><strong>x</strong>\ny</pre>"),
        ("<p>a <span class='ln'>b</span> <code><span class='lineno'>1</span></code></p>", "a b `1`"),
        ("<pre lang='Ruby'>a<span>b</span>\n\n</pre>", "```ruby\nab\n```"),
        ("<xmp><b>a</b></xmp>", "```\n<b>a</b>\n```"),
        ("<textarea><b></textarea>", "```\n<b>\n```"),
        ("<tt>a</tt> <code>`</code> <code>a<br>b</code>", "`a` `` ` `` <code>a\\\nb</code>"),
        ("<math><mi>x</mi><annotation encoding='application/x-tex'>x^2</annotation></math>", "x^2"),
        ("<svg><text>a</text></svg>b", "b"),
        ("<object><param name=movie value='//www.youtube.com/v/abcdefghijk'></object>", "https://www.youtube.com/watch?v=abcdefghijk"),
        ("<video><source src='/a.webm'><p>Your browser is old</p></video>", "[a.webm](/a.webm)"),
        ("<iframe src='//maps.example/?q=1&amp;z=2'><p>x</iframe>y", "<https://maps.example/?q=1&z=2>\n\ny"),
        ("<dl><dt>a<dd>b</dl>", "<dl>\n<dt>a</dt>\n<dd>b</dd>\n</dl>"),
        ("<span lang='fr' dir='ltr' onclick='x'>a</span>", '<span dir="ltr" lang="fr">a</span>'),
        (
            "<p>Put it into a &lt;div&gt; and not a &lt;table&gt;, please.</p>",
            "Put it into a \\<div> and not a \\<table>, please.",
        ),
        ("<p>E = mc<sup>2</sup>, H<sub>2</sub>O</p>", "E = mc<sup>2</sup>, H<sub>2</sub>O"),
        (
            "<img src='/my photo (1).jpg' alt='p'> <a href='/a b.pdf'>paper</a>",
            "![p](/my%20photo%20(1).jpg) [paper](/a%20b.pdf)",
        ),
        ("<p>&lt;!-- &amp;amp; a&nbsp;</p>", "\\<!-- \\&amp; a&nbsp;"),
        ("<ol><li id='a'>x <a href='#b'>↑</a></ol>", "1. x [↑](#b)"),
        (
            "a<sup><a href='#n1' id='r1'>1</a></sup><hr><ol><li id='n1'>b <a href='#r1'>back</a></ol>",
            "a[^1]\n\n[^1]: b",
        ),
    ],
)  # fmt: skip
def test_html_is_converted(html: str, expected: str) -> None:
    assert from_html(html).markdown == expected


NESTED = ["<div>", "<ul><li>", "<blockquote>", "<b><i>", "<table><tr><td>", "<span lang=x>", "<dl><dd>",
          "<details>", "<a href=/x><p>", "<sup>", "<font color=a>", "<figure><figcaption>"]  # fmt: skip


@pytest.mark.parametrize("tags", NESTED)
def test_deep_nesting_is_flattened(tags: str) -> None:
    """The text is kept, and the result can be rendered."""
    html = "".join(f"{tags}w{n} " for n in range(300)) + "<p>end</p>"
    rendered = render_sync(from_html(html).markdown)
    words = rendered.text.split()
    assert [word for word in words if word != "w"][-1] == "end"
    assert {f"w{n}" for n in range(300)} <= set(words)


@pytest.mark.parametrize("tags", [*NESTED, "<p>", "<br>", "<b x=1><p>", "<a", "<!--"])
def test_hostile_tags_take_linear_time(tags: str) -> None:
    def convert(html: str) -> None:
        with suppress(TooComplex):
            from_html(html)

    assert not grows_too_fast(convert, partial(run_of, "", tags, ""), short=4_000, floor=0.2)


def test_bombs_are_rejected() -> None:
    attributes = "\n".join(f"a{number}" for number in range(2_000))
    for html in (
        f"a<p {attributes}>b",
        "<br>" * 1_000_000,
        "<div>" * 40_000,
        "<div>" * 20_000 + "</div>" * 20_000,
    ):
        with pytest.raises(TooComplex):
            from_html(html)


@pytest.mark.parametrize(
    "text",
    [
        "[toggle]",
        "[a b=1]",
        "[[gallery]",
        "{{< a >}}",
        "{% a %}",
        "<A>",
        ":::note\n",
        "- [a](/b)\n",
    ],
)
def test_many_tags_take_linear_time(text: str) -> None:
    """The tags are nested if they have ends."""
    ends = {
        "[toggle]": "[/toggle]",
        "{{< a >}}": "{{< /a >}}",
        "{% a %}": "{% enda %}",
        "<A>": "</A>",
    }

    def make(length: int) -> str:
        count = length // len(text)
        return text * count + "x" + ends.get(text, "") * count

    def convert(source: str) -> None:
        with suppress(TooComplex):
            from_wordpress(source)
            from_site(source, is_mdx=True)
            find_addresses(source)

    assert not grows_too_fast(convert, make, short=8_000, floor=0.2)


PARTS = [
    "word", " ", "\n", "\r", "&amp;", "&amp;lt;", "&nbsp;", "&#8217;", "&x", "\xa0", '"', ">", "<", "<br>", "<p>", "</p>",
    '<p class="a">', "</a>", "</em>", "<em>a</em>", "<code> b</code>", "<strong>", "<h2>c</h2>", "<ul><li>d</li></ul>",
    "<p>e</p>", '<a href="https://a.example/b">f</a>', '<a href="https://1.2.3.4.5/">g</a>', '<a href="https://xn--a.de/">h</a>',
    '<a href="https://a.de/"><b>i</b></a>',
]  # fmt: skip


def test_simple_html_means_what_the_parser_reads() -> None:
    random = Random(1)
    for _ in range(5000):
        html = f"<p>{''.join(random.choices(PARTS, k=random.randint(1, 6)))}</p>"
        assert from_html(html) == from_html(f"{html}<!-- parsed -->"), html
