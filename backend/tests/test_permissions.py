"""Permissions of every route for every kind of caller. Every route must be in the table."""

import re
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.auth.tokens import new_preview_token
from app.core import clock
from app.core.enums import Role
from app.models import User
from tests.databases import database_within, savepoint_of
from tests.factories import (
    PASSWORD,
    api_key,
    bearer,
    create_address,
    create_api_key,
    create_article,
    create_comment,
    create_import,
    create_mail,
    create_media,
    create_preview_link,
    create_report,
    create_revision,
    create_session,
    create_user,
    create_webhook,
    create_webhook_delivery,
)

CALLERS = (
    "anonymous",
    "other user",
    "owner",
    "editor",
    "admin",
    "disabled",
    "api key without scope",
)

USER = {"email": "new@example.com", "username": "newname", "name": "New"}
REGISTRATION = {**USER, "password": "correct horse battery"}
NEW_PASSWORD = "staple of a better battery"
CONFIRMATION = {"password": PASSWORD, "code": "000000"}
ADDRESS = {"label": "home", "line1": "1 Street", "city": "Town", "country": "GB"}
WEBHOOK = {"url": "https://example.com/hook", "events": ["article.published"]}
SPAN = {"since": "2026-11-20T09:00:00Z", "until": "2026-11-20T10:00:00Z"}
ARTICLE = {"title": "Title", "content": "Long enough."}


@dataclass(frozen=True)
class Expectation:
    """Statuses for each caller, in the order of CALLERS, of a request for a row of the owner."""

    statuses: tuple[int, int, int, int, int, int, int]
    body: dict[str, Any] | None = None


def everyone(status: int, **options: Any) -> Expectation:
    """The same status for everyone, because the route ignores tokens."""
    return Expectation((status,) * 7, **options)


def everyone_with_valid_token(status: int) -> Expectation:
    """The same status for everyone, except for an invalid token or a missing scope."""
    return Expectation((status,) * 5 + (401, 403))


def authenticated(status: int, **options: Any) -> Expectation:
    return Expectation((401, status, status, status, status, 401, 403), **options)


def owner_or_admin(status: int, **options: Any) -> Expectation:
    """Allowed for the owner and administrators."""
    return Expectation((401, 403, status, 403, status, 401, 403), **options)


def editor_or_admin(status: int, **options: Any) -> Expectation:
    return Expectation((401, 403, 403, status, status, 401, 403), **options)


def owner_or_editor_of_public(status: int, **options: Any) -> Expectation:
    """Allowed for the owner, editors and administrators; 403 for others, who see the article."""
    return Expectation((401, 403, status, status, status, 401, 403), **options)


def owner_or_editor_of_private(status: int, **options: Any) -> Expectation:
    """Allowed for the owner, editors and administrators; 404 for others, who must not see it."""
    return Expectation((401, 404, status, status, status, 401, 403), **options)


def owner_or_admin_of_private(status: int, **options: Any) -> Expectation:
    """Allowed for the owner and administrators; 404 for others, who must not see it."""
    return Expectation((401, 404, status, 404, status, 401, 403), **options)


def admin_only(status: int, **options: Any) -> Expectation:
    return Expectation((401, 403, 403, 403, status, 401, 403), **options)


EXPECTED = {
    "POST /auth/login": everyone(422),
    "POST /auth/login/second-factor": everyone(401, body={"challenge": "x", "code": "000000"}),
    "POST /auth/refresh": everyone(401),
    "POST /auth/logout": Expectation((401, 204, 204, 204, 204, 401, 403)),
    "POST /auth/logout-all": authenticated(204),
    "GET /auth/me": authenticated(200),
    "GET /auth/sessions": authenticated(200),
    "DELETE /auth/sessions/{session_id}": Expectation((401, 404, 204, 404, 404, 401, 403)),
    "GET /auth/second-factor": authenticated(200),
    "POST /auth/second-factor": authenticated(201, body={"password": PASSWORD}),
    "POST /auth/second-factor/confirm": authenticated(409, body={"code": "000000"}),
    "POST /auth/second-factor/recovery-codes": authenticated(409, body=CONFIRMATION),
    "POST /auth/second-factor/disable": authenticated(409, body=CONFIRMATION),
    "POST /auth/password/forgot": everyone(202, body={"email": "owner@example.com"}),
    "POST /auth/password/reset": everyone(400, body={"token": "x" * 43, "password": NEW_PASSWORD}),
    "POST /auth/email/verify": everyone(400, body={"token": "x" * 43}),
    "POST /auth/email/verify/resend": everyone(202, body={"email": "owner@example.com"}),
    "GET /.well-known/jwks.json": everyone(200),
    "POST /users": everyone(201, body=REGISTRATION),
    "GET /users": everyone_with_valid_token(200),
    "GET /users/me": authenticated(200),
    "PATCH /users/me": authenticated(200, body={"name": "New"}),
    "POST /users/me/password": authenticated(
        204, body={"current_password": PASSWORD, "new_password": NEW_PASSWORD}
    ),
    "POST /users/me/export": authenticated(200, body={"password": PASSWORD}),
    "POST /users/me/email": authenticated(
        202, body={"email": "new@example.com", "password": PASSWORD}
    ),
    "POST /users/me/api-keys": authenticated(
        201, body={"name": "site", "scopes": ["articles:read"], "password": PASSWORD}
    ),
    "GET /users/me/api-keys": authenticated(200),
    "DELETE /users/me/api-keys/{api_key_id}": Expectation((401, 404, 204, 404, 404, 401, 403)),
    "GET /webhooks": authenticated(200),
    "POST /webhooks": authenticated(201, body=WEBHOOK),
    "GET /webhooks/{webhook_id}": owner_or_admin_of_private(200),
    "PATCH /webhooks/{webhook_id}": owner_or_admin_of_private(200, body={"is_active": False}),
    "DELETE /webhooks/{webhook_id}": owner_or_admin_of_private(204),
    "POST /webhooks/{webhook_id}/secret": owner_or_admin_of_private(200),
    "POST /webhooks/{webhook_id}/test": owner_or_admin_of_private(202),
    "POST /webhooks/{webhook_id}/replay": owner_or_admin_of_private(202, body=SPAN),
    "GET /webhooks/{webhook_id}/deliveries": owner_or_admin_of_private(200),
    "GET /webhooks/{webhook_id}/deliveries/{delivery_id}": owner_or_admin_of_private(200),
    "POST /webhooks/{webhook_id}/deliveries/{delivery_id}/replay": owner_or_admin_of_private(202),
    "GET /users/{user_id}": everyone_with_valid_token(200),
    "PUT /users/{user_id}": owner_or_admin(200, body={**USER, "email": "owner@example.com"}),
    "DELETE /users/{user_id}": owner_or_admin(204, body={"password": PASSWORD}),
    "PATCH /users/{user_id}/role": admin_only(200, body={"role": "editor"}),
    "GET /users/{user_id}/limits": owner_or_admin(200),
    "GET /users/{user_id}/limits/use": owner_or_admin(200),
    "PUT /users/{user_id}/limits": admin_only(200, body={"limits": {"comments": 600}}),
    "POST /users/{user_id}/disable": admin_only(200),
    "POST /users/{user_id}/enable": admin_only(200),
    "GET /users/{user_id}/addresses": owner_or_admin(200),
    "POST /users/{user_id}/addresses": owner_or_admin(201, body=ADDRESS),
    "GET /users/{user_id}/addresses/{address_id}": owner_or_admin(200),
    "PUT /users/{user_id}/addresses/{address_id}": owner_or_admin(200, body=ADDRESS),
    "DELETE /users/{user_id}/addresses/{address_id}": owner_or_admin(204),
    "GET /changes": everyone(200),
    "GET /changes/stream": everyone_with_valid_token(200),
    "GET /feed.xml": everyone(200),
    "GET /atom.xml": everyone(200),
    "GET /feed.json": everyone(200),
    "GET /authors/{username}/feed.xml": everyone(200),
    "GET /authors/{username}/atom.xml": everyone(200),
    "GET /authors/{username}/feed.json": everyone(200),
    "GET /tags/{slug}/feed.xml": everyone(200),
    "GET /tags/{slug}/atom.xml": everyone(200),
    "GET /tags/{slug}/feed.json": everyone(200),
    "GET /sitemap.xml": everyone(200),
    "GET /sitemaps/{number}.xml": everyone(200),
    "GET /robots.txt": everyone(200),
    "GET /llms.txt": everyone(200),
    "GET /articles": everyone_with_valid_token(200),
    "POST /articles/import": authenticated(415),
    "GET /articles/imports": authenticated(200),
    "GET /articles/imports/{import_id}": Expectation((401, 404, 200, 404, 404, 401, 403)),
    "GET /articles/imports/{import_id}/report": Expectation((401, 404, 200, 404, 404, 401, 403)),
    "POST /articles/imports/{import_id}/cancel": Expectation((401, 404, 200, 404, 404, 401, 403)),
    "GET /articles/export": authenticated(200),
    "GET /search": everyone_with_valid_token(422),
    "GET /search/suggest": everyone_with_valid_token(422),
    "GET /articles/by-slug/{slug}": everyone_with_valid_token(200),
    "GET /articles/{slug}.md": everyone_with_valid_token(200),
    "GET /articles/{article_id}": everyone_with_valid_token(200),
    "GET /articles/{draft_id}": Expectation((404, 404, 200, 200, 200, 401, 403)),
    "POST /articles": authenticated(201, body=ARTICLE),
    "PATCH /articles/{article_id}": Expectation((401, 403, 200, 200, 200, 401, 403), body={}),
    "PATCH /articles/{draft_id}": Expectation((401, 404, 200, 200, 200, 401, 403), body={}),
    "DELETE /articles/{article_id}": Expectation((401, 403, 204, 204, 204, 401, 403)),
    "DELETE /articles/{draft_id}": Expectation((401, 404, 204, 204, 204, 401, 403)),
    "GET /articles/{article_id}/revisions": owner_or_editor_of_public(200),
    "GET /articles/{draft_id}/revisions": owner_or_editor_of_private(200),
    "GET /articles/{article_id}/revisions/{revision_id}": owner_or_editor_of_public(200),
    "GET /articles/{article_id}/revisions/{revision_id}/diff": owner_or_editor_of_public(200),
    "POST /articles/{article_id}/revisions/{revision_id}/restore": owner_or_editor_of_public(200),
    "GET /articles/{article_id}/preview-links": owner_or_editor_of_public(200),
    "GET /articles/{draft_id}/preview-links": owner_or_editor_of_private(200),
    "POST /articles/{article_id}/preview-links": owner_or_editor_of_public(201),
    "POST /articles/{draft_id}/preview-links": owner_or_editor_of_private(201),
    "DELETE /articles/{article_id}/preview-links/{link_id}": owner_or_editor_of_public(204),
    "GET /previews/{token}": everyone(200),
    "GET /feed": authenticated(200),
    "GET /profiles/{username}": everyone_with_valid_token(200),
    "PUT /profiles/{username}/follow": Expectation((401, 200, 422, 200, 200, 401, 403)),
    "DELETE /profiles/{username}/follow": Expectation((401, 200, 422, 200, 200, 401, 403)),
    "PUT /profiles/{username}/block": Expectation((401, 200, 422, 200, 200, 401, 403)),
    "DELETE /profiles/{username}/block": Expectation((401, 200, 422, 200, 200, 401, 403)),
    "GET /profiles/{username}/followers": everyone_with_valid_token(200),
    "GET /profiles/{username}/following": everyone_with_valid_token(200),
    "GET /blocks": authenticated(200),
    "GET /articles/{article_id}/favorite": everyone_with_valid_token(200),
    "GET /articles/{draft_id}/favorite": Expectation((404, 404, 200, 200, 200, 401, 403)),
    "PUT /articles/{article_id}/favorite": authenticated(200),
    "PUT /articles/{draft_id}/favorite": owner_or_editor_of_private(200),
    "DELETE /articles/{article_id}/favorite": authenticated(200),
    "GET /articles/{article_id}/favorites": everyone_with_valid_token(200),
    "GET /articles/{draft_id}/favorites": Expectation((404, 404, 200, 200, 200, 401, 403)),
    "GET /articles/{article_id}/comments": everyone_with_valid_token(200),
    "GET /articles/{draft_id}/comments": Expectation((404, 404, 200, 200, 200, 401, 403)),
    "POST /articles/{article_id}/comments": authenticated(201, body={"content": "Indeed."}),
    "POST /articles/{draft_id}/comments": owner_or_editor_of_private(
        201, body={"content": "Indeed."}
    ),
    "GET /comments": authenticated(200),
    "GET /comments/{comment_id}": everyone_with_valid_token(200),
    "GET /comments/{draft_comment_id}": Expectation((404, 404, 200, 200, 200, 401, 403)),
    "GET /comments/{comment_id}/replies": everyone_with_valid_token(200),
    # The owner owns the article; a commenter wrote the comment.
    "PATCH /comments/{comment_id}": Expectation(
        (401, 403, 403, 403, 403, 401, 403), body={"content": "New"}
    ),
    "PATCH /comments/{own_comment_id}": Expectation(
        (401, 403, 200, 403, 403, 401, 403), body={"content": "New"}
    ),
    "DELETE /comments/{comment_id}": owner_or_editor_of_public(204),
    "DELETE /comments/{draft_comment_id}": owner_or_editor_of_private(204),
    "PATCH /comments/{comment_id}/moderation": owner_or_editor_of_public(
        200, body={"status": "hidden"}
    ),
    "PATCH /comments/{draft_comment_id}/moderation": owner_or_editor_of_private(
        200, body={"locked": True}
    ),
    "POST /articles/{article_id}/reports": authenticated(201, body={"reason": "Advertising"}),
    "POST /articles/{draft_id}/reports": owner_or_editor_of_private(
        201, body={"reason": "Advertising"}
    ),
    "POST /comments/{comment_id}/reports": authenticated(201, body={"reason": "Advertising"}),
    "GET /reports": editor_or_admin(200),
    "GET /reports/{report_id}": editor_or_admin(200),
    "PATCH /reports/{report_id}": editor_or_admin(200, body={"state": "resolved"}),
    "GET /tags": everyone_with_valid_token(200),
    "GET /tags/{slug}": everyone_with_valid_token(200),
    "PUT /tags/{slug}": editor_or_admin(200, body={"name": "Looms"}),
    "DELETE /tags/{slug}": editor_or_admin(204),
    "GET /trash": authenticated(200),
    "POST /articles/{trashed_id}/restore": owner_or_editor_of_private(200),
    "DELETE /trash/{trashed_id}": owner_or_editor_of_private(204),
    "POST /media": authenticated(415),
    "GET /media": authenticated(200),
    "GET /media/{media_id}": Expectation((401, 404, 200, 200, 200, 401, 403)),
    "PATCH /media/{media_id}": Expectation((401, 404, 200, 200, 200, 401, 403), body={}),
    "DELETE /media/{media_id}": Expectation((401, 404, 204, 204, 204, 401, 403)),
    "GET /media/{folder}/{name}": everyone(404),
    "GET /": everyone(200),
    "GET /admin/audit": admin_only(200),
    "GET /admin/audit/export": admin_only(200),
    "GET /admin/jobs": admin_only(200),
    "GET /admin/jobs/{job}/runs": admin_only(200),
    "POST /admin/jobs/{job}/run": admin_only(404),
    "GET /admin/mail": admin_only(200),
    "POST /admin/mail/{mail_id}/retry": admin_only(204),
    "DELETE /admin/mail/{waiting_mail_id}": admin_only(204),
    "GET /admin/sessions": admin_only(200),
    "DELETE /admin/sessions/{session_id}": admin_only(204),
    "GET /admin/stats": admin_only(200),
    "GET /admin/health": admin_only(200),
    "GET /admin/maintenance": admin_only(200),
    "PUT /admin/maintenance": admin_only(200, body={"message": "We are moving."}),
    "DELETE /admin/maintenance": admin_only(204),
    "GET /health": everyone(200),
    "GET /health/live": everyone(200),
    "GET /health/ready": everyone(200),
    "GET /raw/users": everyone_with_valid_token(200),
    "POST /raw/users": everyone(201, body=REGISTRATION),
    "GET /raw/users/{user_id}": everyone_with_valid_token(200),
    "PUT /raw/users/{user_id}": owner_or_admin(200, body={**USER, "email": "owner@example.com"}),
    "DELETE /raw/users/{user_id}": owner_or_admin(204, body={"password": PASSWORD}),
}


async def create_callers(session: AsyncSession) -> dict[str, User]:
    """Create a user for each kind of caller except the anonymous one."""
    return {
        "owner": await create_user(session, email="owner@example.com"),
        "other user": await create_user(session),
        "editor": await create_user(session, role=Role.EDITOR),
        "admin": await create_user(session, role=Role.ADMIN),
        "disabled": await create_user(session, is_active=False),
    }


async def create_rows(session: AsyncSession, owner: User) -> dict[str, Any]:
    """Create rows of the owner; return the path parameters for EXPECTED."""
    article = await create_article(session, author=owner, slug="engines", tags=["Engines"])
    trashed = await create_article(session, author=owner, deleted_at=clock.now())
    draft = await create_article(session, author=owner, published=False)
    commenter = await create_user(session)
    comment = await create_comment(session, article=article, author=commenter)
    webhook, _ = await create_webhook(session, owner=owner)
    delivery = await create_webhook_delivery(session, webhook=webhook)
    token = new_preview_token()
    link = await create_preview_link(session, article=article, token=token)
    return {
        "token": token,
        "webhook_id": webhook.id,
        "delivery_id": delivery.id,
        "link_id": link.id,
        "revision_id": (await create_revision(session, article=article)).id,
        "trashed_id": trashed.id,
        "user_id": owner.id,
        "address_id": (await create_address(session, user=owner)).id,
        "article_id": article.id,
        "import_id": (await create_import(session, user=owner)).id,
        "media_id": (await create_media(session, owner=owner)).id,
        "folder": "0" * 32,
        "name": "picture.jpg",
        "slug": "engines",
        "username": owner.username,
        "number": 1,
        "draft_id": draft.id,
        "comment_id": comment.id,
        "own_comment_id": (await create_comment(session, article=article, author=owner)).id,
        "draft_comment_id": (await create_comment(session, article=draft, author=commenter)).id,
        "report_id": (await create_report(session, article=article, reporter=commenter)).id,
        "job": "unknown",
        "mail_id": (await create_mail(session, error="refused", next_attempt_at=None)).id,
        "waiting_mail_id": (await create_mail(session)).id,
        "session_id": (await create_session(session, user=owner)).id,
        "api_key_id": (await create_api_key(session, user=owner)).id,
    }


@dataclass(frozen=True)
class Given:
    """What each case begins with."""

    headers: dict[str, dict[str, str]]
    ids: dict[str, Any]


@pytest.fixture(scope="module")
async def given(module_connection: AsyncConnection) -> Given:
    async with database_within(module_connection).unit_of_work() as session:
        callers = await create_callers(session)
        owner = callers["owner"]
        headers = {name: bearer(user) for name, user in callers.items()}
        headers["anonymous"] = {}
        headers["api key without scope"] = await api_key(session, user=owner, scopes=[])
        return Given(headers, await create_rows(session, owner))


@pytest.fixture
def connection(module_connection: AsyncConnection, given: Given) -> AsyncConnection:
    """The connection of all cases. Each request has a savepoint, which is rolled back."""
    return module_connection


@pytest.mark.parametrize("route", EXPECTED)
async def test_route_returns_expected_status_for_each_caller(
    client: httpx.AsyncClient, connection: AsyncConnection, given: Given, route: str
) -> None:
    expectation = EXPECTED[route]
    method, path = route.split()
    responses = {}
    for caller in CALLERS:
        async with savepoint_of(connection):
            responses[caller] = await client.request(
                method,
                path.format(**given.ids),
                json=expectation.body,
                headers=given.headers[caller],
            )
    statuses = {caller: response.status_code for caller, response in responses.items()}
    texts = {caller: response.text for caller, response in responses.items()}
    assert statuses == dict(zip(CALLERS, expectation.statuses, strict=True)), texts


def test_every_route_is_in_the_table(shared_app: FastAPI) -> None:
    routes = {
        f"{method} {route.path_format}"
        for route in iter_route_contexts(shared_app.routes)
        if isinstance(route.original_route, APIRoute) and route.include_in_schema
        for method in route.methods or ()
    }
    listed = {
        re.sub(
            r"\{(draft|own)_comment_id\}",
            "{comment_id}",
            re.sub(r"\{(draft|trashed)_id\}", "{article_id}", route)
            .replace("{job}", "{name}")
            .replace("{waiting_mail_id}", "{mail_id}"),
        )
        for route in EXPECTED
    }
    assert routes == listed, "add the route to EXPECTED"
