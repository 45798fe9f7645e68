"""Slugs: unique per article and permanent; former slugs redirect.

`Article.slug` is unique, and belongs to an article once it has been public. Before that, other
users must not be able to detect the slug. So the author sees `Article.draft_slug`, which is unique
among their own articles. `slug` holds the same value only until another article is published with
it. The draft then gets a placeholder in `slug`, which is never shown. A scheduled article gets the
next free slug instead, because it is published without another request.
"""

import re
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import chain
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
    null,
    or_,
    select,
    true,
    union_all,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.content.slugs import slugify
from app.db.retry import retry
from app.db.writing import fetch, planned_once
from app.models.articles.article import Article, FormerSlug
from app.services.articles.rows import OWNS_SLUG

MAX_SUFFIX = 9
RESERVED = frozenset({"feed"})
"""Slugs that collide with routes under /api/articles."""

_SUFFIX = re.compile(r"(?:-(?:[2-9]|[0-9a-f]{6}|[0-9a-f]{16}))?")

_CANDIDATES = bindparam("candidates", type_=ARRAY(String))
_WANTED = planned_once(_CANDIDATES)
_NOT_ITSELF = Article.id.is_distinct_from(bindparam("article_id", type_=BigInteger))
_FIND: CompoundSelect[Any] = union_all(
    select(Article.slug, cast(null(), BigInteger), OWNS_SLUG).where(
        Article.slug == _WANTED, _NOT_ITSELF
    ),
    select(Article.draft_slug, Article.author_id, true()).where(
        Article.draft_slug == _WANTED,
        Article.author_id == planned_once(bindparam("author_ids", type_=ARRAY(BigInteger))),
        _NOT_ITSELF,
    ),
    select(FormerSlug.slug, cast(null(), BigInteger), OWNS_SLUG)
    .join(Article, Article.id == FormerSlug.article_id)
    .where(FormerSlug.slug == _WANTED, _NOT_ITSELF),
)
"""Slugs of articles, drafts of some authors, and former slugs: with the author of a draft, and
whether they are taken. Another article may get a slug that is not taken, and then replaces it."""


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


IsTaken = Callable[[str, int], bool]
"""Whether a slug is taken for an author, beside those in the database."""


def no_others(_slug: str, _author_id: int) -> bool:
    """Return False: only slugs in the database are taken."""
    return False


class SlugRequest(NamedTuple):
    """An article that needs a slug."""

    author_id: int
    names: Sequence[str]
    """The slugs that it may get, best first."""
    published_at: datetime | None
    public: bool
    """Whether the article is or was public, so that it gets its slug permanently."""


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


def numbered(base: str, *, digest: str | None = None) -> list[str]:
    """Return the base, the base with the suffixes 2 to 9, and with random suffixes.

    `digest`, of 22 hexadecimal digits or more, replaces the random suffixes.
    """
    numbers = map(str, range(2, MAX_SUFFIX + 1))
    digest = digest or secrets.token_hex(11)
    endings = (*numbers, digest[:6], digest[6:22])
    return [base, *(f"{base[: 99 - len(ending)].rstrip('-')}-{ending}" for ending in endings)]


def placeholder() -> str:
    """Return a unique value for `slug` that is not a valid slug."""
    return f"~{secrets.token_hex(16)}"


def is_derived(slug: str, title: str) -> bool:
    """Whether `free_slug` could have derived `slug` from this title."""
    return is_suffixed(slug, slugify(title))


def is_suffixed(slug: str, base: str) -> bool:
    """Whether `slug` is the base, or one of those that replace a base that is taken."""
    return slug.startswith(base) and _SUFFIX.fullmatch(slug, len(base)) is not None


async def assign_slugs(
    session: AsyncSession,
    requests: Sequence[SlugRequest],
    *,
    now: datetime,
    article_id: int | None = None,
    is_taken: IsTaken = no_others,
) -> list[SlugColumns | None]:
    """Return the slug columns of each article; None if all its names are taken.

    Unpublished articles that use these slugs get others first. Between two scheduled articles, the
    one that is published later gets another slug. A concurrent request may still take a slug.

    `article_id` is the id of a single article that exists already. Its own slugs are not taken.
    """
    used = _Used(session, {request.author_id for request in requests}, now, article_id)
    chosen = await _choose(used, requests, is_taken=is_taken)
    others = {
        number: candidates(slug)
        for number, slug in chosen.items()
        if requests[number].published_at is not None and not requests[number].public
    }
    names = {*chosen.values(), *chain.from_iterable(others.values())}
    await used.look_up(names)
    in_use = used.everywhere
    conflicting = [
        number
        for number, slug in chosen.items()
        if slug in in_use and (number in others or requests[number].public)
    ]
    for number in conflicting:
        before = requests[number].published_at if number in others else None
        await release_slugs(
            session, [chosen[number]], now=now, before=before, article_id=article_id
        )
    if conflicting:
        used.forget()
        await used.look_up(names)
        in_use = used.everywhere
    columns: list[SlugColumns | None] = [None] * len(requests)
    for number in sorted(chosen, key=lambda number: _precedence(requests[number], now)):
        slug = wanted = chosen[number]
        if number in others:
            slug = next(name for name in others[number] if name not in in_use | RESERVED)
        elif wanted in in_use and not requests[number].public:
            slug = placeholder()
        in_use.add(slug)
        columns[number] = SlugColumns(slug, None if requests[number].public else wanted)
    return columns


class _Used:
    """Which slugs are used, as far as they were looked up."""

    def __init__(
        self,
        session: AsyncSession,
        author_ids: Iterable[int],
        now: datetime,
        article_id: int | None,
    ) -> None:
        self._session = session
        authors = sorted(author_ids)
        self._parameters = {"author_ids": authors, "now": now, "article_id": article_id}
        self.forget()

    def forget(self) -> None:
        """Forget all slugs."""
        self._known: set[str] = set()
        self.everywhere: set[str] = set()
        """Slugs and former slugs of articles, visible or not."""
        self.taken: set[tuple[str, int | None]] = {(name, None) for name in RESERVED}
        """Slugs that are taken: for everyone, or for one author."""

    async def look_up(self, names: set[str]) -> None:
        """Look up those of the names that are not known yet, with one query."""
        unknown = names - self._known
        if not unknown:
            return
        parameters = {**self._parameters, "candidates": sorted(unknown)}
        for slug, owner, is_taken in await fetch(self._session, _FIND, parameters):
            if owner is None:
                self.everywhere.add(slug)
            if is_taken:
                self.taken.add((slug, owner))
        self._known |= unknown


async def _choose(
    used: _Used, requests: Sequence[SlugRequest], *, is_taken: IsTaken
) -> dict[int, str]:
    """Return the first name of each request that is not taken, by the number of the request.

    The first names are usually free. The others are queried only if they are not.
    """
    chosen: dict[int, str] = {}
    # A slug without an alternative takes precedence within the batch.
    order = sorted(range(len(requests)), key=lambda number: len(requests[number].names) > 1)
    for depth in (slice(1), slice(1, None)):
        names = {
            name
            for number in order
            if number not in chosen
            for name in requests[number].names[depth]
        }
        await used.look_up(names)
        for number in order:
            author_id, public = requests[number].author_id, requests[number].public
            for name in requests[number].names[depth]:
                if (
                    number not in chosen
                    and used.taken.isdisjoint({(name, None), (name, author_id)})
                    and not is_taken(name, author_id)
                ):
                    chosen[number] = name
                    used.taken.add((name, None if public else author_id))
    return chosen


def _precedence(request: SlugRequest, now: datetime) -> tuple[bool, bool, datetime]:
    """Return a sort key: public articles first, then scheduled ones by date, then drafts."""
    published_at = request.published_at
    return not request.public, published_at is None, published_at or now


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
