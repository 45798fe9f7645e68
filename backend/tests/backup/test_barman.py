"""The refusals of `barman-restore`, whose script runs here with programs that only answer."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from app.core.config import PROJECT_DIR

pytestmark = [
    pytest.mark.checkout,
    pytest.mark.skipif(shutil.which("flock") is None, reason="flock is part of Linux only"),
]

SCRIPTS, HOME = "/usr/local/lib/pressroom", "/var/lib/barman"
BARMAN = """#!/bin/sh
case "$*" in
  "list-backups --minimal pressroom") cat "$BACKUPS" ;;
  *restore*) mkdir -p "$PGDATA" && exit 1 ;;
esac
"""
NEWER_AND_OLDER = "20261130T041500\n20261129T041500\n"


def restore(
    folder: Path, *arguments: str, backups: str = "", is_running: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run the script. The database has a file, and Barman has no WAL for any moment."""
    data = folder / "volume" / "docker"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("18")
    for name in ("bin", "scripts"):
        (folder / name).mkdir()
    (folder / "backups").write_text(backups)
    programs = {
        folder / "bin" / "barman": BARMAN,
        folder / "bin" / "pg_isready": f"#!/bin/sh\nexit {0 if is_running else 2}\n",
        folder / "scripts" / "configure.sh": "#!/bin/sh\n",
    }
    for name in ("partial.sh", "restore.sh"):
        text = (PROJECT_DIR / "barman" / name).read_text(encoding="utf-8")
        text = text.replace(SCRIPTS, str(folder / "scripts")).replace(HOME, str(folder / "home"))
        programs[folder / "scripts" / name] = text
    for path, text in programs.items():
        path.write_text(text, encoding="utf-8")
        path.chmod(0o755)
    environment = {
        "PATH": f"{folder / 'bin'}:{os.environ['PATH']}",
        "PGDATA": str(data),
        "BACKUPS": str(folder / "backups"),
    }
    result = subprocess.run(
        ["bash", str(folder / "scripts" / "restore.sh"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    # The database is as before.
    assert [each.name for each in data.parent.iterdir()] == ["docker"]
    assert (data / "PG_VERSION").read_text() == "18"
    return result


@pytest.mark.parametrize(
    ("backups", "oldest"), [(NEWER_AND_OLDER, "20261129T041500"), ("", "(there is none)")]
)
def test_moment_before_the_first_wal(tmp_path: Path, backups: str, oldest: str) -> None:
    moment = "2020-01-01 00:00:00+00"
    result = restore(tmp_path, moment, backups=backups)
    assert result.stderr == (
        f"Barman cannot restore {moment}. "
        f"The oldest moment is the end of the base backup {oldest}\n"
    )


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ((), "Pass the moment"),
        (("yesterday at ten", "more"), "Pass the moment"),
        (("at noon or so",), "at noon or so is not a time"),
        (("2999-01-01 00:00:00+00",), "is in the future"),
    ],
)
def test_unusable_moments(tmp_path: Path, arguments: tuple[str, ...], reason: str) -> None:
    assert reason in restore(tmp_path, *arguments).stderr


def test_running_database(tmp_path: Path) -> None:
    result = restore(tmp_path, "latest", is_running=True)
    assert result.stderr.startswith("The database is running")
