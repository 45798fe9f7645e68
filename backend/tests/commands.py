"""The `pressroom` command in this process."""

import asyncio
import sys
from typing import Any

import asyncpg

from app import cli
from tests.databases import driver_url

PRODUCTION = {
    "ENVIRONMENT": "production",
    "SECRET_KEY": "k" * 32,
    "ALLOWED_HOSTS": "example.com",
    "CORS_ORIGINS": "https://example.com",
}


def run(*arguments: str) -> int:
    """Run `pressroom` with `arguments`; return its exit status."""
    before = sys.argv
    sys.argv = ["pressroom", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        return int(end.code or 0)
    finally:
        sys.argv = before
    return 0


def fetch(url: str, query: str) -> list[Any]:
    async def fetch_all() -> list[Any]:
        connection = await asyncpg.connect(driver_url(url))
        try:
            return list(await connection.fetch(query))
        finally:
            await connection.close()

    return asyncio.run(fetch_all())
