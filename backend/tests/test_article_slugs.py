"""Slugs: one for each article, kept on edit, and the former ones lead on."""

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from tests.factories import bearer, create_article, create_user

TEXT = "Long enough."


async def post(
    client: httpx.AsyncClient, headers: dict[str, str], **body: object
) -> httpx.Response:
    return await client.post("/articles", json={"content": TEXT, **body}, headers=headers)


@pytest.mark.parametrize(
    ("title", "slug"),
    [
        ("Hello, World!", "hello-world"),
        ("Über Größe", "uber-grosse"),
        ("Привет, мир", "privet-mir"),
        ("!!!", "article"),
        ("2026", "article-2026"),
        ("export", "export"),
    ],
)
async def test_is_made_from_the_title(
    client: httpx.AsyncClient, session: AsyncSession, title: str, slug: str
) -> None:
    author = bearer(await create_user(session))
    response = await post(client, author, title=title, published=True)
    assert response.json()["slug"] == slug
    assert (await client.get(f"/articles/by-slug/{slug}")).json() == response.json()


@pytest.mark.parametrize("title", ["你好世界", "مرحبا بالعالم", "🚀🚀", "สวัสดี", "x" * 200])
async def test_is_never_empty_nor_long(
    client: httpx.AsyncClient, session: AsyncSession, title: str
) -> None:
    author = bearer(await create_user(session))
    for _ in range(2):
        slug = (await post(client, author, title=title)).json()["slug"]
        assert slug
        assert slug.isascii()
        assert len(slug) <= 100


async def test_the_same_title_gets_another_one(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    author = bearer(await create_user(session))
    slugs = [(await post(client, author, title="Twice")).json()["slug"] for _ in range(12)]
    assert slugs[:3] == ["twice", "twice-2", "twice-3"]
    assert len(set(slugs)) == 12


async def test_stays_when_the_title_changes_unless_asked(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    author = bearer(await create_user(session))
    article = (await post(client, author, title="Before", published=True)).json()
    url = f"/articles/{article['id']}"
    kept = await client.patch(url, json={"title": "After"}, headers=author)
    assert kept.json()["slug"] == "before"
    for _ in range(2):  # the second time, it has it already
        anew = await client.patch(url, json={"slug": None}, headers=author)
        assert (anew.json()["slug"], anew.json()["version"]) == ("after", 3)
    both = {"title": "Third", "slug": None}
    assert (await client.patch(url, json=both, headers=author)).json()["slug"] == "third"


async def test_former_ones_lead_on(client: httpx.AsyncClient, session: AsyncSession) -> None:
    author = bearer(await create_user(session))
    article = (await post(client, author, title="One", published=True)).json()
    url = f"/articles/{article['id']}"
    for slug in ("two", "three"):
        await client.patch(url, json={"slug": slug}, headers=author)
    for former in ("one", "two"):
        moved = await client.get(f"/articles/by-slug/{former}")
        assert moved.status_code == 301
        assert moved.headers["Location"] == "/articles/by-slug/three"
        assert moved.json()["moved_to"] == "three"
        assert moved.json()["code"] == "article_moved"
        followed = await client.get(f"/articles/by-slug/{former}", follow_redirects=True)
        assert followed.json()["id"] == article["id"]
    back = await client.patch(url, json={"slug": "one"}, headers=author)
    assert back.status_code == 200
    assert (await client.get("/articles/by-slug/one")).status_code == 200
    assert (await client.get("/articles/by-slug/three")).json()["moved_to"] == "one"


async def test_former_ones_of_a_draft_tell_strangers_nothing(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    author = bearer(await create_user(session))
    article = (await post(client, author, title="Secret plan")).json()
    await client.patch(f"/articles/{article['id']}", json={"slug": "renamed"}, headers=author)
    for slug in ("secret-plan", "renamed"):
        assert (await client.get(f"/articles/by-slug/{slug}")).status_code == 404
    moved = await client.get("/articles/by-slug/secret-plan", headers=author)
    assert moved.status_code == 301


async def test_one_that_leads_elsewhere_is_taken(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    author = bearer(await create_user(session))
    article = (await post(client, author, title="Mine")).json()
    await client.patch(f"/articles/{article['id']}", json={"slug": "moved"}, headers=author)
    other = (await post(client, author, title="Other")).json()
    for taken in ("mine", "moved"):
        for response in (
            await post(client, author, title="Third", slug=taken),
            await client.patch(f"/articles/{other['id']}", json={"slug": taken}, headers=author),
        ):
            assert response.status_code == 409
            assert response.json()["code"] == "slug_taken"
    assert (await post(client, author, title="Mine")).json()["slug"] == "mine-2"


async def test_one_in_the_trash_keeps_its_slug(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    user = await create_user(session)
    article = await create_article(session, author=user, slug="kept")
    await client.delete(f"/articles/{article.id}", headers=bearer(user))
    assert (await post(client, bearer(user), title="Kept")).json()["slug"] == "kept-2"


@pytest.mark.parametrize("slug", ["nothing", "%00", "a%2Fb", "x" * 101, "%ED%A0%80"])
async def test_unknown(client: httpx.AsyncClient, slug: str) -> None:
    assert (await client.get(f"/articles/by-slug/{slug}")).status_code in {404, 422}


async def test_a_slug_that_is_an_address_of_the_other_api_is_nobodys(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    author = await create_user(session)
    body = {"title": "Feed", "content": "Long enough.", "published": True}
    made = await client.post("/articles", json=body, headers=bearer(author))
    assert made.json()["slug"] == "feed-2"
    asked = await client.post("/articles", json={**body, "slug": "feed"}, headers=bearer(author))
    assert asked.status_code == 409
    assert (await client.get("/api/articles/feed-2")).status_code == 200
