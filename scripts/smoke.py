"""Smoke test of a running Pressroom over HTTP: `smoke.py http://localhost:8080`.

Registers, logs in, publishes and lists an article, and refreshes and ends a session. With --edge,
also checks the behaviour of nginx. Stops at the first failure. Requires no packages.
"""

from __future__ import annotations

import argparse
import gzip
import http.client
import ipaddress
import json
import secrets
import sys
import zlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlencode, urlsplit

TIMEOUT = 40
"""Longer than the 15 s for which nginx holds a request while there is no backend."""
ERROR_FIELDS = {"success", "message", "detail", "code", "request_id"}
SECURITY_HEADERS = {
    "X-Content-Type-Options": ["nosniff"],
    "X-Frame-Options": ["DENY"],
    "Referrer-Policy": ["no-referrer"],
    "Content-Security-Policy": ["default-src 'none'; frame-ancestors 'none'"],
}
FORGED_ADDRESS = "203.0.113.66"
"""A documentation address (RFC 5737), which no client uses."""
LIMITED_PATHS = (
    "/auth/login/",
    "//auth//login",
    "/./auth/login",
    "/auth/../auth/login",
    "/%61uth/login",
    "/auth%2Flogin",
    "/users",
    "/users/",
    "/%75sers",
    "/users%0A/",
    "/users/me/password",
)
"""Spellings of paths that nginx limits: login, registration and password changes."""
UNLIMITED = (
    ("OPTIONS", "/auth/login"),
    ("HEAD", "/auth/me"),
    ("GET", "/auth/me"),
    ("POST", "/articles"),
    ("POST", "/users/1/addresses"),
)


class SmokeError(Exception):
    """A check failed."""


@dataclass
class Response:
    """A response. `body` is decompressed, and parsed if it is JSON."""

    status: int
    headers: http.client.HTTPMessage
    body: Any


class Client:
    """An HTTP client for one server, with a new connection per request and an access token."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise SmokeError(f"not an http:// URL: {url}")
        self.host, self.port = parts.hostname, parts.port or 80
        self.token: str | None = None

    def send(
        self,
        method: str,
        path: str,
        *,
        json_body: object = None,
        form: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        raw: bytes | None = None,
    ) -> Response:
        """Send a request, authenticated if there is a token."""
        sent = dict(headers or {})
        if self.token:
            sent.setdefault("Authorization", f"Bearer {self.token}")
        if json_body is not None:
            raw = json.dumps(json_body).encode()
            sent["Content-Type"] = "application/json"
        elif form is not None:
            raw = urlencode(form).encode()
            sent["Content-Type"] = "application/x-www-form-urlencoded"
        connection = http.client.HTTPConnection(self.host, self.port, timeout=TIMEOUT)
        try:
            connection.request(method, path, body=raw, headers=sent)
            response = connection.getresponse()
            content = response.read()
            if response.headers["Content-Encoding"] == "gzip":
                content = gzip.decompress(content)
            text = content.decode(errors="replace")  # images are not text
            is_json = "json" in response.headers.get_content_type()
            body = json.loads(text) if is_json and text else text
            return Response(response.status, response.headers, body)
        finally:
            connection.close()

    def upload(self, path: str, content: bytes) -> Response:
        """Send a file as multipart/form-data."""
        head = b'--smoke\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        headers = {"Content-Type": "multipart/form-data; boundary=smoke"}
        return self.send("POST", path, raw=head + content + b"\r\n--smoke--\r\n", headers=headers)


def require(what: str, condition: bool, found: object) -> None:
    """Print that a check passed, or raise SmokeError with the found value."""
    if not condition:
        raise SmokeError(f"{what}: got {found}")
    print(f"  ok  {what}")


def expect(what: str, condition: bool, response: Response) -> None:
    """Print that a check of a response passed, or raise SmokeError with the response."""
    shown = response.body if isinstance(response.body, str) else json.dumps(response.body)
    require(what, condition, f"{response.status} {shown[:500]}\n{response.headers}")


def check_publishing(client: Client) -> str:
    """Register, publish an article, and check a session. Return the session's client address."""
    name = f"smoke{secrets.token_hex(5)}"
    password = secrets.token_urlsafe(18)
    response = client.send("GET", "/health/ready")
    expect("ready", response.status == 200, response)
    user = {
        "email": f"{name}@example.com",
        "username": name,
        "name": "Smoke Test",
        "password": password,
    }
    response = client.send("POST", "/users", json_body=user)
    shows_password = "password" in json.dumps(response.body)
    expect("register", response.status == 201 and not shows_password, response)
    response = client.send("POST", "/auth/login", form={"username": name, "password": password})
    is_bearer = response.body["token_type"].lower() == "bearer"
    expect("log in", response.status == 200 and is_bearer, response)
    client.token = response.body["access_token"]
    response = client.send("GET", "/auth/me")
    expect(
        "get the current user",
        response.status == 200 and response.body["username"] == name,
        response,
    )
    draft = {"title": f"An article by {name}", "content": "The content of a test article."}
    response = client.send("POST", "/articles", json_body=draft)
    is_draft = response.body["published"] is False
    expect("create a draft", response.status == 201 and is_draft, response)
    path = f"/articles/{response.body['id']}"

    reader = Client(f"http://{client.host}:{client.port}")
    response = reader.send("GET", path)
    expect("a reader does not see the draft", response.status == 404, response)
    expect("errors have the error format", set(response.body) == ERROR_FIELDS, response)
    response = client.send("PATCH", path, json_body={"published": True})
    expect("publish", response.status == 200 and response.body["published"] is True, response)
    response = reader.send("GET", "/articles?limit=100")
    titles = [article["title"] for article in response.body]
    expect(
        "a reader finds the article in the list",
        response.status == 200 and draft["title"] in titles,
        response,
    )
    return check_session(reader, {"username": name, "password": password})


def check_media(client: Client) -> None:
    """Upload, read and delete an image, whose file nginx sends."""
    response = client.upload("/media", tiny_png())
    expect("upload an image", response.status == 201 and response.body["width"] == 2, response)
    path, media_path = urlsplit(response.body["url"]).path, f"/media/{response.body['id']}"
    reader = Client(f"http://{client.host}:{client.port}")
    response = reader.send("GET", path)
    policy = response.headers.get_all("Content-Security-Policy")
    expect(
        "the file is public, cacheable and sandboxed",
        response.status == 200
        and response.headers["Content-Type"] == "image/png"
        and "immutable" in response.headers["Cache-Control"]
        and policy == ["default-src 'none'; sandbox"]
        and response.headers["X-Content-Type-Options"] == "nosniff"
        and response.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
        and response.headers["X-Accel-Redirect"] is None,
        response,
    )
    known = {"If-None-Match": response.headers["ETag"]}
    response = reader.send("GET", path, headers=known)
    expect("a revalidated file is not sent again", response.status == 304, response)
    response = reader.send("GET", path, headers={"Range": "bytes=0-3"})
    length = response.headers["Content-Length"]
    expect("a range of the file", response.status == 206 and length == "4", response)
    for wrong in (f"/_media/{path.removeprefix('/media/')}", "/media/0/1.png", f"{path}/../x.png"):
        response = reader.send("GET", wrong)
        expect(
            f"other files are not sent: {wrong}",
            response.status in {401, 404} and set(response.body) == ERROR_FIELDS,
            response,
        )
    response = client.upload("/media", b"\x89PNG" + bytes(8 * 1024 * 1024))
    expect("a large body that is not an image is rejected", response.status == 422, response)
    response = client.upload("/media", b"\x89PNG" + bytes(24 * 1024 * 1024))
    expect("a body that is too large is rejected", response.status == 413, response)
    response = client.send("DELETE", media_path)
    expect("delete the image", response.status == 204, response)


def tiny_png() -> bytes:
    """Return a PNG of two by two pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return len(content).to_bytes(4, "big") + kind + content + check.to_bytes(4, "big")

    header = (2).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    pixels = zlib.compress(bytes(7) * 2)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def check_session(client: Client, form: Mapping[str, str]) -> str:
    """Log in, refresh twenty times in parallel, and log out. Return the session's address.

    Addresses in headers of the client must be ignored.
    """
    forged_headers = {
        "X-Forwarded-For": FORGED_ADDRESS,
        "X-Real-IP": FORGED_ADDRESS,
        "Forwarded": f"for={FORGED_ADDRESS}",
    }
    response = client.send("POST", "/auth/login", form=form, headers=forged_headers)
    expect(
        "log in again, with a refresh token",
        response.status == 200
        and response.body["refresh_token"] not in response.body["access_token"],
        response,
    )
    token = {"refresh_token": response.body["refresh_token"]}
    responses = send_in_parallel(
        20, lambda _: client.send("POST", "/auth/refresh", json_body=token)
    )
    require(
        "twenty parallel refreshes return the same new token",
        {each.status for each in responses} == {200}
        and len({each.body["refresh_token"] for each in responses} - {*token.values()}) == 1,
        [each.status for each in responses],
    )
    authenticated = Client(f"http://{client.host}:{client.port}")
    authenticated.token = responses[0].body["access_token"]
    response = authenticated.send("GET", "/auth/sessions", headers=forged_headers)
    addresses = {session["ip"] for session in response.body if response.status == 200}
    expect(
        "sessions have one address, which is not the forged one",
        len(response.body) == 2 and len(addresses) == 1 and FORGED_ADDRESS not in addresses,
        response,
    )
    address = str(ipaddress.ip_address(addresses.pop()))
    response = authenticated.send("POST", "/auth/logout")
    expect("log out", response.status == 204, response)
    response = authenticated.send("GET", "/auth/me")
    expect(
        "the access token is revoked immediately",
        response.status == 401 and response.body["code"] == "token_revoked",
        response,
    )
    return address


def send_in_parallel(times: int, send: Callable[[int], Response]) -> list[Response]:
    """Send requests in parallel and return the responses."""
    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(send, range(times)))


def has_security_headers(response: Response) -> bool:
    """Return whether each security header occurs exactly once."""
    found = {name: response.headers.get_all(name) for name in SECURITY_HEADERS}
    return found == SECURITY_HEADERS


def check_edge(client: Client) -> None:
    """Check the behaviour of nginx."""
    response = client.send("GET", "/health/live", headers={"X-Request-ID": "smoke-test.0001"})
    headers = response.headers
    expect(
        "a well-formed request id is kept",
        headers.get_all("X-Request-ID") == ["smoke-test.0001"],
        response,
    )
    response = client.send("GET", "/health/live", headers={"X-Request-ID": "no good"})
    expect("a malformed one is replaced", response.headers["X-Request-ID"] != "no good", response)
    for path in ("/health/live", "/no-such-page", "/raw/users"):
        response = client.send("GET", path)
        expect(f"security headers once on {path}", has_security_headers(response), response)
    expect(
        "/raw is not reachable",
        response.status == 404 and set(response.body) == ERROR_FIELDS,
        response,
    )
    expect("no server version", response.headers.get_all("Server") == ["nginx"], response)
    response = client.send("GET", "/docs")
    policies = response.headers.get_all("Content-Security-Policy") or []
    expect(
        "/docs has only its own policy",
        response.status == 200 and len(policies) == 1 and "script-src" in policies[0],
        response,
    )
    uncompressed = client.send("GET", "/openapi.json")
    compressed = client.send("GET", "/openapi.json", headers={"Accept-Encoding": "gzip"})
    varies = ",".join(compressed.headers.get_all("Vary") or [])
    expect(
        "a large response is compressed on request, with Vary",
        compressed.headers["Content-Encoding"] == "gzip"
        and "accept-encoding" in varies.lower()
        and uncompressed.headers["Content-Encoding"] is None
        and compressed.body == uncompressed.body,
        compressed,
    )
    response = client.send("POST", "/users", raw=b" " * (4 * 1024 * 1024 + 1))
    expect(
        "a body that is too large is rejected in the error format",
        response.status == 413
        and set(response.body) == ERROR_FIELDS
        and response.body["request_id"] == response.headers["X-Request-ID"],
        response,
    )


def check_limit(client: Client) -> None:
    """Check that nginx limits login attempts, for all spellings of the path, and nothing else.

    The forms are empty: the backend computes no hash and counts no attempt for them.
    """
    anonymous = Client(f"http://{client.host}:{client.port}")

    def attempt(number: int, path: str = "/auth/login") -> Response:
        headers = {"X-Forwarded-For": f"198.51.100.{number}", "X-Request-ID": "smoke-limit.0001"}
        return anonymous.send("POST", path, form={}, headers=headers)

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(lambda: [client.send("GET", "/articles") for _ in range(30)])
        responses = send_in_parallel(80, attempt)
    refused = [each for each in responses if each.status == 429]
    require(
        f"of 80 parallel attempts with forged addresses, {len(refused)} are rejected",
        {each.status for each in responses} == {422, 429},
        [each.status for each in responses],
    )
    expect(
        "429 in the error format, with Retry-After",
        set(refused[0].body) == ERROR_FIELDS
        and refused[0].body["code"] == "too_many_requests"
        and refused[0].body["request_id"] == "smoke-limit.0001"
        and refused[0].headers.get_all("X-Request-ID") == ["smoke-limit.0001"]
        and refused[0].headers.get_all("Retry-After") == ["6"]
        and refused[0].headers.get_content_type() == "application/json"
        and has_security_headers(refused[0]),
        refused[0],
    )
    statuses = {each.status for each in reading.result()}
    require("concurrent reads are not limited", statuses == {200}, statuses)

    for path in LIMITED_PATHS:
        responses = send_in_parallel(40, partial(attempt, path=path))
        statuses = {each.status for each in responses}
        require(f"{path} is limited", 429 in statuses, statuses)

    def preflight(_: int, method: str, path: str) -> Response:
        headers = {"Origin": "https://www.example.com", "Access-Control-Request-Method": "POST"}
        return anonymous.send(method, path, headers=headers)

    for method, path in UNLIMITED:
        responses = send_in_parallel(50, partial(preflight, method=method, path=path))
        statuses = {each.status for each in responses}
        require(f"{method} {path} is not limited", 429 not in statuses, statuses)


def check_development(client: Client) -> None:
    """Check that front ends of developers, and their end-to-end tests, can use the defaults."""
    origin = {"Origin": "http://localhost:4173", "Access-Control-Request-Method": "POST"}

    def attempt(_: int) -> Response:
        return client.send("POST", "/auth/login", form={}, headers=origin)

    statuses = {each.status for each in send_in_parallel(80, attempt)}
    require("80 parallel attempts are not limited", statuses == {422}, statuses)
    for method, path, status in (("OPTIONS", "/articles", 200), ("GET", "/metrics", 404)):
        response = client.send(method, path, headers=origin)
        allowed = response.headers.get_all("Access-Control-Allow-Origin")
        expect(
            f"nginx allows {origin['Origin']}: {method} {path}",
            response.status == status and allowed == [origin["Origin"]],
            response,
        )


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("url", help="for example http://localhost:8080")
    parser.add_argument("--edge", action="store_true", help="also check nginx")
    arguments = parser.parse_args()
    try:
        client = Client(arguments.url)
        check_publishing(client)
        if arguments.edge:
            check_edge(client)
            check_limit(client)
    except (SmokeError, OSError, KeyError, TypeError, ValueError) as error:
        print(f"  FAILED  {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
