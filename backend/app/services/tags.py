"""Tags: the words that articles share, listed with their articles counted, renamed and merged.

Whoever gives an article a tag locks the article first and the tag after it; so does who changes a
tag, and gives way where that is not enough (`_giving_way`).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeVar

from sqlalchemy import (
    Integer,
    Select,
    Subquery,
    and_,
    any_,
    bindparam,
    delete,
    exists,
    func,
    or_,
    select,
    text,
    true,
    union_all,
    update,
)
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.auth.identity import Identity
from app.auth.permissions import Action, may_on_any
from app.core import clock
from app.core.conditional import Precondition
from app.core.errors import NotAuthorized, ServiceUnavailable, TagNotFound
from app.core.limits import LimitKind
from app.core.text import slugify, tag_key, tag_slug
from app.db.reading import Reader
from app.db.session import MAX_STATEMENT_SECONDS, NO_KEY_UPDATE, Database, paged
from app.models.article import Article
from app.models.tag import ArticleTag, Tag
from app.schemas.tag import TagQuery, TagResponse, TagSort, TagUpdate
from app.services import audit, limits
from app.services.articles.rows import NOW, public_name
from app.services.articles.tagging import free_tag_slugs
from app.services.audit import AuditAction

Result = TypeVar("Result")

LOCK_TIMEOUT_MS = 250
"""How long a change of a tag waits for a lock: less than PostgreSQL's `deadlock_timeout`."""
LONGEST_MS = MAX_STATEMENT_SECONDS * 1000
"""How long a statement may take, the commit included: many articles may have one tag."""
PAUSES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.5, 0.5, 0.5)
GIVES_WAY_TO = {"55P03", "40P01", "23505"}
"""SQLSTATEs of a lock that somebody holds, a deadlock, and a name that somebody took meanwhile."""

_LISTED = ArticleTag.listed_at <= NOW
_BEGINS = or_(
    func.starts_with(Tag.slug, bindparam("slug_prefix")),
    func.starts_with(Tag.key, bindparam("key_prefix")),
)
_COLUMNS: tuple[InstrumentedAttribute[Any], ...] = (Tag.id, Tag.name, Tag.slug, Tag.is_listed)

# One article after another (OFFSET 0), and an array in place of a join: PostgreSQL does not know
# how few articles are due, and would read all tags.
_due_tags = select(ArticleTag.tag_id).where(ArticleTag.article_id == Article.id).offset(0).lateral()
_due = (
    select(_due_tags.c.tag_id)
    .select_from(Article)
    .join(_due_tags, true())
    .where(Article.awaits_publication, Article.published_at <= NOW)
)
_DUE = and_(~Tag.is_listed, Tag.id == any_(func.array(_due.scalar_subquery())))
"""The tags of scheduled articles whose moment has come, until `announce_due` notices them."""


def _seen(*, every: bool, by_slug: bool) -> Subquery:
    """`every` tag that begins as asked, or those that readers see articles under.

    Hidden tags cost readers nothing: those that are listed have an index of their own. `by_slug`:
    no more than a page needs, and of those that are listed only such as have articles.
    """
    tags = select(*_COLUMNS).where(_BEGINS)
    if every:
        return tags.subquery()
    listed = tags.where(Tag.is_listed)
    if by_slug:
        # A subquery with a LIMIT is looked up for each tag; a semi-join would read all articles'.
        has_articles = select(true()).where(ArticleTag.tag_id == Tag.id, _LISTED).limit(1)
        listed = listed.where(has_articles.scalar_subquery()).order_by(Tag.slug)
        skip, limit = bindparam("skip", type_=Integer), bindparam("limit", type_=Integer)
        listed = listed.limit(skip + limit)
    return union_all(select(listed.subquery()), tags.where(_DUE)).subquery()


def _count(tag: Any) -> Select[Any]:
    return (
        select(func.count().label("number"))
        .select_from(ArticleTag)
        .where(ArticleTag.tag_id == tag.id, _LISTED)
    )


def _by_name(*, every: bool) -> Select[Any]:
    """A page of tags by slug; only the articles of those that are on it are counted."""
    seen = _seen(every=every, by_slug=True)
    tag = paged(select(seen).order_by(seen.c.slug, seen.c.id)).subquery().c
    count = _count(tag).scalar_subquery().label("article_count")
    return select(public_name(tag), tag.slug, count).order_by(tag.slug, tag.id)


def _by_count(*, every: bool) -> Select[Any]:
    """A page of tags, the most used first: the articles of all that begin so have to be counted."""
    seen = _seen(every=every, by_slug=False)
    used = _count(seen.c).lateral()
    statement = select(seen, used.c.number).join(used, true())
    if not every:
        statement = statement.where(used.c.number > 0)
    order = used.c.number.desc(), seen.c.slug, seen.c.id
    page = paged(statement.order_by(*order)).subquery().c
    return select(public_name(page), page.slug, page.number.label("article_count")).order_by(
        page.number.desc(), page.slug, page.id
    )


_LISTS = {
    TagSort.NAME: {every: _by_name(every=every) for every in (True, False)},
    TagSort.COUNT: {every: _by_count(every=every) for every in (True, False)},
}
_ONE = select(public_name(Tag), Tag.slug, _count(Tag).scalar_subquery().label("article_count"))
_BY_SLUG = _ONE.where(Tag.slug == bindparam("slug"))
_BY_ID = _ONE.where(Tag.id == bindparam("tag_id"))


async def list_tags(
    connection: Reader, *, query: TagQuery, viewer: Identity | None
) -> Sequence[TagResponse]:
    """The tags that readers find articles under, in one query; for editors, every tag."""
    key = tag_key(query.q or "")
    slug = tag_slug(key) if slugify(key, fallback="") else key
    if query.q is not None and not key:
        return []
    statement = _LISTS[query.sort][may_on_any(viewer, Action.CHANGE_TAG)]
    page = {"skip": query.skip, "limit": query.limit}
    prefixes = {"slug_prefix": slug, "key_prefix": key}
    rows = await connection.execute(statement, {"now": clock.now(), **prefixes, **page})
    return [TagResponse.model_validate(row) for row in rows]


async def get_tag(connection: Reader, *, slug: str, viewer: Identity | None) -> TagResponse:
    """One tag. Raises TagNotFound.

    So it does for others than editors where no reader sees an article of it: what drafts are about
    is their authors' business.
    """
    tag = await _read(connection, _BY_SLUG, slug=slug)
    if tag is None or not (tag.article_count or may_on_any(viewer, Action.CHANGE_TAG)):
        raise TagNotFound
    return tag


class ChangedTag(NamedTuple):
    """The tag that there is now, and whether it is one that there was beside the one changed."""

    tag: TagResponse
    merged: bool


async def change_tag(
    session: AsyncSession, *, slug: str, new: TagUpdate, actor: Identity, precondition: Precondition
) -> ChangedTag:
    """Rename a tag, or merge it into the one that has the name.

    That one keeps its spelling, unless readers do not know it yet.

    The articles that have it get a new version: their tags read otherwise now. Raises
    NotAuthorized, TagNotFound, PreconditionFailed; ServiceUnavailable where others keep its
    articles locked.
    """
    _require_editor(actor)
    await limits.spend(session, actor, {LimitKind.MODERATION: 1})
    done = await _rename(session, slug=slug, name=new.name, precondition=precondition)
    if done.action is not None:
        _record(session, done.action, done.changed_id, actor)
    changed = await _read(session, _BY_ID, tag_id=done.tag_id)
    assert changed is not None  # noqa: S101 - it is locked
    return ChangedTag(changed, done.action is AuditAction.MERGE_TAG)


class _Renamed(NamedTuple):
    """The tag that was changed, the one that has the name now, and what was done."""

    changed_id: int
    tag_id: int
    action: AuditAction | None


async def _rename(
    session: AsyncSession, *, slug: str, name: str, precondition: Precondition
) -> _Renamed:
    key = tag_key(name)

    async def change() -> _Renamed:
        tag, other = await _locked(session, slug, key=key, precondition=precondition)
        if other is not None:
            await _note_new_versions(session, tag.id)
            await _merge(session, tag.id, into=other.id, name=name)
            return _Renamed(tag.id, other.id, AuditAction.MERGE_TAG)
        if (name, key) == (tag.name, tag.key):
            return _Renamed(tag.id, tag.id, None)
        await _note_new_versions(session, tag.id)
        values: dict[str, Any] = {"name": name, "key": key}
        if tag_slug(key) != (tag.wanted_slug or tag.slug):
            values["slug"], values["wanted_slug"] = (await free_tag_slugs(session, [key]))[key]
        await session.execute(update(Tag).where(Tag.id == tag.id).values(values))
        await session.execute(
            update(ArticleTag).where(ArticleTag.tag_id == tag.id).values(spelling=None)
        )
        if tag.is_listed:
            await session.execute(select(func.settle_tag_slug(tag.id)))
        return _Renamed(tag.id, tag.id, AuditAction.UPDATE_TAG)

    return await _giving_way(session, change)


async def delete_tag(
    session: AsyncSession, *, slug: str, actor: Identity, precondition: Precondition
) -> None:
    """Take a tag from all articles, which get a new version. Raises what `change_tag` raises."""
    _require_editor(actor)
    await limits.spend(session, actor, {LimitKind.MODERATION: 1})

    async def change() -> int:
        tag, _ = await _locked(session, slug, precondition=precondition)
        await _note_new_versions(session, tag.id)
        await session.execute(delete(Tag).where(Tag.id == tag.id))
        tag_id: int = tag.id
        return tag_id

    _record(session, AuditAction.DELETE_TAG, await _giving_way(session, change), actor)


async def _read(
    connection: Reader | AsyncSession, statement: Select[Any], **named: str | int
) -> TagResponse | None:
    row = (await connection.execute(statement, {**named, "now": clock.now()})).one_or_none()
    return None if row is None else TagResponse.model_validate(row)


def _require_editor(actor: Identity) -> None:
    """Raise NotAuthorized for whoever may not change tags: they are nobody's own."""
    if not may_on_any(actor, Action.CHANGE_TAG):
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
    .values(tag_id=bindparam("into_id"), spelling=bindparam("spelling"))
)


async def _locked(
    session: AsyncSession, slug: str, *, key: str = "", precondition: Precondition
) -> tuple[Any, Any]:
    """The tag with this slug and another one with this key or None, locked after its articles.

    From then on nobody gives an article one of them. Raises TagNotFound, PreconditionFailed.
    """
    await session.execute(_LOCK_ARTICLES, {"slug": slug})
    lock = (
        select(*_COLUMNS, Tag.key, Tag.wanted_slug)
        .where(or_(Tag.slug == slug, Tag.key == key))
        .order_by(Tag.id)
        .with_for_update()
    )
    tags: dict[bool, Any] = {tag.slug == slug: tag for tag in await session.execute(lock)}
    if True not in tags:
        raise TagNotFound
    current = await _read(session, _BY_SLUG, slug=slug)
    if current is not None:
        precondition.require(current)
    return tags[True], tags.get(False)


async def _note_new_versions(session: AsyncSession, tag_id: int) -> None:
    """The articles that have the tag read otherwise from now on: in one statement."""
    await session.execute(
        _NEW_VERSIONS,
        {"changed_id": tag_id, "now": clock.now()},
        execution_options={"synchronize_session": False},
    )


async def _merge(session: AsyncSession, tag_id: int, *, into: int, name: str) -> None:
    """Give what has one tag the other, once, spelt so until it is listed; then the one goes."""
    await session.execute(
        _MOVE,
        {"changed_id": tag_id, "into_id": into, "spelling": name},
        execution_options={"synchronize_session": False},
    )
    await session.execute(delete(Tag).where(Tag.id == tag_id))


def _record(session: AsyncSession, action: AuditAction, tag_id: int, actor: Identity) -> None:
    audit.record(session, action, actor_id=actor.id, subject="tag", subject_id=tag_id)


BATCH = 1000
"""How many tags `tidy` looks at in one unit of work."""

_HAS_ARTICLES = exists().where(ArticleTag.tag_id == Tag.id)
# By the clock that the trigger used: what it has listed is listed at any later moment.
_IS_SEEN = exists().where(
    ArticleTag.tag_id == Tag.id, ArticleTag.listed_at <= func.clock_timestamp()
)
_UNUSED = or_(~_HAS_ARTICLES, and_(Tag.is_listed, ~_IS_SEEN))
_NEXT = select(Tag.id).where(Tag.id > bindparam("after")).order_by(Tag.id).limit(BATCH).subquery()
_LAST_OF_NEXT = select(func.max(_NEXT.c.id))
_KEYLESS = select(Tag.slug, Tag.name).where(Tag.key.is_(None)).order_by(Tag.id).limit(BATCH)


async def tidy(database: Database) -> None:
    """Delete tags that no article has; hide those whose articles readers see no longer.

    A tag that somebody is giving to an article is left for the next time. Merges the second tags
    with one key that the previous release can create during an upgrade.
    """
    after: int | None = 0
    while after is not None:
        async with database.unit_of_work() as session:
            after = await _tidy_batch(session, after)
    async with database.unit_of_work() as session:
        keyless = (await session.execute(_KEYLESS)).all()
    for slug, name in keyless:
        async with database.unit_of_work() as session:
            with suppress(TagNotFound):
                await _rename(session, slug=slug, name=name, precondition=Precondition())


async def _tidy_batch(session: AsyncSession, after: int) -> int | None:
    """Tidy up the tags behind this id; the last id that was looked at, None at the end."""
    last: int | None = await session.scalar(_LAST_OF_NEXT, {"after": after})
    if last is not None:
        found = select(Tag.id).where(Tag.id > after, Tag.id <= last, _UNUSED)
        ids = (await session.scalars(found.with_for_update(skip_locked=True))).all()
        if ids:  # the lock excludes taggers; these statements see what they have committed
            theirs = Tag.id.in_(ids)
            options = {"synchronize_session": False}
            gone = delete(Tag).where(theirs, ~_HAS_ARTICLES)
            await session.execute(gone, execution_options=options)
            hidden = update(Tag).where(theirs, Tag.is_listed, ~_IS_SEEN).values(is_listed=False)
            await session.execute(hidden, execution_options=options)
    return last
