"""Parameters of the readers' pages."""

from typing import Annotated

from fastapi import Path, Query
from pydantic import StringConstraints

from app.schemas.page import MAX_SKIP
from app.schemas.types import STORABLE_PATTERN, Id

PAGE_SIZE = 12
"""Articles on one page."""

Name = Annotated[str, Path(), StringConstraints(max_length=100, pattern=STORABLE_PATTERN)]
"""A slug or a username in a path."""
CommentId = Annotated[Id, Path()]
Cursor = Annotated[str | None, Query(max_length=2000)]
"""The position of a page in a list."""
PageNumber = Annotated[int, Query(alias="page", ge=1, le=MAX_SKIP // PAGE_SIZE)]
