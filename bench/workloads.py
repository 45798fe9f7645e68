"""The workloads, and the comparison of the responses of both servers."""

import json
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlencode

from jose import jwt

from app.services.bulk.seed import PASSWORD
from load import refresh
from report import LOGIN, REFRESH, Request, Workload
from servers import USERS, BenchError, Server

PAGE: Final = 20
ONE_ARTICLE_IDS: Final = 8
LOGIN_CONNECTIONS: Final = 4
LOGIN_NAMES: Final = [f"writer{number}" for number in range(1, USERS + 1)]
REFRESH_CONNECTIONS: Final = 16
FORM: Final = "application/x-www-form-urlencoded"
JSON: Final = "application/json"
LOGGED_IN = "one article, logged in"


def choose_workloads(pressroom: Server, reference: Server, connections: int) -> list[Workload]:
    """Return the workloads, after comparing the responses of both servers."""
    token_size = compare_logins(pressroom, reference)
    check_refreshes(pressroom, reference)
    pages = [f"/articles?skip={skip}&limit={PAGE}" for skip in range(0, 8000, 1000)]
    listed = [compare_json(pressroom, reference, path) for path in ["/articles", *pages]]
    ids = [page[0]["id"] for page in listed[1 : ONE_ARTICLE_IDS + 1]]
    articles = [f"/articles/{number}" for number in ids]
    single = [compare_json(pressroom, reference, path) for path in articles]
    if any(len(page) != PAGE or "username" not in page[0]["author"] for page in listed):
        raise BenchError(f"a list does not have {PAGE} articles with their authors")
    if single != [compare_json(pressroom, reference, path, as_user=True) for path in articles]:
        raise BenchError("authenticated and anonymous responses differ")
    check_forged_token(pressroom, reference, articles[0])
    one_article = [Request(path) for path in articles]
    return [
        Workload(
            f"list of {PAGE} with authors", [Request("/articles")], _size(listed[:1]), connections
        ),
        Workload("one article", one_article, _size(single), connections),
        Workload(LOGGED_IN, one_article, _size(single), connections, is_authenticated=True),
        Workload(
            REFRESH,
            [Request("/auth/refresh")],
            token_size,
            REFRESH_CONNECTIONS,
            "POST",
            JSON,
            is_chain=True,
        ),
        login_workload(LOGIN_CONNECTIONS, token_size),
    ]


def login_workload(connections: int, min_bytes: int) -> Workload:
    """Return the workload of logins. The users alternate, to stay below the limit of attempts."""
    requests = [Request("/auth/login", _login_form(name)) for name in LOGIN_NAMES]
    return Workload(LOGIN, requests, min_bytes, connections, "POST", FORM)


def open_sessions(server: Server) -> None:
    """Log in one user per connection of the refresh workload."""
    for name in LOGIN_NAMES[:REFRESH_CONNECTIONS]:
        _, answer = _log_in(server, name)
        server.access_tokens.append(answer["access_token"])
        server.refresh_tokens.append(answer["refresh_token"])


def _login_form(name: str, password: str = PASSWORD) -> str:
    return urlencode({"username": name, "password": password})


def _log_in(server: Server, name: str) -> tuple[int, dict[str, Any]]:
    """Log in. Return the size of the response and its content."""
    status, body = server.request("POST", "/auth/login", _login_form(name), FORM)
    if status != 200:
        raise BenchError(f"{server.name} rejects the login with {status}")
    answer: dict[str, Any] = json.loads(body)
    return len(body), answer


def size_of(body: bytes) -> int:
    """Return the minimum size of a response with the same JSON value."""
    return _size([json.loads(body)])


def _size(answers: Sequence[Any]) -> int:
    """Return the minimum size of the responses, independent of the JSON formatting."""
    return min(
        len(json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode())
        for answer in answers
    )


def compare_json(pressroom: Server, reference: Server, path: str, *, as_user: bool = False) -> Any:
    """Return the response to a GET. Raises BenchError if the responses of the servers differ."""
    answers: list[Any] = []
    for server in (pressroom, reference):
        authorization = server.authorization() if as_user else ""
        status, body = server.request("GET", path, authorization=authorization)
        if status != 200:
            raise BenchError(f"{server.name}: {path} returned {status}")
        answers.append(json.loads(body))
    ours, theirs = answers
    if ours != theirs:
        raise BenchError(f"the servers return different responses for {path}")
    return ours


def compare_logins(pressroom: Server, reference: Server) -> int:
    """Return the minimum size of a login response. Raises BenchError if the tokens differ.

    Opens the sessions of the workloads.
    """
    properties, sizes = [], []
    for server in (pressroom, reference):
        size, answer = _log_in(server, LOGIN_NAMES[0])
        access, refreshing = answer.pop("access_token"), answer.pop("refresh_token")
        claims = jwt.get_unverified_claims(access)
        header = jwt.get_unverified_header(access)
        kind, _, secret = refreshing.split("_", 2)
        properties.append((answer, claims["sub"], set(claims), set(header), kind, len(secret)))
        sizes.append(size)
        wrong = _login_form(LOGIN_NAMES[0], "not-" + PASSWORD)
        if (status := server.request("POST", "/auth/login", wrong, FORM)[0]) != 401:
            raise BenchError(f"{server.name} returns {status} for a wrong password")
        open_sessions(server)
    if properties[0] != properties[1]:
        raise BenchError(f"the tokens of the servers differ: {properties}")
    return min(sizes) - 20  # the length of ids varies


def check_refreshes(pressroom: Server, reference: Server) -> None:
    """Raise BenchError unless both servers rotate refresh tokens in the same way.

    A repeated refresh returns the same successor, and unknown tokens are rejected.
    """
    for server in (pressroom, reference):
        first = server.refresh_tokens[-1]
        _, second = refresh(server, "/auth/refresh", first)
        if refresh(server, "/auth/refresh", first)[1] != second or second == first:
            raise BenchError(f"{server.name} returns a different token for a repeated refresh")
        _, third = refresh(server, "/auth/refresh", second)
        unknown = third[:-30] + "A" * 30
        body = json.dumps({"refresh_token": unknown})
        if (status := server.request("POST", "/auth/refresh", body, JSON)[0]) != 401:
            raise BenchError(f"{server.name} returns {status} for an unknown refresh token")
        server.refresh_tokens[-1] = third


def check_forged_token(pressroom: Server, reference: Server, path: str) -> None:
    """Raise BenchError unless both servers reject an access token with a forged signature."""
    for server in (pressroom, reference):
        signature = server.authorization().rpartition(".")[2]
        forged = server.authorization().removesuffix(signature) + signature[::-1]
        if (status := server.request("GET", path, authorization=forged)[0]) != 401:
            raise BenchError(f"{server.name} returns {status} for a forged access token")
