"""Sources of settings: aliases, secret files and unknown names.

Names are lower-case here, as in pydantic-settings.
"""

import difflib
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

MAX_SECRET_BYTES = 64 * 1024

ALIASES = {
    "algorithm": "jwt_algorithm",
    "app_name": "site_title",
    "backend_cors_origins": "cors_origins",
}
"""Names from common FastAPI templates, and the settings that they set."""

_COMPOSE_NAME = re.compile(r"\$\{([A-Z][A-Z0-9_]*)|^ +([A-Z][A-Z0-9_]*):", re.MULTILINE)
_EXAMPLE_NAME = re.compile(r"^#?([A-Z][A-Z0-9_]*)=", re.MULTILINE)
_OTHER_PROGRAMS = ("buildkit_", "buildx_", "compose_", "docker_", "pip_", "postgres_", "pg")


class Problem(NamedTuple):
    """Why a setting cannot be read; `reason` never contains the value."""

    setting: str
    reason: str


def resolve(
    given: Mapping[str, str | None], *, secrets: Collection[str], folder: Path
) -> tuple[dict[str, str | None], list[Problem]]:
    """Return the values of one source by setting name, and the problems found.

    An alias sets the value of its setting. `<secret>_file` is the path of a file with the secret,
    relative to `folder`.
    """
    values = dict(given)
    problems = []
    for alias, name in ALIASES.items():
        value = given.get(alias)
        if value is None:
            continue
        if values.get(name) not in {None, value}:
            reason = f"{alias.upper()} is an alias with another value; keep one of them"
            problems.append(Problem(name, reason))
        values[name] = value
    for name in sorted(secrets):
        path = given.get(f"{name}_file")
        if path is None:
            continue
        variable = f"{name}_FILE".upper()
        if given.get(name) is not None:
            problems.append(Problem(name, f"{variable} is set as well; keep one of them"))
            continue
        try:
            values[name] = read_secret(folder / path)
        except ValueError as error:
            problems.append(Problem(name, f"{variable}={path} {error}"))
    return values, problems


def read_secret(path: Path) -> str:
    """Return the only line of a file, without its line break.

    Raises ValueError if the file cannot be read or does not contain exactly one line. The message
    is a predicate: prefix it with the name of the file.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_SECRET_BYTES + 1)
        secret = content.decode("utf-8-sig").removesuffix("\n").removesuffix("\r")
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8") from None
    if not secret.strip():
        raise ValueError("is empty")
    if len(content) > MAX_SECRET_BYTES:
        raise ValueError(f"is larger than {MAX_SECRET_BYTES} bytes")
    if not secret.isprintable():
        raise ValueError("must hold one line of text")
    return secret


def names_in_files(folder: Path) -> set[str]:
    """Return the variables that the compose files and `.env.example` in `folder` use."""
    names: set[str] = set()
    for path in folder.glob("docker-compose*.yml"):
        names.update(*_COMPOSE_NAME.findall(path.read_text(encoding="utf-8")))
    example = folder / ".env.example"
    if example.is_file():
        names.update(_EXAMPLE_NAME.findall(example.read_text(encoding="utf-8")))
    return {name.lower() for name in names if name}


def unknown_name_warnings(names: Iterable[str], *, known: Collection[str]) -> list[str]:
    """Return a warning for each name that is neither known nor used by another program."""
    warnings = []
    for name in names:
        if name in known or name.startswith(_OTHER_PROGRAMS):
            continue
        nearest = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.75)
        suggestion = f"; did you mean {nearest[0].upper()}?" if nearest else ""
        warnings.append(f"{name.upper()} in .env is not a setting: it has no effect{suggestion}")
    return warnings
