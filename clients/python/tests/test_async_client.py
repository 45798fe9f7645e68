"""The client for asyncio. It shares the rules with the other one, so the tests are fewer."""

import asyncio
import io
from contextlib import aclosing
from dataclasses import replace
from uuid import uuid4

import httpx
import pytest
from conftest import PASSWORD
from test_client import PIXEL, QUICK, interrupted_stream

from pressroom_client import AsyncClient, MemoryStore, PressroomError, errors, models


class Transport(httpx.AsyncHTTPTransport):
    """Records the requests, and loses the response to the first POST of an article."""

    def __init__(self) -> None:
        super().__init__()
        self.paths: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.paths.append(request.url.path)
        response = await super().handle_async_request(request)
        if self.paths.count("/articles") == 1 and request.method == "POST":
            raise httpx.ReadError("the connection was lost", request=request)
        return response


async def test_story(url: str, user: models.UserPrivate) -> None:
    transport, store, tag = Transport(), MemoryStore(), uuid4().hex
    http = httpx.AsyncClient(transport=transport)
    async with AsyncClient(url, store=store, http=http, retry=QUICK) as client:
        await client.login(models.LoginForm(username=user.username, password=PASSWORD))
        assert store.tokens
        store.tokens = replace(store.tokens, expires_at=0)
        identities = await asyncio.gather(*(client.read_identity() for _ in range(5)))
        assert {identity.username for identity in identities} == {user.username}
        assert transport.paths.count("/auth/refresh") == 1

        end = (await client.list_changes(cursor="latest")).next
        new = models.ArticleCreate(title="Async", content="Text.", tags=[tag], published=True)
        article = await client.create_article(new)
        await client.create_article(new)
        assert transport.paths.count("/articles") == 3
        listed = [each.id async for each in client.each(client.list_articles, tag=[tag], limit=1)]
        assert listed[-1] == article.id
        assert len(listed) == 2
        changed = [change.article_id async for change in client.changes(cursor=end)]
        assert sorted(changed) == sorted(listed)

        progress: list[float] = []
        media = await client.upload_media(io.BytesIO(PIXEL), on_progress=progress.append)
        assert (media.width, progress[-1]) == (1, 1.0)
        response = await client.read_rss()
        assert b"<rss" in await response.aread()
        with pytest.raises(errors.ArticleNotFound):
            await client.read_article(2**40)
        await client.log_out()
        assert store.get() is None


async def test_stream_of_comments(url: str, store: MemoryStore) -> None:
    async with AsyncClient(url, store=store) as client:
        new = models.ArticleCreate(title="Discussed", content="Text.", published=True)
        article = await client.create_article(new)
        comment = models.CommentCreate(content="Once\u2028more")
        stream = client.stream(topic="comments", article_id=article.id)
        async with aclosing(stream):
            first = asyncio.ensure_future(anext(stream))
            while not first.done():  # the stream starts at some moment meanwhile
                await client.create_comment(article.id, comment)
            event = await first
            assert (event.data.kind, event.data.article_id) == ("created", article.id)
            assert event.data.comment
            assert event.data.comment.content == "Once\u2028more"


async def test_interrupted_stream_continues(url: str) -> None:
    async with AsyncClient(url) as client:
        end = (await client.list_changes(cursor="latest")).next
    answers = [interrupted_stream(end), httpx.Response(422, json={"code": "invalid_cursor"})]
    transport = httpx.MockTransport(lambda _: answers.pop(0))
    async with AsyncClient(url, http=httpx.AsyncClient(transport=transport)) as client:
        stream = client.stream()
        assert (await anext(stream)).cursor == "first"
        with pytest.raises(PressroomError):
            await anext(stream)
    assert answers == []
