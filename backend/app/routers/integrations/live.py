"""The /live route: a WebSocket for subscriptions and presence.

Its messages are JSON objects with a `type`. Browsers cannot send an Authorization header, so the
token is in the first message or in a subprotocol (docs/integrations/realtime.md).
"""

import asyncio
import json
from collections.abc import Coroutine, Mapping
from contextlib import suppress
from typing import Any

from fastapi import APIRouter
from pydantic import TypeAdapter, ValidationError
from starlette.routing import WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from app.auth.dependencies import viewer_of
from app.auth.identity import Identity
from app.core.config import describe
from app.core.enums import LiveTopic, Scope
from app.core.errors import (
    InsufficientScope,
    InvalidInput,
    InvalidToken,
    NotAuthenticated,
    NotAuthorized,
    PressroomError,
    RequestTimedOut,
    ServiceUnavailable,
    SlowReader,
    TooManyAtOnce,
    UnsupportedMediaType,
)
from app.core.strict_json import parse_json
from app.http.streaming import ABORT
from app.routers.integrations.streams import closing_data, token_end
from app.schemas.integrations.live import (
    Authenticate,
    Command,
    Edit,
    Subscribe,
    Unsubscribe,
)
from app.services.integrations.live.connections import (
    CLOSE_SECONDS,
    MAX_SUBSCRIPTIONS,
    Connection,
    Subscription,
)
from app.services.integrations.live.hub import (
    Live,
    check_subscription,
    closing_for,
    find_position,
)
from app.services.integrations.live.messages import Batch

PROTOCOL = "pressroom.v1"
TOKEN_PREFIX = "bearer."  # noqa: S105 - the prefix of a subprotocol
FIRST_MESSAGE_SECONDS = 10.0
SECONDS_PER_MESSAGE = 0.05
"""The time after a message in which the next one is not read."""
IDLE_SECONDS = 3600.0
"""The protocol sends pings; the task wakes up for what is queued."""

_COMMANDS: TypeAdapter[Any] = TypeAdapter(Command)
_CLOSE_CODES: Mapping[type[PressroomError], int] = {
    UnsupportedMediaType: 1003,
    InvalidInput: 1007,
    SlowReader: 1013,
    RequestTimedOut: 4408,
    NotAuthenticated: 4401,
    NotAuthorized: 4403,
    TooManyAtOnce: 4429,
    ServiceUnavailable: 1013,
    PressroomError: 1011,
}
"""Close codes of RFC 6455 §7.4.1; those from 4000 on correspond to statuses of HTTP."""


async def live(socket: WebSocket) -> None:
    """Accept a socket, and serve it until one side closes it."""
    await _Socket(socket).serve()


router = APIRouter()
router.routes.append(WebSocketRoute("/live", live, name="live"))


class _Socket:
    """One socket: a task reads its commands, another one sends what is queued."""

    def __init__(self, socket: WebSocket) -> None:
        self._socket = socket
        self._live: Live = socket.app.state.live

    async def serve(self) -> None:
        offered = self._socket.scope["subprotocols"]
        await self._socket.accept(PROTOCOL if PROTOCOL in offered else None)
        try:
            with self._live.arriving():
                token = await self._first_token(offered)
                identity = await self._authenticate(token)
            self._connection = Connection("socket", identity, encode=_texts, abort=self._abort)
            with self._live.connected(self._connection, expires=token_end(token)):
                await self._converse(identity)
        except PressroomError as error:
            await self._close(error)
        except WebSocketDisconnect:
            pass

    async def _first_token(self, offered: list[str]) -> str:
        for protocol in offered:
            if protocol.startswith(TOKEN_PREFIX):
                return protocol.removeprefix(TOKEN_PREFIX)
        try:
            async with asyncio.timeout(FIRST_MESSAGE_SECONDS):
                command = await self._receive()
        except TimeoutError:
            raise RequestTimedOut("Send your token in the first message") from None
        if not isinstance(command, Authenticate):
            raise NotAuthenticated
        return command.token.get_secret_value()

    async def _authenticate(self, token: str) -> Identity:
        if not self._live.is_open:
            raise ServiceUnavailable("The server restarts; connect again")
        return await viewer_of(token, self._live.database, [Scope.COMMUNITY_READ])

    async def _converse(self, identity: Identity) -> None:
        connection = self._connection
        await self._send({"type": "ready", "username": identity.username})
        sending = asyncio.create_task(self._send_queued())
        receiving = asyncio.create_task(self._follow_commands())
        try:
            await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            connection.end()
            for task in (sending, receiving):
                task.cancel()
            results = await asyncio.gather(sending, receiving, return_exceptions=True)
        if connection.closing is not None:
            await self._send({"type": "closing", **closing_data(connection.closing)})
            raise connection.closing.error
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _send_queued(self) -> None:
        connection = self._connection
        while connection.is_open:
            text = await connection.next_chunk(IDLE_SECONDS)
            if text is not None:
                await self._send_text(text)  # type: ignore[arg-type]  # `_texts` returns them

    async def _send_text(self, text: str) -> None:
        """Send a message, and note since when the client has not received it."""
        self._connection.sending_since = asyncio.get_running_loop().time()
        await self._socket.send_text(text)
        self._connection.sending_since = 0.0

    async def _follow_commands(self) -> None:
        while True:
            command = await self._receive()
            answer: dict[str, Any] = {"type": "done"}
            try:
                await _complete(self._follow(command))
            except (NotAuthenticated, ServiceUnavailable) as error:
                self._connection.close(closing_for(error))
                return
            except PressroomError as error:
                answer = {"type": "error", "code": error.code, "message": str(error)}
            if command.id is not None:
                answer["id"] = command.id
            if not self._connection.push_chunks([json.dumps(answer)]):
                raise SlowReader
            await asyncio.sleep(SECONDS_PER_MESSAGE)

    async def _receive(self) -> Any:
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1005))
        text = message.get("text")
        if text is None:
            raise UnsupportedMediaType("Send JSON as text")
        try:
            return _COMMANDS.validate_python(parse_json(text.encode()))
        except ValidationError as error:
            raise InvalidInput(describe(error.errors()[0])) from None
        except ValueError:
            raise InvalidInput("This is not JSON") from None

    async def _follow(self, command: Any) -> None:
        match command:
            case Authenticate():
                await self._renew(command.token.get_secret_value())
            case Subscribe(topic=LiveTopic.PRESENCE, article_id=int(article_id)):
                owner_id = await self._editable(article_id)
                if self._live.watched_by(self._connection) >= MAX_SUBSCRIPTIONS:
                    raise TooManyAtOnce(_TOO_MANY)
                self._live.watch(self._connection, article_id, owner_id)
            case Unsubscribe(topic=LiveTopic.PRESENCE, article_id=int(article_id)):
                self._live.unwatch(self._connection, article_id)
            case Subscribe():
                await self._subscribe(command)
            case Unsubscribe():
                self._unsubscribe(command.topic, command.article_id)
            case Edit(editing=True):
                owner_id = await self._editable(command.article_id)
                if self._live.presence.edited_by(self._connection) >= MAX_SUBSCRIPTIONS:
                    raise TooManyAtOnce(_TOO_MANY)
                self._live.set_editing(self._connection, command.article_id, owner_id=owner_id)
            case Edit():
                self._live.set_editing(self._connection, command.article_id, owner_id=None)

    async def _editable(self, article_id: int) -> int:
        """Return the author of an article that the user may edit here."""
        identity = self._identity
        if identity.scopes is not None and Scope.ARTICLES_WRITE not in identity.scopes:
            raise InsufficientScope(Scope.ARTICLES_WRITE)
        return await self._live.find_owner(identity, article_id)

    @property
    def _identity(self) -> Identity:
        identity = self._connection.identity
        assert identity is not None  # noqa: S101 - sockets have a user
        return identity

    async def _renew(self, token: str) -> None:
        identity = await self._authenticate(token)
        current = self._identity
        if (identity.id, identity.api_key_id) != (current.id, current.api_key_id):
            raise InvalidToken("Use another socket for another user")
        self._connection.identity = identity
        self._live.renew(self._connection, token_end(token))

    async def _subscribe(self, command: Subscribe) -> None:
        connection, database = self._connection, self._live.database
        if len(connection.subscriptions) >= MAX_SUBSCRIPTIONS:
            raise TooManyAtOnce(_TOO_MANY)
        topic, article_id = command.topic, command.article_id
        await check_subscription(
            database.reader, viewer=connection.identity, topic=topic, article_id=article_id
        )
        position = await find_position(database.primary, topic=topic, cursor=command.cursor)
        self._unsubscribe(topic, article_id)
        subscription = Subscription(connection, topic, article_id)
        connection.subscriptions.append(subscription)
        async for messages in self._live.catch_up(subscription, position):
            if not connection.is_open:
                return
            for message in messages:
                text = message.text if message.data else _subscribed(subscription, message.cursor)
                await self._send_text(text)

    def _unsubscribe(self, topic: LiveTopic, article_id: int | None) -> None:
        for subscription in list(self._connection.subscriptions):
            if (subscription.topic, subscription.article_id) == (topic, article_id):
                self._live.unsubscribe(subscription)

    async def _send(self, message: Mapping[str, Any]) -> None:
        await self._socket.send_text(json.dumps(message))

    async def _close(self, error: PressroomError) -> None:
        code = next(_CLOSE_CODES[base] for base in type(error).__mro__ if base in _CLOSE_CODES)
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                with suppress(RuntimeError, WebSocketDisconnect):
                    await self._socket.close(code, error.code)
        except TimeoutError:  # the client does not read
            self._abort()

    def _abort(self) -> None:
        self._socket.scope["extensions"].get(ABORT, lambda: None)()


_TOO_MANY = f"One socket has at most {MAX_SUBSCRIPTIONS} subscriptions of each kind"


async def _complete(work: Coroutine[Any, Any, None]) -> None:
    """Await `work` to its end, also if the task is cancelled once: no query is interrupted."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    finally:
        await asyncio.gather(task, return_exceptions=True)


def _texts(batch: Batch) -> list[Any]:
    return list(batch.texts)


def _subscribed(subscription: Subscription, cursor: str) -> str:
    message = {"type": "subscribed", "topic": subscription.topic, "cursor": cursor}
    if subscription.article_id is not None:
        message["article_id"] = subscription.article_id  # type: ignore[assignment]
    return json.dumps(message)
