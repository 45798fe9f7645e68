"""Where settings come from: aliases, secrets in files, and unknown names.

Names are lower-case here, as pydantic-settings keeps them.
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
"""Names that widespread FastAPI templates use, and the settings that they stand for."""

_COMPOSE_NAME = re.compile(r"\$\{([A-Z][A-Z0-9_]*)|^ +([A-Z][A-Z0-9_]*):", re.MULTILINE)
_EXAMPLE_NAME = re.compile(r"^#?([A-Z][A-Z0-9_]*)=", re.MULTILINE)
_OTHER_PROGRAMS = ("buildkit_", "buildx_", "compose_", "docker_", "pip_", "postgres_", "pg")


class Problem(NamedTuple):
    """Why a setting cannot be read; the value itself is never part of `reason`."""

    setting: str
    reason: str


def resolve(
    given: Mapping[str, str | None], *, secrets: Collection[str], folder: Path
) -> tuple[dict[str, str | None], list[Problem]]:
    """The values of one source by the names of settings, and the problems found.

    An alias gives its setting a value. `<secret>_file` names a file that holds the secret; a path
    that is not absolute starts at `folder`.
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
    """The only line of a file, without the line break at its end.

    Raises ValueError if the file cannot be read or has other content. The message is written to
    follow the name of the file.
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


def names_of_files(folder: Path) -> set[str]:
    """The variables that the compose files and `.env.example` in a folder mention."""
    names: set[str] = set()
    for path in folder.glob("docker-compose*.yml"):
        names.update(*_COMPOSE_NAME.findall(path.read_text(encoding="utf-8")))
    example = folder / ".env.example"
    if example.is_file():
        names.update(_EXAMPLE_NAME.findall(example.read_text(encoding="utf-8")))
    return {name.lower() for name in names if name}


def unknown(names: Iterable[str], *, known: Collection[str]) -> list[str]:
    """A sentence for each name that is neither known nor another program's."""
    sentences = []
    for name in names:
        if name in known or name.startswith(_OTHER_PROGRAMS):
            continue
        nearest = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.75)
        meant = f"; did you mean {nearest[0].upper()}?" if nearest else ""
        sentences.append(f"{name.upper()} in .env is not a setting: it has no effect{meant}")
    return sentences
