"""Pages from right to left in Chromium: a theme adds a catalogue in Arabic letters."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.databases import application_url, migrated_database
from tests.e2e.conftest import checkout  # noqa: F401 - a fixture
from tests.processes import Checkout, serving
from tests.web.browser.conftest import Site, Visitor
from tests.web.browser.test_account import PAGES
from tests.web.pseudo import write_catalogue

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def site(
    checkout: Checkout,  # noqa: F811 - the imported fixture
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    theme = tmp_path_factory.mktemp("theme")
    write_catalogue(theme, "ar")
    with (
        migrated_database() as url,
        serving(checkout, DATABASE_URL=application_url(url), WEB_THEME_DIR=str(theme)) as api,
    ):
        yield Site(api, url)


@pytest.fixture
def browser_options() -> dict[str, Any]:
    return {"locale": "ar"}


async def test_pages(site: Site, visitor: Visitor) -> None:
    for path in ("/studio/sign-in", "/studio/register", "/studio/forgot-password"):
        await visitor.sizes(path)
    await visitor.sign_in(await site.create_user(role="admin"))
    assert await visitor.page.evaluate("document.documentElement.dir") == "rtl"
    for path in ("/studio", *PAGES):
        await visitor.sizes(path)
    # The navigation is at the right of the content.
    sides = await visitor.page.evaluate(
        "['.studio-navigation', 'main'].map("
        "each => document.querySelector(each).getBoundingClientRect().left)"
    )
    assert sides[0] > sides[1]
    await visitor.accessible()
    await visitor.screenshot("right-to-left")
