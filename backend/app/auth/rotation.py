"""Key rotation: new values of the key settings, written to a `.env` file."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path

from app.auth.keys import new_private_key
from app.core.config import EXAMPLE_SECRETS, PROJECT_DIR, Algorithm, Settings, SetupError
from app.core.sources import ALIASES

SECRET_BYTES = 32


def new_secret_settings(settings: Settings) -> dict[str, str]:
    """Return the settings for a new SECRET_KEY; the previous keys are still accepted."""
    before = [settings.secret_key, *settings.secret_keys_previous]
    accepted = [secret for secret in before if secret not in EXAMPLE_SECRETS]
    return {
        "SECRET_KEY": secrets.token_hex(SECRET_BYTES),
        "SECRET_KEYS_PREVIOUS": ",".join(dict.fromkeys(accepted)),
    }


def new_key_pair_settings(
    settings: Settings, *, algorithm: Algorithm, directory: Path
) -> dict[str, str]:
    """Write a new private key to a file in `directory`, and return the settings that use it.

    Only the file's owner can read it. The path is relative if the file is in `keys/`, so that it
    is also valid in a container. Raises SetupError if the file cannot be written.
    """
    path = (directory / f"jwt-{algorithm.lower()}-{secrets.token_hex(4)}.pem").resolve()
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(new_private_key(algorithm))
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
    """Return the name of the variable that a line of a `.env` file sets."""
    return line.partition("=")[0].strip().removeprefix("export ").strip()


def write_settings(file: Path, values: Mapping[str, str]) -> None:
    """Replace the values of settings in a `.env` file atomically. New lines go to its end.

    Lines that set the values by an alias or by a `_FILE` variable are removed.

    Raises SetupError if the file cannot be written.
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
