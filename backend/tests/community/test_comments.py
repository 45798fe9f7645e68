"""Comments: threads, their visibility, editing, deleting and moderation."""

from datetime import datetime, timedelta
from typing import Any

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.core import clock
from app.core.enums import CommentPolicy, CommentStatus, Role
from app.models import Article, ArticleCounts, AuditEvent, Block, Comment, User
from app.services.community.comments import writing
from app.services.purging import Batch
from tests.community.test_profiles import pages
from tests.factories import PASSWORD, bearer, create_article, create_comment, create_user
from tests.test_lists import statements

WINDOW = timedelta(minutes=15)


@pytest.fixture
async def author(session: AsyncSession) -> User:
    return await create_user(session, username="author")


@pytest.fixture
async def editor(session: AsyncSession) -> User:
    return await create_user(session, role=Role.EDITOR)


@pytest.fixture
async def reader(session: AsyncSession) -> User:
    return await create_user(session, username="reader")


@pytest.fixture
async def other_user(session: AsyncSession) -> User:
    return await create_user(session)


@pytest.fixture
async def article(session: AsyncSession, author: User) -> Article:
    return await create_article(session, author=author)


async def post(
    client: httpx.AsyncClient, article: Article, user: User, **body: Any
) -> httpx.Response:
    url = f"/articles/{article.id}/comments"
    return await client.post(url, json={"content": "Indeed.", **body}, headers=bearer(user))


async def threads(
    client: httpx.AsyncClient, article: Article, viewer: User | None = None, query: str = ""
) -> list[dict[str, Any]]:
    headers = bearer(viewer) if viewer else {}
    return await pages(client, f"/articles/{article.id}/comments{query}", headers)


async def count_of(session: AsyncSession, article: Article) -> int | None:
    query = select(ArticleCounts.comments).where(ArticleCounts.article_id == article.id)
    return await session.scalar(query)


class TestWriting:
    async def test_comment_is_rendered(
        self, client: httpx.AsyncClient, session: AsyncSession, article: Article, reader: User
    ) -> None:
        text = "*Indeed*, see [it](https://example.com/).\n\n> quoted\n\n`code`"
        response = await post(client, article, reader, content=text)
        assert response.status_code == 201
        comment = response.json()
        assert comment["content"] == text
        assert "<em>Indeed</em>" in comment["html"]
        assert 'rel="noopener noreferrer nofollow"' in comment["html"]
        assert "<blockquote>" in comment["html"]
        assert comment["author"]["username"] == "reader"
        assert (comment["thread_id"], comment["parent_id"]) == (comment["id"], None)
        assert comment["status"] == "visible"
        assert not comment["removed"]
        assert (await client.get(f"/comments/{comment['id']}")).json() == comment
        assert await count_of(session, article) == 1

    @pytest.mark.parametrize(
        ("text", "absent"),
        [
            ("# Heading", "<h1"),
            ("Heading\n=======", "<h1"),
            ("![x](https://example.com/x.png)", "<img"),
            ("<b>bold</b>", "<b>"),
            ("<script>alert(1)</script>", "<script"),
            ("| a | b |\n|---|---|\n| 1 | 2 |", "<table"),
            ("text[^1]\n\n[^1]: note", "footnote"),
            ("[x](javascript:alert(1))", "href"),
        ],
    )
    async def test_markdown_subset_is_rendered(
        self, client: httpx.AsyncClient, article: Article, reader: User, text: str, absent: str
    ) -> None:
        response = await post(client, article, reader, content=text)
        assert response.status_code == 201
        assert absent not in response.json()["html"]

    @pytest.mark.parametrize(
        "body",
        [
            {"content": ""},
            {"content": "x" * 10_001},
            {"content": "\0"},
            {"content": None},
            {"content": 5},
            {"parent_id": 0},
            {"parent_id": "x"},
            {"author_id": 1},
        ],
    )
    async def test_invalid_input_is_rejected(
        self, client: httpx.AsyncClient, article: Article, reader: User, body: dict[str, Any]
    ) -> None:
        assert (await post(client, article, reader, **body)).status_code == 422

    @pytest.mark.parametrize("text", ["[" * 9_999, "*a_" * 3_300, "> " * 5_000, "- " * 5_000])
    async def test_complex_content_is_rejected_or_rendered_quickly(
        self, client: httpx.AsyncClient, article: Article, reader: User, text: str
    ) -> None:
        response = await post(client, article, reader, content=text)
        assert response.status_code in {201, 422}
        if response.status_code == 422:
            assert response.json()["code"] == "content_too_complex"

    async def test_deep_replies_are_listed_in_their_thread(
        self, client: httpx.AsyncClient, article: Article, reader: User, author: User
    ) -> None:
        root = (await post(client, article, reader)).json()
        parent = root["id"]
        chain = []
        for number in range(7):
            user = (reader, author)[number % 2]
            reply = (await post(client, article, user, parent_id=parent)).json()
            assert (reply["parent_id"], reply["thread_id"]) == (parent, root["id"])
            parent = reply["id"]
            chain.append(parent)
        (thread,) = await threads(client, article)
        assert thread["reply_count"] == 7
        assert [each["id"] for each in thread["replies"]] == chain[:5]
        replies = await pages(client, f"/comments/{root['id']}/replies?limit=2", {})
        assert [each["id"] for each in replies] == chain
        response = await client.get(f"/comments/{chain[0]}/replies")
        assert response.status_code == 404

    async def test_parent_must_be_visible_and_on_the_same_article(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        article: Article,
        author: User,
        reader: User,
        other_user: User,
    ) -> None:
        other = await create_article(session, author=author)
        elsewhere = await create_comment(session, article=other, author=other_user)
        hidden = await create_comment(
            session, article=article, author=other_user, status=CommentStatus.HIDDEN
        )
        gone = await create_comment(
            session, article=article, author=other_user, deleted_at=clock.now()
        )
        for parent in (elsewhere.id, hidden.id, gone.id, 2**62):
            response = await post(client, article, reader, parent_id=parent)
            assert response.status_code == 404
            assert response.json()["code"] == "comment_not_found"

    async def test_idempotency_key_creates_one_comment(
        self, client: httpx.AsyncClient, session: AsyncSession, article: Article, reader: User
    ) -> None:
        headers = {**bearer(reader), "Idempotency-Key": "one"}
        url = f"/articles/{article.id}/comments"
        answers = [
            await client.post(url, json={"content": "Once"}, headers=headers) for _ in range(3)
        ]
        assert {answer.json()["id"] for answer in answers} == {answers[0].json()["id"]}
        assert await count_of(session, article) == 1


class TestPolicy:
    async def test_closed_policy_rejects_comments(
        self, client: httpx.AsyncClient, article: Article, author: User, reader: User
    ) -> None:
        first = (await post(client, article, reader)).json()
        response = await client.patch(
            f"/articles/{article.id}", json={"comment_policy": "closed"}, headers=bearer(author)
        )
        assert response.json()["comment_policy"] == "closed"
        for user in (reader, author):
            refused = await post(client, article, user)
            assert refused.status_code == 403
            assert refused.json()["code"] == "comments_closed"
        assert [each["id"] for each in await threads(client, article)] == [first["id"]]

    async def test_held_policy_requires_approval(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        author: User,
        editor: User,
        reader: User,
        other_user: User,
    ) -> None:
        body = {
            "title": "Held",
            "content": "Long enough.",
            "published": True,
            "comment_policy": "held",
        }
        response = await client.post("/articles", json=body, headers=bearer(author))
        article = await session.get_one(Article, response.json()["id"])
        comment = (await post(client, article, reader)).json()
        assert comment["status"] == "pending"
        assert await count_of(session, article) is None
        for viewer, sees in ((None, 0), (other_user, 0), (reader, 1), (author, 1), (editor, 1)):
            assert len(await threads(client, article, viewer)) == sees
        for user, queue in ((author, [comment["id"]]), (editor, [comment["id"]]), (other_user, [])):
            listed = await client.get("/comments", headers=bearer(user))
            assert [each["id"] for each in listed.json()] == queue
        url = f"/comments/{comment['id']}/moderation"
        approved = await client.patch(url, json={"status": "visible"}, headers=bearer(author))
        assert approved.json()["status"] == "visible"
        assert len(await threads(client, article)) == 1
        assert await count_of(session, article) == 1
        # The changed text is held again.
        changed = await client.patch(
            f"/comments/{comment['id']}", json={"content": "Else"}, headers=bearer(reader)
        )
        assert changed.json()["status"] == "pending"
        assert await count_of(session, article) == 0
        assert (await post(client, article, author)).json()["status"] == "visible"

    @pytest.mark.parametrize("policy", ["shut", None, 1])
    async def test_invalid_comment_policy_is_rejected(
        self, client: httpx.AsyncClient, article: Article, author: User, policy: Any
    ) -> None:
        response = await client.patch(
            f"/articles/{article.id}", json={"comment_policy": policy}, headers=bearer(author)
        )
        assert response.status_code == 422


class TestChanging:
    async def test_own_comment_can_be_changed_for_15_minutes(
        self,
        client: httpx.AsyncClient,
        article: Article,
        reader: User,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        comment = (await post(client, article, reader)).json()
        url = f"/comments/{comment['id']}"
        written = datetime.fromisoformat(comment["created_at"])
        monkeypatch.setattr(clock, "now", lambda: written + WINDOW - timedelta(seconds=1))
        response = await client.patch(url, json={"content": "*New*"}, headers=bearer(reader))
        assert response.status_code == 200
        assert response.json()["html"] == "<p><em>New</em></p>\n"
        assert response.json()["edited_at"] is not None
        monkeypatch.setattr(clock, "now", lambda: written + WINDOW)
        late = await client.patch(url, json={"content": "Newer"}, headers=bearer(reader))
        assert late.status_code == 403
        assert late.json()["code"] == "edit_window_over"

    async def test_update_checks_if_match(
        self, client: httpx.AsyncClient, article: Article, reader: User
    ) -> None:
        comment = (await post(client, article, reader)).json()
        url = f"/comments/{comment['id']}"
        tag = (await client.get(url, headers=bearer(reader))).headers["ETag"]
        headers = {**bearer(reader), "If-Match": tag}
        for status in (200, 412):
            response = await client.patch(url, json={"content": "New"}, headers=headers)
            assert response.status_code == status
        for method, path, body in (
            ("PATCH", f"{url}/moderation", {"locked": True}),
            ("DELETE", url, None),
        ):
            stale = await client.request(method, path, json=body, headers=headers)
            assert stale.status_code in {403, 412}


class TestDeleting:
    async def test_deleted_comment_keeps_its_thread(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        article: Article,
        reader: User,
        author: User,
    ) -> None:
        root = (await post(client, article, reader, content="Secret")).json()
        alone = (await post(client, article, reader)).json()
        reply = (await post(client, article, author, parent_id=root["id"])).json()
        deeper = (await post(client, article, reader, parent_id=reply["id"])).json()
        for each in (root, alone):
            url = f"/comments/{each['id']}"
            assert (await client.delete(url, headers=bearer(reader))).status_code == 204
            assert (await client.delete(url, headers=bearer(reader))).status_code == 404
        await client.delete(f"/comments/{reply['id']}", headers=bearer(author))
        (thread,) = await threads(client, article, reader)
        assert thread["id"] == root["id"]
        assert thread["removed"]
        assert (thread["content"], thread["html"], thread["author"]) == (None, None, None)
        assert [(each["id"], each["removed"]) for each in thread["replies"]] == [
            (reply["id"], True),
            (deeper["id"], False),
        ]
        assert thread["reply_count"] == 1
        assert await count_of(session, article) == 1
        assert "Secret" not in (await client.get(f"/comments/{root['id']}")).text
        assert (await client.get(f"/comments/{alone['id']}")).status_code == 404
        await client.delete(f"/comments/{deeper['id']}", headers=bearer(reader))
        assert await threads(client, article) == []

    async def test_deleted_text_is_purged_after_thirty_days(
        self, session: AsyncSession, article: Article, reader: User
    ) -> None:
        month, now = timedelta(days=30), clock.now()
        ages = (month + timedelta(minutes=1), month - timedelta(minutes=1))
        old, new = [
            await create_comment(session, article=article, author=reader, deleted_at=now - age)
            for age in ages
        ]
        await writing.purge(session, Batch())
        for comment, text in ((old, ""), (new, "Indeed.")):
            await session.refresh(comment)
            assert comment.content == text

    async def test_account_deletion_clears_own_comments_only(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        article: Article,
        reader: User,
        author: User,
    ) -> None:
        root = (await post(client, article, reader, content="Mine")).json()
        reply = (await post(client, article, author, parent_id=root["id"])).json()
        response = await client.request(
            "DELETE", f"/users/{reader.id}", json={"password": PASSWORD}, headers=bearer(reader)
        )
        assert response.status_code == 204
        (thread,) = await threads(client, article)
        assert thread["removed"]
        assert thread["replies"][0]["id"] == reply["id"]
        assert await count_of(session, article) == 1
        session.expunge_all()
        left = await session.get_one(Comment, root["id"])
        assert (left.author_id, left.content, left.html) == (None, "", "")

    async def test_author_of_article_and_comment_can_be_deleted(
        self, client: httpx.AsyncClient, session: AsyncSession, article: Article, author: User
    ) -> None:
        root = (await post(client, article, author)).json()
        await post(client, article, author, parent_id=root["id"])
        response = await client.request(
            "DELETE", f"/users/{author.id}", json={"password": PASSWORD}, headers=bearer(author)
        )
        assert response.status_code == 204
        left = (await session.execute(select(Comment.author_id, Comment.content))).all()
        assert left == [(None, ""), (None, "")], left
        assert await count_of(session, article) == 0, await count_of(session, article)


class TestModerating:
    async def test_hidden_comment_is_visible_to_author_and_moderators(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        article: Article,
        author: User,
        editor: User,
        reader: User,
        other_user: User,
    ) -> None:
        comment = (await post(client, article, reader)).json()
        url = f"/comments/{comment['id']}"
        for moderator, status in ((author, "hidden"), (editor, "visible"), (editor, "hidden")):
            response = await client.patch(
                f"{url}/moderation", json={"status": status}, headers=bearer(moderator)
            )
            assert response.json()["status"] == status
            assert await count_of(session, article) == (status == "visible")
        for viewer, sees in ((None, 404), (other_user, 404), (reader, 200), (author, 200)):
            headers = bearer(viewer) if viewer else {}
            assert (await client.get(url, headers=headers)).status_code == sees
            assert len(await threads(client, article, viewer)) == (sees == 200)
        listed = await client.get("/comments?status=hidden", headers=bearer(author))
        assert [each["id"] for each in listed.json()] == [comment["id"]]
        actions = (await session.scalars(select(AuditEvent.action).order_by(AuditEvent.id))).all()
        assert actions == ["CREATE_COMMENT", "HIDE_COMMENT", "SHOW_COMMENT", "HIDE_COMMENT"]

    async def test_locked_thread_rejects_replies(
        self, client: httpx.AsyncClient, article: Article, author: User, reader: User
    ) -> None:
        root = (await post(client, article, reader)).json()
        reply = (await post(client, article, reader, parent_id=root["id"])).json()
        url = f"/comments/{root['id']}/moderation"
        locked = await client.patch(url, json={"locked": True}, headers=bearer(author))
        assert locked.json()["locked"]
        for parent in (root, reply):
            refused = await post(client, article, reader, parent_id=parent["id"])
            assert refused.status_code == 403
            assert refused.json()["code"] == "thread_locked"
        assert (await post(client, article, reader)).status_code == 201
        await client.patch(url, json={"locked": False}, headers=bearer(author))
        assert (await post(client, article, reader, parent_id=reply["id"])).status_code == 201
        wrong = await client.patch(
            f"/comments/{reply['id']}/moderation", json={"locked": True}, headers=bearer(author)
        )
        assert wrong.status_code == 422

    @pytest.mark.parametrize(
        "body",
        [{"status": "pending"}, {"status": None}, {"locked": 1}, {"locked": None}, {"x": 1}],
    )
    async def test_invalid_input_is_rejected(
        self, client: httpx.AsyncClient, article: Article, author: User, body: dict[str, Any]
    ) -> None:
        comment = (await post(client, article, author)).json()
        response = await client.patch(
            f"/comments/{comment['id']}/moderation", json=body, headers=bearer(author)
        )
        assert response.status_code == 422

    async def test_author_of_another_article_may_not_moderate(
        self, client: httpx.AsyncClient, session: AsyncSession, article: Article, other_user: User
    ) -> None:
        await create_article(session, author=other_user)
        comment = await create_comment(
            session, article=article, author=other_user, status=CommentStatus.HIDDEN
        )
        response = await client.patch(
            f"/comments/{comment.id}/moderation",
            json={"status": "visible"},
            headers=bearer(other_user),
        )
        assert response.status_code == 403
        assert (
            await client.get("/comments?status=hidden", headers=bearer(other_user))
        ).json() == []


class TestReading:
    async def test_comments_are_visible_with_their_article(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        article: Article,
        author: User,
        reader: User,
    ) -> None:
        comment = (await post(client, article, reader)).json()
        await client.patch(
            f"/articles/{article.id}", json={"published": False}, headers=bearer(author)
        )
        url = f"/comments/{comment['id']}"
        for path in (url, f"{url}/replies", f"/articles/{article.id}/comments"):
            assert (await client.get(path, headers=bearer(reader))).status_code == 404
            assert (await client.get(path, headers=bearer(author))).status_code == 200
        for method, path, body in (
            ("PATCH", url, {"content": "New"}),
            ("DELETE", url, None),
            ("POST", f"{url}/reports", {"reason": "x"}),
            ("POST", f"/articles/{article.id}/comments", {"content": "x"}),
        ):
            response = await client.request(method, path, json=body, headers=bearer(reader))
            assert response.status_code == 404

    async def test_comments_of_blocked_users_are_hidden(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        article: Article,
        author: User,
        reader: User,
        other_user: User,
    ) -> None:
        root = (await post(client, article, other_user, content="Loud")).json()
        await post(client, article, other_user)
        reply = (await post(client, article, author, parent_id=root["id"])).json()
        session.add(Block(blocker_id=reader.id, blocked_id=other_user.id))
        await session.flush()
        (thread,) = await threads(client, article, reader)
        assert thread["id"] == root["id"]
        assert thread["removed"]
        assert thread["author"] is None
        assert [each["id"] for each in thread["replies"]] == [reply["id"]]
        assert (
            "Loud" not in (await client.get(f"/comments/{root['id']}", headers=bearer(reader))).text
        )
        assert len(await threads(client, article, other_user)) == 2
        assert len(await threads(client, article)) == 2

    async def test_moderator_sees_comments_of_blocked_users(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        article: Article,
        author: User,
        other_user: User,
    ) -> None:
        article.comment_policy = CommentPolicy.HELD
        session.add(Block(blocker_id=author.id, blocked_id=other_user.id))
        await session.flush()
        comment = (await post(client, article, other_user, content="Loud")).json()
        (waiting,) = (await client.get("/comments", headers=bearer(author))).json()
        assert (waiting["status"], waiting["content"]) == ("pending", "Loud")
        read = await client.get(f"/comments/{comment['id']}", headers=bearer(author))
        assert read.json() == waiting

    @pytest.mark.parametrize("state", ["pending", "hidden", "deleted"])
    async def test_replies_do_not_disclose_hidden_parent(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        article: Article,
        reader: User,
        state: str,
    ) -> None:
        columns = {"deleted_at": clock.now()} if state == "deleted" else {"status": state}
        comment = await create_comment(session, article=article, author=reader, **columns)
        for path in ("", "/replies"):
            response = await client.get(f"/comments/{comment.id}{path}")
            assert response.status_code == 404

    async def test_threads_are_paged_and_sorted(
        self, client: httpx.AsyncClient, session: AsyncSession, article: Article, reader: User
    ) -> None:
        ids = [(await create_comment(session, article=article, author=reader)).id for _ in range(7)]
        newest = await threads(client, article, query="?limit=3")
        assert [each["id"] for each in newest] == ids[::-1]
        oldest = await threads(client, article, query="?limit=3&sort=oldest")
        assert [each["id"] for each in oldest] == ids
        first = await client.get(f"/articles/{article.id}/comments?limit=3")
        wrong = f"{first.links['next']['url']}&sort=oldest"
        assert (await client.get(wrong)).status_code == 422

    async def test_number_of_queries_is_constant(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        connection: AsyncConnection,
        article: Article,
        reader: User,
    ) -> None:
        for number in range(1, 4):
            root = await create_comment(session, article=article, author=reader)
            for _ in range(number):
                await create_comment(session, article=article, author=reader, parent=root)
            with statements(connection) as executed:
                listed = await client.get(
                    f"/articles/{article.id}/comments", headers=bearer(reader)
                )
            assert len(listed.json()) == number
            assert len(executed) == 4  # the session, the article, the threads, their replies

    async def test_comment_policy_is_an_article_field(
        self, client: httpx.AsyncClient, article: Article
    ) -> None:
        listed = await client.get("/articles?fields=comment_policy")
        assert listed.json() == [{"comment_policy": CommentPolicy.OPEN.value}]
