"""Rotating the keys: what the settings become, and where they are written."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from app.auth.keys import new_pair
from app.core.config import EXAMPLE_SECRETS, PROJECT_DIR, Algorithm, Settings, SetupError
from app.core.sources import ALIASES

SECRET_BYTES = 32


def new_secret_settings(settings: Settings) -> dict[str, str]:
    """The settings after a new SECRET_KEY: the one before goes on being believed."""
    before = [settings.secret_key, *settings.secret_keys_previous]
    believed = [secret for secret in before if secret not in EXAMPLE_SECRETS]
    return {
        "SECRET_KEY": secrets.token_hex(SECRET_BYTES),
        "SECRET_KEYS_PREVIOUS": ",".join(dict.fromkeys(believed)),
    }


def new_pair_settings(
    settings: Settings, *, algorithm: Algorithm, directory: Path
) -> dict[str, str]:
    """The settings after a new pair of keys, which is written to a file of its own in `directory`.

    Only its owner can read the file. Its name is relative where it is in `keys/`, so that it
    holds in a container as well. Raises SetupError where it cannot be written.
    """
    path = (directory / f"jwt-{algorithm.lower()}-{secrets.token_hex(4)}.pem").resolve()
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(new_pair(algorithm))
    except OSError as error:
        raise SetupError(f"{path} cannot be written ({error.strerror})") from error
    if path.is_relative_to(PROJECT_DIR / "keys"):
        path = path.relative_to(PROJECT_DIR)
    before = []
    if settings.jwt_algorithm is algorithm and settings.jwt_private_key_file is not None:
        before = [settings.jwt_private_key_file, *settings.jwt_previous_key_files]
    return {
        "JWT_ALGORITHM": algorithm.value,
        "JWT_PRIVATE_KEY_FILE": str(path),
        "JWT_PREVIOUS_KEY_FILES": ",".join(map(str, before)),
    }


def _name(line: str) -> str:
    """The name of the variable that a line of a `.env` sets."""
    return line.partition("=")[0].strip().removeprefix("export ").strip()


def write_settings(file: Path, values: Mapping[str, str]) -> None:
    """Set `values` at the end of a `.env`, in place of what they were; all at once or not at all.

    Lines that set them by an alias, or that name a file with the value, are removed as well.

    Raises SetupError where it cannot be written.
    """
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
        replaced = {*values, *(f"{name}_FILE" for name in values)}
        replaced |= {alias.upper() for alias, name in ALIASES.items() if name.upper() in values}
        kept = [line for line in lines if _name(line) not in replaced]
        added = [f"{name}={value}" for name, value in values.items()]
        written = file.with_name(f"{file.name}.new")
        written.unlink(missing_ok=True)
        descriptor = os.open(written, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as new:
            new.write("\n".join([*kept, *added, ""]))
        written.replace(file)
    except OSError as error:
        raise SetupError(f"{file} cannot be written ({error.strerror})") from error
