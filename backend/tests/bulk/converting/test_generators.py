"""Markdown of site generators: shortcodes, Liquid tags and JSX components."""

import pytest

from app.services.bulk.converting import results
from app.services.bulk.converting.generators import from_site, from_site_html
from app.services.bulk.converting.results import Context, TooComplex

CONTEXT = Context(site="https://old.example", values={"title": "A *title*"})
FIGURE = "<figure>\n\n{}\n\n<figcaption>\n\n{}\n\n</figcaption>\n</figure>"


def convert(text: str, *, is_mdx: bool = False) -> str:
    return from_site(text, CONTEXT, is_mdx=is_mdx).markdown.strip("\n")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        # Hugo
        (
            '{{< figure src="/a.png" alt="a" caption="A *c*" link="/b" >}}',
            FIGURE.format("[![a](/a.png)](/b)", "A *c*"),
        ),
        ("{{< figure src=/a.png >}}", "![](/a.png)"),
        ("{{< youtube abcdefghijk >}}", "https://www.youtube.com/watch?v=abcdefghijk"),
        (
            '{{< youtube id="abcdefghijk" autoplay="true" />}}',
            "https://www.youtube.com/watch?v=abcdefghijk",
        ),
        ('{{< highlight go "linenos=table" >}}\na\n  b\n{{< /highlight >}}', "```go\na\n  b\n```"),
        ("{{% notice warning %}}\na\n{{% /notice %}}", "> [!WARNING]\n> a"),
        (
            '{{< details "More" >}}\na\n{{< /details >}}',
            "<details>\n<summary>More</summary>\n\na\n\n</details>",
        ),
        ('[a]({{< ref "b.md#c" >}}) [d]({{% relref "/e f" %}})', "[a](b.md#c) [d](/e%20f)"),
        ('{{< tweet user="a" id="1" >}}', "[1](https://twitter.com/a/status/1)"),
        ("{{< gist a 0123456789 >}}", "[0123456789](https://gist.github.com/a/0123456789)"),
        ('`{{</* a "b" */>}}` {{</* c */>}}', '`{{< a "b" >}}` {{< c >}}'),
        ("```\n{{< figure src=x >}}\n```", "```\n{{< figure src=x >}}\n```"),
        ("{{< columns >}}a{{< /columns >}}", "a"),
        ('{{< unknown src="/a.png" alt="a" >}}', "![a](/a.png)"),
        ("# A {#b .c}\n\n## D {x}", '# <a id="b"></a>A\n\n## D {x}'),
        # Jekyll
        ("{% highlight ruby linenos %}\na\n{% endhighlight %}", "```ruby\na\n```"),
        ("[a]({% post_url 2020-01-01-b %})", "[a](2020-01-01-b.md)"),
        (
            "{{ site.url }}{{ site.baseurl }}/a {{ '/b' | relative_url }}",
            "https://old.example/a /b",
        ),
        ("{{ page.title }} {{ other }}", "A \\*title\\* {{ other }}"),
        ("{% raw %}{{ a }}{% endraw %} {% raw %}{% b %}{% endraw %}", "{{ a }} {% b %}"),
        ("```\n{% raw %}\n{{ a }}\n{% endraw %}\n```", "```\n{{ a }}\n```"),
        (
            "{% include youtube.html id='abcdefghijk' %}",
            "https://www.youtube.com/watch?v=abcdefghijk",
        ),
        ('{% include figure.html src="/a.png" caption="c" %}', FIGURE.format("![](/a.png)", "c")),
        ("a{% comment %}b{% endcomment %}c", "ac"),
        ("![a](/b){: .c width='1'}\n{: .d}\ne", "![a](/b)\ne"),
        ("* TOC\n{:toc}\n\na", "a"),
        ("{% if a %}b{% else %}c{% endif %}", "bc"),
        # Octopress and Hexo
        ('{% img left /a.png 350 200 "T" "A" %}', '![A](/a.png "T")'),
        ("{% codeblock T lang:js https://a.example %}\na\n{% endcodeblock %}", "```js\na\n```"),
        (
            "{% blockquote A, B https://a.example C %}\na\n{% endblockquote %}",
            "> a\n>\n> — [A, B C](https://a.example)",
        ),
        ("{% asset_img a.jpg A title %}", "![A title](a.jpg)"),
        ("{% post_link b A title %}", "[A title](b.md)"),
        ("{% note info %}\na\n{% endnote %}", "> [!NOTE]\n> a"),
        ("{% vimeo 1 %}", "https://vimeo.com/1"),
        ("{% include_code T lang:js a/b.js %}", "[b.js](a/b.js)"),
        # Words of tags in a line, and titles of parts
        ("{% label primary @a b %} {% span red, c %} {% u d %}", "a b c <u>d</u>"),
        ("H{{< sub >}}2{{< /sub >}}O {{< kbd >}}x{{< /kbd >}}", "H<sub>2</sub>O <kbd>x</kbd>"),
        ("{% checkbox checked, a %}{% checkbox b %}", "\n- [x] a\n\n- [ ] b\n".strip("\n")),
        ("{% hideInline a,b,#f00 %}", "a"),
        (
            "{% hideToggle A title,#f00 %}\na\n{% endhideToggle %}",
            "<details>\n<summary>A title</summary>\n\na\n\n</details>",
        ),
        (
            "{% folding blue, A title %}\na\n{% endfolding %}",
            "<details>\n<summary>A title</summary>\n\na\n\n</details>",
        ),
        ("{% note info no-icon A title %}\na\n{% endnote %}", "> [!NOTE]\n> **A title**\n>\n> a"),
        (
            "{% tabs x,1 %}\n<!-- tab A@fas fa-x -->\na\n<!-- endtab -->\n{% endtabs %}",
            "**A**\n\na",
        ),
        (
            '{{< tabs "x" >}}{{< tab "A" >}}a{{< /tab >}}{{< tab "B" >}}b{{< /tab >}}{{< /tabs >}}',
            "**A**\n\na\n\n**B**\n\nb",
        ),
        ("{% include gallery id='x' caption='C' %}", "C"),
        ('{{< link "https://a.example" "a b" "c" >}}', "[a b](https://a.example)"),
        ("{% btn https://a.example, a b, fas %}", "[a b](https://a.example)"),
        ("{% link a b https://a.example true %}", "[a b](https://a.example)"),
        ('{{< youtube-lite id="abcdefghijk" >}}', "https://www.youtube.com/watch?v=abcdefghijk"),
        (
            '{% aplayer "A" "B" "/a.mp3" %} {% dplayer "url=/v.mp4" %}',
            "[a.mp3](/a.mp3) [v.mp4](/v.mp4)",
        ),
        ("a{% sidenote 'id' 'b c' %} {% ruby 漢字|かんじ %}", "ab c 漢字|かんじ"),
        (':::note{title="T"}\na\n:::', "> [!NOTE]\n> **T**\n>\n> a"),
        ("{% figure %}a{% quote %}b{% endfigure %}c", "a\n\n>\n\nb\n\nc"),
        ("{% include_code 'Title' a/b.js %}", "[b.js](a/b.js)"),
        ("{{< highlight 'a b' >}}x{{< /highlight >}}", "```\nx\n```"),
        ("{% img left /a.png 300 200 'T' 'A' %}", '![A](/a.png "T")'),
        ("{% img /a.png a title %}", "![a title](/a.png)"),
        ("a{% img %}", "a"),
        (
            "{{< video provider=youtube id=abcdefghijk >}}",
            "https://www.youtube.com/watch?v=abcdefghijk",
        ),
        ("{{< audio src='/a.mp3' title='T' >}}", "[T](/a.mp3)"),
        (
            "{% blockquote A B https://a.example/x C %}\nq\n{% endblockquote %}",
            "> q\n>\n> — [A B C](https://a.example/x)",
        ),
        ("{{< quote author='A' >}}q{{< /quote >}}", "> q\n>\n> — A"),
        ("{% asset_link a.pdf 'Paper' %}", "[Paper](a.pdf)"),
        ("{{< link 'T', '/x' >}}", "[T](/x)"),
        ("{{< mermaid >}}graph{{< /mermaid >}}", "```mermaid\ngraph\n```"),
        ("a{{< mermaid >}}{{< /mermaid >}}", "a"),
        (
            "{% post_link a-b 'Other post' %} {% post_link a-b %}",
            "[Other post](a-b.md) [a-b](a-b.md)",
        ),
        (
            "{% fold 'T' %}a{% endfold %}",
            "<details>\n<summary>T</summary>\n\na\n\n</details>",
        ),
        ("a ```b``` {{< columns >}}c{{< /columns >}}", "a ```b``` c"),
        ("a{% endif %}", "a"),
        # Containers
        (
            ":::tip T\na\n:::note\nb\n:::\nc\n:::\nd",
            "> [!TIP]\n> **T**\n>\n> a\n> > [!NOTE]\n> > b\n> c\nd",
        ),
        (
            ":::details More\na\n:::",
            "<details>\n<summary>More</summary>\n\na\n\n</details>",
        ),
        (":::other\na\n:::", "a"),
        (":::tip\nopen", "open"),
        ("a\n:::\nb", "a\n:::\nb"),
        # Docusaurus
        (
            ":::tip[T]\na\n:::\n\n```\n:::note\n```",
            "> [!TIP]\n> **T**\n>\n> a\n\n```\n:::note\n```",
        ),
    ],
)
def test_tag_is_converted(text: str, expected: str) -> None:
    assert convert(text) == expected


def test_mdx_is_converted() -> None:
    text = """import X from './x'
import hero from "./hero.png"
export const meta = { a: 1 }

# T

<Figure src={hero} alt="h" caption="c" />

<Callout type="warning">
**a**
</Callout>

{/* comment */}{"text"} {year} <YouTube id="abcdefghijk" client:load />

<Highlight color="green">a</Highlight> b

<Tabs><TabItem label="x">

in

</TabItem></Tabs>

<div className="x" style={{a: 1}}>b</div>

```jsx
import a from 'b'
<Chart />
```
"""
    assert convert(text, is_mdx=True) == (
        "# T\n\n" + FIGURE.format("![h](./hero.png)", "c") + "\n\n> [!WARNING]\n> **a**\n\n"
        "text {year} https://www.youtube.com/watch?v=abcdefghijk\n\n<mark>a</mark> b\n\n"
        "**x**\n\nin\n\n<div>b</div>\n\n"
        "```jsx\nimport a from 'b'\n<Chart />\n```"
    )


def test_text_without_tags_is_the_same() -> None:
    text = "a {b} {{c}} 50% {%\n\n* [x](y){z}\n\n    {code}\n`{` <T> :::"
    assert from_site(text).markdown == text
    assert from_site(text).notes == ()


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("{{< unknown >}}", "what it shows is not in the file"),
        ("{{< unknown >}}a{{< /unknown >}}", "its content was kept"),
        ('{{< unknown url="https://a.example/" >}}', "its URL was kept"),
        ("{{ page.other }}", "the value of 'page.other'"),
        ("{% for a in b %}c{% endfor %}", "depend on conditions"),
        ("{% include_code a.js %}", "code from another file"),
        ("{% youtube %}", "it has no URL"),
    ],
)
def test_loss_is_noted(text: str, note: str) -> None:
    assert any(note in found for found in from_site(text).notes)


def test_page_in_html_is_converted() -> None:
    html = "<p>A {{ site.baseurl }}/x</p>{% highlight ruby %}\nx <b>\n{% endhighlight %}<p>b</p>"
    assert from_site_html(html).markdown == "A /x\n\n```ruby\nx <b>\n```\n\nb"


def test_what_a_text_inserts_has_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "MAX_INSERTED_LENGTH", 40)
    convert("{{ page.title }}")
    with pytest.raises(TooComplex, match="inserts more than"):
        convert("{{ page.title }}" * 10)
