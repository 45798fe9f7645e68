"""Promise: production logs one JSON object a line, one line a request; no secret of a client ever
gets there; and an unhandled error leaves its trace under the request's id."""

import json
import signal
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from tests.databases import execute
from tests.e2e.processes import GUNICORN, PRODUCTION, SECRET_KEY, Api, Checkout, serving

pytestmark = pytest.mark.e2e

PASSWORD = "a-password-that-nobody-logs"
WRONG_PASSWORD = "a-wrong-password-that-nobody-logs"
SHORT_PASSWORD = "7chars!"
FORGED_TOKEN = "eyJhbGciOiJub25lIn0.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
QUERY_SECRET = "a-secret-in-a-query"
ERROR_FIELDS = {"success", "message", "detail", "code", "request_id"}


def have_a_session(api: Api) -> tuple[list[httpx.Response], list[str]]:
    """A user's session with all that goes wrong in one; the answers, and what must stay secret."""
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


def test_the_log_of_a_production_session(checkout: Checkout, own_database: str) -> None:
    with serving(checkout, GUNICORN, DATABASE_URL=own_database, **PRODUCTION) as api:
        answers, secrets = have_a_session(api)
        assert [answer.status_code for answer in answers] == STATUSES

        execute(own_database, "ALTER TABLE articles RENAME COLUMN title TO headline")
        failed = api.client.get("/articles")
        assert failed.status_code == 500
        assert set(failed.json()) == ERROR_FIELDS
        assert failed.json()["message"] == "Internal server error"
        assert "headline" not in failed.text
        assert "title" not in failed.text

        api.process.send(signal.SIGTERM)
        assert api.process.wait() == 0
        log = api.process.log

    lines: list[dict[str, Any]] = [json.loads(line) for line in log.splitlines()]
    assert all(isinstance(line, dict) and line["event"] for line in lines)
    for answer in [*answers, failed]:
        (line,) = [line for line in lines if "path" in line and is_about(line, answer)]
        assert line["method"] == answer.request.method
        assert line["path"] == answer.request.url.raw_path.decode().partition("?")[0]
        assert line["status"] == answer.status_code
        assert 0 <= line["seconds"] < 20

    (trace,) = [line for line in lines if "exception" in line]
    assert is_about(trace, failed)
    assert trace["level"] == "error"
    assert "Traceback" in trace["exception"]
    assert "UndefinedColumn" in trace["exception"]

    for secret in [*secrets, SECRET_KEY]:
        assert secret not in log
    for word in ("authorization", "bearer", "basic ", "$bcrypt", "limit="):
        assert word not in log.lower()


def is_about(line: dict[str, Any], answer: httpx.Response) -> bool:
    return bool(line.get("request_id") == answer.headers["X-Request-ID"])
