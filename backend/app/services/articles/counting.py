"""Cached totals of large lists."""

from collections.abc import Hashable, Mapping
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import Select, func, select

from app.db.reading import Reader
from app.models.articles.change import Change

MIN_CACHED_COUNT = 1_000
"""Smaller lists are counted each time: counting them costs no more than checking the change feed.
"""
MAX_CACHED_COUNTS = 1000


class CachedCount(NamedTuple):
    """The length of a list, and the last `seq` of the change feed before it was counted."""

    seq: int
    number: int


_cache: WeakKeyDictionary[Reader, dict[Hashable, CachedCount]] = WeakKeyDictionary()
_LAST_CHANGE = select(func.coalesce(func.max(Change.seq), 0))


async def count_public(
    reader: Reader, count: Select[Any], *, key: Hashable, parameters: Mapping[str, Any]
) -> int:
    """Return the result of `count`, a count of public articles identified by `key`.

    Large totals are cached until the change feed has a new entry. The feed records articles that
    appear, disappear or get other tags. Scheduled articles count once the feed has announced them.
    """
    cached = _cache.setdefault(reader, {})
    entry = cached.get(key)
    if entry is not None and entry.seq == await reader.scalar(_LAST_CHANGE):
        return entry.number
    number: int = await reader.scalar(count, parameters)
    if number < MIN_CACHED_COUNT:
        cached.pop(key, None)
        return number
    # Read the feed before counting. A change between the two statements then invalidates the entry
    # on the next call.
    seq = await reader.scalar(_LAST_CHANGE)
    number = await reader.scalar(count, parameters)
    if len(cached) >= MAX_CACHED_COUNTS:
        cached.clear()
    cached[key] = CachedCount(seq, number)
    return number
