# ruff: noqa: E501 - long lines of input are easier to compare
"""Addresses in Markdown, and their replacement."""

from random import Random

import pytest

from app.services.bulk.converting.addresses import Address, Use, find_addresses, replace_addresses

TEXT = r"""a [x](</a b> "t") ![i](/i\_1.png) `[c](/code)` <https://a.example/z> https://b.example/x.

> - [l](/l_1) and [r], [![in](/in.png)](/out)
>   more [m](/m) \[n](/no)

[r]: <http://ref.example/> "T"

| a | [c](/c) \| |
| --- | --- |
| [c](/c) | [c](/c) |

<figure>
<img src="/f.png" alt="x"> <a href='/g?a&amp;b'>
</figure>

    [i](/code)

```
[n](/code)
```

# h <a href="/h">t</a> [a](/a) #

text[^1]

[^1]: [note](/note)
"""
URLS = [
    "/a b", "/i_1.png", "https://a.example/z", "https://b.example/x", "/l_1", "/in.png", "/out", "/m",
    "http://ref.example/", "/c", "/c", "/c", "/f.png", "/g?a&b", "/h", "/a", "/note",
]  # fmt: skip


def test_addresses_are_found_in_order() -> None:
    found = find_addresses(TEXT)
    assert [address.url for address in found] == URLS
    assert [address.url for address in found if address.use is Use.IMAGE] == [
        "/i_1.png",
        "/in.png",
        "/f.png",
    ]


def test_addresses_are_replaced() -> None:
    replaced = replace_addresses(TEXT, lambda address: f"https://new.example/{address.url[1:]}?(")
    assert [address.url for address in find_addresses(replaced)] == [
        f"https://new.example/{url[1:]}?(".replace(" ", "%20").replace("(", "%28")
        if index not in {2, 3, 12, 13, 14}
        else f"https://new.example/{url[1:]}?("
        for index, url in enumerate(URLS)
    ]
    assert replaced.count("/code") == TEXT.count("/code")
    assert "(/no)" in replaced


def test_text_without_changes_is_the_same() -> None:
    assert replace_addresses(TEXT, lambda _: None) == TEXT
    assert replace_addresses("a\r\n[b](/c)", lambda _: "/d") == "a\n[b](/d)"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<https://a.example/>", "[/new](/new)"),
        ("see https://a.example/x.", "see [/new](/new)."),
        ("[a](https://a.example/ 'b')", "[a](/new 'b')"),
        ("![a][b]\n\n[b]: https://a.example/", "![a][b]\n\n[b]: /new"),
    ],
)
def test_syntax_is_changed_if_necessary(text: str, expected: str) -> None:
    assert replace_addresses(text, lambda _: "/new") == expected


def test_use_of_an_address() -> None:
    assert find_addresses("![a](/b)") == [Address("/b", Use.IMAGE, alt="a")]
    html = "<img src='/b' alt=\"A &amp; B\">"
    assert find_addresses(html) == [Address("/b", Use.IMAGE, alt="A & B")]
    assert find_addresses("[a](/b)") == [Address("/b", Use.LINK)]


PARTS = [
    "word", " ", "\n\n", "\n", "\\\n", "**", "_", "~~", "!", "[", "]", "(", ")", ":", "://", "www.", "@", "&amp;",
    "---", "- ", "1. ", "[^1]", "[^1]:", "<", "\\", '"', "|", "`", "\t", "[a](https://a.example/b_c)", "[**b**](/c?d=e#f)",
    "[c](/d 'e')", "![i](/i.png)", "](/g)", "https://h.example", "[j](http://localhost:8000/k)",
]  # fmt: skip


def test_simple_paragraphs_have_the_addresses_that_the_parser_finds() -> None:
    random = Random(1)
    for _ in range(5000):
        text = "Word " + "".join(random.choices(PARTS, k=random.randint(1, 10)))
        assert find_addresses(text) == find_addresses(f"{text}\n\n`parsed`"), text
