"""A temporary database. As a script, keep it while standard input is open (scripts/matrix.py).

Runs in backend/ with the Python in .venv. Uses the server of DATABASE_URL, or starts an embedded
one in .data/check. Prints one line of JSON when it is ready: {"server": URL, "scratch": URL}.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
from sqlalchemy import URL, make_url

from app.core.config import Settings, get_settings
from app.db import embedded

DATA = Path(__file__).resolve().parent.parent / ".data" / "check"


async def execute(server: URL, statement: str) -> None:
    """Run one statement outside of a transaction, as CREATE DATABASE requires."""
    url = server.set(drivername="postgresql").render_as_string(hide_password=False)
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


@contextmanager
def scratch_database() -> Iterator[tuple[URL, URL]]:
    """Create a database, yield the URLs of the server and the database, and drop it."""
    # As in the tests, a developer's `.env` must not affect the checks.
    Settings.model_config["env_file"] = None
    settings = get_settings()
    url = settings.database_url or embedded.start(DATA / "postgres", durable=False)
    server = make_url(url)
    name = f"pressroom_scratch_{os.getpid()}_{secrets.token_hex(4)}"
    asyncio.run(execute(server, f"CREATE DATABASE {name}"))
    try:
        yield server, server.set(database=name)
    finally:
        asyncio.run(execute(server, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))


def main() -> None:
    """Print the URLs, and keep the database until standard input ends."""
    with scratch_database() as found:
        server, scratch = (url.render_as_string(hide_password=False) for url in found)
        print(json.dumps({"server": server, "scratch": scratch}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
