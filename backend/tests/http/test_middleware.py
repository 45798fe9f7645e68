"""Middleware: request ids, log lines, security headers, hosts, CORS and body limits."""

import asyncio
import json
import logging
import os
import random
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest
from fastapi.responses import StreamingResponse
from sqlalchemy import literal, select
from sqlalchemy.ext.asyncio import AsyncSession
from starlette.types import Message

from app.core.config import PROJECT_DIR, Environment, Settings
from app.core.logging import configure_logging, get_logger, log_request
from app.db.session import Database
from app.http.middleware import SECURITY_HEADERS, RefusalLog, RequestRules
from app.main import create_app
from tests.factories import PASSWORD, bearer, create_user
from tests.origins import ALLOWED, ENTRIES, REFUSED
from tests.processes import DEADLINE, FORKS

Clients = Callable[..., AbstractAsyncContextManager[httpx.AsyncClient]]


@pytest.fixture
def client_of(settings: Settings, database: Database) -> Clients:
    """Return a factory of clients for applications with changed settings."""

    @asynccontextmanager
    async def client_of(**changes: object) -> AsyncIterator[httpx.AsyncClient]:
        app = create_app(settings.model_copy(update=changes))
        app.state.database = database
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
            yield client

    return client_of


class TestRequestId:
    async def test_request_id_is_generated(self, client: httpx.AsyncClient) -> None:
        first, second = await client.get("/health/live"), await client.get("/health/live")
        assert len(first.headers["X-Request-ID"]) == 32
        assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]

    @pytest.mark.parametrize("offered", ["01J8XW3QK5V7", "a.b_c-d9", "x" * 128])
    async def test_well_formed_request_id_is_reused(
        self, client: httpx.AsyncClient, offered: str
    ) -> None:
        response = await client.get("/nowhere", headers={"X-Request-ID": offered})
        assert response.headers["X-Request-ID"] == offered
        assert response.json()["request_id"] == offered

    @pytest.mark.parametrize(
        "offered",
        ["", "short", "x" * 129, "has space here", "new\nline-here", 'quo"te-here', "é" * 9],
    )
    async def test_malformed_request_id_is_replaced(
        self, client: httpx.AsyncClient, offered: str
    ) -> None:
        headers = [(b"X-Request-ID", offered.encode())]
        response = await client.get("/health/live", headers=headers)
        assert len(response.headers["X-Request-ID"]) == 32


async def test_process_time_is_in_seconds(client: httpx.AsyncClient) -> None:
    response = await client.get("/health/live")
    assert 0 <= float(response.headers["X-Process-Time"]) < 5


class TestLogLine:
    async def test_line_has_method_path_status_and_duration(
        self, client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str], settings: Settings
    ) -> None:
        configure_logging(settings)  # log to the captured output
        response = await client.get("/articles/999")
        line = _line(capsys, "GET /articles/999")
        seconds = line.partition("[")[2]
        assert "GET /articles/999 -> 404 [0." in line
        assert seconds
        assert f"request_id={response.headers['X-Request-ID']}" in line

    async def test_line_is_a_json_object_in_production(
        self, client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str], settings: Settings
    ) -> None:
        production = settings.model_copy(update={"environment": Environment.PRODUCTION})
        configure_logging(production)
        response = await client.get("/articles")
        fields = json.loads(_line(capsys, "GET /articles"))
        assert fields["method"] == "GET"
        assert fields["path"] == "/articles"
        assert fields["status"] == 200
        assert fields["seconds"] >= 0
        assert fields["level"] == "info"
        assert fields["request_id"] == response.headers["X-Request-ID"]
        assert fields["timestamp"].endswith("Z")

    async def test_closing_connections_is_not_logged(
        self, capsys: pytest.CaptureFixture[str], settings: Settings
    ) -> None:
        configure_logging(settings)
        await Database.from_settings(settings).dispose()
        assert capsys.readouterr().out == ""

    @pytest.mark.parametrize("environment", [Environment.TEST, Environment.PRODUCTION])
    def test_successful_requests_are_sampled(
        self, capsys: pytest.CaptureFixture[str], settings: Settings, environment: Environment
    ) -> None:
        sampled = {"access_log_percent": 10, "environment": environment}
        configure_logging(settings.model_copy(update=sampled))
        random.seed(1)

        def lines(number: int, **request: Any) -> int:
            for _ in range(number):
                log_request(
                    **{"method": "GET", "path": "/", "status": 200, "seconds": 0.1, **request}
                )
            return len(capsys.readouterr().out.splitlines())

        assert 60 < lines(1000) < 140
        assert 60 < lines(1000, status=304) < 140
        assert lines(20, status=404) == lines(20, status=500) == lines(20, seconds=1.5) == 20
        configure_logging(settings.model_copy(update={"environment": environment}))
        assert lines(20) == 20

    async def test_log_contains_no_secrets(
        self,
        client: httpx.AsyncClient,
        session: AsyncSession,
        capsys: pytest.CaptureFixture[str],
        settings: Settings,
    ) -> None:
        configure_logging(settings)
        logging.getLogger("httpx").setLevel(logging.WARNING)  # the test's own client
        user = await create_user(session, username="ada")
        headers = bearer(user)
        form = {"username": "ada", "password": PASSWORD}
        token = (await client.post("/auth/login", data=form)).json()["access_token"]
        await client.get("/auth/me", headers=headers)
        await client.get("/auth/me", headers={"Authorization": "Bearer not-a-token-at-all"})
        await client.get("/articles", params={"access_token": token})
        await client.post("/users", json={"password": PASSWORD})
        logged = capsys.readouterr().out
        assert "POST /auth/login -> 200" in logged
        for secret in (PASSWORD, token, headers["Authorization"], "not-a-token", "access_token="):
            assert secret not in logged

    @pytest.mark.parametrize("path", ["/x", "/x/previews/"])
    async def test_line_break_in_path_cannot_forge_a_line(
        self,
        client: httpx.AsyncClient,
        capsys: pytest.CaptureFixture[str],
        settings: Settings,
        path: str,
    ) -> None:
        configure_logging(settings)
        await client.get(f"{path}%0A2026-01-01 [info] GET /admin -> 200")
        line = _line(capsys, "/admin")
        assert f"GET {path}%0A2026-01-01" in line

    @pytest.mark.parametrize(
        ("path", "logged"),
        [
            ("/previews/prv_SECRET-token_1", "/previews/*** "),
            ("/previews/prv_SECRET-token_1/", "/previews/*** "),
            ("/studio/previews/%70rv_SECRET-token_1", "/studio/previews/*** "),
            ("/%70reviews/%70rv_SECRET-token_1", "/previews/*** "),
            ("/previews/SECRET", "/previews/*** "),
            ("/preview/prv_SECRET-token_1/x", "/preview/prv_***/x "),
        ],
    )
    async def test_log_contains_no_preview_tokens(
        self,
        client: httpx.AsyncClient,
        capsys: pytest.CaptureFixture[str],
        settings: Settings,
        path: str,
        logged: str,
    ) -> None:
        configure_logging(settings)
        logging.getLogger("httpx").setLevel(logging.WARNING)  # the test's own client
        await client.get(path)
        output = capsys.readouterr().out
        assert f"GET {logged}" in output
        assert "SECRET" not in output

    async def test_audit_line_is_logged_after_the_response(
        self, client: httpx.AsyncClient, capsys: pytest.CaptureFixture[str], settings: Settings
    ) -> None:
        configure_logging(settings)
        body = {"email": "a@example.com", "username": "ada", "name": "A", "password": PASSWORD}
        user_id = (await client.post("/users", json=body)).json()["id"]
        line = _line(capsys, "[AUDIT]")
        assert f"[AUDIT] CREATE_USER | User {user_id} created" in line

    def test_records_of_libraries_have_the_same_format(
        self, capsys: pytest.CaptureFixture[str], settings: Settings
    ) -> None:
        configure_logging(settings.model_copy(update={"environment": Environment.PRODUCTION}))
        logging.getLogger("uvicorn.error").warning("watch %s", "out")
        get_logger("app.test").info("application", number=1)
        uvicorn_record, app_record = map(json.loads, capsys.readouterr().out.splitlines())
        assert uvicorn_record["event"] == "watch out"
        assert uvicorn_record["logger"] == "uvicorn.error"
        assert app_record["number"] == 1


def _line(capsys: pytest.CaptureFixture[str], part: str) -> str:
    lines = [line for line in capsys.readouterr().out.splitlines() if part in line]
    return next(line for line in lines if "HTTP Request" not in line)


class TestSecurityHeaders:
    @pytest.mark.parametrize("path", ["/health/live", "/nowhere", "/users/0", "/docs"])
    async def test_every_response_has_each_header_once(
        self, client: httpx.AsyncClient, path: str
    ) -> None:
        response = await client.get(path)
        for name in SECURITY_HEADERS:
            assert len(response.headers.get_list(name)) == 1

    async def test_headers_can_be_disabled_behind_nginx(self, client_of: Clients) -> None:
        async with client_of(security_headers=False) as client:
            response = await client.get("/health/live")
            assert "X-Frame-Options" not in response.headers
            documentation = await client.get("/docs")
            assert "script-src 'self'" in documentation.headers["Content-Security-Policy"]


class TestAllowedHosts:
    @pytest.mark.parametrize(
        "host", ["blog.example.com", "BLOG.example.com:8080", "a.example.org", "b.a.example.org"]
    )
    async def test_allowed_host_is_served(self, client_of: Clients, host: str) -> None:
        async with client_of(allowed_hosts=["blog.example.com", "*.example.org"]) as client:
            assert (await client.get("/articles", headers={"Host": host})).status_code == 200

    @pytest.mark.parametrize(
        "host",
        [
            "evil.com",
            "example.org",
            ".example.org",
            "x/.example.org",
            "a@b.example.org",
            "blog.example.com.evil.com",
            "",
            "xexample.org",
        ],
    )
    async def test_other_host_is_rejected(self, client_of: Clients, host: str) -> None:
        async with client_of(allowed_hosts=["blog.example.com", "*.example.org"]) as client:
            response = await client.get("/articles", headers={"Host": host})
            assert response.status_code == 400
            assert response.json()["code"] == "unknown_host"
            assert (await client.get("/health/live", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("hosts", [[], ["testserver", "evil.com"]])
async def test_request_without_exactly_one_host_is_rejected(
    client: httpx.AsyncClient, hosts: list[str]
) -> None:
    request = client.build_request("GET", "/articles")
    request.headers = httpx.Headers([("Host", host) for host in hosts])
    response = await client.send(request)
    assert response.status_code == 400
    assert response.json()["code"] == "invalid_request"


def parse_setting(origins: str) -> list[str]:
    """Return the value of the setting CORS_ORIGINS for a text in the environment."""
    return Settings(_env_file=None, cors_origins=origins).cors_origins  # type: ignore[arg-type]  # text


class TestCors:
    ORIGIN = "http://localhost:3000"

    async def test_allowed_origin_may_read_with_credentials(
        self, client: httpx.AsyncClient
    ) -> None:
        response = await client.get("/articles", headers={"Origin": self.ORIGIN})
        assert response.headers["Access-Control-Allow-Origin"] == self.ORIGIN
        assert response.headers["Access-Control-Allow-Credentials"] == "true"
        assert "X-Request-ID" in response.headers["Access-Control-Expose-Headers"]
        assert "Origin" in response.headers["Vary"]

    async def test_unknown_origin_gets_no_cors_headers(self, client: httpx.AsyncClient) -> None:
        for origin in ("http://evil.com", "null", "http://localhost:3000.evil.com"):
            response = await client.get("/articles", headers={"Origin": origin})
            assert "Access-Control-Allow-Origin" not in response.headers

    async def test_errors_have_cors_headers(self, client: httpx.AsyncClient) -> None:
        response = await client.get("/nowhere", headers={"Origin": self.ORIGIN})
        assert response.headers["Access-Control-Allow-Origin"] == self.ORIGIN

    async def test_preflight_of_allowed_origin_succeeds(self, client: httpx.AsyncClient) -> None:
        preflight_headers = {
            "Origin": self.ORIGIN,
            "Access-Control-Request-Method": "PATCH",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        response = await client.options("/articles/1", headers=preflight_headers)
        assert response.status_code == 200
        assert "PATCH" in response.headers["Access-Control-Allow-Methods"]

    async def test_rejected_preflight_has_the_native_error_format(
        self, client: httpx.AsyncClient
    ) -> None:
        preflight_headers = {"Origin": "http://evil.com", "Access-Control-Request-Method": "PATCH"}
        response = await client.options("/articles/1", headers=preflight_headers)
        assert response.status_code == 400
        assert response.json()["success"] is False
        assert "origin" in response.json()["message"]
        assert "Access-Control-Allow-Origin" not in response.headers

    async def test_wildcard_origin_excludes_credentials(self, client_of: Clients) -> None:
        async with client_of(cors_origins=["*"]) as client:
            response = await client.get("/articles", headers={"Origin": "http://any.com"})
            assert response.headers["Access-Control-Allow-Origin"] == "*"
            assert "Access-Control-Allow-Credentials" not in response.headers

    async def test_same_decisions_as_nginx(self, client_of: Clients) -> None:
        async with client_of(cors_origins=parse_setting(ENTRIES)) as client:
            for origin in (*ALLOWED, *REFUSED):
                response = await client.get("/nowhere", headers={"Origin": origin})
                allowed = response.headers.get("Access-Control-Allow-Origin")
                assert allowed == (origin if origin in ALLOWED else None)
                preflight = await client.options(
                    "/nowhere", headers={"Origin": origin, "Access-Control-Request-Method": "GET"}
                )
                assert preflight.headers.get("Access-Control-Allow-Origin") == allowed
                assert preflight.status_code == (200 if origin in ALLOWED else 400)

    async def test_preflight_lists_what_is_allowed(self, client: httpx.AsyncClient) -> None:
        """The browser then names the header or method that is not."""
        response = await client.options(
            "/articles/1",
            headers={
                "Origin": self.ORIGIN,
                "Access-Control-Request-Method": "TRACE",
                "Access-Control-Request-Headers": "x-unknown",
            },
        )
        assert response.status_code == 200
        assert "TRACE" not in response.headers["Access-Control-Allow-Methods"]
        assert "x-unknown" not in response.headers["Access-Control-Allow-Headers"].lower()


@pytest.mark.checkout
async def test_nginx_has_the_same_cors_headers(client: httpx.AsyncClient) -> None:
    """Compare the lists. tests/edge/ compares the responses."""
    nginx = PROJECT_DIR / "nginx"
    names = ("snippets/preflight.conf", "templates/edge.conf.template")
    configuration = "".join((nginx / name).read_text() for name in names)
    origin = {"Origin": TestCors.ORIGIN}
    preflight = await client.options(
        "/nowhere", headers={**origin, "Access-Control-Request-Method": "GET"}
    )
    response = await client.get("/nowhere", headers=origin)
    for name in ("Allow-Methods", "Allow-Headers"):
        assert f'"{preflight.headers[f"Access-Control-{name}"]}"' in configuration
    assert f'"{response.headers["Access-Control-Expose-Headers"]}"' in configuration


def remember_in_a_fork() -> None:
    """Exit with 0 if an origin that a forked process has logged is known in this one."""
    log, origin = RefusalLog([]), "https://evil.example"
    child = os.fork()
    if child == 0:
        os._exit(0 if log._is_new(origin) else 1)
    _, status = os.waitpid(child, 0)
    sys.exit(status or log._is_new(origin))


class TestRefusedOrigins:
    """The log explains each refused origin once."""

    @staticmethod
    def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
        return [line for line in capsys.readouterr().out.splitlines() if "of the origin" in line]

    async def test_line_has_the_setting_that_allows_the_origin(
        self, client_of: Clients, capsys: pytest.CaptureFixture[str]
    ) -> None:
        origins = ["https://www.example.com", "http://localhost:*"]
        origin = "http://blog.test:4321"
        async with client_of(cors_origins=origins) as client:
            preflight = {"Origin": origin, "Access-Control-Request-Method": "PUT"}
            await client.options("/articles/1", headers=preflight)
            for _ in range(3):
                await client.get("/articles", headers={"Origin": origin})
            (line,) = self.lines(capsys)
            setting = line.split("CORS_ORIGINS=")[1].split()[0]
            assert setting == "https://www.example.com,http://localhost:*,http://blog.test:4321"
            for allowed in ("https://www.example.com", "http://localhost:3000"):
                await client.get("/articles", headers={"Origin": allowed})
            # The page of the documentation, on the API's own host.
            await client.get("/articles", headers={"Origin": "http://testserver"})
            assert self.lines(capsys) == []
        changed = parse_setting(setting)
        async with client_of(cors_origins=changed) as client:
            response = await client.get("/articles", headers={"Origin": origin})
            assert response.headers["Access-Control-Allow-Origin"] == origin

    async def test_page_in_a_file_is_explained(
        self, client_of: Clients, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async with client_of() as client:
            await client.get("/articles", headers={"Origin": "null"})
        (line,) = self.lines(capsys)
        assert "serve the page over HTTP" in line

    def test_workers_share_the_memory(self) -> None:
        process = FORKS.Process(target=remember_in_a_fork)
        process.start()
        process.join(DEADLINE)
        assert process.exitcode == 0

    async def test_number_and_form_of_logged_origins_are_limited(
        self, client_of: Clients, capsys: pytest.CaptureFixture[str]
    ) -> None:
        async with client_of(cors_origins=[]) as client:
            for origin in (
                f"https://{'a' * 300}.example",
                "https://evil.example\\n2026 forged",
                "app://evil",
                "https://evil.example ",
            ):
                await client.get("/nowhere", headers={"Origin": origin})
            assert self.lines(capsys) == []
            for number in range(2 * RefusalLog.CAPACITY):
                await client.get("/nowhere", headers={"Origin": f"https://{number}.example"})
            assert len(self.lines(capsys)) == RefusalLog.CAPACITY
            for number in range(2 * RefusalLog.CAPACITY):
                await client.get("/nowhere", headers={"Origin": f"https://{number}.example"})
            assert self.lines(capsys) == []


class TestBodyLimit:
    """A body that is too large is rejected before authentication."""

    @pytest.mark.parametrize("chunked", [False, True])
    @pytest.mark.parametrize(
        ("method", "path", "limit"),
        [
            ("POST", "/articles", 1000),
            ("PATCH", "/media", 1000),
            ("POST", "/media/1", 1000),
            ("POST", "/media", 5000 + 1024 * 1024),
            ("POST", "/media/", 5000 + 1024 * 1024),
            ("POST", "/articles/import", 9000),
        ],
    )
    async def test_limit_depends_on_method_and_path(
        self,
        client_of: Clients,
        method: str,
        path: str,
        limit: int,
        chunked: bool,
    ) -> None:
        async def pieces(size: int) -> AsyncIterator[bytes]:
            for start in range(0, size, 65536):
                yield b" " * min(65536, size - start)

        statuses = []
        async with client_of(
            max_body_bytes=1000, media_max_bytes=5000, max_import_bytes=9000
        ) as client:
            for size in (limit, limit + 1):
                content = pieces(size) if chunked else b" " * size
                response = await client.request(
                    method, path, content=content, headers={"Content-Type": "application/json"}
                )
                statuses.append(response.status_code)
        assert statuses[0] != 413
        if not chunked:  # a chunked body is counted only if the handler reads it
            assert statuses[1] == 413
            assert f"larger than {limit} bytes" in response.json()["message"]
            assert response.headers["Cache-Control"] == "no-store"

    async def test_large_body_ends_a_response_that_has_started(self) -> None:
        async def parts() -> AsyncIterator[bytes]:
            yield b"first"
            await asyncio.Event().wait()

        async def receive() -> Message:
            await has_part.wait()
            return {"type": "http.request", "body": b"x" * 11, "more_body": True}

        async def send(message: Message) -> None:
            sent.append(message.get("body"))
            if message.get("body"):
                has_part.set()

        has_part, sent = asyncio.Event(), list[bytes | None]()
        headers = [(b"transfer-encoding", b"chunked")]
        scope = {"type": "http", "method": "GET", "path": "/", "query_string": b""}
        async with asyncio.timeout(DEADLINE):
            await RequestRules(StreamingResponse(parts()), max_bytes=10)(
                {**scope, "headers": headers}, receive, send
            )
        assert sent == [None, b"first"]


@pytest.mark.parametrize("path", ["/articles", "/users", "/health/live", "/openapi.json", "/docs"])
async def test_trailing_slash_is_ignored(client: httpx.AsyncClient, path: str) -> None:
    without, with_slash = await client.get(path), await client.get(path + "/")
    assert without.status_code == with_slash.status_code == 200
    assert without.content == with_slash.content


@pytest.mark.parametrize("path", ["/articles%0A", "/articles%0A/", "/health/live%0A"])
async def test_path_with_trailing_line_break_is_404(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert response.status_code == 404
    assert response.json()["code"] == "not_found"


async def test_post_with_trailing_slash_keeps_its_body(client: httpx.AsyncClient) -> None:
    body = {"email": "a@example.com", "username": "ada", "name": "A", "password": PASSWORD}
    assert (await client.post("/users/", json=body)).status_code == 201


async def test_raw_sql_reference_is_mounted_only_if_enabled(
    client_of: Clients,
) -> None:
    async with client_of(raw_sql_reference=False) as client:
        assert (await client.get("/raw/users")).status_code == 404
    async with client_of(raw_sql_reference=True) as client:
        assert (await client.get("/raw/users")).status_code == 200


async def test_lifespan_opens_and_closes_the_database(
    settings: Settings, own_database: str
) -> None:
    """Its jobs record their runs, so it has a database of its own."""
    app = create_app(settings.model_copy(update={"database_url": own_database}))
    async with app.router.lifespan_context(app):
        assert await app.state.database.reader.scalar(select(literal(1))) == 1
