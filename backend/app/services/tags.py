"""Tags: the words that articles share, listed with their articles counted, renamed and merged.

Whoever gives an article a tag locks the article first and the tag after it; so does who changes a
tag, and gives way where that is not enough (`_giving_way`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import (
    Select,
    and_,
    bindparam,
    delete,
    exists,
    func,
    select,
    text,
    true,
    update,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.auth.identity import Identity
from app.auth.permissions import Action, may_to_any
from app.core import clock
from app.core.conditional import Precondition
from app.core.errors import NotAuthorized, ServiceUnavailable, TagNotFound
from app.core.limits import LimitKind
from app.core.text import slugify
from app.db.reading import Reader
from app.db.session import LONGEST_STATEMENT_SECONDS, NO_KEY_UPDATE, paged
from app.models.article import Article
from app.models.tag import ArticleTag, Tag
from app.schemas.tag import TagQuery, TagResponse, TagSort, TagUpdate
from app.services import audit, limits
from app.services.articles.rows import NOW
from app.services.articles.tagging import tag_slug
from app.services.audit import AuditAction

Result = TypeVar("Result")

LOCK_TIMEOUT_MS = 250
"""How long a change of a tag waits for a lock: less than PostgreSQL's `deadlock_timeout`."""
LONGEST_MS = LONGEST_STATEMENT_SECONDS * 1000
"""How long a statement may take, the commit included: many articles may have one tag."""
PAUSES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5, 0.5)
GIVES_WAY_TO = {"55P03", "40P01", "23505"}
"""SQLSTATEs of a lock that somebody holds, a deadlock, and a slug that somebody took meanwhile."""

_LISTED = ArticleTag.listed_at <= NOW
_PREFIX = func.starts_with(Tag.slug, bindparam("prefix"))
_COLUMNS: tuple[InstrumentedAttribute[Any], ...] = (Tag.id, Tag.name, Tag.slug)


def _by_name(*, every: bool) -> Select[Any]:
    """A page of tags by slug; only the articles of those that are on it are counted.

    Unless it is `every` tag, those that readers find articles under: a subquery with a LIMIT is
    looked up for each tag, where a semi-join would read all that articles have.
    """
    statement = select(*_COLUMNS).where(_PREFIX)
    if not every:
        listed = select(true()).where(ArticleTag.tag_id == Tag.id, _LISTED).limit(1)
        statement = statement.where(listed.scalar_subquery())
    tag = paged(statement.order_by(Tag.slug, Tag.id)).subquery()
    count = (
        select(func.count())
        .select_from(ArticleTag)
        .where(ArticleTag.tag_id == tag.c.id, _LISTED)
        .scalar_subquery()
    )
    return select(tag.c.name, tag.c.slug, count.label("article_count")).order_by(
        tag.c.slug, tag.c.id
    )


def _by_count(*, every: bool) -> Select[Any]:
    """A page of tags, the most used first: the articles of all that begin so have to be counted."""
    used = (
        select(func.count().label("number")).where(ArticleTag.tag_id == Tag.id, _LISTED).lateral()
    )
    columns: list[Any] = [Tag.name, Tag.slug, used.c.number.label("article_count")]
    statement = select(*columns).join(used, true()).where(_PREFIX)
    if not every:
        statement = statement.where(used.c.number > 0)
    return paged(statement.order_by(used.c.number.desc(), Tag.slug, Tag.id))


_LISTS = {
    TagSort.NAME: {every: _by_name(every=every) for every in (True, False)},
    TagSort.COUNT: {every: _by_count(every=every) for every in (True, False)},
}
_ONE = select(
    Tag.name,
    Tag.slug,
    select(func.count())
    .select_from(ArticleTag)
    .where(ArticleTag.tag_id == Tag.id, _LISTED)
    .scalar_subquery()
    .label("article_count"),
).where(Tag.slug == bindparam("slug"))


async def list_tags(
    connection: Reader, *, query: TagQuery, viewer: Identity | None
) -> Sequence[TagResponse]:
    """The tags that readers find articles under, in one query; for editors, every tag."""
    prefix = "" if query.q is None else slugify(query.q, fallback="")
    if query.q is not None and not prefix:
        return []  # no tag has a name without a letter or a digit
    statement = _LISTS[query.sort][may_to_any(viewer, Action.CHANGE_TAG)]
    page = {"skip": query.skip, "limit": query.limit}
    rows = await connection.execute(statement, {"now": clock.now(), "prefix": prefix, **page})
    return [TagResponse.model_validate(row) for row in rows]


async def get_tag(connection: Reader, *, slug: str, viewer: Identity | None) -> TagResponse:
    """One tag. Raises TagNotFound.

    So it does for others than editors where no reader sees an article of it: what drafts are about
    is their authors' business.
    """
    tag = await _read(connection, slug)
    if tag is None or not (tag.article_count or may_to_any(viewer, Action.CHANGE_TAG)):
        raise TagNotFound
    return tag


class ChangedTag(NamedTuple):
    """The tag that there is now, and whether it is one that there was beside the one changed."""

    tag: TagResponse
    merged: bool


async def change_tag(
    session: AsyncSession, *, slug: str, new: TagUpdate, actor: Identity, precondition: Precondition
) -> ChangedTag:
    """Rename a tag, or merge it into the one that has the name; that one keeps its spelling.

    The articles that have it get a new version: their tags read otherwise now. Raises
    NotAuthorized, TagNotFound, PreconditionFailed; ServiceUnavailable where others keep its
    articles locked.
    """
    _require_editor(actor)
    await limits.spend(session, actor, {LimitKind.MODERATION: 1})
    new_slug = tag_slug(new.name)

    async def change() -> tuple[int, AuditAction | None]:
        tags = await _locked(session, slug, new_slug, precondition=precondition)
        tag = tags[slug]
        if new_slug != slug and new_slug in tags:
            await _note_new_versions(session, tag.id)
            await _merge(session, tag.id, into=tags[new_slug].id)
            return tag.id, AuditAction.MERGE_TAG
        if new.name == tag.name:
            return tag.id, None
        await _note_new_versions(session, tag.id)
        renamed = update(Tag).where(Tag.id == tag.id).values(name=new.name, slug=new_slug)
        await session.execute(renamed)
        return tag.id, AuditAction.UPDATE_TAG

    tag_id, action = await _giving_way(session, change)
    if action is not None:
        _record(session, action, tag_id, actor)
    changed = await _read(session, new_slug)
    assert changed is not None  # noqa: S101 - it is locked
    return ChangedTag(changed, action is AuditAction.MERGE_TAG)


async def delete_tag(
    session: AsyncSession, *, slug: str, actor: Identity, precondition: Precondition
) -> None:
    """Take a tag from all articles, which get a new version. Raises what `change_tag` raises."""
    _require_editor(actor)
    await limits.spend(session, actor, {LimitKind.MODERATION: 1})

    async def change() -> int:
        tag_id: int = (await _locked(session, slug, precondition=precondition))[slug].id
        await _note_new_versions(session, tag_id)
        await session.execute(delete(Tag).where(Tag.id == tag_id))
        return tag_id

    _record(session, AuditAction.DELETE_TAG, await _giving_way(session, change), actor)


async def _read(connection: Reader | AsyncSession, slug: str) -> TagResponse | None:
    row = (await connection.execute(_ONE, {"slug": slug, "now": clock.now()})).one_or_none()
    return None if row is None else TagResponse.model_validate(row)


def _require_editor(actor: Identity) -> None:
    """Raise NotAuthorized for whoever may not change tags: they are nobody's own."""
    if not may_to_any(actor, Action.CHANGE_TAG):
        raise NotAuthorized


_LOCK_TIMEOUT = text(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
_PATIENCE = text(f"SET LOCAL statement_timeout = {LONGEST_MS}")
_NO_LOCK_TIMEOUT = text("SET LOCAL lock_timeout TO DEFAULT")


async def _giving_way(session: AsyncSession, change: Callable[[], Awaitable[Result]]) -> Result:
    """The result of `change`, which locks many rows that others want as well, in whatever order.

    It never waits for long: it gives up what it holds, lets the others finish and begins again. So
    nobody who is saving an article can be the victim of a deadlock with it. Raises
    ServiceUnavailable where it never comes to an end.
    """
    for pause in PAUSES:
        try:
            async with session.begin_nested():
                await session.execute(_LOCK_TIMEOUT)
                await session.execute(_PATIENCE)
                result = await change()
                await session.execute(_NO_LOCK_TIMEOUT)  # the commit waits for its turn
                return result
        except DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in GIVES_WAY_TO:
                raise
        await asyncio.sleep(pause)
    raise ServiceUnavailable("Articles with this tag are being written; try again in a moment")


_HAVE_IT = ArticleTag.tag_id == bindparam("changed_id")
_LOCK_ARTICLES = select(func.count()).select_from(
    select(Article.id)
    .join(ArticleTag, ArticleTag.article_id == Article.id)
    .join(Tag, Tag.id == ArticleTag.tag_id)
    .where(Tag.slug == bindparam("slug"))
    .order_by(Article.id)
    .with_for_update(of=Article, **NO_KEY_UPDATE)
    .subquery()
)
_NEW_VERSIONS = (
    update(Article)
    .where(Article.id.in_(select(ArticleTag.article_id).where(_HAVE_IT)))
    .values(
        version=Article.version + 1, updated_at=func.greatest(Article.updated_at, bindparam("now"))
    )
)
_OTHER = ArticleTag.__table__.alias("other")
_MOVE = (
    update(ArticleTag)
    .where(
        _HAVE_IT,
        ~exists().where(
            and_(
                _OTHER.c.article_id == ArticleTag.article_id,
                _OTHER.c.tag_id == bindparam("into_id"),
            )
        ),
    )
    .values(tag_id=bindparam("into_id"))
)


async def _locked(
    session: AsyncSession, *slugs: str, precondition: Precondition
) -> Mapping[str, Any]:
    """Those of these tags that there are, by slug, locked; before them, the first one's articles.

    From then on nobody gives an article one of them. Raises TagNotFound, PreconditionFailed.
    """
    await session.execute(_LOCK_ARTICLES, {"slug": slugs[0]})
    lock = select(*_COLUMNS).where(Tag.slug.in_(slugs)).order_by(Tag.slug).with_for_update()
    tags = {tag.slug: tag for tag in await session.execute(lock)}
    if slugs[0] not in tags:
        raise TagNotFound
    current = await _read(session, slugs[0])
    if current is not None:
        precondition.require(current)
    return tags


async def _note_new_versions(session: AsyncSession, tag_id: int) -> None:
    """The articles that have the tag read otherwise from now on: in one statement."""
    await session.execute(
        _NEW_VERSIONS,
        {"changed_id": tag_id, "now": clock.now()},
        execution_options={"synchronize_session": False},
    )


async def _merge(session: AsyncSession, tag_id: int, *, into: int) -> None:
    """Give what has one tag the other, once; then the one goes."""
    await session.execute(
        _MOVE,
        {"changed_id": tag_id, "into_id": into},
        execution_options={"synchronize_session": False},
    )
    await session.execute(delete(Tag).where(Tag.id == tag_id))


def _record(session: AsyncSession, action: AuditAction, tag_id: int, actor: Identity) -> None:
    audit.record(session, action, actor_id=actor.id, subject="tag", subject_id=tag_id)
