"""Sockets: authentication, subscriptions, presence, bad input, and how they end."""

import asyncio
import json
import re
from contextlib import suppress
from typing import Any

import pytest
from sqlalchemy import update
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Subprotocol

from app.auth.security import create_access_token
from app.core.enums import CommentStatus, Role
from app.models import User
from app.routers.integrations import live as live_router
from tests.factories import api_key, bearer, create_comment, create_session
from tests.integrations.streaming import PATH, LiveServer, connected_socket
from tests.integrations.test_streams import new_article, new_user
from tests.processes import DEADLINE, HOST


async def test_subscriber_gets_changes_and_comments(server: LiveServer) -> None:
    author = await new_user(server)
    article = await new_article(server, author)
    async with server.socket(bearer(author)) as socket:
        assert await socket.next() == {"type": "ready", "username": author.username}
        await socket.send(type="subscribe", topic="changes")
        subscribed = await socket.until("subscribed")
        await socket.send(type="subscribe", topic="comments", article_id=article.id)
        assert (await socket.until("subscribed"))["article_id"] == article.id
        other = await new_article(server, author)
        event = await socket.until("event")
        assert (event["topic"], event["event"]) == ("changes", "change")
        assert event["data"]["article_id"] == other.id
        async with server.database.unit_of_work() as session:
            comment = await create_comment(session, article=article, author=author)
        event = await socket.until("event")
        assert (event["topic"], event["data"]["comment_id"]) == ("comments", comment.id)
    async with server.socket(bearer(author)) as socket:
        await socket.send(type="subscribe", topic="changes", cursor=subscribed["cursor"])
        assert (await socket.until("event"))["data"]["article_id"] == other.id


async def test_token_in_a_subprotocol(server: LiveServer) -> None:
    user = await new_user(server)
    token = bearer(user)["Authorization"].removeprefix("Bearer ")
    protocols = [Subprotocol("pressroom.v1"), Subprotocol(f"bearer.{token}")]
    async with server.socket(subprotocols=protocols) as socket:
        assert socket.connection.subprotocol == "pressroom.v1"
        assert (await socket.next())["type"] == "ready"


async def test_presence_shows_who_edits(server: LiveServer) -> None:
    author, editor = await new_user(server), await new_user(server, role=Role.EDITOR)
    draft = await new_article(server, author, published=False)
    async with server.socket(bearer(author)) as first, server.socket(bearer(editor)) as second:
        await first.send(type="subscribe", topic="presence", article_id=draft.id)
        assert (await first.until("presence"))["editors"] == []
        done = await second.ask(type="edit", article_id=draft.id, editing=True)
        assert done["type"] == "done"
        (shown,) = (await first.until("presence"))["editors"]
        assert (shown["user_id"], shown["username"]) == (editor.id, editor.username)
        await second.send(type="edit", article_id=draft.id, editing=False)
        assert (await first.until("presence"))["editors"] == []
        await second.send(type="edit", article_id=draft.id, editing=True)
        assert len((await first.until("presence"))["editors"]) == 1
        await second.connection.close()
        assert (await first.until("presence"))["editors"] == []


async def test_presence_is_only_for_those_who_may_change_the_article(server: LiveServer) -> None:
    author, stranger = await new_user(server), await new_user(server)
    draft = await new_article(server, author, published=False)
    article = await new_article(server, author)
    async with server.database.unit_of_work() as session:
        key = await api_key(session, user=author, scopes=["community:read"])
    async with server.socket(bearer(stranger)) as socket:
        for command in (
            {"type": "edit", "editing": True},
            {"type": "subscribe", "topic": "presence"},
        ):
            answer = await socket.ask(**command, article_id=draft.id)
            assert answer["code"] == "article_not_found"
            answer = await socket.ask(**command, article_id=article.id)
            assert answer["code"] == "not_authorized"
    async with server.socket(key) as socket:
        answer = await socket.ask(type="edit", editing=True, article_id=article.id)
        assert answer["code"] == "insufficient_scope"
    assert not server.live.presence.editors(article.id)


async def test_demoted_editor_no_longer_edits_articles_of_others(server: LiveServer) -> None:
    author, editor = await new_user(server), await new_user(server, role=Role.EDITOR)
    draft, own = [await new_article(server, each, published=False) for each in (author, editor)]
    async with server.socket(bearer(author)) as first, server.socket(bearer(editor)) as second:
        for article in (draft, own):
            await second.ask(type="edit", article_id=article.id, editing=True)
            await second.ask(type="subscribe", topic="presence", article_id=article.id)
        await first.send(type="subscribe", topic="presence", article_id=draft.id)
        assert len((await first.until("presence"))["editors"]) == 1
        async with server.database.unit_of_work() as session:
            demoted = update(User).where(User.id == editor.id).values(role=Role.AUTHOR)
            await session.execute(demoted)
        assert (await first.until("presence"))["editors"] == []
        assert len(server.live.presence.editors(own.id)) == 1


async def test_subscription_to_another_users_draft_is_refused(server: LiveServer) -> None:
    author, stranger = await new_user(server), await new_user(server)
    draft = await new_article(server, author, published=False)
    async with server.socket(bearer(stranger)) as socket:
        answer = await socket.ask(type="subscribe", topic="comments", article_id=draft.id)
        assert answer["code"] == "article_not_found"
        answer = await socket.ask(type="subscribe", topic="changes", cursor="nonsense")
        assert answer["code"] == "invalid_cursor"
        answer = await socket.ask(type="unsubscribe", topic="changes")
        assert answer["type"] == "done"


async def test_unsubscribed_topic_sends_nothing(server: LiveServer) -> None:
    author = await new_user(server)
    article = await new_article(server, author)
    async with server.socket(bearer(author)) as socket:
        await socket.ask(type="subscribe", topic="changes")
        await socket.ask(type="subscribe", topic="moderation")
        await socket.ask(type="unsubscribe", topic="changes")
        await new_article(server, author)
        async with server.database.unit_of_work() as session:
            await create_comment(
                session, article=article, author=author, status=CommentStatus.PENDING
            )
        assert (await socket.until("event"))["topic"] == "moderation"


async def test_socket_closes_at_once_when_its_session_ends(server: LiveServer) -> None:
    user = await new_user(server)
    async with server.socket(bearer(user)) as socket:
        await socket.until("ready")
        await server.client.post("/auth/logout", headers=bearer(user))
        closing = await socket.until("closing")
        assert closing["code"] == "token_revoked"
        assert closing["retry_after_ms"] > 0
        assert await socket.closed() == (4401, "token_revoked")


async def test_new_token_keeps_the_socket_open(server: LiveServer) -> None:
    user, other = await new_user(server), await new_user(server)
    async with server.database.unit_of_work() as session:
        login = await create_session(session, user=user)
    short = create_access_token(user_id=user.id, session_id=login.id, seconds=2)
    async with server.socket({"Authorization": f"Bearer {short}"}) as socket:
        await socket.until("ready")
        token = bearer(user, login)["Authorization"].removeprefix("Bearer ")
        assert (await socket.ask(type="authenticate", token=token))["type"] == "done"
        shortest = create_access_token(user_id=user.id, session_id=login.id, seconds=1)
        assert (await socket.ask(type="authenticate", token=shortest))["type"] == "done"
        assert (await socket.until("closing"))["code"] == "token_expired"
    async with server.socket(bearer(user)) as socket:
        token = bearer(other)["Authorization"].removeprefix("Bearer ")
        await socket.send(type="authenticate", token=token)
        assert await socket.closed() == (4401, "invalid_token")


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"\x00\x01", 1003),
        ("not json", 1007),
        ("[]", 1007),
        ('{"type": "authenticate"}', 1007),
        ('{"type": "unknown"}', 1007),
        ('{"type": "subscribe", "topic": "changes"}', 4401),
        ('{"type": "authenticate", "token": "nonsense"}', 4401),
        ('{"type": "authenticate", "token": "\\ud800"}', 4401),
        ('{"type": "authenticate", "token": "' + "x" * 5000 + '"}', 1007),
        ('{"type": "authenticate", "token": "x", "token": "y"}', 1007),
        ("[" * 10_000, 1007),
        ("x" * 20_000, 1009),
    ],
)
async def test_invalid_first_message_closes_the_socket(
    server: LiveServer, message: Any, code: int
) -> None:
    async with server.socket() as socket:
        await socket.connection.send(message)
        assert (await socket.closed())[0] == code


@pytest.mark.parametrize(
    "message",
    [
        '{"type": "subscribe", "topic": "comments"}',
        '{"type": "subscribe", "topic": "changes", "article_id": 1}',
        '{"type": "subscribe", "topic": "comments", "article_id": 0}',
        '{"type": "subscribe", "topic": "comments", "article_id": 9223372036854775808}',
        '{"type": "edit", "article_id": 1}',
        b"{}",
    ],
)
async def test_invalid_command_closes_the_socket(server: LiveServer, message: Any) -> None:
    async with server.socket(bearer(await new_user(server))) as socket:
        await socket.until("ready")
        await socket.connection.send(message)
        assert (await socket.closed())[0] in {1003, 1007}


async def test_socket_without_a_first_message_is_closed(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_router, "FIRST_MESSAGE_SECONDS", 0.01)
    async with server.socket() as socket:
        assert await socket.closed() == (4408, "request_timed_out")


async def test_one_user_has_a_limited_number_of_sockets(server: LiveServer) -> None:
    user = await new_user(server)
    sockets = [server.socket(bearer(user)) for _ in range(4)]
    for socket in sockets:
        await (await socket.__aenter__()).until("ready")
    async with server.socket(bearer(user)) as refused:
        assert await refused.closed() == (4429, "too_many_connections")
    for each in sockets:
        await each.__aexit__(None, None, None)


async def test_sockets_without_a_token_are_counted(server: LiveServer) -> None:
    await server.without_connections()
    sockets = [server.socket() for _ in range(12)]
    for socket in sockets:
        await socket.__aenter__()
    async with server.socket() as refused:
        assert await refused.closed() == (1013, "streams_full")
    for each in sockets:
        await each.__aexit__(None, None, None)


async def test_one_socket_has_a_limited_number_of_subscriptions(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_router, "MAX_SUBSCRIPTIONS", 1)
    author = await new_user(server)
    first, second = [await new_article(server, author) for _ in range(2)]
    async with server.socket(bearer(author)) as socket:
        for command in (
            {"type": "subscribe", "topic": "comments"},
            {"type": "subscribe", "topic": "presence"},
            {"type": "edit", "editing": True},
        ):
            assert (await socket.ask(**command, article_id=first.id))["type"] == "done"
            answer = await socket.ask(**command, article_id=second.id)
            assert answer["code"] == "too_many_at_once"


async def test_token_in_the_url_is_refused(server: LiveServer) -> None:
    port = server.listener.getsockname()[1]
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"ws://127.0.0.1:{port}/live?token=secret")
    assert refused.value.response.status_code == 400
    assert json.loads(refused.value.response.body)["code"] == "credentials_in_query"


async def test_page_of_another_origin_is_refused(server: LiveServer) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with server.socket(origin="https://evil.example"):
            pass
    assert refused.value.response.status_code == 403
    async with server.socket(origin="http://localhost:3000"):
        pass


async def test_path_without_an_upgrade_is_not_found(server: LiveServer) -> None:
    assert (await server.client.get("/live")).status_code == 404


async def test_commands_at_once_are_answered_in_turn(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_router, "SECONDS_PER_MESSAGE", 0.0)
    async with server.socket(bearer(await new_user(server))) as socket:
        for number in range(200):
            await socket.connection.send(
                json.dumps({"type": "unsubscribe", "topic": "feed", "id": number})
            )
        answers = [(await socket.until("done"))["id"] for _ in range(200)]
    assert answers == list(range(200))


@pytest.mark.parametrize(
    ("first", "repeated"),
    [
        (b"", b"\x89\x80\0\0\0\0"),  # pings, whose answers are not read
        (b"", b"\x8a\x80\0\0\0\0"),  # pongs
        (b"\x01\x80\0\0\0\0", b"\x00\x80\0\0\0\0"),  # a message of empty parts, without an end
        (b"\x81\x80\0\0\0\0", b"\x81\x80\0\0\0\0"),  # messages after the one that closes
    ],
    ids=["pings", "pongs", "parts", "messages"],
)
async def test_flood_of_frames_ends_the_connection(
    server: LiveServer, first: bytes, repeated: bytes
) -> None:
    """Without a limit, they would fill the memory."""
    _, writer = await upgraded(server)
    writer.write(first)
    with pytest.raises(ConnectionError):  # noqa: PT012 - it is not known which frame is too much
        for _ in range(5_000):  # the end is noticed when the server runs
            writer.write(repeated * 1000)
            await writer.drain()
            await asyncio.sleep(0)
    await server.without_connections()


async def test_messages_at_once_are_bounded(server: LiveServer) -> None:
    """What is read together may contain any number of messages."""
    reader, writer = await upgraded(server)
    writer.write(b"\x81\x80\0\0\0\0" * 40_000)
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(ConnectionError):
            await reader.read()
    await server.without_connections()


async def test_upgrade_during_a_response_ends_the_connection(server: LiveServer) -> None:
    """The response would otherwise go on without waiting for its client."""
    reader, writer = await asyncio.open_connection(HOST, server.listener.getsockname()[1])
    token = bearer(await new_user(server))["Authorization"].removeprefix("Bearer ")
    writer.write(f"GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode() + upgrade(token))
    received = b""
    async with asyncio.timeout(DEADLINE):
        with suppress(ConnectionError):
            while part := await reader.read(1000):
                received += part
                assert b" 101 " not in received
    writer.close()
    await server.without_connections()


async def test_requests_at_once_are_answered_in_turn(server: LiveServer) -> None:
    reader, writer = await asyncio.open_connection(HOST, server.listener.getsockname()[1])
    for path in ("/health/live", "/live", "/health/live"):
        writer.write(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    received = b""
    async with asyncio.timeout(DEADLINE):
        for _ in range(3):
            received += await reader.readuntil(b"HTTP/1.1 ") + await reader.readexactly(3)
    statuses = re.findall(rb"HTTP/1.1 (\d+)", received)
    assert statuses == [b"200", b"404", b"200"]
    writer.close()


async def upgraded(
    server: LiveServer, *, receive_buffer: int | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a socket of a new user, without a library, which would send valid messages only.

    With a small buffer, the server soon has to wait for a client that does not read.
    """
    client = await connected_socket(server, receive_buffer=receive_buffer)
    token = bearer(await new_user(server))["Authorization"].removeprefix("Bearer ")
    reader, writer = await asyncio.open_connection(sock=client, limit=receive_buffer or 2**16)
    writer.write(upgrade(token))
    assert b" 101 " in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


def upgrade(token: str) -> bytes:
    return (
        b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n"
        b"Sec-WebSocket-Protocol: bearer." + token.encode() + b"\r\n\r\n"
    )
