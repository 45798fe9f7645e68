"""Planning a batch of an import: what is new, what has changed, what is wrong."""

import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.permissions import Action, may
from app.core import clock
from app.core.config import get_settings
from app.core.errors import EmailNotVerified
from app.core.text import tag_key
from app.schemas.bulk import ArticleRecord
from app.services.articles.slugs import owns_slug, placeholder
from app.services.bulk import statements
from app.services.bulk.records import Importer, Outcome, Prepared, Result, Seen, key_of

REPEATED = "another record of this import has the same name"


class Refused(Exception):
    """A record cannot be written; the message says why."""


class New(NamedTuple):
    """A record that becomes an article."""

    item: Prepared
    author_id: int


class Change(NamedTuple):
    """A record that changes an article."""

    item: Prepared
    before: Row[Any]
    values: Mapping[str, Any]
    retags: bool


class _Holder(NamedTuple):
    """The article that a slug leads to, or once did."""

    article_id: int
    author_id: int
    former: bool


class Plan:
    """What the database says about a batch's records, and what is to be done with them."""

    def __init__(self, importer: Importer, now: datetime, made: Seen) -> None:
        self.importer = importer
        self.made = made
        self.now = now
        self.authors: dict[str, int] = {}
        self.known: dict[bytes, Row[Any]] = {}
        self.holders: dict[str, _Holder] = {}
        self.drafts: dict[tuple[str, int], _Holder] = {}
        self.targets: dict[int, Row[Any]] = {}
        self.new: list[New] = []
        self.changes: list[Change] = []
        self.noted: list[tuple[Prepared, int]] = []
        self.results: list[Result] = []

    def holder(self, slug: str | None, author_id: int) -> _Holder | None:
        """The article that a slug leads to, or did, for this author."""
        if slug is None:
            return None
        return self.holders.get(slug) or self.drafts.get((slug, author_id))

    def say(self, item: Prepared, outcome: Outcome, message: str = "") -> None:
        """Note what became of a record."""
        self.results.append(Result(item.incoming.position, outcome, message))


async def plan(
    session: AsyncSession, items: Sequence[Prepared], *, importer: Importer, made: Seen
) -> Plan:
    """Look up what the database has of these records, locked, and decide what becomes of each.

    `made` has the ids of the articles that records of this import without a slug became.
    """
    batch = Plan(importer, clock.now(), made)
    await _look_up(session, batch, items)
    first: dict[bytes, Prepared] = {}
    for item in items:
        placed = first.get(item.key)
        if placed is None:
            if _decide(batch, item):
                first[item.key] = item
        elif placed.digest == item.digest:
            batch.say(item, Outcome.UNCHANGED)
        else:
            batch.say(item, Outcome.FAILED, REPEATED)
    return batch


async def _look_up(session: AsyncSession, batch: Plan, items: Sequence[Prepared]) -> None:
    usernames = {item.record.author.lower() for item in items if item.record.author}
    if usernames:
        found = await session.execute(statements.AUTHORS, {"usernames": sorted(usernames)})
        batch.authors = {row.username: row.id for row in found}
    known = await session.execute(statements.KNOWN, {"keys": [item.key for item in items]})
    batch.known = {row.key: row for row in known}
    slugs = {item.record.slug for item in items if item.record.slug}
    await _look_up_slugs(session, batch, slugs)
    wanted = {
        batch.known[item.key].article_id
        for item in items
        if item.key in batch.known and batch.known[item.key].digest != item.digest
    } | {
        holder.article_id
        for holder in (*batch.holders.values(), *batch.drafts.values())
        if not holder.former
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
    for row in await session.execute(statements.HOLDERS, parameters):
        holder = _Holder(row.id, row.author_id, former=row.former)
        if row.draft:
            batch.drafts[row.slug, row.author_id] = holder
        else:
            batch.holders[row.slug] = holder


def _decide(batch: Plan, item: Prepared) -> bool:
    """Put the record where it belongs: to the new ones, to the changes, or to neither.

    False where it is refused.
    """
    try:
        _place(batch, item)
    except Refused as refusal:
        batch.say(item, Outcome.FAILED, str(refusal))
        return False
    return True


def _place(batch: Plan, item: Prepared) -> None:
    """The same. Raises Refused."""
    author_id = _author(batch, item.record)
    known = batch.known.get(item.key)
    if known is not None and not item.incoming.identity and not _reaches(batch, known.author_id):
        known = None  # two authors may have drafts of one name
    if known is not None:
        _require_reach(batch.importer, Action.CHANGE_ARTICLE, known.author_id)
        if known.digest == item.digest:
            batch.say(item, Outcome.UNCHANGED)
            return
    if item.repeated:
        raise Refused(REPEATED)
    if known is not None:
        _place_change(batch, item, batch.targets[known.article_id], author_id)
        return
    slug = item.record.slug
    holder = batch.holder(slug, author_id)
    if holder is None:
        item = _dated(item, batch.now)
        _require_verified_email(batch.importer, item.record)
        batch.new.append(New(item, author_id))
        return
    if key_of(holder.article_id) in batch.made:
        raise Refused(REPEATED)
    if holder.former:
        raise Refused(f"slug: {slug!r} leads to an article that had it before")
    if holder.author_id != author_id:
        raise Refused(f"slug: {slug!r} is the slug of another author's article")
    _place_change(batch, item, batch.targets[holder.article_id], author_id)


def _place_change(batch: Plan, item: Prepared, target: Row[Any], author_id: int) -> None:
    _require_reach(batch.importer, Action.CHANGE_ARTICLE, target.author_id)
    if target.deleted_at is not None:
        raise Refused("the article is in the trash: restore it first")
    item = _dated(item, target.published_at or batch.now)
    record = item.record
    values = _wanted(record, target, now=batch.now, author_id=author_id)
    values.update(_name(batch, record, target, values))
    changed = {name for name, value in values.items() if value != getattr(target, name)}
    retags = {tag_key(tag) for tag in record.tags} != set(target.tags)
    if not changed and not retags:
        batch.noted.append((item, target.id))
        batch.say(item, Outcome.UNCHANGED)
        return
    if _released(record) and (target.published_at is None or target.archived_at is not None):
        _require_verified_email(batch.importer, record)
    if changed & {"title", "content"}:
        identity = batch.importer.identity
        values["edited_by"] = identity.id if identity else None
        values["edited_at"] = batch.now
    if record.updated_at is None:
        values["updated_at"] = batch.now
    batch.changes.append(Change(item, target, values, retags))
    batch.noted.append((item, target.id))
    batch.say(item, Outcome.UPDATED, item.incoming.note)


def _dated(item: Prepared, moment: datetime) -> Prepared:
    """The record with a date of publication, if it is published and names none."""
    record = item.record
    if not record.published or record.published_at is not None:
        return item
    return item._replace(record=record.model_copy(update={"published_at": moment}))


def _wanted(
    record: ArticleRecord, target: Row[Any], *, now: datetime, author_id: int
) -> dict[str, Any]:
    """The columns as the record has them; what it does not say stays."""
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


def _name(
    batch: Plan, record: ArticleRecord, target: Row[Any], values: Mapping[str, Any]
) -> dict[str, str | None]:
    """Its `slug` and `draft_slug`, as services.articles.slugs says. Raises Refused."""
    owned, published_at = owns_slug(target, batch.now), values["published_at"]
    shown = target.slug if owned else target.draft_slug
    wanted = record.slug or shown
    holder = batch.holder(wanted, values["author_id"])
    if holder is not None and holder.article_id != target.id:
        if record.slug:
            raise Refused(f"slug: {record.slug!r} is another article's")
        wanted = f"{wanted[:90]}-{secrets.token_hex(3)}"
    released = published_at is not None and values["archived_at"] is None
    if owned or (released and published_at <= batch.now):
        return {"slug": wanted, "draft_slug": None}
    if wanted == shown and published_at == target.published_at:
        return {"slug": target.slug, "draft_slug": wanted}
    return {"slug": placeholder() if published_at is None else wanted, "draft_slug": wanted}


def _author(batch: Plan, record: ArticleRecord) -> int:
    identity = batch.importer.identity
    if record.author is None:
        if identity is None:
            raise Refused("author: none is named")
        return identity.id
    author_id = batch.authors.get(record.author.lower())
    if author_id is None:
        raise Refused(f"author: nobody is called {record.author!r}")
    _require_reach(batch.importer, Action.IMPORT_ARTICLE, author_id)
    return author_id


def _reaches(batch: Plan, owner_id: int) -> bool:
    identity = batch.importer.identity
    return identity is None or may(identity, Action.CHANGE_ARTICLE, owner_id=owner_id)


def _require_reach(importer: Importer, action: Action, owner_id: int) -> None:
    if importer.identity is not None and not may(importer.identity, action, owner_id=owner_id):
        if action is Action.IMPORT_ARTICLE:
            raise Refused("author: you may import your own articles only")
        raise Refused("the article is another author's")


def _released(record: ArticleRecord) -> bool:
    return record.published_at is not None and not record.archived


def _require_verified_email(importer: Importer, record: ArticleRecord) -> None:
    if (
        importer.identity is not None
        and _released(record)
        and get_settings().require_verified_email
        and importer.identity.email_verified_at is None
    ):
        raise Refused(EmailNotVerified.message)
