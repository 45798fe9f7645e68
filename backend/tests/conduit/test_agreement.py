"""Random operations on both APIs, compared with a model.

A failure prints the sequence. Its seed reproduces it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncSession

from app.models import User
from tests.factories import bearer, create_user

STEPS = 60
COMPARED = 0.1
"""How often everything is compared after a step: it costs more than most of them."""
TAGS = ("looms", "Engines", "notes", "zebra")
NAMES = ("ada", "bob", "eve")


@dataclass
class ModelArticle:
    """An article of the model."""

    id: int
    author: str
    title: str
    description: str
    body: str
    tags: list[str]
    slug: str
    published: bool = True
    comments: list[tuple[int, str, str]] = field(default_factory=list)
    """Id, author and text of each comment."""
    favorites: set[str] = field(default_factory=set)


@dataclass
class ModelState:
    """The model, and the client that sends the operations."""

    client: httpx.AsyncClient
    users: dict[str, User]
    random: Random
    articles: dict[int, ModelArticle] = field(default_factory=dict)
    bios: dict[str, str] = field(default_factory=lambda: dict.fromkeys(NAMES, ""))
    follows: set[tuple[str, str]] = field(default_factory=set)
    sent: list[str] = field(default_factory=list)
    number: int = 0

    async def send(
        self, method: str, path: str, who: str | None, body: Any = None, status: int = 200
    ) -> Any:
        self.sent.append(f"{who} {method} {path} {body}")
        headers = bearer(self.users[who]) if who else {}
        response = await self.client.request(method, path, json=body, headers=headers)
        assert response.status_code == status, f"{self.sent[-1]}: {response.text}"
        return response.json() if response.content else None

    def random_user(self) -> str:
        return self.random.choice(NAMES)

    def random_article(self) -> ModelArticle | None:
        return self.random.choice(list(self.articles.values())) if self.articles else None

    def random_published_article(self) -> ModelArticle | None:
        found = [each for each in self.articles.values() if each.published]
        return self.random.choice(found) if found else None

    def random_bool(self) -> bool:
        return self.random.random() < 0.5

    def random_text(self) -> str:
        self.number += 1
        return f"text number {self.number}"

    def listed(self) -> list[ModelArticle]:
        """Return the public articles, the newest first. Ids increase with the dates here."""
        public = [each for each in self.articles.values() if each.published]
        return sorted(public, key=lambda each: each.id, reverse=True)


def tags_of(state: ModelState) -> list[str]:
    return state.random.sample(TAGS, state.random.randint(0, 3))


async def write(state: ModelState) -> None:
    author, title, tags = state.random_user(), state.random_text(), tags_of(state)
    description, body = state.random_text(), state.random_text()
    if state.random_bool():
        new = {"title": title, "excerpt": description, "content": body, "tags": tags}
        made = await state.send("POST", "/articles", author, {**new, "published": True}, 201)
        identifier, slug = made["id"], made["slug"]
    else:
        new = {"title": title, "description": description, "body": body, "tagList": tags}
        made = await state.send("POST", "/api/articles", author, {"article": new}, 201)
        slug = made["article"]["slug"]
        identifier = (await state.send("GET", f"/articles/by-slug/{slug}", None))["id"]
    state.articles[identifier] = ModelArticle(
        identifier, author, title, description, body, tags, slug
    )


async def edit(state: ModelState) -> None:
    article = state.random_article()
    if article is None:
        return
    changed = state.random.choice(["title", "description", "body", "tags"])
    value: Any = tags_of(state) if changed == "tags" else state.random_text()
    if state.random_bool():
        name = {"description": "excerpt", "body": "content"}.get(changed, changed)
        # The RealWorld API changes the slug with the title; the native API needs a request.
        more = {"slug": None} if changed == "title" else {}
        read = await state.send(
            "PATCH", f"/articles/{article.id}", article.author, {name: value, **more}
        )
        article.slug = read["slug"]
    else:
        name = {"tags": "tagList"}.get(changed, changed)
        read = await state.send(
            "PUT", f"/api/articles/{article.slug}", article.author, {"article": {name: value}}
        )
        article.slug = read["article"]["slug"]
    setattr(article, changed, value)


async def delete(state: ModelState) -> None:
    article = state.random_article()
    if article is None:
        return
    path = f"/articles/{article.id}" if state.random_bool() else f"/api/articles/{article.slug}"
    await state.send("DELETE", path, article.author, status=204)
    del state.articles[article.id]


async def toggle_published(state: ModelState) -> None:
    """Unpublish an article, which only the native API can do."""
    article = state.random_article()
    if article is None or not article.published:
        return
    await state.send("PATCH", f"/articles/{article.id}", article.author, {"published": False})
    article.published = False


async def favorite(state: ModelState) -> None:
    article, who = state.random_published_article(), state.random_user()
    if article is None:
        return
    wanted = state.random.random() < 0.7
    if state.random_bool():
        await state.send("PUT" if wanted else "DELETE", f"/articles/{article.id}/favorite", who)
    else:
        path = f"/api/articles/{article.slug}/favorite"
        await state.send("POST" if wanted else "DELETE", path, who)
    (article.favorites.add if wanted else article.favorites.discard)(who)


async def follow(state: ModelState) -> None:
    who, other = state.random.sample(NAMES, 2)
    wanted = state.random.random() < 0.7
    if state.random_bool():
        await state.send("PUT" if wanted else "DELETE", f"/profiles/{other}/follow", who)
    else:
        await state.send("POST" if wanted else "DELETE", f"/api/profiles/{other}/follow", who)
    (state.follows.add if wanted else state.follows.discard)((who, other))


async def comment(state: ModelState) -> None:
    article, who, text = state.random_published_article(), state.random_user(), state.random_text()
    if article is None:
        return
    if state.random_bool():
        path = f"/articles/{article.id}/comments"
        parents = [None, *(each[0] for each in article.comments)]
        body = {"content": text, "parent_id": state.random.choice(parents)}
        made = await state.send("POST", path, who, body, 201)
        identifier = made["id"]
    else:
        path = f"/api/articles/{article.slug}/comments"
        made = await state.send("POST", path, who, {"comment": {"body": text}}, 201)
        identifier = made["comment"]["id"]
    article.comments.append((identifier, who, text))


async def delete_comment(state: ModelState) -> None:
    article = state.random_published_article()
    if article is None or not article.comments:
        return
    comment = state.random.choice(article.comments)
    path = f"/comments/{comment[0]}"
    if not state.random_bool():
        path = f"/api/articles/{article.slug}{path}"
    await state.send("DELETE", path, comment[1], status=204)
    article.comments.remove(comment)


async def update_profile(state: ModelState) -> None:
    who, bio = state.random_user(), state.random.choice(["", state.random_text()])
    if state.random_bool():
        await state.send("PATCH", "/users/me", who, {"bio": bio})
    else:
        await state.send("PUT", "/api/user", who, {"user": {"bio": bio}})
    state.bios[who] = bio


OPERATIONS: tuple[Callable[[ModelState], Awaitable[None]], ...] = (
    write,
    write,
    edit,
    edit,
    favorite,
    favorite,
    follow,
    comment,
    comment,
    delete_comment,
    delete,
    toggle_published,
    update_profile,
)


def profile(state: ModelState, name: str, viewer: str | None) -> dict[str, Any]:
    following = (viewer, name) in state.follows
    return {
        "username": name,
        "bio": state.bios[name] or None,
        "image": None,
        "following": following,
    }


async def compare(state: ModelState) -> None:
    viewer = state.random.choice([None, *NAMES])
    await compare_lists(state, viewer)
    await compare_articles(state, viewer)
    await compare_profiles(state, viewer)


async def compare_lists(state: ModelState, viewer: str | None) -> None:
    name, tag = state.random_user(), state.random.choice(TAGS)
    everything = state.listed()
    for here, there, expected in (
        ("", "", everything),
        (f"author={name}", f"author={name}", [each for each in everything if each.author == name]),
        (f"tag={tag}", f"tag={tag}", [each for each in everything if tag in each.tags]),
        (
            f"favorited_by={name}",
            f"favorited={name}",
            [each for each in everything if name in each.favorites],
        ),
    ):
        fields = "fields=slug,favorites_count,favorited,comments_count&status=published&limit=100"
        native = await state.send("GET", f"/articles?{fields}&{here}".rstrip("&"), viewer)
        assert native == [
            {
                "slug": each.slug,
                "favorites_count": len(each.favorites),
                "comments_count": len(each.comments),
                "favorited": viewer in each.favorites,
            }
            for each in expected
        ]
        conduit = await state.send("GET", f"/api/articles?limit=100&{there}", viewer)
        assert conduit["articlesCount"] == len(expected)
        assert [normalized(each) for each in conduit["articles"]] == [
            expected_article(state, each, viewer) for each in expected
        ]
    if viewer is not None:
        followed = [each for each in everything if (viewer, each.author) in state.follows]
        native = await state.send("GET", "/feed?limit=100", viewer)
        assert [each["id"] for each in native] == [each.id for each in followed]
        conduit = await state.send("GET", "/api/articles/feed?limit=100", viewer)
        assert [each["slug"] for each in conduit["articles"]] == [each.slug for each in followed]
        assert conduit["articlesCount"] == len(followed)
    used = {tag for each in everything for tag in each.tags}
    assert {each["name"] for each in await state.send("GET", "/tags", None)} == used
    assert set((await state.send("GET", "/api/tags", None))["tags"]) == used


def normalized(article: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in article.items() if name not in {"createdAt", "updatedAt"}
    }


def expected_article(
    state: ModelState, article: ModelArticle, viewer: str | None
) -> dict[str, Any]:
    return {
        "slug": article.slug,
        "title": article.title,
        "description": article.description,
        "tagList": sorted(article.tags, key=str.lower),
        "favorited": viewer in article.favorites,
        "favoritesCount": len(article.favorites),
        "author": profile(state, article.author, viewer),
    }


async def compare_articles(state: ModelState, viewer: str | None) -> None:
    article = state.random_article()
    if article is None:
        return
    if not (article.published or viewer == article.author):
        await state.send("GET", f"/articles/{article.id}", viewer, status=404)
        await state.send("GET", f"/api/articles/{article.slug}", viewer, status=404)
        return
    native = await state.send("GET", f"/articles/{article.id}", viewer)
    assert (native["slug"], native["title"], native["content"], native["excerpt"]) == (
        article.slug,
        article.title,
        article.body,
        article.description,
    )
    assert native["tags"] == sorted(article.tags, key=str.lower)
    conduit = (await state.send("GET", f"/api/articles/{article.slug}", viewer))["article"]
    assert normalized(conduit) == {**expected_article(state, article, viewer), "body": article.body}
    found = await state.send("GET", f"/api/articles/{article.slug}/comments", viewer)
    assert [(each["id"], each["author"], each["body"]) for each in found["comments"]] == [
        (identifier, profile(state, who, viewer), text)
        for identifier, who, text in reversed(article.comments)
    ]
    threads = await state.send("GET", f"/articles/{article.id}/comments?limit=100", viewer)
    everything = [each for thread in threads for each in (thread, *thread["replies"])]
    counted = sum(thread["reply_count"] + (not thread["removed"]) for thread in threads)
    assert counted == len(article.comments)
    known = {identifier: text for identifier, _, text in article.comments}
    for each in everything:
        assert each["removed"] == (each["id"] not in known)
        assert each["content"] == known.get(each["id"])


async def compare_profiles(state: ModelState, viewer: str | None) -> None:
    for name in NAMES:
        native = await state.send("GET", f"/profiles/{name}", viewer)
        assert native["bio"] == state.bios[name]
        assert native["following"] == ((viewer, name) in state.follows)
        assert native["followers_count"] == sum(whom == name for _, whom in state.follows)
        assert native["following_count"] == sum(who == name for who, _ in state.follows)
        conduit = await state.send("GET", f"/api/profiles/{name}", viewer)
        assert conduit["profile"] == profile(state, name, viewer)


@pytest.mark.parametrize("seed", range(3))
async def test_both_apis_agree_with_a_model(
    client: httpx.AsyncClient, session: AsyncSession, seed: int
) -> None:
    users = {name: await create_user(session, username=name) for name in NAMES}
    state = ModelState(client, users, Random(seed))
    try:
        for _ in range(STEPS):
            await state.random.choice(OPERATIONS)(state)
            if state.random.random() < COMPARED:
                await compare(state)
        await compare(state)
    except BaseException:
        print(f"seed {seed}:", *state.sent, sep="\n")
        raise
