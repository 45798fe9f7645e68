"""Fixtures: servers of their own for tests of events.

Events become readable when all earlier transactions of the server have ended. On the shared server,
these include transactions of other workers.
"""

from collections.abc import AsyncIterator, Iterator

import pytest

from app.core.config import Settings
from tests import postgres
from tests.integrations.streaming import LiveServer


@pytest.fixture(scope="module")
def committing_url() -> Iterator[str]:
    """The URL of a migrated database on a server of its own, for requests that commit."""
    with postgres.server() as server:
        yield server.url


@pytest.fixture(scope="module")
def live_settings(settings: Settings, committing_url: str) -> Settings:
    own = {"database_url": committing_url, "live_connections": 12, "live_connections_per_user": 4}
    return settings.model_copy(update=own)


@pytest.fixture(scope="module")
async def server(live_settings: Settings) -> AsyncIterator[LiveServer]:
    """A running server whose requests commit."""
    server = await LiveServer.start(live_settings)
    yield server
    await server.stop()
