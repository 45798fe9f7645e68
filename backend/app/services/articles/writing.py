"""Create, update, publish, delete and restore articles."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.attributes import set_committed_value

from app.auth.identity import Identity
from app.auth.permissions import Action, may, require
from app.content.markdown import Rendered
from app.core import clock
from app.core.conditional import Precondition
from app.core.config import get_settings
from app.core.errors import (
    ArticleNotFound,
    EmailNotVerified,
    InvalidInput,
    InvalidToken,
    SlugTaken,
)
from app.core.limits import LimitKind
from app.db.retry import retry
from app.db.session import NO_KEY_UPDATE, constraint_errors
from app.db.writing import fetch
from app.models.articles.article import Article
from app.models.articles.revision import ArticleRevision
from app.schemas.articles.article import ArticleCreate, ArticleResponse, ArticleUpdate, Status
from app.services import audit, limits
from app.services.articles.images import update_media_references
from app.services.articles.inserting import (
    InsertedArticle,
    NewArticle,
    add_media_references,
    insert_articles,
)
from app.services.articles.rendering import excerpt_columns, prepare_text, rendered_columns
from app.services.articles.rows import ARTICLE, public_view, select_articles
from app.services.articles.slugs import (
    SlugColumns,
    SlugRequest,
    assign_slugs,
    candidates,
    is_derived,
    owns_slug,
    save_former_slug,
)
from app.services.articles.tagging import lock_tags, set_tags, tag_new_article
from app.services.audit import AuditAction

AUTHOR_REFERENCE = {"fk_articles_author_id": InvalidToken}
CONFLICTING_PUBLICATION = "published is false, but published_at is in the past: send one of them"
TRASH_RETENTION = timedelta(days=30)
AMENDING = timedelta(minutes=10)
"""Within this time, autosaved changes of one writer make one revision."""

_STORED = (
    "title", "content", "html", "excerpt", "cover_image_url", "language", "toc", "word_count",
    "reading_time", "comment_policy", "author_id", "created_at", "updated_at",
)  # fmt: skip
"""The fields of a new article that are stored as they are."""
_BY_ID = select_articles().where(Article.id == bindparam("article_id"))


async def create_article(
    session: AsyncSession, *, new: ArticleCreate, author: Identity
) -> ArticleResponse:
    """Create an article: a draft, scheduled or published.

    The session must not contain changes yet. Raises EmailNotVerified if publishing requires a
    verified email, SlugTaken, LimitReached, QuotaExceeded, and what `prepare_text` raises. Raises
    InvalidToken if the author's account was deleted concurrently.
    """
    now = clock.now()
    published_at = new.published_at or (now if new.published else None)
    unpublished = "published" in new.model_fields_set and not new.published
    if unpublished and published_at is not None and published_at <= now:
        raise InvalidInput(CONFLICTING_PUBLICATION)
    if published_at is not None:
        _require_verified_email(author)
    rendered, author = await prepare_text(session, new.content, writer=author)
    costs = {
        LimitKind.ARTICLES: 1,
        **_text_costs(new.content),
        LimitKind.DRAFTS: int(published_at is None),
    }
    await limits.check(session, author, costs)
    article = NewArticle(
        title=new.title,
        content=new.content,
        rendered=rendered,
        excerpt=new.excerpt,
        cover_image_url=new.cover_image_url,
        language=new.language,
        published_at=published_at,
        author_id=author.id,
        created_at=now,
        updated_at=now,
        comment_policy=new.comment_policy,
        tags=new.tags,
        slugs=[new.slug] if new.slug else (),
    )
    with constraint_errors(AUTHOR_REFERENCE):
        (inserted,) = await insert_articles(session, [article], now=now)
    if inserted is None:
        raise SlugTaken
    article_id = inserted.id
    await add_media_references(session, [article], [inserted])
    tags = await tag_new_article(session, article_id=article_id, names=new.tags, actor=author)
    _record(session, AuditAction.CREATE_ARTICLE, article_id, author)
    if published_at is not None:
        _record(session, _publication_action(published_at), article_id, author)
    await limits.spend(session, author, {**costs, LimitKind.NEW_TAGS: tags.new})
    if tags.names is None:
        return await read_back(session, article_id)
    return _created(article, inserted, tags.names, author)


def _created(
    new: NewArticle, inserted: InsertedArticle, tags: Sequence[str], author: Identity
) -> ArticleResponse:
    """Return the article that was just inserted, as a read would return it."""
    at = new.published_at
    status = Status.DRAFT if at is None else Status.PUBLISHED
    if at is not None and at > clock.now():
        status = Status.SCHEDULED
    values = new.values
    return ArticleResponse(
        **{name: values[name] for name in _STORED},
        id=inserted.id,
        slug=inserted.slug,
        tags=list(tags),
        status=status,
        published=status is Status.PUBLISHED,
        published_at=at and at.astimezone(UTC),
        version=1,
        author=public_view(author),
    )


async def update_article(
    session: AsyncSession,
    *,
    article_id: int,
    changes: ArticleUpdate,
    actor: Identity,
    precondition: Precondition,
    autosave: bool = False,
) -> ArticleResponse:
    """Change the fields set in `changes`; store the previous text as a revision.

    With `autosave`, a draft's text that the same user wrote in the last minutes is replaced without
    a revision. The session must not contain changes or locks yet.

    Raises ArticleNotFound, NotAuthorized, EmailNotVerified, SlugTaken, PreconditionFailed,
    LimitReached, QuotaExceeded, and what `prepare_text` raises.
    """
    updates = changes.model_dump(exclude_unset=True)
    rendered = None
    if "content" in updates:
        rendered, actor = await prepare_text(session, updates["content"], writer=actor)
    article = await lock_article(session, article_id, actor=actor, action=Action.CHANGE_ARTICLE)
    await _check_precondition(session, precondition, article_id)
    costs = _costs_of_change(article, updates)
    await limits.check(session, actor, costs)
    was_visible_from = _visible_from(article)
    former = article.slug if owns_slug(article, clock.now()) else None
    dates = _resolve_dates(article, updates)
    # Run queries before setting attributes: a query would autoflush a part of the changes.
    # The order is that of all locks (docs/architecture.md): slugs, images, tags, counts.
    slug_changed = await _update_slug(session, article, updates, dates)
    if former is not None and article.slug != former:
        await save_former_slug(session, article_id=article_id, former=former, present=article.slug)
    if {"content", "cover_image_url"} & updates.keys():
        await update_media_references(
            session,
            article_id=article_id,
            content=updates.get("content", article.content),
            cover_image_url=updates.get("cover_image_url", article.cover_image_url),
        )
    tags_changed = False
    if "tags" in updates:
        tags = await lock_tags(session, updates["tags"], actor=actor)
        tags_changed = await set_tags(session, article_id=article_id, tags=tags.by_key)
        costs[LimitKind.NEW_TAGS] = tags.new
    _set_text(session, article, updates, rendered, actor, autosave=autosave)
    article.published_at, article.archived_at = dates
    if session.is_modified(article) or tags_changed or slug_changed:
        article.version += 1
        article.updated_at = clock.now()
        _record(session, AuditAction.UPDATE_ARTICLE, article_id, actor)
    _record_publication(session, article, actor, was_visible_from)
    await session.flush()  # triggers lock tags, and the read below includes it
    await limits.spend(session, actor, costs)
    return await read_back(session, article_id)


def _text_costs(content: str) -> dict[LimitKind, int]:
    """Return the costs of storing a text, in bytes of UTF-8."""
    size = len(content.encode())
    return {LimitKind.TEXT_WRITTEN: size, LimitKind.TEXT_KEPT: size}


def _costs_of_change(article: Article, updates: dict[str, Any]) -> dict[LimitKind, int]:
    """Return the costs of a change; a new title or content stores another revision."""
    text = updates.get("title", article.title), updates.get("content", article.content)
    changed = text != (article.title, article.content)
    withdrawn = (
        updates.get("published") is False or updates.get("published_at", clock.now()) is None
    )
    return {
        LimitKind.CHANGES: 1,
        **(_text_costs(text[1]) if changed else {}),
        LimitKind.DRAFTS: int(withdrawn and article.published_at is not None),
    }


async def _update_slug(
    session: AsyncSession,
    article: Article,
    updates: dict[str, Any],
    dates: tuple[datetime | None, datetime | None],
) -> bool:
    """Set the requested slug, or one derived from the title.

    An article that is public with these `dates` gets its slug permanently. Returns whether the slug
    that the author sees has changed. Raises SlugTaken for a slug that the author chose; a derived
    slug is replaced by another one.
    """
    now, (published_at, archived_at) = clock.now(), dates
    owned = owns_slug(article, now)
    displayed = article.slug if owned else article.draft_slug
    requested: str | None = updates.get("slug", displayed)
    becomes_public = published_at is not None and published_at <= now and archived_at is None
    public = owned or becomes_public
    needs_new_columns = not owned and (becomes_public or published_at != article.published_at)
    if requested == displayed and not needs_new_columns:
        return False
    title = updates.get("title", article.title)
    names = [] if requested is None else [requested]
    if requested is None or ("slug" not in updates and is_derived(requested, title)):
        names += candidates(title)
    request = SlugRequest(article.author_id, names, published_at, public)
    statement = update(Article).where(Article.id == article.id)
    statement = statement.execution_options(synchronize_session=False)

    async def rename(session: AsyncSession) -> SlugColumns:
        (name,) = await assign_slugs(session, [request], now=now, article_id=article.id)
        if name is None:
            raise SlugTaken
        columns = {**name._asdict(), "updated_at": Article.updated_at}
        await session.execute(statement.values(columns))
        return name

    name = await retry(session, rename)
    for column, value in name._asdict().items():
        set_committed_value(article, column, value)
    return (name.draft_slug or name.slug) != displayed


def _set_text(
    session: AsyncSession,
    article: Article,
    updates: dict[str, Any],
    rendered: Rendered | None,
    actor: Identity,
    *,
    autosave: bool,
) -> None:
    """Set title, content, excerpt, cover image, language and comment policy."""
    title, content = updates.get("title", article.title), updates.get("content", article.content)
    changed = (title, content) != (article.title, article.content)
    if changed and not (autosave and _may_amend(article, actor)):
        session.add(
            ArticleRevision(
                article_id=article.id,
                version=article.version,
                title=article.title,
                content=article.content,
                author_id=article.edited_by or article.author_id,
                created_at=article.edited_at or article.updated_at,
            )
        )
        article.edited_by, article.edited_at = actor.id, clock.now()
    own_excerpt = updates.get("excerpt", article.excerpt if article.own_excerpt else None)
    if own_excerpt == article.excerpt and not article.own_excerpt:
        own_excerpt = None  # the client sent the generated excerpt back unchanged
    columns: dict[str, Any] = {}
    if rendered is not None and content != article.content:
        columns = rendered_columns(rendered, own_excerpt=own_excerpt)
    elif "excerpt" in updates:
        columns = excerpt_columns(article.plain_text, own_excerpt=own_excerpt)
    for name, value in columns.items():
        setattr(article, name, value)
    article.title, article.content = title, content
    article.cover_image_url = updates.get("cover_image_url", article.cover_image_url)
    article.language = updates.get("language", article.language)
    article.comment_policy = updates.get("comment_policy", article.comment_policy)


def _may_amend(article: Article, actor: Identity) -> bool:
    """Return whether a draft's current text is the actor's, of the last minutes."""
    return (
        article.published_at is None
        and article.edited_by == actor.id
        and article.edited_at is not None
        and article.edited_at > clock.now() - AMENDING
    )


def _resolve_dates(
    article: Article, updates: dict[str, Any]
) -> tuple[datetime | None, datetime | None]:
    """Return the new values of `published_at` and `archived_at`.

    Raises InvalidInput if `published` and `published_at` contradict each other. Unchanged values
    that a client sends back are not a contradiction.
    """
    now = clock.now()
    published, at = updates.get("published"), updates.get("published_at", article.published_at)
    if "published_at" in updates and at == article.published_at and published is False:
        published = None  # a scheduled or archived article, sent back unchanged
    if published is False and "published_at" in updates and at is not None and at <= now:
        raise InvalidInput(CONFLICTING_PUBLICATION)
    if published is False and article.archived_at is None and "published_at" not in updates:
        at = None
    elif published and (at is None or at > now) and "published_at" not in updates:
        at = now
    archived_at = article.archived_at
    if "archived" in updates:
        archived_at = (archived_at or now) if updates["archived"] else None
    elif published:
        archived_at = None
    return at, archived_at


async def delete_article(
    session: AsyncSession, *, article_id: int, actor: Identity, precondition: Precondition
) -> None:
    """Move an article to the trash.

    Raises ArticleNotFound, NotAuthorized, PreconditionFailed.
    """
    article = await lock_article(session, article_id, actor=actor, action=Action.DELETE_ARTICLE)
    await _check_precondition(session, precondition, article_id)
    costs = {LimitKind.CHANGES: 1}
    await limits.check(session, actor, costs)
    article.deleted_at = clock.now()
    article.version += 1
    await session.flush()
    await limits.spend(session, actor, costs)
    _record(session, AuditAction.DELETE_ARTICLE, article_id, actor)


async def restore_article(
    session: AsyncSession, *, article_id: int, actor: Identity
) -> ArticleResponse:
    """Restore an article from the trash, with the status that it had.

    Raises ArticleNotFound if it is not in the trash, was deleted over 30 days ago, or is another
    user's. Raises EmailNotVerified.
    """
    article = await session.get(Article, article_id, with_for_update=NO_KEY_UPDATE)
    if (
        article is None
        or article.deleted_at is None
        or article.deleted_at <= clock.now() - TRASH_RETENTION
        or not may(actor, Action.DELETE_ARTICLE, owner_id=article.author_id)
    ):
        raise ArticleNotFound
    costs = {LimitKind.CHANGES: 1, LimitKind.DRAFTS: int(article.published_at is None)}
    await limits.check(session, actor, costs)
    article.deleted_at = None
    article.version += 1
    visible_from = _visible_from(article)
    if visible_from is not None:
        _require_verified_email(actor)
        if visible_from <= clock.now():
            article.draft_slug = None
    _record(session, AuditAction.RESTORE_ARTICLE, article_id, actor)
    await session.flush()  # triggers lock tags, and the read below includes it
    await limits.spend(session, actor, costs)
    return await read_back(session, article_id)


async def lock_article(
    session: AsyncSession, article_id: int, *, actor: Identity, action: Action
) -> Article:
    """Return the article, locked FOR NO KEY UPDATE.

    Raises ArticleNotFound for another user's draft, and NotAuthorized for another user's public
    article.
    """
    article = await session.get(Article, article_id, with_for_update=NO_KEY_UPDATE)
    if article is None or article.deleted_at is not None:
        raise ArticleNotFound
    visible_from = _visible_from(article)
    visible = visible_from is not None and visible_from <= clock.now()
    if not (visible or may(actor, Action.READ_DRAFT, owner_id=article.author_id)):
        raise ArticleNotFound
    require(actor, action, owner_id=article.author_id)
    return article


async def read_back(session: AsyncSession, article_id: int) -> ArticleResponse:
    """Return the article that was just flushed, as a read would return it."""
    parameters = {"article_id": article_id, "now": clock.now()}
    return ARTICLE.read((await fetch(session, _BY_ID, parameters)).one())


async def _check_precondition(
    session: AsyncSession, precondition: Precondition, article_id: int
) -> None:
    """Raise PreconditionFailed unless the locked article matches the client's ETag."""
    if precondition.tags is not None:
        precondition.require(await read_back(session, article_id))


def _visible_from(article: Article) -> datetime | None:
    """Return when the article becomes or became public; None for drafts and archived articles."""
    return None if article.archived_at is not None else article.published_at


def _record_publication(
    session: AsyncSession, article: Article, actor: Identity, was_visible_from: datetime | None
) -> None:
    """Record publishing, scheduling or unpublishing in the audit log.

    Raises EmailNotVerified if publishing requires a verified email.
    """
    is_visible_from = _visible_from(article)
    if is_visible_from is not None and was_visible_from is None:
        _require_verified_email(actor)
    if is_visible_from is not None and is_visible_from != was_visible_from:
        _record(session, _publication_action(is_visible_from), article.id, actor)
    if is_visible_from is None and was_visible_from is not None:
        _record(session, AuditAction.UNPUBLISH_ARTICLE, article.id, actor)


def _publication_action(moment: datetime) -> AuditAction:
    scheduled = moment > clock.now()
    return AuditAction.SCHEDULE_ARTICLE if scheduled else AuditAction.PUBLISH_ARTICLE


def _require_verified_email(actor: Identity) -> None:
    """Raise EmailNotVerified if publishing requires a verified email and the actor has none."""
    if get_settings().require_verified_email and actor.email_verified_at is None:
        raise EmailNotVerified


def _record(session: AsyncSession, action: AuditAction, article_id: int, actor: Identity) -> None:
    audit.record(session, action, actor_id=actor.id, subject="article", subject_id=article_id)
