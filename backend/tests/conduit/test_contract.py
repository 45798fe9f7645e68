"""Every response of the RealWorld API is validated against its contract."""

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.core.config import Settings
from app.db.session import Database
from app.models import Favorite, Follow
from app.services.articles import counting
from tests.conduit import scenarios
from tests.conduit.contract import OPERATIONS, PREFIX, PUBLISHED, Conduit, descriptions
from tests.factories import bearer, create_article, create_user
from tests.test_lists import statements


async def test_every_operation_returns_every_documented_status(
    client: httpx.AsyncClient,
) -> None:
    conduit = Conduit(client)
    await scenarios.call_every_operation(conduit)
    missing = scenarios.expected() - conduit.validated
    assert not missing


async def test_front_end_scenario_with_two_users(client: httpx.AsyncClient) -> None:
    await scenarios.run_with_two_users(Conduit(client))


@pytest.mark.checkout
@pytest.mark.skipif(not PUBLISHED, reason="REALWORLD_OPENAPI names no copy of the description")
async def test_responses_match_the_published_description(client: httpx.AsyncClient) -> None:
    *_, published = descriptions()
    assert published.document["info"]["version"] == "2.0.0"
    for path, item in published.document["paths"].items():
        for method, described in item.items():
            (ours,) = [
                each for each in OPERATIONS if each.path == path and each.method == method.upper()
            ]
            statuses = {ours.status, *ours.errors}
            assert {int(status) for status in described["responses"]} == statuses, ours.name
    conduit = Conduit(client)
    await scenarios.call_every_operation(conduit)
    await scenarios.run_with_two_users(conduit)


async def test_generated_openapi_has_the_same_operations(client: httpx.AsyncClient) -> None:
    document = (await client.get(f"{PREFIX}/openapi.json")).json()
    ours = {(method.upper(), path) for path, item in document["paths"].items() for method in item}
    assert ours == {(each.method, each.path) for each in OPERATIONS}


async def test_api_can_be_disabled(settings: Settings, database: Database) -> None:
    from app.main import create_app

    app: FastAPI = create_app(settings.model_copy(update={"conduit_api": False}))
    app.state.database = database
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        response = await client.get(f"{PREFIX}/articles")
    assert response.status_code == 404
    assert response.json()["code"] == "not_found"


@pytest.mark.parametrize("path", ["/api/articles", "/api/articles/feed"])
async def test_lists_take_three_queries_regardless_of_length(
    client: httpx.AsyncClient, session: AsyncSession, connection: AsyncConnection, path: str
) -> None:
    reader = await create_user(session)
    for number in range(1, 4):
        author = await create_user(session)
        session.add(Follow(follower_id=reader.id, followed_id=author.id))
        article = await create_article(session, author=author, tags=["a", "b"])
        session.add(Favorite(user_id=reader.id, article_id=article.id))
        await session.flush()
        with statements(connection) as executed:
            listed = (await client.get(path, headers=bearer(reader))).json()
        assert listed["articlesCount"] == len(listed["articles"]) == number
        assert all(each["favorited"] for each in listed["articles"])
        assert all(each["author"]["following"] for each in listed["articles"])
        assert len(executed) == 3  # the identity, the list and the count


async def test_count_is_cached_until_the_change_feed_changes(
    client: httpx.AsyncClient,
    session: AsyncSession,
    connection: AsyncConnection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(counting, "MIN_CACHED_COUNT", 2)
    author = await create_user(session, username="writer")
    for number, last in ((1, "count"), (2, "count"), (2, "max")):
        if last == "count":
            await create_article(session, author=author)
        with statements(connection) as executed:
            listed = (await client.get("/api/articles?author=writer")).json()
        assert listed["articlesCount"] == number
        assert f"{last}(" in executed[-1]
    for path in ("/api/articles?favorited=writer", "/api/articles/feed"):
        with statements(connection) as executed:
            await client.get(path, headers=bearer(author))
        assert "count(" in executed[-1]  # the feed does not contain favorites and follows
