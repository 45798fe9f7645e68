"""Keyset pagination for lists with one statement and one order.

Lists of articles have many of both: see services.articles.listing.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Generic, NamedTuple, TypeVar

from sqlalchemy import DateTime, Integer, Select, bindparam, tuple_
from sqlalchemy.orm import InstrumentedAttribute

from app.db.reading import Reader
from app.db.selection import Selection
from app.schemas.page import CursorQuery
from app.services.pages.cursors import Scalar, decode_cursor, encode_cursor
from app.services.pages.paging import ListPage

Item = TypeVar("Item")


class Keyset(NamedTuple, Generic[Item]):
    """A list's statements: for the first page, and for a page after a cursor."""

    kind: str
    selection: Selection[Item]
    first: Select[Any]
    after: Select[Any]
    position: Mapping[str, bool]
    """The names of the order columns, and whether they are datetimes; the last one is an id."""


def keyset(
    kind: str,
    selection: Selection[Item],
    statement: Any,
    *order: InstrumentedAttribute[Any],
    descending: bool = True,
) -> Keyset[Item]:
    """Build a paginated list from `statement`, which selects the columns of `selection`.

    The order columns must identify a row.
    """
    names = {f"place_{number}": column for number, column in enumerate(order)}
    position = tuple_(*(bindparam(name, type_=column.type) for name, column in names.items()))
    row = tuple_(*order)
    first = (
        statement.add_columns(*(column.label(name) for name, column in names.items()))
        .order_by(*(column.desc() if descending else column.asc() for column in order))
        .limit(bindparam("limit", type_=Integer))
    )
    return Keyset(
        kind,
        selection,
        first,
        first.where(row < position if descending else row > position),
        {name: isinstance(column.type, DateTime) for name, column in names.items()},
    )


async def read_page(
    reader: Reader,
    listing: Keyset[Item],
    *,
    query: CursorQuery,
    parameters: Mapping[str, Any],
    of: object = "",
) -> ListPage[Item]:
    """Return a page of a list.

    `of` identifies the list's owner, such as an article's id; it is part of the cursor. Raises
    InvalidCursor.
    """
    kind = f"{listing.kind} {of}"
    page_parameters = {**parameters, "limit": query.limit + 1}
    statement = listing.first
    if query.cursor is not None:
        statement = listing.after
        page_parameters |= _position_parameters(listing, decode_cursor(query.cursor, kind))
    rows = (await reader.execute(statement, page_parameters)).all()
    shown = rows[: query.limit]
    following = None
    if len(rows) > query.limit:
        last = [_scalar(getattr(shown[-1], name)) for name in listing.position]
        following = encode_cursor(kind, last)
    return ListPage([listing.selection.read(row) for row in shown], next=following)


def _position_parameters(listing: Keyset[Any], values: Sequence[Scalar]) -> dict[str, Any]:
    return {
        name: datetime.fromisoformat(str(value)) if is_datetime else value
        for value, (name, is_datetime) in zip(values, listing.position.items(), strict=True)
    }


def _scalar(value: Any) -> Scalar:
    scalar: Scalar = value.isoformat() if isinstance(value, datetime) else value
    return scalar
