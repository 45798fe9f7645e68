"""What the servers are asked for, after a check that both answer alike."""

import json
from collections.abc import Sequence
from typing import Any, Final
from urllib.parse import urlencode

from jose import jwt

from app.services.seed import PASSWORD
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
    """The workloads, after a check that both servers answer each of their requests alike."""
    token_size = same_login(pressroom, reference)
    same_refresh(pressroom, reference)
    pages = [f"/articles?skip={skip}&limit={PAGE}" for skip in range(0, 8000, 1000)]
    listed = [same_json(pressroom, reference, path) for path in ["/articles", *pages]]
    ids = [page[0]["id"] for page in listed[1 : ONE_ARTICLE_IDS + 1]]
    articles = [f"/articles/{number}" for number in ids]
    single = [same_json(pressroom, reference, path) for path in articles]
    if any(len(page) != PAGE or "username" not in page[0]["author"] for page in listed):
        raise BenchError(f"a list is not of {PAGE} articles with their authors")
    if single != [same_json(pressroom, reference, path, as_user=True) for path in articles]:
        raise BenchError("a user reads another article than the public")
    same_refusal(pressroom, reference, articles[0])
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


def login_workload(connections: int, least_bytes: int) -> Workload:
    """All users log in, one after the other: nobody as often at once as looks like guessing."""
    requests = [Request("/auth/login", _login_form(name)) for name in LOGIN_NAMES]
    return Workload(LOGIN, requests, least_bytes, connections, "POST", FORM)


def open_sessions(server: Server) -> None:
    """Log in a user for each connection that will refresh."""
    for name in LOGIN_NAMES[:REFRESH_CONNECTIONS]:
        _, answer = _log_in(server, name)
        server.access_tokens.append(answer["access_token"])
        server.refresh_tokens.append(answer["refresh_token"])


def _login_form(name: str, password: str = PASSWORD) -> str:
    return urlencode({"username": name, "password": password})


def _log_in(server: Server, name: str) -> tuple[int, dict[str, Any]]:
    """The bytes of a login's answer, and what it says."""
    status, body = server.ask("POST", "/auth/login", _login_form(name), FORM)
    if status != 200:
        raise BenchError(f"{server.name} refuses the login with {status}")
    answer: dict[str, Any] = json.loads(body)
    return len(body), answer


def size_of(body: bytes) -> int:
    """The least bytes that an answer with the meaning of this one can have."""
    return _size([json.loads(body)])


def _size(answers: Sequence[Any]) -> int:
    """The least bytes that any of the answers can have, however its JSON is spaced."""
    return min(
        len(json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode())
        for answer in answers
    )


def same_json(pressroom: Server, reference: Server, path: str, *, as_user: bool = False) -> Any:
    """What both servers answer to a GET. Raises BenchError where the answers differ in meaning."""
    answers: list[Any] = []
    for server in (pressroom, reference):
        authorization = server.authorization() if as_user else ""
        status, body = server.ask("GET", path, authorization=authorization)
        if status != 200:
            raise BenchError(f"{server.name} answers {path} with {status}")
        answers.append(json.loads(body))
    ours, theirs = answers
    if ours != theirs:
        raise BenchError(f"the servers differ in their answer to {path}: this would not be fair")
    return ours


def same_login(pressroom: Server, reference: Server) -> int:
    """The least bytes of a login's answer. Raises BenchError unless both give the same sort.

    Opens the sessions that the servers are asked in.
    """
    sorts, sizes = [], []
    for server in (pressroom, reference):
        size, answer = _log_in(server, LOGIN_NAMES[0])
        access, refreshing = answer.pop("access_token"), answer.pop("refresh_token")
        claims = jwt.get_unverified_claims(access)
        header = jwt.get_unverified_header(access)
        kind, _, secret = refreshing.split("_", 2)
        sorts.append((answer, claims["sub"], set(claims), set(header), kind, len(secret)))
        sizes.append(size)
        wrong = _login_form(LOGIN_NAMES[0], "not-" + PASSWORD)
        if (status := server.ask("POST", "/auth/login", wrong, FORM)[0]) != 401:
            raise BenchError(f"{server.name} answers a wrong password with {status}")
        open_sessions(server)
    if sorts[0] != sorts[1]:
        raise BenchError(f"the servers' tokens differ, this would not be fair: {sorts}")
    return min(sizes) - 20  # ids grow, and shrink with the next database


def same_refresh(pressroom: Server, reference: Server) -> None:
    """Raise BenchError unless both exchange a token, once, and repeat that for a moment."""
    for server in (pressroom, reference):
        first = server.refresh_tokens[-1]
        _, second = refresh(server, "/auth/refresh", first)
        if refresh(server, "/auth/refresh", first)[1] != second or second == first:
            raise BenchError(f"{server.name} gives another successor of a token for the asking")
        _, third = refresh(server, "/auth/refresh", second)
        unknown = third[:-30] + "A" * 30
        body = json.dumps({"refresh_token": unknown})
        if (status := server.ask("POST", "/auth/refresh", body, JSON)[0]) != 401:
            raise BenchError(f"{server.name} answers an unknown refresh token with {status}")
        server.refresh_tokens[-1] = third


def same_refusal(pressroom: Server, reference: Server, path: str) -> None:
    """Raise BenchError unless both refuse an access token with another signature."""
    for server in (pressroom, reference):
        signature = server.authorization().rpartition(".")[2]
        forged = server.authorization().removesuffix(signature) + signature[::-1]
        if (status := server.ask("GET", path, authorization=forged)[0]) != 401:
            raise BenchError(f"{server.name} answers a forged access token with {status}")
