"""Slugs: unique per article and permanent; former slugs redirect.

`Article.slug` is unique, and belongs to an article once it has been public. Before that, other
users must not be able to detect the slug. So the author sees `Article.draft_slug`, which is unique
among their own articles. `slug` holds the same value only until another article is published with
it. The draft then gets a placeholder in `slug`, which is never shown. A scheduled article gets the
next free slug instead, because it is published without another request.
"""

import re
import secrets
from collections.abc import Mapping
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    CompoundSelect,
    DateTime,
    Integer,
    Row,
    String,
    and_,
    bindparam,
    case,
    cast,
    delete,
    exists,
    func,
    literal,
    not_,
    or_,
    select,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.content.slugs import slugify
from app.db.retry import retry
from app.models.articles.article import Article, FormerSlug
from app.services.articles.rows import OWNS_SLUG

MAX_SUFFIX = 9
ATTEMPTS = 20
"""Rounds of an insert, if concurrent requests take its slug first; then the response is 503."""
RESERVED = frozenset({"feed"})
"""Slugs that collide with routes under /api/articles."""

_SUFFIX = re.compile(r"(?:-(?:[2-9]|[0-9a-f]{6}|[0-9a-f]{16}))?")

_CANDIDATES = bindparam("candidates", type_=ARRAY(String))
_NOT_ITSELF = Article.id.is_distinct_from(bindparam("article_id", type_=BigInteger))
_TAKEN: CompoundSelect[Any] = union_all(
    select(Article.slug).where(Article.slug == _CANDIDATES.any_(), OWNS_SLUG, _NOT_ITSELF),
    select(Article.draft_slug).where(
        Article.draft_slug == _CANDIDATES.any_(),
        Article.author_id == bindparam("author_id", type_=BigInteger),
        _NOT_ITSELF,
    ),
    select(FormerSlug.slug)
    .join(Article, Article.id == FormerSlug.article_id)
    .where(FormerSlug.slug == _CANDIDATES.any_(), OWNS_SLUG, _NOT_ITSELF),
)
_IN_USE = union_all(
    select(Article.slug).where(Article.slug == _CANDIDATES.any_(), _NOT_ITSELF),
    select(FormerSlug.slug).where(
        FormerSlug.slug == _CANDIDATES.any_(),
        FormerSlug.article_id.is_distinct_from(bindparam("article_id", type_=BigInteger)),
    ),
)


def _next_free() -> ColumnElement[str]:
    """Return the first free slug from `name-2` to `name-9`, or one with a random suffix."""
    other = aliased(Article)
    number = func.generate_series(2, MAX_SUFFIX, type_=Integer).column_valued("number")
    name = func.left(Article.draft_slug, 98) + "-" + cast(number, String)
    numbered = (
        select(name)
        .where(
            name != _CANDIDATES.all_(),
            not_(exists().where(other.slug == name)),
            not_(exists().where(FormerSlug.slug == name)),
        )
        .order_by(number)
        .limit(1)
        .correlate(Article)
        .scalar_subquery()
    )
    random = func.substr(func.md5(cast(func.random(), String)), 1, 12)
    return func.coalesce(numbered, func.left(Article.draft_slug, 87) + "-" + random)


_PUBLISHED_BEFORE = bindparam("before", type_=DateTime(timezone=True))
_CONFLICTING = and_(
    Article.slug == _CANDIDATES.any_(),
    not_(OWNS_SLUG),
    _NOT_ITSELF,
    or_(
        Article.published_at.is_(None),
        _PUBLISHED_BEFORE.is_(None),
        Article.published_at > _PUBLISHED_BEFORE,
    ),
)
_FIND_CONFLICTING = (
    select(Article.id).where(_CONFLICTING).order_by(Article.id).with_for_update(key_share=True)
)
_RENAME_CONFLICTING = (
    update(Article)
    .where(Article.id == bindparam("moved_id", type_=BigInteger), _CONFLICTING)
    .values(
        slug=case(
            (Article.published_at.is_(None), literal("~") + func.md5(cast(func.random(), String))),
            else_=_next_free(),
        ),
        updated_at=Article.updated_at,
    )
    .execution_options(synchronize_session=False)
)


class SlugTarget(NamedTuple):
    """The article that needs a slug; `article_id` is None for a new one."""

    author_id: int
    now: datetime
    article_id: int | None = None


class SlugColumns(NamedTuple):
    """The values of both slug columns."""

    slug: str
    draft_slug: str | None


def owns_slug(article: Article | Row[Any], now: datetime) -> bool:
    """Whether the article's slug is or was public: the same rule as OWNS_SLUG."""
    hidden = article.archived_at is not None or article.deleted_at is not None
    return article.draft_slug is None or (
        not hidden and article.published_at is not None and article.published_at <= now
    )


def candidates(title: str) -> list[str]:
    """Return possible slugs for a title, best first; the last is random and thus free."""
    return numbered(slugify(title))


def numbered(base: str) -> list[str]:
    """Return the base, the base with the suffixes 2 to 9, and with random suffixes."""
    numbers = map(str, range(2, MAX_SUFFIX + 1))
    endings = (*numbers, secrets.token_hex(3), secrets.token_hex(8))
    return [base, *(f"{base}-{ending}" for ending in endings)]


def placeholder() -> str:
    """Return a unique value for `slug` that is not a valid slug."""
    return f"~{secrets.token_hex(16)}"


def is_derived(slug: str, title: str) -> bool:
    """Whether `free_slug` could have derived `slug` from this title."""
    base = slugify(title)
    return slug.startswith(base) and _SUFFIX.fullmatch(slug, len(base)) is not None


async def free_slug(session: AsyncSession, *, title: str, target: SlugTarget) -> str:
    """Return a free slug for this title; a concurrent request may still take it.

    The article's current and former slugs count as free.
    """
    wanted = candidates(title)
    taken = await taken_slugs(session, wanted, target=target)
    return next(slug for slug in wanted if slug not in taken)


async def taken_slugs(session: AsyncSession, slugs: list[str], *, target: SlugTarget) -> set[str]:
    """Return which of these slugs are taken, except by the target article itself.

    Taken are reserved slugs, current and former public slugs, and slugs of the author's drafts.
    """
    taken = await session.scalars(_TAKEN, {"candidates": slugs, **target._asdict()})
    return {*taken, *RESERVED.intersection(slugs)}


async def assign_slug(
    session: AsyncSession,
    *,
    wanted: str,
    published_at: datetime | None,
    public: bool,
    target: SlugTarget,
) -> SlugColumns:
    """Return the column values for an article with the slug `wanted`, which is not taken.

    An unpublished article with that slug gets another one first. Between two scheduled articles,
    the one that is published later gets another slug.
    """
    article_id = target.article_id
    parameters = {"candidates": [wanted], "article_id": article_id}
    if published_at is None and not public:
        in_use = set(await session.scalars(_IN_USE, parameters))
        return SlugColumns(placeholder() if in_use else wanted, wanted)
    before = None if public else published_at
    await release_slugs(session, [wanted], now=target.now, before=before, article_id=article_id)
    if public:
        return SlugColumns(wanted, None)
    names = [wanted, *candidates(wanted)]
    in_use = set(await session.scalars(_IN_USE, {**parameters, "candidates": names}))
    return SlugColumns(next(name for name in names if name not in in_use | RESERVED), wanted)


async def release_slugs(
    session: AsyncSession,
    slugs: list[str],
    *,
    now: datetime,
    before: datetime | None = None,
    article_id: int | None = None,
) -> None:
    """Assign other slugs to unpublished articles that use these.

    Articles that are published until `before` keep theirs. Each article is updated by its own
    statement: two in one statement would get the same slug. Raises ServiceUnavailable if concurrent
    requests always take the next free slug first.
    """
    parameters = {"candidates": slugs, "article_id": article_id, "now": now, "before": before}
    for moved_id in (await session.scalars(_FIND_CONFLICTING, parameters)).all():
        await retry(session, partial(_rename_conflicting, {**parameters, "moved_id": moved_id}))


async def _rename_conflicting(parameters: Mapping[str, Any], session: AsyncSession) -> None:
    await session.execute(_RENAME_CONFLICTING, parameters)


async def save_former_slug(
    session: AsyncSession, *, article_id: int, former: str, present: str
) -> None:
    """Make the former slug of an article redirect to it."""
    await session.execute(
        delete(FormerSlug).where(FormerSlug.slug == present, FormerSlug.article_id == article_id)
    )
    added = insert(FormerSlug).values(slug=former, article_id=article_id)
    await session.execute(
        added.on_conflict_do_update(
            index_elements=[FormerSlug.slug], set_={"article_id": article_id}
        )
    )
