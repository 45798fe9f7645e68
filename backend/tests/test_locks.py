"""Requests lock tables in the order of docs/architecture.md, so that they cannot deadlock.

Another transaction locks a row. A request that waits for it must not hold locks in tables that come
later in the order. This includes locks of triggers and foreign keys.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import clock
from app.core.enums import Role
from app.services.articles.images import update_media_references
from app.services.articles.tagging import lock_tags
from tests.factories import (
    bearer,
    create_article,
    create_comment,
    create_media,
    create_user,
)
from tests.processes import DEADLINE
from tests.security.conftest import (
    Install,
    install,
    live,
    live_app,
    live_database_url,
    live_rows,
)

__all__ = ["install", "live", "live_app", "live_database_url", "live_rows"]

Rows = Callable[[], AbstractAsyncContextManager[AsyncSession]]

ORDER = ("articles", "media", "tags", "comments", "limit_uses")

WAITING = text(
    """
    SELECT waiting.pid, held.relation::regclass::text AS name
    FROM pg_stat_activity AS waiting LEFT JOIN pg_locks AS held ON held.pid = waiting.pid
      AND held.granted AND held.locktype = 'relation'
      AND held.mode IN ('RowShareLock', 'RowExclusiveLock')
    WHERE waiting.datname = current_database() AND waiting.wait_event_type = 'Lock'
    """
)
"""The tables in which waiting transactions have locked or written rows."""

LOCKS: Mapping[str, str] = {
    "articles": "SELECT FROM articles WHERE slug = :slug FOR UPDATE",
    "media": "SELECT FROM media WHERE id = :media_id FOR UPDATE",
    "tags": "SELECT FROM tags WHERE name = :tag FOR UPDATE",
    "comments": "SELECT FROM comments WHERE id IN (:comment_id, :trashed_comment_id) FOR UPDATE",
}


class Case(NamedTuple):
    """A request, and the locked rows for which it waits."""

    route: str
    body: Any
    waits_for: tuple[str, ...]


FIELDS = {
    "title": "Wanted",
    "slug": "{slug}",
    "content": "An image: ![](/media/{folder}/320.jpg)",
    "tags": ["{tag}", "{new_tag}"],
    "published": True,
}
EVERYTHING = ("articles", "a new article", "media", "tags", "a new tag")
CASES: Mapping[str, Case] = {
    "create": Case("POST /articles", FIELDS, EVERYTHING),
    "change": Case("PATCH /articles/{draft_id}", FIELDS, EVERYTHING),
    "import": Case("POST /articles/import", FIELDS, EVERYTHING),
    "publish": Case("PATCH /articles/{draft_id}", {"published": True}, ("tags",)),
    "restore": Case("POST /articles/{trashed_id}/restore", None, ("tags",)),
    "purge": Case("DELETE /trash/{trashed_id}", None, ("media", "comments")),
    "rename tag": Case("PUT /tags/{tag_slug}", {"name": "{new_tag}"}, ("articles", "tags")),
    "delete tag": Case("DELETE /tags/{tag_slug}", None, ("articles", "tags")),
    "reply": Case(
        "POST /articles/{article_id}/comments",
        {"content": "Yes.", "parent_id": "{comment_id}"},
        ("comments",),
    ),
}


async def create_rows(rows: AsyncSession) -> tuple[dict[str, str], dict[str, Any]]:
    """Create the rows of a case; return the headers of an editor, and the names in the case."""
    unique = uuid4().hex[:12]
    names: dict[str, Any] = {key: f"{key} {unique}".replace("_", " ") for key in ("tag", "new_tag")}
    names |= {"slug": f"wanted-{unique}", "tag_slug": f"tag-{unique}"}
    editor, other = await create_user(rows, role=Role.EDITOR), await create_user(rows)
    media = await create_media(rows, owner=editor)
    content = f"![](/media/{media.folder}/320.jpg)"
    tags = [names["tag"]]
    await create_article(rows, author=other, slug=names["slug"], published=False, tags=tags)
    draft = await create_article(rows, author=editor, published=False, tags=tags)
    article = await create_article(rows, author=editor)
    trashed = await create_article(rows, author=editor, tags=tags, deleted_at=clock.now())
    await update_media_references(
        rows, article_id=trashed.id, content=content, cover_image_url=None
    )
    comment = await create_comment(rows, article=article, author=other)
    trashed_comment = await create_comment(rows, article=trashed, author=other)
    ids = {
        "media_id": media.id,
        "folder": media.folder,
        "draft_id": draft.id,
        "article_id": article.id,
        "trashed_id": trashed.id,
        "comment_id": comment.id,
        "trashed_comment_id": trashed_comment.id,
    }
    return bearer(editor), names | ids


def filled_in(value: Any, names: Mapping[str, Any]) -> Any:
    if isinstance(value, dict):
        return {key: filled_in(each, names) for key, each in value.items()}
    if isinstance(value, list):
        return [filled_in(each, names) for each in value]
    if isinstance(value, str):
        return names.get(value.strip("{}")) or value.format(**names)
    return value


@asynccontextmanager
async def locked(live_rows: Rows, what: str, names: Mapping[str, Any]) -> AsyncIterator[None]:
    """Lock rows, or insert rows with the same unique values, until the block ends."""
    async with live_rows() as rows:
        if what == "a new article":
            writer = await create_user(rows)
            await create_article(rows, author=writer, slug=names["slug"])
        elif what == "a new tag":
            await lock_tags(rows, [names["new_tag"]])
        else:
            await rows.execute(text(LOCKS[what]), names)
        yield
        await rows.rollback()


async def tables_of_waiting_request(
    live_rows: Rows, request: "asyncio.Task[httpx.Response]"
) -> set[str]:
    """Return the tables in which the request has locks, once it waits for another one."""
    async with asyncio.timeout(DEADLINE), live_rows() as rows:
        while not (found := (await rows.execute(WAITING)).all()):
            await rows.rollback()
            assert not request.done(), f"it does not wait: {request.result().text}"
    return {row.name for row in found}


@pytest.mark.parametrize(
    ("name", "what"), [(name, what) for name, case in CASES.items() for what in case.waits_for]
)
async def test_request_that_waits_holds_no_later_lock(
    live: httpx.AsyncClient, live_rows: Rows, name: str, what: str
) -> None:
    async with live_rows() as rows:
        headers, names = await create_rows(rows)
    if what == "a new article":
        names["slug"] += "-new"  # no committed article has it
    method, path = CASES[name].route.split(" ")
    options: dict[str, Any] = {"json": filled_in(CASES[name].body, names)}
    if name == "import":
        headers["Content-Type"] = "application/x-ndjson"
        options = {"content": json.dumps(options["json"])}
    async with locked(live_rows, what, names):
        request = asyncio.create_task(
            live.request(method, path.format(**names), headers=headers, **options)
        )
        tables = await tables_of_waiting_request(live_rows, request)
    answer = await request
    table = {"a new article": "articles", "a new tag": "tags"}.get(what, what)
    assert tables & {*ORDER[ORDER.index(table) + 1 :]} == set()
    assert answer.status_code < 300, answer.text
    if name == "import":
        assert answer.json()["created"] == 1, answer.text


@pytest.mark.parametrize(
    "name", ["create", "change", "restore", "purge", "rename tag", "delete tag"]
)
async def test_request_over_its_limit_writes_nothing(
    live: httpx.AsyncClient, live_rows: Rows, install: Install, name: str
) -> None:
    """It does not reach the locked rows, for which a request within the limit waits."""
    async with live_rows() as rows:
        headers, names = await create_rows(rows)
    method, path = CASES[name].route.split(" ")
    body = filled_in(CASES[name].body, names)
    install(LIMITS="articles=0/hour,changes=0/hour,moderation=0/hour")
    async with locked(live_rows, CASES[name].waits_for[-1], names), asyncio.timeout(DEADLINE / 8):
        answer = await live.request(method, path.format(**names), headers=headers, json=body)
    assert (answer.status_code, answer.json()["code"]) == (429, "limit_reached")
