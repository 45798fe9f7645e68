"""Slugs: one for each article, for good: what led to it once goes on doing so."""

import secrets

from sqlalchemy import BigInteger, String, bindparam, delete, select, union_all
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.text import slugify
from app.models.article import Article, FormerSlug

NUMBERED = 9
RESERVED = frozenset({"feed"})
"""What is no article at /api/articles."""

_CANDIDATES = bindparam("candidates", type_=ARRAY(String))
_TAKEN = union_all(
    select(Article.slug).where(Article.slug == _CANDIDATES.any_()),
    select(FormerSlug.slug).where(
        FormerSlug.slug == _CANDIDATES.any_(),
        FormerSlug.article_id.is_distinct_from(bindparam("article_id", type_=BigInteger)),
    ),
)


def candidates(title: str) -> list[str]:
    """What an article with this title may be called, best first; the last is surely free."""
    return numbered(slugify(title))


def numbered(base: str) -> list[str]:
    """The slug itself, with the numbers 2 to 9, and with something random."""
    numbers = map(str, range(2, NUMBERED + 1))
    endings = (*numbers, secrets.token_hex(3), secrets.token_hex(8))
    return [base, *(f"{base}-{ending}" for ending in endings)]


async def free_slug(
    session: AsyncSession,
    *,
    title: str,
    article_id: int | None = None,
    present: str | None = None,
) -> str:
    """A slug for this title that is nobody's, unless somebody takes it in this moment.

    The one that `article_id` has at present, and those that it had before, are free for it.
    """
    wanted = candidates(title)
    taken = await taken_slugs(session, wanted, article_id=article_id)
    return next(slug for slug in wanted if slug not in taken or slug == present)


async def taken_slugs(
    session: AsyncSession, slugs: list[str], *, article_id: int | None = None
) -> set[str]:
    """Which of these lead to an article, or did; those of `article_id`'s past do not count.

    Those that lead elsewhere in an API of ours are taken.
    """
    parameters = {"candidates": slugs, "article_id": article_id}
    return {*await session.scalars(_TAKEN, parameters), *RESERVED.intersection(slugs)}


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
