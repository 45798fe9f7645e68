"""Write a migration for the models' changes. For `make migration M="Create series"`.

Runs with the Python in .venv. The new revision is compared with a scratch database that has all
earlier migrations, so no other database is needed. Review the migration before committing it.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory

from scratch_database import scratch_database

ROOT = Path(__file__).resolve().parent.parent
BACKEND = ROOT / "backend"


def next_revision() -> str:
    """Return the number after the newest migration's, as four digits."""
    head = ScriptDirectory.from_config(Config(BACKEND / "alembic.ini")).get_current_head()
    return f"{int((head or '0')[:4]) + 1:04}"


def main(message: str) -> int:
    """Return the exit status of alembic."""
    if not message:
        print('Set M to a short description: make migration M="Create series"', file=sys.stderr)
        return 2
    programs = ROOT / ".venv" / "bin"
    alembic = programs / "alembic"
    revision = ["revision", "--autogenerate", "--rev-id", next_revision(), "-m", message]
    with scratch_database() as (_, url):
        environment = {
            **os.environ,
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",  # alembic.ini runs ruff
            "DATABASE_URL": url.render_as_string(hide_password=False),
        }
        for arguments in (["upgrade", "head"], revision):
            run = subprocess.run([alembic, *arguments], cwd=BACKEND, env=environment, check=False)
            if run.returncode != 0:
                return run.returncode
    print("The file is formatted. Review it, and run tests/migrations/test_migrations.py.")
    return 0


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:]).strip()))
