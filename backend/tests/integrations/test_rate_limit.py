"""RateLimit and RateLimit-Policy, in the syntax of draft-ietf-httpapi-ratelimit-headers."""

import re

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import rates
from app.core.config import get_settings
from app.core.enums import Role
from app.core.rates import Rate, leaky_bucket
from app.services.accounts import rate_limits
from tests.factories import PASSWORD, bearer, create_article, create_user
from tests.security.conftest import Install, Timeline, install, timeline

__all__ = ["install", "timeline"]

_ITEM = re.compile(r'"([a-z_]+)"((?:;[a-z]+=(?:\d{1,15}|"[a-z-]+"))+)')


def parsed(value: str) -> dict[str, dict[str, int | str]]:
    """Parse a list of strings with parameters, which are integers or strings."""
    found: dict[str, dict[str, int | str]] = {}
    for item in value.split(", "):
        match = _ITEM.fullmatch(item)
        assert match is not None, item
        pairs = (part.split("=") for part in match[2][1:].split(";"))
        found[match[1]] = {
            name: text.strip('"') if text.startswith('"') else int(text) for name, text in pairs
        }
    return found


async def test_success_and_refusal_tell_what_is_left(
    client: httpx.AsyncClient, session: AsyncSession, install: Install, timeline: Timeline
) -> None:
    install(LIMITS="comments=3/hour")
    user = await create_user(session)
    url = f"/articles/{(await create_article(session, author=user)).id}/comments"

    async def comment() -> httpx.Response:
        return await client.post(url, json={"content": "Hello."}, headers=bearer(user))

    for left in (2, 1, 0):
        response = await comment()
        assert response.status_code == 201
        assert response.headers["RateLimit-Policy"] == '"comments";q=3;w=3600'
        assert parsed(response.headers["RateLimit"]) == {"comments": {"r": left, "t": 1200}}
    refused = await comment()
    assert refused.status_code == 429
    assert refused.headers["RateLimit-Policy"] == '"comments";q=3;w=3600'
    assert parsed(refused.headers["RateLimit"]) == {"comments": {"r": 0, "t": 1200}}
    assert refused.headers["Retry-After"] == "1200"
    timeline.advance(1200)
    assert parsed((await comment()).headers["RateLimit"]) == {"comments": {"r": 0, "t": 1200}}


async def test_client_that_obeys_is_never_refused(
    client: httpx.AsyncClient, session: AsyncSession, install: Install, timeline: Timeline
) -> None:
    install(LIMITS="reactions=4/minute")
    user = await create_user(session)
    url = f"/articles/{(await create_article(session, author=user)).id}/favorite"
    for _ in range(12):
        response = await client.put(url, headers=bearer(user))
        assert response.status_code == 200
        state = parsed(response.headers["RateLimit"])["reactions"]
        if state["r"] == 0:
            timeline.advance(int(state["t"]))


async def test_each_limit_of_a_request_is_listed(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    user = await create_user(session, role=Role.EDITOR)
    body = {"title": "Text", "content": "Twenty bytes of text", "tags": ["new"]}
    response = await client.post("/articles", json=body, headers=bearer(user))
    policies = parsed(response.headers["RateLimit-Policy"])
    states = parsed(response.headers["RateLimit"])
    assert set(policies) == set(states) == {"articles", "text_written", "new_tags"}
    assert policies["articles"] == {"q": 10_000, "w": 3600}
    assert policies["text_written"]["qu"] == "content-bytes"
    assert states["text_written"]["r"] == int(policies["text_written"]["q"]) - 20


async def test_override_of_the_user_is_the_quota(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    user, admin = await create_user(session), await create_user(session, role=Role.ADMIN)
    new = {"limits": {"reactions": 5}}
    changed = await client.put(f"/users/{user.id}/limits", json=new, headers=bearer(admin))
    assert changed.status_code == 200
    url = f"/articles/{(await create_article(session, author=user)).id}/favorite"
    response = await client.put(url, headers=bearer(user))
    assert response.headers["RateLimit-Policy"] == '"reactions";q=5;w=3600'


async def test_reads_and_failures_have_no_fields(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    user = await create_user(session)
    article = await create_article(session, author=user, slug="taken")
    responses = [
        await client.get(f"/articles/{article.id}", headers=bearer(user)),
        await client.post(
            "/articles",
            json={"title": "New", "content": "Long enough", "slug": "taken"},
            headers=bearer(user),
        ),
        await client.put(f"/articles/{article.id}/favorite"),
    ]
    assert [each.status_code for each in responses] == [200, 409, 401]
    for response in responses:
        assert "RateLimit" not in response.headers
        assert "RateLimit-Policy" not in response.headers


async def test_replayed_response_counts_nothing(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    user = await create_user(session)
    headers = {**bearer(user), "Idempotency-Key": "once"}
    body = {"title": "Once", "content": "Long enough"}
    first, second = [await client.post("/articles", json=body, headers=headers) for _ in range(2)]
    assert "RateLimit" in first.headers
    assert second.headers["Idempotency-Replayed"] == "true"
    assert "RateLimit" not in second.headers


async def test_login_reveals_no_state_of_names(
    client: httpx.AsyncClient, session: AsyncSession, install: Install
) -> None:
    """A name that exists, one that does not and a wrong password get the same fields."""
    install(ATTEMPTS_PER_NAME="2")
    await create_user(session, username="ada")
    bodies: dict[str, list[tuple[int, dict[str, str]]]] = {}
    for name in ("ada", "nobody"):
        for _ in range(4):
            form = {"username": name, "password": "wrong password"}
            response = await client.post("/auth/login", data=form)
            fields = {
                field: value
                for field, value in response.headers.items()
                if field.startswith("ratelimit")
            }
            bodies.setdefault(name, []).append((response.status_code, fields))
    assert bodies["ada"] == bodies["nobody"]
    assert bodies["ada"][0] == (401, {})
    status, fields = bodies["ada"][-1]
    quota = get_settings().attempts_per_address
    assert status == 429
    assert parsed(fields["ratelimit"])["attempts"]["r"] == 0
    assert parsed(fields["ratelimit-policy"]) == {"attempts": {"q": quota, "w": 1800}}


async def test_login_tells_the_users_own_limit(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    await create_user(session, username="ada")
    form = {"username": "ada", "password": PASSWORD}
    response = await client.post("/auth/login", data=form)
    assert set(parsed(response.headers["RateLimit-Policy"])) == {"attempts", "logins"}
    assert set(parsed(response.headers["RateLimit"])) == {"logins"}


async def test_registration_does_not_tell_what_others_have_used(client: httpx.AsyncClient) -> None:
    new = {"username": "ada", "email": "a@example.com", "name": "A", "password": PASSWORD}
    response = await client.post("/users", json=new)
    assert response.status_code == 201
    assert set(parsed(response.headers["RateLimit-Policy"])) == {"attempts", "registrations"}
    assert "RateLimit" not in response.headers


async def test_realworld_api_has_the_fields(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    user = await create_user(session)
    article = await create_article(session, author=user)
    url = f"/api/articles/{article.slug}/favorite"
    response = await client.post(url, headers=bearer(user))
    assert response.status_code == 200, response.text
    assert set(parsed(response.headers["RateLimit"])) == {"reactions"}


async def test_front_ends_may_read_the_fields(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    user = await create_user(session)
    url = f"/articles/{(await create_article(session, author=user)).id}/favorite"
    headers = {**bearer(user), "Origin": "http://localhost:3000"}
    response = await client.put(url, headers=headers)
    exposed = response.headers["Access-Control-Expose-Headers"].split(", ")
    assert {"RateLimit", "RateLimit-Policy"} <= set(exposed)


def test_openapi_declares_the_fields(app: FastAPI) -> None:
    document = app.openapi()
    operations = document["paths"]["/articles"]
    responses = operations["post"]["responses"]
    limited = document["components"]["responses"][responses["429"]["$ref"].rpartition("/")[2]]
    for response in (responses["201"], limited):
        assert {"RateLimit", "RateLimit-Policy"} <= set(response["headers"])
    assert "RateLimit" not in operations["get"]["responses"]["200"].get("headers", {})


@pytest.mark.parametrize(
    ("level", "quota", "expected"),
    [
        (0.0, 10, (10, 360)),
        (0.5, 10, (9, 180)),
        (1.0, 10, (9, 360)),
        (9.5, 10, (0, 180)),
        (10.0, 10, (0, 360)),
        (12.0, 10, (0, 1080)),
        (1.0, 0, (0, 3600)),
    ],
)
def test_bucket_tells_when_the_next_unit_is_available(
    level: float, quota: int, expected: tuple[int, int]
) -> None:
    rate = leaky_bucket("x", level=level, quota=quota, window=3600)
    assert (rate.remaining, rate.reset) == expected


def test_numbers_fit_into_structured_fields() -> None:
    huge = {"x": Rate("x", 2**53, 60, 2**53, 1)}
    assert parsed(rates.policies(huge))["x"]["q"] == 999_999_999_999_999
    assert parsed(rates.states(huge))["x"]["r"] == 999_999_999_999_999


def test_policy_of_attempts_names_the_window_of_addresses() -> None:
    assert rate_limits.BY_ADDRESS.total_seconds() == 1800
