"""Slugs and text normalization, for all scripts."""

# ruff: noqa: RUF001 - the test data contains ambiguous letters of all scripts

import re
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from app.content.slugs import MAX_SLUG, normalize_text, slugify

SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("Hello, World!", "hello-world"),
        ("  --Already--a--slug--  ", "already-a-slug"),
        ("Don't panic: it’s fine", "dont-panic-its-fine"),
        ("Crème brûlée à l'œuf", "creme-brulee-a-loeuf"),
        ("Cre\u0300me bru\u0302le\u0301e", "creme-brulee"),  # the same with combining marks
        ("Straße, Ærø und Łódź", "strasse-aero-und-lodz"),
        ("İSTANBUL'da ışık", "istanbulda-isik"),
        ("你好，世界", "ni-hao-shi-jie"),
        ("北京 2024年", "bei-jing-2024-nian"),
        ("日本語のテスト", "ri-ben-yu-notesuto"),
        ("한국어", "hangugeo"),
        ("Привет, мир", "privet-mir"),
        ("Ελληνικά", "ellinika"),
        ("שלום עולם", "slvm-vlm"),
        ("\u200fשלום\u200e \u202eעולם\u202c", "slvm-vlm"),  # with bidirectional marks
        ("مرحبا بالعالم", "mrhb-bllm"),
        ("สวัสดีชาวโลก", "swasdichawolk"),
        ("नमस्ते दुनिया", "nmste-duniya"),
        ("zero\u200bwidth\ufeff \u2060word", "zerowidth-word"),
        ("🎉 Party time 🥳", "tada-party-time-partying-face"),
        ("👨\u200d👩\u200d👧", "man-woman-girl"),
        ("𝒞𝓊𝓇𝓈𝒾𝓋𝑒", "cursive"),
        ("full　width ＡＢＣ", "full-width-abc"),
        ("a\x00b\nc\td", "a-b-c-d"),
        ("1 ½ ² ①", "1-1-2-2-1"),
        ("../../etc/passwd", "etc-passwd"),
        ("<script>alert(1)</script>", "script-alert-1-script"),
        ("50% off & more", "50-off-more"),
    ],
)
def test_slugify_transliterates_all_scripts(text: str, slug: str) -> None:
    assert slugify(text) == slug


@pytest.mark.parametrize("text", ["", " ", "---", "\u200b\u200f", "…!?", "\x00", "\u0301", "'"])
def test_text_without_letters_becomes_the_fallback(text: str) -> None:
    assert slugify(text) == "article"
    assert slugify(text, fallback="tag") == "tag"


@pytest.mark.parametrize(
    ("text", "slug"),
    [
        ("2024", "article-2024"),
        ("٢٠٢٤", "article-2024"),
        ("②", "article-2"),
        ("0", "article-0"),
        ("2024-01", "2024-01"),
        ("4 U", "4-u"),
    ],
)
def test_number_is_prefixed_with_the_fallback(text: str, slug: str) -> None:
    assert slugify(text) == slug


def test_long_slug_is_cut_at_a_hyphen() -> None:
    slug = slugify("word " * 100)
    assert slug == "-".join(["word"] * 16)
    assert len(slug) == 79
    assert slugify("a" * 70 + " " + "b" * 70) == "a" * 70


def test_long_slug_without_a_hyphen_is_cut() -> None:
    assert slugify("a" * 200) == "a" * MAX_SLUG
    assert slugify("ab " + "c" * 200) == "ab-" + "c" * 77
    assert slugify("a" * 80 + " b") == "a" * 80
    assert slugify("7" * 200) == "article-" + "7" * 72


@settings(max_examples=200)
@given(st.text(max_size=200))
def test_slugify_always_returns_a_valid_slug(text: str) -> None:
    slug = slugify(text)
    assert SLUG.fullmatch(slug)
    assert len(slug) <= MAX_SLUG
    assert not slug.isdigit()
    assert slugify(slug) == slug


@pytest.mark.parametrize(
    ("text", "normalized"),
    [
        ("  a \t\n b  ", "a b"),
        ("Cafe\u0301", "Café"),
        ("Cafe\u200b\u0301", "Café"),
        ("ﬁne x² Ａ", "ﬁne x² Ａ"),
        ("a\u00a0b\u3000c", "a b c"),
        ("a\u200bb\ufeffc\u00add", "abcd"),
        ("\u202eabc\u2066", "abc"),
        ("a\x00b\x07c\x85d", "abc d"),
        ("می\u200cخواهم", "می\u200cخواهم"),
        ("👩\u200d🔬", "👩\u200d🔬"),
        ("\ud800x", "x"),
        ("\u200b \u200f", ""),
    ],
)
def test_text_is_normalized(text: str, normalized: str) -> None:
    assert normalize_text(text) == normalized


@settings(max_examples=150)
@given(st.text(max_size=100))
def test_normalize_text_is_idempotent(text: str) -> None:
    normalized = normalize_text(text)
    assert normalize_text(normalized) == normalized
    assert unicodedata.is_normalized("NFC", normalized)
    assert not any(unicodedata.category(character) == "Cc" for character in normalized)
    assert normalized == " ".join(normalized.split())
