"""Plan of an import batch: new articles, changes and errors."""

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.permissions import Action, may
from app.content.slugs import tag_key
from app.core import clock
from app.core.config import get_settings
from app.core.errors import EmailNotVerified
from app.schemas.bulk import ArticleRecord
from app.services.articles.slugs import owns_slug, placeholder
from app.services.bulk import statements
from app.services.bulk.records import (
    Importer,
    KeySet,
    Outcome,
    PreparedRecord,
    Result,
    key_of_article,
)

REPEATED = "another record of this import has the same key or slug"


class RecordRejected(Exception):
    """A record cannot be imported. The message contains the reason."""


class ArticleCreation(NamedTuple):
    """A record that creates an article."""

    item: PreparedRecord
    author_id: int


class ArticleChange(NamedTuple):
    """A record that updates an article."""

    item: PreparedRecord
    before: Row[Any]
    values: Mapping[str, Any]
    retags: bool


class _SlugOwner(NamedTuple):
    """The article with a slug, or with a former slug."""

    article_id: int
    author_id: int
    former: bool


class Plan:
    """The database's state for a batch, and the changes to make."""

    def __init__(self, importer: Importer, now: datetime, created_ids: KeySet) -> None:
        self.importer = importer
        self.created_ids = created_ids
        self.now = now
        self.authors: dict[str, int] = {}
        self.known: dict[bytes, Row[Any]] = {}
        self.public_slugs: dict[str, _SlugOwner] = {}
        self.draft_slugs: dict[tuple[str, int], _SlugOwner] = {}
        self.targets: dict[int, Row[Any]] = {}
        self.new: list[ArticleCreation] = []
        self.changes: list[ArticleChange] = []
        self.imported: list[tuple[PreparedRecord, int]] = []
        self.results: list[Result] = []

    def slug_owner(self, slug: str | None, author_id: int) -> _SlugOwner | None:
        """Return the article with this slug or former slug, as this author sees it."""
        if slug is None:
            return None
        return self.public_slugs.get(slug) or self.draft_slugs.get((slug, author_id))

    def add_result(self, item: PreparedRecord, outcome: Outcome, message: str = "") -> None:
        """Add the result of a record."""
        self.results.append(Result(item.parsed.position, outcome, message))


async def plan(
    session: AsyncSession,
    items: Sequence[PreparedRecord],
    *,
    importer: Importer,
    created_ids: KeySet,
) -> Plan:
    """Read and lock the affected rows, and decide what to do with each record.

    `created_ids` has the ids of articles that this import created from records without a slug.
    """
    batch = Plan(importer, clock.now(), created_ids)
    await _look_up(session, batch, items)
    first: dict[bytes, PreparedRecord] = {}
    for item in items:
        earlier = first.get(item.key)
        if earlier is None:
            if _try_plan_record(batch, item):
                first[item.key] = item
        elif earlier.digest == item.digest:
            batch.add_result(item, Outcome.UNCHANGED)
        else:
            batch.add_result(item, Outcome.FAILED, REPEATED)
    return batch


async def _look_up(session: AsyncSession, batch: Plan, items: Sequence[PreparedRecord]) -> None:
    usernames = {item.record.author.lower() for item in items if item.record.author}
    if usernames:
        found = await session.execute(statements.AUTHORS, {"usernames": sorted(usernames)})
        batch.authors = {row.username: row.id for row in found}
    known = await session.execute(statements.IMPORT_RECORDS, {"keys": [item.key for item in items]})
    batch.known = {row.key: row for row in known}
    slugs = {item.record.slug for item in items if item.record.slug}
    await _look_up_slugs(session, batch, slugs)
    wanted = {
        batch.known[item.key].article_id
        for item in items
        if item.key in batch.known and batch.known[item.key].digest != item.digest
    } | {
        slug_owner.article_id
        for slug_owner in (*batch.public_slugs.values(), *batch.draft_slugs.values())
        if not slug_owner.former
    }
    if wanted:
        rows = await session.execute(statements.TARGETS, {"ids": sorted(wanted)})
        batch.targets = {row.id: row for row in rows}
    kept = {row.draft_slug for row in batch.targets.values() if not owns_slug(row, batch.now)}
    await _look_up_slugs(session, batch, kept - slugs)


async def _look_up_slugs(session: AsyncSession, batch: Plan, slugs: set[str]) -> None:
    if not slugs:
        return
    identity = batch.importer.identity
    authors = {*batch.authors.values(), *([identity.id] if identity else [])}
    parameters = {"slugs": sorted(slugs), "author_ids": sorted(authors), "now": batch.now}
    for row in await session.execute(statements.SLUG_OWNERS, parameters):
        slug_owner = _SlugOwner(row.id, row.author_id, former=row.former)
        if row.draft:
            batch.draft_slugs[row.slug, row.author_id] = slug_owner
        else:
            batch.public_slugs[row.slug] = slug_owner


def _try_plan_record(batch: Plan, item: PreparedRecord) -> bool:
    """Add a record to the plan. Return False and add a failed result if it is rejected."""
    try:
        _plan_record(batch, item)
    except RecordRejected as error:
        batch.add_result(item, Outcome.FAILED, str(error))
        return False
    return True


def _plan_record(batch: Plan, item: PreparedRecord) -> None:
    """Add a record to the new articles, to the changes, or to neither. Raises RecordRejected."""
    author_id = _author_id(batch, item.record)
    known = batch.known.get(item.key)
    if known is not None and not item.parsed.identity and not _may_change(batch, known.author_id):
        known = None  # drafts of two authors may have the same slug
    if known is not None:
        _require_permission(batch.importer, Action.CHANGE_ARTICLE, known.author_id)
        if known.digest == item.digest:
            batch.add_result(item, Outcome.UNCHANGED)
            return
    if item.repeated:
        raise RecordRejected(REPEATED)
    if known is not None:
        _plan_change(batch, item, batch.targets[known.article_id], author_id)
        return
    slug = item.record.slug
    slug_owner = batch.slug_owner(slug, author_id)
    if slug_owner is None:
        item = _with_publication_date(item, batch.now)
        _require_verified_email(batch.importer, item.record)
        batch.new.append(ArticleCreation(item, author_id))
        return
    if key_of_article(slug_owner.article_id) in batch.created_ids:
        raise RecordRejected(REPEATED)
    if slug_owner.former:
        raise RecordRejected(f"slug: {slug!r} is a former slug of another article")
    if slug_owner.author_id != author_id:
        raise RecordRejected(f"slug: {slug!r} belongs to an article of another author")
    _plan_change(batch, item, batch.targets[slug_owner.article_id], author_id)


def _plan_change(batch: Plan, item: PreparedRecord, target: Row[Any], author_id: int) -> None:
    _require_permission(batch.importer, Action.CHANGE_ARTICLE, target.author_id)
    if target.deleted_at is not None:
        raise RecordRejected("the article is in the trash: restore it first")
    item = _with_publication_date(item, target.published_at or batch.now)
    record = item.record
    values = _column_values(record, target, now=batch.now, author_id=author_id)
    values.update(_slug_values(batch, record, target, values))
    changed = {name for name, value in values.items() if value != getattr(target, name)}
    retags = {tag_key(tag) for tag in record.tags} != set(target.tags)
    if not changed and not retags:
        batch.imported.append((item, target.id))
        batch.add_result(item, Outcome.UNCHANGED)
        return
    if _is_published(record) and (target.published_at is None or target.archived_at is not None):
        _require_verified_email(batch.importer, record)
    if changed & {"title", "content"}:
        identity = batch.importer.identity
        values["edited_by"] = identity.id if identity else None
        values["edited_at"] = batch.now
    if record.updated_at is None:
        values["updated_at"] = batch.now
    batch.changes.append(ArticleChange(item, target, values, retags))
    batch.imported.append((item, target.id))
    batch.add_result(item, Outcome.UPDATED, item.parsed.note)


def _with_publication_date(item: PreparedRecord, published_at: datetime) -> PreparedRecord:
    """Set the publication date if the record is published and has no date."""
    record = item.record
    if not record.published or record.published_at is not None:
        return item
    return item._replace(record=record.model_copy(update={"published_at": published_at}))


def _column_values(
    record: ArticleRecord, target: Row[Any], *, now: datetime, author_id: int
) -> dict[str, Any]:
    """Return the columns from the record. Fields that it does not contain keep their value."""
    return {
        "title": record.title,
        "content": record.content,
        "own_excerpt": record.excerpt is not None,
        "excerpt": target.excerpt if record.excerpt is None else record.excerpt,
        "cover_image_url": record.cover_image_url,
        "language": record.language or get_settings().default_language,
        "published_at": record.published_at,
        "archived_at": (target.archived_at or now) if record.archived else None,
        "created_at": record.created_at or target.created_at,
        "updated_at": record.updated_at or target.updated_at,
        "author_id": author_id if record.author else target.author_id,
    }


def _slug_values(
    batch: Plan, record: ArticleRecord, target: Row[Any], values: Mapping[str, Any]
) -> dict[str, str | None]:
    """Return `slug` and `draft_slug` by the rules of services.articles.slugs.

    Raises RecordRejected.
    """
    owned, published_at = owns_slug(target, batch.now), values["published_at"]
    current = target.slug if owned else target.draft_slug
    wanted = record.slug or current
    slug_owner = batch.slug_owner(wanted, values["author_id"])
    if slug_owner is not None and slug_owner.article_id != target.id:
        if record.slug:
            raise RecordRejected(f"slug: {record.slug!r} belongs to another article")
        wanted = f"{wanted[:90]}-{secrets.token_hex(3)}"
    is_published = published_at is not None and values["archived_at"] is None
    if owned or (is_published and published_at <= batch.now):
        return {"slug": wanted, "draft_slug": None}
    if wanted == current and published_at == target.published_at:
        return {"slug": target.slug, "draft_slug": wanted}
    return {"slug": placeholder() if published_at is None else wanted, "draft_slug": wanted}


def _author_id(batch: Plan, record: ArticleRecord) -> int:
    identity = batch.importer.identity
    if record.author is None:
        if identity is None:
            raise RecordRejected("author: this field is required")
        return identity.id
    author_id = batch.authors.get(record.author.lower())
    if author_id is None:
        raise RecordRejected(f"author: there is no user {record.author!r}")
    _require_permission(batch.importer, Action.IMPORT_ARTICLE, author_id)
    return author_id


def _may_change(batch: Plan, owner_id: int) -> bool:
    identity = batch.importer.identity
    return identity is None or may(identity, Action.CHANGE_ARTICLE, owner_id=owner_id)


def _require_permission(importer: Importer, action: Action, owner_id: int) -> None:
    if importer.identity is not None and not may(importer.identity, action, owner_id=owner_id):
        if action is Action.IMPORT_ARTICLE:
            raise RecordRejected("author: you may only import your own articles")
        raise RecordRejected("the article belongs to another author")


def _is_published(record: ArticleRecord) -> bool:
    return record.published_at is not None and not record.archived


def _require_verified_email(importer: Importer, record: ArticleRecord) -> None:
    if (
        importer.identity is not None
        and _is_published(record)
        and get_settings().require_verified_email
        and importer.identity.email_verified_at is None
    ):
        raise RecordRejected(EmailNotVerified.message)
