"""Streamed responses whose body is not produced for HEAD."""

from collections.abc import AsyncIterator

from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

HEAD = "pressroom.head"
"""The key of a scope that is set for HEAD, which is handled as GET (`RequestRules`)."""

ABORT = "pressroom.abort"
"""The key in the extensions of a scope of a function that closes the connection at once.

Otherwise the server would first send what a client does not read.
"""

DRAIN = "drain"
"""The key in the state of the lifespan of a function that ends open streams and sockets."""


class StreamedFile(StreamingResponse):
    """A file for download. For HEAD, the parts are not read."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if HEAD in scope:
            self.body_iterator = _nothing()
        await super().__call__(scope, receive, send)


async def _nothing() -> AsyncIterator[bytes]:
    for part in list[bytes]():
        yield part
