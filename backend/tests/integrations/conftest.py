"""Fixtures: servers whose requests commit, with databases of their own.

Events become readable when all earlier transactions of the server have ended. On the shared server,
these include transactions of other workers.
"""

from collections.abc import AsyncIterator, Iterator

import pytest

from app.core.config import Settings
from tests import postgres
from tests.databases import migrated_database
from tests.integrations.streaming import LiveServer


@pytest.fixture(scope="module")
def committing_url() -> Iterator[str]:
    """The URL of a migrated database on a server of its own, for requests that commit."""
    with postgres.server() as server:
        yield server.url


@pytest.fixture(scope="module")
def live_settings(settings: Settings) -> Iterator[Settings]:
    with migrated_database() as url:
        yield settings.model_copy(
            update={"database_url": url, "live_connections": 12, "live_connections_per_user": 4}
        )


@pytest.fixture(scope="module")
async def server(live_settings: Settings) -> AsyncIterator[LiveServer]:
    server = await LiveServer.start(live_settings)
    yield server
    await server.stop()
