"""Writing a batch of an import as it was planned."""

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
from app.services.bulk.planning import New, Plan, plan
from app.services.bulk.records import Importer, Outcome, Prepared, Result, Seen, key_of
from app.services.media.references import note_references

PICTURES = "/media/"
SLUG_LOST = "slug: somebody has just taken {0!r}"


async def write(
    session: AsyncSession, items: Sequence[Prepared], *, importer: Importer, made: Seen
) -> list[Result]:
    """Write a batch in the session's unit of work; what became of each record.

    A handful of statements, however many records there are, but for one an article that changes and
    a few for one with pictures of ours. Adds to `made` what `plan` asks it about. Raises
    InvalidToken where the importer's access was withdrawn since the import began, and LimitReached
    and QuotaExceeded for a user who imports.
    """
    await session.execute(statements.TAKE_TURNS, {"lock": statements.IMPORTS_LOCK})
    if importer.identity is not None:  # after the lock: disabling the user waits for one batch
        importer = Importer(await recheck(session, importer.identity))
    batch = await plan(session, items, importer=importer, made=made)
    await _spend(session, batch)
    # The slugs before the tags: they may wait for articles, whose writers wait for tags. The tags
    # before any change, which locks those that an article has.
    created = await _create(session, batch)
    await _make_way_for_changes(session, batch)
    retagged = [change.item for change in batch.changes if change.retags]
    tags = await lock_tags(
        session,
        (name for item in (*created.values(), *retagged) for name in item.record.tags),
        actor=batch.importer.identity,
    )
    await _add_tags(session, tags, [(number, item.record.tags) for number, item in created.items()])
    await _change(session, batch, tags)
    await _note(session, batch)
    return batch.results


async def _spend(session: AsyncSession, batch: Plan) -> None:
    """Count what is about to be written for the user who imports it; an operator has no limits."""
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


async def _create(session: AsyncSession, batch: Plan) -> Mapping[int, Prepared]:
    """Insert the new ones, without tags, and return them by their ids.

    Those that lose their slug to somebody else try the next, or fail.
    """
    if not batch.new:
        return {}
    ids = list(await session.scalars(statements.IDS, {"count": len(batch.new)}))
    rows = {
        article_id: _article(new, article_id, now=batch.now)
        for article_id, new in zip(ids, batch.new, strict=True)
    }
    items = dict(zip(ids, (new.item for new in batch.new), strict=True))
    waiting = set(ids)
    rounds = 0
    while waiting:
        rounds += 1
        if rounds > ATTEMPTS:
            raise ServiceUnavailable
        await _give_slugs(session, batch, {number: items[number] for number in waiting}, rows)
        await _hold_slugs(session, [rows[number] for number in waiting], now=batch.now)
        columns = _columns([rows[number] for number in sorted(waiting)])
        created = set(await session.scalars(statements.INSERT_ARTICLES, columns))
        for number in sorted(waiting):
            item = items[number]
            if number in created:
                batch.noted.append((item, number))
                batch.say(item, Outcome.CREATED, item.incoming.note)
                if not item.record.slug:
                    batch.made.add(key_of(number))
            elif item.record.slug and await _is_lost(session, batch, rows[number]):
                batch.say(item, Outcome.FAILED, SLUG_LOST.format(item.record.slug))
                created.add(number)
                del items[number]
        waiting -= created
    for number in items:
        await _note_pictures(session, rows[number])
    return items


async def _give_slugs(
    session: AsyncSession,
    batch: Plan,
    items: Mapping[int, Prepared],
    rows: Mapping[int, dict[str, Any]],
) -> None:
    """Give each row a slug: the record's own, else the first that is free of those it may have."""
    taken = {item.record.slug for item in items.values() if item.record.slug}
    for number, item in items.items():
        rows[number]["slug"] = item.record.slug
    unnamed = {
        number: candidates(item.incoming.wish or item.record.title)
        for number, item in items.items()
        if not item.record.slug
    }
    # Most get the first. The others are asked for only where it is taken.
    for depth in (slice(1), slice(None)):
        asked = {slug for names in unnamed.values() for slug in names[depth]}
        if not asked:
            return
        authors = {rows[number]["author_id"] for number in unnamed}
        found = await _holders(session, batch, asked, authors)
        taken |= {row.slug for row in found if not row.draft} | RESERVED
        drafts = {(row.slug, row.author_id) for row in found if row.draft}
        for number in sorted(unnamed):
            author_id = rows[number]["author_id"]
            free = next(
                (
                    slug
                    for slug in unnamed[number][depth]
                    if slug not in taken and (slug, author_id) not in drafts
                ),
                None,
            )
            if free is not None:
                rows[number]["slug"] = free
                taken.add(free)
                del unnamed[number]


async def _holders(
    session: AsyncSession, batch: Plan, slugs: Iterable[str], author_ids: Iterable[int]
) -> Sequence[Row[Any]]:
    parameters = {"slugs": sorted(slugs), "author_ids": sorted(author_ids), "now": batch.now}
    return (await session.execute(statements.HOLDERS, parameters)).all()


async def _is_lost(session: AsyncSession, batch: Plan, row: Mapping[str, Any]) -> bool:
    """Whether somebody has taken the slug that a record asks for, since it was planned."""
    slug = row["draft_slug"] or row["slug"]
    return bool(await _holders(session, batch, [slug], [row["author_id"]]))


async def _hold_slugs(
    session: AsyncSession, rows: Sequence[dict[str, Any]], *, now: datetime
) -> None:
    """Set both columns of a name, and move what is not public out of the way of what will be."""
    slugs = sorted(row["slug"] for row in rows)
    held = set(await session.scalars(statements.HELD, {"slugs": slugs}))
    released = [row["slug"] for row in rows if row["published_at"] is not None]
    if not held.isdisjoint(released):
        await release_slugs(session, released, now=now)
    for row in rows:
        published_at = row["published_at"]
        public = published_at is not None and published_at <= now and row["archived_at"] is None
        row["draft_slug"] = None if public else row["slug"]
        if published_at is None and row["slug"] in held:
            row["slug"] = placeholder()


def _article(new: New, article_id: int, *, now: datetime) -> dict[str, Any]:
    """The row of a record; its slug comes later."""
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


def _rendered(item: Prepared) -> dict[str, Any]:
    assert item.rendered is not None  # noqa: S101 - what is going to be written was rendered
    columns = rendered_columns(item.rendered, own_excerpt=item.record.excerpt)
    return {**columns, "toc": json.dumps(columns["toc"], ensure_ascii=False)}


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in statements.ARTICLE_COLUMNS}


async def _make_way_for_changes(session: AsyncSession, batch: Plan) -> None:
    wanted = {change.values["slug"] for change in batch.changes}
    taken = wanted - {change.before.slug for change in batch.changes}
    if taken:
        await release_slugs(session, sorted(taken), now=batch.now)


async def _change(session: AsyncSession, batch: Plan, tags: Mapping[str, LockedTag]) -> None:
    """Change what is there already, and keep what its text was before."""
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
        await _note_pictures(session, row, before.content, before.cover_image_url)


async def _note_pictures(
    session: AsyncSession, row: Mapping[str, Any], *before: str | None
) -> None:
    """Remember which of our pictures an article shows, where it shows any, or did `before`."""
    if any(PICTURES in (text or "") for text in (row["content"], row["cover_image_url"], *before)):
        await note_references(
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
    """Give articles tags in their order; with `replace`, no others."""
    rows = [
        (number, tags[key].id, place, None if tags[key].is_listed else name)
        for number, names in tagged
        for place, (key, name) in enumerate(names_by_key(names).items())
    ]
    pairs = {
        "article_ids": [article_id for article_id, *_ in rows],
        "tag_ids": [tag_id for _, tag_id, *_ in rows],
    }
    if replace and tagged:
        changed = {"changed": [number for number, _ in tagged]}
        await session.execute(statements.REMOVE_TAGS, {**changed, **pairs})
    if rows:
        details = {
            "positions": [place for *_, place, _ in rows],
            "spellings": [spelling for *_, spelling in rows],
        }
        await session.execute(statements.ADD_TAGS, {**pairs, **details})


async def _note(session: AsyncSession, batch: Plan) -> None:
    """Remember which records became which articles; tell the audit trail."""
    if batch.noted:
        records = {
            "keys": [item.key for item, _ in batch.noted],
            "digests": [item.digest for item, _ in batch.noted],
            "article_ids": [article_id for _, article_id in batch.noted],
        }
        await session.execute(statements.NOTE_RECORDS, records)
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
