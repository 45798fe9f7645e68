"""Usage: python programs.py URL. Run the program of each resource."""

import sys
from importlib import import_module
from pathlib import Path

import conduit.session
import native.session

FOLDER = Path(__file__).parent
FIRST = "articles"
"""It counts all articles."""
LAST = "users"
"""It deletes the user."""


def main(url: str) -> None:
    for package, session in (
        ("native", native.session.sign_up(url)),
        ("conduit", conduit.session.sign_up(url)),
    ):
        names = {path.stem for path in (FOLDER / package).glob("[!_]*.py")} - {"session"}
        for name in sorted(names, key=lambda name: (name == LAST, name != FIRST, name)):
            import_module(f"{package}.{name}").run(session)


if __name__ == "__main__":
    main(sys.argv[1])
