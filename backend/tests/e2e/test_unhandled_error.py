"""The response to an unhandled error is not delayed, and its traceback contains no data of the
user."""

from collections.abc import Iterator

import pytest

from tests.databases import execute
from tests.processes import Api

pytestmark = pytest.mark.e2e

PASSWORD = "a-password-that-nobody-logs"


@pytest.fixture
def unexpected_constraint(api_database: str) -> Iterator[None]:
    """Add a constraint that the application does not handle."""
    check = "CONSTRAINT unexpected CHECK (username <> 'unexpected')"
    execute(api_database, f"ALTER TABLE users ADD {check}")
    yield
    execute(api_database, "ALTER TABLE users DROP CONSTRAINT unexpected")


@pytest.mark.usefixtures("unexpected_constraint")
def test_traceback_is_fast_and_has_no_personal_data(api: Api) -> None:
    answer = api.register("unexpected", password=PASSWORD)
    assert answer.status_code == 500
    log = api.process.log
    assert answer.headers["X-Request-ID"] in log
    assert "CheckViolationError" in log
    for secret in (PASSWORD, "$bcrypt", "unexpected@example.com"):
        assert secret not in log
    assert answer.elapsed.total_seconds() < 3
