"""RealWorld's description of its API, and a client that holds every answer against it."""

import re
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import yaml
from jsonschema import Draft202012Validator

DESCRIPTION = Path(__file__).with_name("openapi.yml")
PREFIX = "/api"
MOMENT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
BEYOND = {403, 404}
"""What the description does not name, and its implementations answer: in the envelope of errors."""
ERROR = {"$ref": "#/components/schemas/GenericErrorModel"}


@dataclass(frozen=True)
class Operation:
    """An operation of the description; `answers` has the schema of each status, None for none."""

    name: str
    method: str
    path: re.Pattern[str]
    answers: dict[int, Any]


@lru_cache(maxsize=1)
def description() -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(DESCRIPTION.read_text())
    return document


@lru_cache(maxsize=1)
def operations() -> tuple[Operation, ...]:
    document = description()
    return tuple(
        Operation(
            name=operation["operationId"],
            method=method.upper(),
            path=re.compile(re.sub(r"\{\w+\}", "[^/]+", path)),
            answers={
                int(status): _schema(document, answer["$ref"])
                for status, answer in operation["responses"].items()
            },
        )
        # `/articles/feed` before `/articles/{slug}`
        for path, item in sorted(document["paths"].items(), key=lambda each: "{" in each[0])
        for method, operation in item.items()
    )


def _schema(document: dict[str, Any], reference: str) -> Any:
    answer = document["components"]["responses"][reference.rpartition("/")[2]]
    return answer["content"].get("application/json", {}).get("schema")


def operation_of(method: str, path: str) -> Operation:
    path = path.partition("?")[0]
    return next(
        each for each in operations() if each.method == method and each.path.fullmatch(path)
    )


def validate(body: Any, schema: Any) -> None:
    """Raise ValidationError unless a body is as the description has it."""
    whole = {**schema, "components": description()["components"]}
    Draft202012Validator(whole).validate(body)


def moments_of(body: Any) -> list[str]:
    if isinstance(body, dict):
        own = [body[name] for name in ("createdAt", "updatedAt") if name in body]
        return own + [each for value in body.values() for each in moments_of(value)]
    return [each for item in body for each in moments_of(item)] if isinstance(body, list) else []


def check(response: httpx.Response, method: str, path: str) -> Operation:
    """Assert that an answer is one that the description has."""
    operation, status = operation_of(method, path), response.status_code
    said = f"{method} {path}: {status} {response.text[:500]}"
    assert status in operation.answers or status in BEYOND, said
    if status == 204:
        assert not response.content, said
        return operation
    body = response.json()
    schema = operation.answers.get(status)
    # Of 401 it says nothing, and of these two not even that; ours all have the one envelope.
    validate(body, ERROR if schema is None else schema)
    if status >= 400:
        assert body.keys() == {"errors"}, said
        assert all(body["errors"].values()), said
        assert response.headers["Cache-Control"] == "no-store", said
    for moment in moments_of(body):
        assert MOMENT.fullmatch(moment), said
    return operation


@dataclass
class Conduit:
    """A client that checks each answer; `seen` has which operations gave which."""

    client: httpx.AsyncClient
    seen: set[tuple[str, int]] = field(default_factory=set)

    async def ask(
        self, method: str, path: str, token: str | None = None, /, **body: Any
    ) -> httpx.Response:
        """Ask as whoever has the token. What anybody may read is asked anew, past every cache."""
        headers = {} if token is None else {"Authorization": f"Token {token}"}
        fresh = {"fresh": uuid4().hex} if method == "GET" and token is None else {}
        response = await self.client.request(
            method,
            f"{PREFIX}{path}",
            headers=headers,
            json=body or None,
            params=httpx.QueryParams(path.partition("?")[2]).merge(fresh) or None,
        )
        operation = check(response, method, path)
        self.seen.add((operation.name, response.status_code))
        return response

    async def get(self, path: str, token: str | None = None) -> Any:
        response = await self.ask("GET", path, token)
        assert response.status_code == 200, response.text
        return response.json()

    async def register(self, username: str, password: str) -> str:
        """A new user's token."""
        user = {"username": username, "email": f"{username}@example.com", "password": password}
        response = await self.ask("POST", "/users", user=user)
        assert response.status_code == 201, response.text
        token: str = response.json()["user"]["token"]
        return token
