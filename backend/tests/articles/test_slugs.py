"""Slugs: unique, stable when the title changes, with redirects from former ones."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from itertools import product
from typing import Any

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.core import clock
from app.core.enums import Role
from tests.factories import bearer, create_article, create_user
from tests.test_lists import statements

TEXT = "Long enough."


async def post(
    client: httpx.AsyncClient, headers: dict[str, str], **body: object
) -> httpx.Response:
    return await client.post("/articles", json={"content": TEXT, **body}, headers=headers)


async def load(
    client: httpx.AsyncClient, headers: dict[str, str], *records: Mapping[str, object]
) -> dict[str, object]:
    """Import records and return the summary."""
    lines = b"".join(httpx.Request("POST", "http://x", json=r).content + b"\n" for r in records)
    typed = {**headers, "Content-Type": "application/x-ndjson"}
    async with asyncio.timeout(20):
        answer = await client.post("/articles/import", content=lines, headers=typed)
    report: dict[str, object] = answer.json()
    return report


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
async def test_slug_is_derived_from_title(
    client: httpx.AsyncClient, session: AsyncSession, title: str, slug: str
) -> None:
    author = bearer(await create_user(session))
    response = await post(client, author, title=title, published=True)
    assert response.json()["slug"] == slug
    assert (await client.get(f"/articles/by-slug/{slug}")).json() == response.json()


@pytest.mark.parametrize("title", ["你好世界", "مرحبا بالعالم", "🚀🚀", "สวัสดี", "x" * 200])
async def test_slug_is_neither_empty_nor_too_long(
    client: httpx.AsyncClient, session: AsyncSession, title: str
) -> None:
    author = bearer(await create_user(session))
    for _ in range(2):
        slug = (await post(client, author, title=title)).json()["slug"]
        assert slug
        assert slug.isascii()
        assert len(slug) <= 100


async def test_same_title_gets_another_slug(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    author = bearer(await create_user(session))
    slugs = [(await post(client, author, title="Twice")).json()["slug"] for _ in range(12)]
    assert slugs[:3] == ["twice", "twice-2", "twice-3"]
    assert len(set(slugs)) == 12


async def test_slug_stays_when_title_changes_unless_requested(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    author = bearer(await create_user(session))
    article = (await post(client, author, title="Before", published=True)).json()
    url = f"/articles/{article['id']}"
    kept = await client.patch(url, json={"title": "After"}, headers=author)
    assert kept.json()["slug"] == "before"
    for _ in range(2):  # the second request changes nothing
        anew = await client.patch(url, json={"slug": None}, headers=author)
        assert (anew.json()["slug"], anew.json()["version"]) == ("after", 3)
    both = {"title": "Third", "slug": None}
    assert (await client.patch(url, json=both, headers=author)).json()["slug"] == "third"


async def test_former_slugs_redirect(client: httpx.AsyncClient, session: AsyncSession) -> None:
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


async def test_draft_has_no_former_slugs(client: httpx.AsyncClient, session: AsyncSession) -> None:
    author = bearer(await create_user(session))
    article = (await post(client, author, title="Secret plan")).json()
    await client.patch(f"/articles/{article['id']}", json={"slug": "renamed"}, headers=author)
    for slug in ("secret-plan", "renamed"):
        assert (await client.get(f"/articles/by-slug/{slug}")).status_code == 404
    former = await client.get("/articles/by-slug/secret-plan", headers=author)
    assert former.status_code == 404
    again = await post(client, author, title="Secret plan", published=True)
    assert again.json()["slug"] == "secret-plan"


async def test_former_slug_of_another_article_is_taken(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    author = bearer(await create_user(session))
    article = (await post(client, author, title="Mine", published=True)).json()
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


async def test_deleted_article_keeps_its_slug(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    user = await create_user(session)
    article = await create_article(session, author=user, slug="kept")
    await client.delete(f"/articles/{article.id}", headers=bearer(user))
    assert (await post(client, bearer(user), title="Kept")).json()["slug"] == "kept-2"


@pytest.mark.parametrize("slug", ["nothing", "%00", "a%2Fb", "x" * 101, "%ED%A0%80"])
async def test_unknown_slug_is_not_found(client: httpx.AsyncClient, slug: str) -> None:
    assert (await client.get(f"/articles/by-slug/{slug}")).status_code in {404, 422}


async def test_slugs_reserved_for_the_realworld_api_are_taken(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    author = await create_user(session)
    body = {"title": "Feed", "content": "Long enough.", "published": True}
    created = await client.post("/articles", json=body, headers=bearer(author))
    assert created.json()["slug"] == "feed-2"
    response = await client.post("/articles", json={**body, "slug": "feed"}, headers=bearer(author))
    assert response.status_code == 409
    assert (await client.get("/api/articles/feed-2")).status_code == 200


DAY = timedelta(minutes=4)
"""Shorter than the lifetime of access tokens, which must stay valid when the clock moves."""
Headers = dict[str, str]


def later(days: int) -> str:
    return (clock.now() + days * DAY).isoformat()


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[timedelta], None]:
    """Move the application's clock forward."""
    start = clock.now()

    def move(by: timedelta) -> None:
        monkeypatch.setattr(clock, "now", lambda: start + by)

    return move


HIDDEN: dict[str, dict[str, Any]] = {
    "draft": {},
    "draft, chosen": {"slug": "plan", "title": "Something else"},
    "scheduled": {"published_at": "later"},
    "scheduled, chosen": {"published_at": "later", "slug": "plan"},
}
CHANGES = ("kept", "renamed", "archived", "trashed", "purged")
BODIES: dict[str, dict[str, Any]] = {
    "draft": {"title": "Plan"},
    "draft, chosen": {"slug": "plan"},
    "public": {"published": True},
    "public, chosen": {"published": True, "slug": "plan"},
    "soon": {"published_at": "sooner"},
    "soon, chosen": {"published_at": "sooner", "slug": "plan"},
}


def cases_of_hidden_articles() -> list[Any]:
    """Return all cases with an unchanged article, and all pairs of values for changed ones."""
    return [
        pytest.param(hidden, change, body, id=f"{body}-{change}-{hidden}")
        for (first, hidden), change, (second, body) in product(
            enumerate(HIDDEN), CHANGES, enumerate(BODIES)
        )
        if change == "kept" or first == (CHANGES.index(change) + second) % len(HIDDEN)
    ]


class TestUnpublishedSlugsAreUnobservable:
    @pytest.fixture
    async def ada(self, session: AsyncSession) -> Headers:
        return bearer(await create_user(session))

    @pytest.fixture
    async def bob(self, session: AsyncSession) -> Headers:
        return bearer(await create_user(session))

    @pytest.fixture
    async def editor(self, session: AsyncSession) -> Headers:
        return bearer(await create_user(session, role=Role.EDITOR))

    @pytest.mark.parametrize(("hidden", "change", "body"), cases_of_hidden_articles())
    async def test_articles_of_another_user_do_not_reveal_slugs(
        self,
        client: httpx.AsyncClient,
        ada: Headers,
        bob: Headers,
        hidden: str,
        change: str,
        body: str,
    ) -> None:
        days = {"later": later(2), "sooner": later(1)}

        def dated(body: dict[str, Any]) -> dict[str, object]:
            return {name: days.get(value, value) for name, value in body.items()}

        written = await post(client, ada, **{"title": "Plan", **dated(HIDDEN[hidden])})
        url = f"/articles/{written.json()['id']}"
        assert written.json()["slug"] == "plan"
        if change == "renamed":
            await client.patch(url, json={"slug": "other"}, headers=ada)
        if change == "archived":
            await client.patch(url, json={"archived": True}, headers=ada)
        before = await client.get(url, headers=ada)
        if change in {"trashed", "purged"}:
            await client.delete(url, headers=ada)
        if change == "purged":
            await client.delete(f"/trash/{written.json()['id']}", headers=ada)

        created = await post(client, bob, **{"title": "Plan", **dated(BODIES[body])})
        assert (created.status_code, created.json()["slug"]) == (201, "plan")
        found = await client.get("/articles/by-slug/plan", headers=bob)
        assert found.json()["id"] == created.json()["id"]
        if change in {
            "kept",
            "renamed",
            "archived",
        }:  # the draft's author cannot detect the other article either
            after = await client.get(url, headers=ada)
            assert (after.json(), after.headers["ETag"]) == (before.json(), before.headers["ETag"])

    async def test_updates_do_not_reveal_slugs(
        self, client: httpx.AsyncClient, ada: Headers, bob: Headers
    ) -> None:
        await post(client, ada, title="Plan")
        await post(client, ada, title="Scheme", published_at=later(1))
        mine = (await post(client, bob, title="Mine", published=True)).json()
        for slug in ("plan", "scheme"):
            url = f"/articles/{mine['id']}"
            changed = await client.patch(url, json={"slug": slug}, headers=bob)
            assert (changed.status_code, changed.json()["slug"]) == (200, slug)

    async def test_first_published_article_gets_the_slug(
        self, client: httpx.AsyncClient, ada: Headers, bob: Headers
    ) -> None:
        draft = (await post(client, ada, title="Plan")).json()
        other = (await post(client, bob, title="Plan", published=True)).json()
        url = f"/articles/{draft['id']}"
        assert (await client.get(url, headers=ada)).json()["slug"] == "plan"
        published = await client.patch(url, json={"published": True}, headers=ada)
        assert published.json()["slug"] == "plan-2"
        assert published.json()["version"] == 2
        for slug, article in (("plan", other), ("plan-2", draft)):
            found = await client.get(f"/articles/by-slug/{slug}")
            assert found.json()["id"] == article["id"]

    @pytest.mark.parametrize("title", ["Something", "Plan"])
    async def test_chosen_slug_conflicts_on_publishing(
        self, client: httpx.AsyncClient, ada: Headers, bob: Headers, title: str
    ) -> None:
        draft = (await post(client, ada, title=title, slug="plan-b")).json()
        await post(client, bob, title="Plan B", published=True)
        url = f"/articles/{draft['id']}"
        refused = await client.patch(url, json={"published": True}, headers=ada)
        assert (refused.status_code, refused.json()["code"]) == (409, "slug_taken")
        kept = (await client.get(url, headers=ada)).json()
        assert (kept["status"], kept["slug"], kept["version"]) == ("draft", "plan-b", 1)
        chosen = {"published": True, "slug": "plan-c"}
        assert (await client.patch(url, json=chosen, headers=ada)).json()["slug"] == "plan-c"

    async def test_scheduled_article_yields_slug_to_published_one(
        self,
        client: httpx.AsyncClient,
        ada: Headers,
        bob: Headers,
        at: Callable[[timedelta], None],
    ) -> None:
        scheduled = (await post(client, ada, title="Plan", published_at=later(1))).json()
        public = (await post(client, bob, title="Plan", published=True)).json()
        url = f"/articles/{scheduled['id']}"
        assert (await client.get(url, headers=ada)).json()["slug"] == "plan"
        at(2 * DAY)
        assert (await client.get(url)).json()["slug"] == "plan-2"
        assert (await client.get("/articles/by-slug/plan-2")).json()["id"] == scheduled["id"]
        assert (await client.get("/articles/by-slug/plan", headers=ada)).json()["id"] == public[
            "id"
        ]
        renamed = await client.patch(url, json={"slug": "better"}, headers=ada)
        assert renamed.json()["slug"] == "better"
        assert (await client.get("/articles/by-slug/plan-2")).status_code == 301

    @pytest.mark.parametrize("first", [1, 2])
    async def test_earlier_scheduled_article_keeps_the_slug(
        self,
        client: httpx.AsyncClient,
        ada: Headers,
        bob: Headers,
        at: Callable[[timedelta], None],
        first: int,
    ) -> None:
        one = (await post(client, ada, title="Plan", published_at=later(first))).json()
        two = (await post(client, bob, title="Plan", published_at=later(3 - first))).json()
        assert one["slug"] == two["slug"] == "plan"
        at(3 * DAY)
        slugs = [
            (await client.get(f"/articles/{article['id']}")).json()["slug"]
            for article in (one, two)
        ]
        assert slugs == (["plan", "plan-2"] if first == 1 else ["plan-2", "plan"])

    async def test_draft_slug_is_found_by_permitted_users_only(
        self, client: httpx.AsyncClient, ada: Headers, bob: Headers, editor: Headers
    ) -> None:
        async def found(headers: Headers) -> int | None:
            by_slug = await client.get("/articles/by-slug/plan", headers=headers)
            conduit = await client.get("/api/articles/plan", headers=headers)
            assert conduit.status_code == by_slug.status_code
            number: int | None = by_slug.json().get("id")
            return number

        drafts = [(await post(client, each, title="Plan")).json()["id"] for each in (ada, bob)]
        assert [await found(each) for each in (ada, bob, editor)] == [*drafts, drafts[0]]
        assert await found({}) is None
        own = (await post(client, editor, title="Plan")).json()["id"]
        assert await found(editor) == own
        await client.patch(f"/articles/{drafts[1]}", json={"published": True}, headers=bob)
        assert {await found(each) for each in (ada, bob, editor, {})} == {drafts[1]}

    async def test_once_public_article_keeps_its_slug(
        self, client: httpx.AsyncClient, ada: Headers, bob: Headers
    ) -> None:
        article = (await post(client, ada, title="Plan", published=True)).json()
        url = f"/articles/{article['id']}"
        for number, step in enumerate(
            [{"published": False}, {"published_at": later(1)}, {"archived": True}], start=2
        ):
            assert (await client.patch(url, json=step, headers=ada)).json()["slug"] == "plan"
            other = await post(client, bob, title="Plan", published=True)
            assert other.json()["slug"] == f"plan-{number}"
        await client.delete(url, headers=ada)
        assert (await post(client, bob, title="Plan", slug="plan")).status_code == 409
        await client.post(f"/articles/{article['id']}/restore", headers=ada)
        back = await client.patch(url, json={"published": True}, headers=ada)
        assert back.json()["slug"] == "plan"

    async def test_restored_article_keeps_its_slug(
        self,
        client: httpx.AsyncClient,
        ada: Headers,
        bob: Headers,
        at: Callable[[timedelta], None],
    ) -> None:
        draft = (await post(client, ada, title="Plan")).json()["id"]
        scheduled = (await post(client, ada, title="Scheme", published_at=later(1))).json()["id"]
        for number in (draft, scheduled):
            await client.delete(f"/articles/{number}", headers=ada)
        trash = (await client.get("/trash", headers=ada)).json()
        assert {entry["slug"] for entry in trash} == {"plan", "scheme"}
        for title in ("Plan", "Scheme"):
            await post(client, bob, title=title, published=True)
        restored = await client.post(f"/articles/{draft}/restore", headers=ada)
        assert restored.json()["slug"] == "plan"
        at(2 * DAY)
        restored = await client.post(f"/articles/{scheduled}/restore", headers=ada)
        assert (restored.json()["status"], restored.json()["slug"]) == ("published", "scheme-2")

    async def test_imports_do_not_reveal_slugs(
        self, client: httpx.AsyncClient, ada: Headers, bob: Headers
    ) -> None:
        now = clock.now().isoformat()
        draft: dict[str, object] = {"title": "Plan", "slug": "plan", "content": TEXT}
        assert (await load(client, ada, draft))["created"] == 1
        await post(client, ada, title="Scheme", published_at=later(1))
        for changed in ({}, {"published_at": now}):
            assert (await load(client, bob, {**draft, **changed}))["failed"] == 0
        unnamed = {"title": "Scheme", "content": TEXT, "published_at": now}
        assert (await load(client, bob, unnamed))["created"] == 1
        slugs = [entry["slug"] for entry in (await client.get("/articles")).json()]
        assert sorted(slugs) == ["plan", "scheme"]
        own = (await client.get("/articles/export", headers=ada)).text
        assert '"slug":"plan"' in own
        assert '"slug":"scheme"' in own
        assert "~" not in own
        # The import publishes it under a slug that is taken: its slug changes.
        mine = (await client.get("/articles/by-slug/plan", headers=bob)).json()
        assert mine["status"] == "published"
        assert (await load(client, ada, {**draft, "published_at": now}))["updated"] == 1
        moved = await client.get("/articles/by-slug/plan-2", headers=ada)
        assert moved.json()["status"] == "published"

    @pytest.mark.parametrize("days", [None, 1], ids=["draft", "scheduled"])
    async def test_imports_do_not_reveal_former_slugs(
        self, client: httpx.AsyncClient, ada: Headers, bob: Headers, days: int | None
    ) -> None:
        record = {"title": "Name", "content": TEXT, "former_slugs": ["plan"]}
        hidden = {**record, "published_at": days and later(days)}
        assert (await load(client, ada, {**hidden, "slug": "ada"}))["created"] == 1
        before = (await client.get("/articles/export", headers=ada)).text
        assert '"former_slugs":["plan"]' in before
        for title, body in (("Plan", {"published_at": later(1)}), ("Plan", {"slug": "plan-2"})):
            written = await post(client, bob, title=title, **body)
            assert written.json()["slug"] == body.get("slug", "plan")
        drafts = [
            {**record, "slug": "draft"},
            {**record, "slug": "scheduled", "published_at": later(1)},
            {**record, "slug": "public", "published_at": clock.now().isoformat()},
        ]
        for number, draft in enumerate(drafts):
            report = await load(client, bob, draft)
            assert (report["created"], report["notes"]) == (1, []), number
            own = (await client.get("/articles/export", headers=bob)).text
            assert own.count('"former_slugs":["plan"]') == number + 1
        assert (await client.get("/articles/export", headers=ada)).text == before
        moved = await client.get("/articles/by-slug/plan", headers=ada)
        assert moved.json()["moved_to"] == "public"

    @pytest.mark.parametrize("how", ["request", "import", "date"])
    async def test_former_slugs_redirect_once_their_article_is_public(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        ada: Headers,
        bob: Headers,
        how: str,
    ) -> None:
        await post(client, bob, title="Taken", published=True)
        record = {
            "title": "New",
            "slug": "new",
            "content": TEXT,
            "former_slugs": ["old", "taken"],
            "published_at": later(1) if how == "date" else None,
        }
        assert (await load(client, ada, record))["created"] == 1
        assert (await client.get("/articles/by-slug/old", headers=ada)).status_code == 404
        mine = (await client.get("/articles/by-slug/new", headers=ada)).json()
        if how == "request":
            url = f"/articles/{mine['id']}"
            await client.patch(url, json={"published": True}, headers=ada)
        elif how == "import":
            public = {**record, "published_at": clock.now().isoformat()}
            report = await load(client, ada, public)
            assert report["updated"] == 1
            assert "belong to another article: taken" in str(report["notes"])
        else:
            # As the job does when the date has come: the row does not await it any more.
            past = "published_at = now() - interval '1 second'"
            await session.execute(text(f"UPDATE articles SET {past} WHERE awaits_publication"))
        moved = await client.get("/articles/by-slug/old")
        assert (moved.status_code, moved.json()["moved_to"]) == (301, "new")
        assert (await client.get("/articles/by-slug/taken")).json()["title"] == "Taken"
        assert (await post(client, bob, title="Old", published=True)).json()["slug"] == "old-2"
        left = await session.scalar(text("SELECT count(*) FROM draft_former_slugs"))
        assert left == 0

    async def test_slug_is_locked_before_tags(
        self, client: httpx.AsyncClient, connection: AsyncConnection, ada: Headers, bob: Headers
    ) -> None:
        """Otherwise two requests deadlock: one holds the tags, the other a conflicting article."""
        for title in ("One", "Two", "Three", "Four"):
            await post(client, ada, title=title, published_at=later(1))
        draft = (await post(client, bob, title="Draft")).json()["id"]
        now = clock.now().isoformat()
        requests: list[Callable[[], Awaitable[object]]] = [
            lambda: post(client, bob, title="One", published=True, tags=["a"]),
            lambda: client.patch(
                f"/articles/{draft}",
                json={"slug": "two", "published": True, "tags": ["b"]},
                headers=bob,
            ),
            lambda: load(
                client,
                bob,
                {"title": "Three", "content": TEXT, "published_at": now, "tags": ["c"]},
            ),
            lambda: load(
                client,
                bob,
                {
                    "title": "Three",
                    "slug": "three",
                    "content": f"{TEXT} Changed.",
                    "published_at": now,
                    "tags": ["d"],
                },
            ),
        ]
        for number, request in enumerate(requests):
            with statements(connection) as executed:
                await request()
            first_tag = next(
                place
                for place, each in enumerate(executed)
                if re.search("FROM tags.*FOR KEY", each, re.DOTALL)
            )
            moves = [place for place, each in enumerate(executed) if "SET slug=" in each]
            assert all(place < first_tag for place in moves)
            assert moves or number == 3

    @pytest.mark.parametrize("taken", [(), ("plan-2", "plan-5")])
    async def test_import_reassigns_slugs_of_scheduled_articles(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        ada: Headers,
        bob: Headers,
        taken: tuple[str, ...],
    ) -> None:
        for day in (1, 2):
            author = bearer(await create_user(session))
            await post(client, author, title="Plan", published_at=later(day))
        for slug in taken:
            await post(client, ada, title="Plan", slug=slug, published=True)
        wanted = [f"plan{end}" for end in ("", "-2", "-3", "-4") if f"plan{end}" not in taken]
        now = clock.now().isoformat()
        records = [
            {"title": slug, "slug": slug, "content": TEXT, "published_at": now} for slug in wanted
        ]
        assert (await load(client, bob, *records))["created"] == len(wanted)
        slugs = (await session.scalars(text("SELECT slug FROM articles ORDER BY id"))).all()
        assert len(set(slugs)) == 2 + len(taken) + len(wanted)
        assert not any(slug.startswith("~") for slug in slugs)

    async def test_import_keeps_slug_of_earlier_scheduled_article(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        ada: Headers,
        bob: Headers,
        at: Callable[[timedelta], None],
    ) -> None:
        await post(client, ada, title="Plan", published_at=later(1))
        record = {"title": "Plan", "slug": "plan", "content": TEXT, "published_at": later(2)}
        assert (await load(client, bob, record))["created"] == 1
        at(3 * DAY)
        slugs = await session.scalars(text("SELECT slug FROM articles ORDER BY id"))
        assert slugs.all() == ["plan", "plan-2"]

    async def test_import_concurrent_with_restore(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        bob: Headers,
        at: Callable[[timedelta], None],
    ) -> None:
        author = await create_user(session)
        headers = bearer(author)
        await post(client, bob, title="Plan", published_at=later(1))
        mine = (await post(client, headers, title="Plan", published_at=later(2))).json()
        await client.delete(f"/articles/{mine['id']}", headers=headers)
        await session.execute(text("DELETE FROM articles WHERE id <> :id"), {"id": mine["id"]})
        at(3 * DAY)
        restored = await client.post(f"/articles/{mine['id']}/restore", headers=headers)
        assert (restored.json()["status"], restored.json()["slug"]) == ("published", "plan-2")
        draft: dict[str, object] = {"title": "Plan", "slug": "plan", "content": TEXT}
        assert (await load(client, headers, draft))["created"] == 1

    async def test_import_concurrent_with_publication(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        bob: Headers,
        at: Callable[[timedelta], None],
    ) -> None:
        headers = bearer(await create_user(session))
        await post(client, bob, title="Plan", published_at=later(1))
        mine = (await post(client, headers, title="Plan", published_at=later(2))).json()
        await session.execute(text("DELETE FROM articles WHERE id <> :id"), {"id": mine["id"]})
        at(3 * DAY)
        draft: dict[str, object] = {"title": "Plan", "content": TEXT}
        assert (await load(client, headers, draft))["created"] == 1

    async def test_slugs_of_one_author_differ(
        self, client: httpx.AsyncClient, ada: Headers
    ) -> None:
        created = [
            (await post(client, ada, title="Plan", **dated)).json()["slug"]
            for dated in ({}, {"published_at": later(1)}, {"published": True})
        ]
        assert created == ["plan", "plan-2", "plan-3"]
        taken = await post(client, ada, title="Other", slug="plan")
        assert taken.status_code == 409

    async def test_previous_release_may_write_drafts(
        self, client: httpx.AsyncClient, session: AsyncSession, bob: Headers
    ) -> None:
        ada = await create_user(session)
        insert = (
            "INSERT INTO articles (title, content, slug, author_id) VALUES"
            " ('Plan', 'Long enough.', 'plan', :author) ON CONFLICT (slug) DO NOTHING RETURNING id"
        )
        number = await session.scalar(text(insert), {"author": ada.id})
        assert (await post(client, bob, title="Plan", published=True)).json()["slug"] == "plan"
        url = f"/articles/{number}"
        assert (await client.get(url, headers=bearer(ada))).json()["slug"] == "plan"
        publish = "UPDATE articles SET published_at = now(), version = 2 WHERE id = :id"
        await session.execute(text(publish), {"id": number})
        slug = (await client.get(url)).json()["slug"]
        assert slug.startswith("plan-")
        assert (await client.get(f"/articles/by-slug/{slug}")).json()["id"] == number

    async def test_drafts_with_one_slug_may_move_to_one_author(
        self, client: httpx.AsyncClient, session: AsyncSession, ada: Headers, bob: Headers
    ) -> None:
        drafts = [(await post(client, each, title="Plan")).json()["id"] for each in (ada, bob)]
        recipient = await create_user(session)
        move = "UPDATE articles SET author_id = :recipient WHERE id = ANY(:ids)"
        await session.execute(text(move), {"recipient": recipient.id, "ids": drafts})
        slugs = {
            (await client.get(f"/articles/{number}", headers=bearer(recipient))).json()["slug"]
            for number in drafts
        }
        assert len(slugs) == 2
        assert "plan" in slugs
