"""Types for idempotent requests, shared by routes and the service that stores responses."""

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, Protocol


class StoredResponse(NamedTuple):
    """The response to an idempotent request."""

    status: int
    headers: Mapping[str, str]
    body: bytes | None
    """None if the body was too large to store: the created resource is read again."""


class AlreadyProcessed(Exception):
    """The request was processed before: send `response` again and change nothing."""

    def __init__(self, response: StoredResponse) -> None:
        super().__init__()
        self.response = response


LoadBody = Callable[[StoredResponse], Awaitable[StoredResponse]]
"""Complete a stored response without a body; a dependency sets `request.state.load_body`.

Raises PressroomError if the created resource can no longer be read.
"""


class ResponseStore(Protocol):
    """Stores the response to a request; a dependency sets `request.state.response_store`."""

    async def store(self, response: StoredResponse) -> None:
        """Store the response in the transaction of the request."""
