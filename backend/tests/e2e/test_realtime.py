"""Streams of a server process: a restart of PostgreSQL, and the end of a worker."""

import asyncio
import signal
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack

import httpx
import pytest

from tests import postgres
from tests.integrations.streaming import PATH, Stream
from tests.processes import (
    DEADLINE,
    GUNICORN,
    PASSWORD,
    PRODUCTION,
    Api,
    Checkout,
    serving,
    wait_until,
)

pytestmark = [pytest.mark.e2e, pytest.mark.checkout]

STREAMS = 40


@pytest.fixture
def server() -> Iterator[postgres.Server]:
    with postgres.server() as server:
        yield server


@pytest.fixture
def api(checkout: Checkout, server: postgres.Server) -> Iterator[Api]:
    with serving(checkout, GUNICORN, DATABASE_URL=server.url, **PRODUCTION) as api:
        yield api


def publish(api: Api, token: str, title: str) -> int:
    """Publish an article, and return its id. Wait until the database accepts it."""
    article = {"title": title, "content": "Long enough.", "published": True}
    headers = {"Authorization": f"Bearer {token}"}

    def create() -> int | None:
        answer = api.client.post("/articles", json=article, headers=headers)
        return answer.json()["id"] if answer.status_code == 201 else None

    return wait_until(create, "an article is published", log=api.process.log)


def register(api: Api) -> str:
    user = {"username": "ada", "email": "ada@example.com", "name": "Ada", "password": PASSWORD}
    assert api.client.post("/users", json=user).status_code == 201
    form = {"username": "ada", "password": PASSWORD}
    token: str = api.client.post("/auth/login", data=form).json()["access_token"]
    return token


async def next_ids(streams: Sequence[Stream]) -> set[int]:
    events = await asyncio.gather(*(stream.next() for stream in streams))
    return {event.data["article_id"] for event in events}


async def test_streams_survive_a_restart_of_postgresql_and_end_with_the_worker(
    api: Api, server: postgres.Server
) -> None:
    token = register(api)
    limits = httpx.Limits(max_connections=None)
    async with (
        httpx.AsyncClient(
            base_url=api.url, timeout=DEADLINE, limits=limits, verify=False
        ) as client,
        AsyncExitStack() as opened,
    ):
        streams = []
        for _ in range(STREAMS):
            response = await opened.enter_async_context(client.stream("GET", PATH))
            streams.append(Stream(response))
        for stream in streams:
            await stream.started()
        first = await asyncio.to_thread(publish, api, token, "Before")
        assert await next_ids(streams) == {first}

        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)

        second = await asyncio.to_thread(publish, api, token, "After")
        assert await next_ids(streams) == {second}

        api.process.send(signal.SIGTERM)
        ends = await asyncio.gather(*(stream.next() for stream in streams))
        assert {event.data["code"] for event in ends} == {"server_stopping"}
        assert len({event.retry for event in ends}) > STREAMS / 2
    assert await asyncio.to_thread(api.process.wait) == 0
