"""Undeclared query parameters are rejected, so that caches do not store their responses."""

import re

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession

from app.conduit.schemas import ArticlesQuery
from app.core.config import PROJECT_DIR
from app.http.routing import StrictRoute
from app.main import create_app
from tests.factories import create_article, create_user

ROUTES = sorted(
    (method, re.sub(r"\{number[^}]*\}|\{\w+_id[^}]*\}", "1", route.path))
    for route in create_app().routes
    if isinstance(route, StrictRoute)
    for method in route.methods or ()
)


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_every_operation_rejects_unknown_parameters(
    client: httpx.AsyncClient, method: str, path: str
) -> None:
    answer = await client.request(method, re.sub(r"\{\w+[^}]*\}", "x", path), params={"x-1": "2"})
    assert answer.status_code == 422, answer.text
    body = answer.json()
    assert body["code"] == "validation_error"
    assert body["detail"][0]["loc"] == ["query", "x-1"]
    assert "query.x-1: Unknown query parameter; known here: " in body["message"]


def test_operations_are_found(app: FastAPI) -> None:
    assert len(ROUTES) > 90
    described = sum(len(operations) for operations in app.openapi()["paths"].values())
    assert abs(len(ROUTES) - described) < 10


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", []),
        ("limit=1", []),
        ("limit=1&skip=0", []),
        ("li%6dit=1", []),
        ("tag=a&tag=b", []),
        ("&", [""]),
        ("&&", [""]),
        ("limit=1&", [""]),
        ("&limit=1", [""]),
        ("limit=1&&skip=0", [""]),
        ("=", [""]),
        ("=1", [""]),
        ("limit=1&limit=1", ["limit"]),
        ("limit=1&limit=2", ["limit"]),
        ("limit=1&li%6Dit=1", ["limit"]),
        ("Limit=1", ["Limit"]),
        ("limit[]=1", ["limit[]"]),
        ("limit;=1", ["limit;"]),
        ("utm_source=a&fbclid=b&limit=1", ["utm_source", "fbclid"]),
        ("%00=1", ["\0"]),
        ("%ff=1", ["\ufffd"]),
        ("a" * 500 + "=1", ["a" * 100]),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_unknown_repeated_and_empty_parameters_are_rejected(
    client: httpx.AsyncClient, session: AsyncSession, method: str, query: str, names: list[str]
) -> None:
    await create_article(session, author=await create_user(session))
    answer = await client.request(method, f"/articles?{query}")
    assert answer.status_code == (422 if names else 200)
    if method == "GET" and names:
        assert [each["loc"] for each in answer.json()["detail"]] == [["query", n] for n in names]


async def test_error_names_known_parameters(client: httpx.AsyncClient) -> None:
    one = await client.get("/tags?offset=1")
    assert one.json()["detail"][0]["msg"].endswith("known here: limit, q, skip, sort")
    other = await client.get("/robots.txt?v=1")
    assert other.json()["detail"][0]["msg"].endswith("known here: none")


async def test_error_is_short_for_many_unknown_parameters(client: httpx.AsyncClient) -> None:
    query = "&".join(f"{number}=" for number in range(1000))
    answer = await client.get(f"/articles?{query}")
    assert answer.status_code == 422
    assert len(answer.json()["detail"]) == 20


@pytest.mark.parametrize("query", ["x=1", "&", "limit=1&limit=2", "limit=1&x=2"])
async def test_realworld_api_ignores_unknown_parameters(
    client: httpx.AsyncClient, query: str
) -> None:
    assert (await client.get(f"/api/articles?{query}")).status_code == 200


@pytest.mark.checkout
def test_edge_caches_known_realworld_parameters_only() -> None:
    template = PROJECT_DIR / "nginx" / "templates" / "edge.conf.template"
    named = re.search(r"\(\((\w+(?:\|\w+)*)\)=", template.read_text())
    assert named is not None
    assert set(named[1].split("|")) == set(ArticlesQuery.model_fields)
