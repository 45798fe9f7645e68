"""The contract of the RealWorld API, version 2.0.0, and a client that validates every response.

REALWORLD_OPENAPI may name a copy of RealWorld's own description. Then each response is also
validated against it. Our OpenAPI description is validated in the same way.
"""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import httpx
import yaml
from fastapi import FastAPI
from jsonschema import Draft202012Validator, FormatChecker

from app.conduit.application import create_conduit

PREFIX = "/api"
PUBLISHED = os.environ.get("REALWORLD_OPENAPI", "")
"""The path of RealWorld's description, if it is on this machine."""
MOMENT = r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z$"
ADDITIONAL_STATUSES = {403}
"""Statuses that the contract lists for few operations, but that our rules return for others."""

Schema = Mapping[str, Any]


def record(**fields: Schema) -> Schema:
    """Return the schema of an object with exactly these fields."""
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


def list_of(item: Schema) -> Schema:
    return {"type": "array", "items": item}


TEXT: Schema = {"type": "string", "minLength": 1}
OPTIONAL_TEXT: Schema = {"type": ["string", "null"], "minLength": 1}
FLAG: Schema = {"type": "boolean"}
NUMBER: Schema = {"type": "integer", "minimum": 0}
DATE: Schema = {"type": "string", "format": "date-time", "pattern": MOMENT}
ERROR: Schema = record(
    errors={
        "type": "object",
        "minProperties": 1,
        "additionalProperties": {**list_of(TEXT), "minItems": 1, "uniqueItems": True},
    }
)
PROFILE = record(username=TEXT, bio=OPTIONAL_TEXT, image=OPTIONAL_TEXT, following=FLAG)
LISTED: dict[str, Schema] = {
    "slug": TEXT,
    "title": TEXT,
    "description": {"type": "string"},
    "tagList": list_of(TEXT),
    "createdAt": DATE,
    "updatedAt": DATE,
    "favorited": FLAG,
    "favoritesCount": NUMBER,
    "author": PROFILE,
}
COMMENT = record(id=NUMBER, createdAt=DATE, updatedAt=DATE, body=TEXT, author=PROFILE)
ONE_USER = record(
    user=record(email=TEXT, token=TEXT, username=TEXT, bio=OPTIONAL_TEXT, image=OPTIONAL_TEXT)
)
ONE_PROFILE = record(profile=PROFILE)
ONE_ARTICLE = record(article=record(**LISTED, body=TEXT))
ARTICLES = record(articles=list_of(record(**LISTED)), articlesCount=NUMBER)
ONE_COMMENT = record(comment=COMMENT)
COMMENTS = record(comments=list_of(COMMENT))
TAGS = record(tags=list_of(TEXT))


class Operation(NamedTuple):
    """An operation; `errors` are the statuses that the contract lists besides `status`."""

    method: str
    path: str
    status: int
    body: Schema | None
    errors: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.method} {self.path}"

    def matches(self, method: str, path: str) -> bool:
        pattern = re.sub(r"\{\w+\}", "[^/]+", self.path)
        return method == self.method and re.fullmatch(pattern, path) is not None


# `/articles/feed` precedes `/articles/{slug}`.
OPERATIONS = (
    Operation("POST", "/users/login", 200, ONE_USER, (401, 422)),
    Operation("POST", "/users", 201, ONE_USER, (409, 422)),
    Operation("GET", "/user", 200, ONE_USER, (401, 422)),
    Operation("PUT", "/user", 200, ONE_USER, (401, 422)),
    Operation("GET", "/profiles/{username}", 200, ONE_PROFILE, (401, 404, 422)),
    Operation("POST", "/profiles/{username}/follow", 200, ONE_PROFILE, (401, 404, 422)),
    Operation("DELETE", "/profiles/{username}/follow", 200, ONE_PROFILE, (401, 404, 422)),
    Operation("GET", "/articles/feed", 200, ARTICLES, (401, 422)),
    Operation("GET", "/articles", 200, ARTICLES, (401, 422)),
    Operation("POST", "/articles", 201, ONE_ARTICLE, (401, 409, 422)),
    Operation("GET", "/articles/{slug}", 200, ONE_ARTICLE, (404, 422)),
    Operation("PUT", "/articles/{slug}", 200, ONE_ARTICLE, (401, 403, 404, 422)),
    Operation("DELETE", "/articles/{slug}", 204, None, (401, 403, 404, 422)),
    Operation("GET", "/articles/{slug}/comments", 200, COMMENTS, (401, 404, 422)),
    Operation("POST", "/articles/{slug}/comments", 201, ONE_COMMENT, (401, 404, 422)),
    Operation("DELETE", "/articles/{slug}/comments/{id}", 204, None, (401, 403, 404, 422)),
    Operation("POST", "/articles/{slug}/favorite", 200, ONE_ARTICLE, (401, 404, 422)),
    Operation("DELETE", "/articles/{slug}/favorite", 200, ONE_ARTICLE, (401, 404, 422)),
    Operation("GET", "/tags", 200, TAGS, (422,)),
)


class Description:
    """An OpenAPI description, against which responses are validated."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = document

    def validate(self, operation: Operation, status: int, body: Any) -> None:
        """Assert that the operation declares this status, with a schema that the body matches."""
        answers = self.document["paths"][operation.path][operation.method.lower()]["responses"]
        if status in ADDITIONAL_STATUSES and str(status) not in answers:
            return
        answer = answers[str(status)]
        if "$ref" in answer:
            answer = self.document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
        schema = answer.get("content", {}).get("application/json", {}).get("schema")
        assert (schema is None) == (body is None), (operation.name, status)
        if schema is not None:
            validate(body, {**schema, "components": self.document["components"]})


@lru_cache(maxsize=1)
def descriptions() -> tuple[Description, ...]:
    """Return our description, and RealWorld's if REALWORLD_OPENAPI names it."""
    documents = [create_conduit(FastAPI().state).openapi()]
    if PUBLISHED:
        documents.append(yaml.safe_load(Path(PUBLISHED).read_text()))
    return tuple(map(Description, documents))


def operation_of(method: str, path: str) -> Operation:
    path = path.partition("?")[0]
    return next(each for each in OPERATIONS if each.matches(method, path))


def validate(body: Any, schema: Schema) -> None:
    """Raise ValidationError unless a body matches the schema."""
    Draft202012Validator(schema, format_checker=FormatChecker()).validate(body)


def check(response: httpx.Response, method: str, path: str) -> Operation:
    """Assert that a response fulfils the contract; return its operation."""
    operation, status = operation_of(method, path), response.status_code
    message = f"{method} {path}: {status} {response.text[:500]}"
    assert status in {operation.status, *operation.errors, *ADDITIONAL_STATUSES}, message
    body = response.json() if response.content else None
    schema = operation.body if status == operation.status else ERROR
    assert (schema is None) == (body is None), message
    if schema is not None:
        validate(body, schema)
    for description in descriptions():
        description.validate(operation, status, body)
    if status >= 400:
        assert response.headers["Cache-Control"] == "no-store", message
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
