"""The /changes/stream route: Server-Sent Events (HTML Living Standard §9.2)."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from app.auth.dependencies import BearerToken, CommunityViewer
from app.auth.identity import Identity
from app.auth.security import access_token_end
from app.auth.tokens import API_KEY_PREFIX
from app.core.errors import (
    ArticleNotFound,
    InvalidCursor,
    NotAuthenticated,
    PressroomError,
    StreamsFull,
    TooManyConnections,
)
from app.db.dependencies import CurrentDatabase
from app.http.streaming import ABORT, HEAD
from app.routers.responses import create_router, errors
from app.schemas.integrations.live import MAX_CURSOR_LENGTH, StreamQuery
from app.services.integrations.live.connections import Connection, Subscription
from app.services.integrations.live.hub import (
    Live,
    Position,
    check_subscription,
    closing_for,
    find_position,
    retry_ms,
)
from app.services.integrations.live.messages import Batch, Closing

router = create_router(prefix="/changes", tag="changes")

HEARTBEAT_SECONDS = 15.0
MEDIA_TYPE = "text/event-stream"
_ALIVE = b": alive\n\n"
_EXAMPLE = 'id: …\nevent: change\ndata: {"kind": "created", "article_id": 1, …}\n\n'


async def get_live(request: Request) -> Live:
    """Return the streams and sockets of this process."""
    live: Live = request.app.state.live
    return live


CurrentLive = Annotated[Live, Depends(get_live)]


def token_end(token: str | None) -> float | None:
    """Return the Unix time at which a token ends; None if it is none of a session."""
    if token is None or token.startswith(API_KEY_PREFIX):
        return None
    return access_token_end(token)


class EventStream(Response):
    """A stream that ends when the client leaves, its session ends, or the server stops."""

    media_type = MEDIA_TYPE

    def __init__(
        self,
        live: Live,
        *,
        viewer: Identity | None,
        expires: float | None,
        query: StreamQuery,
        position: Position | None,
    ) -> None:
        super().__init__(headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._live, self._viewer, self._expires = live, viewer, expires
        self._query, self._position = query, position

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start = {
            "type": "http.response.start",
            "status": self.status_code,
            "headers": self.raw_headers,
        }
        if HEAD in scope or not self._live.is_open:
            await send(start)
            await send({"type": "http.response.body", "body": f"retry: {retry_ms()}\n\n".encode()})
            return
        abort = scope.get("extensions", {}).get(ABORT, _nothing)
        connection = Connection("stream", self._viewer, encode=_events, abort=abort)
        with self._live.connected(connection, expires=self._expires):
            receiving = asyncio.create_task(_receive_end(connection, receive))
            try:
                await self._send(connection, start, send)
            finally:
                receiving.cancel()

    async def _send(self, connection: Connection, start: dict[str, Any] | None, send: Send) -> None:
        """Send the head with the first part: a client that has it misses nothing from then on."""
        loop = asyncio.get_running_loop()
        async for part in self._parts(connection):
            connection.sending_since = loop.time()
            if start is not None:
                await send(start)
                start = None
            await send({"type": "http.response.body", "body": part, "more_body": True})
            connection.sending_since = 0.0
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _parts(self, connection: Connection) -> AsyncIterator[bytes]:
        head = f"retry: {retry_ms()}\n\n".encode()
        try:
            async for missed in self._missed(connection):
                yield head + missed
                head = b""
        except PressroomError as error:
            connection.close(closing_for(error))
        if head:
            yield head
        while connection.is_open:
            chunk = await connection.next_chunk(HEARTBEAT_SECONDS)
            if chunk is not None:
                yield chunk  # type: ignore[misc]  # `_events` returns bytes
            elif connection.is_open:
                yield self._heartbeat(connection)
        if connection.closing is not None:
            yield _closing_event(connection.closing)

    def _heartbeat(self, connection: Connection) -> bytes:
        """Return a comment and the present id, which dispatches no event. The client keeps it."""
        cursor = self._live.cursor_of(connection.subscriptions[0])
        return _ALIVE if cursor is None else f": alive\nid: {cursor}\n\n".encode()

    async def _missed(self, connection: Connection) -> AsyncIterator[bytes]:
        query = self._query
        subscription = Subscription(connection, query.topic, query.article_id)
        connection.subscriptions.append(subscription)
        async for messages in self._live.catch_up(subscription, self._position):
            if not connection.is_open:
                return
            events = b"".join(
                each.event if each.data else f"id: {each.cursor}\n\n".encode() for each in messages
            )
            yield events or _ALIVE


async def _receive_end(connection: Connection, receive: Receive) -> None:
    """Let the connection end when its client leaves, or sends a body that is too large.

    Its task is not cancelled, so that no query is interrupted.
    """
    try:
        while (await receive())["type"] != "http.disconnect":
            pass
        connection.end()
    except PressroomError as error:
        connection.close(closing_for(error))


def _nothing() -> None:
    pass


def _events(batch: Batch) -> list[Any]:
    return [batch.events]


def closing_data(closing: Closing) -> Mapping[str, Any]:
    """Return what a client learns about the end of its connection."""
    error = closing.error
    return {"code": error.code, "message": str(error), "retry_after_ms": closing.retry_ms}


def _closing_event(closing: Closing) -> bytes:
    data = json.dumps(closing_data(closing))
    return f"retry: {closing.retry_ms}\nevent: closing\ndata: {data}\n\n".encode()


@router.get(
    "/stream",
    status_code=200,
    response_class=EventStream,
    responses={
        200: {
            "description": "Events, until the client or the server closes the stream",
            "content": {MEDIA_TYPE: {"schema": {"type": "string", "examples": [_EXAMPLE]}}},
        },
        **errors(
            NotAuthenticated,
            ArticleNotFound,
            InvalidCursor,
            TooManyConnections,
            StreamsFull,
        ),
    },
)
async def stream_changes(
    *,
    live: CurrentLive,
    database: CurrentDatabase,
    viewer: CommunityViewer,
    token: BearerToken,
    query: Annotated[StreamQuery, Query()],
    last_event_id: Annotated[
        str | None,
        Header(
            alias="Last-Event-ID",
            max_length=MAX_CURSOR_LENGTH,
            description="The id of the last event that you have; browsers send it",
        ),
    ] = None,
) -> EventStream:
    """Get changes of articles, comments or your moderation queue as they happen.

    The ids of `changes` and `feed` are cursors of `GET /changes`. After an interruption, the stream
    continues after `Last-Event-ID` without a gap. The event `closing` says why the server ends the
    stream: then connect again after `retry`, if its `code` allows.
    """
    await check_subscription(
        database.reader, viewer=viewer, topic=query.topic, article_id=query.article_id
    )
    cursor = last_event_id or query.cursor
    position = await find_position(database.primary, topic=query.topic, cursor=cursor)
    return EventStream(
        live, viewer=viewer, expires=token_end(token), query=query, position=position
    )
