"""Requests that nginx rejects itself, client addresses and limits."""

import json
import socket
import ssl
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import httpx
import pytest

from app.core.config import get_settings
from app.main import create_app
from tests.edge.stack import ORIGIN, Stack, register
from tests.origins import ALLOWED, ENTRIES, REFUSED
from tests.processes import HOST, wait_until

ERROR_FIELDS = {"success", "message", "detail", "code", "request_id"}
HOST_LINE = b"Host: localhost\r\n"
POST = b"POST /users HTTP/1.1\r\n" + HOST_LINE + b"Content-Type: application/json\r\n"
GET = b"GET /tags HTTP/1.1\r\n" + HOST_LINE

SMUGGLING = {
    "both lengths": POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two hosts": GET + HOST_LINE + b"\r\n",
    "no host": b"GET /tags HTTP/1.1\r\n\r\n",
    "one length twice": POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "two lengths": POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "a negative length": POST + b"Content-Length: -1\r\n\r\n",
    "a signed length": POST + b"Content-Length: +2\r\n\r\n{}",
    "a folded line": GET + b"X-Note: one\r\n two\r\n\r\n",
    "a space before the colon": GET + b"X-Note : one\r\n\r\n",
    "a bad chunk": POST + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
    "chunked twice": POST + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
    "chunked in HTTP/1.0": (
        b"POST /users HTTP/1.0\r\n" + HOST_LINE + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
    ),
    "NUL in a header": GET + b"X-Note: a\x00b\r\n\r\n",
    "NUL in the path": b"GET /%00 HTTP/1.1\r\n" + HOST_LINE + b"\r\n",
    "a broken escape": b"GET /%zz HTTP/1.1\r\n" + HOST_LINE + b"\r\n",
    "above the root": b"GET /../../etc/passwd HTTP/1.1\r\n" + HOST_LINE + b"\r\n",
    "a broken method": b"GE(T /tags HTTP/1.1\r\n" + HOST_LINE + b"\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
}
TOO_LARGE = {
    "a long address": (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + HOST_LINE + b"\r\n", 414),
    "a long header": (GET + b"X-Note: " + b"a" * 9000 + b"\r\n\r\n", 431),
    "many headers": (GET + b"".join(b"X-%d: 1\r\n" % n for n in range(120)) + b"\r\n", 431),
    "many long headers": (GET + (b"X-Note: " + b"a" * 7000 + b"\r\n") * 6 + b"\r\n", 431),
    "a method of proxies": (b"CONNECT a:80 HTTP/1.1\r\n" + HOST_LINE + b"\r\n", 405),
    "TRACE": (b"TRACE /tags HTTP/1.1\r\n" + HOST_LINE + b"\r\n", 405),
    "another coding": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
    "another version": (b"GET /tags HTTP/9.1\r\n" + HOST_LINE + b"\r\n", 505),
    "a large body": (POST + b"Content-Length: 4194305\r\n\r\n", 413),
}


SLOW = {"header": GET[:-9], "body": POST + b"Content-Length: 10\r\n\r\n{"}
"""Incomplete requests. nginx waits 10 s for a header and 20 s for a body."""


@pytest.fixture(scope="module", autouse=True)
def slow(stack: Stack) -> Iterator[Mapping[str, socket.socket]]:
    """Begin the slow requests. nginx waits for them during other tests."""
    with ExitStack() as opened:
        address = (HOST, stack.port)
        connections = {
            name: opened.enter_context(socket.create_connection(address, timeout=30))
            for name in SLOW
        }
        for name, connection in connections.items():
            connection.sendall(SLOW[name])
        yield connections


def parse_response(answer: bytes) -> httpx.Response:
    """Parse the first response in the received bytes."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    return httpx.Response(int(status.split(" ")[1]), headers=headers, content=body)


def assert_error_format(answer: httpx.Response, status: int) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers.get_list("Content-Type") == ["application/json"]
    assert set(answer.json()) == ERROR_FIELDS
    assert answer.json()["request_id"] == answer.headers["X-Request-ID"]
    assert answer.headers.get_list("Cache-Control") == ["no-store"]
    assert answer.headers.get_list("X-Content-Type-Options") == ["nosniff"]


@pytest.mark.parametrize("sent", SMUGGLING.values(), ids=SMUGGLING)
def test_ambiguous_requests_are_rejected(stack: Stack, sent: bytes) -> None:
    answer, closed = stack.send_raw(sent + b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert_error_format(parse_response(answer), 400)
    assert closed
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(("sent", "status"), TOO_LARGE.values(), ids=TOO_LARGE)
def test_too_large_requests_are_rejected_in_the_error_format(
    stack: Stack, sent: bytes, status: int
) -> None:
    answer, closed = stack.send_raw(sent)
    assert_error_format(parse_response(answer), status)
    assert closed


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("blog.example.com", 200),
        ("BLOG.example.com:8080", 200),
        ("a.example.org", 200),
        ("example.org", 421),
        ("elsewhere.example", 421),
        ("blog.example.com.evil.example", 421),
        ("10.0.0.1", 421),
    ],
)
def test_only_allowed_hosts_are_served(client: httpx.Client, host: str, status: int) -> None:
    answer = client.get("/tags", headers={"Host": host})
    assert answer.status_code == status
    if status == 421:
        assert_error_format(answer, 421)
        assert answer.json()["code"] == "unknown_host"


def test_absolute_request_target_sets_the_host(stack: Stack) -> None:
    sent = b"GET http://evil.example/tags HTTP/1.1\r\n" + HOST_LINE + b"Connection: close\r\n\r\n"
    assert parse_response(stack.send_raw(sent)[0]).status_code == 421


def test_root_describes_the_server(client: httpx.Client) -> None:
    index = client.get("/").json()
    assert index["name"] == "Pressroom"
    for name in ("documentation", "openapi", "health"):
        assert client.get(index[name]).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/health/", "/health/live", "/health/ready"])
def test_probes_accept_any_host(client: httpx.Client, path: str) -> None:
    assert client.get(path, headers={"Host": "10.0.0.1"}).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/metrics",
        "/raw/users",
        "/dev/mailbox",
        "/dev",
        "//dev//mailbox",
        "/x/../dev/mailbox",
        "/%64ev/mailbox",
        "/dev%2Fmailbox",
        "/_edge_error",
        "/_edge_wait",
        "/_edge_preflight",
        "/_media/x/y",
    ],
)
def test_internal_paths_are_not_found(stack: Stack, path: str) -> None:
    line = b"GET " + path.encode() + b" HTTP/1.1\r\n" + HOST_LINE + b"Connection: close\r\n\r\n"
    answer = parse_response(stack.send_raw(line)[0])
    assert_error_format(answer, 404)


@pytest.mark.parametrize("path", ["/metrics", "//metrics", "/%6Detrics", "/status", "/stub_status"])
@pytest.mark.parametrize("host", [HOST, "nginx:8082", "backend:9100", "localhost:9100"])
def test_metrics_are_not_reachable(stack: Stack, path: str, host: str) -> None:
    """Neither by a path nor by the name of the server that has them."""
    for target in (path, f"http://{host}{path}"):
        line = f"GET {target} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        answer = stack.send_raw(line.encode())[0]
        assert parse_response(answer).status_code in {404, 421}
        assert b"pressroom_" not in answer
        assert b"Active connections" not in answer


def test_only_the_port_of_nginx_is_published(stack: Stack) -> None:
    services = json.loads(stack.project.output("config", "--format", "json"))["services"]
    published = {
        (name, port["target"]) for name, each in services.items() for port in each.get("ports", ())
    }
    assert published == {("nginx", 80)}


FORGED = "203.0.113.66"


@pytest.mark.parametrize(
    "forged",
    [
        {"X-Forwarded-For": FORGED},
        {"X-Forwarded-For": f"{FORGED}, 10.0.0.1"},
        {"Forwarded": f"for={FORGED};host=evil.example;proto=https"},
        {"X-Real-IP": FORGED},
        {"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"},
        {"X-Forwarded-Prefix": "/evil", "X-Forwarded-Port": "1"},
    ],
)
def test_forged_client_addresses_are_ignored(
    client: httpx.Client, forged: Mapping[str, str]
) -> None:
    headers = {**register(client), **forged}
    sessions = client.get("/auth/sessions", headers=headers).json()
    assert all(session["ip"] != FORGED for session in sessions)
    listed = client.get("/articles?limit=1", headers=headers)
    assert "evil" not in f"{listed.headers} {listed.text}"


def test_websocket_upgrade_is_passed_on(stack: Stack) -> None:
    """There is no WebSocket yet. The backend receives the upgrade and rejects it."""
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade, close\r\nSec-WebSocket-Version: 13\r\n"
    key = b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    sent = GET.replace(b"/tags", b"/ws") + upgrade + key + b"\r\n"
    answer = parse_response(stack.send_raw(sent)[0])
    assert answer.status_code in {403, 404}
    assert "X-Cache" in answer.headers


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("EDGE_CACHE_MEGABYTES", "x", "must be a whole number"),
        ("TRUSTED_PROXY", "10.0.0.0/8, 172.16.0.0/12", "must be one IP address or network"),
    ],
)
def test_wrong_setting_is_refused_by_its_name(
    stack: Stack, name: str, value: str, message: str
) -> None:
    changed = Stack(stack.port, {**stack.settings, name: value}, stack.files)
    command = ("run", "--rm", "--no-deps", "-T", "nginx-config", "true")
    refused = changed.project.run_captured(*command)
    assert refused.returncode == 1
    assert f"{name} {message}" in refused.stdout + refused.stderr


@pytest.mark.parametrize("name", SLOW)
def test_slow_requests_are_closed(slow: Mapping[str, socket.socket], name: str) -> None:
    with suppress(ConnectionResetError):
        while slow[name].recv(65536):  # fails after 30 s
            pass


@pytest.fixture(scope="module")
def limited(stack: Stack) -> Iterator[Stack]:
    with stack.additional_nginx(
        EDGE_REQUESTS_PER_SECOND="50", EDGE_ATTEMPTS_PER_MINUTE="10", CORS_ORIGINS=ENTRIES
    ) as edge:
        yield edge


class TestLimits:
    """Limits of one address: the defaults, with a lower rate for reads."""

    @staticmethod
    def statuses(edge: Stack, method: str, path: str, times: int) -> list[int]:
        def send(number: int) -> int:
            claimed = {"X-Forwarded-For": f"198.51.100.{number % 250}"}
            return client.request(method, path, headers=claimed).status_code

        with edge.client() as client, ThreadPoolExecutor(20) as pool:
            return list(pool.map(send, range(times)))

    def test_login_attempts_are_limited(self, limited: Stack) -> None:
        """A burst of ten and ten per minute are allowed, regardless of forged addresses."""
        statuses = self.statuses(limited, "POST", "/auth/login", 40)
        assert 10 <= sum(status != 429 for status in statuses) <= 12
        with limited.client() as client:
            refused = client.post("/auth/password/forgot", json={})
            assert_error_format(refused, 429)
            assert refused.headers["Retry-After"] == "6"
            assert client.get("/auth/me").status_code == 401
            assert client.post("/auth/refresh", json={}).status_code != 429

    def test_refreshes_in_many_tabs_are_allowed(self, limited: Stack) -> None:
        assert 429 not in self.statuses(limited, "POST", "/auth/refresh", 20)
        assert 429 in self.statuses(limited, "POST", "/auth/refresh", 150)

    @pytest.mark.parametrize(
        ("path", "size", "is_limited"),
        [
            ("/articles", 100_000, True),
            ("/api/articles", 100_000, True),
            ("/media/%2e%2e/articles", 100_000, True),
            ("/articles", 99_999, False),
            ("/media", 100_000, False),
            ("/articles/import", 100_000, False),
        ],
    )
    def test_large_bodies_are_limited(
        self, limited: Stack, path: str, size: int, *, is_limited: bool
    ) -> None:
        # nginx closes a connection whose body the backend has not read.
        close = {"Connection": "close"}
        with limited.client() as client:
            answers = [client.post(path, content=b"x" * size, headers=close) for _ in range(15)]
        statuses = [answer.status_code for answer in answers]
        assert (429 in statuses) == is_limited, statuses

    def test_uploads_are_limited(self, limited: Stack) -> None:
        statuses = self.statuses(limited, "POST", "/media", 60)
        assert 0 < statuses.count(429) < 60

    @pytest.mark.parametrize("path", ["/articles", "/articles/import"])
    def test_chunked_bodies_are_limited(self, limited: Stack, path: str) -> None:
        def post(number: int) -> int:
            # A connection of its own: nginx closes one whose body the backend has not read.
            url = limited.url + path
            return httpx.post(url, content=iter([b"x"]), timeout=40, verify=plain).status_code

        plain = ssl.create_default_context()  # one for all: loading certificates takes long
        with ThreadPoolExecutor(10) as pool:
            statuses = list(pool.map(post, range(150)))
        assert (429 in statuses) == (path == "/articles")

    def test_connections_are_limited(self, limited: Stack) -> None:
        """500 concurrent requests are allowed, including those that wait for their body."""
        sent = POST.replace(b"/users", b"/articles") + b"Content-Length: 10\r\n\r\n{"
        held = [socket.create_connection((HOST, limited.port)) for _ in range(510)]
        try:
            for connection in held:
                connection.sendall(sent)
            with limited.client() as client:
                wait = [client.get("/health/live").status_code for _ in range(3)]
                assert wait == [200] * 3
                assert client.get("/articles?limit=1").status_code == 429
                for connection in held:
                    connection.close()
                wait_until(
                    lambda: client.get("/articles?limit=1").status_code != 429,
                    "nginx has noticed the closed connections",
                )
        finally:
            for connection in held:
                connection.close()

    def test_reads_are_limited(self, limited: Stack) -> None:
        # The tests before may have used up the burst. At 50/s, 8 s make room for 400 requests.
        threading.Event().wait(8)
        assert 429 not in self.statuses(limited, "GET", "/tags", 300)
        assert any(429 in self.statuses(limited, "GET", "/tags", 250) for _ in range(12))


def cors_headers(response: httpx.Response) -> dict[str, str]:
    headers = response.headers.items()
    return {name: value for name, value in headers if name.startswith("access-control-")}


class TestCors:
    """The responses of nginx itself have the CORS headers of the backend.

    The tests before have used up the limits, which do not apply to preflight requests.
    """

    async def test_headers_are_those_of_the_backend(self, stack: Stack) -> None:
        app = create_app(get_settings().model_copy(update={"cors_origins": [ORIGIN]}))
        preflight = {
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "PATCH",
            "Access-Control-Request-Headers": "authorization,x-unknown",
        }
        answers = []
        for transport, base_url in (
            (httpx.ASGITransport(app), "http://testserver"),
            (httpx.AsyncHTTPTransport(), stack.url),
        ):
            async with httpx.AsyncClient(transport=transport, base_url=base_url) as client:
                allowed = await client.options("/articles/1", headers=preflight)
                # In both cases, the path is not found. nginx itself hides /metrics.
                error = await client.get("/metrics", headers={"Origin": ORIGIN})
            assert error.status_code == 404
            assert "Origin" in error.headers["Vary"]
            answers.append(
                (
                    allowed.status_code,
                    allowed.text,
                    allowed.headers["Vary"],
                    cors_headers(allowed),
                    cors_headers(error),
                )
            )
        assert answers[0] == answers[1]

    def test_decisions_are_those_of_the_backend(self, limited: Stack) -> None:
        """As in tests/http/test_middleware.py."""
        with limited.client() as client:
            for origin in (*ALLOWED, *REFUSED):
                refused = client.get("/metrics", headers={"Origin": origin})
                allowed = refused.headers.get("Access-Control-Allow-Origin")
                assert allowed == (origin if origin in ALLOWED else None), origin
                assert bool(cors_headers(refused)) == (origin in ALLOWED)
                assert refused.headers["Vary"] == "Origin"

    @pytest.mark.parametrize(
        ("method", "path", "size", "host", "status"),
        [
            ("POST", "/auth/login", 0, "localhost", 429),
            ("POST", "/api/articles", 5 * 1024 * 1024, "localhost", 413),
            ("GET", "/tags", 0, "elsewhere.example", 421),
        ],
    )
    def test_page_can_read_the_error(
        self, limited: Stack, method: str, path: str, size: int, host: str, status: int
    ) -> None:
        headers = {"Origin": ORIGIN, "Host": host, "Connection": "close"}
        with limited.client() as client:
            for _ in range(25):
                answer = client.request(method, path, content=b"x" * size, headers=headers)
                if answer.status_code == status:
                    break
            assert answer.status_code == status
            assert answer.headers["Access-Control-Allow-Origin"] == ORIGIN
            assert "Retry-After" in answer.headers["Access-Control-Expose-Headers"]
            asked = {**headers, "Access-Control-Request-Method": method}
            preflight = client.options(path, headers=asked)
            assert preflight.status_code == 200
            assert preflight.headers["Access-Control-Allow-Origin"] == ORIGIN
