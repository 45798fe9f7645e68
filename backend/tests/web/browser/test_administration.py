"""Administration in Chromium: users, keys, the audit trail, mails, imports, tags, and health."""

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.web.browser.conftest import Site, Visitor

if TYPE_CHECKING:
    from playwright.async_api import FilePayload

pytestmark = pytest.mark.browser

PAGES = {
    "health": "/studio/admin",
    "users": "/studio/admin/users",
    "keys": "/studio/admin/keys",
    "audit": "/studio/admin/audit",
    "mails": "/studio/admin/mails",
    "settings": "/studio/admin/settings",
    "imports": "/studio/admin/imports",
    "tags": "/studio/admin/tags",
}


async def test_administration(site: Site, visitor: Visitor) -> None:
    page = visitor.page
    author = await site.create_user(username="mary")
    await asyncio.to_thread(_prepare, site, author)
    await visitor.sign_in(await site.create_user(role="admin"))
    for name, path in PAGES.items():
        await visitor.open(path)
        await visitor.accessible()
        await visitor.fits()
        await visitor.screenshot(f"administration-{name}")

    await visitor.open("/studio/admin/users")
    await page.fill("#q", author)
    await page.keyboard.press("Enter")
    await visitor.counts("tbody tr", 1)
    await page.click("tbody a")
    await page.wait_for_url("**/studio/admin/users/*")
    await page.click("text=Show and change the limits")
    await visitor.accessible()
    await visitor.fits()
    await visitor.screenshot("administration-user-narrow", width=360)
    await visitor.screenshot("administration-user")
    await page.fill("#limit-comments", "many")
    await page.fill("#limit-drafts", "12")
    visitor.expect_status(422)
    await page.click("text=Save the limits")
    await page.wait_for_selector("#limit-comments-error")
    assert await page.evaluate("document.activeElement.id") == "error-summary"
    await visitor.accessible()
    await page.fill("#limit-comments", "34")
    await page.click("text=Save the limits")
    await page.wait_for_selector("text=The limits were saved.")
    await page.select_option("#role", "editor")
    await page.click("#change-role button")
    await page.wait_for_selector("text=now has the role “Editor”.")
    await visitor.open("/studio/admin/audit")
    await page.fill("#actor", author)
    await page.keyboard.press("Enter")
    await page.wait_for_selector(f"#results tbody a:text('@{author}')")
    await page.go_back()
    await page.click("text=Disable the account")
    await page.click("dialog button[value=yes]")
    await page.wait_for_selector("text=The account is disabled.")


def _prepare(site: Site, username: str) -> None:
    """Create an article with a tag, and an API key."""
    client, headers = site.api.client, site.api.bearer(username)
    article = {"title": "On looms", "content": "Text.", "published": True, "tags": ["Looms"]}
    client.post("/articles", json=article, headers=headers).raise_for_status()
    key = {"name": "Deployment", "scopes": ["articles:read"], "password": "correct horse battery"}
    client.post("/users/me/api-keys", json=key, headers=headers).raise_for_status()


async def test_import_and_tags(site: Site, visitor: Visitor) -> None:
    page = visitor.page
    await visitor.sign_in(await site.create_user(role="editor"))
    await visitor.open("/studio/admin/imports")
    lines = [
        json.dumps({"title": f"Imported {n}", "content": "Text.", "tags": ["Old looms"]})
        for n in range(40)
    ]
    file: FilePayload = {
        "name": "articles.ndjson",
        "mimeType": "text/plain",
        "buffer": "\n".join([*lines, "{}"]).encode(),
    }
    await page.set_input_files("#file", [file])
    await page.uncheck("#dry_run")
    await page.click("#import button")
    await page.wait_for_selector("text=Completed")
    await visitor.accessible()
    await visitor.fits()
    await visitor.screenshot("administration-import-narrow", width=360)
    await visitor.screenshot("administration-import")
    await visitor.open("/studio/admin/tags?q=Old")
    await page.click("tbody a")
    await page.fill("#name", "New looms")
    await page.click("#rename button")
    await page.wait_for_selector("text=The tag was saved.")
    await visitor.accessible()
    await visitor.fits()


class TestDark:
    @pytest.fixture
    def browser_options(self) -> dict[str, Any]:
        return {"color_scheme": "dark", "locale": "de-DE"}

    async def test_german(self, site: Site, visitor: Visitor) -> None:
        """The longer texts of another language fit, too."""
        await visitor.sign_in(await site.create_user(role="admin"))
        for name, path in {**PAGES, "moderation": "/studio/moderation"}.items():
            await visitor.sizes(path)
            await visitor.screenshot(f"german-{name}", width=360)
