"""Fixtures: a migrated database per worker; each test runs in a transaction that is rolled back.

The application is imported where it is needed. The process that starts the workers of pytest-xdist
does not need it, and the workers wait for that process.
"""

import gc
import logging
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from sqlalchemy import pool
from sqlalchemy.ext.asyncio import (
    AsyncConnection,
    AsyncEngine,
    AsyncSession,
    create_async_engine,
)

from app.core.config import PROJECT_DIR, Settings, get_settings
from app.db.session import Database
from tests import interpreter
from tests.databases import (
    RESTART_SEQUENCES,
    database_within,
    delete_all_rows,
    execute,
    kept_connection,
    migrated_database,
    rolled_back,
    server_url,
    template_database,
)

if TYPE_CHECKING:
    from fastapi import FastAPI

    from tests.certificates import Certificates
    from tests.inbox import Inbox

# Remove `.env` and the environment before the settings are read.
Settings.model_config["env_file"] = None
for name in Settings.model_fields:
    if name != "database_url":
        os.environ.pop(name.upper(), None)
os.environ |= {"ENVIRONMENT": "test", "BCRYPT_COST": "4"}

# Collect garbage less often: this saves more than a tenth of the time. `pytest_collection_finish`
# enables it again.
gc.set_threshold(50_000, 20, 100)
gc.disable()

# httpx imports it for each request. Without this entry, Python searches all folders each time.
sys.modules.setdefault("sniffio", None)  # type: ignore[arg-type]  # None: it is not installed


def interrupt(number: int, frame: FrameType | None) -> None:
    signal.default_int_handler(number, frame)


# With another handler than the default, asyncio installs none for each test and each fixture.
signal.signal(signal.SIGINT, interrupt)


WAITING = ("backup", "db", "e2e", "migrations")
"""Folders whose tests wait for other processes most of the time."""


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    """Use three processes more than there are processors: many tests wait for other processes.

    A single file runs in this process. Starting workers would take longer than most files.
    """
    first, *others = [Path(argument.partition("::")[0]) for argument in config.args]
    if not others and first.is_file() and first.parent.name not in WAITING:
        return 0
    return (os.cpu_count() or 1) + 3


def spread(items: list[pytest.Item]) -> None:
    """Put files of tests that wait evenly among the others, which use the processors meanwhile.

    pytest-xdist gives each worker an equal part of the list.
    """
    files: dict[Path, list[pytest.Item]] = {}
    for item in items:
        files.setdefault(item.path, []).append(item)
    waiting = [file for path, file in files.items() if path.parent.name in WAITING]
    others = [item for item in items if item.path.parent.name not in WAITING]
    parts = len(waiting) or 1
    bounds = [len(others) * number // parts for number in range(parts + 1)]
    items[:] = []
    for number in range(parts):
        items += waiting[number] if waiting else []
        items += others[bounds[number] : bounds[number + 1]]


def pytest_configure(config: pytest.Config) -> None:
    """Start the server and create the template once, before pytest-xdist starts its workers."""
    server_url()
    if hasattr(config, "workerinput"):
        interpreter.start_fork_server()
    else:
        if config.getoption("tx", None):
            stack = ExitStack()
            stack.enter_context(
                interpreter.prepared(config.args, cover=bool(config.getoption("cov_source", None)))
            )
            config.add_cleanup(stack.close)
        template_database()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes(specs: list[Any]) -> None:
    """Let workers fork from a process that has imported the application."""
    for spec in specs:
        spec.python = f"{sys.executable} -IS {interpreter.PROGRAM}"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order the tests. Wait long for imports. Skip tests that need the checkout in the image."""
    from app.services.bulk import runs

    spread(items)

    # On a busy machine, an import takes long. Tests still expect its result, not 202.
    runs.WAIT_SECONDS = 120
    if not (PROJECT_DIR / "docker-compose.yml").exists():
        for item in items:
            if item.get_closest_marker("checkout"):
                item.add_marker(pytest.mark.skip(reason="the image contains only the backend"))


def pytest_collection_finish(session: pytest.Session) -> None:
    """Collect garbage again. Objects are not frozen: hypothesis examines their referrers."""
    if getattr(session.config, "workerinput", {}).get("workerid") == "gw0":
        interpreter.save_coverage()
    gc.enable()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Let random texts depend on the test only, not on the tests before it."""
    from tests.factories import fake

    fake.seed_instance(item.nodeid)


@pytest.fixture(autouse=True)
def _restore_root_logger() -> Iterator[None]:
    """Undo `configure_logging`: restore the level, remove handlers of captured output."""
    root = logging.getLogger()
    level = root.level
    yield
    if root.level != level:  # setting it empties the caches of all loggers
        root.setLevel(level)
    root.handlers[:] = [each for each in root.handlers if type(each) is not logging.StreamHandler]


@pytest.fixture(scope="session", autouse=True)
def _server_connection() -> Iterator[None]:
    """Keep the connection that creates and drops databases."""
    with kept_connection(server_url()):
        yield


@pytest.fixture(scope="session")
def database_url() -> Iterator[str]:
    """Create the migrated database of this worker."""
    with migrated_database() as url:
        yield url


@pytest.fixture(scope="session")
def settings(database_url: str, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return get_settings().model_copy(
        update={
            "database_url": database_url,
            "media_dir": tmp_path_factory.mktemp("media"),
            "raw_sql_reference": True,
        }
    )


@pytest.fixture(scope="session")
async def engine(database_url: str) -> AsyncIterator[AsyncEngine]:
    engine = create_async_engine(database_url, poolclass=pool.StaticPool)
    yield engine
    await engine.dispose()


@pytest.fixture
async def connection(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Open a connection for one test, in a transaction that is rolled back at the end."""
    async with rolled_back(engine) as connection:
        yield connection


@pytest.fixture(scope="module")
async def module_connection(engine: AsyncEngine) -> AsyncIterator[AsyncConnection]:
    """Open a connection for rows that the tests of a module share, rolled back after the last.

    The module overrides `connection` with a savepoint for each test.
    """
    async with rolled_back(engine) as connection:
        yield connection


@pytest.fixture
def database(connection: AsyncConnection) -> Database:
    """Return a Database that uses the connection of the test."""
    return database_within(connection)


@pytest.fixture
async def session(database: Database) -> AsyncIterator[AsyncSession]:
    """Open a unit of work for rows of the test. Factories flush, so that requests see them."""
    async with database.unit_of_work() as session:
        yield session


@pytest.fixture
def inbox(database: Database, settings: Settings) -> "Inbox":
    """Return the inbox that receives the mail of the test."""
    from tests.inbox import Inbox

    return Inbox(database, settings)


@pytest.fixture(scope="session")
def shared_app(settings: Settings) -> "FastAPI":
    from app.main import create_app

    return create_app(settings)


@pytest.fixture
def app(shared_app: "FastAPI", database: Database) -> "FastAPI":
    shared_app.state.database = database
    return shared_app


@pytest.fixture
def client(app: "FastAPI") -> httpx.AsyncClient:
    """Return a client that calls the application in this process. It has nothing to close."""
    from tests.declared import require_declared

    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app, raise_app_exceptions=False),
        base_url="http://testserver",
        event_hooks={"response": [partial(require_declared, app)]},
    )


@pytest.fixture(scope="module")
def cli_database() -> Iterator[str]:
    with migrated_database() as url, kept_connection(url):
        yield url


@pytest.fixture
def own_database(cli_database: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Empty a migrated database, and set DATABASE_URL to it."""
    execute(cli_database, delete_all_rows(), RESTART_SEQUENCES)
    monkeypatch.setenv("DATABASE_URL", cli_database)
    get_settings.cache_clear()
    yield cli_database
    get_settings.cache_clear()


@pytest.fixture
def fresh_database(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Create a migrated database for one test, which changes its tables; set DATABASE_URL to it."""
    with migrated_database() as url:
        monkeypatch.setenv("DATABASE_URL", url)
        get_settings.cache_clear()
        yield url
        get_settings.cache_clear()


@pytest.fixture
def restored_environment() -> Iterator[None]:
    """Restore the environment and the settings after a test of commands."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
    get_settings.cache_clear()


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> "Certificates":
    from tests.certificates import Certificates

    return Certificates(tmp_path_factory.mktemp("certificates"))
