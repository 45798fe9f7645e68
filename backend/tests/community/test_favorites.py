"""Favorites: users, counts, and fields in lists of articles."""

from datetime import timedelta

import httpx
import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.core import clock
from app.models import Article, ArticleCounts, AuditEvent, Favorite, User
from tests.community.test_profiles import pages
from tests.factories import PASSWORD, bearer, create_article, create_comment, create_user
from tests.test_lists import statements


@pytest.fixture
async def author(session: AsyncSession) -> User:
    return await create_user(session)


@pytest.fixture
async def article(session: AsyncSession, author: User) -> Article:
    return await create_article(session, author=author)


@pytest.fixture
async def reader(session: AsyncSession) -> User:
    return await create_user(session, username="Reader")


async def test_favorite_is_idempotent_and_per_user(
    client: httpx.AsyncClient, session: AsyncSession, article: Article, author: User, reader: User
) -> None:
    url = f"/articles/{article.id}/favorite"
    for _ in range(2):
        response = await client.put(url, headers=bearer(reader))
        assert response.status_code == 200
        assert response.json() == {
            "article_id": article.id,
            "favorited": True,
            "favorites_count": 1,
            "comments_count": 0,
        }
    await client.put(url, headers=bearer(author))
    assert (await client.get(url)).json() == {
        "article_id": article.id,
        "favorited": False,
        "favorites_count": 2,
        "comments_count": 0,
    }
    for _ in range(2):
        response = await client.delete(url, headers=bearer(reader))
        assert response.json()["favorited"] is False
        assert response.json()["favorites_count"] == 1
    audited = select(func.count()).select_from(AuditEvent)
    assert await session.scalar(audited) == 0  # favorites are not audited


async def test_favorite_keeps_the_article_version(
    client: httpx.AsyncClient, article: Article, author: User, reader: User
) -> None:
    before = (await client.get(f"/articles/{article.id}")).headers["ETag"]
    await client.put(f"/articles/{article.id}/favorite", headers=bearer(reader))
    headers = {**bearer(author), "If-Match": before}
    response = await client.patch(
        f"/articles/{article.id}", json={"title": "Anew"}, headers=headers
    )
    assert response.status_code == 200


async def test_deleted_with_account_or_article(
    client: httpx.AsyncClient, session: AsyncSession, article: Article, author: User, reader: User
) -> None:
    other = await create_article(session, author=author)
    for each in (article, other):
        session.add(Favorite(user_id=reader.id, article_id=each.id))
    session.add(Favorite(user_id=author.id, article_id=article.id))
    await session.flush()
    await client.request(
        "DELETE", f"/users/{reader.id}", json={"password": PASSWORD}, headers=bearer(reader)
    )
    counts = select(ArticleCounts.article_id, ArticleCounts.favorites)
    assert dict((await session.execute(counts)).all()) == {article.id: 1, other.id: 0}
    await client.delete(f"/articles/{article.id}", headers=bearer(author))
    assert (await client.delete(f"/trash/{article.id}", headers=bearer(author))).status_code == 204
    assert dict((await session.execute(counts)).all()) == {other.id: 0}


async def test_users_with_favorite_are_paged(
    client: httpx.AsyncClient, session: AsyncSession, article: Article
) -> None:
    now = clock.now()
    names: list[str] = []
    for number in range(5):
        user = await create_user(session)
        names.insert(0, user.username)
        moment = now + timedelta(seconds=number // 2)
        session.add(Favorite(user_id=user.id, article_id=article.id, created_at=moment))
    await session.flush()
    listed = await pages(client, f"/articles/{article.id}/favorites?limit=2", {})
    assert [each["username"] for each in listed] == names


@pytest.mark.parametrize("state", ["draft", "scheduled", "archived", "deleted"])
async def test_hidden_article_cannot_be_a_favorite(
    client: httpx.AsyncClient, session: AsyncSession, author: User, reader: User, state: str
) -> None:
    now = clock.now()
    hidden = await create_article(
        session,
        author=author,
        published=state != "draft",
        published_at=now + timedelta(days=1) if state == "scheduled" else None,
        archived_at=now if state == "archived" else None,
        deleted_at=now if state == "deleted" else None,
    )
    for method, path in (("GET", "favorite"), ("PUT", "favorite"), ("GET", "favorites")):
        response = await client.request(
            method, f"/articles/{hidden.id}/{path}", headers=bearer(reader)
        )
        assert response.status_code == 404
        assert response.json()["code"] == "article_not_found"


async def test_lists_return_counts_on_request(
    client: httpx.AsyncClient,
    session: AsyncSession,
    connection: AsyncConnection,
    article: Article,
    author: User,
    reader: User,
) -> None:
    other = await create_article(session, author=author)
    session.add(Favorite(user_id=reader.id, article_id=article.id))
    await create_comment(session, article=other, author=reader)
    await session.flush()
    url = "/articles?fields=id,favorites_count,comments_count,favorited&sort=oldest"
    with statements(connection) as executed:
        listed = (await client.get(url, headers=bearer(reader))).json()
    assert len(executed) == 2
    assert listed == [
        {"id": article.id, "favorites_count": 1, "comments_count": 0, "favorited": True},
        {"id": other.id, "favorites_count": 0, "comments_count": 1, "favorited": False},
    ]
    assert [each["favorited"] for each in (await client.get(url)).json()] == [False, False]
    assert "favorited" not in (await client.get("/articles")).json()[0]


async def test_favorited_by_filter_selects_favorites_of_the_user(
    client: httpx.AsyncClient, session: AsyncSession, article: Article, author: User, reader: User
) -> None:
    draft = await create_article(session, author=author, published=False)
    tagged = await create_article(session, author=author, tags=["Engines"])
    await create_article(session, author=author)
    for each in (article, draft, tagged):
        session.add(Favorite(user_id=reader.id, article_id=each.id))
    await session.flush()
    for query, expected in (
        ("", [tagged.id, article.id]),
        ("&tag=engines", [tagged.id]),
        (f"&author={author.username}", [tagged.id, article.id]),
        ("&author=nobody", []),
    ):
        response = await client.get(f"/articles?favorited_by=rEADER&count=true{query}")
        assert [each["id"] for each in response.json()] == expected
        assert response.headers["X-Total-Count"] == str(len(expected))
    own = await client.get("/articles?favorited_by=reader", headers=bearer(author))
    assert {each["id"] for each in own.json()} == {tagged.id, draft.id, article.id}
    assert (await client.get("/articles?favorited_by=nobody")).json() == []


async def test_favorite_of_a_hidden_article_can_be_removed(
    client: httpx.AsyncClient, session: AsyncSession, article: Article, reader: User
) -> None:
    session.add(Favorite(user_id=reader.id, article_id=article.id))
    article.archived_at = clock.now()
    await session.flush()
    url = f"/articles/{article.id}/favorite"
    for status in (200, 404):
        response = await client.delete(url, headers=bearer(reader))
        assert response.status_code == status
    assert await session.scalar(select(Favorite.user_id)) is None
