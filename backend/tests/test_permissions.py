"""Every route for every kind of caller: a route that this table does not list fails the test."""

from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.roles import Role
from tests.factories import bearer, create_address, create_article, create_user

CALLERS = ("anonymous", "stranger", "owner", "editor", "admin", "disabled")

USER = {"email": "new@example.com", "username": "newname", "name": "New"}
REGISTRATION = {**USER, "password": "correct horse battery"}
ADDRESS = {"label": "home", "line1": "1 Street", "city": "Town", "country": "GB"}
ARTICLE = {"title": "Title", "content": "Long enough."}


@dataclass(frozen=True)
class Expectation:
    """What each caller gets, in the order of CALLERS, from a request to what the owner owns."""

    statuses: tuple[int, int, int, int, int, int]
    body: dict[str, Any] | None = None


def anybody(status: int, **options: Any) -> Expectation:
    """All alike; a route that reads no token does not mind a disabled user's."""
    return Expectation((status,) * 6, **options)


def reader(status: int) -> Expectation:
    """All alike, but for a token that is refused wherever one is read."""
    return Expectation((status,) * 5 + (401,))


def known(status: int, **options: Any) -> Expectation:
    return Expectation((401, status, status, status, status, 401), **options)


EXPECTED = {
    "POST /auth/login": anybody(422),
    "GET /auth/me": known(200),
    "POST /users": anybody(201, body=REGISTRATION),
    "GET /users": reader(200),
    "GET /users/me": known(200),
    "PATCH /users/me": known(200, body={"name": "New"}),
    "GET /users/{user_id}": reader(200),
    "PUT /users/{user_id}": Expectation((401, 403, 200, 403, 200, 401), body=USER),
    "DELETE /users/{user_id}": Expectation((401, 403, 204, 403, 204, 401)),
    "GET /users/{user_id}/addresses": Expectation((401, 403, 200, 403, 200, 401)),
    "POST /users/{user_id}/addresses": Expectation((401, 403, 201, 403, 201, 401), body=ADDRESS),
    "PUT /users/{user_id}/addresses/{address_id}": Expectation(
        (401, 403, 200, 403, 200, 401), body=ADDRESS
    ),
    "DELETE /users/{user_id}/addresses/{address_id}": Expectation((401, 403, 204, 403, 204, 401)),
    "GET /articles": reader(200),
    "GET /articles/{article_id}": reader(200),
    "GET /articles/{draft_id}": Expectation((404, 404, 200, 200, 200, 401)),
    "POST /articles": known(201, body=ARTICLE),
    "PATCH /articles/{article_id}": Expectation((401, 403, 200, 200, 200, 401), body={}),
    "PATCH /articles/{draft_id}": Expectation((401, 404, 200, 200, 200, 401), body={}),
    "DELETE /articles/{article_id}": Expectation((401, 403, 204, 204, 204, 401)),
    "DELETE /articles/{draft_id}": Expectation((401, 404, 204, 204, 204, 401)),
    "GET /health/live": anybody(200),
    "GET /health/ready": anybody(200),
    "GET /raw/users": reader(200),
    "POST /raw/users": anybody(201, body=REGISTRATION),
    "GET /raw/users/{user_id}": reader(200),
    "PUT /raw/users/{user_id}": Expectation((401, 403, 200, 403, 200, 401), body=USER),
    "DELETE /raw/users/{user_id}": Expectation((401, 403, 204, 403, 204, 401)),
}


@pytest.mark.parametrize("caller", CALLERS)
@pytest.mark.parametrize("route", EXPECTED)
async def test_who_may_do_what(
    client: httpx.AsyncClient, session: AsyncSession, route: str, caller: str
) -> None:
    expectation = EXPECTED[route]
    owner = await create_user(session)
    callers = {
        "owner": owner,
        "stranger": await create_user(session),
        "editor": await create_user(session, role=Role.EDITOR),
        "admin": await create_user(session, role=Role.ADMIN),
        "disabled": await create_user(session, is_active=False),
    }
    ids = {
        "user_id": owner.id,
        "address_id": (await create_address(session, user=owner)).id,
        "article_id": (await create_article(session, author=owner)).id,
        "draft_id": (await create_article(session, author=owner, published=False)).id,
    }
    method, path = route.split()
    headers = {} if caller == "anonymous" else bearer(callers[caller])
    response = await client.request(
        method, path.format(**ids), json=expectation.body, headers=headers
    )
    assert response.status_code == expectation.statuses[CALLERS.index(caller)], response.text


def test_every_route_is_in_the_table(shared_app: FastAPI) -> None:
    routes = {
        f"{method} {route.path_format}"
        for route in iter_route_contexts(shared_app.routes)
        if isinstance(route.original_route, APIRoute) and route.include_in_schema
        for method in route.methods or ()
    }
    listed = {route.replace("{draft_id}", "{article_id}") for route in EXPECTED}
    assert routes == listed
