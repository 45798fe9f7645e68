"""Limits: every writing route has a limit or a documented reason for none."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from sqlalchemy import func, select, text, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession

from app.conduit.application import create_conduit
from app.content.slugs import tag_slug
from app.core import clock
from app.core.config import Settings, SettingsError, get_settings
from app.core.enums import Role
from app.core.limits import DEFAULTS, USER_KINDS, Limit, LimitKind, parse_limits
from app.db.base import Base
from app.db.session import Database
from app.models import (
    Address,
    Article,
    ArticleRevision,
    AuditEvent,
    Comment,
    LimitOverride,
    LimitUse,
    User,
)
from app.services import limits
from tests.databases import database_within, rolled_back, savepoint_of
from tests.factories import (
    PASSWORD,
    bearer,
    create_address,
    create_api_key,
    create_article,
    create_comment,
    create_import,
    create_media,
    create_preview_link,
    create_report,
    create_revision,
    create_session,
    create_user,
    create_webhook,
    create_webhook_delivery,
)
from tests.images import image_bytes
from tests.security.conftest import (
    ClientAt,
    Install,
    Timeline,
    client_at,
    install,
    live,
    live_app,
    live_client_at,
    live_database_url,
    live_rows,
    new_address,
    timeline,
)
from tests.test_lists import statements
from tests.test_permissions import EXPECTED

__all__ = [
    "client_at",
    "install",
    "live",
    "live_app",
    "live_client_at",
    "live_database_url",
    "live_rows",
    "timeline",
]

Rows = Callable[[], AbstractAsyncContextManager[AsyncSession]]
K = LimitKind

ENDS_SESSIONS = "ends what a login has begun; logins are limited"
REPLACES_ROW = "replaces one row"
TOKEN_BY_MAIL = "takes a token from a mail; mails are limited by address (attempts.mail_limits)"
MAILS = "mails are limited by address (attempts.mail_limits)"
REFERENCE = "for comparison; never reachable through nginx"
ONCE = "can be done once"
OPERATES = "only administrators may do it; it changes one row"
ONE_AT_A_TIME = "only administrators may do it; one run of each job at a time"

WRITES: Mapping[str, tuple[LimitKind, ...] | str] = {
    "POST /articles": (K.ARTICLES, K.TEXT_WRITTEN, K.TEXT_KEPT, K.DRAFTS, K.NEW_TAGS),
    "PATCH /articles/{article_id}": (K.CHANGES, K.TEXT_WRITTEN, K.TEXT_KEPT, K.DRAFTS, K.NEW_TAGS),
    "DELETE /articles/{article_id}": (K.CHANGES,),
    "POST /articles/{article_id}/revisions/{revision_id}/restore": (
        K.CHANGES,
        K.TEXT_WRITTEN,
        K.TEXT_KEPT,
    ),
    "POST /articles/{article_id}/restore": (K.CHANGES, K.DRAFTS),
    "DELETE /trash/{article_id}": (K.CHANGES,),
    "POST /articles/{article_id}/preview-links": (K.CHANGES,),
    "DELETE /articles/{article_id}/preview-links/{link_id}": (K.CHANGES,),
    "POST /articles/imports/{import_id}/cancel": (K.CHANGES,),
    "POST /articles/import": (
        K.IMPORTS,
        K.IMPORTED_RECORDS,
        K.TEXT_WRITTEN,
        K.TEXT_KEPT,
        K.DRAFTS,
        K.NEW_TAGS,
        K.CHECKED_RECORDS,
        K.CHECKED_TEXT,
    ),
    "POST /articles/{article_id}/comments": (K.COMMENTS,),
    "PATCH /comments/{comment_id}": (K.COMMENTS,),
    "DELETE /comments/{comment_id}": (K.COMMENTS,),
    "PATCH /comments/{comment_id}/moderation": (K.MODERATION,),
    "PUT /articles/{article_id}/favorite": (K.REACTIONS,),
    "DELETE /articles/{article_id}/favorite": (K.REACTIONS,),
    "PUT /profiles/{username}/follow": (K.REACTIONS,),
    "DELETE /profiles/{username}/follow": (K.REACTIONS,),
    "PUT /profiles/{username}/block": (K.REACTIONS,),
    "DELETE /profiles/{username}/block": (K.REACTIONS,),
    "POST /articles/{article_id}/reports": (K.REPORTS,),
    "POST /comments/{comment_id}/reports": (K.REPORTS,),
    "PATCH /reports/{report_id}": (K.MODERATION,),
    "PUT /tags/{slug}": (K.MODERATION,),
    "DELETE /tags/{slug}": (K.MODERATION,),
    "POST /media": (K.UPLOADS, K.UPLOADS_AT_ONCE, K.MEDIA_BYTES),
    "PATCH /media/{media_id}": (K.CHANGES,),
    "DELETE /media/{media_id}": (K.CHANGES,),
    "POST /users": (K.REGISTRATIONS,),
    "PATCH /users/me": (K.ACCOUNT_CHANGES,),
    "PUT /users/{user_id}": (K.ACCOUNT_CHANGES,),
    "PATCH /users/{user_id}/role": (K.ACCOUNT_CHANGES,),
    "POST /users/{user_id}/disable": (K.ACCOUNT_CHANGES,),
    "POST /users/{user_id}/enable": (K.ACCOUNT_CHANGES,),
    "PUT /users/{user_id}/limits": (K.ACCOUNT_CHANGES,),
    "DELETE /users/{user_id}": ONCE,
    "POST /users/{user_id}/addresses": (K.ADDRESSES, K.ACCOUNT_CHANGES),
    "PUT /users/{user_id}/addresses/{address_id}": (K.ACCOUNT_CHANGES,),
    "DELETE /users/{user_id}/addresses/{address_id}": (K.ACCOUNT_CHANGES,),
    "POST /users/me/password": (K.ACCOUNT_CHANGES,),
    "POST /users/me/email": (K.ACCOUNT_CHANGES,),
    "POST /users/me/export": (K.ACCOUNT_CHANGES,),
    "POST /users/me/api-keys": (K.ACCOUNT_CHANGES,),
    "DELETE /users/me/api-keys/{api_key_id}": (K.ACCOUNT_CHANGES,),
    "POST /webhooks": (K.ACCOUNT_CHANGES,),
    "PATCH /webhooks/{webhook_id}": (K.ACCOUNT_CHANGES,),
    "DELETE /webhooks/{webhook_id}": (K.ACCOUNT_CHANGES,),
    "POST /webhooks/{webhook_id}/secret": (K.ACCOUNT_CHANGES,),
    "POST /webhooks/{webhook_id}/test": (K.ACCOUNT_CHANGES,),
    "POST /webhooks/{webhook_id}/replay": (K.ACCOUNT_CHANGES,),
    "POST /webhooks/{webhook_id}/deliveries/{delivery_id}/replay": (K.ACCOUNT_CHANGES,),
    "POST /auth/second-factor": (K.ACCOUNT_CHANGES,),
    "POST /auth/second-factor/confirm": (K.ACCOUNT_CHANGES,),
    "POST /auth/second-factor/recovery-codes": (K.ACCOUNT_CHANGES,),
    "POST /auth/second-factor/disable": (K.ACCOUNT_CHANGES,),
    "POST /auth/login": (K.LOGINS,),
    "POST /auth/login/second-factor": "opens a session as /auth/login does, by the same function",
    "POST /auth/refresh": REPLACES_ROW,
    "POST /auth/logout": ENDS_SESSIONS,
    "POST /auth/logout-all": ENDS_SESSIONS,
    "DELETE /auth/sessions/{session_id}": ENDS_SESSIONS,
    "POST /auth/password/forgot": MAILS,
    "POST /auth/email/verify/resend": MAILS,
    "POST /auth/password/reset": TOKEN_BY_MAIL,
    "POST /auth/email/verify": TOKEN_BY_MAIL,
    "POST /admin/jobs/{name}/run": ONE_AT_A_TIME,
    "POST /admin/mail/{mail_id}/retry": OPERATES,
    "DELETE /admin/mail/{mail_id}": OPERATES,
    "DELETE /admin/sessions/{session_id}": (K.ACCOUNT_CHANGES,),
    "PUT /admin/maintenance": OPERATES,
    "DELETE /admin/maintenance": OPERATES,
    "POST /raw/users": REFERENCE,
    "PUT /raw/users/{user_id}": REFERENCE,
    "DELETE /raw/users/{user_id}": REFERENCE,
}
CONDUIT: Mapping[str, tuple[LimitKind, ...]] = {
    "POST /articles": (K.ARTICLES, K.TEXT_WRITTEN, K.TEXT_KEPT, K.NEW_TAGS),
    "PUT /articles/{slug}": (K.CHANGES, K.TEXT_WRITTEN, K.TEXT_KEPT, K.NEW_TAGS),
    "DELETE /articles/{slug}": (K.CHANGES,),
    "POST /articles/{slug}/favorite": (K.REACTIONS,),
    "DELETE /articles/{slug}/favorite": (K.REACTIONS,),
    "POST /articles/{slug}/comments": (K.COMMENTS,),
    "DELETE /articles/{slug}/comments/{id}": (K.COMMENTS,),
    "POST /profiles/{username}/follow": (K.REACTIONS,),
    "DELETE /profiles/{username}/follow": (K.REACTIONS,),
    "POST /users": (K.REGISTRATIONS, K.LOGINS),
    "POST /users/login": (K.LOGINS,),
    "PUT /user": (K.ACCOUNT_CHANGES,),
}
LIMITED = [
    (route, kind) for route, kinds in WRITES.items() if isinstance(kinds, tuple) for kind in kinds
]
LIMITED_IN_CONDUIT = [(route, kind) for route, kinds in CONDUIT.items() for kind in kinds]

TEXT = "Long enough, I think."
BODIES: Mapping[str, Any] = {
    "POST /articles": {"title": "New", "content": TEXT, "tags": ["quite new"]},
    "PATCH /articles/{article_id}": {
        "content": "Another text, as long.",
        "tags": ["quite new"],
        "published": False,
    },
    "PATCH /comments/{comment_id}": {"content": "New"},
    "POST /users/me/email": {"email": "newer@example.com", "password": PASSWORD},
    "POST /users/me/export": {"password": PASSWORD},
    "PUT /users/{user_id}/limits": {"limits": {}},
}
CONDUIT_BODIES: Mapping[str, Any] = {
    "POST /articles": {
        "article": {"title": "New", "description": "About", "body": TEXT, "tagList": ["quite new"]}
    },
    "PUT /articles/{slug}": {
        "article": {"body": "Another text, as long.", "tagList": ["quite new"]}
    },
    "POST /articles/{slug}/comments": {"comment": {"body": "Indeed."}},
    "POST /users": {"user": {"username": "new", "email": "new@example.com", "password": PASSWORD}},
    "POST /users/login": {"user": {"email": "owner@example.com", "password": PASSWORD}},
    "PUT /user": {"user": {"bio": "New"}},
}
NOT_FOR_AUTHORS = frozenset(
    {
        "PATCH /users/{user_id}/role",
        "POST /users/{user_id}/disable",
        "POST /users/{user_id}/enable",
        "PUT /users/{user_id}/limits",
        "DELETE /admin/sessions/{session_id}",
        "PATCH /reports/{report_id}",
        "PUT /tags/{slug}",
        "DELETE /tags/{slug}",
    }
)
"""Routes that are tested as an administrator."""


def without(kind: LimitKind) -> dict[str, Any]:
    """Return settings with a limit of zero for this kind."""
    if kind is K.MEDIA_BYTES:
        return {"MEDIA_QUOTA_BYTES": 1}
    return {"LIMITS": f"{kind}=0/day" if DEFAULTS[kind].per else f"{kind}=0"}


async def create_rows(session: AsyncSession, owner: User) -> dict[str, Any]:
    """Create the rows that the routes refer to; return their ids."""
    article = await create_article(
        session, author=owner, slug="engines", tags=["Engines"], content="Before, long enough."
    )
    trashed, trashed_draft = [
        await create_article(session, author=owner, published=published, deleted_at=clock.now())
        for published in (True, False)
    ]
    other = await create_user(session, username="other")
    comment = await create_comment(session, article=article, author=owner)
    webhook, _ = await create_webhook(session, owner=owner)
    return {
        "webhook_id": webhook.id,
        "delivery_id": (await create_webhook_delivery(session, webhook=webhook)).id,
        "article_id": article.id,
        "import_id": (await create_import(session, user=owner)).id,
        "trashed_id": trashed.id,
        "trashed_draft_id": trashed_draft.id,
        "slug": "engines",
        "username": other.username,
        "id": comment.id,
        "comment_id": comment.id,
        "revision_id": (await create_revision(session, article=article)).id,
        "link_id": (await create_preview_link(session, article=article)).id,
        "media_id": (await create_media(session, owner=owner)).id,
        "report_id": (await create_report(session, article=article, reporter=other)).id,
        "address_id": (await create_address(session, user=owner)).id,
        "api_key_id": (await create_api_key(session, user=owner)).id,
        "session_id": (await create_session(session, user=other)).id,
        "user_id": owner.id,
    }


def routes_of(app: FastAPI) -> set[str]:
    return {
        f"{method} {re.sub(r':[a-z_]+', '', route.path_format or '')}"
        for route in iter_route_contexts(app.routes)
        if isinstance(route.original_route, APIRoute) and route.include_in_schema
        for method in (route.methods or set()) - {"GET", "HEAD"}
    }


def test_every_route_that_writes_is_listed(shared_app: FastAPI) -> None:
    assert routes_of(shared_app) == set(WRITES), "add the route to WRITES"
    of_conduit = routes_of(create_conduit(shared_app.state))
    assert of_conduit == set(CONDUIT), "add the route to CONDUIT"


class Given(NamedTuple):
    """What each case of TestZero begins with."""

    owner: User
    ids: Mapping[str, Any]


@pytest.fixture(scope="class")
async def class_connection(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    async with rolled_back(engine) as connection:
        yield connection


@pytest.fixture(scope="class")
async def given(class_connection: AsyncConnection) -> Given:
    async with database_within(class_connection).unit_of_work() as session:
        owner = await create_user(session, username="owner", email="owner@example.com")
        await create_user(session, role=Role.ADMIN)
        return Given(owner, await create_rows(session, owner))


class TestZero:
    """A limit of zero refuses every request. The cases share their rows."""

    @pytest.fixture
    async def connection(
        self, class_connection: AsyncConnection, given: Given
    ) -> AsyncIterator[AsyncConnection]:
        async with savepoint_of(class_connection):
            yield class_connection

    @pytest.mark.parametrize(("route", "kind"), LIMITED)
    async def test_route_is_refused(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        install: Install,
        given: Given,
        route: str,
        kind: LimitKind,
    ) -> None:
        owner, ids = given
        if route in NOT_FOR_AUTHORS:
            change = update(User).where(User.id == owner.id).values(role=Role.ADMIN)
            await session.execute(change)
        install(**without(kind))
        method, path = route.split()
        if path in {"/articles/{article_id}/restore", "/trash/{article_id}"}:
            trashed = "trashed_draft_id" if kind is K.DRAFTS else "trashed_id"
            ids = {**ids, "article_id": ids[trashed]}
        headers = {} if path in {"/users", "/auth/login"} else bearer(owner)
        known = EXPECTED.get(route)
        request: dict[str, Any] = {"json": BODIES.get(route, known and known.body)}
        if path == "/media":
            request = {"files": {"file": ("a.jpg", image_bytes(), "image/jpeg")}}
        elif path == "/auth/login":
            request = {"data": {"username": "owner", "password": PASSWORD}}
        elif path == "/articles/import":
            record = {"title": "New", "content": TEXT, "tags": ["quite new"]}
            request = {"content": json.dumps(record)}
            headers |= {"Content-Type": "application/x-ndjson"}
            if kind in {K.CHECKED_RECORDS, K.CHECKED_TEXT}:
                request["params"] = {"dry_run": "true"}
        response = await client.request(method, path.format(**ids), headers=headers, **request)
        if path == "/articles/import" and kind is not K.IMPORTS:
            assert response.json()["created"] == 0
            assert response.json()["stopped"]["line"] == 1
            return
        advice = "spend this limit, or add a route that an author may not use to NOT_FOR_AUTHORS"
        assert response.json().get("limit") == kind, f"{advice}: {response.text}"
        if DEFAULTS[kind].per is None:
            assert (response.status_code, response.json()["code"]) == (409, "quota_exceeded")
        else:
            assert (response.status_code, response.json()["code"]) == (429, "limit_reached")
            assert response.headers["Retry-After"] == "86400"
        install(LIMITS="off", MEDIA_QUOTA_BYTES=10**9)
        again = await client.request(method, path.format(**ids), headers=headers, **request)
        assert '"limit":' not in again.text, again.text

    @pytest.mark.parametrize(("route", "kind"), LIMITED_IN_CONDUIT)
    async def test_conduit_route_is_refused_in_its_error_format(
        self,
        client: httpx.AsyncClient,
        install: Install,
        given: Given,
        route: str,
        kind: LimitKind,
    ) -> None:
        owner, ids = given
        install(**without(kind))
        method, path = route.split()
        headers = {} if path in {"/users", "/users/login"} else bearer(owner)
        response = await client.request(
            method, "/api" + path.format(**ids), headers=headers, json=CONDUIT_BODIES.get(route)
        )
        total = DEFAULTS[kind].per is None
        reached = 409 if method == "POST" else 422  # the RealWorld API has 409 for POST alone
        assert response.status_code == (reached if total else 429), response.text
        assert ("Retry-After" in response.headers) is not total
        ((key, (sentence,)),) = response.json()["errors"].items()
        assert key in ({"article", "user"} if total else {"request"})
        assert "ask an administrator" in sentence


BOUNDED_BY: Mapping[str, str] = {
    "account_tokens": "mails; deleted when they expire",
    "addresses": "addresses",
    "api_keys": "50 a user",
    "article_counts": "one an article",
    "article_media": "text_kept",
    "article_revisions": "changes, text_kept",
    "article_tags": "20 an article",
    "articles": "articles, imported_records, drafts, text_kept",
    "attempts": "one a name and an address that tries; deleted after a day",
    "audit_events": "each is of an action that is limited; failed logins by attempts",
    "blocks": "reactions",
    "changes": "articles, changes, imported_records",
    "comments": "comments",
    "discarded_folders": "uploads",
    "events": "articles, changes, comments, registrations, uploads; kept for two weeks",
    "favorites": "reactions",
    "first_start": "one",
    "follows": "reactions",
    "draft_former_slugs": "text_written; 50 an imported record",
    "former_slugs": "changes; 50 an imported record",
    "idempotency_keys": "the limits of what they create; 64 KiB each; deleted after a day",
    "import_records": "imported_records",
    "imports": "20 a user, with reports of limited size",
    "job_runs": "a row a minute for each process and job, kept for a week",
    "installation": "one",
    "imported_addresses": "text_written",
    "limit_overrides": "one a kind of limit",
    "limit_uses": "one a kind of limit; deleted after a day",
    "mails": "account_changes, registrations; attempts.mail_limits",
    "media": "uploads, media_bytes",
    "media_copies": "only operators add them",
    "preview_links": "20 an article",
    "recovery_codes": "ten a user",
    "redirects": "50 an imported record",
    "reports": "reports; one a user and an article or a comment",
    "second_factors": "one a user",
    "tag_changes": "one a tag",
    "tags": "new_tags",
    "upload_reservations": "uploads_at_once; deleted when they expire",
    "user_counts": "one a user",
    "user_sessions": "logins; deleted when they expire",
    "users": "registrations",
    "webhook_attempts": "the log of a delivery: about 16 in three days, then for each repetition",
    "webhook_deliveries": "events; 1000 pending a webhook, and its tests; kept for two weeks",
    "webhooks": "20 a user",
}
"""What bounds the number of rows per user in each table."""


def test_every_table_is_bounded() -> None:
    assert set(Base.metadata.tables) == set(BOUNDED_BY), "add the table to BOUNDED_BY"


class TestRates:
    async def test_concurrent_requests_pass_exactly_up_to_the_limit(
        self, live: httpx.AsyncClient, live_rows: Rows, install: Install, timeline: Timeline
    ) -> None:
        install(LIMITS="comments=7/hour")
        async with live_rows() as rows:
            user = await create_user(rows)
            article = await create_article(rows, author=user)
        url = f"/articles/{article.id}/comments"

        async def comment() -> httpx.Response:
            return await live.post(url, json={"content": "Hello."}, headers=bearer(user))

        answers = await asyncio.gather(*(comment() for _ in range(20)))
        assert sorted(each.status_code for each in answers) == [201] * 7 + [429] * 13
        refused = next(each for each in answers if each.status_code == 429)
        wait = int(refused.headers["Retry-After"])
        assert wait == -(-3600 // 7)
        assert "7 comments per hour" in refused.json()["message"]
        async with live_rows() as rows:
            kept = select(func.count()).where(Comment.article_id == article.id)
            assert await rows.scalar(kept) == 7
        timeline.advance(wait - 2)
        assert (await comment()).headers["Retry-After"] == "2"
        timeline.advance(2)
        assert [(await comment()).status_code for _ in range(2)] == [201, 429]
        timeline.advance(3600)
        assert [(await comment()).status_code for _ in range(8)] == [201] * 7 + [429]

    async def test_failed_requests_are_not_counted(
        self, client: httpx.AsyncClient, session: AsyncSession, install: Install
    ) -> None:
        install(LIMITS="articles=1/hour")
        user = await create_user(session)
        await create_article(session, author=user, slug="taken")
        taken = {"title": "New", "content": TEXT, "slug": "taken"}
        for _ in range(3):
            refused = await client.post("/articles", json=taken, headers=bearer(user))
            assert refused.json()["code"] == "slug_taken"
        created = await client.post(
            "/articles", json={"title": "New", "content": TEXT}, headers=bearer(user)
        )
        assert created.status_code == 201

    async def test_limit_of_one_user_does_not_affect_another(
        self, client: httpx.AsyncClient, session: AsyncSession, install: Install
    ) -> None:
        install(LIMITS="reactions=1/day")
        article = await create_article(session, author=await create_user(session))
        url = f"/articles/{article.id}/favorite"
        one, other = await create_user(session), await create_user(session)
        statuses = [
            (await client.put(url, headers=bearer(who))).status_code for who in (one, one, other)
        ]
        assert statuses == [200, 429, 200]

    async def test_cost_above_the_limit_gets_the_window_as_retry_after(
        self, client: httpx.AsyncClient, session: AsyncSession, install: Install
    ) -> None:
        install(LIMITS="text_written=1KiB/hour")
        user = await create_user(session)
        body = {"title": "Long", "content": "x" * 1025}
        answer = await client.post("/articles", json=body, headers=bearer(user))
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "3600")
        assert await session.scalar(select(func.count()).select_from(Article)) == 0

    async def test_text_is_counted_in_bytes(
        self, client: httpx.AsyncClient, session: AsyncSession, install: Install
    ) -> None:
        install(LIMITS="text_written=100/hour")
        user = await create_user(session)
        for letter, status in (("x", 201), ("語", 429)):
            body = {"title": "Text", "content": letter * 40}
            answer = await client.post("/articles", json=body, headers=bearer(user))
            assert answer.status_code == status

    async def test_clock_set_back_does_not_refill_the_limit(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        install: Install,
        timeline: Timeline,
    ) -> None:
        install(LIMITS="reactions=2/hour")
        user = await create_user(session)
        url = f"/articles/{(await create_article(session, author=user)).id}/favorite"
        statuses = []
        for seconds in (0, -3600, -3600, 7200):
            timeline.advance(seconds)
            statuses.append((await client.put(url, headers=bearer(user))).status_code)
        assert statuses == [200, 200, 429, 429]


class TestTotals:
    async def test_concurrent_requests_pass_exactly_up_to_the_limit(
        self, live: httpx.AsyncClient, live_rows: Rows, install: Install
    ) -> None:
        install(LIMITS="drafts=6")
        async with live_rows() as rows:
            user = await create_user(rows)
            await create_article(rows, author=user, published=False)  # before the first count
        answers = await asyncio.gather(
            *(
                live.post(
                    "/articles",
                    json={"title": f"Draft {number}", "content": TEXT},
                    headers=bearer(user),
                )
                for number in range(20)
            )
        )
        assert sorted(each.status_code for each in answers) == [201] * 5 + [409] * 15
        refused = next(each for each in answers if each.status_code == 409)
        assert "You have 6 of 6 drafts; publish or delete some" in refused.json()["message"]

    async def test_deleted_rows_no_longer_count(
        self, client: httpx.AsyncClient, session: AsyncSession, install: Install
    ) -> None:
        install(LIMITS="drafts=2")
        headers = bearer(await create_user(session))
        body = {"title": "Draft", "content": TEXT}
        made = [await client.post("/articles", json=body, headers=headers) for _ in range(3)]
        assert [each.status_code for each in made] == [201, 201, 409]
        first, second = (f"/articles/{each.json()['id']}" for each in made[:2])
        assert (await client.delete(first, headers=headers)).status_code == 204
        assert (await client.post("/articles", json=body, headers=headers)).status_code == 201
        published = await client.patch(second, json={"published": True}, headers=headers)
        assert published.status_code == 200
        third = await client.post("/articles", json=body, headers=headers)
        assert third.status_code == 201
        withdrawn = await client.patch(second, json={"published": False}, headers=headers)
        assert withdrawn.json()["limit"] == "drafts"
        restored = await client.post(f"{first}/restore", headers=headers)
        assert restored.json()["limit"] == "drafts"

    @pytest.mark.parametrize("change", [{"title": "Title {}"}, {"content": "x" * 1000 + "{}"}])
    async def test_repeated_changes_of_a_text_reach_the_limit(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        install: Install,
        change: dict[str, str],
    ) -> None:
        install(LIMITS="text_kept=5000")
        user = await create_user(session)
        article = await create_article(session, author=user, content="x" * 1000)
        statuses = []
        for number in range(7):
            ((name, value),) = change.items()
            answer = await client.patch(
                f"/articles/{article.id}", json={name: value.format(number)}, headers=bearer(user)
            )
            statuses.append(answer.status_code)
        assert statuses[:3] == [200] * 3
        assert statuses[-2:] == [409] * 2
        kept = select(func.sum(func.octet_length(ArticleRevision.content)))
        present = select(func.octet_length(Article.content))
        assert (await session.scalar(kept) or 0) + (await session.scalar(present) or 0) <= 5000

    async def test_text_by_an_editor_counts_for_the_editor(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        author = await create_user(session)
        editor = await create_user(session, role=Role.EDITOR)
        article = await create_article(session, author=author, content="x" * 100)
        answer = await client.patch(
            f"/articles/{article.id}", json={"content": "y" * 300}, headers=bearer(editor)
        )
        assert answer.status_code == 200
        for user, used in ((author, 100), (editor, 300)):
            answer = await client.get(f"/users/{user.id}/limits/use", headers=bearer(user))
            uses = {each["kind"]: each["used"] for each in answer.json()}
            assert uses["text_kept"] == used


class TestUsers:
    async def test_administrator_can_set_and_reset_overrides(
        self, client: httpx.AsyncClient, session: AsyncSession, install: Install
    ) -> None:
        install(LIMITS="drafts=1,reactions=1/day")
        user, admin = await create_user(session), await create_user(session, role=Role.ADMIN)
        article = await create_article(session, author=user)
        url = f"/users/{user.id}/limits"
        read = await client.get(url, headers=bearer(user))
        shown = {each["kind"]: each for each in read.json()["limits"]}
        assert list(shown) == list(USER_KINDS)
        assert shown["drafts"] == {"kind": "drafts", "amount": 1, "default": 1, "seconds": None}

        async def reactions() -> list[int]:
            favorite = f"/articles/{article.id}/favorite"
            return [
                (await client.put(favorite, headers=bearer(user))).status_code for _ in range(4)
            ]

        assert await reactions() == [200, 429, 429, 429]
        more = {"limits": {"drafts": 2, "reactions": 3}}
        changed = await client.put(
            url, json=more, headers={**bearer(admin), "If-Match": read.headers["ETag"]}
        )
        assert changed.status_code == 200
        assert (await client.get(url, headers=bearer(user))).json() == changed.json()
        assert await reactions() == [200, 200, 429, 429]
        late = await client.put(
            url, json=more, headers={**bearer(admin), "If-Match": read.headers["ETag"]}
        )
        assert late.status_code == 412
        assert late.headers["ETag"] == changed.headers["ETag"]
        body = {"title": "Draft", "content": TEXT}
        drafts = [
            (await client.post("/articles", json=body, headers=bearer(user))).status_code
            for _ in range(3)
        ]
        assert drafts == [201, 201, 409]
        uses = (await client.get(f"{url}/use", headers=bearer(admin))).json()
        used = {each["kind"]: (each["used"], each["amount"], each["seconds"]) for each in uses}
        assert used["drafts"] == (2, 2, None)
        assert used["reactions"] == (3, 3, 86400)
        assert used["comments"] == (0, DEFAULTS[K.COMMENTS].amount, 3600)
        back = await client.put(url, json={"limits": {}}, headers=bearer(admin))
        assert back.json() == read.json()
        assert await session.scalar(select(func.count()).select_from(LimitOverride)) == 0
        audited = select(AuditEvent.action).where(AuditEvent.subject_id == user.id)
        assert list(await session.scalars(audited)).count("CHANGE_LIMITS") == 2

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"limits": {"comments": -1}},
            {"limits": {"comments": "60"}},
            {"limits": {"comments": 1.5}},
            {"limits": {"comments": None}},
            {"limits": {"comments": 2**53 + 1}},
            {"limits": {"comment": 1}},
            {"limits": {"registrations": 1}},
            {"limits": {}, "more": 1},
        ],
    )
    async def test_invalid_limits_are_rejected(
        self, client: httpx.AsyncClient, session: AsyncSession, body: dict[str, Any]
    ) -> None:
        admin = await create_user(session, role=Role.ADMIN)
        answer = await client.put(f"/users/{admin.id}/limits", json=body, headers=bearer(admin))
        assert answer.status_code == 422

    async def test_limits_of_unknown_user_are_404(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        admin = bearer(await create_user(session, role=Role.ADMIN))
        bodies: dict[str, Any] = {"PUT": {"limits": {}}}
        for method, path in (("GET", ""), ("GET", "/use"), ("PUT", "")):
            url = f"/users/999999999/limits{path}"
            answer = await client.request(method, url, headers=admin, json=bodies.get(method))
            assert answer.json()["code"] == "user_not_found"

    async def test_editors_have_higher_limits(
        self, client: httpx.AsyncClient, session: AsyncSession, install: Install
    ) -> None:
        install(LIMITS="reactions=1/day,reports=none")
        article = await create_article(session, author=await create_user(session))
        url = f"/articles/{article.id}/favorite"
        editor = await create_user(session, role=Role.EDITOR)
        statuses = [(await client.put(url, headers=bearer(editor))).status_code for _ in range(11)]
        assert statuses == [200] * 10 + [429]
        read = await client.get(f"/users/{editor.id}/limits", headers=bearer(editor))
        shown = {each["kind"]: each["amount"] for each in read.json()["limits"]}
        assert shown["media_bytes"] == get_settings().media_quota_bytes
        assert shown["reports"] is None

    async def test_registrations_count_per_network(
        self, live_client_at: ClientAt, install: Install
    ) -> None:
        install(LIMITS="registrations=2/day")
        number = iter(range(100))

        async def register(address: str, path: str = "/users") -> int:
            name = f"n{address.replace('.', '-').replace(':', '-')}-{next(number)}"
            person = {"username": name, "email": f"{name}@example.com", "password": PASSWORD}
            body = {**person, "name": "N"} if path == "/users" else {"user": person}
            async with live_client_at(address) as client:
                answer = await client.post(path, json=body)
            return answer.status_code

        first = new_address()
        assert [await register(first) for _ in range(3)] == [201, 201, 429]
        assert await register(first, "/api/users") == 429
        assert await register(new_address()) == 201
        places = ("2001:db8:7:7::1", "2001:db8:7:7::2", "2001:db8:7:7:8::3", "2001:db8:7:8::1")
        assert [await register(place) for place in places] == [201, 201, 429, 201]
        answers = await asyncio.gather(*(register("198.51.100.9") for _ in range(8)))
        assert sorted(answers) == [201] * 2 + [429] * 6

    async def test_import_by_an_operator_is_not_limited(
        self, database: Database, session: AsyncSession, install: Install
    ) -> None:
        install(LIMITS=",".join(f"{kind}=0/day" for kind in (K.IMPORTED_RECORDS, K.NEW_TAGS)))
        user = await create_user(session)
        results: list[Any] = []
        record = {"title": "New", "content": TEXT, "author": user.username, "tags": ["t"]}

        async def body() -> AsyncIterator[bytes]:
            yield json.dumps(record).encode()

        from app.services.bulk import importing
        from app.services.bulk.records import Importer

        await importing.import_articles(
            database,
            importing.from_lines(body()),
            importer=Importer(None),
            report=results.extend,
        )
        assert [each.outcome for each in results] == ["created"]


class TestImports:
    async def test_import_stops_at_the_limit(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        install: Install,
        timeline: Timeline,
    ) -> None:
        install(LIMITS="imported_records=7/hour")
        user = await create_user(session)
        records = [{"title": f"Title {n}", "slug": f"a-{n}", "content": TEXT} for n in range(20)]
        body = "\n".join(["{", *map(json.dumps, records)])

        async def import_all() -> dict[str, Any]:
            headers = {**bearer(user), "Content-Type": "application/x-ndjson"}
            answer = await client.post("/articles/import", content=body, headers=headers)
            report: dict[str, Any] = answer.json()
            return report

        report = await import_all()
        assert (report["created"], report["failed"], report["stopped"]["line"]) == (7, 1, 9)
        assert "7 imported records per hour" in report["stopped"]["message"]
        timeline.advance(3600)
        report = await import_all()
        assert (report["created"], report["unchanged"], report["stopped"]["line"]) == (7, 7, 16)
        timeline.advance(3600)
        report = await import_all()
        assert (report["created"], report["unchanged"], report["stopped"]) == (6, 14, None)

    @pytest.mark.parametrize("limit", ["text_kept=1000", "text_written=1000/day", "drafts=10"])
    async def test_imported_texts_and_drafts_count(
        self, client: httpx.AsyncClient, session: AsyncSession, install: Install, limit: str
    ) -> None:
        install(LIMITS=limit)
        user = await create_user(session)
        headers = {**bearer(user), "Content-Type": "application/x-ndjson"}
        # Of 100 bytes with the name of the source, to which the user's id is added, and its id.
        source = "s" * (20 - len(f"user {user.id}: "))
        records = [
            {"title": "T", "content": "x" * 77, "source": source, "source_id": f"{n:03}"}
            for n in range(30)
        ]
        body = "\n".join(map(json.dumps, records))
        report = (await client.post("/articles/import", content=body, headers=headers)).json()
        assert (report["created"], report["stopped"]["line"]) == (10, 11)

    @pytest.mark.parametrize(
        "fields",
        [
            {"imported": {"note": "x" * 50_000}},
            {"old_paths": [f"/{n:02}/{'x' * 900}" for n in range(50)]},
            {"former_slugs": [f"{n:02}-{'x' * 90}" for n in range(50)]},
            {"content": f"[a](/{'x' * 1900})"},
            {"comments": [{"id": "1", "content": "y", "url": f"http://x.y/{'x' * 1900}"}]},
        ],
        ids=lambda fields: next(iter(fields)),
    )
    async def test_everything_that_imports_store_counts(
        self, client: httpx.AsyncClient, session: AsyncSession, install: Install, fields: Any
    ) -> None:
        """When it is written, and when the total is measured."""
        install(LIMITS="text_kept=1GiB")
        user = await create_user(session)
        headers = bearer(user)
        typed = {**headers, "Content-Type": "application/x-ndjson"}
        site = {"site": "https://old.example"} if "content" in fields else {}

        async def load(number: int, **fields: Any) -> dict[str, Any]:
            record = {"title": "T", "content": "x", "slug": f"a-{number}", **fields}
            answer = await client.post(
                "/articles/import", content=json.dumps(record), headers=typed, params=site
            )
            report: dict[str, Any] = answer.json()
            return report

        async def kept() -> tuple[int, int]:
            query = "SELECT level FROM limit_uses WHERE kind = 'text_kept'"
            counted = round(await session.scalar(text(query)) or 0)
            uses = (await client.get(f"/users/{user.id}/limits/use", headers=headers)).json()
            return counted, next(each["used"] for each in uses if each["kind"] == "text_kept")

        assert (await load(0))["created"] == 1
        before = await kept()
        assert before[0] == before[1]
        assert (await load(1, **fields))["created"] == 1
        counted, measured = await kept()
        size = len(json.dumps(fields)) * 0.9
        assert counted - before[0] > size
        # PostgreSQL compresses JSON.
        assert measured == counted or "imported" in fields
        assert measured > before[1]
        install(LIMITS=f"text_kept={measured + 100}")
        if "old_paths" in fields:  # the same ones would move from the other article
            fields = {"old_paths": [f"{path}/2" for path in fields["old_paths"]]}
        assert (await load(2, **fields))["stopped"]["line"] == 1

    async def test_new_addresses_in_imported_texts_count(
        self, client: httpx.AsyncClient, session: AsyncSession, install: Install
    ) -> None:
        """The first text refers to the second, whose address is known only at the end."""
        user = await create_user(session)
        headers = {**bearer(user), "Content-Type": "application/x-ndjson"}
        slug = "b" * 90
        records: list[dict[str, Any]] = [
            {"title": "A", "slug": "a", "content": "[b](/b) " * 200},
            {"title": "B", "slug": slug, "content": "B", "old_paths": ["/b/"]},
        ]
        now = {"published_at": clock.now().isoformat()}
        for record in records:  # each in an import of its own
            answer = await client.post(
                "/articles/import",
                content=json.dumps({**record, **now}),
                headers=headers,
                params={"site": "http://x.y"},
            )
            assert answer.json()["created"] == 1, answer.text
        content = (await client.get("/articles/by-slug/a")).json()["content"]
        assert content.count(slug) == 200
        query = text("SELECT level FROM limit_uses WHERE kind = 'text_kept'")
        assert (await session.scalar(query) or 0) > len(content)

    async def test_unchanged_records_cost_nothing(
        self, client: httpx.AsyncClient, session: AsyncSession, install: Install
    ) -> None:
        install(LIMITS="text_written=1500/day,imported_records=2/day")
        headers = {**bearer(await create_user(session)), "Content-Type": "application/x-ndjson"}
        record = {"title": "T", "slug": "a", "content": "x" * 100, "old_paths": ["/" + "x" * 900]}
        for title, count in (("T", "created"), ("T", "unchanged"), ("U", "updated")):
            body = json.dumps({**record, "title": title})
            answer = await client.post("/articles/import", content=body, headers=headers)
            assert answer.json()[count] == 1, answer.text

    @pytest.mark.parametrize("limit", ["checked_records=7/hour", "checked_text=1000/hour"])
    async def test_dry_runs_count(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        install: Install,
        timeline: Timeline,
        limit: str,
    ) -> None:
        install(LIMITS=limit)
        user = await create_user(session)
        records = [{"title": "T", "content": "x" * 100, "slug": f"a-{n}"} for n in range(6)]
        body = "\n".join(map(json.dumps, records))

        async def load(**query: str) -> dict[str, Any]:
            url = "/articles/import"
            headers = {**bearer(user), "Content-Type": "application/x-ndjson"}
            answer = await client.post(url, content=body, headers=headers, params=query)
            report: dict[str, Any] = answer.json()
            return report

        assert (await load(dry_run="true"))["created"] == 6
        again = await load(dry_run="true")
        assert again["created"] < 6
        assert again["stopped"]["line"] == again["created"] + 1
        assert "checked" in again["stopped"]["message"]
        assert (await load())["created"] == 6  # they use nothing of what an import may write
        timeline.advance(3600)
        assert (await load(dry_run="true"))["stopped"] is None

    async def test_unpublished_articles_count_as_drafts(
        self, client: httpx.AsyncClient, session: AsyncSession, install: Install
    ) -> None:
        install(LIMITS="drafts=10")
        headers = {**bearer(await create_user(session)), "Content-Type": "application/x-ndjson"}
        reports = []
        for dates in ({"published_at": "2020-01-01T00:00:00Z"}, {}, {}):
            records = [
                {"title": f"Title {n}", "slug": f"a-{n}", "content": TEXT, **dates}
                for n in range(30)
            ]
            body = "\n".join(map(json.dumps, records))
            answer = await client.post("/articles/import", content=body, headers=headers)
            reports.append(answer.json())
        assert [each["created"] for each in reports] == [30, 0, 0]
        assert [each["updated"] for each in reports] == [0, 10, 0]
        assert reports[1]["stopped"]["line"] == 11


async def test_new_tags_do_not_reveal_tags_of_drafts(
    client: httpx.AsyncClient, session: AsyncSession, install: Install
) -> None:
    install(LIMITS="new_tags=2/day")
    other = {"title": "Draft", "content": TEXT, "tags": ["Takeover"]}
    await client.post("/articles", json=other, headers=bearer(await create_user(session)))
    public = {**other, "tags": ["Public"], "published": True}
    await client.post("/articles", json=public, headers=bearer(await create_user(session)))
    user = await create_user(session)

    async def write(*tags: str) -> tuple[int, int]:
        body = {**other, "tags": tags}
        status = (await client.post("/articles", json=body, headers=bearer(user))).status_code
        uses = await client.get(f"/users/{user.id}/limits/use", headers=bearer(user))
        return status, next(use["used"] for use in uses.json() if use["kind"] == K.NEW_TAGS)

    assert await write("Public") == (201, 0)
    assert await write("Takeover", "Public") == (201, 1)
    assert await write("Takeover") == (201, 1)
    assert await write("Unheard of") == (201, 2)
    assert await write("Takeover", "Unheard of") == (201, 2)
    assert await write("Another") == (429, 2)


class TestCounting:
    async def test_limits_take_one_statement_more(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        connection: AsyncConnection,
        install: Install,
    ) -> None:
        user = await create_user(session)
        commented = await create_article(session, author=user)
        requests = {
            "/articles": {"title": "New", "content": TEXT, "tags": ["known"]},
            f"/articles/{commented.id}/comments": {"content": "Hello."},
        }
        for path, body in requests.items():
            counts = []
            for value in ("", "off"):
                install(LIMITS=value)
                for _ in range(2):  # the first request of a day measures the totals
                    with statements(connection) as executed:
                        answer = await client.post(path, json=body, headers=bearer(user))
                    assert answer.status_code == 201
                counts.append(len(executed))
            # An article is checked before it is written, and counted by the statement that inserts
            # its audit events. A comment is counted first.
            assert counts[0] == counts[1] + 1
        for path in ("/articles", f"/articles/{commented.id}"):
            with statements(connection) as executed:
                await client.get(path, headers=bearer(user))
            assert not any("limit_" in statement for statement in executed)

    async def test_old_counts_are_purged_and_totals_measured_again(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        database: Database,
        install: Install,
        timeline: Timeline,
    ) -> None:
        install(LIMITS="drafts=2")
        user = await create_user(session)
        headers = bearer(user)
        body = {"title": "Draft", "content": TEXT}
        for _ in range(2):
            assert (await client.post("/articles", json=body, headers=headers)).status_code == 201
        await limits.purge_uses(database)
        assert await session.scalar(select(func.count()).select_from(LimitUse)) == 4
        timeline.advance(86_401)
        await limits.purge_uses(database)
        assert await session.scalar(select(func.count()).select_from(LimitUse)) == 0
        third = await client.post("/articles", json=body, headers=bearer(user))
        assert third.status_code == 409

    async def test_overrides_are_deleted_with_their_user(
        self, client: httpx.AsyncClient, session: AsyncSession
    ) -> None:
        user, admin = await create_user(session), await create_user(session, role=Role.ADMIN)
        await client.put(
            f"/users/{user.id}/limits", json={"limits": {"comments": 1}}, headers=bearer(admin)
        )
        assert (await client.delete(f"/users/{user.id}", headers=bearer(admin))).status_code == 204
        assert await session.scalar(select(func.count()).select_from(LimitOverride)) == 0

    async def test_concurrent_changes_by_one_user_do_not_deadlock(
        self, live: httpx.AsyncClient, live_rows: Rows
    ) -> None:
        async with live_rows() as rows:
            user = await create_user(rows)
            made = [await create_article(rows, author=user) for _ in range(3)]
        headers, ndjson = bearer(user), {"Content-Type": "application/x-ndjson"}
        record = {"title": "Changed", "content": "From a file.", "slug": made[0].slug}
        requests: list[Any] = []
        for number in range(4):
            tag = tag_slug(f"{user.username} {number}")
            for article in made:
                url = f"/articles/{article.id}"
                changes = {"content": f"{TEXT} {number}", "tags": [tag], "published": False}
                requests.append(live.patch(url, json=changes, headers=headers))
                requests.append(live.patch(url, json={"published": True}, headers=headers))
            new = {"title": f"{user.username}", "content": TEXT, "tags": [tag]}
            requests.append(live.post("/articles", json=new, headers=headers))
            body = json.dumps({**record, "excerpt": f"{number}"})
            requests.append(
                live.post("/articles/import", content=body, headers={**headers, **ndjson})
            )
        statuses = {each.status_code for each in await asyncio.gather(*requests)}
        assert statuses <= {200, 201, 409}


class TestSetting:
    def test_defaults_can_be_read_and_replaced(self, install: Install) -> None:
        settings = install(LIMITS=" comments = 5/minute, text_kept=2GiB,reports=none ")
        assert settings.limit_of(K.COMMENTS) == Limit.parse("5/minute")
        assert settings.limit_of(K.TEXT_KEPT) == Limit(2 * 1024**3)
        assert settings.limit_of(K.REPORTS) is None
        assert settings.limit_of(K.DRAFTS) == DEFAULTS[K.DRAFTS]
        assert settings.limit_of(K.MEDIA_BYTES) == Limit(settings.media_quota_bytes)
        off = install(LIMITS="off")
        assert [kind for kind in K if off.limit_of(kind)] == [K.MEDIA_BYTES]

    @pytest.mark.parametrize(
        ("value", "because"),
        [
            ("comment=5/hour", "'comment' is not one of"),
            ("comments", "'' must look like"),
            ("comments=5", "needs a window"),
            ("drafts=5/hour", "needs a total"),
            ("comments=5/week", "must look like"),
            ("comments=-5/hour", "must look like"),
            ("comments=9999999999999999GiB/hour", "must look like"),
            ("media_bytes=5", "MEDIA_QUOTA_BYTES"),
        ],
    )
    def test_invalid_setting_is_reported(self, install: Install, value: str, because: str) -> None:
        with pytest.raises(SettingsError, match=because) as refused:
            install(LIMITS=value)
        assert "LIMITS" in str(refused.value)

    def test_every_kind_is_counted_either_by_user_or_by_address(self) -> None:
        totals = {kind for kind, limit in DEFAULTS.items() if limit.per is None}
        assert totals == set(limits._MEASURES) == set(limits._ADVICE)
        assert set(DEFAULTS) == set(LimitKind)
        assert parse_limits("") == Settings.model_fields["limits"].default


async def test_addresses_of_a_user_are_limited(
    client: httpx.AsyncClient, session: AsyncSession, install: Install
) -> None:
    install(LIMITS="addresses=2")
    user = await create_user(session)
    body = {"label": "home", "line1": "1 Street", "city": "Town", "country": "GB"}
    url = f"/users/{user.id}/addresses"
    made = [await client.post(url, json=body, headers=bearer(user)) for _ in range(3)]
    assert [each.status_code for each in made] == [201, 201, 409]
    assert await session.scalar(select(func.count()).select_from(Address)) == 2
