"""Commands for the server: serve and routes."""

import atexit
import os
import shutil
import signal
import socket
import sys
from contextlib import suppress
from typing import Annotated

import typer
import uvicorn
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import SecretStr
from rich.table import Table
from uvicorn.importer import import_from_string

from app import exporter
from app.auth.keys import signing_keys
from app.cli.base import APPLICATION, console, prepare_settings, run_with_database
from app.core.config import BACKEND_DIR, PROJECT_DIR, Settings, SetupError, get_settings
from app.core.errors import Conflict
from app.core.logging import configure_logging
from app.db.session import Database, readable_url
from app.schemas.accounts.user import UserCreate
from app.server.protocol import PressroomProtocol
from app.services.accounts import first_start, users
from app.services.bulk import seed as seeding


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on.")] = None,
    reload: Annotated[bool, typer.Option(help="Restart when the code changes.")] = False,
) -> None:
    """Serve the API, with an embedded PostgreSQL unless DATABASE_URL is set.

    Outside production, the database is migrated first. An embedded database gets a demo account.
    """
    settings = get_settings()
    signing_keys()  # report invalid keys before the server starts
    host, port = host or settings.host, port or settings.port
    _check_port(host, port)
    # The processes of uvicorn read their own settings. The default of API_URL uses HOST and PORT.
    os.environ |= {"HOST": host, "PORT": str(port)}
    get_settings.cache_clear()
    embedded = settings.database_url is None
    settings = prepare_settings(log_level=settings.log_level)
    url = settings.database_url or ""
    os.environ["DATABASE_URL"] = url
    os.environ.pop("DATABASE_URL_FILE", None)
    get_settings.cache_clear()
    lacks_administrator = embedded and run_with_database(settings, _prepare_embedded)
    base_url = f"http://{'localhost' if host == '127.0.0.1' else host}:{port}"
    lines = [
        f"Pressroom    {base_url}",
        *(f"{name:12} {url}" for name, url in settings.page_urls(base_url).items()),
        f"API docs     {base_url}/docs",
        f"Database     {_describe_embedded(settings) if embedded else readable_url(url)}",
    ]
    if embedded:
        lines.append(f"Demo account {seeding.DEMO_USERNAME} / {seeding.PASSWORD}")
    if lacks_administrator and settings.web_studio:
        page = f"{base_url}/studio/first-start"
        lines.append(f"First admin  {page}, with the code in the log below")
    console.print("\n" + "\n".join(lines) + "\n", markup=False, highlight=False, soft_wrap=True)
    _start_metrics(settings)
    # After its shutdown, uvicorn raises the signal again. The default handlers would skip atexit
    # functions, so that the embedded PostgreSQL would keep running.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    signal.signal(signal.SIGHUP, lambda *_: signal.raise_signal(signal.SIGTERM))
    uvicorn.run(
        APPLICATION,
        factory=True,
        host=host,
        port=port,
        reload=reload,
        reload_dirs=[str(BACKEND_DIR / "app")] if reload else None,
        http=PressroomProtocol,
        ws="none",  # PressroomProtocol decides
        # As in gunicorn.conf.py. Clients keep idle connections for about 5 s, uvicorn's default.
        # They could send a request on a connection that is being closed.
        timeout_keep_alive=75,
        # There is no proxy, and uvicorn trusts X-Forwarded-For from this machine by default. Local
        # clients could then choose the address for which login attempts are counted.
        proxy_headers=False,
        log_config=None,
        access_log=False,
        server_header=False,
    )


def metrics() -> None:
    """Serve the metrics on METRICS_PORT: what METRICS_DIR contains, and what the database shows.

    `pressroom serve` and gunicorn start this beside themselves. It is for other servers.
    """
    settings = get_settings()
    if not settings.metrics_port:
        raise SetupError("METRICS_PORT is 0: set it to a port, for example 9100")
    configure_logging(settings)
    exporter.serve(settings, exporter.listen(settings))


def _start_metrics(settings: Settings) -> None:
    """Start the server of the metrics, which ends with this process."""
    if not settings.metrics_port:
        return
    if settings.metrics_dir is None:
        directory = exporter.create_directory()
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        os.environ["METRICS_DIR"] = str(directory)
        get_settings.cache_clear()
    exporter.ensure_beside(get_settings())
    atexit.register(exporter.stop_beside)


def _check_port(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise SetupError(
            f"Cannot listen on {host}:{port} ({error.strerror}); choose another PORT"
        ) from error


def _describe_embedded(settings: Settings) -> str:
    folder = settings.data_dir
    is_in_project = folder.is_relative_to(PROJECT_DIR)
    return f"embedded PostgreSQL in {folder.relative_to(PROJECT_DIR) if is_in_project else folder}"


async def _prepare_embedded(database: Database) -> bool:
    """Create the demo account, and return whether there is no administrator."""
    await _ensure_demo_account(database)
    return await first_start.is_open(database)


async def _ensure_demo_account(database: Database) -> None:
    account = UserCreate(
        email=seeding.DEMO_EMAIL,
        username=seeding.DEMO_USERNAME,
        name="Demo Author",
        password=SecretStr(seeding.PASSWORD),
    )
    exists = await users.username_exists(database.reader, username=account.username)
    if not exists:
        with suppress(Conflict):  # another account has this email
            async with database.unit_of_work() as session:
                await users.create_user(session, new=account, email_verified=True)


def routes() -> None:
    """List all routes: method, path, name, and whether authentication is required."""
    app = import_from_string(APPLICATION)()
    table = Table("Method", "Path", "Name", "User")
    for route in iter_route_contexts(app.routes):
        if not isinstance(route.original_route, APIRoute):
            continue
        operation = app.openapi()["paths"].get(route.path_format, {})
        for method in sorted(route.methods or ()):
            security = operation.get(method.lower(), {}).get("security")
            user = "" if security is None else "optional" if {} in security else "required"
            table.add_row(method, route.path_format, route.name, user)
    console.print(table)
