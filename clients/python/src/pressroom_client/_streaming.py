"""Streams of changes (Server-Sent Events), without input and output: both clients share this."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Generic, Literal, TypeVar

import httpx
from pydantic import AwareDatetime

from . import models
from ._base import Model
from ._core import Call, prepare
from ._errors import PressroomError
from .operations import STREAM_CHANGES

Data = TypeVar("Data")
ArticleTopic = Literal["changes", "feed"]
CommentTopic = Literal["comments", "moderation"]

SILENCE = httpx.Timeout(10, read=45)
"""The server sends something every 15 seconds."""
MAX_PAUSE = 60.0


class CommentEvent(Model):
    """What happened to a comment. Without `comment`, remove it.

    The same event has the same `event_id` if it is sent again.
    """

    event_id: int
    kind: Literal["created", "held", "deleted"]
    article_id: int
    comment_id: int
    thread_id: int
    occurred_at: AwareDatetime
    comment: models.CommentResponse | None


@dataclass(frozen=True)
class StreamEvent(Generic[Data]):
    """An event, and the cursor after which a later stream continues."""

    cursor: str
    data: Data


class Following:
    """The state of a stream that is opened again after an interruption."""

    def __init__(self, topic: str, article_id: int | None, cursor: str | None) -> None:
        self._query = {"topic": topic, "article_id": article_id}
        self._model: type[Model] = models.ChangeResponse
        if topic in {"comments", "moderation"}:
            self._model = CommentEvent
        self._cursor = cursor
        self._retry = 5.0
        self._failures = 0
        self._was_open = False
        self._name, self._data, self._rest = "", list[str](), b""

    def call(self) -> Call:
        """Return the request that continues the stream."""
        self._name, self._data, self._rest = "", [], b""
        call = prepare(STREAM_CHANGES, query={**self._query, "cursor": self._cursor})
        return replace(call, options={**call.options, "timeout": SILENCE})

    def receive(self, chunk: bytes) -> Iterator[StreamEvent[Any]]:
        """Yield the events that end in this part of the stream."""
        self._was_open, self._failures = True, 0
        # Not `splitlines`: texts may contain other separators, such as U+2028.
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            if (event := self._read(line.removesuffix(b"\r").decode())) is not None:
                yield event

    def _read(self, line: str) -> StreamEvent[Any] | None:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            self._cursor = value
        elif name == "event":
            self._name = value
        elif name == "data":
            self._data.append(value)
        elif name == "retry" and value.isdecimal():
            self._retry = int(value) / 1000
        elif not line:
            name, data = self._name, self._data
            self._name, self._data = "", []
            if data and name != "closing":
                fields = json.loads("\n".join(data))
                return StreamEvent(self._cursor or "", self._model.model_validate(fields))
        return None

    def check(self, error: Exception) -> None:
        """Raise the error of an attempt again, unless another attempt may succeed."""
        is_refused = isinstance(error, PressroomError) and (
            error.status < 500 and error.status != 429
        )
        if is_refused or not self._was_open:
            raise error

    def pause(self) -> float:
        """Return the seconds until the next attempt: what the server asks for, later longer."""
        self._failures += 1
        return min(MAX_PAUSE, self._retry * 2.0 ** (self._failures - 1))
