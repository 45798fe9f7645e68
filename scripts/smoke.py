"""Use a running Pressroom as a client would: `smoke.py http://localhost:8080`.

Registers, logs in, posts, publishes and lists; refreshes and ends a session; behind nginx (--edge)
it also checks what the edge alone is responsible for. Stops at the first thing that is not as it
should be. Needs no packages.
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
from typing import Any
from urllib.parse import urlencode, urlsplit

TIMEOUT = 40
"""Longer than the edge holds a request while there is no backend: 15 s."""
ERROR_FIELDS = {"success", "message", "detail", "code", "request_id"}
SECURITY_HEADERS = {
    "X-Content-Type-Options": ["nosniff"],
    "X-Frame-Options": ["DENY"],
    "Referrer-Policy": ["no-referrer"],
    "Content-Security-Policy": ["default-src 'none'; frame-ancestors 'none'"],
}
FORGED = "203.0.113.66"
"""An address for documentation (RFC 5737): nobody comes from it."""
SPELLINGS = (
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
"""Of what the edge counts: the login, registering, and what asks for the password."""
UNLIMITED = (
    ("OPTIONS", "/auth/login"),
    ("HEAD", "/auth/me"),
    ("GET", "/auth/me"),
    ("POST", "/articles"),
    ("POST", "/users/1/addresses"),
)


class SmokeError(Exception):
    """Something is not as it should be."""


@dataclass
class Answer:
    """A response: `body` is unpacked where it was compressed, and parsed where it is JSON."""

    status: int
    headers: http.client.HTTPMessage
    body: Any


class Client:
    """Speaks to one server, a new connection a request; remembers the token."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "http" or not parts.hostname:
            raise SmokeError(f"not an http:// address: {url}")
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
    ) -> Answer:
        """Send one request, authenticated once there is a token."""
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
            text = content.decode(errors="replace")  # a picture is none
            is_json = "json" in response.headers.get_content_type()
            body = json.loads(text) if is_json and text else text
            return Answer(response.status, response.headers, body)
        finally:
            connection.close()

    def upload(self, path: str, content: bytes) -> Answer:
        """Send a file as a form does."""
        head = b'--smoke\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        headers = {"Content-Type": "multipart/form-data; boundary=smoke"}
        return self.send("POST", path, raw=head + content + b"\r\n--smoke--\r\n", headers=headers)


def require(what: str, condition: bool, found: object) -> None:
    """Say that something holds, or stop and show what was found instead."""
    if not condition:
        raise SmokeError(f"{what}: got {found}")
    print(f"  ok  {what}")


def expect(what: str, condition: bool, answer: Answer) -> None:
    """Say that an answer is as it should be, or stop and show it."""
    shown = answer.body if isinstance(answer.body, str) else json.dumps(answer.body)
    require(what, condition, f"{answer.status} {shown[:500]}\n{answer.headers}")


def tell_a_story(client: Client) -> str:
    """From a stranger to a published article, and a session from its login to its end.

    Returns the address that the server takes the client for.
    """
    name = f"smoke{secrets.token_hex(5)}"
    password = secrets.token_urlsafe(18)
    answer = client.send("GET", "/health/ready")
    expect("ready", answer.status == 200, answer)
    person = {
        "email": f"{name}@example.com",
        "username": name,
        "name": "Smoke Test",
        "password": password,
    }
    answer = client.send("POST", "/users", json_body=person)
    expect("register", answer.status == 201 and "password" not in json.dumps(answer.body), answer)
    answer = client.send("POST", "/auth/login", form={"username": name, "password": password})
    expect("log in", answer.status == 200 and answer.body["token_type"].lower() == "bearer", answer)
    client.token = answer.body["access_token"]
    answer = client.send("GET", "/auth/me")
    expect("know who I am", answer.status == 200 and answer.body["username"] == name, answer)
    draft = {"title": f"A story by {name}", "content": "Once upon a time there was a test."}
    answer = client.send("POST", "/articles", json_body=draft)
    expect("post a draft", answer.status == 201 and answer.body["published"] is False, answer)
    path = f"/articles/{answer.body['id']}"

    reader = Client(f"http://{client.host}:{client.port}")
    answer = reader.send("GET", path)
    expect("a reader does not see the draft", answer.status == 404, answer)
    expect("errors have the one shape", set(answer.body) == ERROR_FIELDS, answer)
    answer = client.send("PATCH", path, json_body={"published": True})
    expect("publish", answer.status == 200 and answer.body["published"] is True, answer)
    answer = reader.send("GET", "/articles?limit=100")
    titles = [article["title"] for article in answer.body]
    expect(
        "a reader finds it in the list", answer.status == 200 and draft["title"] in titles, answer
    )
    return check_session(reader, {"username": name, "password": password})


def check_media(client: Client) -> None:
    """A picture from its upload to its end, and that nginx itself sends its file."""
    answer = client.upload("/media", tiny_picture())
    expect("upload a picture", answer.status == 201 and answer.body["width"] == 2, answer)
    path, picture = urlsplit(answer.body["url"]).path, f"/media/{answer.body['id']}"
    reader = Client(f"http://{client.host}:{client.port}")
    answer = reader.send("GET", path)
    policy = answer.headers.get_all("Content-Security-Policy")
    expect(
        "anybody who has its address sees it, for ever, and it can do nothing",
        answer.status == 200
        and answer.headers["Content-Type"] == "image/png"
        and "immutable" in answer.headers["Cache-Control"]
        and policy == ["default-src 'none'; sandbox"]
        and answer.headers["X-Content-Type-Options"] == "nosniff"
        and answer.headers["Cross-Origin-Resource-Policy"] == "cross-origin"
        and answer.headers["X-Accel-Redirect"] is None,
        answer,
    )
    known = {"If-None-Match": answer.headers["ETag"]}
    answer = reader.send("GET", path, headers=known)
    expect("who has it already is told so", answer.status == 304, answer)
    answer = reader.send("GET", path, headers={"Range": "bytes=0-3"})
    expect("a part of it", answer.status == 206 and answer.headers["Content-Length"] == "4", answer)
    for wrong in (f"/_media/{path.removeprefix('/media/')}", "/media/0/1.png", f"{path}/../x.png"):
        answer = reader.send("GET", wrong)
        expect(
            f"nothing else is sent: {wrong}",
            answer.status in {401, 404} and set(answer.body) == ERROR_FIELDS,
            answer,
        )
    answer = client.upload("/media", b"\x89PNG" + bytes(8 * 1024 * 1024))
    expect("a large body that is no picture is read, and refused", answer.status == 422, answer)
    answer = client.upload("/media", b"\x89PNG" + bytes(24 * 1024 * 1024))
    expect("one that is too large is refused", answer.status == 413, answer)
    answer = client.send("DELETE", picture)
    expect("delete the picture", answer.status == 204, answer)


def tiny_picture() -> bytes:
    """A PNG of two by two pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        check = zlib.crc32(kind + content)
        return len(content).to_bytes(4, "big") + kind + content + check.to_bytes(4, "big")

    header = (2).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    pixels = zlib.compress(bytes(7) * 2)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def check_session(client: Client, form: Mapping[str, str]) -> str:
    """Log in, refresh twenty times at once, log out; return the session's address.

    Where the client says that it is somebody else, nobody believes it.
    """
    forging = {"X-Forwarded-For": FORGED, "X-Real-IP": FORGED, "Forwarded": f"for={FORGED}"}
    answer = client.send("POST", "/auth/login", form=form, headers=forging)
    expect(
        "log in again, with a refresh token",
        answer.status == 200 and answer.body["refresh_token"] not in answer.body["access_token"],
        answer,
    )
    token = {"refresh_token": answer.body["refresh_token"]}
    answers = at_once(20, lambda _: client.send("POST", "/auth/refresh", json_body=token))
    require(
        "refresh in twenty tabs at once: one successor for all of them",
        {each.status for each in answers} == {200}
        and len({each.body["refresh_token"] for each in answers} - {*token.values()}) == 1,
        [each.status for each in answers],
    )
    own = Client(f"http://{client.host}:{client.port}")
    own.token = answers[0].body["access_token"]
    answer = own.send("GET", "/auth/sessions", headers=forging)
    addresses = {session["ip"] for session in answer.body if answer.status == 200}
    expect(
        "sessions show one address, and not the forged one",
        len(answer.body) == 2 and len(addresses) == 1 and FORGED not in addresses,
        answer,
    )
    address = str(ipaddress.ip_address(addresses.pop()))
    answer = own.send("POST", "/auth/logout")
    expect("log out", answer.status == 204, answer)
    answer = own.send("GET", "/auth/me")
    expect(
        "the access token is refused at once",
        answer.status == 401 and answer.body["code"] == "token_revoked",
        answer,
    )
    return address


def at_once(times: int, send: Callable[[int], Answer]) -> list[Answer]:
    """The answers to as many requests in parallel."""
    with ThreadPoolExecutor(times) as pool:
        return list(pool.map(send, range(times)))


def has_security_headers(answer: Answer) -> bool:
    """Whether they are all there, once."""
    found = {name: answer.headers.get_all(name) for name in SECURITY_HEADERS}
    return found == SECURITY_HEADERS


def check_edge(client: Client) -> None:
    """What nginx alone is responsible for."""
    answer = client.send("GET", "/health/live", headers={"X-Request-ID": "smoke-test.0001"})
    headers = answer.headers
    expect(
        "a well-formed request id is kept",
        headers.get_all("X-Request-ID") == ["smoke-test.0001"],
        answer,
    )
    answer = client.send("GET", "/health/live", headers={"X-Request-ID": "no good"})
    expect("a malformed one is replaced", answer.headers["X-Request-ID"] != "no good", answer)
    for path in ("/health/live", "/no-such-page", "/raw/users"):
        answer = client.send("GET", path)
        expect(f"security headers once on {path}", has_security_headers(answer), answer)
    expect(
        "/raw is not reachable", answer.status == 404 and set(answer.body) == ERROR_FIELDS, answer
    )
    expect("no server version", answer.headers.get_all("Server") == ["nginx"], answer)
    answer = client.send("GET", "/docs")
    policies = answer.headers.get_all("Content-Security-Policy") or []
    expect(
        "/docs has its own policy, and only that",
        answer.status == 200 and len(policies) == 1 and "script-src" in policies[0],
        answer,
    )
    plain = client.send("GET", "/openapi.json")
    packed = client.send("GET", "/openapi.json", headers={"Accept-Encoding": "gzip"})
    varies = ",".join(packed.headers.get_all("Vary") or [])
    expect(
        "a large answer is compressed for those who ask, and caches are told",
        packed.headers["Content-Encoding"] == "gzip"
        and "accept-encoding" in varies.lower()
        and plain.headers["Content-Encoding"] is None
        and packed.body == plain.body,
        packed,
    )
    answer = client.send("POST", "/users", raw=b" " * (4 * 1024 * 1024 + 1))
    expect(
        "a huge body is refused in the one shape",
        answer.status == 413
        and set(answer.body) == ERROR_FIELDS
        and answer.body["request_id"] == answer.headers["X-Request-ID"],
        answer,
    )


def check_limit(client: Client) -> None:
    """The edge stops a burst of attempts, however it is spelled, and nothing else.

    With empty forms: they cost no hash, and the backend does not count them as attempts.
    """
    stranger = Client(f"http://{client.host}:{client.port}")

    def attempt(number: int, path: str = "/auth/login") -> Answer:
        pretended = {"X-Forwarded-For": f"198.51.100.{number}", "X-Request-ID": "smoke-limit.0001"}
        return stranger.send("POST", path, form={}, headers=pretended)

    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit(lambda: [client.send("GET", "/articles") for _ in range(30)])
        answers = at_once(80, attempt)
    refused = [each for each in answers if each.status == 429]
    require(
        f"80 attempts at once, from many addresses as they say: {len(refused)} are stopped",
        {each.status for each in answers} == {422, 429},
        [each.status for each in answers],
    )
    expect(
        "429 in the one shape, with Retry-After",
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
    require("whoever reads meanwhile does not notice", statuses == {200}, statuses)

    for path in SPELLINGS:
        answers = at_once(40, lambda number, path=path: attempt(number, path))
        statuses = {each.status for each in answers}
        require(f"{path} is counted with it", 429 in statuses, statuses)
    asking = {"Origin": "https://www.example.com", "Access-Control-Request-Method": "POST"}
    for method, path in UNLIMITED:
        answers = at_once(50, lambda _, it=(method, path): stranger.send(*it, headers=asking))
        statuses = {each.status for each in answers}
        require(f"{method} {path} is not", 429 not in statuses, statuses)


def main() -> int:
    """Return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("url", help="for example http://localhost:8080")
    parser.add_argument("--edge", action="store_true", help="check what nginx does, too")
    arguments = parser.parse_args()
    try:
        client = Client(arguments.url)
        tell_a_story(client)
        if arguments.edge:
            check_edge(client)
            check_limit(client)
    except (SmokeError, OSError, KeyError, TypeError, ValueError) as error:
        print(f"  FAILED  {type(error).__name__}: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
