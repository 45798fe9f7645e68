"""Catalogues: each text of a template or a page has a translation, and none is left over."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path

import httpx
import pytest
from babel.messages.extract import extract_from_dir
from babel.messages.pofile import read_po

from app.core import errors
from app.core.errors import PressroomError
from app.web import localization
from tests.web.pages import visit

WEB = Path(localization.__file__).parent
METHODS = [("**.py", "python"), ("**.html", "jinja2.ext:babel_extract")]
OPTIONS = {"**.html": {"trimmed": "true", "silent": "false"}}
KEYWORDS = {"_": None, "gettext": None, "ngettext": (1, 2), "N_": None}
LANGUAGES = sorted(set(localization.catalogues()) - {localization.SOURCE})


@cache
def messages() -> set[str | tuple[str, ...]]:
    """Return the texts of all templates and modules, as pairs if they have a plural."""
    found = extract_from_dir(WEB, METHODS, OPTIONS, keywords=KEYWORDS, strip_comment_tags=True)
    return {each[2] for each in found}


def texts() -> set[str]:
    """Return the texts of all templates and modules, in singular."""
    return {each if isinstance(each, str) else each[0] for each in messages()}


def error_texts() -> Iterator[str]:
    """Yield the messages of the catalogue of errors, which may be translated."""
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, PressroomError):
            yield kind.message


@pytest.mark.parametrize("language", LANGUAGES)
def test_every_text_is_translated(language: str) -> None:
    translated: dict[str, list[str]] = {}
    for file in (WEB / "locales" / language / "LC_MESSAGES").glob("*.po"):
        with file.open("rb") as source:
            catalogue = read_po(source, locale=language)
        for message in catalogue:
            if not message.id:
                continue
            name = message.id if isinstance(message.id, str) else message.id[0]
            assert not message.fuzzy, name
            strings = [message.string] if isinstance(message.string, str) else message.string
            assert strings, name
            assert all(strings), f"{file.name} has no translation of {name!r}"
            assert not list(message.check(catalogue)), name
            known = translated.setdefault(name, list(strings))
            assert known == list(strings), f"{name!r} has two translations"
    assert texts() - set(translated) == set(), "missing"
    assert set(translated) - texts() - set(error_texts()) == set(), "unused"
    assert set(error_texts()) - set(translated) == set(), "translate errors in errors.po"


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("de", "de"),
        ("de-AT,en;q=0.5", "de"),
        ("en;q=0.4,de;q=0.9", "de"),
        ("fr,en", "en"),
        ("xx;q=y,*", "en"),
        ("de;q=0", "en"),
        ("", "en"),
    ],
)
async def test_language_of_the_browser(
    pages: httpx.AsyncClient, accepted: str, language: str
) -> None:
    pages.headers["Accept-Language"] = accepted
    shown = await visit(pages, "/studio/sign-in")
    assert shown.html.get("lang") == language
    heading = {"de": "Anmelden", "en": "Sign in"}[language]
    assert shown.xpath("//h1")[0].text == heading


def test_direction() -> None:
    with localization.use_language("ar"):
        assert localization.direction() == "rtl"
    assert localization.direction() == "ltr"
