"""Two revisions that run beside each other: this one and a former one."""

import secrets
import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import psutil

from app.core.config import BACKEND_DIR, get_settings
from app.db import embedded
from imports import MIGRATE, former_code
from report import PRESSROOM
from servers import SERVER_ENVIRONMENT, Server, execute, scratch_database, seed, serving

FORMER = "former revision"
FORMER_COMMIT = "6be3bcc"
"""The default of `--former`."""
BACKENDS = (
    "SELECT array_agg(pid) FROM pg_stat_activity"
    " WHERE datname = current_database() AND application_name = 'pressroom'"
)


class Revision(NamedTuple):
    """A running revision, with its own worker and database."""

    server: Server
    url: str

    def postgres_seconds(self) -> float:
        """Return the CPU time of the server's connections in seconds; 0 if PostgreSQL is remote."""
        (pids,) = execute(self.url, BACKENDS)
        try:
            times = [psutil.Process(pid).cpu_times() for pid in pids or ()]
        except psutil.NoSuchProcess:
            return 0.0
        return float(sum(time.user + time.system for time in times))


def start_revisions(
    running: ExitStack, *, former: str, folder: Path, articles: int
) -> Sequence[Revision]:
    """Start this revision and the former one, each with a new database of the same articles."""
    settings = get_settings()
    server_url = settings.database_url or embedded.start(settings.data_dir / "bench" / "postgres")
    codes = ((PRESSROOM, BACKEND_DIR), (FORMER, former_code(former, folder / "former")))
    return [_start(running, name, code, server_url, articles) for name, code in codes]


def _start(running: ExitStack, name: str, code: Path, server_url: str, articles: int) -> Revision:
    url = running.enter_context(scratch_database(server_url))
    subprocess.run([sys.executable, "-c", MIGRATE, url], cwd=code, check=True)  # noqa: S603 - own code
    seed(url, articles)
    environment = {**SERVER_ENVIRONMENT, "SECRET_KEY": secrets.token_hex(32)}
    environment |= {"DATABASE_URL": url, "DATABASE_READ_URL": url}
    server = serving(name, "app.main:create_app()", "/health/ready", environment, code=code)
    return Revision(running.enter_context(server), url)
