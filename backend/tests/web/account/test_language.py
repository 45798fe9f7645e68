"""The choice of a language, catalogues of a theme, and right-to-left pages."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.config import get_settings
from app.web import localization
from tests.factories import create_user
from tests.web.conftest import SignIn
from tests.web.pages import HOSTILE, no_markup, visit
from tests.web.pseudo import write_catalogue


async def test_chosen_language(pages: httpx.AsyncClient) -> None:
    form = await visit(pages, "/studio/language?next=/studio/forgot-password")
    assert form.xpath("//input[@checked]/@value") == [""]
    shown = await form.submit(pages, language="de")
    assert (shown.path, shown.flash) == (
        "/studio/forgot-password",
        ["Die Sprache wurde geändert."],
    )
    assert (await visit(pages, "/studio/sign-in")).html.get("lang") == "de"
    form = await visit(pages, "/studio/language")
    assert form.xpath("//input[@checked]/@value") == ["de"]
    back = await form.submit(pages, language="")
    assert (await visit(pages, "/studio/sign-in")).html.get("lang") == "en"
    assert back.path == "/studio/sign-in"  # `/studio` without a session


@pytest.mark.parametrize("language", ["xx", HOSTILE, "../de"])
async def test_unknown_language(pages: httpx.AsyncClient, language: str) -> None:
    form = await visit(pages, "/studio/language")
    refused = await form.submit(pages, language=language)
    assert (refused.status, list(refused.errors)) == (422, ["language"])
    pages.cookies.set("__Host-pressroom-language", "zz")
    assert (await visit(pages, "/studio/sign-in")).html.get("lang") == "en"


async def test_next_stays_here(pages: httpx.AsyncClient) -> None:
    form = await visit(pages, "/studio/language?next=//evil.example")
    shown = await form.submit(pages, language="de", next="https://evil.example")
    assert shown.response.url.host == "testserver"


@pytest.fixture
def arabic(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Add a theme with a catalogue whose texts are written from right to left."""
    write_catalogue(tmp_path, "ar")
    settings = get_settings().model_copy(update={"web_theme_dir": tmp_path})
    monkeypatch.setattr(localization, "get_settings", lambda: settings)
    localization.catalogues.cache_clear()
    yield
    localization.catalogues.cache_clear()


@pytest.mark.usefixtures("arabic")
async def test_right_to_left(
    pages: httpx.AsyncClient, session: AsyncSession, sign_in: SignIn
) -> None:
    await sign_in(await create_user(session, name=HOSTILE))
    pages.headers["Accept-Language"] = "ar"
    for path in ("/studio", "/studio/account", "/studio/account/sessions"):
        shown = await visit(pages, path)
        assert (shown.html.get("dir"), shown.html.get("lang")) == ("rtl", "ar")
        no_markup(shown)
        assert "Sign out" not in shown.text
    # German is still there.
    pages.headers["Accept-Language"] = "de"
    assert (await visit(pages, "/studio")).html.get("dir") == "ltr"


def test_a_new_language_has_its_plural_forms(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    folder = tmp_path / "locales" / "pl" / "LC_MESSAGES"
    folder.mkdir(parents=True)
    # As editors of catalogues write it. Without it, the image does not know the language.
    rule = "(n==1 ? 0 : n%10>=2 && n%10<=4 && (n%100<12 || n%100>14) ? 1 : 2)"
    header = f'msgid ""\nmsgstr "Plural-Forms: nplurals=3; plural={rule};\\n"\n\n'
    for name, noun in (("a", "article"), ("b", "comment")):
        entry = f'msgid "{noun}"\nmsgid_plural "{noun}s"\n'
        forms = "".join(f'msgstr[{form}] "{noun} {form}"\n' for form in range(3))
        (folder / f"{name}.po").write_text(header + entry + forms)
    settings = get_settings().model_copy(update={"web_theme_dir": tmp_path})
    monkeypatch.setattr(localization, "get_settings", lambda: settings)
    localization.catalogues.cache_clear()
    try:
        with localization.use_language("pl"):
            for noun in ("article", "comment"):
                shown = [localization.ngettext(noun, f"{noun}s", number) for number in (1, 3, 5)]
                assert shown == [f"{noun} 0", f"{noun} 1", f"{noun} 2"]
    finally:
        localization.catalogues.cache_clear()
