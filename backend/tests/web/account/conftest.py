"""Fixtures of the account's pages."""

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import User
from tests.factories import create_user
from tests.web.conftest import SignIn


@pytest.fixture
async def user(pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession) -> User:
    """Return an author who has signed in."""
    user = await create_user(session)
    await sign_in(user)
    return user
