"""Invalid input to each operation gets the RealWorld error format with the correct status."""

import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, NamedTuple

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.core import clock
from app.core.enums import CommentPolicy
from app.core.errors import (
    CommentsClosed,
    CredentialsInQuery,
    FollowRefused,
    InternalError,
    ServiceUnavailable,
)
from app.models import Article, Comment, User
from app.models.community.follow import Block
from tests.conduit.contract import ERROR, validate
from tests.databases import database_within, savepoint_of
from tests.factories import bearer, create_article, create_comment, create_user

ARTICLE = {"title": "Title", "description": "What it is", "body": "Long enough."}
USER = {"username": "new-user", "email": "new@example.com", "password": "correct horse battery"}
WRITES: dict[str, tuple[str, dict[str, Any]]] = {
    "POST /users": ("user", USER),
    "POST /users/login": ("user", {"email": "owner@example.com", "password": "x"}),
    "PUT /user": ("user", {"bio": "x"}),
    "POST /articles": ("article", ARTICLE),
    "PUT /articles/{slug}": ("article", ARTICLE),
    "POST /articles/{slug}/comments": ("comment", {"body": "Indeed."}),
}
REQUIRE_TOKEN = [
    "GET /user",
    "PUT /user",
    "POST /profiles/{username}/follow",
    "DELETE /profiles/{username}/follow",
    "GET /articles/feed",
    "POST /articles",
    "PUT /articles/{slug}",
    "DELETE /articles/{slug}",
    "POST /articles/{slug}/comments",
    "DELETE /articles/{slug}/comments/{id}",
    "POST /articles/{slug}/favorite",
    "DELETE /articles/{slug}/favorite",
]
ACCEPT_TOKEN = [
    "GET /articles",
    "GET /articles/{slug}",
    "GET /articles/{slug}/comments",
    "GET /profiles/{username}",
]
MEGABYTE = "x" * (1024 * 1024 + 1)


class Given(NamedTuple):
    """The rows that each test begins with."""

    owner: User
    article: Article
    comment: Comment


@pytest.fixture(scope="module")
async def given(module_connection: AsyncConnection) -> Given:
    async with database_within(module_connection).unit_of_work() as session:
        owner = await create_user(session, username="owner", email="owner@example.com")
        article = await create_article(session, author=owner, slug="theirs", tags=["engines"])
        return Given(owner, article, await create_comment(session, article=article, author=owner))


@pytest.fixture
async def connection(
    module_connection: AsyncConnection, given: Given
) -> AsyncIterator[AsyncConnection]:
    """The connection of all tests, in a savepoint that is rolled back at the end of each."""
    async with savepoint_of(module_connection):
        yield module_connection


@pytest.fixture
def owner(given: Given) -> User:
    return given.owner


@pytest.fixture
def comment(given: Given) -> Comment:
    return given.comment


def path_with_ids(path: str, comment: Comment) -> str:
    return "/api" + path.format(slug="theirs", username="owner", id=comment.id)


def assert_refused(response: httpx.Response, *statuses: int) -> dict[str, list[str]]:
    """Assert one of these statuses and the error format; return the errors."""
    assert response.status_code in statuses, response.text
    body = response.json()
    validate(body, ERROR)
    errors: dict[str, list[str]] = body["errors"]
    return errors


@pytest.mark.parametrize("operation", WRITES)
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"null",
        b"[]",
        b"5",
        b'"text"',
        b"{",
        b'{"user": null, "article": null, "comment": null}',
        b'{"user": [], "article": [], "comment": []}',
        b'{"user": "x", "article": "x", "comment": "x"}',
        b'{"user": {}, "article": {}, "comment": {}}',
        b'{"User": {"bio": "x"}}',
        b'{"bio": "x", "email": "x", "title": "x"}',
        b'{"user": {"bio": "\xff"}, "article": {"title": "\xff"}, "comment": {"body": "\xff"}}',
        b"[" * 100_000,
    ],
)
async def test_missing_envelope_is_rejected(
    client: httpx.AsyncClient, comment: Comment, owner: User, operation: str, content: bytes
) -> None:
    if operation.startswith("PUT /articles") and content.startswith(b'{"user": {}, "art'):
        return  # an empty update is valid there
    method, path = operation.split()
    headers = {**bearer(owner), "Content-Type": "application/json"}
    response = await client.request(
        method, path_with_ids(path, comment), content=content, headers=headers
    )
    assert_refused(response, 422)
    if "{slug}" in path:  # existence comes before validation
        unknown = await client.request(
            method, f"/api{path.format(slug='nothing')}", content=content, headers=headers
        )
        assert assert_refused(unknown, 404) == {"article": ["not found"]}
    if operation in REQUIRE_TOKEN:
        del headers["Authorization"]
        anonymous = await client.request(
            method, path_with_ids(path, comment), content=content, headers=headers
        )
        assert assert_refused(anonymous, 401) == {"token": ["is missing"]}


@pytest.mark.parametrize("operation", WRITES)
@pytest.mark.parametrize("value", [5, True, [], {}, ["x"], "", "   ", "\0", "\ud800", MEGABYTE])
async def test_invalid_value_in_each_field_is_rejected(
    client: httpx.AsyncClient, comment: Comment, owner: User, operation: str, value: Any
) -> None:
    method, path = operation.split()
    envelope, fields = WRITES[operation]
    optional = {"username", "email", "password", "bio", "image"} if path == "/user" else set()
    for name in {*fields, *optional}:
        is_cleared = path == "/user" and value == "" and name in {"bio", "image", "password"}
        is_text = isinstance(value, str) and value not in {"", "\0", "\ud800"}
        is_valid_text = is_text and (name == "bio" and value != MEGABYTE)
        if is_cleared or is_valid_text:
            continue
        if name == "body" and path.endswith("comments") and value == "   ":
            continue  # white space is valid Markdown
        if path == "/users/login" and is_text:
            continue  # is wrong but not malformed
        body = {envelope: {**fields, name: value}}
        response = await client.request(
            method, path_with_ids(path, comment), content=_json(body), headers=_json_headers(owner)
        )
        assert name in assert_refused(response, 422)


def _json(body: Any) -> bytes:
    return json.dumps(body).encode()


def _json_headers(user: User) -> dict[str, str]:
    return {**bearer(user), "Content-Type": "application/json"}


@pytest.mark.parametrize("operation", WRITES)
async def test_missing_field_is_rejected(
    client: httpx.AsyncClient, comment: Comment, owner: User, operation: str
) -> None:
    method, path = operation.split()
    envelope, fields = WRITES[operation]
    if method == "PUT":
        return  # omitted fields stay unchanged
    for name in fields:
        body = {envelope: {key: value for key, value in fields.items() if key != name}}
        response = await client.request(
            method, path_with_ids(path, comment), json=body, headers=bearer(owner)
        )
        assert assert_refused(response, 422) == {name: ["can't be blank"]}


@pytest.mark.parametrize("operation", REQUIRE_TOKEN)
async def test_missing_token_is_refused(
    client: httpx.AsyncClient, comment: Comment, operation: str
) -> None:
    method, path = operation.split()
    envelope, fields = WRITES.get(operation, ("", {}))
    body = {envelope: fields} if envelope else None
    response = await client.request(method, path_with_ids(path, comment), json=body)
    assert assert_refused(response, 401) == {"token": ["is missing"]}
    assert response.headers["WWW-Authenticate"].startswith("Bearer")


@pytest.mark.parametrize("operation", REQUIRE_TOKEN)
async def test_malformed_token_is_refused(
    client: httpx.AsyncClient, comment: Comment, operation: str
) -> None:
    method, path = operation.split()
    envelope, fields = WRITES.get(operation, ("", {}))
    body = {envelope: fields} if envelope else None
    for scheme, token in (
        ("Token", "x"),
        ("Bearer", "undefined"),
        ("token", "a.b.c"),
        ("Token", "prk_x"),
        ("Bearer", "\xff"),
    ):
        headers = {b"Authorization": f"{scheme} {token}".encode("latin-1")}
        response = await client.request(
            method, path_with_ids(path, comment), json=body, headers=headers
        )
        assert assert_refused(response, 401) == {"token": ["is invalid"]}


@pytest.mark.parametrize("operation", ACCEPT_TOKEN)
async def test_invalid_token_counts_as_none_where_it_is_optional(
    client: httpx.AsyncClient,
    session: AsyncSession,
    comment: Comment,
    owner: User,
    operation: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method, path = operation.split()
    url, native = path_with_ids(path, comment), path_with_ids(path, comment).removeprefix("/api")
    anonymous = await client.request(method, url)
    ended = bearer(await create_user(session))
    await client.post("/auth/logout", headers=ended)
    headers = [
        {"Authorization": f"{scheme} {token}"}
        for scheme in ("Token", "Bearer")
        for token in ("x", "undefined", "a.b.c", "prk_x")
    ]
    expired, now = bearer(owner), clock.now()
    for sent in [*headers, ended]:
        answer = await client.request(method, url, headers=sent)
        assert (answer.status_code, answer.json()) == (200, anonymous.json())
    monkeypatch.setattr(clock, "now", lambda: now + timedelta(minutes=16))
    answer = await client.request(method, url, headers=expired)
    assert (answer.status_code, answer.json()) == (200, anonymous.json())
    if "{slug}" not in path:  # articles have other paths there
        assert (await client.request(method, native, headers=expired)).status_code == 401


@pytest.mark.parametrize("operation", REQUIRE_TOKEN)
async def test_expired_token_is_refused(
    client: httpx.AsyncClient,
    comment: Comment,
    owner: User,
    operation: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method, path = operation.split()
    headers, now = bearer(owner), clock.now()
    monkeypatch.setattr(clock, "now", lambda: now + timedelta(minutes=16))
    envelope, fields = WRITES.get(operation, ("", {}))
    body = {envelope: fields} if envelope else None
    response = await client.request(
        method, path_with_ids(path, comment), json=body, headers=headers
    )
    assert assert_refused(response, 401) == {"token": ["has expired"]}


@pytest.mark.parametrize(
    "operation",
    [each for each in REQUIRE_TOKEN + ACCEPT_TOKEN if "{slug}" in each or "{username}" in each],
)
async def test_unknown_resource_is_404(
    client: httpx.AsyncClient, comment: Comment, owner: User, operation: str
) -> None:
    method, path = operation.split()
    envelope, fields = WRITES.get(operation, ("", {}))
    body = {envelope: fields} if envelope else None
    for name in ("nothing", "x" * 5000, "%F0%9F%98%80", "a%2Fb", "%00", "%C3%28"):
        url = "/api" + path.format(slug=name, username=name, id=comment.id)
        response = await client.request(method, url, json=body, headers=bearer(owner))
        errors = assert_refused(response, 404, 422)
        if response.status_code == 404 and name in {"nothing", "x" * 5000}:
            resource = "profile" if "{username}" in path else "article"
            assert errors == {resource: ["not found"]}


@pytest.mark.parametrize("number", ["0", "-1", "1.5", "x", str(2**63), "9" * 5000, "%00"])
async def test_invalid_comment_id_is_rejected(
    client: httpx.AsyncClient, comment: Comment, owner: User, number: str
) -> None:
    url = f"/api/articles/theirs/comments/{number}"
    assert_refused(await client.delete(url, headers=bearer(owner)), 404, 422)


async def test_resource_of_another_user_is_403(
    client: httpx.AsyncClient, session: AsyncSession, comment: Comment, owner: User
) -> None:
    other_user = await create_user(session)
    await create_article(session, author=owner, slug="draft", published=False)
    await create_article(session, author=other_user, slug="elsewhere")
    change = {"article": ARTICLE}
    for method, path, body, status in (
        ("PUT", "/articles/theirs", change, 403),
        ("DELETE", "/articles/theirs", None, 403),
        ("DELETE", f"/articles/theirs/comments/{comment.id}", None, 403),
        ("DELETE", f"/articles/elsewhere/comments/{comment.id}", None, 404),
        ("PUT", "/articles/draft", change, 404),
        ("DELETE", "/articles/draft", None, 404),
        ("GET", "/articles/draft", None, 404),
        ("GET", "/articles/draft/comments", None, 404),
        ("POST", "/articles/draft/comments", {"comment": {"body": "x"}}, 404),
        ("POST", "/articles/draft/favorite", None, 404),
    ):
        response = await client.request(
            method, f"/api{path}", json=body, headers=bearer(other_user)
        )
        concerns_comment = str(comment.id) in path
        resource = "comment" if concerns_comment else "article"
        message = "forbidden" if status == 403 else "not found"
        assert assert_refused(response, status) == {resource: [message]}


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=-1",
        "limit=x",
        "limit=1.5",
        "limit=",
        "limit=" + "9" * 30,
        "offset=-1",
        "offset=x",
        "offset=10001",
        "author=" + "x" * 51,
        "favorited=" + "x" * 51,
        "tag=" + "x" * 51,
        "author=%00",
        "favorited=%00",
        "tag=%00",
    ],
)
async def test_invalid_query_is_rejected(
    client: httpx.AsyncClient, comment: Comment, query: str
) -> None:
    errors = assert_refused(await client.get(f"/api/articles?{query}"), 422)
    assert list(errors) == [query.partition("=")[0]]


@pytest.mark.parametrize("operation", WRITES)
async def test_null_is_rejected_unless_it_clears_a_field(
    client: httpx.AsyncClient, comment: Comment, owner: User, operation: str
) -> None:
    method, path = operation.split()
    envelope, fields = WRITES[operation]
    optional = {"tagList"} if envelope == "article" else set()
    if path == "/user":
        optional = {"username", "email", "password", "image"}
    for name in {*fields, *optional}:
        body = {envelope: {**fields, name: None}}
        response = await client.request(
            method, path_with_ids(path, comment), json=body, headers=bearer(owner)
        )
        if path == "/user" and name in {"bio", "image"}:
            assert response.status_code == 200
            assert response.json()["user"][name] is None
        else:
            assert assert_refused(response, 422) == {name: ["can't be blank"]}


@pytest.mark.parametrize(
    ("body", "status"), [("test", 201), ("x", 201), ("", 422), (" \n\t ", 422), ("\u2003", 422)]
)
async def test_article_may_be_as_short_as_one_character(
    client: httpx.AsyncClient, owner: User, body: str, status: int
) -> None:
    here = {"article": {**ARTICLE, "body": body}}
    answer = await client.post("/api/articles", json=here, headers=bearer(owner))
    assert answer.status_code == status
    if status == 422:
        assert assert_refused(answer, 422) == {"body": ["can't be blank"]}
    native = {"title": "Title", "content": body, "published": True}
    assert (
        await client.post("/articles", json=native, headers=bearer(owner))
    ).status_code == status


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"username": "ab"}, "is too short (minimum is 3)"),
        ({"username": "x" * 51}, "is too long (maximum is 50)"),
        (
            {"username": "a b c"},
            "should contain only the letters A to Z, digits, dots, underscores and hyphens",
        ),
        ({"password": "short"}, "is too short (minimum is 8)"),
        ({"password": "password"}, "is one of the most common passwords; choose another"),
        ({"email": 5}, "should be a valid string"),
    ],
)
async def test_messages_follow_the_name_of_the_field(
    client: httpx.AsyncClient, fields: dict[str, Any], message: str
) -> None:
    answer = await client.post("/api/users", json={"user": {**USER, **fields}})
    (name,) = fields
    assert assert_refused(answer, 422) == {name: [message]}


async def test_errors_without_a_field_name_the_resource(
    client: httpx.AsyncClient, session: AsyncSession, comment: Comment, owner: User
) -> None:
    blocked = await create_user(session)
    session.add(Block(blocker_id=owner.id, blocked_id=blocked.id))
    await create_article(session, author=owner, slug="closed", comment_policy=CommentPolicy.CLOSED)
    for method, path, user, body, status, errors in (
        ("PUT", "/user", owner, {}, 422, {"user": ["can't be blank"]}),
        ("PUT", "/user", owner, [], 422, {"user": ["should be an object"]}),
        (
            "PUT",
            "/user",
            owner,
            {"user": {}},
            422,
            {"user": ["can't be empty; send at least one field to change"]},
        ),
        (
            "POST",
            "/profiles/owner/follow",
            owner,
            None,
            422,
            {"profile": ["You cannot follow yourself"]},
        ),
        (
            "POST",
            "/profiles/owner/follow",
            blocked,
            None,
            403,
            {"profile": ["forbidden"], "reason": [FollowRefused.message]},
        ),
        (
            "POST",
            "/articles/closed/comments",
            blocked,
            {"comment": {"body": "x"}},
            403,
            {"comment": ["forbidden"], "reason": [CommentsClosed.message]},
        ),
        (
            "POST",
            "/articles/theirs/comments",
            owner,
            {"comment": {"body": "> " * 2000}},
            422,
            {"body": ["is nested too deeply to be rendered"]},
        ),
    ):
        answer = await client.request(method, f"/api{path}", json=body, headers=bearer(user))
        assert assert_refused(answer, status) == errors
    headers = {**bearer(owner), "Content-Type": "application/json"}
    answer = await client.put("/api/user", content=b"{", headers=headers)
    (message,) = assert_refused(answer, 422)["user"]
    assert message.startswith("is not valid JSON: ")


async def test_unknown_fields_are_ignored(
    client: httpx.AsyncClient, comment: Comment, owner: User
) -> None:
    for query in ("author=", "tag=", "favorited=", "limit=1000000", "unknown=1", "tag=🙂"):
        response = await client.get(f"/api/articles?{query}")
        assert response.status_code == 200, response.text
    body = {"article": {**ARTICLE, "slug": "x", "author": {}}, "more": 1}
    response = await client.post("/api/articles", json=body, headers=bearer(owner))
    assert response.status_code == 201
    assert response.json()["article"]["tagList"] == []


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/api", 404),
        ("POST", "/api/", 404),
        ("GET", "/api/nothing", 404),
        ("GET", "/api/articles/theirs/nothing", 404),
        ("PATCH", "/api/articles", 405),
        ("DELETE", "/api/user", 405),
        ("GET", "/api/users/login", 405),
        ("GET", "/api/articles\n", 404),
    ],
)
async def test_unknown_operation_is_404_or_405(
    client: httpx.AsyncClient, comment: Comment, method: str, path: str, status: int
) -> None:
    response = await client.request(method, path.replace("\n", "%0A"))
    errors = assert_refused(response, status)
    if status == 405:
        assert errors == {"request": ["Method not allowed"]}
        assert method not in response.headers["Allow"]
    else:
        assert errors == {"path": ["not found"]}


async def test_wrong_media_type_and_size_are_rejected(
    client: httpx.AsyncClient, comment: Comment, owner: User
) -> None:
    form = await client.post("/api/articles", data=ARTICLE, headers=bearer(owner))
    assert list(assert_refused(form, 415)) == ["request"]
    body = {"article": {**ARTICLE, "body": "x" * (5 * 1024 * 1024)}}
    large = await client.post("/api/articles", json=body, headers=bearer(owner))
    assert list(assert_refused(large, 413)) == ["request"]


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (RuntimeError("a secret"), 500, InternalError.message),
        (ServiceUnavailable(), 503, ServiceUnavailable.message),
    ],
)
async def test_failures_of_the_server_use_the_error_format(
    client: httpx.AsyncClient,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
    message: str,
) -> None:
    async def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("app.services.articles.tags.list_tags", fail)
    response = await client.get("/api/tags")
    assert assert_refused(response, status) == {"server": [message]}
    assert response.headers["X-Request-ID"]


async def test_token_in_the_url_is_refused(client: httpx.AsyncClient) -> None:
    response = await client.get("/api/articles?token=x")
    assert assert_refused(response, 400) == {"request": [CredentialsInQuery.message]}


@pytest.mark.parametrize("field", ["username", "email"])
async def test_duplicate_names_the_field(
    client: httpx.AsyncClient, owner: User, field: str
) -> None:
    taken = {"username": "OWNER", "email": "Owner@example.com"}
    body = {"user": {**USER, field: taken[field]}}
    expected = {field: ["has already been taken"]}
    assert assert_refused(await client.post("/api/users", json=body), 409) == expected
    registered = (await client.post("/api/users", json={"user": USER})).json()
    other = {"Authorization": f"Token {registered['user']['token']}"}
    changed = await client.put("/api/user", json={"user": {field: taken[field]}}, headers=other)
    assert assert_refused(changed, 422) == expected  # the contract lists 409 for creation alone


async def test_update_with_unchanged_title_keeps_custom_slug(
    client: httpx.AsyncClient, owner: User
) -> None:
    read = (await client.get("/api/articles/theirs")).json()
    read["article"]["body"] = "Something else."
    saved = await client.put("/api/articles/theirs", json=read, headers=bearer(owner))
    assert saved.json()["article"]["slug"] == "theirs"
    read["article"]["title"] = "Something else"
    saved = await client.put("/api/articles/theirs", json=read, headers=bearer(owner))
    assert saved.json()["article"]["slug"] == "something-else"


async def test_too_many_or_invalid_tags_are_rejected(
    client: httpx.AsyncClient, owner: User
) -> None:
    for tags in (
        [str(number) + "a" for number in range(21)],
        [""],
        ["!!!"],
        [5],
        "x",
        ["x" * 51],
        ["\u0958" * 26],
    ):
        body = {"article": {**ARTICLE, "tagList": tags}}
        response = await client.post("/api/articles", json=body, headers=bearer(owner))
        assert "tagList" in assert_refused(response, 422)


async def test_tags_are_sorted_but_exported_in_the_order_of_the_author(
    client: httpx.AsyncClient, owner: User
) -> None:
    body = {"article": {**ARTICLE, "tagList": ["zebra", "apple"]}}
    created = await client.post("/api/articles", json=body, headers=bearer(owner))
    read = created.json()
    assert read["article"]["tagList"] == ["apple", "zebra"]
    native = (await client.get("/articles/by-slug/title")).json()
    assert native["tags"] == ["apple", "zebra"]
    same = await client.put("/api/articles/title", json=read, headers=bearer(owner))
    assert same.json() == read
    change = {"tags": native["tags"]}
    url = f"/articles/{native['id']}"
    assert (await client.patch(url, json=change, headers=bearer(owner))).json() == native
    exported = await client.get("/articles/export", headers=bearer(owner))
    tags = {each["slug"]: each["tags"] for each in map(json.loads, exported.text.splitlines())}
    assert tags["title"] == ["zebra", "apple"]


async def test_refused_preflight_uses_the_error_format(client: httpx.AsyncClient) -> None:
    headers = {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}
    assert_refused(await client.options("/api/articles", headers=headers), 400)
    native = await client.options("/articles", headers=headers)
    assert native.json()["code"] == "invalid_request"
