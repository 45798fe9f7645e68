"""Fixtures of tests of pages. The cookies are Secure, so the base URL has https."""

from collections.abc import Awaitable, Callable

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import User
from tests.web.pages import Page, browser, open_session, visit

SignIn = Callable[[User], Awaitable[Page]]
OpenAs = Callable[[User, str], Awaitable[Page]]


@pytest.fixture
def pages(app: FastAPI) -> httpx.AsyncClient:
    """Return a client like a browser: it keeps cookies and accepts HTML."""
    return browser(app)


@pytest.fixture
def sign_in(pages: httpx.AsyncClient, session: AsyncSession) -> SignIn:
    """Return a function that signs in a user of the factories, and returns the first page.

    It sends no form: tests/web/test_sign_in.py does.
    """

    async def sign_in(user: User) -> Page:
        await open_session(pages, session, user=user)
        return await visit(pages, "/studio")

    return sign_in


@pytest.fixture
def open_as(pages: httpx.AsyncClient, sign_in: SignIn) -> OpenAs:
    """Return a function that signs in a user, and opens a page."""

    async def open_as(user: User, path: str) -> Page:
        await sign_in(user)
        return await visit(pages, path)

    return open_as
