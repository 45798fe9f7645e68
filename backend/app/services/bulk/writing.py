"""Execution of the plan of an import batch."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import COMMAND_LINE, recheck
from app.auth.permissions import Action, may_on_any
from app.content.markdown import Rendered
from app.core.enums import CommentPolicy
from app.core.limits import LimitKind
from app.services import audit, limits
from app.services.articles.images import mentions_media, update_media_references
from app.services.articles.inserting import (
    InsertedArticle,
    NewArticle,
    add_media_references,
    insert_articles,
)
from app.services.articles.rendering import rendered_columns
from app.services.articles.slugs import owns_slug, release_slugs, save_former_slug
from app.services.articles.tagging import LockedTag, add_tags, lock_tags, tags_named
from app.services.audit import AuditAction
from app.services.bulk import statements
from app.services.bulk.comments import CommentChanges, changes_of, save_comments
from app.services.bulk.former_slugs import save_former_slugs
from app.services.bulk.planning import ArticleCreation, Plan, Simulation, plan
from app.services.bulk.records import Importer, Outcome, PreparedRecord, Result
from app.services.bulk.sizes import comment_bytes, other_bytes, text_bytes

SLUG_TAKEN = "slug: {0!r} and all slugs like it are taken"


async def write(
    session: AsyncSession,
    items: Sequence[PreparedRecord],
    *,
    importer: Importer,
    simulation: Simulation | None = None,
) -> list[Result]:
    """Write a batch in the session's transaction, and return the result of each record.

    The number of statements does not depend on the number of new records. A changed article takes
    one more statement, and an article with media takes a few. `simulation` has the results of
    earlier batches of a dry run. Raises InvalidToken if the importer's access was withdrawn, and
    LimitReached and QuotaExceeded if the importer is a user.
    """
    await session.execute(statements.ACQUIRE_IMPORTS_LOCK, {"lock": statements.IMPORTS_LOCK})
    if importer.identity is not None:  # after the lock: disabling the user waits for one batch
        importer = importer._replace(identity=await recheck(session, importer.identity))
    batch = await plan(session, items, importer=importer, simulation=simulation)
    costs = _costs(batch)
    # The order is that of all locks (docs/architecture.md): articles and slugs, images, tags, then
    # changes (which lock the present tags of an article), counts.
    new = [_new_article(each, now=batch.now) for each in batch.new]
    inserted = await insert_articles(session, new, now=batch.now, is_taken=batch.is_taken)
    created = _note_created(batch, inserted)
    await _free_slugs_for_changes(session, batch)
    await add_media_references(session, new, inserted)
    await _change_media_references(session, batch)
    retagged = [change.item for change in batch.changes if change.retags]
    tags = await lock_tags(
        session,
        (name for item in (*created.values(), *retagged) for name in item.record.tags),
        actor=batch.importer.identity,
    )
    await add_tags(
        session,
        {
            article_id: tags_named(tags.by_key, item.record.tags)
            for article_id, item in created.items()
        },
    )
    await _change(session, batch, tags.by_key)
    await _save_import_records(session, batch)
    await _save_redirects(session, batch)
    await save_former_slugs(session, batch)
    await _save_comments(session, batch)
    await _save_addresses(session, batch)
    if importer.identity is not None:  # the operator has no limits
        await limits.spend(session, importer.identity, {**costs, LimitKind.NEW_TAGS: tags.new})
    return batch.results


def _costs(batch: Plan) -> dict[LimitKind, int]:
    """Return what the batch counts against the limits of the importing user."""
    comments = [comment for new in batch.new for comment in new.item.record.comments]
    for _, change in _comment_changes(batch):
        comments += [comment for comment, _ in change.new]
        comments += [comment for _, comment, _ in change.changed]
    rewritten = [each.item for each in batch.changes if "edited_at" in each.values]
    size = comment_bytes(comments)
    size += sum(text_bytes(new.item) + other_bytes(new.item) for new in batch.new)
    size += sum(map(text_bytes, rewritten))
    size += sum(other_bytes(item, batch.targets[id_]) for item, id_ in batch.imported)
    drafts = sum(new.item.record.published_at is None for new in batch.new)
    drafts += sum(
        change.values["published_at"] is None and change.before.published_at is not None
        for change in batch.changes
    )
    return {
        LimitKind.IMPORTED_RECORDS: len(batch.new) + len(batch.changes) + len(comments),
        LimitKind.TEXT_WRITTEN: size,
        LimitKind.TEXT_KEPT: size,
        LimitKind.DRAFTS: drafts,
    }


def _note_created(
    batch: Plan, inserted: Sequence[InsertedArticle | None]
) -> Mapping[int, PreparedRecord]:
    """Add the results of the new articles, and return their records by id."""
    created: dict[int, PreparedRecord] = {}
    for article, new in zip(inserted, batch.new, strict=True):
        if article is None:
            batch.add_result(new.item, Outcome.FAILED, SLUG_TAKEN.format(new.slugs[0]))
            continue
        created[article.id] = new.item
        batch.imported.append((new.item, article.id))
        batch.add_result(new.item, Outcome.CREATED, slug=article.slug)
    return created


def _new_article(new: ArticleCreation, *, now: datetime) -> NewArticle:
    record = new.item.record
    created_at = record.created_at or now
    updated_at = record.updated_at or created_at
    return NewArticle(
        title=record.title,
        content=record.content,
        rendered=_rendered(new.item),
        excerpt=record.excerpt,
        cover_image_url=record.cover_image_url,
        language=record.language,
        published_at=record.published_at,
        author_id=new.author_id,
        created_at=created_at,
        updated_at=updated_at,
        archived_at=updated_at if record.archived else None,
        tags=record.tags,
        slugs=new.slugs,
        imported=record.imported,
        comment_policy=record.comment_policy or CommentPolicy.OPEN,
    )


def _rendered(item: PreparedRecord) -> Rendered:
    assert item.rendered is not None  # noqa: S101 - records are rendered before they are written
    return item.rendered


async def _change_media_references(session: AsyncSession, batch: Plan) -> None:
    for change in batch.changes:
        before = change.before
        content, cover = change.values["content"], change.values["cover_image_url"]
        if mentions_media(content, cover, before.content, before.cover_image_url):
            await update_media_references(
                session, article_id=before.id, content=content, cover_image_url=cover
            )


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
            **rendered_columns(_rendered(change.item), own_excerpt=change.item.record.excerpt),
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
    retagged = {
        change.before.id: tags_named(tags, change.item.record.tags)
        for change in batch.changes
        if change.retags
    }
    await _remove_other_tags(session, retagged)
    await add_tags(session, retagged)


async def _remove_other_tags(
    session: AsyncSession, tagged: Mapping[int, Sequence[LockedTag]]
) -> None:
    """Remove all tags of articles except for these."""
    if tagged:
        pairs = [(article_id, tag.id) for article_id, tags in tagged.items() for tag in tags]
        parameters = {
            "changed": list(tagged),
            "article_ids": [article_id for article_id, _ in pairs],
            "tag_ids": [tag_id for _, tag_id in pairs],
        }
        await session.execute(statements.REMOVE_TAGS, parameters)


async def _save_import_records(session: AsyncSession, batch: Plan) -> None:
    """Save which records became which articles, and add an audit event."""
    if batch.imported:
        records = {
            "keys": [item.key for item, _ in batch.imported],
            "digests": [item.digest for item, _ in batch.imported],
            "article_ids": [article_id for _, article_id in batch.imported],
            "sources": [item.source for item, _ in batch.imported],
            "source_ids": [item.source_id for item, _ in batch.imported],
        }
        await session.execute(statements.UPSERT_IMPORT_RECORDS, records)
        former = [
            item.former_key
            for item, _ in batch.imported
            if (known := batch.known.get(item.key)) is not None and known.source is None
        ]
        if former:
            await session.execute(statements.DELETE_FORMER_RECORDS, {"keys": former})
    written = sum(result.outcome in {Outcome.CREATED, Outcome.UPDATED} for result in batch.results)
    if written:
        identity = batch.importer.identity
        audit.record(
            session,
            AuditAction.IMPORT_ARTICLES,
            actor_id=(identity or COMMAND_LINE).id,
            subject="article",
            subject_id=None,
            count=written,
        )


async def _save_redirects(session: AsyncSession, batch: Plan) -> None:
    """Save the old addresses of the records. In a batch, the first record keeps an address."""
    redirects: dict[tuple[str, str], int] = {}
    for item, article_id in batch.imported:
        for path in item.record.old_paths:
            redirects.setdefault((path, item.source), article_id)
    identity = batch.importer.identity
    # Otherwise, users could have addresses of others redirect to their own articles.
    is_served = identity is None or may_on_any(identity, Action.IMPORT_ARTICLE)
    if redirects:
        parameters = {
            "paths": [path for path, _ in redirects],
            "sources": [source for _, source in redirects],
            "article_ids": list(redirects.values()),
            "is_served": is_served,
        }
        await session.execute(statements.UPSERT_REDIRECTS, parameters)


def _comment_changes(batch: Plan) -> list[tuple[int, CommentChanges]]:
    """Return the changes of the comments of the imported articles, by article."""
    return [
        (
            article_id,
            changes_of(item.record.comments, item.comments, batch.comments.get(article_id, {})),
        )
        for item, article_id in batch.imported
        if item.record.comments
    ]


async def _save_comments(session: AsyncSession, batch: Plan) -> None:
    """Add the new comments of the imported articles. Nobody is notified."""
    changes = _comment_changes(batch)
    if changes:
        await save_comments(
            session,
            changes,
            authors=batch.authors,
            importer=batch.importer.identity,
            now=batch.now,
        )


async def _save_addresses(session: AsyncSession, batch: Plan) -> None:
    """Save the addresses of the old site in the texts that were written."""
    searched = [(item.addresses, id_) for item, id_ in batch.imported if item.addresses is not None]
    if not searched:
        return
    await session.execute(
        statements.DELETE_ADDRESSES, {"article_ids": [id_ for _, id_ in searched]}
    )
    rows = [(article_id, found) for addresses, article_id in searched for found in addresses]
    if rows:
        parameters = {
            "article_ids": [article_id for article_id, _ in rows],
            "addresses": [found.address for _, found in rows],
            "source_addresses": [found.source_address for _, found in rows],
            "are_images": [found.is_image for _, found in rows],
        }
        await session.execute(statements.INSERT_ADDRESSES, parameters)
