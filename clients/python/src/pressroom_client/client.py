"""The clients: the generated methods, and pages, changes and uploads."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Generator, Iterator
from types import TracebackType
from typing import Any, BinaryIO, ParamSpec, Self, TypeVar, overload

import httpx

from . import models
from . import operations as _operations
from ._base import Page
from ._core import Paging
from ._errors import PressroomError
from ._streaming import ArticleTopic, CommentEvent, CommentTopic, Following, StreamEvent
from .operations import LIST_CHANGES, UPLOAD_MEDIA, AsyncOperations, SyncOperations

Arguments = ParamSpec("Arguments")
Item = TypeVar("Item")

PAGE_SIZE = 100


class _Progress:
    """A file that reports how much of it has been read, from 0 to 1."""

    def __init__(self, file: BinaryIO, report: Callable[[float], None]) -> None:
        self._file, self._report = file, report
        self._size = file.seek(0, 2) or 1
        file.seek(0)

    def read(self, size: int = -1) -> bytes:
        chunk = self._file.read(size)
        self._report(self._file.tell() / self._size)
        return chunk

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()


def _upload(
    file: BinaryIO, alt: str | None, name: str, on_progress: Callable[[float], None] | None
) -> dict[str, object]:
    """Return the body and the files of an upload."""
    content = _Progress(file, on_progress) if on_progress else file
    return {"files": {"file": (name, content)}, "body": {} if alt is None else {"alt": alt}}


def _paging(method: Callable[..., object], parameters: dict[str, object]) -> Paging:
    """Return the pages of the list that a method of a client returns."""
    operation = getattr(_operations, method.__name__.upper(), None)
    if operation is None or operation.pages is None:
        raise TypeError(f"{method.__name__} returns no list with pages")
    return Paging(operation.pages, parameters)


class Client(SyncOperations):
    """A client of the Pressroom API.

    `with Client("https://blog.example.com", api_key="…") as client:` closes its connections.
    """

    def each(
        self,
        method: Callable[Arguments, Page[Item]],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Iterator[Item]:
        """Yield the items of all pages: `client.each(client.list_articles, tag=["Engines"])`."""
        paging = _paging(method, dict(kwargs))
        more = True
        while more:
            page = method(*args, **paging.parameters)
            yield from page
            more = paging.advance(page)

    def changes(
        self, *, cursor: str | None = None, poll: float | None = None
    ) -> Iterator[models.ChangeResponse]:
        """Yield the changes of published articles after `cursor`, or all.

        With `poll`, in seconds, it continues with new changes. Store the `cursor` of a change after
        handling it. Raises errors.InvalidCursor if the server does not know the cursor: start
        without one.
        """
        while True:
            page = self.call(LIST_CHANGES, query={"cursor": cursor, "limit": PAGE_SIZE})
            yield from page.changes
            cursor = page.next
            if len(page.changes) < PAGE_SIZE:
                if poll is None:
                    return
                time.sleep(poll)

    @overload
    def stream(
        self, *, topic: ArticleTopic = "changes", cursor: str | None = None
    ) -> Generator[StreamEvent[models.ChangeResponse], None, None]: ...

    @overload
    def stream(
        self, *, topic: CommentTopic, article_id: int | None = None, cursor: str | None = None
    ) -> Generator[StreamEvent[CommentEvent], None, None]: ...

    def stream(
        self, *, topic: str = "changes", article_id: int | None = None, cursor: str | None = None
    ) -> Generator[StreamEvent[Any], None, None]:
        """Yield what happens from now on, or after `cursor`.

        That is changes of articles, of users whom you follow (`feed`), of `comments` of an article,
        or of your queue (`moderation`). After an interruption, it continues without a gap. Store
        the `cursor` of an event after handling it. Raises PressroomError if the server refuses it.
        """
        following = Following(topic, article_id, cursor)
        while True:
            try:
                response = self._run(self._core.call(following.call()))
                with contextlib.closing(response):
                    for chunk in response.iter_bytes():
                        yield from following.receive(chunk)
            except (httpx.TransportError, PressroomError) as error:
                following.check(error)
            time.sleep(following.pause())

    def upload_media(
        self,
        file: BinaryIO,
        *,
        alt: str | None = None,
        name: str = "image",
        on_progress: Callable[[float], None] | None = None,
        idempotency_key: str | None = None,
    ) -> models.MediaResponse:
        """Upload an image. `on_progress` gets how much has been sent, from 0 to 1."""
        upload = _upload(file, alt, name, on_progress)
        return self.call(UPLOAD_MEDIA, idempotency_key=idempotency_key, **upload)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class AsyncClient(AsyncOperations):
    """A client of the Pressroom API for asyncio.

    `async with AsyncClient("https://blog.example.com") as client:` closes its connections.
    """

    async def each(
        self,
        method: Callable[Arguments, Awaitable[Page[Item]]],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> AsyncIterator[Item]:
        """Yield the items of all pages, like `Client.each`."""
        paging = _paging(method, dict(kwargs))
        more = True
        while more:
            page = await method(*args, **paging.parameters)
            for item in page:
                yield item
            more = paging.advance(page)

    async def changes(
        self, *, cursor: str | None = None, poll: float | None = None
    ) -> AsyncIterator[models.ChangeResponse]:
        """Yield the changes of published articles, like `Client.changes`."""
        while True:
            page = await self.call(LIST_CHANGES, query={"cursor": cursor, "limit": PAGE_SIZE})
            for change in page.changes:
                yield change
            cursor = page.next
            if len(page.changes) < PAGE_SIZE:
                if poll is None:
                    return
                await asyncio.sleep(poll)

    @overload
    def stream(
        self, *, topic: ArticleTopic = "changes", cursor: str | None = None
    ) -> AsyncGenerator[StreamEvent[models.ChangeResponse], None]: ...

    @overload
    def stream(
        self, *, topic: CommentTopic, article_id: int | None = None, cursor: str | None = None
    ) -> AsyncGenerator[StreamEvent[CommentEvent], None]: ...

    async def stream(
        self, *, topic: str = "changes", article_id: int | None = None, cursor: str | None = None
    ) -> AsyncGenerator[StreamEvent[Any], None]:
        """Yield what happens from now on, or after `cursor`, like `Client.stream`."""
        following = Following(topic, article_id, cursor)
        while True:
            try:
                response = await self._run(self._core.call(following.call()))
                async with contextlib.aclosing(response):
                    async for chunk in response.aiter_bytes():
                        for event in following.receive(chunk):
                            yield event
            except (httpx.TransportError, PressroomError) as error:
                following.check(error)
            await asyncio.sleep(following.pause())

    async def upload_media(
        self,
        file: BinaryIO,
        *,
        alt: str | None = None,
        name: str = "image",
        on_progress: Callable[[float], None] | None = None,
        idempotency_key: str | None = None,
    ) -> models.MediaResponse:
        """Upload an image, like `Client.upload_media`."""
        upload = _upload(file, alt, name, on_progress)
        return await self.call(UPLOAD_MEDIA, idempotency_key=idempotency_key, **upload)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()
