"""Tags: list with article counts, rename, merge and delete.

Requests that tag an article lock the article before the tag. Changes of a tag use the same order,
and retry on remaining conflicts (`retry_briefly`).
"""

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, NamedTuple

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
    true,
    union_all,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.auth.identity import Identity
from app.auth.permissions import Action, may_on_any
from app.content.slugs import slugify, tag_key, tag_slug
from app.core import clock
from app.core.conditional import Precondition
from app.core.enums import TagAction
from app.core.errors import NotAuthorized, TagNotFound
from app.core.limits import LimitKind
from app.db.reading import Reader
from app.db.session import Database, paged
from app.models.articles.article import Article
from app.models.articles.tag import ArticleTag, Tag
from app.schemas.articles.tag import TagQuery, TagResponse, TagSort, TagUpdate
from app.services import audit, limits
from app.services.articles.counting import read_public
from app.services.articles.retagging import (
    change_articles,
    lock_first_articles,
    note_change,
    retry_briefly,
)
from app.services.articles.rows import NOW, public_name
from app.services.articles.tagging import free_tag_slugs
from app.services.audit import AuditAction
from app.services.purging import paced_unit_of_work

_LISTED = ArticleTag.listed_at <= NOW
_HAS_PREFIX = or_(
    func.starts_with(Tag.slug, bindparam("slug_prefix")),
    func.starts_with(Tag.key, bindparam("key_prefix")),
)
_COLUMNS: tuple[InstrumentedAttribute[Any], ...] = (Tag.id, Tag.name, Tag.slug, Tag.is_listed)

# OFFSET 0 forces a nested loop, and an array replaces a join. PostgreSQL does not know how few
# articles are due, and would read all tags.
_due_tags = select(ArticleTag.tag_id).where(ArticleTag.article_id == Article.id).offset(0).lateral()
_due = (
    select(_due_tags.c.tag_id)
    .select_from(Article)
    .join(_due_tags, true())
    .where(Article.awaits_publication, Article.published_at <= NOW)
)
_DUE = and_(~Tag.is_listed, Tag.id == any_(func.array(_due.scalar_subquery())))
"""Tags of scheduled articles that are due but not yet announced by `announce_due`."""


def _matching_tags(*, include_hidden: bool, by_slug: bool) -> Subquery:
    """Select tags with the requested prefix; without `include_hidden`, public ones only.

    Listed tags have a partial index, so unlisted tags do not slow down the query. With `by_slug`,
    returns only what a page needs, and only listed tags with public articles.
    """
    tags = select(*_COLUMNS).where(_HAS_PREFIX)
    if include_hidden:
        return tags.subquery()
    listed = tags.where(Tag.is_listed)
    if by_slug:
        # A subquery with LIMIT runs once per tag; a semi-join would read the articles of all tags.
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


def _by_name(*, include_hidden: bool) -> Select[Any]:
    """Select a page of tags by slug; only articles of tags on the page are counted."""
    matching = _matching_tags(include_hidden=include_hidden, by_slug=True)
    tag = paged(select(matching).order_by(matching.c.slug, matching.c.id)).subquery().c
    count = _count(tag).scalar_subquery().label("article_count")
    return select(public_name(tag), tag.slug, count).order_by(tag.slug, tag.id)


def _by_count(*, include_hidden: bool) -> Select[Any]:
    """Select a page of tags by article count; the articles of all matching tags are counted."""
    matching = _matching_tags(include_hidden=include_hidden, by_slug=False)
    usage = _count(matching.c).lateral()
    statement = select(matching, usage.c.number).join(usage, true())
    if not include_hidden:
        statement = statement.where(usage.c.number > 0)
    order = usage.c.number.desc(), matching.c.slug, matching.c.id
    page = paged(statement.order_by(*order)).subquery().c
    return select(public_name(page), page.slug, page.number.label("article_count")).order_by(
        page.number.desc(), page.slug, page.id
    )


_LISTS = {
    TagSort.NAME: {value: _by_name(include_hidden=value) for value in (True, False)},
    TagSort.COUNT: {value: _by_count(include_hidden=value) for value in (True, False)},
}
_TAG = select(public_name(Tag), Tag.slug, _count(Tag).scalar_subquery().label("article_count"))
_BY_SLUG = _TAG.where(Tag.slug == bindparam("slug"))
_BY_KEY = _TAG.where(Tag.key == bindparam("key"))
_BY_ID = _TAG.where(Tag.id == bindparam("tag_id"))


async def list_tags(
    reader: Reader, *, query: TagQuery, viewer: Identity | None
) -> Sequence[TagResponse]:
    """Return the tags of public articles, or all tags for editors.

    Runs up to two queries.
    """
    key = tag_key(query.q or "")
    slug = tag_slug(key) if slugify(key, fallback="") else key
    if query.q is not None and not key:
        return []
    include_hidden = may_on_any(viewer, Action.CHANGE_TAG)
    statement = _LISTS[query.sort][include_hidden]
    page = {"skip": query.skip, "limit": query.limit}
    prefixes = {"slug_prefix": slug, "key_prefix": key}
    parameters = {"now": clock.now(), **prefixes, **page}
    if include_hidden:
        rows = await reader.execute(statement, parameters)
    else:
        rows = await read_public(
            reader,
            statement,
            key=("tags", query.sort, slug, key, query.skip, query.limit),
            parameters=parameters,
            counted=lambda rows: sum(row.article_count for row in rows),
        )
    return [TagResponse.model_validate(row) for row in rows]


async def get_tag(reader: Reader, *, slug: str, viewer: Identity | None) -> TagResponse:
    """Return one tag.

    Raises TagNotFound, also if only hidden articles have it and the viewer is not an editor.
    """
    tag = await _read(reader, _BY_SLUG, slug=slug)
    if tag is None or not (tag.article_count or may_on_any(viewer, Action.CHANGE_TAG)):
        raise TagNotFound
    return tag


async def find_tag(reader: Reader, *, name: str, actor: Identity) -> TagResponse | None:
    """Return the tag that has this name in any spelling, for an editor. Raises NotAuthorized."""
    _require_editor(actor)
    return await _read(reader, _BY_KEY, key=tag_key(name))


class ChangedTag(NamedTuple):
    """The resulting tag, and whether it existed before and absorbed the renamed one."""

    tag: TagResponse
    merged: bool


async def change_tag(
    session: AsyncSession, *, slug: str, new: TagUpdate, actor: Identity, precondition: Precondition
) -> ChangedTag:
    """Rename a tag, or merge it into the tag that has the new name.

    The existing tag keeps its spelling if it is listed. All articles of the tag get a new version,
    after this request if the tag has many (`retagging.apply_changes`).

    Raises NotAuthorized, TagNotFound, PreconditionFailed, and ServiceUnavailable if its articles
    stay locked.
    """
    _require_editor(actor)
    await limits.check(session, actor, {LimitKind.MODERATION: 1})
    result = await _rename(session, slug=slug, name=new.name, precondition=precondition)
    await limits.spend(session, actor, {LimitKind.MODERATION: 1})
    if result.action is not None:
        _record(session, result.action, result.changed_id, actor)
    changed = await _read(session, _BY_ID, tag_id=result.tag_id)
    assert changed is not None  # noqa: S101 - locked by this transaction
    return ChangedTag(changed, result.action is AuditAction.MERGE_TAG)


class _RenameResult(NamedTuple):
    """The id of the changed tag, the id of the tag with the name, and the audited action."""

    changed_id: int
    tag_id: int
    action: AuditAction | None


async def _rename(
    session: AsyncSession, *, slug: str, name: str, precondition: Precondition
) -> _RenameResult:
    key = tag_key(name)

    async def change(session: AsyncSession) -> _RenameResult:
        tag, other = await _lock_tag(session, slug, key=key, precondition=precondition)
        if other is not None:
            await note_change(
                session, TagAction.MERGE, tag_id=tag.id, into_id=other.id, spelling=name
            )
            await change_articles(session, tag_id=tag.id)
            return _RenameResult(tag.id, other.id, AuditAction.MERGE_TAG)
        if (name, key) == (tag.name, tag.key):
            return _RenameResult(tag.id, tag.id, None)
        await note_change(session, TagAction.RENAME, tag_id=tag.id)
        values: dict[str, Any] = {"name": name, "key": key}
        if tag_slug(key) != (tag.wanted_slug or tag.slug):
            values["slug"], values["wanted_slug"] = (await free_tag_slugs(session, [key]))[key]
        await session.execute(update(Tag).where(Tag.id == tag.id).values(values))
        if tag.is_listed:
            await session.execute(select(func.settle_tag_slug(tag.id)))
        await change_articles(session, tag_id=tag.id)
        return _RenameResult(tag.id, tag.id, AuditAction.UPDATE_TAG)

    return await retry_briefly(session, change)


async def delete_tag(
    session: AsyncSession, *, slug: str, actor: Identity, precondition: Precondition
) -> None:
    """Remove a tag from all articles, which get a new version. Raises what `change_tag` raises.

    If it has many articles, the tag exists until `retagging.apply_changes` has removed it from all.
    """
    _require_editor(actor)
    await limits.check(session, actor, {LimitKind.MODERATION: 1})

    async def change(session: AsyncSession) -> int:
        tag, _ = await _lock_tag(session, slug, precondition=precondition)
        await note_change(session, TagAction.DELETE, tag_id=tag.id)
        await change_articles(session, tag_id=tag.id)
        tag_id: int = tag.id
        return tag_id

    tag_id = await retry_briefly(session, change)
    await limits.spend(session, actor, {LimitKind.MODERATION: 1})
    _record(session, AuditAction.DELETE_TAG, tag_id, actor)


async def _read(
    reader: Reader | AsyncSession, statement: Select[Any], **parameters: str | int
) -> TagResponse | None:
    row = (await reader.execute(statement, {**parameters, "now": clock.now()})).one_or_none()
    return None if row is None else TagResponse.model_validate(row)


def _require_editor(actor: Identity) -> None:
    """Raise NotAuthorized unless the actor may change tags."""
    if not may_on_any(actor, Action.CHANGE_TAG):
        raise NotAuthorized


async def _lock_tag(
    session: AsyncSession, slug: str, *, key: str = "", precondition: Precondition
) -> tuple[Any, Any]:
    """Lock the tag with this slug and the tag with this key, after the first of their articles.

    The second is None if it does not exist. Both cannot be assigned to articles until the
    transaction ends. Raises TagNotFound, PreconditionFailed.
    """
    tag_id = await session.scalar(select(Tag.id).where(Tag.slug == slug))
    if tag_id is None:
        raise TagNotFound
    await lock_first_articles(session, tag_id=tag_id)
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


def _record(session: AsyncSession, action: AuditAction, tag_id: int, actor: Identity) -> None:
    audit.record(session, action, actor_id=actor.id, subject="tag", subject_id=tag_id)


BATCH = 1000
"""How many tags `clean_up` examines per unit of work."""

_HAS_ARTICLES = exists().where(ArticleTag.tag_id == Tag.id)
# The trigger uses the same clock: what it has listed stays listed.
_IS_VISIBLE = exists().where(
    ArticleTag.tag_id == Tag.id, ArticleTag.listed_at <= func.clock_timestamp()
)
_UNUSED = or_(~_HAS_ARTICLES, and_(Tag.is_listed, ~_IS_VISIBLE))
_BATCH = select(Tag.id).where(Tag.id > bindparam("after")).order_by(Tag.id).limit(BATCH).subquery()
_LAST_OF_BATCH = select(func.max(_BATCH.c.id))
_WITHOUT_KEY = select(Tag.slug, Tag.name).where(Tag.key.is_(None)).order_by(Tag.id).limit(BATCH)


async def clean_up(database: Database) -> int:
    """Delete tags without articles, and return how many; unlist tags without public articles.

    Skips tags that a concurrent request locks. Merges duplicate keys, which the previous release
    can create during an upgrade.
    """
    count = 0
    after: int | None = 0
    while after is not None:
        async with paced_unit_of_work(database) as session:
            after, deleted = await _clean_up_batch(session, after)
        count += deleted
    async with database.unit_of_work() as session:
        without_key = (await session.execute(_WITHOUT_KEY)).all()
    for slug, name in without_key:
        async with database.unit_of_work() as session:
            with suppress(TagNotFound):
                await _rename(session, slug=slug, name=name, precondition=Precondition())
    return count


async def _clean_up_batch(session: AsyncSession, after: int) -> tuple[int | None, int]:
    """Clean up a batch of tags after this id.

    Returns the last id examined, or None at the end, and the number of deleted tags.
    """
    deleted = 0
    last: int | None = await session.scalar(_LAST_OF_BATCH, {"after": after})
    if last is not None:
        found = select(Tag.id).where(Tag.id > after, Tag.id <= last, _UNUSED)
        ids = (await session.scalars(found.with_for_update(skip_locked=True))).all()
        if ids:  # the lock excludes concurrent assignments; the statements below see committed ones
            selected = Tag.id.in_(ids)
            options = {"synchronize_session": False}
            unused = delete(Tag).where(selected, ~_HAS_ARTICLES).returning(Tag.id)
            result = await session.execute(unused, execution_options=options)
            deleted = len(result.all())
            no_longer_listed = (
                update(Tag).where(selected, Tag.is_listed, ~_IS_VISIBLE).values(is_listed=False)
            )
            await session.execute(no_longer_listed, execution_options=options)
    return last, deleted
