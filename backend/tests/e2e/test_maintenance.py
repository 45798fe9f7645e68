"""Maintenance mode reaches all replicas, gets into the workers of gunicorn, and pauses jobs."""

from contextlib import ExitStack

import pytest

from tests.databases import execute
from tests.processes import (
    GUNICORN,
    Checkout,
    pressroom,
    serving,
    wait_until,
)

pytestmark = pytest.mark.e2e

NEW = {
    "email": "ada@example.com",
    "username": "ada",
    "name": "Ada",
    "password": "a better password",
}


def test_command_reaches_all_replicas(checkout: Checkout, own_database: str) -> None:
    with ExitStack() as stack:
        apis = [
            stack.enter_context(serving(checkout, DATABASE_URL=own_database)),
            stack.enter_context(
                serving(checkout, GUNICORN, DATABASE_URL=own_database, WEB_CONCURRENCY="2")
            ),
        ]

        def statuses() -> set[int]:
            body = {**NEW, "password": ""}  # invalid, so that nothing is created
            return {api.client.post("/users", json=body).status_code for api in apis * 4}

        def command(*arguments: str) -> None:
            done = pressroom(checkout, "maintenance", *arguments, DATABASE_URL=own_database)
            assert done.wait() == 0, done.log

        assert statuses() == {422}
        command("begin", "We are moving.")
        wait_until(lambda: statuses() == {503}, "all replicas refuse writes", seconds=10)
        refused = apis[0].client.post("/users", json=NEW)
        assert refused.json()["message"] == "We are moving."
        assert {api.client.get("/articles").status_code for api in apis} == {200}
        assert {api.client.get("/health/ready").status_code for api in apis} == {200}
        command("end")
        wait_until(lambda: statuses() == {422}, "all replicas accept writes", seconds=10)


def test_process_that_starts_during_maintenance_refuses_at_once(
    checkout: Checkout, own_database: str
) -> None:
    execute(
        own_database,
        "INSERT INTO installation (id, uuid, maintenance, maintenance_since)"
        " VALUES (1, gen_random_uuid(), 'We are moving.', now())",
    )
    with serving(checkout, DATABASE_URL=own_database) as api:
        assert api.client.post("/users", json=NEW).status_code == 503
