"""Pages of a list: what a service returns, whichever edge it is for."""

from collections.abc import Sequence
from datetime import datetime
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")


class Listed(NamedTuple, Generic[Item]):
    """A page of a list, and the cursors of the pages beside it; None where there is none."""

    items: Sequence[Item]
    next: str | None = None
    previous: str | None = None
    total: int | None = None
    """Of the whole list, where it was asked for."""
    modified_at: datetime | None = None
    """When the latest of `items` was changed."""
