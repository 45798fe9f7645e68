"""The `pressroom` command in this process."""

import sys
from typing import Any

from app import cli
from tests.databases import with_connection

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
    return list(with_connection(url, lambda connection: connection.fetch(query)))
