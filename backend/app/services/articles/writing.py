"""Articles: writing, changing and publishing, deleting and restoring."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import bindparam, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm.attributes import set_committed_value

from app.auth.identity import Identity
from app.auth.permissions import Action, may, require
from app.core import clock
from app.core.conditional import Precondition
from app.core.config import get_settings
from app.core.errors import (
    ArticleNotFound,
    EmailNotVerified,
    InvalidInput,
    InvalidToken,
    ServiceUnavailable,
    SlugTaken,
)
from app.core.limits import LimitKind
from app.core.markdown import Rendered
from app.db.session import NO_KEY_UPDATE, constraint_errors
from app.models.article import Article
from app.models.revision import ArticleRevision
from app.schemas.article import ArticleCreate, ArticleResponse, ArticleUpdate
from app.services import audit, limits
from app.services.articles.rendering import excerpt_columns, prepare_text, rendered_columns
from app.services.articles.rows import ArticleRow, article_row, selected
from app.services.articles.slugs import (
    ATTEMPTS,
    SLUG_CONSTRAINT,
    Claimant,
    free_slug,
    is_derived,
    naming,
    owns_slug,
    remember,
    taken_slugs,
)
from app.services.articles.tagging import add_tags, lock_tags, set_tags
from app.services.audit import AuditAction
from app.services.media.references import update_media_references

AUTHOR_REFERENCE = {"fk_articles_author_id": InvalidToken}
CONTRADICTION = "published is false but published_at has come: leave one of them out"
IN_TRASH_FOR = timedelta(days=30)

_BY_ID = selected().where(Article.id == bindparam("article_id"))


async def create_article(
    session: AsyncSession, *, new: ArticleCreate, author: Identity
) -> ArticleRow:
    """Write an article: a draft, scheduled, or published at once.

    The session must not have changed anything yet. Raises EmailNotVerified where publishing takes a
    verified email, SlugTaken, LimitReached, QuotaExceeded, and what `prepare_text` does;
    InvalidToken where the author's account was deleted a moment ago.
    """
    now = clock.now()
    published_at = new.published_at or (now if new.published else None)
    withheld = "published" in new.model_fields_set and not new.published
    if withheld and published_at is not None and published_at <= now:
        raise InvalidInput(CONTRADICTION)
    if published_at is not None:
        _require_verified_email(author)
    rendered, author = await prepare_text(session, new.content, writer=author)
    values = {
        "title": new.title,
        "content": new.content,
        **rendered_columns(rendered, own_excerpt=new.excerpt),
        "cover_image_url": new.cover_image_url,
        "language": new.language or get_settings().default_language,
        "comment_policy": new.comment_policy,
        "published_at": published_at,
        "author_id": author.id,
        "edited_by": author.id,
        "edited_at": now,
        "created_at": now,
    }
    costs = {
        LimitKind.ARTICLES: 1,
        **_text_costs(new.content),
        LimitKind.DRAFTS: int(published_at is None),
    }
    await limits.spend(session, author, costs)
    # The slug before the tags, as in a change: it waits for articles, whose writers wait for tags.
    article_id = await _insert(session, values, slug=new.slug, now=now)
    tags = await lock_tags(session, new.tags, actor=author)
    await add_tags(session, article_id=article_id, tags=tags.values())
    await update_media_references(
        session,
        article_id=article_id,
        content=new.content,
        cover_image_url=new.cover_image_url,
    )
    _record(session, AuditAction.CREATE_ARTICLE, article_id, author)
    if published_at is not None:
        _record(session, _released(published_at), article_id, author)
    return await read_written(session, article_id)


async def _insert(
    session: AsyncSession, values: dict[str, Any], *, slug: str | None, now: datetime
) -> int:
    """Insert an article under this slug, or under one that its title leads to; its id.

    Two who want the same slug at once wait for each other: the second then gets another, or
    SlugTaken where it is asked for.
    """
    claimant = Claimant(values["author_id"], now)
    published_at: datetime | None = values["published_at"]
    public = published_at is not None and published_at <= now
    for _ in range(ATTEMPTS):
        if slug is not None and await taken_slugs(session, [slug], claimant=claimant):
            raise SlugTaken
        wanted = slug or await free_slug(session, title=values["title"], claimant=claimant)
        name = await naming(
            session,
            wanted=wanted,
            published_at=published_at,
            public=public,
            claimant=claimant,
        )
        added = insert(Article).values(**values, **name._asdict())
        unless_taken = added.on_conflict_do_nothing()
        with constraint_errors(AUTHOR_REFERENCE):
            article_id: int | None = await session.scalar(unless_taken.returning(Article.id))
        if article_id is not None:
            return article_id
    raise ServiceUnavailable


async def update_article(
    session: AsyncSession,
    *,
    article_id: int,
    changes: ArticleUpdate,
    actor: Identity,
    precondition: Precondition,
    tags_in_order: bool = False,
) -> ArticleRow:
    """Change what `changes` sets; what the text was before is kept as a revision.

    `tags_in_order`: whether another order of the same tags is a change. The session must not have
    changed or locked anything yet.

    Raises ArticleNotFound, NotAuthorized, EmailNotVerified, SlugTaken, PreconditionFailed,
    LimitReached, QuotaExceeded, and what `prepare_text` does.
    """
    given = changes.model_dump(exclude_unset=True)
    rendered = None
    if "content" in given:
        rendered, actor = await prepare_text(session, given["content"], writer=actor)
    article = await changeable(session, article_id, actor=actor, action=Action.CHANGE_ARTICLE)
    await _require(session, precondition, article_id)
    await limits.spend(session, actor, _costs_of_change(article, given))
    was, former = _release_of(article), article.slug if owns_slug(article, clock.now()) else None
    dates = _dates(article, given)
    # What asks the database comes first: it would write what was set before, a part of the change.
    renamed = await _claim_slug(session, article, given, dates)
    retagged = "tags" in given and await set_tags(
        session, article_id=article_id, names=given["tags"], in_order=tags_in_order, actor=actor
    )
    _set_text(session, article, given, rendered, actor)
    article.published_at, article.archived_at = dates
    if session.is_modified(article) or retagged or renamed:
        article.version += 1
        article.updated_at = clock.now()
        _record(session, AuditAction.UPDATE_ARTICLE, article_id, actor)
    _settle_release(session, article, actor, was)
    await session.flush()  # the read below sees it
    if {"content", "cover_image_url"} & given.keys():
        await update_media_references(
            session,
            article_id=article_id,
            content=article.content,
            cover_image_url=article.cover_image_url,
        )
    if former is not None and article.slug != former:
        await remember(session, article_id=article_id, former=former, present=article.slug)
    return await read_written(session, article_id)


def _text_costs(content: str) -> dict[LimitKind, int]:
    """What keeping a text costs, in bytes of UTF-8."""
    size = len(content.encode())
    return {LimitKind.TEXT_WRITTEN: size, LimitKind.TEXT_KEPT: size}


def _costs_of_change(article: Article, given: dict[str, Any]) -> dict[LimitKind, int]:
    """What a change costs: with another title or text, the text is kept once more."""
    text = given.get("title", article.title), given.get("content", article.content)
    changed = text != (article.title, article.content)
    withdrawn = given.get("published") is False or given.get("published_at", clock.now()) is None
    return {
        LimitKind.CHANGES: 1,
        **(_text_costs(text[1]) if changed else {}),
        LimitKind.DRAFTS: int(withdrawn and article.published_at is not None),
    }


async def _claim_slug(
    session: AsyncSession,
    article: Article,
    given: dict[str, Any],
    dates: tuple[datetime | None, datetime | None],
) -> bool:
    """Give an article the slug that is asked for, or one that its title leads to; or as it is.

    What is published with these `dates` gets its slug for good. Returns whether its author sees
    another one. Raises SlugTaken for one that was chosen; of those from the title there is another.
    """
    now, (published_at, archived_at) = clock.now(), dates
    owned = owns_slug(article, now)
    shown = article.slug if owned else article.draft_slug
    asked: str | None = given.get("slug", shown)
    appears = published_at is not None and published_at <= now and archived_at is None
    public = owned or appears
    moved = not owned and (appears or published_at != article.published_at)
    if asked == shown and not moved:
        return False
    title = given.get("title", article.title)
    claimant = Claimant(article.author_id, now, article.id)
    claim = update(Article).where(Article.id == article.id)
    claim = claim.execution_options(synchronize_session=False)
    for _ in range(ATTEMPTS):
        wanted = asked
        if wanted is not None and await taken_slugs(session, [wanted], claimant=claimant):
            if "slug" in given or not is_derived(wanted, title):
                raise SlugTaken
            wanted = None
        name = await naming(
            session,
            wanted=wanted or await free_slug(session, title=title, claimant=claimant),
            published_at=published_at,
            public=public,
            claimant=claimant,
        )
        try:
            async with session.begin_nested():
                with constraint_errors(SLUG_CONSTRAINT):
                    kept = {"updated_at": Article.updated_at}
                    await session.execute(claim.values(**name._asdict(), **kept))
        except SlugTaken:
            continue  # by somebody in this moment: the next look finds it
        for column, value in name._asdict().items():
            set_committed_value(article, column, value)
        return (name.draft_slug or name.slug) != shown
    raise ServiceUnavailable


def _set_text(
    session: AsyncSession,
    article: Article,
    given: dict[str, Any],
    rendered: Rendered | None,
    actor: Identity,
) -> None:
    """Set what is read: title, content, excerpt, picture, language."""
    title, content = given.get("title", article.title), given.get("content", article.content)
    if (title, content) != (article.title, article.content):
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
    own = given.get("excerpt", article.excerpt if article.own_excerpt else None)
    if own == article.excerpt and not article.own_excerpt:
        own = None  # what was made of the text came back as it was read
    columns: dict[str, Any] = {}
    if rendered is not None and content != article.content:
        columns = rendered_columns(rendered, own_excerpt=own)
    elif "excerpt" in given:
        columns = excerpt_columns(article.plain_text, own_excerpt=own)
    for name, value in columns.items():
        setattr(article, name, value)
    article.title, article.content = title, content
    article.cover_image_url = given.get("cover_image_url", article.cover_image_url)
    article.language = given.get("language", article.language)
    article.comment_policy = given.get("comment_policy", article.comment_policy)


def _dates(article: Article, given: dict[str, Any]) -> tuple[datetime | None, datetime | None]:
    """From when on readers see it, and since when it is put away: `published_at`, `archived_at`.

    Raises InvalidInput where it is to be published and not; both as they are change nothing.
    """
    now = clock.now()
    published, at = given.get("published"), given.get("published_at", article.published_at)
    if "published_at" in given and at == article.published_at and published is False:
        published = None  # a schedule, or what is archived, as it was read
    if published is False and "published_at" in given and at is not None and at <= now:
        raise InvalidInput(CONTRADICTION)
    if published is False and article.archived_at is None and "published_at" not in given:
        at = None
    elif published and (at is None or at > now) and "published_at" not in given:
        at = now
    archived_at = article.archived_at
    if "archived" in given:
        archived_at = (archived_at or now) if given["archived"] else None
    elif published:
        archived_at = None
    return at, archived_at


async def delete_article(
    session: AsyncSession, *, article_id: int, actor: Identity, precondition: Precondition
) -> None:
    """Put an article into the trash. Raises ArticleNotFound, NotAuthorized, PreconditionFailed."""
    article = await changeable(session, article_id, actor=actor, action=Action.DELETE_ARTICLE)
    await _require(session, precondition, article_id)
    await limits.spend(session, actor, {LimitKind.CHANGES: 1})
    article.deleted_at = clock.now()
    article.version += 1
    _record(session, AuditAction.DELETE_ARTICLE, article_id, actor)


async def restore_article(session: AsyncSession, *, article_id: int, actor: Identity) -> ArticleRow:
    """Take an article out of the trash, as it was: readers see it again where they saw it before.

    Raises ArticleNotFound where it is not in the trash, or has been for longer than 30 days, or is
    another's; EmailNotVerified.
    """
    article = await session.get(Article, article_id, with_for_update=NO_KEY_UPDATE)
    if (
        article is None
        or article.deleted_at is None
        or article.deleted_at <= clock.now() - IN_TRASH_FOR
        or not may(actor, Action.DELETE_ARTICLE, owner_id=article.author_id)
    ):
        raise ArticleNotFound
    costs = {LimitKind.CHANGES: 1, LimitKind.DRAFTS: int(article.published_at is None)}
    await limits.spend(session, actor, costs)
    article.deleted_at = None
    article.version += 1
    release = _release_of(article)
    if release is not None:
        _require_verified_email(actor)
        if release <= clock.now():
            article.draft_slug = None
    _record(session, AuditAction.RESTORE_ARTICLE, article_id, actor)
    await session.flush()  # the read below sees it
    return await read_written(session, article_id)


async def changeable(
    session: AsyncSession, article_id: int, *, actor: Identity, action: Action
) -> Article:
    """The article, locked. Another's draft is absent to a stranger, another's article forbidden."""
    article = await session.get(Article, article_id, with_for_update=NO_KEY_UPDATE)
    if article is None or article.deleted_at is not None:
        raise ArticleNotFound
    release = _release_of(article)
    visible = release is not None and release <= clock.now()
    if not (visible or may(actor, Action.READ_DRAFT, owner_id=article.author_id)):
        raise ArticleNotFound
    require(actor, action, owner_id=article.author_id)
    return article


async def read_written(session: AsyncSession, article_id: int) -> ArticleRow:
    """What was just written and flushed, as a read would give it."""
    parameters = {"article_id": article_id, "now": clock.now()}
    return article_row((await session.execute(_BY_ID, parameters)).one())


async def _require(session: AsyncSession, precondition: Precondition, article_id: int) -> None:
    """Raise PreconditionFailed unless the article, locked, is as the client believes."""
    if precondition.tags is not None:
        current = await read_written(session, article_id)
        precondition.require(ArticleResponse.model_validate(current))


def _release_of(article: Article) -> datetime | None:
    """From when on readers see it; None where they are not going to."""
    return None if article.archived_at is not None else article.published_at


def _settle_release(
    session: AsyncSession, article: Article, actor: Identity, was: datetime | None
) -> None:
    """What publishing takes, and what is told of it. Raises EmailNotVerified."""
    now_at = _release_of(article)
    if now_at is not None and was is None:
        _require_verified_email(actor)
    if now_at is not None and now_at != was:
        _record(session, _released(now_at), article.id, actor)
    if now_at is None and was is not None:
        _record(session, AuditAction.UNPUBLISH_ARTICLE, article.id, actor)


def _released(moment: datetime) -> AuditAction:
    later = moment > clock.now()
    return AuditAction.SCHEDULE_ARTICLE if later else AuditAction.PUBLISH_ARTICLE


def _require_verified_email(actor: Identity) -> None:
    """Raise EmailNotVerified where publishing takes a verified email, and the actor's is not."""
    if get_settings().require_verified_email and actor.email_verified_at is None:
        raise EmailNotVerified


def _record(session: AsyncSession, action: AuditAction, article_id: int, actor: Identity) -> None:
    audit.record(session, action, actor_id=actor.id, subject="article", subject_id=article_id)
