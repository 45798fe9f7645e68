# ruff: noqa: E501 - long lines of input are easier to compare
"""WordPress's posts: classic paragraphs, shortcodes and blocks."""

import pytest

from app.services.bulk.converting import posts, results
from app.services.bulk.converting.paragraphs import add_paragraphs
from app.services.bulk.converting.posts import from_wordpress
from app.services.bulk.converting.results import Attachment, Context, TooComplex

IMAGES = {
    "1": Attachment("https://old.example/1.jpg", alt="First"),
    "2": Attachment("https://old.example/2.jpg", caption="The <b>second</b>"),
    "3": Attachment("https://old.example/3.mp3", title="A song"),
}
CONTEXT = Context(
    site="https://old.example",
    attachments=IMAGES,
    attached=["1", "3"],
    reusable_blocks={
        "7": "<!-- wp:paragraph --><p>Used twice.</p><!-- /wp:paragraph -->",
        "8": '<!-- wp:block {"ref":8} /-->',
        "9": "".join('<!-- wp:block {"ref":9} /-->' for _ in range(60)),
    },
    footnotes={"f1": "The <em>proof</em>."},
)


def convert(content: str) -> str:
    return from_wordpress(content, CONTEXT).markdown


@pytest.mark.parametrize(
    ("html", "expected"),
    [
        ("a\nb\n\nc", "<p>a<br>b</p>\n<p>c</p>\n"),
        ("a\r\n\r\n \t\r\nb", "<p>a</p>\n<p>b</p>\n"),
        ("<b>a\n\nb</b>", "<p><b>a</p>\n<p>b</b></p>\n"),
        ("<b>a</b>\n<i>b</i>", "<p><b>a</b><br><i>b</i></p>\n"),
        ("a<br>\nb", "<p>a<br>b</p>\n"),
        ("a\n<ul>\n<li>b\nc</li>\n</ul>\nd", "<p>a</p>\n<ul><li>b<br>c</li></ul><p>d</p>\n"),
        ("<li>a\n\nb</li>", "<li>a<p>b</p>\n</li>"),
        ("<div>a\n\nb</div>", "<div><p>a</p>\n<p>b</p>\n</div>"),
        ("<p>a\n\nb</p>c", "<p>a</p>\n<p>b</p><p>c</p>\n"),
        ("a<pre>b\n\n<p>\nc</pre>d", "<p>a</p>\n<pre>b\n\n<p>\nc</pre><p>d</p>\n"),
        ("a <!-- x\n\ny --> b", "<p>a <!-- x\n\ny --> b</p>\n"),
        ("<h2>a</h2>b<hr>c", "<h2>a</h2><p>b</p>\n<hr><p>c</p>\n"),
        ("<a\nhref='x>y'>a</a>", "<p><a\nhref='x>y'>a</a></p>\n"),
        ("a < b\n\n1 <2", "<p>a < b</p>\n<p>1 <2</p>\n"),
        ("\n\n \n", ""),
    ],
)
def test_paragraphs_are_those_of_wordpress(html: str, expected: str) -> None:
    assert add_paragraphs(html) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        # Paragraphs beside markers and tags
        ("one\n\n<!--more-->\n\ntwo\n\nthree", "one\n\ntwo\n\nthree"),
        ("one\n\n<!--more Read on-->two", "one\n\ntwo"),
        ("one\n<!--nextpage-->\ntwo", "one\n\ntwo"),
        ("one\n\n<p>two</p>\n\nthree\nfour", "one\n\ntwo\n\nthree\\\nfour"),
        ("one\n\n[gallery ids='1']\n\ntwo", "one\n\n![First](https://old.example/1.jpg)\n\ntwo"),
        # Media
        (
            "[gallery ids='1,2']",
            (
                "![First](https://old.example/1.jpg)\n\n<figure>\n\n![](https://old.example/2.jpg)\n\n"
                "<figcaption>The <strong>second</strong></figcaption>\n</figure>"
            ),
        ),
        ("[slideshow]", "![First](https://old.example/1.jpg)"),
        ("[gallery]", "![First](https://old.example/1.jpg)"),
        (
            '[caption width="1"]<a href="/b"><img src="/a.png" alt="a" /></a> A *cap*[/caption]',
            "<figure>\n\n[![a](/a.png)](/b)\n\n<figcaption>A *cap*</figcaption>\n</figure>",
        ),
        (
            '[wp_caption caption="old [style"]<img src="/a.png">[/wp_caption]',
            '\\[wp_caption caption="old \\[style"\\]![](/a.png)',
        ),
        (
            '[caption caption="old style"]<img src="/a.png">[/caption]',
            "<figure>\n\n![](/a.png)\n\n<figcaption>old style</figcaption>\n</figure>",
        ),
        ("[audio https://a.example/a.mp3]", "https://a.example/a.mp3"),
        ('[video mp4="https://a.example/a.mp4"][/video]', "https://a.example/a.mp4"),
        ('[playlist ids="3"]', "[A song](https://old.example/3.mp3)"),
        (
            "[youtube=http://www.youtube.com/watch?v=abcdefghijk&w=640]",
            "https://www.youtube.com/watch?v=abcdefghijk",
        ),
        ("[vimeo 123]", "https://vimeo.com/123"),
        (
            "[embed width='1']https://a.example/x[/embed]",
            "<https://a.example/x>",
        ),
        (
            "a\nhttps://youtu.be/abcdefghijk\nb",
            "a\n\nhttps://www.youtube.com/watch?v=abcdefghijk\n\nb",
        ),
        # Code
        (
            "[sourcecode language='php']\nif ($a &lt; 1) {\n\n  echo \"<b>[gallery]</b>\";\n}\n[/sourcecode]",
            '```php\nif ($a < 1) {\n\n  echo "<b>[gallery]</b>";\n}\n```',
        ),
        ("[php]$a = '[code]';[/php]", "```php\n$a = '[code]';\n```"),
        ("<pre>[code lang='js']\na\n[/code]</pre>", "```js\na\n```"),
        ("<pre>[gallery]</pre> <code>[b]x[/b]</code>", "```\n[gallery]\n```\n\n`[b]x[/b]`"),
        (
            "[[gallery ids='1']] and [[code]x[/code]]",
            "\\[gallery ids='1'\\] and \\[code\\]x\\[/code\\]",
        ),
        # Others
        (
            'a [and b :: <a href="/c?d=e">f</a> with g] h',
            "a \\[and b :: [f](/c?d=e) with g\\] h",
        ),
        ("a[efn_note]b <i>c</i>[/efn_note]", "a[^1]\n\n[^1]: b *c*"),
        ("a((this is a note)) f((x+y))", "a[^1] f((x+y))\n\n[^1]: this is a note"),
        (
            "[spoiler title='T&amp;c']a\n\nb[/spoiler]",
            "<details>\n<summary>T&amp;c</summary>\n\na\n\nb\n\n</details>",
        ),
        ("[button url='/x']Go[/button]", "[Go](/x)"),
        ("[quote author='A']b[/quote]", "> b\n>\n> — A"),
        ("[sic] [1] [...] [link] a[0]", "\\[sic\\] \\[1\\] \\[...\\] \\[link\\] a\\[0\\]"),
        ("[foo a='1']b [bar]c[/bar][/foo]", "b c"),
        ("[su_row][su_column size='1/2']a[/su_column][/su_row]", "a"),
        ("[map url='https://a.example/m']", "[m](https://a.example/m)"),
        ("[b]x", "\\[b\\]x"),
    ],
)
def test_classic_post_is_converted(content: str, expected: str) -> None:
    assert convert(content) == expected


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('<!-- wp:block {"ref":7} /-->', "Used twice."),
        ('<!-- wp:block {"ref":8} /-->', ""),
        (
            "a\n\nb<!-- wp:paragraph --><p>c\nd</p><!-- /wp:paragraph -->e\n\nf",
            "a\n\nb\n\nc d\n\ne\n\nf",
        ),
        (
            "<!-- wp:shortcode -->[gallery ids='1']<!-- /wp:shortcode -->",
            "![First](https://old.example/1.jpg)",
        ),
        (
            (
                '<!-- wp:embed {"url":"x"} --><figure class="wp-block-embed"><div '
                'class="wp-block-embed__wrapper">\nhttps://vimeo.com/1\n</div><figcaption>c</figcaption>'
                "</figure><!-- /wp:embed -->"
            ),
            "<figure>\n\nhttps://vimeo.com/1\n\n<figcaption>c</figcaption>\n</figure>",
        ),
        (
            (
                '<p>A<sup data-fn="f1" class="fn"><a href="#f1" id="f1-link">1</a></sup>.</p>'
                "<!-- wp:footnotes /-->"
            ),
            "A[^1].\n\n[^1]: The *proof*.",
        ),
        (
            '<!-- wp:social-link {"url":"https://a.example/","service":"x"} /-->',
            "[x](https://a.example/)",
        ),
        (
            "<!-- wp:code --><pre><code>[gallery] &lt;b></code></pre><!-- /wp:code -->",
            "```\n[gallery] <b>\n```",
        ),
        (
            '<!-- wp:acme/code {"language":"php"} --><pre>a</pre><!-- /wp:acme/code --><pre>b</pre>',
            "```php\na\n```\n\n```\nb\n```",
        ),
        ('<!-- wp:gallery {"ids":[1,"9"]} /-->', "![First](https://old.example/1.jpg)"),
        (
            (
                '<!-- wp:cover --><div class="wp-block-cover" style="background-image:url(/c.jpg)"><p>a</p>'
                "</div><!-- /wp:cover -->"
            ),
            "![](/c.jpg)\n\na",
        ),
        (
            (
                '<!-- wp:file --><div class="wp-block-file"><a href="/a.pdf">A</a><a href="/a.pdf" '
                'class="wp-block-file__button">Download</a></div><!-- /wp:file -->'
            ),
            "[A](/a.pdf)",
        ),
    ],
)
def test_blocks_are_converted(content: str, expected: str) -> None:
    assert convert(content) == expected


@pytest.mark.parametrize(
    ("content", "note"),
    [
        ('<!-- wp:latest-posts {"n":1} /-->', "the block 'latest-posts'"),
        ('<!-- wp:block {"ref":6} /-->', "a reusable block that is not in the export"),
        ('<!-- wp:block {"ref":8} /-->', "reusable blocks that contain each other"),
        ("[gallery ids='5']", "an image of a gallery is not in the export"),
        ("[contact-form-7 id='1']", "the shortcode [contact-form-7] of a plugin"),
        ("[foo]a[/foo]", "its content was kept"),
        ("a<!--nextpage-->b", "the pages of the post were joined"),
        ("<a href='javascript:x'>a</a>", "a link to 'javascript:x' was removed"),
        ("<iframe src='about:config'></iframe>", "embedded content was left out"),
        ("<form><select><option>a</option></select></form>", "a form was left out"),
        ('<p><sup data-fn="f2"><a href="#f2">1</a></sup></p>', "a footnote has no text"),
    ],
)
def test_loss_is_noted(content: str, note: str) -> None:
    assert any(note in found for found in from_wordpress(content, CONTEXT).notes)


def test_reusable_blocks_cannot_grow_without_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(TooComplex, match="reusable blocks"):
        convert('<!-- wp:block {"ref":9} /-->')
    monkeypatch.setattr(posts, "MAX_LENGTH", 10)
    with pytest.raises(TooComplex, match="too long"):
        convert('<!-- wp:block {"ref":7} /-->')


@pytest.mark.parametrize(
    "gallery", ["[gallery ids='2,2,1,2']", '<!-- wp:gallery {"ids":[2,"2",1,2]} /-->']
)
def test_gallery_shows_each_image_once(gallery: str) -> None:
    found = convert(gallery)
    assert [found.count(f"/{number}.jpg") for number in (1, 2)] == [1, 1]
    assert found.index("/2.jpg") < found.index("/1.jpg")


@pytest.mark.parametrize(
    "reference",
    [
        "[gallery ids='2']",
        "[gallery]",
        "[gallery exclude='1,3']",
        "[playlist ids='3']",
        '<!-- wp:gallery {"ids":[2]} /-->',
        '<p><sup data-fn="f1"><a href="#f1">1</a></sup></p>',
    ],
)
def test_what_a_text_inserts_has_a_limit(monkeypatch: pytest.MonkeyPatch, reference: str) -> None:
    monkeypatch.setattr(results, "MAX_INSERTED_LENGTH", 150)
    convert(reference)
    with pytest.raises(TooComplex, match="inserts more than"):
        convert(f"{reference}\n\n" * 10)


def test_reusable_blocks_are_not_joined_above_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    class Blocks(dict[str, str]):
        def get(self, key: str, default: object = None) -> str:
            read.append(key)
            return "x" * 1000

    monkeypatch.setattr(posts, "MAX_LENGTH", 3500)
    with pytest.raises(TooComplex, match="too long"):
        from_wordpress(
            '<!-- wp:block {"ref":1} /-->' * 50, Context(reusable_blocks=Blocks({"1": ""}))
        )
    assert len(read) < 10
