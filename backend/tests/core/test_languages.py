"""Language tags: registration and canonical form."""

import re

import pycountry
import pytest
from pydantic import ValidationError

from app.core import clock
from app.core.languages import COUNTRIES, LANGUAGE_PATTERN, canonical_language
from app.services.bulk.records import Outcome, Result, parse_fields
from app.services.bulk.reporting import Report
from tests.core.test_config import make


@pytest.mark.parametrize(
    ("tag", "canonical"),
    [
        ("en", "en"),
        ("EN", "en"),
        ("pt-br", "pt-BR"),
        ("pt-BR", "pt-BR"),
        ("zh-TW", "zh-TW"),
        ("zh-hans", "zh-Hans"),
        ("ZH-HANT-tw", "zh-Hant-TW"),
        ("sr-latn", "sr-Latn"),
        ("es-419", "es-419"),
        ("en-001", "en-001"),
        ("deu", "de"),  # RFC 5646 §2.2.1: the shortest code
        ("ger", "de"),
        ("gsw-CH", "gsw-CH"),
        ("yue-Hant", "yue-Hant"),
        ("nb-NO", "nb-NO"),
    ],
)
def test_registered_tag_is_canonicalized(tag: str, canonical: str) -> None:
    assert canonical_language(tag) == canonical
    assert canonical_language(canonical) == canonical
    assert re.fullmatch(LANGUAGE_PATTERN, tag)


@pytest.mark.parametrize(
    "tag",
    [
        "", "-", "e", "xx", "qzq", "english", "klingon", "en-", "-US", "en_US", "en US", "en-UK",
        "en-USA", "en-XX", "en-Xxxx", "en-US-x-a", "en-US-Latn", "de-1996", "zh-999", "i-klingon",
        "yue-Hant-HK", "en\n", "\u0435n", "en-\uff35\uff33", "en\x00", "en-us" * 1000,
    ],
)  # fmt: skip
def test_unregistered_tag_is_rejected(tag: str) -> None:
    with pytest.raises(ValueError, match="registered language, such as"):
        canonical_language(tag)


def test_default_language_must_be_registered() -> None:
    assert make(default_language="PT-br").default_language == "pt-BR"
    with pytest.raises(ValidationError, match="registered language"):
        make(default_language="xx")


@pytest.mark.parametrize(
    ("written", "taken", "note"),
    [
        ("en_US", "en-US", ""),
        ("pt_br", "pt-BR", ""),
        ("zh_Hans_CN", "zh-Hans-CN", ""),
        ("deu", "de", ""),
        ("de_DE_formal", "de-DE", "language: de-DE instead of 'de_DE_formal'"),
        ("en-UK", "en", "language: en instead of 'en-UK'"),
        ("klingon", None, "language: 'klingon' is not registered, the default is used"),
        ("x" * 5000, None, f"language: '{'x' * 50}' is not registered, the default is used"),
    ],
)
def test_import_uses_the_registered_part_of_a_tag(
    written: str, taken: str | None, note: str
) -> None:
    read = parse_fields(3, {"title": "T", "content": "Long enough.", "language": written})
    assert read.record is not None
    assert read.record.language == taken
    assert read.notes == ((note,) if note else ())
    with Report(now=clock.now()) as report:
        report.add([Result(read, Outcome.CREATED, notes=read.notes)])
        assert [entry.messages for entry in report.entries()] == [[note] * bool(note)]


def test_registers_are_those_of_pycountry() -> None:
    assert {country.alpha_2 for country in pycountry.countries} == COUNTRIES
    for language in pycountry.languages:
        shortest = getattr(language, "alpha_2", language.alpha_3)
        assert canonical_language(language.alpha_3) == shortest
