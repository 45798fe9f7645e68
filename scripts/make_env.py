"""Write .env from .env.example, with fresh secrets; never overwrite one. Needs no packages."""

from __future__ import annotations

import os
import secrets
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PLACEHOLDER = "<generated>"


def main() -> int:
    """Return the exit status: 0 also where there is a .env already, which stays as it is."""
    example = (ROOT / ".env.example").read_text(encoding="utf-8")
    lines = [
        # 48 bytes, safe in addresses and shells alike.
        line.replace(PLACEHOLDER, secrets.token_urlsafe(48))
        if line.endswith(f"={PLACEHOLDER}")
        else line
        for line in example.splitlines()
    ]
    try:
        # O_EXCL: not even a .env that appears just now is overwritten. 0600: it holds secrets.
        descriptor = os.open(ROOT / ".env", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        print(".env exists and stays as it is; delete it first for a new one.")
        return 0
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    print("Wrote .env with fresh secrets.")
    print(
        "If `docker compose up` ran before, its database still has the password `pressroom`:\n"
        'docs/operations.md, "The database\'s password", says how to change it.'
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
