"""Clocks of machines that differ by seconds do no harm: processes follow that of the primary."""

from collections.abc import Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import pytest

from tests.databases import execute, migrated_database
from tests.postgres import fetch
from tests.processes import Api, Checkout, serving, wait_until

pytestmark = pytest.mark.e2e

SKEW = 8
"""Seconds by which each clock is wrong: together more than the leeway of access tokens."""

SKEWED = """
import datetime
from app.core import clock
exact, skew = clock.system_now, datetime.timedelta(seconds={})
clock.system_now = lambda: exact() + skew
"""


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    with migrated_database() as url:
        yield url


@pytest.fixture(scope="module")
def replicas(checkout: Checkout, database: str) -> Iterator[list[Api]]:
    """Start a process whose clock is ahead, and one whose clock is behind."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(serving(checkout, first=SKEWED.format(skew), DATABASE_URL=database))
            for skew in (SKEW, -SKEW)
        ]


@pytest.fixture(params=[False, True], ids=["ahead first", "behind first"])
def pair(request: pytest.FixtureRequest, replicas: list[Api]) -> list[Api]:
    """Return both processes: the first one writes, and the second one reads."""
    return replicas[::-1] if request.param else replicas


def publish(api: Api, headers: dict[str, str], **fields: Any) -> dict[str, Any]:
    article = {"title": "On time", "content": "Long enough.", "published": True, **fields}
    response = api.client.post("/articles", json=article, headers=headers)
    assert response.status_code == 201, response.text
    published: dict[str, Any] = response.json()
    return published


def is_public(api: Api, url: str) -> bool:
    return api.client.get(url).status_code == 200


def new_name() -> str:
    return f"user-{uuid4().hex[:8]}"


def test_new_article_is_public_in_other_processes(pair: list[Api], database: str) -> None:
    writer, reader = pair
    article = publish(writer, writer.bearer(new_name()))
    assert article["status"] == "published"
    assert reader.client.get(f"/articles/{article['id']}").status_code == 200
    listed = reader.client.get("/articles").json()
    assert listed[0]["id"] == article["id"]
    changes = reader.client.get("/changes").json()["changes"]
    assert [each["kind"] for each in changes if each["article_id"] == article["id"]] == ["created"]
    kinds = fetch(database, "SELECT kind FROM events WHERE article_id = $1", article["id"])
    assert [row["kind"] for row in kinds] == ["article.published"]


def test_edited_article_keeps_its_former_address(pair: list[Api]) -> None:
    """Only public articles keep former slugs: both processes know that it is public."""
    writer, editor = pair
    headers = writer.bearer(new_name())
    article = publish(writer, headers, title=f"Before {uuid4().hex}")
    renamed = editor.client.patch(
        f"/articles/{article['id']}", json={"slug": f"after-{uuid4().hex}"}, headers=headers
    )
    assert renamed.status_code == 200
    former = writer.client.get(f"/articles/by-slug/{article['slug']}", follow_redirects=False)
    assert former.status_code == 301


def test_sessions_work_in_other_processes(pair: list[Api]) -> None:
    issuer, other = pair
    name = new_name()
    issuer.bearer(name)
    tokens = issuer.log_in(name).json()
    access = {"Authorization": f"Bearer {tokens['access_token']}"}
    assert other.client.get("/users/me", headers=access).status_code == 200
    body = {"refresh_token": tokens["refresh_token"]}
    refreshed = issuer.client.post("/auth/refresh", json=body)
    repeated = other.client.post("/auth/refresh", json=body)
    assert repeated.status_code == 200
    assert repeated.json()["refresh_token"] == refreshed.json()["refresh_token"]


def test_scheduled_article_is_public_everywhere_at_its_time(pair: list[Api]) -> None:
    writer, reader = pair
    moment = datetime.now(UTC) + timedelta(seconds=2)
    article = publish(writer, writer.bearer(new_name()), published_at=moment.isoformat())
    assert article["status"] == "scheduled"
    url = f"/articles/{article['id']}"
    for api in (reader, writer):
        wait_until(partial(is_public, api, url), "it is public")
        assert moment <= datetime.now(UTC) < moment + timedelta(seconds=SKEW / 2)


def test_lockout_ends_at_the_same_time_in_all_processes(replicas: list[Api], database: str) -> None:
    name, wrong = new_name(), {"current_password": "wrong", "new_password": f"new {uuid4().hex}"}
    headers = replicas[0].bearer(name)
    replicas[0].client.post("/users/me/password", json=wrong, headers=headers)
    execute(database, "UPDATE attempts SET closed_until = clock_timestamp() + interval '30 s'")
    for api in replicas:
        refused = api.client.post("/users/me/password", json=wrong, headers=headers)
        assert refused.status_code == 429
        assert 30 - SKEW / 2 < int(refused.headers["Retry-After"]) < 30 + SKEW / 2
    execute(database, "UPDATE attempts SET closed_until = NULL")
