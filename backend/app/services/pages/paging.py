"""Pages of lists, as services return them."""

from collections.abc import Sequence
from datetime import datetime
from typing import Generic, NamedTuple, TypeVar

Item = TypeVar("Item")


class ListPage(NamedTuple, Generic[Item]):
    """A page of a list, with the cursors of the adjacent pages, if any."""

    items: Sequence[Item]
    next: str | None = None
    previous: str | None = None
    total: int | None = None
    """The length of the whole list, if requested."""
    modified_at: datetime | None = None
    """The latest change of one of the `items`."""
