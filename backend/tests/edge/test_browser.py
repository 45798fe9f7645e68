"""A page on another origin uses the API through nginx in Chromium."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
from jose import jwt

from app.core.config import Settings
from tests.browsers import ARGUMENTS, require_browser
from tests.edge.stack import FRONT_END, Stack
from tests.images import image_bytes
from tests.processes import HOST, PASSWORD, SECRET_KEY

if TYPE_CHECKING:
    from playwright.async_api import Browser, Page

pytestmark = pytest.mark.alone  # Chromium drops its connections when a container starts

PAGE = Path(__file__).with_name("front_end.html")


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


@contextmanager
def front_end(port: int) -> Iterator[None]:
    """Serve the page of the front end, from an origin that differs from that of the API."""
    handler = partial(QuietHandler, directory=str(PAGE.parent))
    with ThreadingHTTPServer((HOST, port), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
async def browser() -> AsyncIterator["Browser"]:
    executable = require_browser()
    from playwright.async_api import async_playwright

    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=executable, args=ARGUMENTS)
        yield browser
        await browser.close()


class FrontEnd:
    """The page in the browser, and what its console reports."""

    def __init__(self, page: "Page") -> None:
        self.page = page
        self.console: list[str] = []
        page.on("console", lambda message: self.console.append(message.text))

    async def open(self, stack: Stack, *, origin: str = FRONT_END) -> None:
        # On `localhost`, the page and the API are the same site, so that cookies are sent.
        await self.page.goto(f"{origin}/{PAGE.name}?api=http://localhost:{stack.port}")

    async def submit(self, form: str, **fields: str) -> dict[str, Any]:
        """Fill a form in, submit it, and return the status, the body and `Retry-After`."""
        for name, value in fields.items():
            await self.page.fill(f"#{form} [name={name}]", value)
        await self.page.click(f"#{form} button")
        await self.page.wait_for_function("document.getElementById('result').textContent")
        shown: dict[str, Any] = json.loads(await self.page.inner_text("#result"))
        return shown


def expired(token: str) -> str:
    """Return the access token as it would be a minute after its end."""
    claims = jwt.get_unverified_claims(token)
    now = datetime.now(UTC)
    claims |= {
        "iat": now - timedelta(minutes=16),
        "nbf": now - timedelta(minutes=16),
        "exp": now - timedelta(minutes=1),
    }
    return str(jwt.encode(claims, SECRET_KEY, headers=jwt.get_unverified_header(token)))


async def test_front_end_on_another_origin(stack: Stack, browser: "Browser") -> None:
    from playwright.async_api import FilePayload

    name = f"browser{uuid4().hex[:10]}"
    port = urlsplit(FRONT_END).port
    assert port is not None
    with front_end(port):
        page = FrontEnd(await browser.new_page())
        await page.open(stack)
        signed_up = await page.submit("sign-up", username=name, password=PASSWORD)
        assert signed_up["status"] == 200, signed_up
        assert signed_up["body"]["refresh_token"] is None
        taken = await page.submit("sign-up", username=name, password=PASSWORD)
        assert (taken["status"], taken["body"]["code"]) == (409, "email_taken")

        await page.page.reload()
        assert (await page.submit("refresh", times="1"))["status"] == 200

        written = await page.submit("write", title="From a browser", content="Across origins.")
        assert written["status"] == 201, written
        renamed = await page.submit("rename", title="Renamed in a browser")
        assert (renamed["status"], renamed["body"]["title"]) == (200, "Renamed in a browser")
        outdated = await page.submit("rename", title="Renamed again")
        assert outdated["status"] == 412

        image = FilePayload(name="a.png", mimeType="image/png", buffer=image_bytes("PNG"))
        await page.page.set_input_files("#upload [name=file]", image)
        assert (await page.submit("upload"))["status"] == 201
        await page.page.wait_for_function("picture.complete && picture.naturalWidth === 400")

        token = await page.page.evaluate("token")
        await page.page.evaluate("expired => { token = expired }", expired(token))
        repeated = await page.submit("write", title="After a refresh", content="Still here.")
        assert repeated["status"] == 201, repeated
        assert await page.page.evaluate("token") not in {token, expired(token)}

        # nginx returns these errors itself.
        large = await page.page.evaluate(
            "size => sendJson('POST', '/articles', { content: 'x'.repeat(size) })",
            Settings.model_fields["max_body_bytes"].default,
        )
        assert (large["status"], large["body"]["code"]) == (413, "content_too_large")
        limited = await page.submit("overload", times="400")
        assert (limited["status"], limited["body"]["code"]) == (429, "too_many_requests")
        assert limited["retryAfter"] == "1"
        assert not [line for line in page.console if "CORS" in line]

        # The same page from an origin that is not in CORS_ORIGINS.
        other = FRONT_END.replace("localhost", HOST)
        await page.open(stack, origin=other)
        refused = await page.submit("sign-up", username=f"{name}b", password=PASSWORD)
        assert (refused["status"], refused["body"]) == (0, {"message": "Failed to fetch"})
        assert [line for line in page.console if "CORS" in line]
    log = stack.project.output("logs", "--no-log-prefix", "backend")
    lines = re.findall(rf".*origin {re.escape(other)} .*", log)
    assert len(lines) == 1
    assert f"CORS_ORIGINS={stack.environment['CORS_ORIGINS']},{other}" in lines[0]
