"""RealWorld's OpenAPI description, and a client that validates every response against it."""

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
ADDITIONAL_STATUSES = {403, 404}
"""Statuses that implementations return although the description omits them."""
ERROR = {"$ref": "#/components/schemas/GenericErrorModel"}


@dataclass(frozen=True)
class Operation:
    """An operation of the description; `answers` maps statuses to schemas or None."""

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
    """Raise ValidationError unless a body matches the schema."""
    whole = {**schema, "components": description()["components"]}
    Draft202012Validator(whole).validate(body)


def moments_of(body: Any) -> list[str]:
    if isinstance(body, dict):
        own = [body[name] for name in ("createdAt", "updatedAt") if name in body]
        return own + [each for value in body.values() for each in moments_of(value)]
    return [each for item in body for each in moments_of(item)] if isinstance(body, list) else []


def check(response: httpx.Response, method: str, path: str) -> Operation:
    """Assert that a response matches the description; return its operation."""
    operation, status = operation_of(method, path), response.status_code
    message = f"{method} {path}: {status} {response.text[:500]}"
    assert status in operation.answers or status in ADDITIONAL_STATUSES, message
    if status == 204:
        assert not response.content, message
        return operation
    body = response.json()
    schema = operation.answers.get(status)
    # The description has no schema for 401, 403 and 404. All use the same error format.
    validate(body, ERROR if schema is None else schema)
    if status >= 400:
        assert body.keys() == {"errors"}, message
        assert all(body["errors"].values()), message
        assert response.headers["Cache-Control"] == "no-store", message
    for moment in moments_of(body):
        assert MOMENT.fullmatch(moment), message
    return operation


@dataclass
class Conduit:
    """A client that validates each response; `validated` collects operations and statuses."""

    client: httpx.AsyncClient
    validated: set[tuple[str, int]] = field(default_factory=set)

    async def send(
        self, method: str, path: str, token: str | None = None, /, **body: Any
    ) -> httpx.Response:
        """Send a request with an optional token. Anonymous requests bypass caches."""
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
        self.validated.add((operation.name, response.status_code))
        return response

    async def get(self, path: str, token: str | None = None) -> Any:
        response = await self.send("GET", path, token)
        assert response.status_code == 200, response.text
        return response.json()

    async def register(self, username: str, password: str) -> str:
        """Register a user; return their token."""
        user = {"username": username, "email": f"{username}@example.com", "password": password}
        response = await self.send("POST", "/users", user=user)
        assert response.status_code == 201, response.text
        token: str = response.json()["user"]["token"]
        return token
