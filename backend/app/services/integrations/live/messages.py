"""What subscribers get: messages in the formats of streams and sockets."""

from collections.abc import Sequence
from functools import cached_property

from app.core.enums import LiveTopic
from app.core.errors import PressroomError


class Message:
    """An event for the subscribers of a topic: JSON data, and the cursor after it."""

    __slots__ = ("cursor", "data", "name", "topic")

    def __init__(self, topic: LiveTopic, name: str, cursor: str, data: bytes) -> None:
        """`name` is the name of the event in a stream."""
        self.topic, self.name, self.cursor, self.data = topic, name, cursor, data

    @property
    def event(self) -> bytes:
        """Return the message of a stream (HTML Living Standard §9.2.6)."""
        head = f"id: {self.cursor}\nevent: {self.name}\ndata: ".encode()
        return head + self.data + b"\n\n"

    @property
    def text(self) -> str:
        """Return the message of a socket."""
        return (
            f'{{"type":"event","topic":"{self.topic}","event":"{self.name}",'
            f'"cursor":"{self.cursor}","data":{self.data.decode()}}}'
        )


class Batch:
    """Messages that several subscribers get together. Each format is made once."""

    def __init__(self, messages: Sequence[Message]) -> None:
        self._messages = messages

    @cached_property
    def events(self) -> bytes:
        """The messages of a stream."""
        return b"".join(message.event for message in self._messages)

    @cached_property
    def texts(self) -> Sequence[str]:
        """The messages of a socket."""
        return [message.text for message in self._messages]


class Closing:
    """Why the server closes a connection, and when the client may come back."""

    def __init__(self, error: PressroomError, *, name: str, retry_ms: int) -> None:
        """`name` is the label of the metrics."""
        self.error, self.name, self.retry_ms = error, name, retry_ms
