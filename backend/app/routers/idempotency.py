"""Idempotency-Key: a dependency for routes that create resources, and their route class.

A route with a JSON body uses `dependencies=[idempotent(ArticlesActor)]`. The bytes of a form with
files differ for each request. Such a route takes a `RepeatableRequest`, and claims the key after it
has read the form.
"""

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Header, Request, Response, params
from fastapi.dependencies.models import Dependant
from pydantic import BaseModel

from app.auth.identity import Identity
from app.core.conditional import entity_tag
from app.core.errors import (
    AlreadyCarriedOut,
    Conflict,
    IdempotencyKeyReused,
    InvalidInput,
    PressroomError,
    RequestInProgress,
    ServiceUnavailable,
)
from app.core.validation import pattern
from app.db.dependencies import CurrentDatabase, WriteSession
from app.http.errors import pressroom_error_response
from app.http.routing import StrictRequest, StrictRoute, raises
from app.services import idempotency
from app.services.idempotency import AlreadyProcessed, Claim, LoadBody, StoredResponse

KEY = "Idempotency-Key"
STORED_HEADERS = ("Cache-Control", "Content-Type", "ETag", "Link", "Location", "Vary")
"""Headers that are stored with a response; all others belong to a single request."""

_VISIBLE_ASCII = pattern(r"^[\x21-\x7e]+$", "should contain only ASCII characters without spaces")
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias=KEY,
        min_length=1,
        max_length=255,
        pattern=_VISIBLE_ASCII,
        description=(
            "A unique value, such as a random UUID. If the request is repeated with the same key "
            "within 24 hours, it is not executed again, and the first response is returned."
        ),
    ),
]


ReadCreated = Callable[[WriteSession, int, Identity], Awaitable[BaseModel]]
"""Reads the created resource by its id, as visible to the caller, in the schema of the route."""


class IdempotentRequest(StrictRequest):
    """A request whose response is stored if its key was claimed."""

    claim: Claim | None = None


class IdempotentRoute(StrictRoute):
    """A route that stores its response in the request's unit of work, before the commit."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()
        if not _depends_on_key(self.dependant):
            return handle

        async def handle_and_store(request: Request) -> Response:
            request = IdempotentRequest(request.scope, request.receive)
            response = await handle(request)
            if request.claim is not None and 200 <= response.status_code < 300:
                await request.claim.store(_stored(response))
            return response

        return handle_and_store


def _depends_on_key(dependant: Dependant) -> bool:
    return dependant.call is repeatable or any(map(_depends_on_key, dependant.dependencies))


def _stored(response: Response) -> StoredResponse:
    headers = response.headers
    stored = {name: headers[name] for name in STORED_HEADERS if name in headers}
    return StoredResponse(response.status_code, stored, bytes(response.body))


class Repeatable:
    """A request with an optional idempotency key."""

    def __init__(
        self,
        request: IdempotentRequest,
        session: WriteSession,
        database: CurrentDatabase,
        key: str | None,
    ) -> None:
        self.key = key
        self._request = request
        self._session = session
        self._database = database

    async def was_answered(self, *, caller: Identity) -> bool:
        """Return whether a response is stored for the caller's key, so that `claim` will raise."""
        if self.key is None:
            return False
        return await idempotency.was_answered(self._database, user_id=caller.id, key=self.key)

    async def read_again(
        self, answer: StoredResponse, *, read: ReadCreated, caller: Identity
    ) -> StoredResponse:
        """Return the response with the created resource as its body. Raises what `read` raises."""
        created_id = int(answer.headers["Location"].rpartition("/")[2])
        async with self._database.unit_of_work() as session:
            body = (await read(session, created_id, caller)).model_dump_json().encode()
        return answer._replace(body=body, headers={**answer.headers, "ETag": entity_tag(body)})

    async def claim(
        self, *content: bytes, caller: Identity | None, load_body: LoadBody | None = None
    ) -> None:
        """Claim the key, if any, for a request with this `content`.

        Raises AlreadyProcessed, IdempotencyKeyReused, RequestInProgress, and InvalidInput for
        several keys. If the session is unused, its first statement may raise the first three.
        """
        if self.key is None:
            return
        request = self._request
        if len(request.headers.getlist(KEY)) > 1:
            raise InvalidInput(f"Send only one {KEY} header")
        scope = request.scope
        request.claim = await idempotency.claim(
            self._session,
            database=self._database,
            caller=caller,
            key=self.key,
            content=(
                scope["method"].encode(),
                scope["path"].encode(),
                scope["query_string"],
                *content,
            ),
            load_body=load_body,
        )


@raises(Conflict, RequestInProgress, AlreadyCarriedOut, IdempotencyKeyReused)
async def repeatable(
    request: IdempotentRequest,
    session: WriteSession,
    database: CurrentDatabase,
    key: IdempotencyKey = None,
) -> Repeatable:
    """Return the request with its key. Async, so that FastAPI does not run it in a thread."""
    return Repeatable(request, session, database, key)


RepeatableRequest = Annotated[Repeatable, Depends(repeatable)]
"""For a route that calls `claim` itself, before it writes anything."""


async def _no_identity() -> None:
    """Return None as the caller of a route without authentication."""


Anonymous = Annotated[None, Depends(_no_identity)]


def idempotent(caller: Any = Anonymous, *, read: ReadCreated | None = None) -> params.Depends:
    """Return a dependency that accepts an Idempotency-Key.

    `caller` is the route's authentication alias, such as ArticlesActor; keys are separate for each
    user. `read` reads the created resource by the id at the end of its Location. Routes whose
    responses may exceed 64 KiB need it.
    """

    async def claim(request: Request, identity: caller, repeatable: RepeatableRequest) -> None:
        if repeatable.key is not None:
            load_body = read and partial(repeatable.read_again, read=read, caller=identity)
            await repeatable.claim(await request.body(), caller=identity, load_body=load_body)

    dependency: params.Depends = Depends(claim)
    return dependency


async def replay_response(request: Request, error: Exception) -> Response:
    """Return the stored response, byte by byte.

    A response that was too large to store is replaced by the current state of the created resource.
    The response is 409 if that resource is no longer available.
    """
    assert isinstance(error, AlreadyProcessed)  # noqa: S101 - registered for this class only
    stored = error.response
    if stored.body is None:
        try:
            if error.load_body is None:
                raise AlreadyCarriedOut
            stored = await error.load_body(stored)
        except ServiceUnavailable as unavailable:
            return pressroom_error_response(unavailable)
        except PressroomError:
            return pressroom_error_response(AlreadyCarriedOut())
    status, headers, body = stored
    return Response(body, status, {**headers, "Idempotency-Replayed": "true"})


def register_replays(app: FastAPI) -> None:
    """Register the handler that replays stored responses.

    Raising an exception rolls back the unit of work of the repeated request.
    """
    app.add_exception_handler(AlreadyProcessed, replay_response)
