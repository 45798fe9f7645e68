"""Mass assignment: read-only fields are rejected by name. Huge passwords are rejected unhashed."""

from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

import httpx
import pytest
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.auth import security
from app.core.enums import Role
from app.models import Address, Article, User
from tests.databases import database_within, savepoint_of
from tests.factories import (
    PASSWORD,
    bearer,
    create_address,
    create_article,
    create_user,
)

Json = dict[str, Any]

MOMENT = "2000-01-01T00:00:00Z"
FIELDS: Json = {
    "id": 1,
    "role": "admin",
    "is_active": True,
    "is_admin": True,
    "hashed_password": "$2b$04$" + "x" * 53,
    "email_verified_at": MOMENT,
    "created_at": MOMENT,
    "updated_at": MOMENT,
    "user_id": 1,
    "author_id": 1,
    "author": {"id": 1},
    "scopes": ["users:write"],
    "session_id": 1,
    "__class__": {"__init__": {}},
    "Role": "admin",
}


class World(NamedTuple):
    """The rows that requests can change, their owner and an administrator."""

    admin: User
    owner: User
    article: Article
    address: Address


class Target(NamedTuple):
    """A valid request: its body, and whether the administrator sends it."""

    method: str
    path: str
    body: Json
    by_admin: bool = False
    without: frozenset[str] = frozenset()
    """Fields that are allowed in the body."""


ADDRESS = {"label": "home", "line1": "1 Street", "city": "Town", "country": "GB"}
ARTICLE = {"title": "Title", "content": "Long enough."}
PERSON = {"email": "owner@example.com", "username": "owner", "name": "Owner"}

TARGETS: dict[str, Target] = {
    "registering": Target(
        "POST",
        "/users",
        {**PERSON, "email": "new@example.com", "username": "new", "password": PASSWORD},
    ),
    "registering, in raw SQL": Target(
        "POST",
        "/raw/users",
        {**PERSON, "email": "new@example.com", "username": "new", "password": PASSWORD},
    ),
    "changing oneself": Target("PATCH", "/users/me", {"name": "Changed"}),
    "replacing oneself": Target("PUT", "/users/{owner}", PERSON),
    "replacing oneself, in raw SQL": Target("PUT", "/raw/users/{owner}", PERSON),
    "replacing another as an admin": Target("PUT", "/users/{owner}", PERSON, by_admin=True),
    "giving a role": Target(
        "PATCH", "/users/{owner}/role", {"role": "editor"}, True, frozenset({"role"})
    ),
    "writing an article": Target("POST", "/articles", ARTICLE),
    "changing an article": Target("PATCH", "/articles/{article}", {"title": "Changed"}),
    "adding an address": Target("POST", "/users/{owner}/addresses", ADDRESS),
    "replacing an address": Target("PUT", "/users/{owner}/addresses/{address}", ADDRESS),
    "making an API key": Target(
        "POST",
        "/users/me/api-keys",
        {"name": "program", "scopes": ["articles:read"], "password": PASSWORD},
        without=frozenset({"scopes"}),
    ),
    "changing one's password": Target(
        "POST",
        "/users/me/password",
        {"current_password": PASSWORD, "new_password": "staple of a better battery"},
    ),
    "changing one's email": Target(
        "POST", "/users/me/email", {"email": "new@example.com", "password": PASSWORD}
    ),
    "asking for a second factor": Target("POST", "/auth/second-factor", {"password": PASSWORD}),
    "refreshing": Target("POST", "/auth/refresh", {"refresh_token": "prt_1_x"}),
    "asking for a new password": Target(
        "POST", "/auth/password/forgot", {"email": "owner@example.com"}
    ),
    "choosing a new password": Target(
        "POST", "/auth/password/reset", {"token": "x" * 43, "password": PASSWORD}
    ),
}


@pytest.fixture(scope="module")
async def world(module_connection: AsyncConnection) -> World:
    async with database_within(module_connection).unit_of_work() as session:
        owner = await create_user(session, username="owner", email=PERSON["email"])
        return World(
            admin=await create_user(session, role=Role.ADMIN),
            owner=owner,
            article=await create_article(session, author=owner),
            address=await create_address(session, user=owner),
        )


@pytest.fixture
async def connection(
    module_connection: AsyncConnection, world: World
) -> AsyncIterator[AsyncConnection]:
    """The connection of all tests, in a savepoint that is rolled back at the end of each."""
    async with savepoint_of(module_connection):
        yield module_connection


async def rows(session: AsyncSession) -> list[str]:
    """Return all rows that a request could change, as text."""
    tables = ("users", "articles", "addresses", "api_keys", "second_factors", "mails")
    found: list[str] = []
    for table in tables:
        query = text(f"SELECT t::text FROM {table} AS t ORDER BY 1")
        found += (await session.scalars(query)).all()
    return found


async def send(client: httpx.AsyncClient, world: World, target: Target, **extra: Any) -> int:
    path = target.path.format(
        owner=world.owner.id, article=world.article.id, address=world.address.id
    )
    headers = bearer(world.admin if target.by_admin else world.owner)
    body = {**target.body, **extra}
    return (await client.request(target.method, path, json=body, headers=headers)).status_code


@pytest.mark.parametrize("target", TARGETS)
async def test_unknown_and_read_only_fields_are_rejected(
    client: httpx.AsyncClient, session: AsyncSession, world: World, target: str
) -> None:
    before = await rows(session)
    for field, value in FIELDS.items():
        if field not in TARGETS[target].without:
            status = await send(client, world, TARGETS[target], **{field: value})
            assert status == 422, field
    assert await rows(session) == before
    assert await send(client, world, TARGETS[target]) in {200, 201, 202, 204, 400, 401}


@pytest.mark.parametrize("field", FIELDS)
async def test_login_form_rejects_additional_fields(
    client: httpx.AsyncClient, world: World, field: str
) -> None:
    form = {"username": "owner", "password": PASSWORD, field: "admin"}
    response = await client.post("/auth/login", data=form)
    assert response.status_code == 422


@pytest.mark.parametrize("query", ["role=admin", "is_active=false", "author_id=1", "id=1"])
async def test_query_parameters_set_no_fields(
    client: httpx.AsyncClient, session: AsyncSession, world: World, query: str
) -> None:
    await client.patch(f"/users/me?{query}", json={}, headers=bearer(world.owner))
    owner = await session.get_one(User, world.owner.id)
    assert (owner.role, owner.is_active) == (Role.AUTHOR, True)


PASSWORDS: dict[str, tuple[str, Callable[[str], Json]]] = {
    "registering": (
        "/users",
        lambda huge: {**PERSON, "username": "new", "email": "new@example.com", "password": huge},
    ),
    "changing it, the old one": (
        "/users/me/password",
        lambda huge: {"current_password": huge, "new_password": "staple of a better battery"},
    ),
    "changing it, the new one": (
        "/users/me/password",
        lambda huge: {"current_password": PASSWORD, "new_password": huge},
    ),
    "resetting it": ("/auth/password/reset", lambda huge: {"token": "x" * 43, "password": huge}),
    "changing one's email": (
        "/users/me/email",
        lambda huge: {"email": "new@example.com", "password": huge},
    ),
    "asking for a second factor": ("/auth/second-factor", lambda huge: {"password": huge}),
    "disabling the second factor": (
        "/auth/second-factor/disable",
        lambda huge: {"password": huge, "code": "000000"},
    ),
    "renewing recovery codes": (
        "/auth/second-factor/recovery-codes",
        lambda huge: {"password": huge, "code": "000000"},
    ),
}


@pytest.fixture
def _no_hashing(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    async def refuse(work: object) -> None:
        raise AssertionError("hashed")

    monkeypatch.setattr(security, "_run_in_hashing_thread", refuse)


@pytest.mark.usefixtures("_no_hashing")
@pytest.mark.parametrize("length", [129, 1_000_000])
class TestHugePasswords:
    @pytest.mark.parametrize("place", PASSWORDS)
    async def test_huge_passwords_are_not_hashed(
        self, client: httpx.AsyncClient, world: World, place: str, length: int
    ) -> None:
        path, body = PASSWORDS[place]
        headers = bearer(world.owner)
        response = await client.post(path, json=body("x" * length), headers=headers)
        assert response.status_code == 422
        assert len(response.content) < 2000

    async def test_huge_passwords_are_not_hashed_at_login(
        self, client: httpx.AsyncClient, length: int
    ) -> None:
        form = {"username": "owner", "password": "x" * length}
        response = await client.post("/auth/login", data=form)
        assert response.status_code == 422
