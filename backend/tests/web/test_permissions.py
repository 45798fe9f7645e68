"""Each page for each kind of caller. A page that is not in the table fails."""

import re
from dataclasses import dataclass
from typing import NamedTuple

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from app.core import clock
from app.core.enums import Role
from app.models import User
from app.web.csrf import FIELD
from tests.databases import database_within, savepoint_of
from tests.factories import create_article, create_comment, create_user
from tests.web.pages import browser, form_token, open_session, visit

ORIGIN = {"Origin": "https://testserver", "Sec-Fetch-Site": "same-origin"}


class Statuses(NamedTuple):
    """The status for each caller. 303 of a GET leads to the sign-in page."""

    anonymous: int
    author: int
    editor: int
    admin: int


EXPECTED: dict[str, Statuses] = {
    "GET /read": Statuses(200, 200, 200, 200),
    "GET /read/archive": Statuses(200, 200, 200, 200),
    "GET /read/archive/{year}/{month}": Statuses(200, 200, 200, 200),
    "GET /read/articles": Statuses(200, 200, 200, 200),
    "GET /read/articles/{slug}": Statuses(200, 200, 200, 200),
    "GET /read/articles/{slug}/comments": Statuses(200, 200, 200, 200),
    "GET /read/articles/{slug}/comments/new": Statuses(303, 200, 200, 200),
    "POST /read/articles/{slug}/comments/new": Statuses(401, 422, 422, 422),
    "GET /read/articles/{slug}/report": Statuses(303, 200, 200, 200),
    "POST /read/articles/{slug}/report": Statuses(401, 422, 422, 422),
    "GET /read/authors/{username}": Statuses(200, 200, 200, 200),
    "GET /read/comments/{comment_id}": Statuses(200, 200, 200, 200),
    "POST /read/comments/{comment_id}/delete": Statuses(401, 403, 303, 303),
    "GET /read/comments/{comment_id}/edit": Statuses(303, 404, 404, 404),
    "POST /read/comments/{comment_id}/edit": Statuses(401, 404, 404, 404),
    "GET /read/comments/{comment_id}/report": Statuses(303, 200, 200, 200),
    "POST /read/comments/{comment_id}/report": Statuses(401, 422, 422, 422),
    "GET /read/comments/{comment_id}/thread": Statuses(200, 200, 200, 200),
    "GET /read/search": Statuses(200, 200, 200, 200),
    "GET /read/search/suggest": Statuses(200, 200, 200, 200),
    "GET /read/tags": Statuses(200, 200, 200, 200),
    "GET /read/tags/{slug}": Statuses(200, 200, 200, 200),
    "GET /studio": Statuses(303, 200, 200, 200),
    "GET /studio/articles": Statuses(303, 200, 200, 200),
    "POST /studio/articles": Statuses(401, 422, 422, 422),
    "GET /studio/articles/new": Statuses(303, 200, 200, 200),
    "POST /studio/articles/pictures": Statuses(401, 422, 422, 422),
    "POST /studio/articles/preview": Statuses(401, 200, 200, 200),
    "GET /studio/articles/tags": Statuses(303, 200, 200, 200),
    "POST /studio/articles/{article_id}": Statuses(401, 404, 404, 404),
    "POST /studio/articles/{article_id}/delete": Statuses(401, 404, 404, 404),
    "GET /studio/articles/{article_id}/edit": Statuses(303, 404, 404, 404),
    "GET /studio/articles/{article_id}/links": Statuses(303, 404, 404, 404),
    "POST /studio/articles/{article_id}/links": Statuses(401, 404, 404, 404),
    "POST /studio/articles/{article_id}/links/{link_id}/delete": Statuses(401, 404, 404, 404),
    "GET /studio/articles/{article_id}/revisions": Statuses(303, 404, 404, 404),
    "GET /studio/articles/{article_id}/revisions/{revision_id}": Statuses(303, 404, 404, 404),
    "POST /studio/articles/{article_id}/revisions/{revision_id}": Statuses(401, 404, 404, 404),
    "GET /studio/calendar": Statuses(303, 200, 200, 200),
    "GET /studio/calendar/{article_id}": Statuses(303, 404, 404, 404),
    "POST /studio/calendar/{article_id}": Statuses(401, 404, 404, 404),
    "GET /studio/previews/{token}": Statuses(404, 404, 404, 404),
    "GET /studio/trash": Statuses(303, 200, 200, 200),
    "POST /studio/trash/{article_id}/delete": Statuses(401, 404, 404, 404),
    "POST /studio/trash/{article_id}/restore": Statuses(401, 404, 404, 404),
    "GET /studio/account": Statuses(303, 200, 200, 200),
    "POST /studio/account": Statuses(401, 303, 303, 303),
    "GET /studio/account/addresses": Statuses(303, 200, 200, 200),
    "GET /studio/account/addresses/new": Statuses(303, 200, 200, 200),
    "POST /studio/account/addresses/new": Statuses(401, 422, 422, 422),
    "GET /studio/account/addresses/{address_id}": Statuses(303, 404, 404, 404),
    "POST /studio/account/addresses/{address_id}": Statuses(401, 404, 404, 404),
    "POST /studio/account/addresses/{address_id}/delete": Statuses(401, 303, 303, 303),
    "GET /studio/account/data": Statuses(303, 200, 200, 200),
    "POST /studio/account/data": Statuses(401, 422, 422, 422),
    "GET /studio/account/data/articles/{export_format}": Statuses(303, 200, 200, 200),
    "GET /studio/account/delete": Statuses(303, 200, 200, 200),
    "POST /studio/account/delete": Statuses(401, 422, 422, 422),
    "GET /studio/account/email": Statuses(303, 200, 200, 200),
    "POST /studio/account/email": Statuses(401, 422, 422, 422),
    "POST /studio/account/email/verify": Statuses(401, 303, 303, 303),
    "GET /studio/account/keys": Statuses(303, 200, 200, 200),
    "POST /studio/account/keys": Statuses(401, 422, 422, 422),
    "POST /studio/account/keys/{key_id}/delete": Statuses(401, 303, 303, 303),
    "GET /studio/account/password": Statuses(303, 200, 200, 200),
    "POST /studio/account/password": Statuses(401, 422, 422, 422),
    "POST /studio/account/picture": Statuses(401, 422, 422, 422),
    "POST /studio/account/picture/remove": Statuses(401, 303, 303, 303),
    "GET /studio/account/second-factor": Statuses(303, 200, 200, 200),
    "POST /studio/account/second-factor": Statuses(401, 422, 422, 422),
    "GET /studio/account/second-factor/codes": Statuses(303, 200, 200, 200),
    "POST /studio/account/second-factor/codes": Statuses(401, 422, 422, 422),
    "GET /studio/account/second-factor/confirm": Statuses(303, 303, 303, 303),
    "POST /studio/account/second-factor/confirm": Statuses(401, 303, 303, 303),
    "GET /studio/account/second-factor/disable": Statuses(303, 200, 200, 200),
    "POST /studio/account/second-factor/disable": Statuses(401, 422, 422, 422),
    "GET /studio/account/sessions": Statuses(303, 200, 200, 200),
    "POST /studio/account/sessions/all/end": Statuses(401, 303, 303, 303),
    "POST /studio/account/sessions/others/end": Statuses(401, 303, 303, 303),
    "POST /studio/account/sessions/{session_id}/end": Statuses(401, 303, 303, 303),
    "GET /studio/confirm-registration": Statuses(200, 200, 200, 200),
    "POST /studio/confirm-registration": Statuses(422, 422, 422, 422),
    "GET /studio/first-start": Statuses(200, 200, 200, 303),
    "POST /studio/first-start": Statuses(422, 422, 422, 422),
    "GET /studio/forgot-password": Statuses(200, 200, 200, 200),
    "POST /studio/forgot-password": Statuses(422, 422, 422, 422),
    "GET /studio/language": Statuses(200, 200, 200, 200),
    "POST /studio/language": Statuses(303, 303, 303, 303),
    "GET /studio/register": Statuses(200, 303, 303, 303),
    "POST /studio/register": Statuses(422, 303, 303, 303),
    "GET /studio/resend-verification": Statuses(200, 200, 200, 200),
    "POST /studio/resend-verification": Statuses(422, 422, 422, 422),
    "GET /studio/reset-password": Statuses(200, 200, 200, 200),
    "POST /studio/reset-password": Statuses(422, 422, 422, 422),
    "GET /studio/verify-email": Statuses(200, 200, 200, 200),
    "POST /studio/verify-email": Statuses(422, 422, 422, 422),
    "GET /studio/confirm": Statuses(303, 200, 200, 200),
    "POST /studio/confirm": Statuses(401, 422, 422, 422),
    "GET /studio/sign-in": Statuses(200, 303, 303, 303),
    "POST /studio/sign-in": Statuses(422, 422, 422, 422),
    "GET /studio/sign-in/code": Statuses(303, 303, 303, 303),
    "POST /studio/sign-in/code": Statuses(303, 303, 303, 303),
    "POST /studio/sign-out": Statuses(303, 303, 303, 303),
    "GET /studio/moderation": Statuses(303, 200, 200, 200),
    "POST /studio/moderation/comments": Statuses(401, 422, 422, 422),
    "GET /studio/moderation/reports": Statuses(303, 403, 200, 200),
    "POST /studio/moderation/reports": Statuses(401, 403, 422, 422),
    "POST /studio/moderation/reports/{report_id}": Statuses(401, 403, 404, 404),
    "GET /studio/media": Statuses(303, 200, 200, 200),
    "POST /studio/media": Statuses(401, 422, 422, 422),
    "GET /studio/media/{media_id}": Statuses(303, 404, 404, 404),
    "POST /studio/media/{media_id}": Statuses(401, 404, 404, 404),
    "POST /studio/media/{media_id}/delete": Statuses(401, 404, 404, 404),
    "GET /studio/admin": Statuses(303, 403, 403, 200),
    "POST /studio/admin/maintenance": Statuses(401, 403, 403, 422),
    "POST /studio/admin/maintenance/end": Statuses(401, 403, 403, 303),
    "GET /studio/admin/audit": Statuses(303, 403, 403, 200),
    "GET /studio/admin/mails": Statuses(303, 403, 403, 200),
    "POST /studio/admin/mails/requeue": Statuses(401, 403, 403, 303),
    "GET /studio/admin/settings": Statuses(303, 403, 403, 200),
    "GET /studio/admin/users": Statuses(303, 403, 403, 200),
    "GET /studio/admin/users/{user_id}": Statuses(303, 403, 403, 404),
    "POST /studio/admin/users/{user_id}/role": Statuses(401, 403, 403, 404),
    "POST /studio/admin/users/{user_id}/disable": Statuses(401, 403, 403, 404),
    "POST /studio/admin/users/{user_id}/enable": Statuses(401, 403, 403, 404),
    "POST /studio/admin/users/{user_id}/sessions/end": Statuses(401, 403, 403, 404),
    "POST /studio/admin/users/{user_id}/password-link": Statuses(401, 403, 403, 404),
    "POST /studio/admin/users/{user_id}/second-factor/remove": Statuses(401, 403, 403, 404),
    "POST /studio/admin/users/{user_id}/login-limits/reset": Statuses(401, 403, 403, 404),
    "POST /studio/admin/users/{user_id}/limits": Statuses(401, 403, 403, 404),
    "GET /studio/admin/users/{user_id}/delete": Statuses(303, 403, 403, 404),
    "POST /studio/admin/users/{user_id}/delete": Statuses(401, 403, 403, 404),
    "GET /studio/admin/keys": Statuses(303, 403, 403, 200),
    "POST /studio/admin/keys/{key_id}/delete": Statuses(401, 403, 403, 404),
    "GET /studio/admin/imports": Statuses(303, 200, 200, 200),
    "POST /studio/admin/imports": Statuses(401, 422, 422, 422),
    "GET /studio/admin/imports/{import_id}": Statuses(303, 404, 404, 404),
    "GET /studio/admin/imports/{import_id}/report": Statuses(303, 404, 404, 404),
    "POST /studio/admin/imports/{import_id}/cancel": Statuses(401, 404, 404, 404),
    "GET /studio/admin/tags": Statuses(303, 403, 200, 200),
    "GET /studio/admin/tags/{slug}": Statuses(303, 403, 404, 404),
    "POST /studio/admin/tags/{slug}": Statuses(401, 403, 404, 404),
    "POST /studio/admin/tags/{slug}/delete": Statuses(401, 403, 404, 404),
}
"""Requests without a query or fields. Only readers' pages are those of existing objects."""
CALLERS = Statuses._fields
EXAMPLES = {"export_format": "ndjson"}
"""Values of path parameters that are no ids."""


@dataclass(frozen=True)
class Browser:
    """The cookies of a browser, and the token that its forms need."""

    cookies: httpx.Cookies
    token: str


@dataclass(frozen=True)
class Given:
    """What each case begins with: a user who has signed in, a visitor, and a public article."""

    user: User
    signed_in: Browser
    visitor: Browser
    parameters: dict[str, str]
    """The parameters of the pages of the article, its author and its comment."""


@pytest.fixture(scope="module")
async def given(shared_app: FastAPI, module_connection: AsyncConnection) -> Given:
    database = shared_app.state.database = database_within(module_connection)
    client = browser(shared_app)
    token = form_token(await visit(client, "/studio/sign-in"))
    visitor = Browser(httpx.Cookies(client.cookies), token)
    async with database.unit_of_work() as session:
        user = await create_user(session)
        await open_session(client, session, user=user)
        author = await create_user(session, username="owner")
        moment = clock.now()
        article = await create_article(
            session, author=author, slug="owned", tags=["Owned"], published_at=moment
        )
        comment = await create_comment(session, article=article, author=author)
    parameters = {
        "{slug}": "owned",
        "{username}": "owner",
        "{comment_id}": str(comment.id),
        "{year}": f"{moment:%Y}",
        "{month}": f"{moment:%m}",
    }
    token = form_token(await visit(client, "/studio"))
    return Given(user, Browser(httpx.Cookies(client.cookies), token), visitor, parameters)


@pytest.fixture
def connection(module_connection: AsyncConnection, given: Given) -> AsyncConnection:
    """The connection of all cases. Each request has a savepoint, which is rolled back."""
    return module_connection


@pytest.mark.parametrize("route", EXPECTED)
async def test_every_page_for_every_caller(
    pages: httpx.AsyncClient, connection: AsyncConnection, given: Given, route: str
) -> None:
    method, path = route.split()
    if path.startswith("/read"):
        for name, value in given.parameters.items():
            path = path.replace(name, value)
    path = re.sub(r"\{(\w+)(:\w+)?\}", lambda name: EXAMPLES.get(name[1], "999999999"), path)
    responses = {}
    for caller in CALLERS:
        browser = given.visitor if caller == "anonymous" else given.signed_in
        pages.cookies = httpx.Cookies(browser.cookies)
        data = {FIELD: browser.token} if method == "POST" else None
        async with savepoint_of(connection):
            if caller != "anonymous":
                role = update(User).where(User.id == given.user.id).values(role=Role(caller))
                await connection.execute(role)
            responses[caller] = await pages.request(method, path, data=data, headers=ORIGIN)
    statuses = {caller: response.status_code for caller, response in responses.items()}
    texts = {caller: response.text for caller, response in responses.items()}
    assert statuses == EXPECTED[route]._asdict(), texts


def test_every_page_is_in_the_table(shared_app: FastAPI) -> None:
    routes = {
        f"{method} {route.path}"
        for route in shared_app.state.pages.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    }
    assert routes == set(EXPECTED)
