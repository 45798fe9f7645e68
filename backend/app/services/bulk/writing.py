"""Execution of the plan of an import batch."""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import recheck
from app.core.config import get_settings
from app.core.errors import ServiceUnavailable
from app.core.limits import LimitKind
from app.services import audit, limits
from app.services.articles.pictures import update_media_references
from app.services.articles.rendering import rendered_columns
from app.services.articles.slugs import (
    ATTEMPTS,
    RESERVED,
    candidates,
    owns_slug,
    placeholder,
    release_slugs,
    save_former_slug,
)
from app.services.articles.tagging import LockedTag, lock_tags, names_by_key
from app.services.audit import AuditAction
from app.services.bulk import statements
from app.services.bulk.planning import NewArticle, Plan, plan
from app.services.bulk.records import (
    Importer,
    KeySet,
    Outcome,
    PreparedRecord,
    Result,
    key_of_article,
)

MEDIA_PATH = "/media/"
SLUG_TAKEN = "slug: {0!r} was taken by another article during the import"


async def write(
    session: AsyncSession,
    items: Sequence[PreparedRecord],
    *,
    importer: Importer,
    created_ids: KeySet,
) -> list[Result]:
    """Write a batch in the session's transaction, and return the result of each record.

    The number of statements does not depend on the number of new records. A changed article takes
    one more statement, and an article with media takes a few. Adds the ids of new articles without
    a slug in their record to `created_ids`. Raises InvalidToken if the importer's access was
    withdrawn, and LimitReached and QuotaExceeded if the importer is a user.
    """
    await session.execute(statements.ACQUIRE_IMPORTS_LOCK, {"lock": statements.IMPORTS_LOCK})
    if importer.identity is not None:  # after the lock: disabling the user waits for one batch
        importer = Importer(await recheck(session, importer.identity))
    batch = await plan(session, items, importer=importer, created_ids=created_ids)
    await _spend(session, batch)
    # Lock order, to prevent deadlocks: slugs (which lock articles), then tags, then changes (which
    # lock the present tags of an article).
    created = await _create(session, batch)
    await _free_slugs_for_changes(session, batch)
    retagged = [change.item for change in batch.changes if change.retags]
    tags = await lock_tags(
        session,
        (name for item in (*created.values(), *retagged) for name in item.record.tags),
        actor=batch.importer.identity,
    )
    await _add_tags(
        session, tags, [(article_id, item.record.tags) for article_id, item in created.items()]
    )
    await _change(session, batch, tags)
    await _save_import_records(session, batch)
    return batch.results


async def _spend(session: AsyncSession, batch: Plan) -> None:
    """Count the batch against the limits of the importing user; the operator has none."""
    identity = batch.importer.identity
    if identity is None:
        return
    texts = [new.item for new in batch.new]
    texts += [change.item for change in batch.changes if "edited_at" in change.values]
    size = sum(len(item.record.content.encode()) for item in texts)
    drafts = sum(new.item.record.published_at is None for new in batch.new)
    drafts += sum(
        change.values["published_at"] is None and change.before.published_at is not None
        for change in batch.changes
    )
    costs = {
        LimitKind.IMPORTED_RECORDS: len(batch.new) + len(batch.changes),
        LimitKind.TEXT_WRITTEN: size,
        LimitKind.TEXT_KEPT: size,
        LimitKind.DRAFTS: drafts,
    }
    await limits.spend(session, identity, costs)


async def _create(session: AsyncSession, batch: Plan) -> Mapping[int, PreparedRecord]:
    """Insert the new articles, without tags, and return them by id.

    On a slug conflict, a generated slug is replaced by the next candidate. A record with a slug
    of its own fails.
    """
    if not batch.new:
        return {}
    ids = list(await session.scalars(statements.IDS, {"count": len(batch.new)}))
    rows = {
        article_id: _article(new, article_id, now=batch.now)
        for article_id, new in zip(ids, batch.new, strict=True)
    }
    items = dict(zip(ids, (new.item for new in batch.new), strict=True))
    pending = set(ids)
    rounds = 0
    while pending:
        rounds += 1
        if rounds > ATTEMPTS:
            raise ServiceUnavailable
        await _assign_slugs(
            session, batch, {article_id: items[article_id] for article_id in pending}, rows
        )
        await _set_slug_columns(
            session, [rows[article_id] for article_id in pending], now=batch.now
        )
        columns = _columns([rows[article_id] for article_id in sorted(pending)])
        created = set(await session.scalars(statements.INSERT_ARTICLES, columns))
        for article_id in sorted(pending):
            item = items[article_id]
            if article_id in created:
                batch.imported.append((item, article_id))
                batch.add_result(item, Outcome.CREATED, item.parsed.note)
                if not item.record.slug:
                    batch.created_ids.add(key_of_article(article_id))
            elif item.record.slug and await _is_slug_taken(session, batch, rows[article_id]):
                batch.add_result(item, Outcome.FAILED, SLUG_TAKEN.format(item.record.slug))
                created.add(article_id)
                del items[article_id]
        pending -= created
    for article_id in items:
        await _update_media_references(session, rows[article_id])
    return items


async def _assign_slugs(
    session: AsyncSession,
    batch: Plan,
    items: Mapping[int, PreparedRecord],
    rows: Mapping[int, dict[str, Any]],
) -> None:
    """Set the slug of each row: that of the record, or the first available candidate."""
    taken = {item.record.slug for item in items.values() if item.record.slug}
    for article_id, item in items.items():
        rows[article_id]["slug"] = item.record.slug
    without_slug = {
        article_id: candidates(item.parsed.slug_source or item.record.title)
        for article_id, item in items.items()
        if not item.record.slug
    }
    # The first candidate is usually available. The others are queried only if it is not.
    for depth in (slice(1), slice(None)):
        wanted = {slug for names in without_slug.values() for slug in names[depth]}
        if not wanted:
            return
        authors = {rows[article_id]["author_id"] for article_id in without_slug}
        found = await _slug_owners(session, batch, wanted, authors)
        taken |= {row.slug for row in found if not row.draft} | RESERVED
        taken_drafts = {(row.slug, row.author_id) for row in found if row.draft}
        for article_id in sorted(without_slug):
            author_id = rows[article_id]["author_id"]
            available = next(
                (
                    slug
                    for slug in without_slug[article_id][depth]
                    if slug not in taken and (slug, author_id) not in taken_drafts
                ),
                None,
            )
            if available is not None:
                rows[article_id]["slug"] = available
                taken.add(available)
                del without_slug[article_id]


async def _slug_owners(
    session: AsyncSession, batch: Plan, slugs: Iterable[str], author_ids: Iterable[int]
) -> Sequence[Row[Any]]:
    parameters = {"slugs": sorted(slugs), "author_ids": sorted(author_ids), "now": batch.now}
    return (await session.execute(statements.SLUG_OWNERS, parameters)).all()


async def _is_slug_taken(session: AsyncSession, batch: Plan, row: Mapping[str, Any]) -> bool:
    """Return whether another article took the row's slug after the batch was planned."""
    slug = row["draft_slug"] or row["slug"]
    return bool(await _slug_owners(session, batch, [slug], [row["author_id"]]))


async def _set_slug_columns(
    session: AsyncSession, rows: Sequence[dict[str, Any]], *, now: datetime
) -> None:
    """Set both slug columns, and release slugs that drafts occupy but published articles need."""
    slugs = sorted(row["slug"] for row in rows)
    occupied = set(await session.scalars(statements.OCCUPIED_SLUGS, {"slugs": slugs}))
    released = [row["slug"] for row in rows if row["published_at"] is not None]
    if not occupied.isdisjoint(released):
        await release_slugs(session, released, now=now)
    for row in rows:
        published_at = row["published_at"]
        public = published_at is not None and published_at <= now and row["archived_at"] is None
        row["draft_slug"] = None if public else row["slug"]
        if published_at is None and row["slug"] in occupied:
            row["slug"] = placeholder()


def _article(new: NewArticle, article_id: int, *, now: datetime) -> dict[str, Any]:
    """Return the columns of a new article, except for the slugs."""
    record = new.item.record
    created_at = record.created_at or now
    updated_at = record.updated_at or created_at
    return {
        "id": article_id,
        "title": record.title,
        "content": record.content,
        **_rendered(new.item),
        "cover_image_url": record.cover_image_url,
        "language": record.language or get_settings().default_language,
        "published_at": record.published_at,
        "archived_at": updated_at if record.archived else None,
        "created_at": created_at,
        "updated_at": updated_at,
        "author_id": new.author_id,
    }


def _rendered(item: PreparedRecord) -> dict[str, Any]:
    assert item.rendered is not None  # noqa: S101 - records are rendered before they are written
    columns = rendered_columns(item.rendered, own_excerpt=item.record.excerpt)
    return {**columns, "toc": json.dumps(columns["toc"], ensure_ascii=False)}


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in statements.ARTICLE_COLUMNS}


async def _free_slugs_for_changes(session: AsyncSession, batch: Plan) -> None:
    wanted = {change.values["slug"] for change in batch.changes}
    taken = wanted - {change.before.slug for change in batch.changes}
    if taken:
        await release_slugs(session, sorted(taken), now=batch.now)


async def _change(session: AsyncSession, batch: Plan, tags: Mapping[str, LockedTag]) -> None:
    """Update the changed articles, and add revisions with their previous texts."""
    if not batch.changes:
        return
    rewritten = [change.before for change in batch.changes if "edited_at" in change.values]
    if rewritten:
        revisions = {
            "article_ids": [before.id for before in rewritten],
            "versions": [before.version for before in rewritten],
            "titles": [before.title for before in rewritten],
            "contents": [before.content for before in rewritten],
            "author_ids": [before.edited_by or before.author_id for before in rewritten],
            "moments": [before.edited_at or before.updated_at for before in rewritten],
        }
        await session.execute(statements.ADD_REVISIONS, revisions)
    rows = [
        {
            "edited_by": change.before.edited_by,
            "edited_at": change.before.edited_at,
            **change.values,
            **_rendered(change.item),
            "id": change.before.id,
        }
        for change in batch.changes
    ]
    await session.execute(statements.UPDATE_ARTICLE, rows)
    for change in batch.changes:
        before, present = change.before.slug, change.values["slug"]
        if present != before and owns_slug(change.before, batch.now):
            await save_former_slug(
                session, article_id=change.before.id, former=before, present=present
            )
    retagged = [
        (change.before.id, change.item.record.tags) for change in batch.changes if change.retags
    ]
    await _add_tags(session, tags, retagged, replace=True)
    for row, change in zip(rows, batch.changes, strict=True):
        before = change.before
        await _update_media_references(session, row, before.content, before.cover_image_url)


async def _update_media_references(
    session: AsyncSession, row: Mapping[str, Any], *before: str | None
) -> None:
    """Update the media references of an article if it has media URLs, or had in `before`."""
    if any(
        MEDIA_PATH in (text or "") for text in (row["content"], row["cover_image_url"], *before)
    ):
        await update_media_references(
            session,
            article_id=row["id"],
            content=row["content"],
            cover_image_url=row["cover_image_url"],
        )


async def _add_tags(
    session: AsyncSession,
    tags: Mapping[str, LockedTag],
    tagged: Sequence[tuple[int, Sequence[str]]],
    *,
    replace: bool = False,
) -> None:
    """Add tags to articles, in order. With `replace`, remove all others."""
    rows = [
        (article_id, tags[key].id, position, None if tags[key].is_listed else name)
        for article_id, names in tagged
        for position, (key, name) in enumerate(names_by_key(names).items())
    ]
    pairs = {
        "article_ids": [article_id for article_id, *_ in rows],
        "tag_ids": [tag_id for _, tag_id, *_ in rows],
    }
    if replace and tagged:
        changed = {"changed": [article_id for article_id, _ in tagged]}
        await session.execute(statements.REMOVE_TAGS, {**changed, **pairs})
    if rows:
        details = {
            "positions": [position for *_, position, _ in rows],
            "spellings": [spelling for *_, spelling in rows],
        }
        await session.execute(statements.ADD_TAGS, {**pairs, **details})


async def _save_import_records(session: AsyncSession, batch: Plan) -> None:
    """Save which records became which articles, and add an audit event."""
    if batch.imported:
        records = {
            "keys": [item.key for item, _ in batch.imported],
            "digests": [item.digest for item, _ in batch.imported],
            "article_ids": [article_id for _, article_id in batch.imported],
        }
        await session.execute(statements.UPSERT_IMPORT_RECORDS, records)
    written = sum(result.outcome in {Outcome.CREATED, Outcome.UPDATED} for result in batch.results)
    if written:
        identity = batch.importer.identity
        audit.record(
            session,
            AuditAction.IMPORT_ARTICLES,
            actor_id=identity.id if identity else None,
            subject="article",
            subject_id=None,
            count=written,
        )
