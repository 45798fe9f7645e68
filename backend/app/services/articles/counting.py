"""Cached counts of public articles: totals of large lists, and lists of tags."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from sqlalchemy import ColumnElement, Select, func, select, true

from app.db.reading import Reader, Rows
from app.models.articles.article import Article
from app.models.articles.change import Change
from app.services.articles.rows import NOW

MIN_CACHED_COUNT = 1_000
"""Smaller lists are counted each time: counting them costs no more than checking the change feed.
"""
MAX_CACHED_ROWS = 5000
"""A list has one row for its total, a list of tags one for each tag."""


class CachedRows(NamedTuple):
    """The rows of a statement, and the last `seq` of the change feed in its snapshot."""

    seq: int
    rows: Rows


_cache: WeakKeyDictionary[Reader, dict[Hashable, CachedRows]] = WeakKeyDictionary()
# A scheduled article that is due is public, but the feed has not announced it yet.
STATE: Sequence[ColumnElement[Any]] = (
    func.coalesce(select(func.max(Change.seq)).scalar_subquery(), 0).label("seq"),
    select(true())
    .where(Article.awaits_publication, Article.published_at <= NOW)
    .exists()
    .label("is_due"),
)
"""The state of the change feed, which tells whether cached counts are current."""
_STATE = select(*STATE)


async def count_public(
    reader: Reader,
    count: Select[Any],
    *,
    key: Hashable,
    parameters: Mapping[str, Any],
    state: Any = None,
) -> int:
    """Return the result of `count`, a count of public articles. See `read_public`."""
    rows = await read_public(
        reader, count, key=key, parameters=parameters, counted=lambda rows: rows[0][0], state=state
    )
    number: int = rows[0][0]
    return number


async def read_public(
    reader: Reader,
    statement: Select[Any],
    *,
    key: Hashable,
    parameters: Mapping[str, Any],
    counted: Callable[[Rows], int],
    state: Any = None,
) -> Rows:
    """Return the rows of a statement that counts public articles, identified by `key`.

    `counted` returns the number of articles from the rows. If it is large, they are cached until
    the change feed has a new entry. The feed records articles that appear, disappear or get other
    tags. While a scheduled article is due and not announced, nothing is cached. Nor is a count for
    a time before the last entry, because it lacks later articles. `state` is a row with the columns
    STATE that this request has read; without it, they are read.
    """
    cached = _cache.setdefault(reader, {})
    entry = cached.get(key)
    if entry is not None:
        state = state or await _state(reader, parameters)
        if not state.is_due and entry.seq == state.seq:
            return entry.rows
    rows = await reader.execute(_with_state(statement), parameters)
    if counted(rows) < MIN_CACHED_COUNT:
        cached.pop(key, None)
    elif not rows[0].is_due and rows[0].seq <= parameters["now"].timestamp() * 1e6:
        if sum(len(each.rows) for each in cached.values()) + len(rows) > MAX_CACHED_ROWS:
            cached.clear()
        cached[key] = CachedRows(rows[0].seq, rows)
    return rows


@lru_cache
def _with_state(statement: Select[Any]) -> Select[Any]:
    """Read both in one snapshot: a replica that executes another statement may be behind."""
    return statement.add_columns(*STATE)


async def _state(reader: Reader, parameters: Mapping[str, Any]) -> Any:
    return (await reader.execute(_STATE, {"now": parameters["now"]})).one()
