"""Fixtures: a server of its own for tests of events.

Events become readable when all earlier transactions of the server have ended. On the shared server,
these include transactions of other workers.
"""

from collections.abc import Iterator

import pytest

from tests import postgres


@pytest.fixture(scope="module")
def committing_url() -> Iterator[str]:
    """The URL of a migrated database on a server of its own, for requests that commit."""
    with postgres.server() as server:
        yield server.url
