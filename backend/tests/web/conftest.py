"""Fixtures of tests of pages. The cookies are Secure, so the base URL has https."""

from collections.abc import Awaitable, Callable

import httpx
import pytest
from fastapi import FastAPI

from app.models import User
from tests.factories import PASSWORD
from tests.web.pages import Page, visit

SignIn = Callable[[User], Awaitable[Page]]
OpenAs = Callable[[User, str], Awaitable[Page]]


@pytest.fixture
def pages(app: FastAPI) -> httpx.AsyncClient:
    """Return a client like a browser: it keeps cookies and accepts HTML."""
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False),
        base_url="https://testserver",
        headers={"Accept": "text/html", "Accept-Language": "en"},
    )


@pytest.fixture
def sign_in(pages: httpx.AsyncClient) -> SignIn:
    """Return a function that signs in a user of the factories with the form."""

    async def sign_in(user: User) -> Page:
        pages.cookies.clear()
        form = await visit(pages, "/studio/sign-in")
        shown = await form.submit(pages, username=user.username, password=PASSWORD)
        assert shown.status == 200, shown.text
        return shown

    return sign_in


@pytest.fixture
def open_as(pages: httpx.AsyncClient, sign_in: SignIn) -> OpenAs:
    """Return a function that signs in a user, and opens a page."""

    async def open_as(user: User, path: str) -> Page:
        await sign_in(user)
        return await visit(pages, path)

    return open_as
