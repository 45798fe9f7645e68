"""Profiles: follows, blocks, counts, and the feed of followed authors."""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.core import clock
from app.core.enums import Role
from app.models import AuditEvent, Block, Follow, User, UserCounts
from app.services.articles import listing
from tests.factories import PASSWORD, bearer, create_article, create_user
from tests.test_lists import statements

PROFILE = {
    "id",
    "username",
    "name",
    "bio",
    "image_url",
    "created_at",
    "followers_count",
    "following_count",
    "following",
    "blocked",
}


@pytest.fixture
async def ada(session: AsyncSession) -> User:
    return await create_user(session, username="Ada")


@pytest.fixture
async def bob(session: AsyncSession) -> User:
    return await create_user(session, username="bob")


async def profile_of(client: httpx.AsyncClient, name: str, viewer: User | None = None) -> Any:
    headers = bearer(viewer) if viewer else {}
    response = await client.get(f"/profiles/{name}", headers=headers)
    assert response.status_code == 200, response.text
    return response.json()


async def pages(client: httpx.AsyncClient, path: str, headers: dict[str, str]) -> list[Any]:
    """Return all items of a list, following its links."""
    found: list[Any] = []
    url: str | None = path
    while url:
        response = await client.get(url, headers=headers)
        assert response.status_code == 200, response.text
        found += response.json()
        url = response.links.get("next", {}).get("url")
    return found


class TestProfile:
    async def test_profile_has_public_fields_and_counts(
        self, client: httpx.AsyncClient, ada: User
    ) -> None:
        changes = {"bio": "Wrote\nnotes.", "image_url": "/media/x/1.webp"}
        response = await client.patch("/users/me", json=changes, headers=bearer(ada))
        assert response.status_code == 200
        assert {**response.json(), **changes} == response.json()
        profile = await profile_of(client, "aDA")
        assert profile.keys() == PROFILE
        assert {**profile, **changes, "username": "Ada"} == profile
        assert not profile["following"]
        assert not profile["blocked"]
        cleared = {"bio": "", "image_url": None}
        await client.patch("/users/me", json=cleared, headers=bearer(ada))
        assert {**await profile_of(client, "Ada"), **cleared} == await profile_of(client, "Ada")

    @pytest.mark.parametrize(
        "changes",
        [
            {"bio": None},
            {"bio": "x" * 1001},
            {"bio": "\0"},
            {"bio": 1},
            {"image_url": ""},
            {"image_url": "javascript:alert(1)"},
            {"image_url": "//elsewhere.example/x.png"},
            {"image_url": "https://example.com/" + "x" * 2000},
        ],
    )
    async def test_invalid_bio_and_image_are_rejected(
        self, client: httpx.AsyncClient, ada: User, changes: dict[str, Any]
    ) -> None:
        response = await client.patch("/users/me", json=changes, headers=bearer(ada))
        assert response.status_code == 422

    async def test_put_without_bio_and_image_keeps_them(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        ada.bio = "Mine"
        await session.flush()
        body = {"email": ada.email, "username": ada.username, "name": "Augusta"}
        response = await client.put(f"/users/{ada.id}", json=body, headers=bearer(ada))
        assert response.status_code == 200
        assert response.json()["bio"] == "Mine"

    @pytest.mark.parametrize("name", ["nobody", "%00", "a" * 51, "%F0%9F%98%80"])
    async def test_unknown_profile_is_not_found(
        self, client: httpx.AsyncClient, ada: User, name: str
    ) -> None:
        for method, path in (("GET", ""), ("PUT", "/follow"), ("PUT", "/block")):
            response = await client.request(method, f"/profiles/{name}{path}", headers=bearer(ada))
            assert response.status_code in {404, 422}
            assert response.json()["code"] in {"user_not_found", "validation_error"}

    async def test_profile_runs_two_queries(
        self, client: httpx.AsyncClient, connection: AsyncConnection, ada: User, bob: User
    ) -> None:
        with statements(connection) as executed:
            await profile_of(client, "bob", ada)
        assert len(executed) == 2


class TestFollowing:
    async def test_follow_is_idempotent_and_per_user(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User, bob: User
    ) -> None:
        for _ in range(2):
            response = await client.put("/profiles/BOB/follow", headers=bearer(ada))
            assert response.status_code == 200
            assert response.json()["following"]
            assert response.json()["followers_count"] == 1
        assert (await profile_of(client, "Ada"))["following_count"] == 1
        assert not (await profile_of(client, "bob"))["following"]
        assert not (await profile_of(client, "Ada", bob))["following"]
        for _ in range(2):
            response = await client.delete("/profiles/bob/follow", headers=bearer(ada))
            assert response.status_code == 200
            assert not response.json()["following"]
            assert response.json()["followers_count"] == 0
        audited = select(func.count()).select_from(AuditEvent)
        assert await session.scalar(audited) == 0

    async def test_following_oneself_is_rejected(
        self, client: httpx.AsyncClient, ada: User
    ) -> None:
        for path in ("follow", "block"):
            for method in ("PUT", "DELETE"):
                response = await client.request(
                    method, f"/profiles/ada/{path}", headers=bearer(ada)
                )
                assert response.status_code == 422
                assert "yourself" in response.json()["message"]

    async def test_follows_are_deleted_with_account(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User, bob: User
    ) -> None:
        eve = await create_user(session)
        for follower, followed in ((ada, bob), (eve, bob), (bob, ada)):
            session.add(Follow(follower_id=follower.id, followed_id=followed.id))
        await session.flush()
        assert (await profile_of(client, "bob"))["followers_count"] == 2
        response = await client.request(
            "DELETE", f"/users/{ada.id}", json={"password": PASSWORD}, headers=bearer(ada)
        )
        assert response.status_code == 204
        profile = await profile_of(client, "bob")
        assert (profile["followers_count"], profile["following_count"]) == (1, 0)

    async def test_lists_are_paged(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        connection: AsyncConnection,
        ada: User,
    ) -> None:
        now = clock.now()
        names: list[str] = []
        for number in range(7):
            user = await create_user(session)
            names.insert(0, user.username)
            moment = now + timedelta(seconds=number // 2)  # some share a date
            session.add_all(
                [
                    Follow(follower_id=user.id, followed_id=ada.id, created_at=moment),
                    Follow(follower_id=ada.id, followed_id=user.id, created_at=moment),
                ]
            )
        await session.flush()
        for path in ("followers", "following"):
            listed = await pages(client, f"/profiles/ada/{path}?limit=3", {})
            assert [each["username"] for each in listed] == names
            with statements(connection) as executed:
                await client.get(f"/profiles/ada/{path}")
            assert len(executed) == 2  # the user's id, and the list
        first = await client.get("/profiles/ada/followers?limit=3")
        cursor = first.links["next"]["url"].partition("cursor=")[2]
        for path in ("/profiles/ada/following", f"/profiles/{names[0]}/followers"):
            response = await client.get(f"{path}?cursor={cursor}")
            assert response.status_code == 422
            assert response.json()["code"] == "invalid_cursor"
        for query in ("limit=0", "limit=101", "limit=x", "skip=1", "cursor=x"):
            assert (await client.get(f"/profiles/ada/followers?{query}")).status_code == 422


class TestBlocking:
    async def test_block_ends_follows_and_prevents_new_ones(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User, bob: User
    ) -> None:
        session.add(Follow(follower_id=ada.id, followed_id=bob.id))
        session.add(Follow(follower_id=bob.id, followed_id=ada.id))
        await session.flush()
        for _ in range(2):
            response = await client.put("/profiles/bob/block", headers=bearer(ada))
            assert response.status_code == 200
            assert response.json()["blocked"]
        assert await session.scalar(select(func.count()).select_from(Follow)) == 0
        counts = (await session.execute(select(UserCounts.followers, UserCounts.following))).all()
        assert [tuple(row) for row in counts] == [(0, 0), (0, 0)]
        assert not (await profile_of(client, "Ada", bob))[
            "blocked"
        ]  # not disclosed to the blocked user
        for follower, name in ((bob, "ada"), (ada, "bob")):
            response = await client.put(f"/profiles/{name}/follow", headers=bearer(follower))
            assert response.status_code == 403
            assert response.json()["code"] == "follow_refused"
        blocks = (await client.get("/blocks", headers=bearer(ada))).json()
        assert [each["username"] for each in blocks] == ["bob"]
        assert (await client.get("/blocks", headers=bearer(bob))).json() == []
        for _ in range(2):
            response = await client.delete("/profiles/bob/block", headers=bearer(ada))
            assert not response.json()["blocked"]
        assert await session.scalar(select(func.count()).select_from(Block)) == 0
        response = await client.put("/profiles/ada/follow", headers=bearer(bob))
        assert response.status_code == 200


async def slugs_of(client: httpx.AsyncClient, user: User, query: str = "") -> Sequence[str]:
    listed = await pages(client, f"/feed{query}", bearer(user))
    return [article["slug"] for article in listed]


class TestFeed:
    @pytest.mark.parametrize("walked", [0, 1, listing.WALKED_PER_AUTHOR])
    async def test_feed_lists_articles_of_followed_authors(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        connection: AsyncConnection,
        monkeypatch: pytest.MonkeyPatch,
        ada: User,
        walked: int,
    ) -> None:
        """The order is the same if articles are read by date, by author, or in both ways."""
        monkeypatch.setattr(listing, "WALKED_PER_AUTHOR", walked)
        listing._page.cache_clear()
        now = clock.now()
        expected = []
        for number in range(4):
            author = await create_user(session)
            if number:
                session.add(Follow(follower_id=ada.id, followed_id=author.id))
            for minutes in range(3):
                article = await create_article(
                    session,
                    author=author,
                    published_at=now - timedelta(minutes=minutes + number // 2),
                )
                if number:
                    expected.append((article.published_at, article.id, article.slug))
            for state in (
                {"published": False},
                {"published_at": now + timedelta(days=1)},
                {"archived_at": now},
                {"deleted_at": now},
            ):
                await create_article(session, author=author, **state)
        await create_article(session, author=ada)
        wanted = [slug for *_, slug in sorted(expected, reverse=True)]
        assert await slugs_of(client, ada) == wanted
        assert await slugs_of(client, ada, "?limit=2") == wanted
        for number in (1, 4, 8):
            response = await client.get(f"/feed?skip={number}&limit=2", headers=bearer(ada))
            listed = [each["slug"] for each in response.json()]
            assert listed == wanted[number : number + 2]
        with statements(connection) as executed:
            response = await client.get(
                "/feed?count=true&fields=slug,favorited", headers=bearer(ada)
            )
        assert len(executed) == 3  # the session, the list, and its length
        assert response.headers["X-Total-Count"] == "9"
        assert response.json()[0].keys() == {"slug", "favorited"}
        back = await client.get("/feed?limit=2", headers=bearer(ada))
        for _ in range(2):
            back = await client.get(back.links["next"]["url"], headers=bearer(ada))
        back = await client.get(back.links["prev"]["url"], headers=bearer(ada))
        assert [each["slug"] for each in back.json()] == wanted[2:4]
        listing._page.cache_clear()

    async def test_feed_is_empty_without_follows(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User
    ) -> None:
        await create_article(session, author=ada)
        editor = await create_user(session, role=Role.EDITOR)
        assert await slugs_of(client, editor) == []
        response = await client.get("/feed")
        assert response.status_code == 401

    async def test_cursor_of_another_user_is_rejected(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: User, bob: User
    ) -> None:
        author = await create_user(session)
        for follower in (ada, bob):
            session.add(Follow(follower_id=follower.id, followed_id=author.id))
        for _ in range(2):
            await create_article(session, author=author)
        await session.flush()
        first = await client.get("/feed?limit=1", headers=bearer(ada))
        link = first.links["next"]["url"]
        assert (await client.get(link, headers=bearer(ada))).status_code == 200
        assert (await client.get(link, headers=bearer(bob))).status_code == 422
        skipping = await client.get(f"{link}&skip=1", headers=bearer(ada))
        assert skipping.status_code == 422
