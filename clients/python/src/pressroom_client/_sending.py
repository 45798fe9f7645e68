"""Performing flows: with httpx.Client and threads, or with httpx.AsyncClient and tasks."""

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import httpx

from ._base import Operation
from ._core import Core, Exclusively, Flow, MemoryStore, Pause, Retry, Send, TokenStore, prepare

Result = TypeVar("Result")


class Sender:
    """A client that blocks. Several threads may share it."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        store: TokenStore | None = None,
        retry: Retry = Retry(),  # noqa: B008 - it is frozen
        http: httpx.Client | None = None,
    ) -> None:
        """Create a client.

        Args:
            base_url: The address of the API.
            api_key: An API key. Without it, `login` begins a session.
            store: Where the tokens of the session are kept; by default in memory.
            retry: How failed requests are repeated.
            http: An own client of httpx, for example with other time limits.
        """
        self._base_url = base_url.rstrip("/")
        self._core = Core(api_key=api_key, store=store or MemoryStore(), retry=retry)
        self._http = http or httpx.Client(follow_redirects=True)
        self._lock = threading.Lock()

    def call(self, operation: Operation[Result], **options: Any) -> Result:
        """Send the request of an operation. The methods of the operations call it."""
        result: Result = self._run(self._core.call(prepare(operation, **options)))
        return result

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _run(self, flow: Flow[Any]) -> Any:
        proceed: Callable[[], Any] = lambda: next(flow)  # noqa: E731 - replaced in the loop
        while True:
            try:
                effect = proceed()
            except StopIteration as end:
                return end.value
            try:
                value = self._perform(effect)
            except Exception as error:  # noqa: BLE001 - the flow decides
                proceed = _throwing(flow, error)
            else:
                proceed = _sending(flow, value)

    def _perform(self, effect: Any) -> Any:
        if isinstance(effect, Pause):
            time.sleep(effect.seconds)
            return None
        if isinstance(effect, Exclusively):
            with self._lock:
                return self._run(effect.flow)
        response = self._http.send(_request(self._http, self._base_url, effect), stream=True)
        if not (effect.stream and response.is_success):
            response.read()
        return response


class AsyncSender:
    """A client for asyncio. Several tasks may share it."""

    def __init__(
        self,
        base_url: str,
        *,
        api_key: str | None = None,
        store: TokenStore | None = None,
        retry: Retry = Retry(),  # noqa: B008 - it is frozen
        http: httpx.AsyncClient | None = None,
    ) -> None:
        """Create a client. The arguments are those of `Sender`."""
        self._base_url = base_url.rstrip("/")
        self._core = Core(api_key=api_key, store=store or MemoryStore(), retry=retry)
        self._http = http or httpx.AsyncClient(follow_redirects=True)
        self._lock = asyncio.Lock()

    async def call(self, operation: Operation[Result], **options: Any) -> Result:
        """Send the request of an operation. The methods of the operations call it."""
        result: Result = await self._run(self._core.call(prepare(operation, **options)))
        return result

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _run(self, flow: Flow[Any]) -> Any:
        proceed: Callable[[], Any] = lambda: next(flow)  # noqa: E731 - replaced in the loop
        while True:
            try:
                effect = proceed()
            except StopIteration as end:
                return end.value
            try:
                value = await self._perform(effect)
            except Exception as error:  # noqa: BLE001 - the flow decides
                proceed = _throwing(flow, error)
            else:
                proceed = _sending(flow, value)

    async def _perform(self, effect: Any) -> Any:
        if isinstance(effect, Pause):
            await asyncio.sleep(effect.seconds)
            return None
        if isinstance(effect, Exclusively):
            async with self._lock:
                return await self._run(effect.flow)
        response = await self._http.send(_request(self._http, self._base_url, effect), stream=True)
        if not (effect.stream and response.is_success):
            await response.aread()
        return response


def _request(http: httpx.Client | httpx.AsyncClient, base_url: str, send: Send) -> httpx.Request:
    return http.build_request(
        send.method, base_url + send.path, headers=dict(send.headers), **send.options
    )


def _sending(flow: Flow[Any], value: Any) -> Callable[[], Any]:
    return lambda: flow.send(value)


def _throwing(flow: Flow[Any], error: Exception) -> Callable[[], Any]:
    return lambda: flow.throw(error)
