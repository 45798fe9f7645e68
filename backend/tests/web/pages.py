"""Pages as tests see them: parsed HTML, and forms that are filled in and submitted."""

from collections.abc import Iterable
from typing import Any
from urllib.parse import urljoin

import httpx
from fastapi import FastAPI
from lxml import html
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Client
from app.models import User
from app.services.accounts.sessions import open_page_session
from app.web.csrf import SESSION_COOKIE
from tests.factories import PASSWORD

HOSTILE = """"'><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7777*7777 }}"""
"""Text that is harmful where it is not escaped."""


class Page:
    """A response with a page."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self.status = response.status_code
        self.html: html.HtmlElement = html.document_fromstring(response.text)
        for area in self.html.iter("textarea"):  # browsers drop the first line break
            area.text = (area.text or "").removeprefix("\n")

    def xpath(self, expression: str) -> list[Any]:
        found: list[Any] = self.html.xpath(expression)
        return found

    @property
    def text(self) -> str:
        return " ".join(self.html.text_content().split())

    @property
    def title(self) -> str:
        return str(self.html.findtext(".//title"))

    @property
    def path(self) -> str:
        return self.response.url.path

    @property
    def flash(self) -> list[str]:
        return [each.text_content().strip() for each in self.xpath('//*[@id="flash"]/*')]

    @property
    def errors(self) -> dict[str, str]:
        """The errors beside the fields by the names of the fields."""
        found = self.xpath('//*[contains(@class, "field-error")]')
        return {each.get("id").removesuffix("-error"): each.text_content() for each in found}

    @property
    def summary(self) -> list[str]:
        """The errors of the summary."""
        return [each.text_content().strip() for each in self.xpath('//*[@id="error-summary"]//li')]

    def form(self, form: str | None = None, fields: Iterable[str] = ()) -> html.FormElement:
        """Return the form with an id (`#id`), an action (`/path`), or these fields."""
        for each in self.html.forms:
            if form is None:
                matches = set(fields) <= set(each.fields.keys()) and each.get("method") == "post"
            else:
                matches = form in {f"#{each.get('id')}", each.get("action")}
            if matches:
                return each
        raise AssertionError(f"no form {form or list(fields)} in {self.path}: {self.text[:500]}")

    async def submit(
        self,
        client: httpx.AsyncClient,
        *,
        form: str | None = None,
        button: str | None = None,
        files: dict[str, Any] | None = None,
        follow: bool = True,
        **fields: Any,
    ) -> "Page":
        """Fill in and submit a form, and follow the redirect.

        A field with a list is sent several times; one with None is not sent. `button` is the name
        of the button, with its value.
        """
        element = self.form(form, fields)
        values: dict[str, list[str]] = {}
        for name, value in element.form_values():
            values.setdefault(name, []).append(value)
        if button:
            (pressed,) = element.xpath(f'.//button[@name="{button}"]')
            values[button] = [pressed.get("value", "")]
        for name, value in fields.items():
            values[name] = [] if value is None else value if isinstance(value, list) else [value]
        url = urljoin(str(self.response.url), element.get("action") or "")
        method = (element.get("method") or "get").upper()
        if method == "GET":
            return Page(await client.get(url, params=values, follow_redirects=follow))
        response = await client.post(
            url,
            data=values,
            files=files,
            headers={"Origin": "https://testserver", "Sec-Fetch-Site": "same-origin"},
            follow_redirects=follow,
        )
        return Page(response) if response.text else response  # type: ignore[return-value]  # a redirect


def browser(app: FastAPI) -> httpx.AsyncClient:
    """Return a client like a browser: it keeps cookies and accepts HTML."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False),
        base_url="https://testserver",
        headers={"Accept": "text/html", "Accept-Language": "en"},
    )


async def open_session(client: httpx.AsyncClient, session: AsyncSession, *, user: User) -> None:
    """Replace the cookies of the client by that of a new page session, as after sign-in."""
    token = await open_page_session(session, user_id=user.id, client=Client(None, ""))
    client.cookies.clear()
    client.cookies.set(SESSION_COOKIE, str(token), domain="testserver.local", path="/")


async def sign_in_with_form(client: httpx.AsyncClient, user: User) -> Page:
    """Sign in a user of the factories, and return the first page."""
    client.cookies.clear()
    form = await visit(client, "/studio/sign-in")
    shown = await form.submit(client, username=user.username, password=PASSWORD)
    assert shown.status == 200, shown.text
    return shown


def form_token(page: Page) -> str:
    """Return the token that forms of this browser need."""
    return str(page.xpath('//meta[@name="csrf-token"]/@content')[0])


async def visit(client: httpx.AsyncClient, path: str, *, status: int = 200) -> Page:
    """Open a page, and follow redirects."""
    response = await client.get(path, follow_redirects=True)
    assert response.status_code == status, response.text
    return Page(response)


def no_markup(page: Page, hostile: str = HOSTILE) -> None:
    """Assert that a hostile text is shown as text, and makes no elements."""
    assert hostile in page.html.text_content() or hostile in {
        value for each in page.html.iter() for value in each.attrib.values()
    }
    assert not page.xpath('//script[contains(., "alert")] | //*[@onerror]')
    assert "60481729" not in page.text
