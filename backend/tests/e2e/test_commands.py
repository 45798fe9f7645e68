"""The commands work, and report errors in a sentence without a traceback."""

import re
from collections.abc import Sequence
from itertools import count

import pytest

from tests.postgres import fetch
from tests.processes import Api, Checkout, output_of, pressroom

pytestmark = pytest.mark.e2e

PASSWORD = "a long enough password"
GOOD = {"email": "root@example.com", "username": "root", "password": PASSWORD}
BAD = {
    "input": ({"email": "no-address", "password": "short"}, ("email: ", "password: ")),
    "taken": ({"username": "ROOT", "email": "other@example.com"}, ("Username already exists",)),
}


def create_admin(**changes: str) -> tuple[Sequence[str], dict[str, str]]:
    """Return the arguments and the environment of `pressroom create-admin`."""
    account = {**GOOD, **changes}
    arguments = ("create-admin", "--email", account["email"], "--username", account["username"])
    return arguments, {"PRESSROOM_ADMIN_PASSWORD": account["password"], "BCRYPT_COST": "4"}


def test_created_admin_can_log_in(checkout: Checkout, api: Api, api_database: str) -> None:
    arguments, environment = create_admin()
    with pressroom(checkout, *arguments, **environment, DATABASE_URL=api_database) as created:
        assert created.wait() == 0
        assert re.fullmatch(r"Created administrator root \(id \d+\)", output_of(created))
    token = api.log_in("root", password=PASSWORD).json()["access_token"]
    me = api.client.get("/users/me", headers={"Authorization": f"Bearer {token}"})
    assert me.json()["role"] == "admin"

    accounts = {name: create_admin(**changes) for name, (changes, _) in BAD.items()}
    processes = {
        name: pressroom(checkout, *arguments, **environment, DATABASE_URL=api_database)
        for name, (arguments, environment) in accounts.items()
    }
    try:
        for name, process in processes.items():
            assert process.wait() == 1, name
            assert all(sentence in output_of(process) for sentence in BAD[name][1])
            assert "Traceback" not in process.log
            assert BAD[name][0].get("password", PASSWORD) not in process.log
            assert len(output_of(process)) < 300
    finally:
        for process in processes.values():
            process.kill()
    assert len(fetch(api_database, "SELECT id FROM users WHERE role = 'admin'")) == 1


def test_seed_adds_the_requested_rows(checkout: Checkout, own_database: str) -> None:
    arguments = ("seed", "--users", "3", "--articles", "40")
    with pressroom(checkout, *arguments, DATABASE_URL=own_database, BCRYPT_COST="4") as seeded:
        assert seeded.wait() == 0, seeded.log
        assert "Added 3 users" in output_of(seeded)
        assert "Added 40 articles" in output_of(seeded)
    (row,) = fetch(
        own_database,
        "SELECT (SELECT count(*) FROM users) users, count(*) articles, avg(length(content)) size"
        " FROM articles",
    )
    assert (row["users"], row["articles"]) == (3, 40)
    assert 1500 < row["size"] < 2500


def test_invalid_seed_arguments_are_reported(checkout: Checkout, own_database: str) -> None:
    nowhere = "postgresql://postgres@127.0.0.1:1/nowhere"
    cases = [
        (("--users", "0", "--articles", "1"), own_database, "Articles require authors"),
        ((), nowhere, "The database is not available"),
    ]
    processes = [
        pressroom(checkout, "seed", *arguments, DATABASE_URL=url) for arguments, url, _ in cases
    ]
    try:
        for process, (_, _, sentence) in zip(processes, cases, strict=True):
            assert process.wait() == 1, process.log
            assert sentence in output_of(process)
            assert "Traceback" not in process.log
    finally:
        for process in processes:
            process.kill()


def test_operator_lets_a_user_in_again(checkout: Checkout, api: Api, api_database: str) -> None:
    """The API obeys commands at once: it shares only the database with them."""

    def command(*arguments: str) -> None:
        with pressroom(checkout, "users", *arguments, DATABASE_URL=api_database) as process:
            assert process.wait() == 0, process.log

    def log_in(address: str, password: str, username: str = "locked") -> int:
        headers = {"X-Forwarded-For": address}
        form = {"username": username, "password": password}
        return api.client.post("/auth/login", data=form, headers=headers).status_code

    def lock_out(address: str) -> None:
        while log_in(address, "wrong") == 401:
            pass
        assert log_in(address, PASSWORD) == 429

    api.register("locked", password=PASSWORD)
    lock_out("198.51.100.1")
    command("reset-login-limits", "LOCKED")
    assert log_in("198.51.100.1", PASSWORD) == 200
    lock_out("198.51.100.1")  # now a place of a former login
    command("reset-login-limits", "locked@example.com")
    assert log_in("198.51.100.1", PASSWORD) == 200
    names = (f"nobody{number}" for number in count())
    while log_in("198.51.100.2", "wrong", next(names)) == 401:
        pass
    assert log_in("198.51.100.2", PASSWORD) == 429  # the limit of the address
    command("reset-login-limits", "locked", "--address", "198.51.100.2")
    assert log_in("198.51.100.2", PASSWORD) == 200
    command("disable", "locked")
    assert log_in("198.51.100.1", PASSWORD) == 401


def test_routes_lists_routes_and_permissions(checkout: Checkout) -> None:
    with pressroom(checkout, "routes", DATABASE_URL="", COLUMNS="120") as listed:
        assert listed.wait() == 0, listed.log
        rows = [
            tuple(cell.strip() for cell in line.split("│")[1:-1])
            for line in listed.log.splitlines()
            if line.startswith("│")
        ]
    assert ("POST", "/articles", "create_article", "required") in rows
    assert ("GET", "/articles", "list_articles", "optional") in rows
    assert ("POST", "/auth/login", "login", "") in rows
    assert len(rows) > 15
