"""Idempotency-Key: how a route that creates lets its clients repeat a request.

`dependencies=[idempotent(ArticlesActor)]` where the body is JSON. A route whose body looks
different each time, such as a form with files, takes a `RepeatableRequest` and claims the key
itself, once it knows what was sent.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Annotated, Any

from fastapi import Depends, Header, Request, params
from pydantic import BaseModel

from app.auth.identity import Identity
from app.core.conditional import entity_tag
from app.core.errors import InvalidInput
from app.core.idempotency import StoredResponse
from app.db.dependencies import CurrentDatabase, WriteSession
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
            "Chosen by you, such as a random UUID: sent again within 24 hours, with the same key, "
            "the request is not carried out again but answered as it was before"
        ),
    ),
]


ReadCreated = Callable[[WriteSession, int, Identity], Awaitable[BaseModel]]
"""Reads the created resource by its id, as the caller sees it, in the schema of the route."""


class Repeatable:
    """A request that may come again, and what claims its key."""

    def __init__(
        self, request: Request, session: WriteSession, database: CurrentDatabase, key: str | None
    ) -> None:
        self.key = key
        self._request = request
        self._session = session
        self._database = database

    async def was_answered(self, *, caller: Identity) -> bool:
        """Whether the caller's key has an answer already, so that `claim` will raise."""
        if self.key is None:
            return False
        return await idempotency.was_answered(self._database, user_id=caller.id, key=self.key)

    async def read_again(
        self, answer: StoredResponse, *, read: ReadCreated, caller: Identity
    ) -> StoredResponse:
        """The answer with the created resource as its body. Raises what `read` raises."""
        created_id = int(answer.headers["Location"].rpartition("/")[2])
        async with self._database.unit_of_work() as session:
            body = (await read(session, created_id, caller)).model_dump_json().encode()
        return answer._replace(body=body, headers={**answer.headers, "ETag": entity_tag(body)})

    async def claim(self, *content: bytes, caller: Identity | None) -> None:
        """Claim the key, if there is one, for a request with this `content`.

        Raises AlreadyProcessed, IdempotencyKeyReused, RequestInProgress, and InvalidInput for two
        keys; the last two also later, where the session has not been used yet.
        """
        if self.key is None:
            return
        request = self._request
        if len(request.headers.getlist(KEY)) > 1:
            raise InvalidInput(f"There is more than one {KEY}")
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


async def repeatable(
    request: Request, session: WriteSession, database: CurrentDatabase, key: IdempotencyKey = None
) -> Repeatable:
    """The request with its key. Async, lest FastAPI run it in a thread for each request."""
    return Repeatable(request, session, database, key)


RepeatableRequest = Annotated[Repeatable, Depends(repeatable)]
"""For a route that calls `claim` itself, before it writes anything."""


async def _nobody() -> None:
    """Who asks where nobody is asked who they are."""


Anybody = Annotated[None, Depends(_nobody)]


def idempotent(caller: Any = Anybody, *, read: ReadCreated | None = None) -> params.Depends:
    """A route's dependency that takes an Idempotency-Key.

    `caller` is the alias by which the route knows who asks, such as ArticlesActor: their keys are
    theirs alone. `read` reads the created resource by the id at the end of its Location. A route
    whose answers may exceed 64 KiB needs it.
    """

    async def claim(
        request: Request,
        who: caller,
        repeatable: RepeatableRequest,
    ) -> None:
        if repeatable.key is not None:
            if read is not None:
                request.state.load_body = partial(repeatable.read_again, read=read, caller=who)
            await repeatable.claim(await request.body(), caller=who)

    dependency: params.Depends = Depends(claim)
    return dependency
