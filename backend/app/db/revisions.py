"""The migrations of this release, read from their files.

The server needs only their identifiers. Alembic would take 8 MB and a tenth of a second.
"""

import re
from collections.abc import Mapping
from functools import lru_cache

from app.core.config import BACKEND_DIR

_DECLARED = re.compile(
    r'^revision = "(?P<revision>\w+)"\s+^down_revision = (?:"(?P<previous>\w+)"|None)',
    re.MULTILINE,
)


@lru_cache(maxsize=1)
def _previous() -> Mapping[str, str | None]:
    """Return the previous revision of each."""
    files = (BACKEND_DIR / "alembic" / "versions").glob("*.py")
    found = (_DECLARED.search(file.read_text(encoding="utf-8")) for file in files)
    return {each["revision"]: each["previous"] for each in found if each is not None}


def head() -> str:
    """Return the newest revision."""
    (newest,) = _previous().keys() - _previous().values()
    return newest


def is_known(revision: str) -> bool:
    """Return whether this release has the migration `revision`."""
    return revision in _previous()
