"""The `pressroom` command: what an operator and a developer run by hand."""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, TypeVar

import typer
import uvicorn
from fastapi.routing import APIRoute, iter_route_contexts
from pydantic import SecretStr, ValidationError
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from uvicorn.importer import import_from_string

from app.auth import rotation
from app.auth.keys import signing_keys
from app.core.config import (
    BACKEND_DIR,
    EXAMPLE_SECRETS,
    PROJECT_DIR,
    Algorithm,
    Environment,
    Settings,
    SetupError,
    describe,
    get_settings,
)
from app.core.errors import Conflict, PressroomError
from app.core.logging import configure_logging
from app.core.protocol import PressroomProtocol
from app.core.roles import Role
from app.db import migrate
from app.db.embedded import ensure_database_url
from app.db.session import Database, readable_url
from app.schemas.user import UserCreate
from app.services import second_factor, users
from app.services import seed as seeding
from app.services.health import check_readiness

APPLICATION = "app.main:create_app"
"""By name: the command and the application import each other's rooms, never each other."""

MOST = 10_000_000
"""Rows that `seed` adds at once."""

Result = TypeVar("Result")

console = Console()
cli = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
keys_cli = typer.Typer(no_args_is_help=True, help="The keys that sign and seal.")
cli.add_typer(keys_cli, name="keys")


def main() -> None:
    """Run the command; what an operator can mend is said in a sentence, without a trace."""
    try:
        cli()
    except ValidationError as error:
        _fail("\n".join(map(describe, error.errors())))
    except PressroomError as error:
        _fail(str(error.detail))
    except SetupError as error:
        _fail(str(error))


def _fail(message: str) -> None:
    Console(stderr=True).print(message, style="red", markup=False, soft_wrap=True)
    raise SystemExit(1)


def _start(*, log_level: str) -> Settings:
    """Settings with a database: an embedded one where DATABASE_URL is not set.

    Outside of production it is migrated, so that each command works on a fresh checkout.
    """
    settings = get_settings()
    configure_logging(settings.model_copy(update={"log_level": log_level}))
    settings = ensure_database_url(settings)
    if settings.environment is not Environment.PRODUCTION:
        migrate.upgrade(settings.database_url or "")
    return settings


def _with_database(settings: Settings, work: Callable[[Database], Awaitable[Result]]) -> Result:
    async def run() -> Result:
        database = Database.from_settings(settings)
        try:
            await check_readiness(database)
            return await work(database)
        finally:
            await database.dispose()

    return asyncio.run(run())


@cli.command()
def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Port to listen on.")] = None,
    reload: Annotated[bool, typer.Option(help="Restart when the code changes.")] = False,
) -> None:
    """Serve the API from this machine, on an embedded PostgreSQL unless DATABASE_URL is set.

    Outside of production the database is migrated first; an embedded one gets a demo account.
    """
    settings = get_settings()
    signing_keys()  # where there are none, the reason is said here
    host, port = host or settings.host, port or settings.port
    _require_free(host, port)
    embedded = settings.database_url is None
    settings = _start(log_level=settings.log_level)
    url = settings.database_url or ""
    # uvicorn's processes read their settings for themselves.
    os.environ["DATABASE_URL"] = url
    get_settings.cache_clear()
    if embedded:
        _with_database(settings, _ensure_demo_account)
    address = f"http://{'localhost' if host == '127.0.0.1' else host}:{port}"
    lines = [
        f"Pressroom    {address}",
        f"API docs     {address}/docs",
        f"Database     {_where(settings) if embedded else readable_url(url)}",
    ]
    if embedded:
        lines.append(f"Demo account {seeding.DEMO_USERNAME} / {seeding.PASSWORD}")
    console.print("\n" + "\n".join(lines) + "\n", markup=False, highlight=False, soft_wrap=True)
    # uvicorn ends in an orderly way and then repeats the signal, whose default would skip atexit:
    # the embedded PostgreSQL would stay.
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
        # No proxy stands in front: uvicorn would believe X-Forwarded-For from this machine, where
        # every client is, and each could name the address that its attempts are counted against.
        proxy_headers=False,
        log_config=None,
        access_log=False,
        server_header=False,
    )


def _require_free(host: str, port: int) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        socket.create_server((host, port), family=family).close()
    except OSError as error:
        raise SetupError(
            f"Cannot listen on {host}:{port} ({error.strerror}); choose another PORT"
        ) from error


def _where(settings: Settings) -> str:
    folder = settings.data_dir
    inside = folder.is_relative_to(PROJECT_DIR)
    return f"embedded PostgreSQL in {folder.relative_to(PROJECT_DIR) if inside else folder}"


async def _ensure_demo_account(database: Database) -> None:
    account = UserCreate(
        email=seeding.DEMO_EMAIL,
        username=seeding.DEMO_USERNAME,
        name="Demo Author",
        password=SecretStr(seeding.PASSWORD),
    )
    async with database.read() as connection:
        taken = await users.username_exists(connection, username=account.username)
    if not taken:
        with suppress(Conflict):  # somebody else has its email by now
            async with database.unit_of_work() as session:
                await users.create_user(session, new=account, vouched_for=True)


@cli.command()
def seed(
    user_count: Annotated[
        int, typer.Option("--users", min=0, max=MOST, help="Authors to add.")
    ] = 10,
    article_count: Annotated[
        int, typer.Option("--articles", min=0, max=MOST, help="Articles to add.")
    ] = 100,
) -> None:
    """Add example authors and articles, the same each time on an empty database."""
    settings = _start(log_level="WARNING")
    if settings.environment is Environment.PRODUCTION:
        raise SetupError("seed adds accounts with a known password: not in production")

    async def work(database: Database) -> None:
        with Progress(console=console) as progress:
            task = progress.add_task("Seeding", total=user_count + article_count)
            async with database.unit_of_work() as session:
                await seeding.seed(
                    session,
                    users=user_count,
                    articles=article_count,
                    advance=lambda rows: progress.advance(task, rows),
                )

    _with_database(settings, work)
    console.print(f"Added {user_count} users (password {seeding.PASSWORD})", highlight=False)
    console.print(f"Added {article_count} articles", highlight=False)


@cli.command()
def create_admin(
    email: Annotated[str, typer.Option(prompt=True)],
    username: Annotated[str, typer.Option(prompt=True)],
    password: Annotated[
        str,
        typer.Option(
            prompt=True,
            hide_input=True,
            confirmation_prompt=True,
            envvar="PRESSROOM_ADMIN_PASSWORD",
        ),
    ],
    name: Annotated[str, typer.Option()] = "Administrator",
) -> None:
    """Create an administrator; the first one can come from nowhere else."""
    new = UserCreate(email=email, username=username, name=name, password=SecretStr(password))

    async def work(database: Database) -> int:
        async with database.unit_of_work() as session:
            admin = await users.create_user(session, new=new, role=Role.ADMIN, vouched_for=True)
            return admin.id

    user_id = _with_database(_start(log_level="WARNING"), work)
    console.print(f"Created administrator {username} (id {user_id})", highlight=False)


@keys_cli.command()
def rotate(
    algorithm: Annotated[
        Algorithm | None, typer.Option(help="How to sign from now on; as before where not given.")
    ] = None,
    directory: Annotated[
        Path | None, typer.Option(help="Where a new pair of keys goes; beside the one before.")
    ] = None,
    secret: Annotated[
        bool, typer.Option("--secret", help="Make a new SECRET_KEY, where a pair of keys signs.")
    ] = False,
) -> None:
    """Make a new key, go on believing the one before, and say what to deploy.

    Tokens of another algorithm than JWT_ALGORITHM are not believed: where that changes, clients
    refresh at once.
    """
    settings = get_settings()
    algorithm = algorithm or settings.jwt_algorithm
    same = algorithm is settings.jwt_algorithm
    if secret or algorithm is Algorithm.HS256:
        values = rotation.new_secret_settings(settings)
        if not secret and not same:
            values["JWT_ALGORITHM"] = Algorithm.HS256.value
    else:
        before = settings.jwt_private_key_file
        folder = directory or PROJECT_DIR / (before.parent if before else "keys")
        values = rotation.new_pair_settings(settings, algorithm=algorithm, directory=folder)
    lines = [f"{name}={value}" for name, value in values.items()]
    file = PROJECT_DIR / ".env"
    if file.exists():
        rotation.write_settings(file, values)
        lines = [f"Written to .env: {', '.join(values)}"]
    else:
        lines = ["Set these, for every replica:", "", *lines]
    minutes = settings.access_token_expire_minutes
    if settings.secret_key in EXAMPLE_SECRETS:
        lines += ["", "The example secret is not believed any more, with all it signed and sealed."]
    if "JWT_PRIVATE_KEY_FILE" in values:
        lines += ["", "Containers read the file as user 10001: `chown 10001` it."]
    lines += [
        "",
        "1. Restart all replicas with these settings. One that still has those before refuses new",
        "   tokens; clients then refresh.",
        f"2. Tokens of the key before live {minutes} minutes more."
        if same
        else "2. Tokens of the algorithm before are refused from then on; clients refresh.",
        "   What is sealed with an older SECRET_KEY: `pressroom keys reseal`.",
        "3. Then take the key before out of the settings; what it signed is refused from there on.",
    ]
    console.print("\n".join(lines), markup=False, highlight=False, soft_wrap=True)


@keys_cli.command()
def reseal() -> None:
    """Encrypt second factors anew with the current SECRET_KEY, before an older one goes."""

    async def work(database: Database) -> int:
        async with database.unit_of_work() as session:
            return await second_factor.reseal_all(session)

    count = _with_database(_start(log_level="WARNING"), work)
    console.print(f"Resealed {count} second factors", highlight=False)


@cli.command()
def routes() -> None:
    """List every route: method, path, name, and whether it needs a user."""
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


if __name__ == "__main__":
    main()
