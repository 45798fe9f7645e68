"""The parts of all pages in Chromium: sign-in, errors, languages, and no scripts."""

from typing import Any

import pytest

from tests.processes import PASSWORD
from tests.web.browser.conftest import Site, Visitor

pytestmark = pytest.mark.browser


async def test_sign_in_and_out(site: Site, visitor: Visitor) -> None:
    username = await site.create_user(role="editor")
    visitor.expect_status(401)
    await visitor.open("/studio?from=here")
    await visitor.accessible()
    await visitor.fits()
    await visitor.page.fill("#username", username)
    await visitor.page.fill("#password", "incorrect")
    await visitor.page.click("#sign-in button")
    await visitor.page.wait_for_selector("#error-summary")
    assert await visitor.page.evaluate("document.activeElement.id") == "error-summary"
    await visitor.accessible()
    await visitor.page.fill("#password", PASSWORD)
    await visitor.page.click("#sign-in button")
    await visitor.page.wait_for_url("**/studio?from=here")
    await visitor.accessible()
    await visitor.fits()
    await visitor.page.click("text=Sign out")
    await visitor.page.wait_for_url("**/studio/sign-in")
    assert await visitor.page.inner_text("#flash") == "You have signed out."
    await visitor.page.go_back()
    await visitor.page.wait_for_url("**/studio/sign-in?next=*")


async def test_error_page(visitor: Visitor) -> None:
    visitor.expect_status(404)
    await visitor.open("/read/unknown")
    await visitor.accessible()
    await visitor.fits()


async def test_inserted_markup_is_refused(visitor: Visitor) -> None:
    """Trusted Types: only our policy turns text into elements."""
    await visitor.open("/studio/sign-in")
    refused = await visitor.page.evaluate(
        "() => { try { document.body.innerHTML = '<p>'; return false } catch { return true } }"
    )
    assert refused
    assert any("TrustedHTML" in each or "Trusted" in each for each in visitor.problems)
    visitor.problems.clear()


class TestWithoutScripts:
    @pytest.fixture
    def browser_options(self) -> dict[str, Any]:
        return {"java_script_enabled": False, "locale": "de-DE"}

    async def test_sign_in(self, site: Site, visitor: Visitor) -> None:
        await visitor.sign_in(await site.create_user())
        assert await visitor.page.inner_text("h1") == "Übersicht"
