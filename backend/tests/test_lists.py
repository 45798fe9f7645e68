"""Rules for all lists: constant number of queries, maximum length, id as tie-breaker."""

from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.core.enums import Role
from tests.factories import (
    bearer,
    create_address,
    create_article,
    create_media,
    create_user,
    create_webhook,
)

LISTS = [
    "/articles",
    "/users",
    "/raw/users",
    "/users/{user_id}/addresses",
    "/media",
    "/admin/sessions",
    "/webhooks",
]


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


@pytest.mark.parametrize("path", LISTS)
async def test_number_of_queries_is_constant(
    client: httpx.AsyncClient, session: AsyncSession, connection: AsyncConnection, path: str
) -> None:
    admin = await create_user(session, role=Role.ADMIN)
    counts, url = [], path.format(user_id=admin.id)
    for _ in range(2):
        for _ in range(4):
            await create_article(session, author=await create_user(session))
            await create_address(session, user=admin)
            await create_media(session, owner=admin)
            await create_webhook(session, owner=admin)
        with statements(connection) as executed:
            listed = (await client.get(url, headers=bearer(admin))).json()
        counts.append((len(listed), len(executed)))
    (fewer, first), (more, second) = counts
    assert fewer < more
    assert first == second == 2  # the session, and the list
    assert "ORDER BY" in executed[-1]


@pytest.mark.parametrize("path", ["/articles", "/users", "/raw/users"])
async def test_anonymous_list_runs_one_query(
    client: httpx.AsyncClient, session: AsyncSession, connection: AsyncConnection, path: str
) -> None:
    await create_article(session, author=await create_user(session))
    with statements(connection) as executed:
        assert (await client.get(path)).status_code == 200
    assert len(executed) == 1


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize(
    "query", ["limit=0", "limit=101", "skip=-1", "skip=10001", "limit=x", "skip=1.5", "limt=5"]
)
async def test_invalid_page_is_rejected(
    client: httpx.AsyncClient, session: AsyncSession, path: str, query: str
) -> None:
    user = await create_user(session)
    url = f"{path.format(user_id=user.id)}?{query}"
    response = await client.get(url, headers=bearer(user))
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["query", query.split("=", maxsplit=1)[0]]
