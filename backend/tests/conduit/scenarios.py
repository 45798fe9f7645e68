"""Front end scenarios with two users; over ASGI, and through nginx by `make edge`."""

from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from tests.conduit.contract import OPERATIONS, Conduit
from tests.factories import PASSWORD

NEW_PASSWORD = "staple of a better battery"
ARTICLE = {
    "title": "How to train your dragon",
    "description": "Ever wonder how?",
    "body": "Very carefully.\n\n*Slowly.*",
    "tagList": ["training", "Dragons", "angular"],
}


async def call_every_operation(conduit: Conduit) -> None:
    """Call each operation so that it returns each documented status."""
    name = f"ada-{uuid4().hex[:8]}"
    email = f"{name}@example.com"
    token = await conduit.register(name, PASSWORD)
    other_user = await conduit.register(f"eve-{uuid4().hex[:8]}", PASSWORD)
    await conduit.send("POST", "/users", user={"username": name})
    again = {"username": f"new-{name}", "email": email, "password": PASSWORD}
    await conduit.send("POST", "/users", user=again)
    await conduit.send("POST", "/users/login", user={"email": email, "password": PASSWORD})
    await conduit.send("POST", "/users/login", user={"email": email, "password": "wrong"})
    await conduit.send("POST", "/users/login", user={"email": email})
    await conduit.send("PUT", "/user", token, user={"bio": "Mine"})
    await conduit.send("PUT", "/user", token, user={"email": "no address"})
    created = await conduit.send("POST", "/articles", token, article=ARTICLE)
    slug = created.json()["article"]["slug"]
    await conduit.send("POST", "/articles", token, article={})
    commented = await conduit.send(
        "POST", f"/articles/{slug}/comments", token, comment={"body": "Yes."}
    )
    await conduit.send("POST", f"/articles/{slug}/comments", token, comment={"body": ""})
    comment = commented.json()["comment"]["id"]
    one, other = f"/articles/{slug}", f"/profiles/{name}"
    for path, reader in (
        ("/user", token),
        (other, other_user),
        (other, None),
        ("/articles/feed", token),
        ("/articles", token),
        ("/articles", None),
        (one, token),
        (one, None),
        (f"{one}/comments", other_user),
        (f"{one}/comments", None),
        ("/tags", None),
        ("/articles?limit=0", None),
        ("/articles/feed?offset=-1", token),
        ("/user", None),
        ("/articles/feed", None),
        ("/articles/no-such-slug", None),
        ("/articles/no-such-slug/comments", None),
        ("/profiles/no-such-user", None),
    ):
        await conduit.send("GET", path, reader)
    for path in ("/articles", one, f"{one}/comments", other):
        await conduit.get(path, "not.a.token")
    change = {"article": {"description": "Still wondering?"}}
    blank = {"article": {"title": ""}}
    for method, path, body, bad in (
        ("PUT", one, change, blank),
        ("POST", f"{other}/follow", {}, None),
        ("DELETE", f"{other}/follow", {}, None),
        ("POST", f"{one}/favorite", {}, None),
        ("DELETE", f"{one}/favorite", {}, None),
        ("DELETE", f"{one}/comments/{comment}", {}, None),
        ("DELETE", one, {}, None),
    ):
        await conduit.send(method, path, None, **body)
        missing = path.replace(slug, "no-such-slug").replace(name, "no-such-user")
        await conduit.send(method, missing, other_user, **body)
        if bad is not None:
            await conduit.send(method, path, token, **bad)
        if method == "PUT" or path == one or "comments" in path:
            refused = await conduit.send(method, path, other_user, **body)
            assert refused.status_code == 403
        else:
            await conduit.send(method, path, token, **body)  # the user themselves
            await conduit.send(method, path, other_user, **body)
        if method == "PUT" or path == one or "comments" in path:
            await conduit.send(method, path, token, **body)
    await conduit.send("POST", f"{one}/comments", token, comment={"body": "Gone."})
    await conduit.send("POST", "/articles", None, article=ARTICLE)
    await conduit.send("PUT", "/user", None, user={"bio": "x"})
    await conduit.send("POST", f"{one}/comments", None, comment={"body": "x"})


IMPOSSIBLE = {
    # They have no input that could be invalid.
    ("GET /user", 422),
    ("GET /profiles/{username}", 422),
    ("GET /articles/{slug}", 422),
    ("GET /articles/{slug}/comments", 422),
    ("GET /tags", 422),
    ("DELETE /articles/{slug}", 422),
    ("DELETE /articles/{slug}/comments/{id}", 422),
    ("POST /articles/{slug}/favorite", 422),
    ("DELETE /articles/{slug}/favorite", 422),
    # The token is optional. An invalid one counts as none.
    ("GET /articles", 401),
    ("GET /profiles/{username}", 401),
    ("GET /articles/{slug}/comments", 401),
    # Articles with the same title get different slugs.
    ("POST /articles", 409),
}
"""Statuses that the contract lists, but that these operations cannot return."""


def expected() -> set[tuple[str, int]]:
    listed = {(each.name, status) for each in OPERATIONS for status in each.errors}
    return (listed | {(each.name, each.status) for each in OPERATIONS}) - IMPOSSIBLE


@dataclass
class Pair:
    """Two users, and the article of one of them."""

    conduit: Conduit
    mark: str
    ada: str
    bob: str
    slugs: list[str] = field(default_factory=list)

    @property
    def names(self) -> tuple[str, str]:
        return f"ada-{self.mark}", f"bob-{self.mark}"

    @property
    def tags(self) -> list[str]:
        return [f"zebra {self.mark}", f"Apes {self.mark}", f"moths {self.mark}"]

    @property
    def tags_by_name(self) -> list[str]:
        """The tags in the order of responses."""
        return sorted(self.tags, key=str.lower)


async def run_with_two_users(conduit: Conduit) -> None:
    """Register two users, who change settings, write, follow, favorite, comment and delete."""
    mark = uuid4().hex[:8]
    ada, bob = [await conduit.register(f"{name}-{mark}", PASSWORD) for name in ("ada", "bob")]
    pair = Pair(conduit, mark, ada, bob)
    for chapter in (
        settings,
        credentials,
        writing,
        lists,
        following,
        favorites,
        comments_of_both,
        editing,
        deletion,
    ):
        await chapter(pair)


async def settings(pair: Pair) -> None:
    """Send settings as forms do, with an empty password field."""
    user = (await pair.conduit.get("/user", pair.ada))["user"]
    assert user["token"] == pair.ada
    assert (user["bio"], user["image"]) == (None, None)
    settings = {**user, "bio": "Wrote notes.", "image": "https://example.com/a.png", "password": ""}
    saved = (await pair.conduit.send("PUT", "/user", pair.ada, user=settings)).json()["user"]
    assert saved == {**user, "bio": "Wrote notes.", "image": "https://example.com/a.png"}
    for empty in (None, ""):
        cleared = await pair.conduit.send(
            "PUT", "/user", pair.bob, user={"image": empty, "bio": empty}
        )
        assert cleared.json()["user"]["image"] is None
        assert cleared.json()["user"]["bio"] is None
    for refused in ({"email": None}, {"username": None}, {"password": None}, {"password": ""}):
        answer = await pair.conduit.send("PUT", "/user", pair.bob, user=refused)
        assert answer.status_code == 422
        (field,) = refused
        assert answer.json()["errors"] == {field: ["can't be blank"]}


async def credentials(pair: Pair) -> None:
    """Change password and email; the next login requires them."""
    ada_name, _ = pair.names
    email = f"countess-{pair.mark}@example.com"
    changes = {"email": email, "password": NEW_PASSWORD}
    moved = (await pair.conduit.send("PUT", "/user", pair.ada, user=changes)).json()["user"]
    assert moved["email"] == email
    old = {"email": email, "password": PASSWORD}
    assert (await pair.conduit.send("POST", "/users/login", user=old)).status_code == 401
    new = {"email": email, "password": NEW_PASSWORD}
    pair.ada = (await pair.conduit.send("POST", "/users/login", user=new)).json()["user"]["token"]
    taken = await pair.conduit.send("PUT", "/user", pair.bob, user={"username": ada_name})
    assert taken.status_code == 422
    assert taken.json()["errors"]["username"] == ["has already been taken"]


async def writing(pair: Pair) -> None:
    """Create an article; its tags are sorted by name."""
    ada_name, _ = pair.names
    for number in range(5):
        article = {**ARTICLE, "title": f"Part {number} of {pair.mark}", "tagList": pair.tags}
        written = (await pair.conduit.send("POST", "/articles", pair.ada, article=article)).json()[
            "article"
        ]
        assert written["tagList"] == pair.tags_by_name
        assert written["author"]["username"] == ada_name
        assert written["author"]["bio"] == "Wrote notes."
        pair.slugs.insert(0, written["slug"])
    assert set(pair.tags) <= set((await pair.conduit.get("/tags"))["tags"])


async def lists(pair: Pair) -> None:
    """List articles by author and by tag, page by page."""
    ada_name, bob_name = pair.names
    for query in (f"author={ada_name}", f"tag=zebra {pair.mark}"):
        found: list[str] = []
        for offset in (0, 2, 4):
            page = await pair.conduit.get(f"/articles?{query}&limit=2&offset={offset}", pair.bob)
            assert page["articlesCount"] == 5
            assert all("body" not in each for each in page["articles"])
            found += [each["slug"] for each in page["articles"]]
        assert found == pair.slugs
    assert (await pair.conduit.get(f"/articles?author={bob_name}"))["articlesCount"] == 0


async def following(pair: Pair) -> None:
    """Follow a user, whose articles then appear in the feed of the follower only."""
    ada_name, _ = pair.names
    assert (await pair.conduit.get("/articles/feed", pair.bob))["articlesCount"] == 0
    profile = (await pair.conduit.send("POST", f"/profiles/{ada_name}/follow", pair.bob)).json()[
        "profile"
    ]
    assert profile == {
        "username": ada_name,
        "bio": "Wrote notes.",
        "image": "https://example.com/a.png",
        "following": True,
    }
    feed = await pair.conduit.get("/articles/feed?limit=3", pair.bob)
    assert [each["slug"] for each in feed["articles"]] == pair.slugs[:3]
    assert feed["articlesCount"] == 5
    assert all(each["author"]["following"] for each in feed["articles"])
    for token in (pair.ada, None):
        profile = (await pair.conduit.get(f"/profiles/{ada_name}", token))["profile"]
        assert not profile["following"]


async def favorites(pair: Pair) -> None:
    """Favorite an article; each user sees their own state."""
    _, bob_name = pair.names
    first = f"/articles/{pair.slugs[0]}"
    liked = (await pair.conduit.send("POST", f"{first}/favorite", pair.bob)).json()["article"]
    assert (liked["favorited"], liked["favoritesCount"]) == (True, 1)
    for token, favorited in ((pair.bob, True), (pair.ada, False), (None, False)):
        read = (await pair.conduit.get(first, token))["article"]
        assert (read["favorited"], read["favoritesCount"]) == (favorited, 1)
        listed = (await pair.conduit.get(f"/articles?favorited={bob_name}", token))["articles"]
        assert [(each["slug"], each["favorited"]) for each in listed] == [
            (pair.slugs[0], favorited)
        ]
    less = (await pair.conduit.send("DELETE", f"{first}/favorite", pair.bob)).json()["article"]
    assert (less["favorited"], less["favoritesCount"]) == (False, 0)


async def comments_of_both(pair: Pair) -> None:
    """Comment, reply and delete comments."""
    first = f"/articles/{pair.slugs[0]}"
    ids: list[int] = []
    for token, text in ((pair.bob, "How slowly?"), (pair.ada, "As slowly as it takes.")):
        created = await pair.conduit.send(
            "POST", f"{first}/comments", token, comment={"body": text}
        )
        ids.insert(0, created.json()["comment"]["id"])
    comments = (await pair.conduit.get(f"{first}/comments", pair.bob))["comments"]
    assert [each["id"] for each in comments] == ids
    assert [each["author"]["following"] for each in comments] == [True, False]
    elsewhere = await pair.conduit.send(
        "DELETE", f"/articles/{pair.slugs[1]}/comments/{ids[1]}", pair.bob
    )
    assert elsewhere.status_code == 404
    assert (
        await pair.conduit.send("DELETE", f"{first}/comments/{ids[0]}", pair.bob)
    ).status_code == 403
    assert (
        await pair.conduit.send("DELETE", f"{first}/comments/{ids[1]}", pair.bob)
    ).status_code == 204
    left = (await pair.conduit.get(f"{first}/comments"))["comments"]
    assert [each["id"] for each in left] == ids[:1]


async def editing(pair: Pair) -> None:
    """Update the title; the slug changes, and the former slug still works."""
    first = f"/articles/{pair.slugs[0]}"
    assert (
        await pair.conduit.send("PUT", first, pair.bob, article={"body": "All mine now."})
    ).status_code == 403
    edited = (
        await pair.conduit.send("PUT", first, pair.ada, article={"title": f"Anew, {pair.mark}"})
    ).json()["article"]
    assert edited["slug"] == f"anew-{pair.mark}"
    pair.slugs[0] = edited["slug"]
    assert edited["tagList"] == pair.tags_by_name
    assert edited["body"] == ARTICLE["body"]
    assert (await pair.conduit.get(first))["article"]["slug"] == edited["slug"]
    same = await pair.conduit.send(
        "PUT", f"/articles/{edited['slug']}", pair.ada, article={"body": "Else, now."}
    )
    assert same.json()["article"]["slug"] == edited["slug"]
    null = {"article": {"tagList": None}}
    refused = await pair.conduit.send("PUT", f"/articles/{edited['slug']}", pair.ada, **null)
    assert refused.status_code == 422
    none: Any = {"article": {"tagList": []}}
    cleared = await pair.conduit.send("PUT", f"/articles/{edited['slug']}", pair.ada, **none)
    assert cleared.json()["article"]["tagList"] == []


async def deletion(pair: Pair) -> None:
    """Delete the article and unfollow."""
    ada_name, _ = pair.names
    for slug in pair.slugs:
        assert (await pair.conduit.send("DELETE", f"/articles/{slug}", pair.bob)).status_code == 403
        assert (await pair.conduit.send("DELETE", f"/articles/{slug}", pair.ada)).status_code == 204
        assert (await pair.conduit.send("GET", f"/articles/{slug}", pair.ada)).status_code == 404
    after: Any = (
        await pair.conduit.send("DELETE", f"/profiles/{ada_name}/follow", pair.bob)
    ).json()
    assert not after["profile"]["following"]
    assert (await pair.conduit.get("/articles/feed", pair.bob))["articlesCount"] == 0
