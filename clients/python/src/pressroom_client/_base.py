"""Base classes of the generated models and operations."""

from collections.abc import AsyncIterable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeAlias, TypeVar

from pydantic import BaseModel, PrivateAttr, TypeAdapter

Item = TypeVar("Item")
Result = TypeVar("Result")

Content: TypeAlias = bytes | str | Iterable[bytes] | AsyncIterable[bytes]
"""A body that is not JSON. Only an asynchronous client sends an AsyncIterable."""


class Model(BaseModel):
    """A request or a response. Fields of newer servers are ignored in responses."""

    _etag: str | None = PrivateAttr(default=None)

    @property
    def etag(self) -> str | None:
        """The version that was read, for `if_match`; None if the response has none."""
        return self._etag


class Page(list[Item]):
    """A page of a list.

    `next` is the cursor of the next page, and None on the last one. `total` is the number of items
    on all pages if the request had `count=True`.
    """

    next: str | None = None
    total: int | None = None
    etag: str | None = None


@dataclass(frozen=True)
class Operation(Generic[Result]):
    """What requests need to know of an operation."""

    id: str
    method: str
    path: str
    result: Any
    """The type of the JSON in a successful response; None without a body."""
    pages: str | None = None
    """How the list is paginated: `cursor` or `skip`."""
    key: bool = False
    """Whether the operation accepts an Idempotency-Key."""
    raw: bool = False
    """Whether the response is returned as it is."""

    @cached_property
    def adapter(self) -> TypeAdapter[Any]:
        """The validator of the result."""
        return TypeAdapter(self.result)
