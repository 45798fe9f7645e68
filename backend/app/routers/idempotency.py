"""Idempotency-Key: a dependency for routes that create resources.

A route with a JSON body uses `dependencies=[idempotent(ArticlesActor)]`. The bytes of a form with
files differ for each request. Such a route takes a `RepeatableRequest`, and claims the key after it
has read the form.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, Header, Request, params
from pydantic import BaseModel

from app.auth.identity import Identity
from app.core.conditional import entity_tag
from app.core.errors import (
    AlreadyCarriedOut,
    Conflict,
    IdempotencyKeyReused,
    InvalidInput,
    RequestInProgress,
)
from app.core.idempotency import StoredResponse
from app.db.dependencies import CurrentDatabase, WriteSession
from app.http.routing import raises
from app.services import idempotency

KEY = "Idempotency-Key"

IdempotencyKey = Annotated[
    str | None,
    Header(
        alias=KEY,
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description=(
            "A unique value, such as a random UUID. If the request is repeated with the same key "
            "within 24 hours, it is not executed again, and the first response is returned."
        ),
    ),
]


ReadCreated = Callable[[WriteSession, int, Identity], Awaitable[BaseModel]]
"""Reads the created resource by its id, as visible to the caller, in the schema of the route."""


class Repeatable:
    """A request with an optional idempotency key."""

    def __init__(
        self, request: Request, session: WriteSession, database: CurrentDatabase, key: str | None
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

    async def claim(self, *content: bytes, caller: Identity | None) -> None:
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
        request.state.response_store = await idempotency.claim(
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
        )


@raises(Conflict, RequestInProgress, AlreadyCarriedOut, IdempotencyKeyReused)
async def repeatable(
    request: Request, session: WriteSession, database: CurrentDatabase, key: IdempotencyKey = None
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

    async def claim(
        request: Request,
        identity: caller,
        repeatable: RepeatableRequest,
    ) -> None:
        if repeatable.key is not None:
            if read is not None:
                request.state.load_body = partial(repeatable.read_again, read=read, caller=identity)
            await repeatable.claim(await request.body(), caller=identity)

    dependency: params.Depends = Depends(claim)
    return dependency
