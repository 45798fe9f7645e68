"""Lists of articles: filters, sorting and keyset pagination.

A cursor holds the sort key and the id of the last row of the previous page. Page 50,000 costs as
much as page 2, because no rows are counted or skipped.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache, reduce
from hashlib import sha256
from operator import add
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CompoundSelect,
    DateTime,
    Double,
    Integer,
    Row,
    Select,
    SQLColumnExpression,
    String,
    and_,
    any_,
    bindparam,
    false,
    func,
    literal_column,
    not_,
    or_,
    select,
    true,
    tuple_,
    union_all,
)
from sqlalchemy.orm import aliased
from sqlalchemy.types import TypeEngine

from app.auth.identity import Identity
from app.content.slugs import tag_key
from app.db.reading import Reader
from app.models.accounts.user import User
from app.models.articles.article import PUBLISHED_OR_SCHEDULED, Article
from app.models.articles.tag import ArticleTag
from app.models.community.favorite import Favorite
from app.models.community.follow import Follow, UserCounts
from app.schemas.articles.article import DEFAULT_FIELDS, ArticleQuery, FeedQuery, Sort, Status
from app.schemas.page import DEFAULT_LIMIT, MAX_LIMIT
from app.services.articles import matching
from app.services.articles.counting import STATE, count_public
from app.services.articles.rows import (
    NOT_ARCHIVED,
    NOT_DELETED,
    NOW,
    PUBLIC,
    Visibility,
    article_fields,
    select_articles,
    visibility_of,
)
from app.services.articles.tagging import tag_id_for_filter
from app.services.pages.cursors import Scalar, decode_cursor, encode_cursor
from app.services.pages.paging import ListPage
from app.services.pages.viewing import VIEWER

DEFERRED_JOIN_SKIP = 100
"""From this `skip` on, the ids of a page are selected before its rows are joined."""

WALKED_PER_AUTHOR = 30
"""How many articles a feed reads for each followed author before it reads the author's own."""
MAX_WALKED = 50_000
MAX_SORTED = 5_000
"""How many public articles of one author are sorted by title or change for each page."""

_SKIP, _LIMIT = bindparam("skip", type_=Integer), bindparam("limit", type_=Integer)
_CONSTANT_LIMITS: Mapping[int, ColumnElement[int]] = {
    limit: literal_column(f"{limit + 1}", Integer) for limit in (10, DEFAULT_LIMIT, 50, MAX_LIMIT)
}
"""PostgreSQL reuses the plan of a statement with such a limit and no `skip`.

It plans others each time, which takes longer than reading a page: it expects that a limit that it
does not know is a tenth of the list.
"""
_PLANNED_ONCE = frozenset({"author", "favorited_by"})
"""Filters whose values PostgreSQL does not know when it plans: they are compared in subqueries.

For a rare language, the words of a search or a short time, the plan should depend on the value.
"""

_TIMESTAMP = DateTime(timezone=True)
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
    "since": Article.dated_at >= bindparam("since", type_=_TIMESTAMP),
    "until": Article.dated_at < bindparam("until", type_=_TIMESTAMP),
}
_NEVER: ColumnElement[datetime] = literal_column("'infinity'::timestamptz", _TIMESTAMP)
"""The end of a range: PostgreSQL expects 0.5 % of unknown ranges, and a third without an end."""
_UNPUBLISHED = or_(Article.published_at.is_(None), Article.dated_at > NOW)
"""Drafts and scheduled articles, among those neither deleted nor archived."""
_UNPUBLISHED_VISIBLE: Mapping[Visibility, ColumnElement[bool]] = {
    Visibility.PUBLISHED: false(),
    Visibility.PUBLISHED_AND_OWN: Article.author_id == VIEWER,
    Visibility.ALL: true(),
}
"""Which unpublished articles each visibility includes."""
_STATUSES: Mapping[Status, Sequence[ColumnElement[bool]]] = {
    Status.DRAFT: (NOT_DELETED, NOT_ARCHIVED, Article.published_at.is_(None)),
    Status.SCHEDULED: (PUBLISHED_OR_SCHEDULED, Article.dated_at > NOW, Article.dated_at <= _NEVER),
    Status.PUBLISHED: (PUBLIC,),
    Status.ARCHIVED: (NOT_DELETED, Article.archived_at.is_not(None)),
}
_first_tag = aliased(ArticleTag)
_LISTED: Mapping[Status, ColumnElement[bool]] = {
    Status.DRAFT: _first_tag.listed_at.is_(None),
    Status.SCHEDULED: _first_tag.listed_at > NOW,
    Status.PUBLISHED: _first_tag.listed_at <= NOW,  # implies PUBLIC
    Status.ARCHIVED: _first_tag.listed_at.is_(None),
}
"""Conditions on the first tag of a filter, for its index."""


class ListSpec(NamedTuple):
    """The parts of a query that change its SQL; all other values are bound parameters."""

    visibility: Visibility
    sort: Sort
    fields: tuple[str, ...]
    tags: int
    filters: frozenset[str]
    status: Status | None
    published: bool | None
    followed: bool = False
    """Whether to list only public articles by authors whom the viewer follows."""
    search: matching.SearchSpec | None = None
    """Set for a full-text search; the list then contains only matching articles."""
    has_state: bool = False
    """Whether to select the state of the change feed as well, for a cached total."""

    @property
    def is_by_date(self) -> bool:
        return self.sort in {Sort.NEWEST, Sort.OLDEST}


class Slice(NamedTuple):
    """The rows of a list that are its page, with one more row."""

    skip: ColumnElement[int] | None
    limit: ColumnElement[int]
    is_deferred: bool
    """Whether to select the ids of the page before its rows are joined."""

    @property
    def end(self) -> ColumnElement[int]:
        """The number of rows from the start of the list to the end of the page."""
        return _LIMIT if self.skip is None else self.skip + _LIMIT

    def of(self, statement: Select[Any]) -> Select[Any]:
        """Return the rows of the page of a statement."""
        return statement.offset(self.skip).limit(self.limit)


class Order(NamedTuple):
    """The sort column of a list; ties are broken by the id in the same direction."""

    column: SQLColumnExpression[Any]
    id: SQLColumnExpression[int]
    descending: bool
    type: TypeEngine[Any]


class CursorPosition(NamedTuple):
    """A row's position in a list. The page is after this row, or before it if `backward`."""

    backward: bool
    key: Any
    id: int


async def list_feed(
    reader: Reader, *, query: FeedQuery, viewer: Identity, fields: Sequence[str] = ()
) -> ListPage[dict[str, Any]]:
    """Return the newest articles by followed authors. See `list_articles`."""
    article_query = ArticleQuery(status=Status.PUBLISHED, **query.model_dump())
    return await list_articles(
        reader, query=article_query, viewer=viewer, followed=True, fields=fields
    )


async def list_articles(
    reader: Reader,
    *,
    query: ArticleQuery,
    viewer: Identity | None,
    followed: bool = False,
    fields: Sequence[str] = (),
) -> ListPage[dict[str, Any]]:
    """Return the requested page of articles that `viewer` may see.

    `followed` keeps only articles by authors whom `viewer` follows. `fields` replaces the fields
    named in the query; the RealWorld API uses it.

    Runs one query, one more for a full-text search, and up to two more to count. Raises
    InvalidCursor.
    """
    visibility, params = visibility_of(viewer)
    params["viewer_id"] = viewer.id if viewer else None
    spec = ListSpec(
        visibility=visibility,
        sort=query.sort or (Sort.NEWEST if query.q is None else Sort.RELEVANCE),
        fields=tuple(fields or (query.fields.split(",") if query.fields else DEFAULT_FIELDS)),
        tags=len(query.tag),
        filters=frozenset(name for name in _FILTERS if getattr(query, name) is not None),
        status=query.status,
        published=query.published,
        followed=followed,
    )
    kind = _cursor_kind(query, followed_by=viewer if followed else None)
    position = _decode_position(query.cursor, kind, spec.sort)
    parameters = {
        **params,
        **{name: getattr(query, name) for name in spec.filters},
        **{f"tag_{number}": tag_key(tag) for number, tag in enumerate(query.tag)},
    }
    if query.q is not None:
        terms = await matching.parse_query(
            reader, q=query.q, viewer=viewer, language=query.language
        )
        if terms is None:
            return ListPage([], total=0 if query.count else None)
        if _is_filtered(spec):
            terms = terms.without_since()
        spec = spec._replace(search=terms.spec)
        parameters |= terms.parameters
    spec = spec._replace(has_state=query.count and _has_cached_total(spec))
    backward = position.backward if position else None
    page = _page(spec, backward, _slice(query, spec))
    position_parameters = {"key": position.key, "id": position.id} if position else {}
    rows = (
        await reader.execute(
            page,
            {**parameters, **position_parameters, "skip": query.skip, "limit": query.limit + 1},
        )
    ).all()
    state = rows[0] if rows and spec.has_state else None
    total = await _total(reader, spec, parameters, state) if query.count else None
    return _build_page(rows, query=query, position=position, kind=kind, spec=spec, total=total)


def _build_page(
    rows: Sequence[Row[Any]],
    *,
    query: ArticleQuery,
    position: CursorPosition | None,
    kind: str,
    spec: ListSpec,
    total: int | None,
) -> ListPage[dict[str, Any]]:
    """Build the page from `limit + 1` rows; the extra row shows that another page exists."""
    has_extra_row, rows = len(rows) > query.limit, rows[: query.limit]
    backward = position is not None and position.backward
    if backward:
        rows = rows[::-1]
    has_next = bool(rows) and (backward or has_extra_row)
    has_previous = bool(rows) and (
        has_extra_row if backward else position is not None or query.skip > 0
    )
    selection = article_fields(spec.fields)
    return ListPage(
        items=[selection.read(row) for row in rows],
        next=_cursor(kind, rows[-1], backward=False) if has_next else None,
        previous=_cursor(kind, rows[0], backward=True) if has_previous else None,
        total=total,
        modified_at=max((row[_MODIFIED_AT] for row in rows), default=None),
    )


def _ranges(spec: ListSpec) -> Sequence[Status | None]:
    """Return the statuses whose articles make up the list; several index ranges are merged.

    None is a range of all statuses, except archived articles.

    A single scan for a viewer who may see some unpublished articles would be slow. It would read
    every hidden article, or sort the whole table.
    """
    if spec.status is not None:
        return [spec.status]
    if spec.published is False:
        return [Status.DRAFT, Status.SCHEDULED]
    if spec.published is True or spec.visibility is Visibility.PUBLISHED:
        return [Status.PUBLISHED]
    if spec.visibility is Visibility.ALL and not spec.tags and spec.is_by_date:
        return [None]
    return [Status.PUBLISHED, Status.DRAFT, Status.SCHEDULED]


def _slice(query: ArticleQuery, spec: ListSpec) -> Slice:
    skip = _SKIP if query.skip else None
    is_planned_once = spec.search is None and spec.filters <= _PLANNED_ONCE and _is_one_plan(spec)
    limit = _CONSTANT_LIMITS.get(query.limit, _LIMIT) if is_planned_once else _LIMIT
    return Slice(skip, limit, is_deferred=query.skip >= DEFERRED_JOIN_SKIP)


def _is_one_plan(spec: ListSpec) -> bool:
    """Return whether the same plan is good for all viewers and all times.

    Unpublished articles have no index in the order of titles or changes. If PostgreSQL does not
    know how few of them a viewer has, it looks for them among all public articles.
    """
    return spec.is_by_date or list(_ranges(spec)) == [Status.PUBLISHED]


@lru_cache(maxsize=512)
def _page(spec: ListSpec, backward: bool | None, rows: Slice) -> Select[Any]:
    """Return the statement for a page; `backward` is None for the first page.

    The statement is cached, because building it takes longer than running it. With a large `skip`
    or several ranges, a subquery selects the ids first. Otherwise PostgreSQL would look up tags and
    counts of rows that are not returned.
    """
    if spec.search is not None:
        return rows.of(_search_page(spec, spec.search, backward))
    ranges = _ranges(spec)
    is_single = len(ranges) == 1 and not (rows.is_deferred or spec.followed)
    if is_single and not _has_few(spec, ranges[0]):
        order = _order(spec, ranges[0])
        statement = _filtered_range(_select(spec, order), spec, ranges[0])
        return rows.of(_after_position(statement, spec, order, backward))
    if spec.followed:
        found = _followed_page(spec, backward, rows.end).subquery()
    else:
        parts = [
            part.limit(rows.end) for each in ranges for part in _range_pages(spec, each, backward)
        ]
        found = union_all(*parts).subquery()
    order = _order(spec, None)
    found_order = order._replace(column=found.c.key, id=found.c.id)
    ids = _ordered(select(found.c.id, found.c.key), found_order, backward)
    page = rows.of(ids).subquery()
    page_order = order._replace(column=page.c.key, id=page.c.id)
    statement = _select(spec, page_order).join(page, page.c.id == Article.id)
    return _ordered(statement, page_order, backward)


_MODIFIED_AT = -3
"""The index of the date of the last change among the columns of `_select`."""


def _select(spec: ListSpec, order: Order) -> Select[Any]:
    """Select the requested fields, the position in the list, and the date of the last change."""
    return select_articles(spec.fields).add_columns(
        *(STATE if spec.has_state else ()),
        Article.updated_at.label("modified_at"),
        order.column.label("position_key"),
        order.id.label("position_id"),
    )


def _range_page(spec: ListSpec, status: Status | None, backward: bool | None) -> Select[Any]:
    """Select the ids and sort keys of one range, in order."""
    order = _order(spec, status)
    columns: Sequence[ColumnElement[Any]] = [order.id.label("id"), order.column.label("key")]
    statement = _filtered_range(select(*columns).select_from(Article), spec, status)
    return _after_position(statement, spec, order, backward)


def _has_few(spec: ListSpec, status: Status | None) -> bool:
    """Return whether a range usually has few rows, and no index in the order of the list.

    PostgreSQL would look for them among the public articles, in the order of titles or changes.
    """
    is_of_author = status is Status.PUBLISHED and "author" in spec.filters
    return not spec.is_by_date and (is_of_author or status is Status.SCHEDULED)


def _range_pages(
    spec: ListSpec, status: Status | None, backward: bool | None
) -> Sequence[Select[Any]]:
    """Select the ids and sort keys of one range, with one or two statements.

    Only one of two returns rows. The first one sorts the articles of an author who has few. The
    second one reads the articles of all authors in order; it is soon done if many of them are the
    author's. PostgreSQL cannot choose: it does not know the author when it plans.
    """
    page = _range_page(spec, status, backward)
    if not _has_few(spec, status):
        return [page]
    if status is Status.SCHEDULED:
        return [_sorted_page(spec, page, backward)]
    most = MAX_WALKED if spec.tags else MAX_SORTED
    own = select(Article.id).where(_FILTERS["author"], PUBLIC)
    own_ids = (
        own.order_by(Article.dated_at.desc(), Article.id.desc())
        .limit(literal_column(f"{most + 1}", Integer))  # known to the plan, see _CONSTANT_LIMITS
        .cte("own")
    )
    has_few = select(func.count()).select_from(own_ids).scalar_subquery() <= most
    few = page.join(own_ids, own_ids.c.id == Article.id).where(has_few)
    return [_sorted_page(spec, few, backward), page.where(not_(has_few))]


def _sorted_page(spec: ListSpec, page: Select[Any], backward: bool | None) -> Select[Any]:
    """Let PostgreSQL read all rows of a range before it sorts them; OFFSET 0 forces it."""
    found = page.order_by(None).offset(0).subquery()
    order = _order(spec, None)._replace(column=found.c.key, id=found.c.id)
    return _ordered(select(found.c.id, found.c.key), order, backward)


def _followed_page(
    spec: ListSpec, backward: bool | None, limit: ColumnElement[int]
) -> CompoundSelect[Any]:
    """Select the ids and sort keys of public articles by followed authors, at least `limit` rows.

    Articles of all authors are read in the order of the list, until enough are by followed ones.
    The more authors the viewer follows, the earlier that is, and the longer it may take. If there
    are too few, up to `limit` rows of each author are read. No index has the order of the list for
    several authors.
    """
    page = _range_page(spec, Status.PUBLISHED, backward)
    following = select(UserCounts.following).where(UserCounts.user_id == VIEWER).scalar_subquery()
    near = page.add_columns(Article.author_id.label("author_id")).limit(
        func.least(func.coalesce(following, 0) * WALKED_PER_AUTHOR, MAX_WALKED)
    )
    near_author = near.subquery("near").c
    is_followed = select(true()).where(
        Follow.follower_id == VIEWER, Follow.followed_id == near_author.author_id
    )
    followed = select(near_author.id, near_author.key).where(
        is_followed.correlate_except(Follow).scalar_subquery()
    )
    order = _order(spec, Status.PUBLISHED)._replace(column=near_author.key, id=near_author.id)
    found = _ordered(followed, order, backward).limit(limit).cte("found")
    is_enough = select(func.count()).select_from(found).scalar_subquery() >= limit
    by_author = page.where(Article.author_id == Follow.followed_id)
    newest = by_author.correlate(Follow).limit(limit).lateral()
    everywhere = (
        select(newest.c.id, newest.c.key)
        .select_from(Follow)
        .join(newest, true())
        .where(Follow.follower_id == VIEWER, not_(is_enough))
    )
    return union_all(select(found.c.id, found.c.key).where(is_enough), everywhere)


def _after_position(
    statement: Select[Any], spec: ListSpec, order: Order, backward: bool | None
) -> Select[Any]:
    """Order the statement, and start it after the cursor's position."""
    if backward is not None:
        position_parameters = tuple_(
            bindparam("key", type_=order.type), bindparam("id", type_=BigInteger)
        )
        row = tuple_(order.column, order.id)
        statement = statement.where(
            row < position_parameters
            if _is_descending(order, backward)
            else row > position_parameters
        )
    return _ordered(statement, order, backward)


def _ordered(statement: Select[Any], order: Order, backward: bool | None) -> Select[Any]:
    if _is_descending(order, backward):
        return statement.order_by(order.column.desc(), order.id.desc())
    return statement.order_by(order.column, order.id)


def _is_descending(order: Order, backward: bool | None) -> bool:
    return order.descending is not bool(backward)


def _has_cached_total(spec: ListSpec) -> bool:
    is_public = list(_ranges(spec)) == [Status.PUBLISHED] and not spec.followed
    return is_public and spec.search is None and spec.filters <= {"author", "language"}


async def _total(reader: Reader, spec: ListSpec, parameters: Mapping[str, Any], state: Any) -> int:
    """Count all articles of the list. `state` is a row with the state of the change feed."""
    count = _count(spec._replace(fields=(), sort=Sort.NEWEST))  # they do not change the total
    if not spec.has_state:
        total: int = await reader.scalar(count, parameters)
        return total
    key_parameters = {
        name: value for name, value in parameters.items() if name not in {"now", "viewer_id"}
    }
    key = (spec.filters, *sorted(key_parameters.items()))
    return await count_public(reader, count, key=key, parameters=parameters, state=state)


@lru_cache(maxsize=512)
def _count(spec: ListSpec) -> Select[Any]:
    if spec.search is not None:
        found = matching.candidates(spec.search, _search_scope(spec))
        return select(func.count()).select_from(found)
    articles: Select[Any] = select(func.count()).select_from(Article)
    if spec.followed:
        articles = articles.join(Follow, Follow.followed_id == Article.author_id)
        articles = articles.where(Follow.follower_id == VIEWER)
    counts = [_filtered_range(articles, spec, each).scalar_subquery() for each in _ranges(spec)]
    return select(reduce(add, counts))


def _order(spec: ListSpec, status: Status | None) -> Order:
    if spec.sort is Sort.UPDATED:
        return Order(Article.updated_at, Article.id, descending=True, type=_TIMESTAMP)
    if spec.sort is Sort.TITLE:
        return Order(Article.title, Article.id, descending=False, type=String())
    descending = spec.sort is Sort.NEWEST
    if _uses_tag_index(spec, status) and status is Status.PUBLISHED:
        return Order(_first_tag.listed_at, _first_tag.article_id, descending, _TIMESTAMP)
    return Order(Article.dated_at, Article.id, descending, _TIMESTAMP)


def _uses_tag_index(spec: ListSpec, status: Status | None) -> bool:
    """Whether to read the range from the index of a tag's articles.

    With an author filter, that author's articles are usually fewer than the tag's.
    """
    return bool(spec.tags) and "author" not in spec.filters and status is not None


def _filtered_range(statement: Select[Any], spec: ListSpec, status: Status | None) -> Select[Any]:
    """Add all conditions of the list for one of its ranges."""
    uses_tag_index = _uses_tag_index(spec, status)
    statement = statement.where(*_filters(spec, tags_from=int(uses_tag_index)))
    if status is None:
        return statement.where(NOT_DELETED, NOT_ARCHIVED)
    if uses_tag_index:
        statement = statement.join(_first_tag, _first_tag.article_id == Article.id)
        statement = statement.where(_first_tag.tag_id == _tag_id(0), _LISTED[status])
    if status is Status.PUBLISHED:
        return statement if uses_tag_index else statement.where(PUBLIC)
    return statement.where(*_STATUSES[status], _UNPUBLISHED_VISIBLE[spec.visibility])


def _filters(spec: ListSpec, *, tags_from: int) -> Sequence[ColumnElement[bool]]:
    """Return the filter conditions, with the tags from index `tags_from` on."""
    tagged = [
        select(true())
        .where(ArticleTag.article_id == Article.id, ArticleTag.tag_id == _tag_id(number))
        .correlate(Article)
        .scalar_subquery()  # not EXISTS: PostgreSQL would join all articles of the tag
        for number in range(tags_from, spec.tags)
    ]
    return [*tagged, *(_FILTERS[name] for name in spec.filters)]


def _search_page(spec: ListSpec, search: matching.SearchSpec, backward: bool | None) -> Select[Any]:
    """Return the statement for search results; all matches are found first."""
    found = matching.candidates(search, _search_scope(spec))
    by_rank = Order(found.c.rank, Article.id, descending=True, type=Double())
    order = by_rank if spec.sort is Sort.RELEVANCE else _order(spec, None)
    statement = _select(spec, order).join(found, found.c.id == Article.id)
    return _after_position(statement, spec, order, backward)


def _search_scope(spec: ListSpec) -> Select[int, datetime]:
    """Select the articles to search in.

    If the words are common, the articles of a tag are searched one after the other: unpublished
    ones, then the newest.
    """
    statement = select(Article.id, Article.dated_at)
    walks_tag = bool(spec.tags) and spec.search is not None and spec.search.is_common
    if walks_tag:
        statement = select(_first_tag.article_id, _first_tag.listed_at)
        statement = statement.join(Article, Article.id == _first_tag.article_id)
        statement = statement.where(_first_tag.tag_id == _tag_id(0))
    statement = statement.where(*_filters(spec, tags_from=int(walks_tag)))
    if spec.status is not None:
        statement = statement.where(*_STATUSES[spec.status])
    elif spec.published is not None:
        statement = statement.where(PUBLIC if spec.published else and_(NOT_ARCHIVED, _UNPUBLISHED))
    else:
        statement = statement.where(NOT_ARCHIVED)
    # `published_at` has no index. With `dated_at`, PostgreSQL might use the date index instead of
    # the search index.
    visible = or_(
        and_(Article.published_at <= NOW, NOT_ARCHIVED), _UNPUBLISHED_VISIBLE[spec.visibility]
    )
    return statement.where(NOT_DELETED, visible)


def _is_filtered(spec: ListSpec) -> bool:
    """Whether the list excludes some articles that the viewer may see."""
    return bool(spec.tags or spec.filters or spec.status or spec.published is not None)


def _tag_id(number: int) -> ColumnElement[int]:
    return tag_id_for_filter(bindparam(f"tag_{number}", type_=String))


def _cursor_kind(query: ArticleQuery, *, followed_by: Identity | None) -> str:
    """Identify the list that a cursor belongs to: the query without paging and field selection."""
    page = {"skip", "limit", "cursor", "count", "fields"}
    described = query.model_dump_json(exclude=page, exclude_none=True)
    feed = f" followed by {followed_by.id}" if followed_by else ""
    return f"articles {sha256(described.encode()).hexdigest()}{feed}"


def _cursor(cursor_kind: str, row: Row[Any], *, backward: bool) -> str:
    """Return the cursor of the page after a row, or before it."""
    value = row.position_key
    key: Scalar = value.isoformat() if isinstance(value, datetime) else value
    return encode_cursor(cursor_kind, [backward, key, row.position_id])


def _decode_position(cursor: str | None, cursor_kind: str, sort: Sort) -> CursorPosition | None:
    if cursor is None:
        return None
    backward, key, article_id = decode_cursor(cursor, cursor_kind)
    is_datetime = sort not in {Sort.TITLE, Sort.RELEVANCE}
    value = datetime.fromisoformat(str(key)) if is_datetime else key
    return CursorPosition(bool(backward), value, int(str(article_id)))
