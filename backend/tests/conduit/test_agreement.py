"""Both APIs show the same: random sequences of operations on either, against a plain model.

A failure prints the sequence; its seed repeats it.
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
class Piece:
    """An article, as the model has it."""

    id: int
    author: str
    title: str
    description: str
    body: str
    tags: list[str]
    slug: str
    published: bool = True
    comments: list[tuple[int, str, str]] = field(default_factory=list)
    """The id, the author and the text of each."""
    favorites: set[str] = field(default_factory=set)


@dataclass
class World:
    """The model, and what the operations are sent with."""

    client: httpx.AsyncClient
    users: dict[str, User]
    random: Random
    pieces: dict[int, Piece] = field(default_factory=dict)
    bios: dict[str, str] = field(default_factory=lambda: dict.fromkeys(NAMES, ""))
    follows: set[tuple[str, str]] = field(default_factory=set)
    told: list[str] = field(default_factory=list)
    number: int = 0

    async def send(
        self, method: str, path: str, who: str | None, body: Any = None, status: int = 200
    ) -> Any:
        self.told.append(f"{who} {method} {path} {body}")
        headers = bearer(self.users[who]) if who else {}
        response = await self.client.request(method, path, json=body, headers=headers)
        assert response.status_code == status, f"{self.told[-1]}: {response.text}"
        return response.json() if response.content else None

    def somebody(self) -> str:
        return self.random.choice(NAMES)

    def some_piece(self) -> Piece | None:
        return self.random.choice(list(self.pieces.values())) if self.pieces else None

    def a_published_piece(self) -> Piece | None:
        found = [each for each in self.pieces.values() if each.published]
        return self.random.choice(found) if found else None

    def natively(self) -> bool:
        return self.random.random() < 0.5

    def words(self) -> str:
        self.number += 1
        return f"words number {self.number}"

    def listed(self) -> list[Piece]:
        """What readers see, newest first: ids grow with the dates here."""
        seen = [each for each in self.pieces.values() if each.published]
        return sorted(seen, key=lambda each: each.id, reverse=True)


def tags_of(world: World) -> list[str]:
    return world.random.sample(TAGS, world.random.randint(0, 3))


async def write(world: World) -> None:
    author, title, tags = world.somebody(), world.words(), tags_of(world)
    description, body = world.words(), world.words()
    if world.natively():
        new = {"title": title, "excerpt": description, "content": body, "tags": tags}
        made = await world.send("POST", "/articles", author, {**new, "published": True}, 201)
        identifier, slug = made["id"], made["slug"]
    else:
        new = {"title": title, "description": description, "body": body, "tagList": tags}
        made = await world.send("POST", "/api/articles", author, {"article": new}, 201)
        slug = made["article"]["slug"]
        identifier = (await world.send("GET", f"/articles/by-slug/{slug}", None))["id"]
    world.pieces[identifier] = Piece(identifier, author, title, description, body, tags, slug)


async def edit(world: World) -> None:
    piece = world.some_piece()
    if piece is None:
        return
    changed = world.random.choice(["title", "description", "body", "tags"])
    value: Any = tags_of(world) if changed == "tags" else world.words()
    if world.natively():
        name = {"description": "excerpt", "body": "content"}.get(changed, changed)
        # The slug follows the title there by itself; here it is asked for.
        more = {"slug": None} if changed == "title" else {}
        read = await world.send(
            "PATCH", f"/articles/{piece.id}", piece.author, {name: value, **more}
        )
        piece.slug = read["slug"]
        if changed == "tags" and set(value) == set(piece.tags):
            return  # their order is Conduit's alone
    else:
        name = {"tags": "tagList"}.get(changed, changed)
        read = await world.send(
            "PUT", f"/api/articles/{piece.slug}", piece.author, {"article": {name: value}}
        )
        piece.slug = read["article"]["slug"]
    setattr(piece, changed, value)


async def delete(world: World) -> None:
    piece = world.some_piece()
    if piece is None:
        return
    path = f"/articles/{piece.id}" if world.natively() else f"/api/articles/{piece.slug}"
    await world.send("DELETE", path, piece.author, status=204)
    del world.pieces[piece.id]


async def turn_back(world: World) -> None:
    """Make a draft of it, or publish it again: that is for the native API alone."""
    piece = world.some_piece()
    if piece is None or not piece.published:
        return
    await world.send("PATCH", f"/articles/{piece.id}", piece.author, {"published": False})
    piece.published = False


async def favorite(world: World) -> None:
    piece, who = world.a_published_piece(), world.somebody()
    if piece is None:
        return
    wanted = world.random.random() < 0.7
    if world.natively():
        await world.send("PUT" if wanted else "DELETE", f"/articles/{piece.id}/favorite", who)
    else:
        path = f"/api/articles/{piece.slug}/favorite"
        await world.send("POST" if wanted else "DELETE", path, who)
    (piece.favorites.add if wanted else piece.favorites.discard)(who)


async def follow(world: World) -> None:
    who, whom = world.random.sample(NAMES, 2)
    wanted = world.random.random() < 0.7
    if world.natively():
        await world.send("PUT" if wanted else "DELETE", f"/profiles/{whom}/follow", who)
    else:
        await world.send("POST" if wanted else "DELETE", f"/api/profiles/{whom}/follow", who)
    (world.follows.add if wanted else world.follows.discard)((who, whom))


async def comment(world: World) -> None:
    piece, who, text = world.a_published_piece(), world.somebody(), world.words()
    if piece is None:
        return
    if world.natively():
        path = f"/articles/{piece.id}/comments"
        parents = [None, *(each[0] for each in piece.comments)]
        body = {"content": text, "parent_id": world.random.choice(parents)}
        made = await world.send("POST", path, who, body, 201)
        identifier = made["id"]
    else:
        path = f"/api/articles/{piece.slug}/comments"
        made = await world.send("POST", path, who, {"comment": {"body": text}})
        identifier = made["comment"]["id"]
    piece.comments.append((identifier, who, text))


async def uncomment(world: World) -> None:
    piece = world.a_published_piece()
    if piece is None or not piece.comments:
        return
    said = world.random.choice(piece.comments)
    path = f"/comments/{said[0]}"
    if not world.natively():
        path = f"/api/articles/{piece.slug}{path}"
    await world.send("DELETE", path, said[1], status=204)
    piece.comments.remove(said)


async def describe(world: World) -> None:
    who, bio = world.somebody(), world.random.choice(["", world.words()])
    if world.natively():
        await world.send("PATCH", "/users/me", who, {"bio": bio})
    else:
        await world.send("PUT", "/api/user", who, {"user": {"bio": bio}})
    world.bios[who] = bio


OPERATIONS: tuple[Callable[[World], Awaitable[None]], ...] = (
    write,
    write,
    edit,
    edit,
    favorite,
    favorite,
    follow,
    comment,
    comment,
    uncomment,
    delete,
    turn_back,
    describe,
)


def profile(world: World, name: str, viewer: str | None) -> dict[str, Any]:
    following = (viewer, name) in world.follows
    return {"username": name, "bio": world.bios[name], "image": "", "following": following}


async def compare(world: World) -> None:
    viewer = world.random.choice([None, *NAMES])
    await compare_lists(world, viewer)
    await compare_articles(world, viewer)
    await compare_people(world, viewer)


async def compare_lists(world: World, viewer: str | None) -> None:
    name, tag = world.somebody(), world.random.choice(TAGS)
    everything = world.listed()
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
        native = await world.send("GET", f"/articles?{fields}&{here}".rstrip("&"), viewer)
        assert native == [
            {
                "slug": each.slug,
                "favorites_count": len(each.favorites),
                "comments_count": len(each.comments),
                "favorited": viewer in each.favorites,
            }
            for each in expected
        ]
        conduit = await world.send("GET", f"/api/articles?limit=100&{there}", viewer)
        assert conduit["articlesCount"] == len(expected)
        assert [shape(each) for each in conduit["articles"]] == [
            shown(world, each, viewer) for each in expected
        ]
    if viewer is not None:
        followed = [each for each in everything if (viewer, each.author) in world.follows]
        native = await world.send("GET", "/feed?limit=100", viewer)
        assert [each["id"] for each in native] == [each.id for each in followed]
        conduit = await world.send("GET", "/api/articles/feed?limit=100", viewer)
        assert [each["slug"] for each in conduit["articles"]] == [each.slug for each in followed]
        assert conduit["articlesCount"] == len(followed)
    used = {tag for each in everything for tag in each.tags}
    assert {each["name"] for each in await world.send("GET", "/tags", None)} == used
    assert set((await world.send("GET", "/api/tags", None))["tags"]) == used


def shape(article: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in article.items() if name not in {"createdAt", "updatedAt"}
    }


def shown(world: World, piece: Piece, viewer: str | None) -> dict[str, Any]:
    return {
        "slug": piece.slug,
        "title": piece.title,
        "description": piece.description,
        "tagList": piece.tags,
        "favorited": viewer in piece.favorites,
        "favoritesCount": len(piece.favorites),
        "author": profile(world, piece.author, viewer),
    }


async def compare_articles(world: World, viewer: str | None) -> None:
    piece = world.some_piece()
    if piece is None:
        return
    if not (piece.published or viewer == piece.author):
        await world.send("GET", f"/articles/{piece.id}", viewer, status=404)
        await world.send("GET", f"/api/articles/{piece.slug}", viewer, status=404)
        return
    native = await world.send("GET", f"/articles/{piece.id}", viewer)
    assert (native["slug"], native["title"], native["content"], native["excerpt"]) == (
        piece.slug,
        piece.title,
        piece.body,
        piece.description,
    )
    assert native["tags"] == sorted(piece.tags, key=str.lower)
    conduit = (await world.send("GET", f"/api/articles/{piece.slug}", viewer))["article"]
    assert shape(conduit) == {**shown(world, piece, viewer), "body": piece.body}
    said = await world.send("GET", f"/api/articles/{piece.slug}/comments", viewer)
    assert [(each["id"], each["author"], each["body"]) for each in said["comments"]] == [
        (identifier, profile(world, who, viewer), text)
        for identifier, who, text in reversed(piece.comments)
    ]
    threads = await world.send("GET", f"/articles/{piece.id}/comments?limit=100", viewer)
    everything = [each for thread in threads for each in (thread, *thread["replies"])]
    counted = sum(thread["reply_count"] + (not thread["removed"]) for thread in threads)
    assert counted == len(piece.comments)
    known = {identifier: text for identifier, _, text in piece.comments}
    for each in everything:
        assert each["removed"] == (each["id"] not in known)
        assert each["content"] == known.get(each["id"])


async def compare_people(world: World, viewer: str | None) -> None:
    for name in NAMES:
        native = await world.send("GET", f"/profiles/{name}", viewer)
        assert native["bio"] == world.bios[name]
        assert native["following"] == ((viewer, name) in world.follows)
        assert native["followers_count"] == sum(whom == name for _, whom in world.follows)
        assert native["following_count"] == sum(who == name for who, _ in world.follows)
        conduit = await world.send("GET", f"/api/profiles/{name}", viewer)
        assert conduit["profile"] == profile(world, name, viewer)


@pytest.mark.parametrize("seed", range(6))
async def test_native_and_conduit_agree_with_a_model(
    client: httpx.AsyncClient, session: AsyncSession, seed: int
) -> None:
    users = {name: await create_user(session, username=name) for name in NAMES}
    world = World(client, users, Random(seed))
    try:
        for _ in range(STEPS):
            await world.random.choice(OPERATIONS)(world)
            if world.random.random() < COMPARED:
                await compare(world)
        await compare(world)
    except BaseException:
        print(f"seed {seed}:", *world.told, sep="\n")
        raise
