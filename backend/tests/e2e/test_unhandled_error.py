"""Promise: an unhandled error is answered at once, and its trace tells of the code, not of the
user whose request it was."""

from collections.abc import Iterator

import pytest

from app.db import migrate
from tests.databases import execute, temporary_database
from tests.e2e.processes import GUNICORN, PRODUCTION, Api, Checkout, serving

pytestmark = pytest.mark.e2e

PASSWORD = "a-password-that-nobody-logs"
REFUSE = "ALTER TABLE users ADD CONSTRAINT unexpected CHECK (username <> 'unexpected')"


@pytest.fixture(scope="module")
def strict_database() -> Iterator[str]:
    """A database with a constraint that the application knows nothing of."""
    with temporary_database() as url:
        migrate.upgrade(url)
        execute(url, REFUSE)
        yield url


@pytest.fixture(scope="module", params=["development", "production"])
def failing_api(
    checkout: Checkout, strict_database: str, request: pytest.FixtureRequest
) -> Iterator[Api]:
    if request.param == "production":
        with serving(checkout, GUNICORN, DATABASE_URL=strict_database, **PRODUCTION) as api:
            yield api
    else:
        with serving(checkout, DATABASE_URL=strict_database) as api:
            yield api


def test_a_trace_has_no_personal_data_and_takes_no_time(failing_api: Api) -> None:
    answer = failing_api.register("unexpected", password=PASSWORD)
    assert answer.status_code == 500
    assert answer.elapsed.total_seconds() < 3
    log = failing_api.process.log
    assert answer.headers["X-Request-ID"] in log
    assert "CheckViolationError" in log
    for secret in (PASSWORD, "$bcrypt", "unexpected@example.com"):
        assert secret not in log
