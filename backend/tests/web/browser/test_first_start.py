"""The first start in Chromium: from the log's code to the administrator's studio."""

import re
from collections.abc import Iterator

import pytest

from tests.databases import application_url, migrated_database
from tests.e2e.conftest import checkout  # noqa: F401 - a fixture
from tests.processes import PASSWORD, Checkout, serving, wait_until
from tests.web.browser.conftest import Site, Visitor

pytestmark = pytest.mark.browser

CODE = re.compile(r"[a-z2-7]{4}(?:-[a-z2-7]{4}){4}")


@pytest.fixture(scope="module")
def site(checkout: Checkout) -> Iterator[Site]:  # noqa: F811 - the imported fixture
    with migrated_database() as url, serving(checkout, DATABASE_URL=application_url(url)) as api:
        yield Site(api, url)


async def test_first_start(site: Site, visitor: Visitor) -> None:
    page = visitor.page
    visitor.expect_status(403)
    code = wait_until(lambda: CODE.search(site.api.process.log), "a code in the log")[0]
    await visitor.open("/studio")
    await visitor.accessible()
    await visitor.fits()
    await page.click("text=Create the first administrator")
    await visitor.accessible()
    await visitor.fits()
    await visitor.screenshot("first-start")
    await page.fill("#code", "aaaa-bbbb-cccc-dddd-eeee")
    await page.fill("#name", "Ada Lovelace")
    await page.fill("#username", "ada")
    await page.fill("#email", "ada@example.com")
    await page.fill("#password", PASSWORD)
    await page.click("#first-start button")
    await page.wait_for_selector("#code-error")
    await visitor.accessible()
    await page.fill("#code", code)
    await page.fill("#password", PASSWORD)
    await page.click("#first-start button")
    await page.wait_for_url("**/studio")
    assert "administrator" in await page.inner_text("#flash")
    await page.click("text=Sign out")
    await page.wait_for_url("**/studio/sign-in")
    assert await page.locator("#first-start").count() == 0
