"""Streams and sockets when something fails: a lost connection, a slow client, a stopping server."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text
from websockets.frames import Frame, Opcode

from app.core import metrics
from app.core.config import Settings
from app.core.enums import CommentStatus, Role
from app.core.errors import TokenRevoked
from app.db.connections import LISTENER
from app.db.reading import Reader
from app.routers.integrations import live as live_router
from app.routers.integrations import streams
from app.server.websocket import LiveProtocol
from app.services.integrations.live import connections, hub
from app.services.integrations.live.changes import ChangesPosition
from app.services.integrations.live.presence import CHANNEL
from app.services.pages.cursors import encode_cursor
from tests.databases import driver_url
from tests.factories import bearer, create_comment, create_user
from tests.http.test_metrics import labels_of
from tests.integrations.streaming import PATH, LiveServer, connected_socket
from tests.integrations.test_sockets import upgraded
from tests.integrations.test_streams import new_article, new_user
from tests.processes import DEADLINE, HOST

LISTEN_GAP = "pressroom_live_listen_gap_seconds"
LISTENERS = f"""
    FROM pg_stat_activity
    WHERE datname = current_database() AND application_name = '{LISTENER}'
    AND query LIKE ANY ('{{LISTEN %{CHANNEL}%,SELECT 1}}')
"""
BACKEND = text("SELECT pg_backend_pid()")
WAITS = "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND NOT granted)"


@pytest.fixture
async def other_server(live_settings: Settings) -> AsyncIterator[LiveServer]:
    """Start another process of the same installation."""
    other = await LiveServer.start(live_settings)
    yield other
    await other.stop()


@pytest.fixture
async def connection(live_settings: Settings) -> "AsyncIterator[asyncpg.Connection[Any]]":
    url = driver_url(live_settings.database_url or "")
    connection: asyncpg.Connection[Any] = await asyncpg.connect(url)
    yield connection
    await connection.close()


async def listening(connection: "asyncpg.Connection[Any]", count: int) -> None:
    async with asyncio.timeout(DEADLINE):
        while await connection.fetchval(f"SELECT count(*) {LISTENERS}") != count:
            pass


async def test_stream_survives_the_loss_of_the_listening_connection(
    server: LiveServer, connection: "asyncpg.Connection[Any]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without polls, only a new connection can tell that there is something new."""
    monkeypatch.setattr(hub, "POLL_SECONDS", DEADLINE)
    author = await new_user(server)
    async with server.stream() as stream:
        await stream.started()
        await listening(connection, 1)
        await connection.execute(f"SELECT pg_terminate_backend(pid) {LISTENERS}")
        missed = await new_article(server, author)
        assert (await stream.next()).data["article_id"] == missed.id
        await listening(connection, 1)
        later = await new_article(server, author)
        assert (await stream.next()).data["article_id"] == later.id


async def test_polls_replace_notifications(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pooler in transaction mode delivers none."""
    monkeypatch.setattr(hub, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(server.database, "_listen", None)
    user = await new_user(server)
    async with server.stream(bearer(user)) as stream:
        await stream.started()
        article = await new_article(server, user)
        assert (await stream.next()).data["article_id"] == article.id
        monkeypatch.setattr(hub, "CHECK_SECONDS", 0.0)
        await server.client.post("/auth/logout", headers=bearer(user))
        assert (await stream.next()).data["code"] == "token_revoked"


async def test_gap_in_listening_is_measured_while_streams_are_open(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(hub, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(server.database, "_listen", None)
    recorder = metrics.start(tmp_path, "0")
    try:
        async with server.stream() as stream, asyncio.timeout(DEADLINE):
            await stream.started()
            while not labels_of(recorder, LISTEN_GAP)[()]:
                await server.client.get("/health/live")
        await server.without_connections()
        assert labels_of(recorder, LISTEN_GAP)[()] == 0
    finally:
        metrics.stop()


async def test_nothing_listens_without_streams(
    server: LiveServer, connection: "asyncpg.Connection[Any]"
) -> None:
    async with server.stream() as stream:
        await stream.started()
        await listening(connection, 1)
    await listening(connection, 0)


async def test_processes_share_presence_and_ended_sessions(
    server: LiveServer, other_server: LiveServer
) -> None:
    author, editor = await new_user(server), await new_user(server, role=Role.EDITOR)
    draft = await new_article(server, author, published=False)
    async with server.socket(bearer(author)) as first:
        await first.send(type="edit", article_id=draft.id, editing=True)
        # The other process starts to listen now: it asks who edits.
        async with other_server.socket(bearer(editor)) as second:
            await second.send(type="subscribe", topic="presence", article_id=draft.id)
            while not (shown := (await second.until("presence"))["editors"]):
                pass
            assert [each["username"] for each in shown] == [author.username]
            await second.send(type="edit", article_id=draft.id, editing=True)
            await first.send(type="subscribe", topic="presence", article_id=draft.id)
            while len(shown := (await first.until("presence"))["editors"]) < 2:
                pass
            assert [each["username"] for each in shown] == [author.username, editor.username]
            await server.client.post("/auth/logout", headers=bearer(editor))
            assert (await second.until("closing"))["code"] == "token_revoked"
            while len(shown := (await first.until("presence"))["editors"]) > 1:
                pass


async def test_editors_of_a_killed_process_are_forgotten(server: LiveServer) -> None:
    author = await new_user(server)
    draft = await new_article(server, author, published=False)
    presence = server.live.presence
    said = (
        f'{{"process": "gone", "asks": false, "articles": {{"{draft.id}": [[1, "ada", "2026"]]}}}}'
    )
    presence.receive(said, now=100.0)
    assert [each["username"] for each in presence.editors(draft.id)] == ["ada"]
    presence.forget_silent(now=129.0)
    assert presence.editors(draft.id)
    presence.changed.clear()
    presence.forget_silent(now=131.0)
    assert not presence.editors(draft.id)
    assert presence.changed == {draft.id}


async def test_payloads_of_presence_are_short(server: LiveServer) -> None:
    """PostgreSQL refuses payloads of 8,000 bytes."""
    presence = server.live.presence.__class__()
    async with server.database.unit_of_work() as session:
        users = [
            await create_user(session, username=f"{'x' * 46}{number:04}") for number in range(60)
        ]
    for user in users:
        for article_id in range(2**62, 2**62 + 5):
            abort: Any = None
            socket_ = connections.Connection("socket", None, encode=abort, abort=abort)
            presence.set_editing(socket_, user, article_id, author_id=1)  # type: ignore[arg-type]  # id and name
    said = list(presence._payloads(range(2**62, 2**62 + 5), asks=True))
    assert len(said) == 5
    assert max(map(len, said)) < 8000


async def test_slow_reader_is_disconnected_and_continues(
    live_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MAX_QUEUED_BYTES", 10_000)
    server = await LiveServer.start(live_settings, send_buffer=4096)
    author = await new_user(server)
    article = await new_article(server, author)
    query: dict[str, Any] = {"topic": "comments", "article_id": article.id}
    written: list[int] = []

    async def comment() -> None:
        async with server.database.unit_of_work() as session:
            text = "word " * 4000
            row = await create_comment(session, article=article, author=author, content=text)
        written.append(row.id)

    slow = await connected_socket(server, receive_buffer=4096)
    loop = asyncio.get_running_loop()
    path = f"{PATH}?topic=comments&article_id={article.id}"
    await loop.sock_sendall(slow, f"GET {path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
    received = b""
    while b"\nid: " not in received:
        received += await loop.sock_recv(slow, 1000)
    async with server.stream(**query) as fast:
        await fast.started()
        async with asyncio.timeout(DEADLINE):
            while server.live.connections > 1:
                await comment()
                assert (await fast.next()).data["comment_id"] == written[-1]
    with suppress(ConnectionError):  # the connection is reset
        while part := await loop.sock_recv(slow, 100_000):
            received += part
    slow.close()
    complete = received.decode().rpartition("\n\n")[0]
    last_id = complete.rpartition("\nid: ")[2].partition("\n")[0]
    seen = complete.count("\nevent: comment\n")
    assert seen < len(written)
    async with server.stream({"Last-Event-ID": last_id}, **query) as stream:
        first = (await stream.next()).data["comment_id"]
    assert first == written[seen]
    await server.stop()


async def test_socket_that_does_not_read_what_it_missed_is_disconnected(
    live_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "STUCK_SECONDS", 0.3)
    server = await LiveServer.start(live_settings, send_buffer=4096)
    author = await new_user(server)
    article = await new_article(server, author)
    topic = {"type": "subscribe", "topic": "comments", "article_id": article.id}
    async with server.socket(bearer(author)) as reading:
        await reading.send(**topic)
        cursor = (await reading.until("subscribed"))["cursor"]
    async with server.database.unit_of_work() as session:
        for _ in range(40):
            await create_comment(session, article=article, author=author, content="word " * 4000)
    _, writer = await upgraded(server, receive_buffer=4096)
    writer.write(frame(**topic, cursor=cursor))
    await server.without_connections()
    writer.close()
    await server.stop()


async def test_socket_that_does_not_read_is_closed(
    live_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_router, "CLOSE_SECONDS", 0.1)
    server = await LiveServer.start(live_settings, send_buffer=4096)
    author = await new_user(server)
    article = await new_article(server, author)
    _, writer = await upgraded(server, receive_buffer=4096)
    (protocol,) = server.server.server_state.connections
    assert isinstance(protocol, LiveProtocol)
    writer.write(frame(type="subscribe", topic="comments", article_id=article.id))
    async with asyncio.timeout(DEADLINE):
        while protocol.writable.is_set():
            async with server.database.unit_of_work() as session:
                content = "word " * 4000
                await create_comment(session, article=article, author=author, content=content)
        writer.write(frame(type="unknown"))
        while server.server.server_state.connections:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0)
    writer.close()
    await server.stop()


def frame(**message: Any) -> bytes:
    """Return a message of a client, as it is sent."""
    return Frame(Opcode.TEXT, json.dumps(message).encode()).serialize(mask=True)


async def test_stream_that_fails_before_its_start_is_answered(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(reader: Reader) -> ChangesPosition:
        raise RuntimeError

    await server.without_connections()
    monkeypatch.setattr(ChangesPosition, "latest", fail)
    response = await server.client.get(PATH)
    assert (response.status_code, response.json()["code"]) == (500, "internal_error")


@pytest.mark.parametrize("is_started", [True, False])
async def test_stream_with_a_large_body_ends(
    server: LiveServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    is_started: bool,
) -> None:
    latest = ChangesPosition.latest

    async def latest_after_body(reader: Reader) -> ChangesPosition:
        while any(each.is_open for each in server.live._connections):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0)
        return await latest(reader)

    await server.without_connections()
    if not is_started:
        monkeypatch.setattr(ChangesPosition, "latest", latest_after_body)
    reader, writer = await asyncio.open_connection(*server.listener.getsockname())
    head = f"GET {PATH} HTTP/1.1\r\nHost: {HOST}\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with asyncio.timeout(DEADLINE):
        writer.write(head.encode())
        if is_started:
            await reader.readuntil(b"\nid: ")
        size = 5 * 1024 * 1024
        writer.write(b"%x\r\n%s\r\n0\r\n\r\n" % (size, bytes(size)))
        rest = await reader.readuntil(b"\r\n0\r\n\r\n")
    writer.close()
    assert (b'{"code": "content_too_large"' in rest) is not is_started
    assert not [record for record in caplog.records if record.exc_info]


@asynccontextmanager
async def delayed_query(
    settings: Settings, connection: "asyncpg.Connection[Any]"
) -> AsyncIterator[tuple[LiveServer, Callable[[], Awaitable[None]]]]:
    """Yield a server whose positions wait until the end, and a function that waits for such a read.

    The query must not end the only connection for writes.
    """
    server = await LiveServer.start(settings.model_copy(update={"database_pool_size": 1}))
    pid = await server.database.primary.scalar(BACKEND)

    async def waiting() -> None:
        while not await connection.fetchval(WAITS, pid):
            pass

    async with asyncio.timeout(DEADLINE), connection.transaction():
        await connection.execute("LOCK TABLE installation")
        yield server, waiting
    await server.without_connections()
    assert await server.database.primary.scalar(BACKEND) == pid
    await server.stop()


async def test_client_that_leaves_interrupts_no_query(
    live_settings: Settings, connection: "asyncpg.Connection[Any]"
) -> None:
    async with delayed_query(live_settings, connection) as (server, waiting):
        _, writer = await asyncio.open_connection(*server.listener.getsockname())
        writer.write(f"GET {PATH} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        await waiting()
        writer.close()
        while server.server.server_state.connections:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0)


async def test_end_of_a_socket_interrupts_no_query(
    live_settings: Settings, connection: "asyncpg.Connection[Any]"
) -> None:
    async with AsyncExitStack() as opened:
        async with delayed_query(live_settings, connection) as (server, waiting):
            user = await new_user(server)
            socket_ = await opened.enter_async_context(server.socket(bearer(user)))
            await socket_.send(type="subscribe", topic="changes")
            await waiting()
            for each in server.live._connections:
                each.close(hub.closing_for(TokenRevoked()))
        assert await socket_.closed() == (4401, "token_revoked")


async def test_stopping_server_ends_streams_and_sockets_and_spreads_their_return(
    live_settings: Settings,
) -> None:
    server = await LiveServer.start(live_settings)
    users = [await new_user(server) for _ in range(2)]
    async with AsyncExitStack() as opened:
        found = [await opened.enter_async_context(server.stream()) for _ in range(8)]
        for stream in found:
            await stream.started()
        sockets = [await opened.enter_async_context(server.socket(bearer(each))) for each in users]
        for each in sockets:
            await each.until("ready")
        server.server.should_exit = True
        retries = set()
        for stream in found:
            event = await stream.next()
            assert (event.name, event.data["code"]) == ("closing", "server_stopping")
            assert event.retry == event.data["retry_after_ms"]
            retries.add(event.retry)
            assert await stream.ended()
        for each in sockets:
            closing = await each.until("closing")
            assert closing["code"] == "server_stopping"
            retries.add(closing["retry_after_ms"])
            assert await each.closed() == (1013, "server_stopping")
        assert len(retries) > 5
        await asyncio.wait_for(server.task, DEADLINE)
        await server.client.aclose()


async def test_stream_of_a_stopping_server_ends_at_once(server: LiveServer) -> None:
    server.live.is_draining = True
    try:
        response = await server.client.get(PATH)
        assert response.status_code == 200
        assert response.text.startswith("retry: ")
        async with server.socket(bearer(await new_user(server))) as socket_:
            assert await socket_.closed() == (1013, "service_unavailable")
    finally:
        server.live.is_draining = False


async def test_unfinished_transaction_delays_cursors_but_no_events(
    server: LiveServer, connection: "asyncpg.Connection[Any]"
) -> None:
    author = await new_user(server)
    article, other = await new_article(server, author), await new_article(server, author)
    transaction = connection.transaction()
    await transaction.start()
    early: int = await connection.fetchval(
        "INSERT INTO comments (article_id, author_id, content, html, status, created_at,"
        " updated_at) VALUES ($1, $2, 'early', 'early', 'pending', now(), now()) RETURNING id",
        article.id,
        author.id,
    )
    headers = bearer(author)
    async with server.stream(headers, topic="moderation") as stream:
        await stream.started()
        async with server.database.unit_of_work() as session:
            late = await create_comment(
                session, article=other, author=author, status=CommentStatus.PENDING
            )
        event = await stream.next()
        assert event.data["comment_id"] == late.id
        await transaction.commit()
        assert (await stream.next()).data["comment_id"] == early
    headers["Last-Event-ID"] = event.id
    async with server.stream(headers, topic="moderation") as stream:
        repeated = [(await stream.next()).data for _ in range(2)]
    assert [each["comment_id"] for each in repeated] == [early, late.id]
    assert repeated[1]["event_id"] == event.data["event_id"]


@pytest.mark.parametrize("position", [(1, 1, 0), (2**60, 1, 2**33)])
async def test_old_cursor_and_cursor_of_another_database_are_refused(
    server: LiveServer, connection: "asyncpg.Connection[Any]", position: tuple[int, int, int]
) -> None:
    generation = await connection.fetchval("SELECT generation FROM installation")
    cursor = encode_cursor(f"live comments {generation}", position)
    response = await server.client.get(
        PATH,
        params={"topic": "moderation", "cursor": cursor},
        headers=bearer(await new_user(server)),
    )
    assert response.json()["code"] == "invalid_cursor"


async def test_idle_stream_has_heartbeats_with_its_cursor(
    server: LiveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.01)
    monkeypatch.setattr(hub, "POLL_SECONDS", 0.01)
    async with server.stream() as stream:
        await stream.started()
        first, stream.last_id = stream.last_id, ""
        await stream.started()
        assert stream.last_id == first
