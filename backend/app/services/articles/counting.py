"""How many articles a list has, where that takes long to count."""

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import Select, func, select

from app.db.reading import Reader
from app.models.change import Change

LARGE = 1_000
"""To count less takes as long as to ask the change feed."""
MAX_KNOWN = 1000


class Total(NamedTuple):
    """How long a list is, and the last entry of the change feed before it was counted."""

    seq: int
    number: int


_known: WeakKeyDictionary[Reader, dict[Hashable, Total]] = WeakKeyDictionary()
_LAST_CHANGE = select(func.coalesce(func.max(Change.seq), 0))


async def count_public(
    connection: Reader, count: Select[Any], *, key: Hashable, parameters: Mapping[str, Any]
) -> int:
    """What `count` says, of articles that all readers see; `key` is what it counts.

    A large number is kept for as long as the change feed has nothing new: it tells of whatever
    comes, goes, or gets other tags. What was scheduled is counted once it has been announced.
    """
    known = _known.setdefault(connection, {})
    found = known.get(key)
    if found is not None and found.seq == await connection.scalar(_LAST_CHANGE):
        return found.number
    number: int = await connection.scalar(count, parameters)
    if number < LARGE:
        known.pop(key, None)
        return number
    # The feed first: what changes between the two is counted, and noticed the next time.
    seq = await connection.scalar(_LAST_CHANGE)
    number = await connection.scalar(count, parameters)
    if len(known) >= MAX_KNOWN:
        known.clear()
    known[key] = Total(seq, number)
    return number
