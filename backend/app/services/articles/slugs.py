"""Slugs: one for each article, for good: what led to it once goes on doing so.

`Article.slug` is unique, and belongs to an article from when readers see it. Until then nobody may
notice it: `Article.draft_slug` is what its author sees, unique among their own, and `slug` holds
that name only until another article is published under it. A draft that has lost the name, or
never had it, has a placeholder there, which is shown to nobody. A scheduled article gets the next
name that is free, since it is going to be published without anybody writing it.
"""

import re
import secrets
from datetime import datetime
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

from app.core.errors import ServiceUnavailable, SlugTaken
from app.core.text import slugify
from app.db.session import constraint_errors
from app.models.article import Article, FormerSlug
from app.services.articles.rows import OWNS_SLUG

NUMBERED = 9
ATTEMPTS = 20
"""Rounds in which concurrent writers may take a slug first; then the request gets 503."""
RESERVED = frozenset({"feed"})
"""What is no article at /api/articles."""
SLUG_CONSTRAINT = {"uq_articles_slug": SlugTaken, "uq_articles_draft_slug": SlugTaken}

_ENDING = re.compile(r"(?:-(?:[2-9]|[0-9a-f]{6}|[0-9a-f]{16}))?")

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
_HELD = union_all(
    select(Article.slug).where(Article.slug == _CANDIDATES.any_(), _NOT_ITSELF),
    select(FormerSlug.slug).where(
        FormerSlug.slug == _CANDIDATES.any_(),
        FormerSlug.article_id.is_distinct_from(bindparam("article_id", type_=BigInteger)),
    ),
)


def _next_free() -> ColumnElement[str]:
    """The first of `name-2` to `name-9` that is free and not asked for; else with a random end."""
    other = aliased(Article)
    number = func.generate_series(2, NUMBERED, type_=Integer).column_valued("number")
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


_BEFORE = bindparam("before", type_=DateTime(timezone=True))
_IN_THE_WAY = and_(
    Article.slug == _CANDIDATES.any_(),
    not_(OWNS_SLUG),
    _NOT_ITSELF,
    or_(Article.published_at.is_(None), _BEFORE.is_(None), Article.published_at > _BEFORE),
)
_FIND = select(Article.id).where(_IN_THE_WAY).order_by(Article.id).with_for_update(key_share=True)
_MOVE = (
    update(Article)
    .where(Article.id == bindparam("moved_id", type_=BigInteger), _IN_THE_WAY)
    .values(
        slug=case(
            (Article.published_at.is_(None), literal("~") + func.md5(cast(func.random(), String))),
            else_=_next_free(),
        ),
        updated_at=Article.updated_at,
    )
    .execution_options(synchronize_session=False)
)


class Claimant(NamedTuple):
    """For which article a slug is: a new one has no id."""

    author_id: int
    now: datetime
    article_id: int | None = None


class Naming(NamedTuple):
    """The two columns that an article's name is in."""

    slug: str
    draft_slug: str | None


def owns_slug(article: Article | Row[Any], now: datetime) -> bool:
    """Whether readers see this article at its slug, or did: OWNS_SLUG of what was read."""
    hidden = article.archived_at is not None or article.deleted_at is not None
    return article.draft_slug is None or (
        not hidden and article.published_at is not None and article.published_at <= now
    )


def candidates(title: str) -> list[str]:
    """What an article with this title may be called, best first; the last is surely free."""
    return numbered(slugify(title))


def numbered(base: str) -> list[str]:
    """The slug itself, with the numbers 2 to 9, and with something random."""
    numbers = map(str, range(2, NUMBERED + 1))
    endings = (*numbers, secrets.token_hex(3), secrets.token_hex(8))
    return [base, *(f"{base}-{ending}" for ending in endings)]


def placeholder() -> str:
    """What stands in the place of a draft's slug: no slug, and unique."""
    return f"~{secrets.token_hex(16)}"


def is_derived(slug: str, title: str) -> bool:
    """Whether `slug` is one that `free_slug` makes of this title."""
    base = slugify(title)
    return slug.startswith(base) and _ENDING.fullmatch(slug, len(base)) is not None


async def free_slug(session: AsyncSession, *, title: str, claimant: Claimant) -> str:
    """A slug for this title that is nobody's, unless somebody takes it in this moment.

    The one that the claimant has at present, and those that it had before, are free for it.
    """
    wanted = candidates(title)
    taken = await taken_slugs(session, wanted, claimant=claimant)
    return next(slug for slug in wanted if slug not in taken)


async def taken_slugs(session: AsyncSession, slugs: list[str], *, claimant: Claimant) -> set[str]:
    """Which of these are taken for the claimant; its own are not.

    Taken are slugs that lead readers to an article, or did, and the author's own unpublished ones.
    Those that lead elsewhere in an API of ours are taken, too.
    """
    taken = await session.scalars(_TAKEN, {"candidates": slugs, **claimant._asdict()})
    return {*taken, *RESERVED.intersection(slugs)}


async def naming(
    session: AsyncSession,
    *,
    wanted: str,
    published_at: datetime | None,
    public: bool,
    claimant: Claimant,
) -> Naming:
    """The columns for an article called `wanted`, which is not taken.

    Moves what is not public out of the way of what is going to be: of two that are scheduled, the
    later one moves.
    """
    article_id = claimant.article_id
    parameters = {"candidates": [wanted], "article_id": article_id}
    if published_at is None and not public:
        held = set(await session.scalars(_HELD, parameters))
        return Naming(placeholder() if held else wanted, wanted)
    before = None if public else published_at
    await make_way(session, [wanted], now=claimant.now, before=before, article_id=article_id)
    if public:
        return Naming(wanted, None)
    names = [wanted, *candidates(wanted)]
    held = set(await session.scalars(_HELD, {**parameters, "candidates": names}))
    return Naming(next(name for name in names if name not in held | RESERVED), wanted)


async def make_way(
    session: AsyncSession,
    slugs: list[str],
    *,
    now: datetime,
    before: datetime | None = None,
    article_id: int | None = None,
) -> None:
    """Give other slugs to the articles that have these and are not public.

    `before`: leave those alone that are going to be public by then. Each is moved by a statement of
    its own: two in one statement would get the same free slug. Raises ServiceUnavailable after
    ATTEMPTS rounds.
    """
    parameters = {"candidates": slugs, "article_id": article_id, "now": now, "before": before}
    for _ in range(ATTEMPTS):
        found = (await session.scalars(_FIND, parameters)).all()
        if not found:
            return
        for moved_id in found:
            try:
                async with session.begin_nested():
                    with constraint_errors(SLUG_CONSTRAINT):
                        await session.execute(_MOVE, {**parameters, "moved_id": moved_id})
            except SlugTaken:  # the next free one was taken in this moment
                continue
    raise ServiceUnavailable


async def remember(session: AsyncSession, *, article_id: int, former: str, present: str) -> None:
    """Let the slug that an article had before lead to it."""
    await session.execute(
        delete(FormerSlug).where(FormerSlug.slug == present, FormerSlug.article_id == article_id)
    )
    noted = insert(FormerSlug).values(slug=former, article_id=article_id)
    await session.execute(
        noted.on_conflict_do_update(
            index_elements=[FormerSlug.slug], set_={"article_id": article_id}
        )
    )
