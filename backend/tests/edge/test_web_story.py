"""A writer and a reader use the pages in Chromium, through nginx and over HTTPS."""

from typing import TYPE_CHECKING
from uuid import uuid4

import httpx
import pytest

from tests.edge.stack import register
from tests.edge.test_browser import browser
from tests.edge.test_tls import certificates, https_port, secure, trusting
from tests.processes import PASSWORD

if TYPE_CHECKING:
    from playwright.async_api import Browser, ConsoleMessage, Page, Response

pytestmark = pytest.mark.alone  # Chromium drops its connections when a container starts

__all__ = ["browser", "certificates", "https_port", "secure", "trusting"]

CACHED = {"HIT", "STALE", "UPDATING"}


class Visitor:
    """A browser of its own, with the problems that its console reports."""

    def __init__(self, page: "Page", url: str) -> None:
        self.page = page
        self.url = url
        self.problems: list[str] = []
        page.on("pageerror", lambda error: self.problems.append(str(error)))
        page.on("console", self._note)

    def _note(self, message: "ConsoleMessage") -> None:
        if message.type == "error":
            self.problems.append(message.text)

    @classmethod
    async def start(cls, browser: "Browser", url: str) -> "Visitor":
        # The certificate is checked in test_tls.py.
        context = await browser.new_context(ignore_https_errors=True, locale="en-US")
        return cls(await context.new_page(), url)

    async def open(self, path: str) -> "Response":
        response = await self.page.goto(f"{self.url}{path}")
        assert response is not None
        assert response.ok, f"{path}: {response.status}"
        return response

    async def cache_states(self, path: str) -> list[str]:
        """Open a page three times, and return how nginx answered."""
        return [(await self.open(path)).headers["x-cache"] for _ in range(3)]


async def test_article_from_the_editor_to_the_reader(
    browser: "Browser",
    https_port: int,
    secure: httpx.Client,
) -> None:
    name, title = f"writer{uuid4().hex[:8]}", f"Notes on looms {uuid4().hex[:8]}"
    register(secure, name)
    url = f"https://localhost:{https_port}"
    writer, reader = await Visitor.start(browser, url), await Visitor.start(browser, url)
    assert (await reader.cache_states("/read/articles"))[-1] in CACHED
    assert title not in await reader.page.content()

    await writer.open("/studio/sign-in")
    await writer.page.fill("#username", name)
    await writer.page.fill("#password", PASSWORD)
    await writer.page.click("#sign-in button")
    await writer.page.wait_for_url("**/studio")
    cookies = {each["name"]: each for each in await writer.page.context.cookies()}
    session = cookies["__Host-pressroom"]
    assert (session["secure"], session["httpOnly"], session["path"]) == (True, True, "/")

    await writer.open("/studio/articles/new")
    await writer.page.fill("#title", title)
    await writer.page.fill("#content", "They **weave** patterns.")
    await writer.page.click("text=Publish now")
    await writer.page.wait_for_selector("#flash :text('The article is published.')")

    # nginx asks the backend again after a second.
    for _ in range(20):
        await reader.open("/read/articles")
        if await reader.page.get_by_role("link", name=title).count():
            break
        await reader.page.wait_for_timeout(250)
    await reader.page.get_by_role("link", name=title).first.click()
    await reader.page.wait_for_selector("article strong:text('weave')")
    path = reader.page.url.removeprefix(url)
    assert (await reader.cache_states(path))[-1] in CACHED
    assert await reader.page.context.cookies() == []

    # Neither pages of the studio, nor those that a signed-in writer opens, are shared.
    for personal in ("/studio", "/studio/articles", "/studio/account"):
        assert set(await writer.cache_states(personal)) == {"BYPASS"}
        response = await writer.open(personal)
        assert "no-store" in response.headers["cache-control"]
        assert name in await writer.page.content()
    assert set(await writer.cache_states(path)) == {"BYPASS"}
    assert (await reader.cache_states(path))[-1] in CACHED
    await reader.open("/studio")
    assert reader.page.url.startswith(f"{url}/studio/sign-in")
    assert name not in await reader.page.content()

    await writer.open("/studio")
    await writer.page.locator('form[action="/studio/sign-out"] button').first.click()
    await writer.page.wait_for_url("**/studio/sign-in")
    await writer.page.go_back()
    assert title not in await writer.page.content()
    assert (writer.problems, reader.problems) == ([], [])
