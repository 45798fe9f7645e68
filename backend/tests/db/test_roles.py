"""The role that runs the application cannot change the schema; migrations prepare it."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.engine import make_url

from app.core.config import SetupError
from app.db import embedded, migrate, roles
from tests import postgres
from tests.databases import execute
from tests.postgres import Server, fetch

pytestmark = pytest.mark.checkout

ROLE = "pressroom_app"
SCRAM = "local all {role} scram-sha-256\n"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Run a server that asks the role of the application and another owner for a password."""
    with postgres.server() as server:
        rules = Path(server.directory) / "pg_hba.conf"
        asked = "".join(SCRAM.format(role=role) for role in (ROLE, "limited"))
        rules.write_text(asked + rules.read_text())
        execute(server.url, "ALTER SYSTEM SET max_connections = 30")
        server.stop()
        server.start()
        yield server


def url_of(
    server: Server, *, password: str, role: str = ROLE, database: str = embedded.DATABASE
) -> str:
    url = make_url(server.url).set(username=role, password=password, database=database)
    return url.render_as_string(hide_password=False)


def create_database(server: Server, name: str) -> str:
    """Create an empty database; return its URL for a superuser."""
    execute(server.url, f"CREATE DATABASE {name}")
    return make_url(server.url).set(database=name).render_as_string(hide_password=False)


def test_existing_database_gets_the_role(server: Server) -> None:
    """As in an upgrade: all tables exist, and belong to a superuser."""
    owner_url = create_database(server, "existing")
    url = url_of(server, password="first", database="existing")
    migrate.upgrade(owner_url, "0004")
    migrate.upgrade(owner_url, application_url=url)
    tables = {row["tablename"] for row in fetch(owner_url, TABLES)}
    assert len(tables) > 30
    for table in tables:
        fetch(url, f"SELECT FROM {table} LIMIT 1")
    # The trigger of the change feed advances its sequence to the time.
    fetch(url, "SELECT setval('changes_seq_seq', nextval('changes_seq_seq'))")
    execute(
        url,
        "INSERT INTO users (email, username, name, hashed_password)"
        " VALUES ('a@example.com', 'ada', 'Ada', '')",
        "UPDATE users SET name = 'Ada Lovelace'",
        "DELETE FROM users",
    )
    for refused in (
        "CREATE TABLE more (id int)",
        "ALTER TABLE users ADD COLUMN more int",
        "DROP TABLE users",
        "TRUNCATE users",
        "TRUNCATE favorites",  # created later, with default privileges
        "CREATE ROLE more",
        "COPY users TO PROGRAM 'cat'",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            execute(url, refused)


TABLES = "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"


def test_one_role_may_own_and_run(server: Server) -> None:
    url = create_database(server, "one_role")
    migrate.upgrade(url, "0001", application_url=url)
    assert fetch(url, "SELECT count(*) FROM users")[0][0] == 0


def test_changed_password_is_set(server: Server) -> None:
    for password in ("first", "it's %another:", "it's %another:"):
        migrate.upgrade(server.url, application_url=url_of(server, password=password))
        assert fetch(url_of(server, password=password), "SELECT current_user")[0][0] == ROLE
    with pytest.raises(asyncpg.InvalidPasswordError):
        fetch(url_of(server, password="first"), "SELECT 1")


def test_tables_of_later_migrations_are_accessible_at_once(server: Server) -> None:
    migrate.upgrade(server.url, application_url=url_of(server, password="p"))
    execute(server.url, "CREATE TABLE later (id bigint GENERATED ALWAYS AS IDENTITY, name text)")
    execute(url_of(server, password="p"), "INSERT INTO later (name) VALUES ('x')")
    execute(server.url, "DROP TABLE later")


def test_owner_without_the_right_to_create_roles(server: Server) -> None:
    """The owner of an external database is no superuser. An administrator creates both roles."""
    execute(
        server.url,
        "CREATE ROLE limited LOGIN PASSWORD 'o'",
        "CREATE DATABASE external OWNER limited",
    )
    urls = [
        url_of(server, role="limited", password="o", database="external"),
        url_of(server, password="w", database="external"),
    ]
    with pytest.raises(SetupError, match="pressroom_app of DATABASE_URL cannot log in"):
        migrate.upgrade(urls[0], application_url=urls[1])
    create = f"CREATE ROLE {ROLE} LOGIN; EXCEPTION WHEN duplicate_object THEN NULL;"
    execute(server.url, f"DO $$ BEGIN {create} END $$", f"ALTER ROLE {ROLE} PASSWORD 'w'")
    migrate.upgrade(urls[0], application_url=urls[1])
    assert fetch(urls[1], "SELECT count(*) FROM users")[0][0] == 0
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        execute(urls[1], "CREATE TABLE more (id int)")


def test_connections_are_reserved_for_the_operator(server: Server) -> None:
    """If the application uses up all connections, a superuser still gets one."""
    migrate.upgrade(server.url, application_url=url_of(server, password="p"))

    dsn = url_of(server, password="p").replace("+asyncpg", "")
    used: list[asyncpg.Connection[asyncpg.Record]] = []

    async def connect_until_refused() -> None:
        while True:
            used.append(await asyncpg.connect(dsn))

    async def exhaust() -> None:
        try:
            with pytest.raises(asyncpg.TooManyConnectionsError):
                await connect_until_refused()
            operator = await asyncpg.connect(server.url.replace("+asyncpg", ""))
            await operator.close()
        finally:
            for connection in used:
                connection.terminate()

    asyncio.run(exhaust())


def test_role_for_monitoring_reads_statistics_and_no_rows(server: Server) -> None:
    """It gets its own password, which can be changed, and migrations change it only if needed."""
    rules = Path(server.directory) / "pg_hba.conf"
    rules.write_text(SCRAM.format(role=roles.MONITOR) + rules.read_text())
    execute(server.url, "SELECT pg_reload_conf()")
    migrate.upgrade(server.url)
    for password in ("first", "it's %another:", "it's %another:"):
        migrate.upgrade(server.url, monitor_password=password)
        url = url_of(server, role=roles.MONITOR, password=password)
        assert fetch(url, "SELECT count(*) FROM pg_stat_activity WHERE query <> ''")[0][0] > 0
    for refused in (
        "SELECT FROM users",
        "SELECT FROM mails",
        "SELECT pg_read_file('PG_VERSION')",
        "SELECT pg_reload_conf()",
        "CREATE TABLE more (id int)",
        "CREATE ROLE more",
    ):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            execute(url, refused)
    with pytest.raises(asyncpg.InvalidPasswordError):
        fetch(url_of(server, role=roles.MONITOR, password="first"), "SELECT 1")


def test_owner_without_the_right_to_grant_the_role_for_monitoring(server: Server) -> None:
    execute(
        server.url,
        "CREATE ROLE owner LOGIN CREATEROLE",
        "CREATE DATABASE monitored OWNER owner",
        f"DROP ROLE IF EXISTS {roles.MONITOR}",
    )
    owner_url = url_of(server, role="owner", password="", database="monitored")
    with pytest.raises(SetupError, match=r"may not create pressroom_monitor.*observe\.md"):
        migrate.upgrade(owner_url, monitor_password="m")
    execute(
        server.url,
        f"CREATE ROLE {roles.MONITOR} LOGIN PASSWORD 'm'",
        f"GRANT pg_monitor TO {roles.MONITOR}",
    )
    migrate.upgrade(owner_url, "0001", monitor_password="m")
