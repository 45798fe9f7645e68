"""Fixtures of browser stories: a started server, and a visitor in Chromium.

A story fails if a page violates its Content-Security-Policy, logs an error to the console, or
throws. It also fails if a request of the page fails.
"""

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal
from uuid import uuid4

import pytest

from app.core.config import PROJECT_DIR
from tests.browsers import ARGUMENTS, require_browser
from tests.databases import application_url, execute, migrated_database
from tests.e2e.conftest import checkout  # noqa: F401 - a fixture
from tests.processes import PASSWORD, Api, Checkout, free_port, serving

if TYPE_CHECKING:
    from playwright.async_api import Browser, ConsoleMessage, Page, Response

WIDTHS = (360, 768, 1440)
SCREENSHOTS = PROJECT_DIR / ".data" / "screenshots"
SERIOUS = frozenset({"serious", "critical"})
AXE_TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"]
# Of these rules, only the contrast depends on the theme.
AXE_RULES: dict[Literal["light", "dark"], dict[str, object]] = {
    "light": {"type": "tag", "values": AXE_TAGS},
    "dark": {"type": "rule", "values": ["color-contrast"]},
}

# By default, axe describes what passes, too, and parses all styles for rules that are not run.
AXE_OPTIONS = {"resultTypes": ["violations"], "preload": {"assets": ["media"]}}


@dataclass(frozen=True)
class Site:
    """The started server, and its database."""

    api: Api
    database: str

    @property
    def url(self) -> str:
        """The URL for a browser: on `localhost`, Chromium accepts Secure cookies."""
        return self.api.url.replace("127.0.0.1", "localhost")

    async def create_user(self, *, role: str = "author", username: str | None = None) -> str:
        """Register a user with PASSWORD, and return the username."""
        username = username or f"user{uuid4().hex[:8]}"
        response = await asyncio.to_thread(self.api.register, username)
        assert response.status_code == 201, response.text
        statement = f"UPDATE users SET role = '{role}' WHERE username = '{username}'"
        await asyncio.to_thread(execute, self.database, statement)
        return username


class Visitor:
    """A page of Chromium, and what went wrong in it."""

    def __init__(self, page: "Page", site: Site) -> None:
        self.page = page
        self.site = site
        self.problems: list[str] = []
        self._expected: set[int] = set()
        page.on("console", self._note_console)
        page.on("pageerror", lambda error: self.problems.append(f"exception: {error}"))
        page.on("requestfailed", lambda each: self._note_failure(each.url, each.failure))
        page.on("response", self._note_response)

    def expect_status(self, *statuses: int) -> None:
        """Accept responses with these error statuses."""
        self._expected.update(statuses)

    def _note_console(self, message: "ConsoleMessage") -> None:
        # The status of a response is checked by itself.
        if message.type == "error" and not message.text.startswith("Failed to load resource"):
            self.problems.append(f"console: {message.text}")

    def _note_failure(self, url: str, failure: str | None) -> None:
        if failure != "net::ERR_ABORTED":  # the visitor left the page
            self.problems.append(f"request failed: {url} {failure}")

    def _note_response(self, response: "Response") -> None:
        if response.status >= 400 and response.status not in self._expected:
            self.problems.append(f"status {response.status}: {response.url}")

    async def open(self, path: str) -> None:
        await self.page.goto(f"{self.site.url}{path}")

    async def sign_in(self, username: str, *, password: str = PASSWORD) -> None:
        await self.open("/studio/sign-in")
        await self.page.fill("#username", username)
        await self.page.fill("#password", password)
        await self.page.click("#sign-in button")
        await self.page.wait_for_url("**/studio")

    async def accessible(self) -> None:
        """Assert that axe finds nothing serious, in the light and in the dark theme."""
        from axe_playwright_python.async_playwright import Axe

        axe, loaded = Axe(), Axe("null")  # its script is 500 KB
        try:
            for scheme, rules in AXE_RULES.items():
                await self.page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
                found = await axe.run(self.page, options=AXE_OPTIONS | {"runOnly": rules})
                axe = loaded
                serious = [
                    f"{each['id']}: {node['html']} {node.get('failureSummary', '')}"
                    for each in found.response["violations"]
                    if each["impact"] in SERIOUS
                    for node in each["nodes"]
                ]
                assert not serious, f"{self.page.url} {scheme}: {serious}"
        finally:
            await self.page.emulate_media(color_scheme="null", reduced_motion="null")

    async def counts(self, selector: str, number: int) -> None:
        """Wait until the page has this number of elements."""
        from playwright.async_api import expect

        await expect(self.page.locator(selector)).to_have_count(number)

    async def fits(self) -> None:
        """Assert that the page does not scroll sideways at any of the widths."""
        for width in WIDTHS:
            await self.page.set_viewport_size({"width": width, "height": 800})
            overflow: int = await self.page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            assert overflow <= 0, f"{self.page.url} overflows by {overflow} px at {width} px"

    async def sizes(self, path: str) -> None:
        """Open a page, and assert that it fits at all widths."""
        await self.open(path)
        await self.fits()

    async def screenshot(self, name: str, *, width: int = 1440) -> None:
        """Set the width, and store a screenshot of the whole page in `.data/screenshots`.

        With BROWSER_SCREENSHOTS=0, nothing is stored: a screenshot takes 0.1 to 0.3 s of CPU time.
        """
        await self.page.set_viewport_size({"width": width, "height": 900})
        if os.environ.get("BROWSER_SCREENSHOTS") != "0":
            SCREENSHOTS.mkdir(parents=True, exist_ok=True)
            await self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)


@pytest.fixture(scope="session")
def site(checkout: Checkout) -> Iterator[Site]:  # noqa: F811 - the imported fixture
    """Start a server with its own database."""
    with migrated_database() as url:
        # Without PORT, the URLs of images would have another one.
        settings = {"DATABASE_URL": application_url(url), "PORT": str(free_port())}
        with serving(checkout, **settings) as api:
            yield Site(api, url)


@pytest.fixture(scope="session")
async def browser() -> AsyncIterator["Browser"]:
    executable = require_browser()
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        await browser.close()


@pytest.fixture
def browser_options() -> dict[str, Any]:
    """Options of the visitor's context; a test may override this fixture."""
    return {"locale": "en-US", "timezone_id": "Europe/Berlin"}


@pytest.fixture
async def visitor(
    browser: "Browser", site: Site, browser_options: dict[str, Any]
) -> AsyncIterator[Visitor]:
    context = await browser.new_context(**browser_options)
    visitor = Visitor(await context.new_page(), site)
    yield visitor
    await context.close()
    assert visitor.problems == []
