"""Streams: what they send to whom, how they continue, and how they end."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import update

from app.auth.security import create_access_token
from app.core.enums import CommentPolicy, CommentStatus, Role
from app.db.reading import Reader
from app.models import Article, User
from app.services.articles import changes
from app.services.integrations.live.changes import ChangesPosition
from app.services.integrations.live.comments import CommentsPosition, Happening
from tests.factories import (
    api_key,
    bearer,
    create_article,
    create_comment,
    create_session,
    create_user,
)
from tests.integrations.streaming import PATH, LiveServer
from tests.processes import DEADLINE


async def new_user(server: LiveServer, **columns: Any) -> User:
    async with server.database.unit_of_work() as session:
        return await create_user(session, **columns)


async def new_article(server: LiveServer, author: User, **columns: Any) -> Article:
    async with server.database.unit_of_work() as session:
        return await create_article(session, author=author, **columns)


async def test_stream_has_changes_of_articles_from_now_on(server: LiveServer) -> None:
    author = await new_user(server)
    await new_article(server, author)
    async with server.stream() as stream:
        assert stream.response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert stream.response.headers["cache-control"] == "no-store"
        await stream.started()
        article = await new_article(server, author)
        event = await stream.next()
    assert event.name == "change"
    assert event.data["kind"] == "created"
    assert event.data["article_id"] == article.id
    assert event.id == event.data["cursor"]
    assert stream.retry is not None


async def test_changes_are_sent_from_the_start_of_the_response(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client may write or read as soon as it has the headers."""
    author = await new_user(server)
    articles: list[Article] = []
    latest = ChangesPosition.latest

    async def slow_latest(reader: Reader) -> ChangesPosition:
        with suppress(TimeoutError):
            async with asyncio.timeout(1):  # the headers do not come meanwhile
                await has_headers.wait()
                articles.append(await new_article(server, author))
        return await latest(reader)

    has_headers = asyncio.Event()
    monkeypatch.setattr(ChangesPosition, "latest", slow_latest)
    async with server.stream() as stream:
        has_headers.set()
        articles.append(await new_article(server, author))
        event = await stream.next()
    assert event.data["article_id"] == articles[0].id


async def test_ids_are_cursors_of_the_change_feed(server: LiveServer) -> None:
    author = await new_user(server)
    feed = (await server.client.get("/changes", params={"cursor": "latest"})).json()
    first, second = await new_article(server, author), await new_article(server, author)
    async with server.stream(cursor=feed["next"]) as stream:
        events = [await stream.next(), await stream.next()]
    assert [each.data["article_id"] for each in events] == [first.id, second.id]
    later = await server.client.get("/changes", params={"cursor": events[0].id})
    assert [each["article_id"] for each in later.json()["changes"]] == [second.id]


async def test_stream_continues_after_last_event_id(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pages are small, and articles are published meanwhile: nothing is missing or twice."""
    monkeypatch.setattr("app.services.integrations.live.changes.PAGE", 2)
    author = await new_user(server)
    async with server.stream() as stream:
        await stream.started()
        await new_article(server, author)
        last_id = (await stream.next()).id
    missed = [(await new_article(server, author)).id for _ in range(5)]
    async with server.stream({"Last-Event-ID": last_id}, cursor="ignored") as stream:
        found = [(await stream.next()).data["article_id"]]
        missed += [(await new_article(server, author)).id for _ in range(3)]
        found += [(await stream.next()).data["article_id"] for _ in range(7)]
    assert found == missed


async def test_stream_that_catches_up_sends_something_for_every_page(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.services.integrations.live.changes.PAGE", 1)
    author, reader = await new_user(server), await new_user(server)
    start = (await server.client.get("/changes", params={"cursor": "latest"})).json()["next"]
    for each in (author, author, reader):
        await new_article(server, each)
    await server.client.put(f"/profiles/{reader.username}/follow", headers=bearer(author))
    async with server.stream(bearer(author), topic="feed", cursor=start) as stream:
        lines, found = stream.response.aiter_lines(), list[str]()
        async with asyncio.timeout(DEADLINE):
            while (line := await anext(lines)) != "event: change":
                found.append(line)
    assert found.count(": alive") == 2


async def test_each_stream_misses_nothing_while_others_come_and_go(server: LiveServer) -> None:
    author = await new_user(server)
    start = (await server.client.get("/changes", params={"cursor": "latest"})).json()["next"]
    published: list[int] = []

    async def publish() -> None:
        for _ in range(12):
            article = await new_article(server, author)
            published.append(article.id)

    async def follow() -> list[int]:
        found: list[int] = []
        cursor = start
        while len(found) < 12:
            async with server.stream(cursor=cursor) as stream:
                for _ in range(min(2, 12 - len(found))):
                    event = await stream.next()
                    found.append(event.data["article_id"])
                    cursor = event.id
        return found

    results = await asyncio.gather(publish(), *(follow() for _ in range(5)))
    assert all(found == published for found in results[1:])


@pytest.mark.parametrize("cursor", ["nonsense", "%00", "é", "A" * 900, "AAAAAAAAAAAAAAAAWzFd"])
@pytest.mark.parametrize("topic", ["changes", "moderation"])
async def test_invalid_cursor_is_refused(server: LiveServer, cursor: str, topic: str) -> None:
    headers = bearer(await new_user(server))
    response = await server.client.get(
        PATH, params={"cursor": cursor, "topic": topic}, headers=headers
    )
    assert response.status_code == 422
    assert response.json()["code"] == "invalid_cursor"


async def test_cursor_of_another_list_or_restore_is_refused(server: LiveServer) -> None:
    headers = bearer(await new_user(server))
    async with server.stream(headers, topic="moderation") as stream:
        await stream.started()
        of_comments = stream.last_id
    async with server.stream() as stream:
        await stream.started()
        of_changes = stream.last_id
    for topic, cursor in {"changes": of_comments, "moderation": of_changes}.items():
        response = await server.client.get(
            PATH, params={"topic": topic, "cursor": cursor}, headers=headers
        )
        assert response.status_code == 422
    await changes.begin_generation(server.database)
    for topic, cursor in {"changes": of_changes, "moderation": of_comments}.items():
        response = await server.client.get(
            PATH, params={"topic": topic, "cursor": cursor}, headers=headers
        )
        assert response.json()["code"] == "invalid_cursor"


async def test_feed_has_changes_of_followed_users(server: LiveServer) -> None:
    reader, followed, other = [await new_user(server) for _ in range(3)]
    headers = bearer(reader)
    await server.client.put(f"/profiles/{followed.username}/follow", headers=headers)
    async with server.stream(headers, topic="feed") as stream:
        await stream.started()
        await new_article(server, other)
        article = await new_article(server, followed)
        event = await stream.next()
        cursor = stream.last_id
        await new_article(server, other)
        later = await new_article(server, followed)
    assert event.data["article_id"] == article.id
    async with server.stream(headers, topic="feed", cursor=cursor) as stream:
        assert (await stream.next()).data["article_id"] == later.id


async def test_comments_are_sent_as_each_subscriber_sees_them(server: LiveServer) -> None:
    author, commenter, blocker = [await new_user(server) for _ in range(3)]
    article = await new_article(server, author)
    other = await new_article(server, author)
    await server.client.put(f"/profiles/{commenter.username}/block", headers=bearer(blocker))
    query: dict[str, Any] = {"topic": "comments", "article_id": article.id}
    async with (
        server.stream(**query) as public,
        server.stream(bearer(blocker), **query) as blocking,
        server.stream(bearer(author), **query) as own,
    ):
        for stream in (public, blocking, own):
            await stream.started()
        async with server.database.unit_of_work() as session:
            await create_comment(session, article=other, author=commenter)
        async with server.database.unit_of_work() as session:
            comment = await create_comment(session, article=article, author=commenter)
        async with server.database.unit_of_work() as session:
            last = await create_comment(session, article=article, author=author)
        for stream in (public, own):
            event = await stream.next()
            assert event.name == "comment"
            assert event.data["kind"] == "created"
            assert event.data["comment"]["content"] == "Indeed."
            assert event.data["comment"]["author"]["username"] == commenter.username
            assert event.data["comment_id"] == comment.id
        assert (await blocking.next()).data["comment_id"] == last.id
        hidden = await server.client.patch(
            f"/comments/{comment.id}/moderation", json={"status": "hidden"}, headers=bearer(author)
        )
        assert hidden.status_code == 200
        assert (await public.next()).data["comment_id"] == last.id
        assert (await own.next()).data["comment_id"] == last.id
        removed = (await public.next()).data
        assert (removed["kind"], removed["comment"]) == ("deleted", None)
        shown = (await own.next()).data
        assert (shown["kind"], shown["comment"]["status"]) == ("deleted", "hidden")


async def test_held_comments_are_sent_to_moderators_and_their_author_only(
    server: LiveServer,
) -> None:
    author, commenter, stranger = [await new_user(server) for _ in range(3)]
    editor = await new_user(server, role=Role.EDITOR)
    article = await new_article(server, author, comment_policy=CommentPolicy.HELD)
    query: dict[str, Any] = {"topic": "comments", "article_id": article.id}
    async with (
        server.stream(bearer(stranger), **query) as public,
        server.stream(bearer(commenter), **query) as own,
        server.stream(bearer(author), topic="moderation") as queue,
        server.stream(bearer(editor), topic="moderation") as all_queues,
        server.stream(bearer(stranger), topic="moderation") as other_queue,
    ):
        streams = (public, own, queue, all_queues, other_queue)
        for stream in streams:
            await stream.started()
        async with server.database.unit_of_work() as session:
            held = await create_comment(
                session, article=article, author=commenter, status=CommentStatus.PENDING
            )
        for stream in (own, queue, all_queues):
            event = await stream.next()
            assert event.data["kind"] == "held"
            assert event.data["comment"]["status"] == "pending"
        await server.client.patch(
            f"/comments/{held.id}/moderation", json={"status": "visible"}, headers=bearer(author)
        )
        for stream in (public, own, queue, all_queues):
            event = await stream.next()
            assert (event.data["kind"], event.data["comment_id"]) == ("created", held.id)
        own_article = await new_article(server, stranger)
        async with server.database.unit_of_work() as session:
            last = await create_comment(
                session, article=own_article, author=commenter, status=CommentStatus.PENDING
            )
        assert (await other_queue.next()).data["comment_id"] == last.id


async def test_comments_of_another_users_draft_are_not_found(server: LiveServer) -> None:
    author, stranger = await new_user(server), await new_user(server)
    draft = await new_article(server, author, published=False)
    for headers in ({}, bearer(stranger)):
        response = await server.client.get(
            PATH, params={"topic": "comments", "article_id": draft.id}, headers=headers
        )
        assert response.status_code == 404
    async with server.stream(bearer(author), topic="comments", article_id=draft.id) as stream:
        assert stream.response.status_code == 200


async def test_comments_are_no_longer_sent_when_the_article_becomes_a_draft(
    server: LiveServer,
) -> None:
    author = await new_user(server)
    article = await new_article(server, author)
    query: dict[str, Any] = {"topic": "comments", "article_id": article.id}
    async with server.stream(**query) as public, server.stream(bearer(author), **query) as own:
        for stream in (public, own):
            await stream.started()
        path = f"/articles/{article.id}"
        async with server.database.unit_of_work() as session:
            # The event is public: the article was, when the comment was written.
            await create_comment(session, article=article, author=author)
            await session.execute(
                update(Article).where(Article.id == article.id).values(published_at=None)
            )
        assert (await own.next()).data["comment"] is not None
        async with server.database.unit_of_work() as session:
            await create_comment(session, article=article, author=author)
        assert (await own.next()).data["comment"] is not None
        await server.client.patch(path, json={"published": True}, headers=bearer(author))
        async with server.database.unit_of_work() as session:
            last = await create_comment(session, article=article, author=author)
        assert (await public.next()).data["comment_id"] == last.id


@pytest.mark.parametrize("topic", ["feed", "moderation"])
async def test_personal_topics_need_a_user(server: LiveServer, topic: str) -> None:
    response = await server.client.get(PATH, params={"topic": topic})
    assert response.status_code == 401


async def test_stream_ends_at_once_when_its_session_ends(server: LiveServer) -> None:
    user = await new_user(server)
    async with server.stream(bearer(user)) as stream:
        await stream.started()
        assert (await server.client.post("/auth/logout", headers=bearer(user))).status_code == 204
        event = await stream.next()
        assert (event.name, event.data["code"]) == ("closing", "token_revoked")
        assert await stream.ended()


async def test_other_sessions_of_the_user_stay(server: LiveServer) -> None:
    user = await new_user(server)
    async with server.database.unit_of_work() as session:
        login = await create_session(session, user=user)
    async with server.stream(bearer(user)) as ended, server.stream(bearer(user, login)) as stays:
        await ended.started()
        await stays.started()
        await server.client.post("/auth/logout", headers=bearer(user))
        assert (await ended.next()).name == "closing"
        await new_article(server, user)
        assert (await stays.next()).name == "change"


async def test_stream_ends_when_the_user_is_disabled(server: LiveServer) -> None:
    user, admin = await new_user(server), await new_user(server, role=Role.ADMIN)
    async with server.stream(bearer(user)) as stream:
        await stream.started()
        await server.client.post(f"/users/{user.id}/disable", headers=bearer(admin))
        assert (await stream.next()).data["code"] == "token_revoked"


async def test_stream_ends_when_its_api_key_is_deleted(server: LiveServer) -> None:
    user = await new_user(server)
    async with server.database.unit_of_work() as session:
        headers = await api_key(session, user=user, scopes=["community:read"])
    keys = (await server.client.get("/users/me/api-keys", headers=bearer(user))).json()
    async with server.stream(headers) as stream:
        await stream.started()
        path = f"/users/me/api-keys/{keys[0]['id']}"
        assert (await server.client.delete(path, headers=bearer(user))).status_code == 204
        assert (await stream.next()).data["code"] == "token_revoked"


async def test_stream_ends_with_its_token(server: LiveServer) -> None:
    user = await new_user(server)
    async with server.database.unit_of_work() as session:
        login = await create_session(session, user=user)
    token = create_access_token(user_id=user.id, session_id=login.id, seconds=1)
    async with server.stream({"Authorization": f"Bearer {token}"}) as stream:
        assert (await stream.next()).data["code"] == "token_expired"
        assert await stream.ended()


async def test_demoted_editor_gets_only_own_queue(server: LiveServer) -> None:
    editor, author = await new_user(server, role=Role.EDITOR), await new_user(server)
    admin = await new_user(server, role=Role.ADMIN)
    articles = [await new_article(server, each) for each in (author, editor)]
    async with server.stream(bearer(editor), topic="moderation") as stream:
        await stream.started()
        await server.client.patch(
            f"/users/{editor.id}/role", json={"role": "author"}, headers=bearer(admin)
        )
        for article in articles:
            async with server.database.unit_of_work() as session:
                last = await create_comment(
                    session, article=article, author=author, status=CommentStatus.PENDING
                )
        assert (await stream.next()).data["comment_id"] == last.id


async def test_role_counts_that_changes_before_events_are_read(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    editor, author = await new_user(server, role=Role.EDITOR), await new_user(server)
    admin = await new_user(server, role=Role.ADMIN)
    articles = [await new_article(server, each) for each in (author, editor)]
    read = CommentsPosition.read

    last: list[int] = []

    async def write_demote_and_read(self: CommentsPosition, reader: Reader) -> Sequence[Happening]:
        monkeypatch.setattr(CommentsPosition, "read", read)
        for article in articles:
            async with server.database.unit_of_work() as session:
                comment = await create_comment(
                    session, article=article, author=author, status=CommentStatus.PENDING
                )
        last.append(comment.id)
        path = f"/users/{editor.id}/role"
        await server.client.patch(path, json={"role": "author"}, headers=bearer(admin))
        live = server.live  # it checks all users when it begins to listen
        while not (live._checks_all or editor.id in live._unchecked):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0)
        return await read(self, reader)

    async with server.stream(bearer(editor), topic="moderation") as stream:
        await stream.started()
        monkeypatch.setattr(CommentsPosition, "read", write_demote_and_read)
        assert [(await stream.next()).data["comment_id"]] == last


async def test_one_user_has_a_limited_number_of_streams(server: LiveServer) -> None:
    user = await new_user(server)
    streams = [server.stream(bearer(user)) for _ in range(4)]
    for each in streams:
        assert (await each.__aenter__()).response.status_code == 200
    async with server.stream(bearer(user)) as stream:
        assert stream.response.status_code == 429
        assert b"too_many_connections" in await stream.response.aread()
        assert stream.response.headers["retry-after"]
    other = await new_user(server)
    async with server.stream(bearer(other)) as stream:
        assert stream.response.status_code == 200
    for each in streams:
        await each.__aexit__(None, None, None)


async def test_process_has_a_limited_number_of_streams(server: LiveServer) -> None:
    await server.without_connections()
    streams = [server.stream() for _ in range(12)]
    opened = [await each.__aenter__() for each in streams]  # kept: they would close otherwise
    for each in opened:
        await each.started()
    async with server.stream() as stream:
        assert stream.response.status_code == 503
        assert (await stream.response.aread()).count(b"streams_full")
    for context in streams:
        await context.__aexit__(None, None, None)


async def test_head_has_no_events(server: LiveServer) -> None:
    response = await server.client.head(PATH)
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["content-type"].startswith("text/event-stream")
