"""Write .env from .env.example with new secrets. Does not overwrite it. Requires no packages."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACEHOLDER = "<generated>"


def main() -> int:
    """Return the exit status, which is 0 also if .env exists."""
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    lines = [
        # 48 random bytes, without characters that require escaping in URLs or shells.
        line.replace(PLACEHOLDER, secrets.token_urlsafe(48))
        if line.endswith(f"={PLACEHOLDER}")
        else line
        for line in example.splitlines()
    ]
    try:
        # O_EXCL: never overwrites a file. 0600: the file contains secrets.
        descriptor = os.open(ROOT / ".env", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        print(".env already exists. Delete it first to create a new one.")
        return 0
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    print("Wrote .env with new secrets.")
    print(
        "If `docker compose up` ran before, the database still has the password `pressroom`.\n"
        "To change it, see docs/operations/database.md."
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
