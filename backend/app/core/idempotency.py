"""An answer that may be given again: what who stores it and who sends it have in common."""

from collections.abc import Awaitable, Callable, Mapping
from typing import NamedTuple, Protocol


class Answer(NamedTuple):
    """What a client was answered."""

    status: int
    headers: Mapping[str, str]
    body: bytes | None
    """None if it was too large to be stored: the created resource is read again."""


class AlreadyAnswered(Exception):
    """Raised where a request was carried out before: nothing is done, `answer` is sent again."""

    def __init__(self, answer: Answer) -> None:
        super().__init__()
        self.answer = answer


Reread = Callable[[Answer], Awaitable[Answer]]
"""Completes an answer without a body; a dependency leaves it at `request.state.reread`.

It raises PressroomError if the created resource can no longer be read.
"""


class Keeper(Protocol):
    """What keeps a request's answer; a dependency leaves it at `request.state.keeper`."""

    async def keep(self, answer: Answer) -> None:
        """Store the answer, in the transaction in which the request was carried out."""
