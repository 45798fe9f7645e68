"""Production logs one line of JSON per request, without secrets of clients. The traceback of an
unhandled error is logged with the request id."""

import json
import re
from collections.abc import Iterator
from functools import partial
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.databases import execute, migrated_database
from tests.processes import (
    GUNICORN,
    PRODUCTION,
    SECRET_KEY,
    Api,
    Checkout,
    serving,
    wait_until,
)

pytestmark = pytest.mark.e2e

PASSWORD = "a-password-that-nobody-logs"
WRONG_PASSWORD = "a-wrong-password-that-nobody-logs"
SHORT_PASSWORD = "7chars!"
FORGED_TOKEN = "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
QUERY_SECRET = "a-secret-in-a-query"
UNEXPECTED_CONSTRAINT = (
    "ALTER TABLE users ADD CONSTRAINT unexpected CHECK (username <> 'unexpected')"
)
ERROR_FIELDS = {"success", "message", "detail", "code", "request_id"}


def run_session(api: Api) -> tuple[list[httpx.Response], list[str]]:
    """Run a session with typical errors. Return the responses and the secrets."""
    client = api.client
    answers = [
        api.register("secretive", password=PASSWORD),
        api.register("secretive", password=PASSWORD),
        api.register("shortly", password=SHORT_PASSWORD),
        api.log_in("secretive", password=WRONG_PASSWORD),
        client.post("/users", content=f'{{"password": "{PASSWORD}"', headers=JSON_TYPE),
        client.post("/users", json={"passwort": PASSWORD}),
        (login := api.log_in("secretive", password=PASSWORD)),
    ]
    token = login.json()["access_token"]
    answers += [
        client.get("/auth/me", headers={"Authorization": f"Bearer {token}"}),
        client.get("/auth/me", headers={"Authorization": f"Bearer {FORGED_TOKEN}"}),
        client.get("/auth/me", headers={"Authorization": f"Basic {QUERY_SECRET}"}),
        client.get("/articles", params={"access_token": token}),
        client.get("/articles", params={"limit": QUERY_SECRET}),
        client.get(f"/nothing%0A{quote('{}')}"),
    ]
    return answers, [PASSWORD, WRONG_PASSWORD, SHORT_PASSWORD, FORGED_TOKEN, QUERY_SECRET, token]


JSON_TYPE = {"Content-Type": "application/json"}
STATUSES = [201, 409, 422, 401, 422, 422, 200, 200, 401, 401, 400, 422, 404]


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """Create a database with a constraint that the application does not handle."""
    with migrated_database() as url:
        execute(url, UNEXPECTED_CONSTRAINT)
        yield url


@pytest.fixture(scope="module")
def production(checkout: Checkout, database: str) -> Iterator[Api]:
    with serving(checkout, GUNICORN, DATABASE_URL=database, **PRODUCTION) as api:
        yield api


def read_log(api: Api, *answers: httpx.Response) -> list[dict[str, Any]]:
    """Return the parsed log, after waiting for the request lines of `answers`."""
    for answer in answers:
        identifier = answer.headers["X-Request-ID"]
        line = re.compile(rf'"path": .*"{identifier}"|"{identifier}".*"path": ')
        wait_until(partial(logged, api, line), f"the log has {answer.request.url}")
    return [json.loads(line) for line in api.process.log.splitlines()]


def logged(api: Api, line: re.Pattern[str]) -> bool:
    return line.search(api.process.log) is not None


def test_log_of_a_session_has_no_secrets(production: Api) -> None:
    answers, secrets = run_session(production)
    assert [answer.status_code for answer in answers] == STATUSES

    lines = read_log(production, *answers)
    assert all("event" in line for line in lines)
    for answer in answers:
        line = request_line(lines, answer)
        assert line["method"] == answer.request.method
        assert line["path"] == answer.request.url.raw_path.decode().partition("?")[0]
        assert line["status"] == answer.status_code
        assert 0 <= line["seconds"] < 20

    log = production.process.log
    for secret in [*secrets, SECRET_KEY]:
        assert secret not in log
    for word in ("authorization", "bearer", "basic ", "limit="):
        assert word not in log.lower()


def test_traceback_of_unhandled_error_is_only_logged(production: Api, database: str) -> None:
    execute(database, "ALTER TABLE articles RENAME COLUMN title TO headline")
    try:
        failed = production.client.get("/articles")
    finally:
        execute(database, "ALTER TABLE articles RENAME COLUMN headline TO title")
    assert failed.status_code == 500
    assert set(failed.json()) == ERROR_FIELDS
    assert failed.json()["message"] == "Internal server error"
    assert "title" not in failed.text

    lines = read_log(production, failed)
    (trace,) = [line for line in lines if "exception" in line and is_about(line, failed)]
    assert trace["level"] == "error"
    assert "Traceback" in trace["exception"]
    assert "UndefinedColumn" in trace["exception"]
    assert request_line(lines, failed)["status"] == 500


def test_traceback_has_no_personal_data(production: Api) -> None:
    failed = production.register("unexpected", password=PASSWORD)
    assert failed.status_code == 500
    read_log(production, failed)
    for secret in (PASSWORD, "$bcrypt", "unexpected@example.com"):
        assert secret not in production.process.log


def request_line(lines: list[dict[str, Any]], answer: httpx.Response) -> dict[str, Any]:
    (line,) = [line for line in lines if "path" in line and is_about(line, answer)]
    return line


def is_about(line: dict[str, Any], answer: httpx.Response) -> bool:
    return bool(line.get("request_id") == answer.headers["X-Request-ID"])
