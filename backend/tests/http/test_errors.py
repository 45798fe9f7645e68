"""Error responses: format, status and code for invalid input and failures."""

import json
import re
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.errors import PressroomError, ServiceUnavailable
from app.db.dependencies import WriteSession
from app.http.errors import STATUSES, headers_of, status_of
from app.models import User
from app.schemas.types import MAX_CONTENT_BYTES
from tests.factories import bearer, create_user

JSON = {"Content-Type": "application/json"}
REGISTRATION = {
    "email": "ada@example.com",
    "username": "ada",
    "name": "Ada",
    "password": "correct horse battery",
}
REGISTRATION_JSON = json.dumps(REGISTRATION)


def assert_error(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/json"
    body: dict[str, Any] = response.json()
    assert set(body) == {"success", "message", "detail", "code", "request_id"}
    assert body["success"] is False
    assert body["message"]
    assert body["code"] == code
    assert body["request_id"] == response.headers["X-Request-ID"]
    return body


def catalogue(kind: type[PressroomError] = PressroomError) -> Iterator[type[PressroomError]]:
    for error in kind.__subclasses__():
        if error.__module__ == PressroomError.__module__:
            yield error
            yield from catalogue(error)


@pytest.mark.parametrize("kind", list(catalogue()))
def test_errors_of_the_catalogue_contain_no_http(kind: type[PressroomError]) -> None:
    error = kind()
    assert str(error) == kind.message
    assert not re.search(r"(?:^|\s)/\w", kind.message)
    assert any(base in STATUSES for base in kind.__mro__)
    assert 300 <= status_of(kind) < 600
    assert all(headers_of(error).values())


async def test_unknown_path_is_404(client: httpx.AsyncClient) -> None:
    assert_error(await client.get("/nowhere"), 404, "not_found")


async def test_wrong_method_lists_allowed_methods(client: httpx.AsyncClient) -> None:
    for path, allowed in (
        ("/articles", "GET, HEAD, POST"),
        ("/articles/1", "DELETE, GET, HEAD, PATCH"),
        ("/users/me/", "GET, HEAD, PATCH"),
        ("/auth/login", "POST"),
        ("/docs", "GET, HEAD"),
        ("/docs/assets/favicon.png", "GET, HEAD"),
    ):
        response = await client.options(path)
        assert_error(response, 405, "method_not_allowed")
        assert response.headers["Allow"] == allowed


@pytest.mark.parametrize("path", ["/articles", "/health/live", "/docs", "/nowhere", "/users/0"])
async def test_head_is_get_without_a_body(client: httpx.AsyncClient, path: str) -> None:
    get, head = await client.get(path), await client.head(path)
    assert head.status_code == get.status_code
    assert head.content == b""
    varying = {"x-request-id", "x-process-time"}
    for name in get.headers.keys() - varying:
        assert head.headers[name] == get.headers[name]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(REGISTRATION_JSON[:-1], id="truncated"),
        pytest.param("", id="empty"),
        pytest.param("nope", id="not json"),
        pytest.param('{"email": NaN}', id="NaN"),
        pytest.param('{"email": Infinity}', id="Infinity"),
        pytest.param("[" * 100_000 + "]" * 100_000, id="deep lists"),
        pytest.param('{"a":' * 50_000 + "1" + "}" * 50_000, id="deep objects"),
        pytest.param("[" * 900 + "]" * 900, id="deep, but parsed"),
        pytest.param('{"email":' + "[" * 900 + "]" * 900 + "}", id="deep value"),
        pytest.param("9" * 10_000, id="huge number"),
        pytest.param(REGISTRATION_JSON[:-1] + ', "name": "Ada King"}', id="duplicate key"),
        pytest.param(
            REGISTRATION_JSON[:-1] + ', "extra": {"a": 1, "a": 2}}', id="duplicate key inside"
        ),
        pytest.param(REGISTRATION_JSON.replace("Ada", r"Ada\u0000"), id="NUL"),
        pytest.param(REGISTRATION_JSON.replace("Ada", r"Ada\ud800"), id="lone surrogate"),
        pytest.param(
            REGISTRATION_JSON[:-1] + r', "\ud800": 1}', id="lone surrogate in an unknown field"
        ),
        pytest.param(b"\xff\xfe" + REGISTRATION_JSON.encode("utf-16-le"), id="UTF-16"),
        pytest.param(REGISTRATION_JSON.encode().replace(b"Ada", b"\xe4da"), id="Latin-1"),
        pytest.param(b"\xef\xbb\xbf" + REGISTRATION_JSON.encode(), id="byte order mark"),
        pytest.param("null", id="null"),
        pytest.param("[]", id="list"),
        pytest.param('"text"', id="text"),
        pytest.param("1e400", id="infinite number"),
    ],
)
async def test_malformed_json_body_is_rejected(
    client: httpx.AsyncClient, session: AsyncSession, body: str | bytes
) -> None:
    response = await client.post("/users", content=body, headers=JSON)
    found = assert_error(response, 422, "validation_error")
    assert isinstance(found["detail"], list)
    assert set(found["detail"][0]) == {"loc", "msg", "type"}
    assert await session.scalar(select(User.id)) is None


@pytest.mark.parametrize(
    "content_type",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/jsonp",
        "application/xml",
        "json",
        "",
    ],
)
async def test_wrong_content_type_is_rejected(client: httpx.AsyncClient, content_type: str) -> None:
    headers = {"Content-Type": content_type}
    response = await client.post("/users", content=REGISTRATION_JSON, headers=headers)
    assert_error(response, 415, "unsupported_media_type")


@pytest.mark.parametrize(
    "content_type",
    ["application/json; charset=utf-8", "Application/JSON", "application/vnd.api+json"],
)
async def test_json_media_type_variants_are_accepted(
    client: httpx.AsyncClient, content_type: str
) -> None:
    headers = {"Content-Type": content_type}
    response = await client.post("/users", content=REGISTRATION_JSON, headers=headers)
    assert response.status_code == 201


async def test_body_with_too_large_content_length_is_rejected(client: httpx.AsyncClient) -> None:
    response = await client.post("/users", content=b"x" * 10_000_000, headers=JSON)
    found = assert_error(response, 413, "content_too_large")
    assert "4194304 bytes" in found["message"]


@pytest.mark.parametrize("path", ["/users", "/auth/login", "/nowhere"])
async def test_too_large_chunked_body_is_rejected(client: httpx.AsyncClient, path: str) -> None:
    sent = 0

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(100):
            sent += 1
            yield b"x" * 100_000

    kind = "application/x-www-form-urlencoded" if path == "/auth/login" else "application/json"
    response = await client.post(path, content=chunks(), headers={"Content-Type": kind})
    if path == "/nowhere":
        assert_error(response, 404, "not_found")
    elif path == "/auth/login" and response.status_code == 400:
        assert_error(response, 400, "invalid_request")  # Starlette's limit for a form field
    else:
        assert_error(response, 413, "content_too_large")


async def test_body_of_maximum_size_is_accepted(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    user = await create_user(session)
    article = {"title": "Long", "content": "é" * (MAX_CONTENT_BYTES // 2)}
    body = json.dumps(article)  # six bytes each, escaped
    response = await client.post("/articles", content=body, headers=JSON | bearer(user))
    assert response.status_code == 201


@pytest.mark.parametrize("length", ["many", "-1", "1e3", "0x10", "²"])
async def test_malformed_content_length_is_rejected(client: httpx.AsyncClient, length: str) -> None:
    headers = [(b"Content-Type", b"application/json"), (b"Content-Length", length.encode())]
    response = await client.post("/users", content=b"{}", headers=headers)
    assert_error(response, 400, "invalid_request")


async def test_many_unknown_fields_get_a_short_error(
    client: httpx.AsyncClient,
) -> None:
    for count in (101, 250_000):
        fields = {f"field{number}": 1 for number in range(count)}
        response = await client.post("/users", json=fields)
        found = assert_error(response, 422, "validation_error")
        assert "more than 100 members" in found["message"]
        assert len(response.content) < 1000
    long = await client.post("/users", json={"a" * 1_000_000: 1})
    assert len(assert_error(long, 422, "validation_error")["detail"]) == 5
    assert len(long.content) < 2000
    few = await client.post("/users", json={f"field{number}": 1 for number in range(100)})
    assert len(assert_error(few, 422, "validation_error")["detail"]) == 20


async def test_nul_in_path_or_query_is_rejected(client: httpx.AsyncClient) -> None:
    assert_error(await client.get("/users/%00"), 422, "validation_error")
    assert_error(await client.get("/articles?skip=%00"), 422, "validation_error")
    assert_error(await client.get("/nowhere%00"), 404, "not_found")


@pytest.mark.parametrize("boundary", ["", "; boundary=x", "; boundary=" + "x" * 1000])
async def test_malformed_multipart_is_rejected(client: httpx.AsyncClient, boundary: str) -> None:
    response = await client.post(
        "/auth/login",
        content=b"--x\r\nContent-Disposition: form-data\r\n\r\nbroken",
        headers={"Content-Type": f"multipart/form-data{boundary}"},
    )
    assert 400 <= response.status_code < 500
    assert_error(response, response.status_code, response.json()["code"])


async def test_unhandled_exception_is_logged_but_not_revealed(
    app: FastAPI, client: httpx.AsyncClient, caplog: pytest.LogCaptureFixture
) -> None:
    async def explode() -> None:
        raise RuntimeError("the secret reason")

    with temporary_route(app, "/explode", explode):
        response = await client.get("/explode", headers={"Origin": "http://localhost:3000"})
    body = assert_error(response, 500, "internal_error")
    assert body["message"] == "Internal server error"
    assert "secret" not in response.text
    assert response.headers["Access-Control-Allow-Origin"] == "http://localhost:3000"
    logged = [record for record in caplog.records if record.exc_info]
    assert "the secret reason" in str(logged[0].exc_info)
    event: Any = logged[0].msg  # structlog passes a dictionary
    assert event["request_id"] == body["request_id"]


async def test_failure_after_the_start_of_the_response_closes_the_connection(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    from starlette.responses import StreamingResponse

    async def half() -> AsyncIterator[bytes]:
        yield b"half"
        raise RuntimeError("too late for a status")

    async def stream() -> StreamingResponse:
        return StreamingResponse(half())

    with temporary_route(app, "/stream", stream):
        response = await client.get("/stream")
    assert response.status_code == 200
    assert response.content == b"half"


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (PoolTimeout("no connection"), 503, "service_unavailable"),
        (ServiceUnavailable(), 503, "service_unavailable"),
        (OSError("disk full"), 500, "internal_error"),
    ],
)
async def test_exception_in_a_handler_is_translated(
    app: FastAPI, client: httpx.AsyncClient, failure: Exception, status: int, code: str
) -> None:
    async def fail(session: WriteSession) -> None:
        raise failure

    with temporary_route(app, "/fail", fail):
        response = await client.get("/fail")
    assert_error(response, status, code)
    if status == 503:
        assert response.headers["Retry-After"] == "5"


@pytest.mark.parametrize(
    ("sqlstate", "status"),
    [
        ("40001", 503),
        ("40P01", 503),
        ("53300", 503),
        ("57014", 503),
        ("57P01", 503),
        ("25006", 503),
        ("55P03", 503),
        ("22021", 422),
        ("42P01", 500),
    ],
)
async def test_sqlstate_is_translated_to_a_status(
    app: FastAPI, client: httpx.AsyncClient, sqlstate: str, status: int
) -> None:
    async def fail(session: WriteSession) -> None:
        await session.execute(
            text(f"DO $$ BEGIN RAISE EXCEPTION 'no' USING ERRCODE = '{sqlstate}'; END $$")
        )

    with temporary_route(app, "/fail", fail):
        response = await client.get("/fail")
    codes = {503: "service_unavailable", 422: "validation_error", 500: "internal_error"}
    assert_error(response, status, codes[status])


async def test_unexpected_constraint_violation_is_500(
    app: FastAPI, client: httpx.AsyncClient
) -> None:
    async def fail(session: WriteSession) -> None:
        await session.execute(
            text("INSERT INTO articles (title, content, author_id) VALUES ('', '0123456789', 1)")
        )

    with temporary_route(app, "/fail", fail):
        assert_error(await client.get("/fail"), 500, "internal_error")


async def test_constraint_errors_reraises_unknown_constraints(session: AsyncSession) -> None:
    from app.db.session import constraint_errors

    user = await create_user(session)
    with pytest.raises(IntegrityError), constraint_errors({"another": ServiceUnavailable}):
        await create_user(session, username=user.username)
    await session.rollback()


class temporary_route:  # noqa: N801 - a context manager, used like a function
    """Adds a route to the application for the duration of a block."""

    def __init__(self, app: FastAPI, path: str, endpoint: Any) -> None:
        self.app, self.path, self.endpoint = app, path, endpoint

    def __enter__(self) -> None:
        self.before = list(self.app.router.routes)
        self.app.get(self.path)(self.endpoint)

    def __exit__(self, *exception: object) -> None:
        self.app.router.routes[:] = self.before
