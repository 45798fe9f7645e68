"""My account in Chromium: registration, profile, second factor, keys, sessions, and languages."""

import re
from pathlib import Path
from typing import Any

import pyotp
import pytest

from tests.images import image_bytes
from tests.processes import PASSWORD, wait_until
from tests.web.browser.conftest import Site, Visitor

pytestmark = pytest.mark.browser

NEW_PASSWORD = "another good passphrase"
PAGES = [
    f"/studio/account{path}"
    for path in (
        "",
        "/email",
        "/password",
        "/second-factor",
        "/sessions",
        "/keys",
        "/addresses",
        "/addresses/new",
        "/data",
        "/delete",
    )
]


async def inspect(visitor: Visitor, paths: list[str]) -> None:
    """Assert that pages are accessible, and fit at all widths."""
    for path in paths:
        await visitor.open(path)
        await visitor.accessible()
        await visitor.fits()


async def test_registration_and_profile(site: Site, visitor: Visitor, tmp_path: Path) -> None:
    page = visitor.page
    visitor.expect_status(422)
    await inspect(visitor, ["/studio/register", "/studio/forgot-password", "/studio/language"])
    await visitor.open("/studio/register")
    await page.fill("#name", "Ada Lovelace")
    await page.fill("#username", "ada.lovelace")
    await page.fill("#email", "ada.lovelace@example.com")
    await page.fill("#password", PASSWORD)
    await page.click("#register button")
    await page.wait_for_url("**/studio")
    await inspect(visitor, PAGES)

    await visitor.open("/studio/account")
    picture = tmp_path / "ada.jpg"
    picture.write_bytes(image_bytes())
    await page.set_input_files("#picture", picture)
    await page.click("#picture-form button")
    await page.wait_for_selector(".account-picture img")
    await page.wait_for_function("document.querySelector('.account-picture img')?.naturalWidth > 0")
    await page.fill("#bio", "Mathematician")
    await page.click("#profile button")
    await page.wait_for_selector("#flash .success")
    await visitor.screenshot("account-profile")

    # An error is beside its field, and the summary has the focus.
    await page.fill("#name", " ")
    await page.click("#profile button")
    await page.wait_for_selector("#name-error")
    assert await page.evaluate("document.activeElement.id") == "error-summary"
    await visitor.accessible()

    # The page stays open after a download, and another one works.
    await visitor.open("/studio/account/data")
    for _ in range(2):
        await page.fill("#password", PASSWORD)
        async with page.expect_download() as download:
            await page.click("#download-account button")
        assert (await download.value).suggested_filename == "account.zip"


async def test_second_factor_keys_and_sessions(site: Site, visitor: Visitor) -> None:
    page = visitor.page
    username = await site.create_user()
    await visitor.sign_in(username)
    await visitor.open("/studio/account/second-factor")
    await page.fill("#password", PASSWORD)
    await page.click("#second-factor-form button")
    secret = (await page.inner_text("#secret")).replace(" ", "")
    await visitor.accessible()
    await visitor.fits()
    await visitor.screenshot("second-factor")
    await page.fill("#code", pyotp.TOTP(secret).now())
    await page.click("#confirm-factor button")
    codes = await page.locator("#codes code").all_inner_texts()
    assert len(codes) == 10
    await visitor.accessible()
    await visitor.fits()

    await page.click("text=Sign out")
    await page.fill("#username", username)
    await page.fill("#password", PASSWORD)
    await page.click("#sign-in button")
    await visitor.accessible()
    await page.fill("#code", codes[0])
    await page.click("#sign-in-code button")
    await page.wait_for_url("**/studio")

    await visitor.open("/studio/account/keys")
    await page.fill("#name", "Deployment")
    await page.check("#scope-1")
    await page.fill("#password", PASSWORD)
    await page.click("#new-key button")
    assert (await page.inner_text("#key")).startswith("prk_")
    await visitor.accessible()
    await visitor.fits()
    await page.click("text=I have copied it")
    await visitor.accessible()
    await visitor.fits()
    await page.click("text=Delete")
    await page.click("dialog >> text=Continue")
    await page.wait_for_selector("text=You have no keys")

    await visitor.open("/studio/account/sessions")
    await page.click("text=Sign out everywhere")
    await page.click("dialog >> text=Continue")
    await page.wait_for_url("**/studio/sign-in")
    # The back button shows nothing of the account.
    await page.go_back()
    await page.wait_for_url("**/studio/sign-in?next=*")


def _reset_links(site: Site) -> list[str]:
    """Return the links for new passwords. Without a mail server, development logs mails."""
    return re.findall(r"http\S+/reset-password#token=[\w-]+", site.api.process.log)


def _next_link(site: Site, before: list[str]) -> str:
    """Return the first link that is not in `before`."""
    return wait_until(
        lambda: next((each for each in _reset_links(site) if each not in before), None), "a mail"
    )


async def test_forgotten_password(site: Site, visitor: Visitor) -> None:
    page = visitor.page
    username = await site.create_user()
    before = _reset_links(site)
    await visitor.open("/studio/sign-in")
    await page.click("text=Forgot your password?")
    await page.fill("#email", f"{username}@example.com")
    await page.click("#forgot-password button")
    await page.wait_for_selector("#flash")
    link = _next_link(site, before)
    await page.goto(site.url + "/studio/reset-password#" + link.partition("#")[2])
    # The token has left the address bar, and its field is not shown.
    await page.wait_for_function("location.hash === ''")
    assert "token" not in page.url
    assert not await page.is_visible("#token")
    await visitor.accessible()
    await visitor.fits()
    await page.fill("#password", NEW_PASSWORD)
    await page.click("#reset-password button")
    await page.wait_for_url("**/studio/sign-in")
    await visitor.sign_in(username, password=NEW_PASSWORD)


async def test_language(site: Site, visitor: Visitor) -> None:
    await visitor.sign_in(await site.create_user())
    await visitor.open("/studio/account")
    await visitor.page.click("text=Language")
    await visitor.page.check("input[value=de]")
    await visitor.page.click("#language-form button")
    assert await visitor.page.inner_text("h1") == "Profil"
    for path in PAGES:
        await visitor.open(path)
        await visitor.fits()


class TestWithoutScripts:
    @pytest.fixture
    def browser_options(self) -> dict[str, Any]:
        return {"java_script_enabled": False, "locale": "en-US"}

    async def test_pasted_link(self, site: Site, visitor: Visitor) -> None:
        username = await site.create_user()
        before = _reset_links(site)
        await visitor.open("/studio/forgot-password")
        await visitor.page.fill("#email", f"{username}@example.com")
        await visitor.page.click("#forgot-password button")
        link = _next_link(site, before)
        await visitor.open("/studio/reset-password")
        await visitor.page.fill("#token", link)
        await visitor.page.fill("#password", NEW_PASSWORD)
        await visitor.page.click("#reset-password button")
        await visitor.sign_in(username, password=NEW_PASSWORD)
