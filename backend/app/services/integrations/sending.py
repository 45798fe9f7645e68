"""Sending messages to receivers, which may be hostile, broken or slow.

Only public addresses are contacted (services.outgoing), unless WEBHOOK_PRIVATE_ADDRESSES is set.
Redirects are not followed. A message has one time limit for everything. Of the answer, only the
beginning is read.
"""

import asyncio
import ssl
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import NamedTuple, Self

import httpcore

from app import __version__
from app.services.outgoing import (
    Address,
    NotContacted,
    NotResolved,
    PublicOnly,
    Resolve,
    TooMuchReceived,
    is_certificate_error,
    is_public,
    parse_target,
    resolve,
)

SECONDS = 10.0
"""The time limit of an attempt: resolving, connecting, sending and the answer."""
ANSWER_BYTES = 1024
MAX_RECEIVED_BYTES = 256 * 1024
"""What is received after a message at most: its answer, and any number of interim responses."""
USER_AGENT = f"Pressroom/{__version__} (webhooks)"
GONE = 410
"""The receiver wants no further messages (Standard Webhooks)."""


class Outcome(NamedTuple):
    """The result of an attempt."""

    milliseconds: int
    status: int | None
    error: str | None
    """Why it failed; None if it was successful."""
    answer: str | None = None


class Sender:
    """Sends messages. An asynchronous context manager, which closes its connections.

    `resolve` and `allows` decide which addresses are contacted.
    """

    def __init__(
        self,
        *,
        connections: int,
        allows: Callable[[Address], bool] = is_public,
        resolve: Resolve = resolve,
        ssl_context: ssl.SSLContext | None = None,
        seconds: float = SECONDS,
    ) -> None:
        self._seconds = seconds
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context or ssl.create_default_context(),
            max_connections=connections,
            max_keepalive_connections=connections // 2,
            keepalive_expiry=5,
            network_backend=PublicOnly(resolve, allows, max_received_bytes=MAX_RECEIVED_BYTES),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._pool.aclose()

    async def send(self, url: str, body: bytes, headers: Mapping[str, str]) -> Outcome:
        """Send a message, and return the result."""
        started = time.monotonic()
        status = answer = None
        try:
            async with asyncio.timeout(self._seconds):
                status, answer = await self._post(url, body, headers)
        except (TimeoutError, httpcore.TimeoutException):
            error: str | None = f"no complete answer within {self._seconds:g} seconds"
        except NotResolved:
            # Not which one: a user could look up the names of the network of the server.
            error = "the host is unknown, or has an address that is not public"
        except NotContacted as refused:
            error = str(refused)
        except TooMuchReceived:
            error = "the answer is too long"
        except (httpcore.ConnectError, OSError) as failed:
            is_invalid = is_certificate_error(failed)
            error = "the certificate is not valid" if is_invalid else "no connection"
        except httpcore.RemoteProtocolError:
            error = "the answer is not HTTP, or the server closed the connection"
        except httpcore.NetworkError:
            error = "the server closed the connection"
        except (httpcore.LocalProtocolError, httpcore.UnsupportedProtocol, ValueError):
            error = "the URL is not valid"
        else:
            error = _error_of(status)
        milliseconds = int((time.monotonic() - started) * 1000)
        return Outcome(milliseconds, status, error, answer)

    async def _post(self, url: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, str]:
        """Return the status and the beginning of the answer."""
        target, host = parse_target(url)
        fields = {
            "User-Agent": USER_AGENT,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Accept-Encoding": "identity",
            **headers,
        }
        encoded = [(name.encode(), value.encode()) for name, value in fields.items()]
        async with self._pool.stream(
            "POST",
            target,
            headers=[(b"Host", host), *encoded],
            content=body,
            # Cancelling a TLS handshake would leave the socket open, so each part ends before.
            extensions={"timeout": {"connect": 0.45 * self._seconds}},
        ) as response:
            received = bytearray()
            async for chunk in response.aiter_stream():
                received += chunk[: ANSWER_BYTES - len(received)]
                if len(received) >= ANSWER_BYTES:
                    break  # the connection is closed: there may be any amount of data
        return response.status, _text(bytes(received))


def _error_of(status: int) -> str | None:
    if 200 <= status < 300:
        return None
    if 300 <= status < 400:
        return f"the receiver redirects ({status}): redirects are not followed"
    return f"the receiver answered {status}"


def _text(received: bytes) -> str:
    """Return the text that PostgreSQL can store: without NUL and other control characters."""
    text = received.decode("utf-8", errors="replace")
    return "".join(each if each.isprintable() or each in "\t\n" else "\ufffd" for each in text)
