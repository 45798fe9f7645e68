"""Lists of articles: filters, orders and pages.

A page is found by where the one before ended (its last row's place in the order, and its id), not
by counting rows: the page 50,000 costs what the second does.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum, auto
from functools import lru_cache, reduce
from hashlib import sha256
from operator import add
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    DateTime,
    Double,
    Integer,
    Select,
    SQLColumnExpression,
    String,
    and_,
    any_,
    bindparam,
    false,
    func,
    or_,
    select,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.orm import aliased
from sqlalchemy.types import TypeEngine

from app.auth.identity import Identity
from app.core.text import tag_key
from app.db.reading import Reader
from app.models.article import Article
from app.models.favorite import Favorite
from app.models.follow import Follow
from app.models.tag import ArticleTag
from app.models.user import User
from app.schemas.article import FIELDS, ON_REQUEST, ArticleQuery, FeedQuery, Sort, Status
from app.services.articles import matching
from app.services.articles.counting import count_public
from app.services.articles.rows import (
    IN_CIRCULATION,
    KEPT,
    NOW,
    PUBLIC,
    UNARCHIVED,
    Sight,
    part,
    selected,
    sight_of,
)
from app.services.articles.tagging import sought_tag
from app.services.cursors import Scalar, decode_cursor, encode_cursor
from app.services.paging import Listed
from app.services.viewing import VIEWER

FAR = 100
"""From so many left out on, it takes less to find a page's ids first."""
DEFAULT_FIELDS = tuple(field for field in FIELDS if field not in ON_REQUEST)

_MOMENT = DateTime(timezone=True)
_FILTERS: Mapping[str, ColumnElement[bool]] = {
    "author": Article.author_id
    == select(User.id)
    .where(func.lower(User.username) == func.lower(bindparam("author", type_=String)))
    .scalar_subquery(),
    "favorited_by": Article.id
    == any_(
        func.array(
            select(Favorite.article_id)
            .join(User, User.id == Favorite.user_id)
            .where(func.lower(User.username) == func.lower(bindparam("favorited_by", type_=String)))
            .scalar_subquery()
        )
    ),
    "language": Article.language == bindparam("language", type_=String),
    "since": Article.dated_at >= bindparam("since", type_=_MOMENT),
    "until": Article.dated_at < bindparam("until", type_=_MOMENT),
}
_HIDDEN = or_(Article.published_at.is_(None), Article.dated_at > NOW)
"""What readers do not see yet, of what is kept and not archived; PUBLIC is the rest of that."""
_WHOSE: Mapping[Sight, ColumnElement[bool]] = {
    Sight.PUBLISHED: false(),
    Sight.PUBLISHED_AND_OWN: Article.author_id == VIEWER,
    Sight.ALL: true(),
}
"""Whose hidden articles one sees."""
_STATUSES: Mapping[Status, Sequence[ColumnElement[bool]]] = {
    Status.DRAFT: (KEPT, UNARCHIVED, Article.published_at.is_(None)),
    Status.SCHEDULED: (IN_CIRCULATION, Article.dated_at > NOW),
    Status.PUBLISHED: (PUBLIC,),
    Status.ARCHIVED: (KEPT, Article.archived_at.is_not(None)),
}


class Shape(NamedTuple):
    """What makes one statement of a list differ from another; the rest are its parameters."""

    sight: Sight
    sort: Sort
    fields: tuple[str, ...]
    tags: int
    filters: frozenset[str]
    status: Status | None
    published: bool | None
    followed: bool = False
    """Whether it is of those alone whom the viewer follows, and then of what is PUBLIC."""
    words: matching.Shape | None = None
    """Where words are searched for; the list is then of the matches that `matching` finds."""


class Order(NamedTuple):
    """By which column a list is sorted; the id decides between equals, the same way."""

    column: SQLColumnExpression[Any]
    id: SQLColumnExpression[int]
    descending: bool
    type: TypeEngine[Any]


class Place(NamedTuple):
    """Where in a list a page begins: behind a row, or before it where one turns back."""

    backward: bool
    key: Any
    id: int


async def list_feed(
    connection: Reader, *, query: FeedQuery, viewer: Identity, fields: Sequence[str] = ()
) -> Listed[dict[str, Any]]:
    """The newest articles of those whom `viewer` follows; as `list_articles`."""
    asked = ArticleQuery(status=Status.PUBLISHED, **query.model_dump())
    return await list_articles(connection, query=asked, viewer=viewer, followed=True, fields=fields)


async def list_articles(
    connection: Reader,
    *,
    query: ArticleQuery,
    viewer: Identity | None,
    followed: bool = False,
    fields: Sequence[str] = (),
) -> Listed[dict[str, Any]]:
    """The page of articles that `query` asks for, of those that `viewer` may see.

    `followed`: of those alone whom `viewer` follows. `fields` are what another edge than the native
    one shows, in place of the query's.

    One query, one more for words to search for, and one where they are to be counted. Raises
    InvalidCursor.
    """
    sight, who = sight_of(viewer)
    who["viewer_id"] = viewer.id if viewer else None
    shape = Shape(
        sight=sight,
        sort=query.sort or (Sort.NEWEST if query.q is None else Sort.RELEVANCE),
        fields=tuple(fields or (query.fields.split(",") if query.fields else DEFAULT_FIELDS)),
        tags=len(query.tag),
        filters=frozenset(name for name in _FILTERS if getattr(query, name) is not None),
        status=query.status,
        published=query.published,
        followed=followed,
    )
    kind = _kind(query, followed_by=viewer if followed else None)
    place = _place(query.cursor, kind, shape.sort)
    parameters = {
        **who,
        **{name: getattr(query, name) for name in shape.filters},
        **{f"tag_{number}": tag_key(tag) for number, tag in enumerate(query.tag)},
    }
    if query.q is not None:
        terms = await matching.interpret(
            connection, q=query.q, viewer=viewer, language=query.language
        )
        if terms is None:
            return Listed([], total=0 if query.count else None)
        if _is_filtered(shape):
            terms = terms.anywhere()
        shape = shape._replace(words=terms.shape)
        parameters |= terms.parameters
    backward = place.backward if place else None
    page = _page(shape, backward, is_far=query.skip >= FAR)
    here = {"key": place.key, "id": place.id} if place else {}
    rows = (
        await connection.execute(
            page, {**parameters, **here, "skip": query.skip, "limit": query.limit + 1}
        )
    ).all()
    total = await _total(connection, shape, parameters) if query.count else None
    return _listed(rows, query=query, place=place, kind=kind, shape=shape, total=total)


def _listed(
    rows: Sequence[Sequence[Any]],
    *,
    query: ArticleQuery,
    place: Place | None,
    kind: str,
    shape: Shape,
    total: int | None,
) -> Listed[dict[str, Any]]:
    """The page that the rows make; there is one row more where the list goes on."""
    goes_on, rows = len(rows) > query.limit, rows[: query.limit]
    backward = place is not None and place.backward
    if backward:
        rows = rows[::-1]
    more_after = bool(rows) and (backward or goes_on)
    more_before = bool(rows) and (goes_on if backward else place is not None or query.skip > 0)
    return Listed(
        items=[part(shape.fields, row[:-3]) for row in rows],
        next=_cursor(kind, Place(False, *rows[-1][-2:])) if more_after else None,
        previous=_cursor(kind, Place(True, *rows[0][-2:])) if more_before else None,
        total=total,
        modified_at=max((row[-3] for row in rows), default=None),
    )


class Range(Enum):
    """What an index has in the list's order."""

    PUBLIC = auto()
    """What readers see."""
    HIDDEN = auto()
    """What they do not: one's own, or for an editor everybody's."""
    BOTH = auto()


def _ranges(shape: Shape) -> Sequence[Range]:
    """The ranges that make up a list; several are merged.

    A reader who sees more than others do would otherwise walk past all that is hidden from them, or
    sort all that there is.
    """
    only_public = shape.published is True or shape.status is Status.PUBLISHED
    only_hidden = shape.published is False or shape.status not in {None, Status.PUBLISHED}
    if only_hidden:
        return [Range.HIDDEN]
    if only_public or shape.sight is Sight.PUBLISHED:
        return [Range.PUBLIC]
    if shape.sight is Sight.ALL and not shape.tags and shape.sort in {Sort.NEWEST, Sort.OLDEST}:
        return [Range.BOTH]
    return [Range.PUBLIC, Range.HIDDEN]


@lru_cache(maxsize=512)
def _page(shape: Shape, backward: bool | None, *, is_far: bool) -> Select[Any]:
    """The statement of a page; `backward` is None where it is the list's beginning.

    Kept, for building it takes longer than running it. Its rows end in `updated_at`, the key and
    the id. Where many are left out before it (`is_far`), or several ranges are merged, the ids are
    found first: PostgreSQL would look up tags and counts for what is not shown.
    """
    if shape.words is not None:
        return _page_of_matches(shape, shape.words, backward)
    skip, limit = bindparam("skip", type_=Integer), bindparam("limit", type_=Integer)
    ranges = _ranges(shape)
    if len(ranges) == 1 and not (is_far or shape.followed):
        order = _order(shape, ranges[0])
        ending = (Article.updated_at, order.column, order.id)
        statement = _in_range(selected(shape.fields).add_columns(*ending), shape, ranges[0])
        return _placed(statement, shape, order, backward).offset(skip).limit(limit)
    if shape.followed:
        found = _of_followed(shape, backward, skip + limit).subquery()
    else:
        parts = [_beginning(shape, each, backward).limit(skip + limit) for each in ranges]
        found = union_all(*parts).subquery()
    order = _order(shape, Range.BOTH)
    by_found = order._replace(column=found.c.key, id=found.c.id)
    ids = _sorted(select(found.c.id, found.c.key), by_found, backward)
    page = ids.offset(skip).limit(limit).subquery()
    statement = (
        selected(shape.fields)
        .add_columns(Article.updated_at, page.c.key, page.c.id)
        .join(page, page.c.id == Article.id)
    )
    return _sorted(statement, order._replace(column=page.c.key, id=page.c.id), backward)


def _beginning(shape: Shape, part_of: Range, backward: bool | None) -> Select[Any]:
    """The ids and keys of a range, in order; one of those that are merged."""
    order = _order(shape, part_of)
    columns: Sequence[ColumnElement[Any]] = [order.id.label("id"), order.column.label("key")]
    statement = _in_range(select(*columns).select_from(Article), shape, part_of)
    return _placed(statement, shape, order, backward)


def _of_followed(shape: Shape, backward: bool | None, at_most: ColumnElement[int]) -> Select[Any]:
    """The ids and keys of what those have published whom the viewer follows.

    So many of each at most: an index has an author's in their order, not those of several.
    """
    theirs = _beginning(shape, Range.PUBLIC, backward).where(
        Article.author_id == Follow.followed_id
    )
    newest = theirs.correlate(Follow).limit(at_most).lateral()
    return (
        select(newest.c.id, newest.c.key)
        .select_from(Follow)
        .join(newest, true())
        .where(Follow.follower_id == VIEWER)
    )


def _placed(
    statement: Select[Any], shape: Shape, order: Order, backward: bool | None
) -> Select[Any]:
    """The statement in its order, from the row on that the page begins behind."""
    if backward is not None:
        here = tuple_(bindparam("key", type_=order.type), bindparam("id", type_=BigInteger))
        row = tuple_(order.column, order.id)
        statement = statement.where(row < here if _descends(order, backward) else row > here)
    return _sorted(statement, order, backward)


def _sorted(statement: Select[Any], order: Order, backward: bool | None) -> Select[Any]:
    if _descends(order, backward):
        return statement.order_by(order.column.desc(), order.id.desc())
    return statement.order_by(order.column, order.id)


def _descends(order: Order, backward: bool | None) -> bool:
    return order.descending is not bool(backward)


async def _total(connection: Reader, shape: Shape, parameters: Mapping[str, Any]) -> int:
    """How many articles a list has in all."""
    is_everybodys = shape.status is Status.PUBLISHED and shape.filters <= {"author", "language"}
    if not is_everybodys or shape.followed or shape.words is not None:
        total: int = await connection.scalar(_count(shape), parameters)
        return total
    asked = {name: value for name, value in parameters.items() if name not in {"now", "viewer_id"}}
    key = (shape.filters, *sorted(asked.items()))
    return await count_public(connection, _count(shape), key=key, parameters=parameters)


@lru_cache(maxsize=512)
def _count(shape: Shape) -> Select[Any]:
    if shape.words is not None:
        found = matching.candidates(shape.words, _searched(shape))
        return select(func.count()).select_from(found)
    every: Select[Any] = select(func.count()).select_from(Article)
    if shape.followed:
        every = every.join(Follow, Follow.followed_id == Article.author_id)
        every = every.where(Follow.follower_id == VIEWER)
    counts = [_in_range(every, shape, each).scalar_subquery() for each in _ranges(shape)]
    return select(reduce(add, counts))


_first_tag = aliased(ArticleTag)


def _order(shape: Shape, part_of: Range) -> Order:
    if shape.sort is Sort.UPDATED:
        return Order(Article.updated_at, Article.id, descending=True, type=_MOMENT)
    if shape.sort is Sort.TITLE:
        return Order(Article.title, Article.id, descending=False, type=String())
    descending = shape.sort is Sort.NEWEST
    if _from_tag(shape, part_of) and part_of is Range.PUBLIC:
        return Order(_first_tag.listed_at, _first_tag.article_id, descending, _MOMENT)
    return Order(Article.dated_at, Article.id, descending, _MOMENT)


def _from_tag(shape: Shape, part_of: Range) -> bool:
    """Whether a range is read from a tag's articles: not where an author's are fewer."""
    return bool(shape.tags) and "author" not in shape.filters and part_of is not Range.BOTH


def _in_range(statement: Select[Any], shape: Shape, part_of: Range) -> Select[Any]:
    """The statement with all conditions of a list, in one of its ranges."""
    from_tag = _from_tag(shape, part_of)
    if from_tag:
        listed = {
            Range.PUBLIC: _first_tag.listed_at <= NOW,  # says all of PUBLIC
            Range.HIDDEN: or_(_first_tag.listed_at.is_(None), _first_tag.listed_at > NOW),
        }[part_of]
        statement = statement.join(_first_tag, _first_tag.article_id == Article.id).where(
            _first_tag.tag_id == _tag_id(0), listed
        )
    statement = statement.where(*_filters(shape, tags_from=int(from_tag)))
    if shape.status is not None:
        statement = statement.where(*_STATUSES[shape.status])
    elif part_of is Range.PUBLIC and not from_tag:
        statement = statement.where(PUBLIC)
    elif part_of is Range.BOTH:
        statement = statement.where(KEPT, UNARCHIVED)
    elif part_of is Range.HIDDEN:
        statement = statement.where(KEPT, UNARCHIVED, _HIDDEN)
    if part_of is Range.HIDDEN:
        statement = statement.where(_WHOSE[shape.sight])
    return statement


def _filters(shape: Shape, *, tags_from: int) -> Sequence[ColumnElement[bool]]:
    """The conditions that a query names, of its tags those from this one on."""
    tagged = [
        select(true())
        .where(ArticleTag.article_id == Article.id, ArticleTag.tag_id == _tag_id(number))
        .correlate(Article)
        .scalar_subquery()  # not EXISTS: PostgreSQL would make a join of it, with the whole tag
        for number in range(tags_from, shape.tags)
    ]
    return [*tagged, *(_FILTERS[name] for name in shape.filters)]


def _page_of_matches(shape: Shape, words: matching.Shape, backward: bool | None) -> Select[Any]:
    """As `_page`, of the articles with the words: all of them are found before any is shown."""
    skip, limit = bindparam("skip", type_=Integer), bindparam("limit", type_=Integer)
    found = matching.candidates(words, _searched(shape))
    by_rank = Order(found.c.rank, Article.id, descending=True, type=Double())
    order = by_rank if shape.sort is Sort.RELEVANCE else _order(shape, Range.BOTH)
    ending = (Article.updated_at, order.column, order.id)
    statement = selected(shape.fields).add_columns(*ending).join(found, found.c.id == Article.id)
    return _placed(statement, shape, order, backward).offset(skip).limit(limit)


def _searched(shape: Shape) -> Select[int, datetime]:
    """The articles among which words are searched for."""
    statement = select(Article.id, Article.dated_at).where(*_filters(shape, tags_from=0))
    if shape.status is not None:
        statement = statement.where(*_STATUSES[shape.status])
    elif shape.published is not None:
        statement = statement.where(PUBLIC if shape.published else and_(UNARCHIVED, _HIDDEN))
    else:
        statement = statement.where(UNARCHIVED)
    # By `published_at`, which is in no index: it must not be taken in place of the words'.
    seen = or_(and_(Article.published_at <= NOW, UNARCHIVED), _WHOSE[shape.sight])
    return statement.where(KEPT, seen)


def _is_filtered(shape: Shape) -> bool:
    """Whether a list has less than all that its reader may see."""
    return bool(shape.tags or shape.filters or shape.status or shape.published is not None)


def _tag_id(number: int) -> ColumnElement[int]:
    return sought_tag(bindparam(f"tag_{number}", type_=String))


def _kind(query: ArticleQuery, *, followed_by: Identity | None) -> str:
    """The list that a cursor belongs to: all of the query but the page and what is shown of it."""
    page = {"skip", "limit", "cursor", "count", "fields"}
    described = query.model_dump_json(exclude=page, exclude_none=True)
    feed = f" followed by {followed_by.id}" if followed_by else ""
    return f"articles {sha256(described.encode()).hexdigest()}{feed}"


def _cursor(kind: str, place: Place) -> str:
    key: Scalar = place.key.isoformat() if isinstance(place.key, datetime) else place.key
    return encode_cursor(kind, [place.backward, key, place.id])


def _place(cursor: str | None, kind: str, sort: Sort) -> Place | None:
    if cursor is None:
        return None
    backward, key, article_id = decode_cursor(cursor, kind)
    by_moment = sort not in {Sort.TITLE, Sort.RELEVANCE}
    place = datetime.fromisoformat(str(key)) if by_moment else key
    return Place(bool(backward), place, int(str(article_id)))
