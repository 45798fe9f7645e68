"""A migration during operation causes no 500, although PostgreSQL rejects statements that were
prepared before."""

from collections.abc import Iterator

import pytest

from tests.databases import execute
from tests.processes import PRODUCTION, Api, Checkout, serving

pytestmark = pytest.mark.e2e


@pytest.fixture
def prepared_api(checkout: Checkout, own_database: str) -> Iterator[Api]:
    """Start an API whose only connection has prepared the statement of the list."""
    with serving(checkout, DATABASE_URL=own_database, DATABASE_POOL_SIZE="1", **PRODUCTION) as api:
        assert api.client.get("/articles").status_code == 200
        yield api


def test_outdated_prepared_statements_cause_no_500(prepared_api: Api, own_database: str) -> None:
    execute(own_database, "ALTER TABLE articles ALTER COLUMN title TYPE varchar(300)")
    statuses = [prepared_api.client.get("/articles").status_code for _ in range(5)]
    assert set(statuses) <= {200, 503}
    assert statuses[-1] == 200
