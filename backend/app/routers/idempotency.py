"""Idempotency-Key: how a route that creates lets its clients repeat a request.

`dependencies=[idempotent(ArticlesActor)]` where the body is JSON. A route whose body looks
different each time, such as a form with files, takes a `RepeatableRequest` and claims the key
itself, once it knows what was sent.
"""

from typing import Annotated, Any

from fastapi import Depends, Header, Request, params

from app.auth.identity import Identity
from app.core.errors import InvalidInput
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


class Repeatable:
    """A request that may come again, and what claims its key."""

    def __init__(
        self, request: Request, session: WriteSession, database: CurrentDatabase, key: str | None
    ) -> None:
        self.key = key
        self._request = request
        self._session = session
        self._database = database

    async def claim(self, *content: bytes, caller: Identity | None) -> None:
        """Claim the key, if there is one, for a request with this `content`.

        Raises AlreadyAnswered, IdempotencyKeyReused, RequestInProgress, and InvalidInput for two
        keys; the last two also later, where the session has not been used yet.
        """
        if self.key is None:
            return
        request = self._request
        if len(request.headers.getlist(KEY)) > 1:
            raise InvalidInput(f"There is more than one {KEY}")
        scope = request.scope
        request.state.keeper = await idempotency.claim(
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


def idempotent(caller: Any = Anybody) -> params.Depends:
    """A route's dependency that takes an Idempotency-Key.

    `caller` is the alias by which the route knows who asks, such as ArticlesActor: their keys are
    theirs alone.
    """

    async def claim(
        request: Request,
        who: caller,
        repeatable: RepeatableRequest,
    ) -> None:
        if repeatable.key is not None:
            await repeatable.claim(await request.body(), caller=who)

    dependency: params.Depends = Depends(claim)
    return dependency
