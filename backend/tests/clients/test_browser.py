"""The TypeScript client in Chromium: several tabs, and the starter with a login session."""

import asyncio
import base64
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

from tests.clients.test_starters import build
from tests.processes import PASSWORD, Api
from tests.web.browser.conftest import browser

if TYPE_CHECKING:
    from playwright.async_api import Browser, BrowserContext, Page, Route

__all__ = ["browser"]

pytestmark = [pytest.mark.clients, pytest.mark.xdist_group("typescript")]

PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
CREATE_CLIENT = """async (baseUrl) => {
  const { createClient } = await import('/src/index.js');
  window.api = createClient({ baseUrl, refreshToken: 'cookie' });
}"""
LOG_IN = "async ([username, password]) => { await api.login({ body: { username, password } }); }"
EXPIRE = "() => api.session.store.set({ ...api.session.store.get(), expires_at: 0 })"
READ_THREE_TIMES = """async () => {
  const users = await Promise.all([1, 2, 3].map(() => api.readIdentity()));
  return users.map(({ username }) => username);
}"""


class Files(SimpleHTTPRequestHandler):
    """Static files, without a log."""

    def log_request(self, code: object = "-", size: object = "-") -> None:
        pass


@contextmanager
def static(folder: Path) -> Iterator[str]:
    """Serve the files of a folder, and yield the address."""
    with ThreadingHTTPServer(("localhost", 0), partial(Files, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://localhost:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def address(api: Api) -> str:
    """Return the address on `localhost`: the cookie is for the host of the page."""
    return api.url.replace("127.0.0.1", "localhost")


@pytest.fixture
async def context(browser: "Browser") -> AsyncIterator["BrowserContext"]:
    context = await browser.new_context()
    yield context
    await context.close()


@pytest.fixture
def paths(context: "BrowserContext") -> list[str]:
    """The paths of the requests to the API, as they are sent."""
    paths: list[str] = []

    def note(request: Any) -> None:
        if request.method != "OPTIONS":
            paths.append(urlsplit(request.url).path)

    context.on("request", note)
    return paths


async def test_tabs_refresh_once(
    typescript: Path, api: Api, context: "BrowserContext", paths: list[str]
) -> None:
    assert api.register("tabs").status_code == 201
    (typescript / "dist" / "index.html").write_text("<!doctype html><title>Tabs</title>")
    with static(typescript / "dist") as url:
        tabs = [await context.new_page() for _ in range(2)]
        for tab in tabs:
            await tab.goto(url)
            await tab.evaluate(CREATE_CLIENT, address(api))
        await tabs[0].evaluate(LOG_IN, ["tabs", PASSWORD])
        for tab in tabs:  # the second one gets the tokens of the first
            await tab.wait_for_function("api.session.store.get()")
        assert await tabs[0].evaluate("api.session.store.get().refresh_token") is None
        for tab in tabs:
            await tab.evaluate(EXPIRE)
        both_started = asyncio.Event()

        async def wait(route: "Route") -> None:
            await both_started.wait()
            await route.continue_()

        await context.route("**/auth/refresh", wait)
        for tab in tabs:
            await tab.evaluate(f"() => {{ window.reading = ({READ_THREE_TIMES})(); }}")
        both_started.set()
        for tab in tabs:
            assert await tab.evaluate("() => window.reading") == ["tabs"] * 3
        assert paths.count("/auth/refresh") == 1

        await tabs[1].evaluate("() => api.logOut()")
        await tabs[0].wait_for_function("api.session.store.get() === null")
        assert await tabs[0].evaluate("() => api.restore()") is False


async def test_vue_starter(
    npm: str, typescript: Path, api: Api, context: "BrowserContext", tmp_path: Path
) -> None:
    from playwright.async_api import expect

    assert api.register("vue").status_code == 201
    folder = build(npm, "vue", VITE_API_URL=address(api))
    image = tmp_path / "pixel.png"
    image.write_bytes(PIXEL)
    with static(folder / "dist") as url:
        page = await context.new_page()
        await page.goto(url)
        await log_in(page, "wrong password")
        await expect(page.get_by_role("alert")).to_have_text("Wrong name or password")
        await log_in(page, PASSWORD)
        await expect(page.get_by_role("heading", name="Ada Lovelace")).to_be_visible()

        await page.get_by_label("Image").set_input_files(image)
        await expect(page.get_by_label("Text")).to_have_value(re.compile(r"!\[pixel\.png\]\(http"))
        await expect(page.locator("progress")).to_have_js_property("value", 1)
        await page.get_by_label("Title").fill("From Vue")
        await page.get_by_role("button", name="Save draft").click()
        await expect(page.get_by_role("listitem")).to_have_text(["From Vue (draft)"])

        # The cookie continues the session in another tab, and after a reload.
        other = await context.new_page()
        await other.goto(url)
        await expect(other.get_by_role("listitem")).to_have_text(["From Vue (draft)"])
        await page.reload()
        await expect(page.get_by_role("listitem")).to_have_text(["From Vue (draft)"])
        await other.get_by_role("button", name="Log out").click()
        await expect(page.get_by_label("Password")).to_be_visible()


async def log_in(page: "Page", password: str) -> None:
    await page.get_by_label("Name").fill("vue")
    await page.get_by_label("Password").fill(password)
    await page.get_by_role("button", name="Log in").click()
