"""Rules for all lists: constant number of queries, maximum length, id as tie-breaker."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import event, text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.core import clock
from app.core.enums import CommentStatus, Role
from app.models import (
    Article,
    AuditEvent,
    Block,
    Comment,
    Favorite,
    Follow,
    JobRun,
    User,
    Webhook,
)
from app.schemas.articles.change import MAX_CHANGES
from app.schemas.page import MAX_LIMIT
from tests.factories import (
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

LISTS = {
    "/articles": 2,
    "/search?q=engine": 3,
    "/tags": 2,
    "/articles/{article_id}/comments": 4,
    "/comments": 2,
    "/comments/{comment_id}/replies": 5,
    "/articles/{article_id}/favorites": 3,
    "/profiles/{username}/followers": 3,
    "/profiles/{username}/following": 3,
    "/blocks": 2,
    "/feed": 2,
    "/changes": 2,
    "/media": 2,
    "/articles/{article_id}/preview-links": 3,
    "/articles/{article_id}/revisions": 3,
    "/trash": 2,
    "/reports": 2,
    "/articles/imports": 2,
    "/users": 2,
    "/raw/users": 2,
    "/auth/sessions": 2,
    "/users/me/api-keys": 2,
    "/users/{user_id}/addresses": 2,
    "/webhooks": 2,
    "/webhooks/{webhook_id}/deliveries": 3,
    "/admin/audit": 2,
    "/admin/jobs/{name}/runs": 2,
    "/admin/mail": 2,
    "/admin/sessions": 2,
}
"""Each list, and how many statements read it: the session, what the list belongs to, the list."""
BOUNDED = {
    "/search/suggest": "a constant number of suggestions",
    "/users/{user_id}/limits/use": "a row for each kind of limit",
    "/admin/jobs": "a row for each job",
}
"""Lists without pages, and why they are short."""


@dataclass(frozen=True)
class Given:
    """An administrator and the rows whose lists are read."""

    admin: User
    article: Article
    comment: Comment
    webhook: Webhook

    def url(self, path: str) -> str:
        return path.format(
            article_id=self.article.id,
            comment_id=self.comment.id,
            webhook_id=self.webhook.id,
            user_id=self.admin.id,
            username=self.admin.username,
            name="mail",
        )


@pytest.fixture
async def given(session: AsyncSession) -> Given:
    admin = await create_user(session, role=Role.ADMIN)
    article = await create_article(session, author=admin, title="An engine")
    comment = await create_comment(session, article=article, author=admin)
    webhook, _ = await create_webhook(session, owner=admin)
    return Given(admin, article, comment, webhook)


async def add_rows(session: AsyncSession, given: Given, number: int) -> None:
    """Add a row to each list."""
    admin, now = given.admin, clock.now()
    author, fan, blocked = [await create_user(session) for _ in range(3)]
    article = await create_article(
        session, author=author, title=f"Engine {number}", tags=[f"Tag {number}"]
    )
    await create_article(session, author=admin, deleted_at=now)
    for status in (CommentStatus.VISIBLE, CommentStatus.PENDING):
        await create_comment(session, article=given.article, author=author, status=status)
    await create_comment(session, article=given.article, author=author, parent=given.comment)
    await create_revision(session, article=given.article, version=number)
    await create_preview_link(session, article=given.article)
    await create_report(session, article=article, reporter=author)
    await create_import(session, user=admin)
    await create_media(session, owner=admin)
    await create_session(session, user=admin)
    await create_api_key(session, user=admin)
    await create_address(session, user=admin)
    await create_webhook(session, owner=admin)
    await create_webhook_delivery(session, webhook=given.webhook)
    await create_mail(session)
    session.add_all(
        [
            Favorite(user_id=author.id, article_id=given.article.id),
            Follow(follower_id=admin.id, followed_id=author.id),
            Follow(follower_id=fan.id, followed_id=admin.id),
            Block(blocker_id=admin.id, blocked_id=blocked.id),
            JobRun(job="mail", started_at=now, finished_at=now, host="localhost"),
            AuditEvent(action="login", subject_type="user", message="Logged in"),
        ]
    )
    await session.flush()
    await session.execute(text("SET CONSTRAINTS ALL IMMEDIATE"))  # their triggers note changes


@contextmanager
def statements(connection: AsyncConnection) -> Iterator[list[str]]:
    """Collect the statements that the connection executes within the block."""
    executed: list[str] = []

    def note(connection: object, cursor: object, statement: str, *rest: object) -> None:
        executed.append(statement)

    event.listen(connection.sync_connection, "before_cursor_execute", note)
    try:
        yield executed
    finally:
        event.remove(connection.sync_connection, "before_cursor_execute", note)


def test_every_list_is_tested(app: FastAPI) -> None:
    """A list has a parameter `limit`, or returns an array."""
    document = app.openapi()

    def resolve(schema: dict[str, Any]) -> dict[str, Any]:
        name = schema.get("$ref", "").rpartition("/")[2]
        return document["components"]["schemas"][name] if name else schema

    def is_list(operation: dict[str, Any]) -> bool:
        content = operation["responses"].get("200", {}).get("content", {})
        schema = resolve(content.get("application/json", {}).get("schema", {}))
        forms = [resolve(each) for each in schema.get("anyOf", [schema])]
        names = {each["name"] for each in operation.get("parameters", [])}
        return "limit" in names or any(each.get("type") == "array" for each in forms)

    reads = {path: each["get"] for path, each in document["paths"].items() if "get" in each}
    found = {path for path, operation in reads.items() if is_list(operation)}
    tested = {path.partition("?")[0] for path in LISTS}
    assert found == tested | BOUNDED.keys(), "add the list to LISTS, or with a reason to BOUNDED"


async def test_number_of_queries_is_constant(
    client: httpx.AsyncClient,
    session: AsyncSession,
    connection: AsyncConnection,
    given: Given,
) -> None:
    lengths: dict[str, list[int]] = {path: [] for path in LISTS}
    for numbers in (range(1, 3), range(3, 5)):
        for number in numbers:
            await add_rows(session, given, number)
        counts = {}
        for path in LISTS:
            with statements(connection) as executed:
                answer = await client.get(given.url(path), headers=bearer(given.admin))
            listed = answer.json()["changes"] if path == "/changes" else answer.json()
            lengths[path].append(len(listed))
            counts[path] = len(executed)
            assert "ORDER BY" in executed[-1], path
        assert counts == LISTS
    for path, (fewer, more) in lengths.items():
        assert fewer < more, f"add a row of {path} in add_rows"


@pytest.mark.parametrize("path", ["/articles", "/users", "/raw/users"])
async def test_anonymous_list_runs_one_query(
    client: httpx.AsyncClient, session: AsyncSession, connection: AsyncConnection, path: str
) -> None:
    await create_article(session, author=await create_user(session))
    with statements(connection) as executed:
        assert (await client.get(path)).status_code == 200
    assert len(executed) == 1


@pytest.mark.parametrize("path", LISTS)
async def test_invalid_pages_are_rejected(
    client: httpx.AsyncClient, given: Given, path: str
) -> None:
    too_many = 1 + (MAX_CHANGES if path == "/changes" else MAX_LIMIT)
    url = given.url(path)
    separator = "&" if "?" in url else "?"
    for query in (
        "limit=0", f"limit={too_many}", "skip=-1", "skip=10001", "limit=x", "skip=1.5", "limt=5",
    ):  # fmt: skip
        answer = await client.get(f"{url}{separator}{query}", headers=bearer(given.admin))
        assert answer.status_code == 422, query
        assert answer.json()["detail"][0]["loc"] == ["query", query.partition("=")[0]]
