"""Preview links: each shows the current state of one article without authentication."""

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import bindparam, delete, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from app.auth.identity import Identity
from app.auth.permissions import Action, roles_allowed_on_any
from app.auth.tokens import fingerprint, is_preview_token, new_preview_token
from app.core import clock
from app.core.config import get_settings
from app.core.errors import PreviewLinkNotFound, PreviewNotFound, TooManyPreviewLinks
from app.core.limits import LimitKind
from app.db.reading import Reader
from app.db.selection import Selection
from app.db.session import paged
from app.models.accounts.user import User
from app.models.articles.article import Article
from app.models.articles.preview_link import PreviewLink
from app.schemas.articles.article import ArticleResponse
from app.schemas.articles.preview import PreviewLinkCreate, PreviewLinkCreated, PreviewLinkResponse
from app.schemas.page import PageQuery
from app.services import audit, limits
from app.services.articles.authorship import require_author
from app.services.articles.rows import (
    ARTICLE,
    AUTHOR,
    NOT_DELETED,
    NOW,
    select_articles,
)
from app.services.articles.writing import lock_article
from app.services.audit import AuditAction
from app.services.purging import Batch, delete_oldest

MAX_PREVIEW_LINKS = 20
"""Per article, not expired."""


_OF_ARTICLE = PreviewLink.article_id == bindparam("article_id")
_NOT_EXPIRED = PreviewLink.expires_at > NOW
_LINK = Selection.of(PreviewLinkResponse, PreviewLink, created_by=AUTHOR)
_LIST = paged(
    select(*_LINK.columns)
    .join(User, User.id == PreviewLink.created_by, isouter=True)
    .where(_OF_ARTICLE, _NOT_EXPIRED)
    .order_by(PreviewLink.created_at.desc(), PreviewLink.id.desc())
)
_COUNT = select(func.count()).select_from(PreviewLink).where(_OF_ARTICLE, _NOT_EXPIRED)
_Creator = aliased(User)
_BY_TOKEN = (
    select_articles()
    .join(PreviewLink, PreviewLink.article_id == Article.id)
    .join(_Creator, _Creator.id == PreviewLink.created_by)
    .where(
        PreviewLink.token_hash == bindparam("fingerprint"),
        _NOT_EXPIRED,
        NOT_DELETED,
        _Creator.is_active,
        or_(
            _Creator.id == Article.author_id,
            *(_Creator.role == role for role in roles_allowed_on_any(Action.READ_DRAFT)),
        ),
    )
)
"""A link works only while its creator may read the article."""


async def list_preview_links(
    reader: Reader, *, article_id: int, page: PageQuery, actor: Identity
) -> Sequence[PreviewLinkResponse]:
    """Return an article's preview links, newest first. Raises ArticleNotFound, NotAuthorized."""
    await require_author(reader, article_id=article_id, actor=actor)
    parameters = {"article_id": article_id, "now": clock.now(), **page.model_dump()}
    return [_LINK.read(row) for row in await reader.execute(_LIST, parameters)]


async def create_preview_link(
    session: AsyncSession, *, article_id: int, new: PreviewLinkCreate, actor: Identity
) -> PreviewLinkCreated:
    """Create a preview link; only a hash of its token is stored.

    Locks the article, so that concurrent requests cannot exceed the maximum. Raises
    ArticleNotFound, NotAuthorized, TooManyPreviewLinks.
    """
    await lock_article(session, article_id, actor=actor, action=Action.CHANGE_ARTICLE)
    now = clock.now()
    count = await session.scalar(_COUNT, {"article_id": article_id, "now": now})
    if (count or 0) >= MAX_PREVIEW_LINKS:
        raise TooManyPreviewLinks
    token = new_preview_token()
    link = PreviewLink(
        article_id=article_id,
        token_hash=fingerprint(token),
        created_by=actor.id,
        created_at=now,
        expires_at=now + timedelta(hours=new.expires_in_hours),
    )
    session.add(link)
    await session.flush()  # assigns the id
    await limits.spend(session, actor, {LimitKind.CHANGES: 1})
    _record(session, AuditAction.CREATE_PREVIEW_LINK, link.id, actor)
    return PreviewLinkCreated(
        id=link.id,
        url=f"{get_settings().preview_url}/{token}",
        token=token,
        expires_at=link.expires_at,
    )


async def delete_preview_link(
    session: AsyncSession, *, article_id: int, link_id: int, actor: Identity
) -> None:
    """Revoke a preview link.

    Raises ArticleNotFound, NotAuthorized, PreviewLinkNotFound.
    """
    await lock_article(session, article_id, actor=actor, action=Action.CHANGE_ARTICLE)
    link = PreviewLink.id == link_id, PreviewLink.article_id == article_id
    if await session.scalar(delete(PreviewLink).where(*link).returning(PreviewLink.id)) is None:
        raise PreviewLinkNotFound
    await limits.spend(session, actor, {LimitKind.CHANGES: 1})
    _record(session, AuditAction.DELETE_PREVIEW_LINK, link_id, actor)


async def get_preview(reader: Reader, *, token: str) -> ArticleResponse:
    """Return the article of a preview link, whatever its status.

    Raises PreviewNotFound, also if the link's creator is gone, disabled, or may no longer read the
    draft.
    """
    if not is_preview_token(token):
        raise PreviewNotFound
    parameters = {"fingerprint": fingerprint(token), "now": clock.now()}
    row = (await reader.execute(_BY_TOKEN, parameters)).one_or_none()
    if row is None:
        raise PreviewNotFound
    return ARTICLE.read(row)


async def delete_batch(session: AsyncSession, batch: Batch) -> int:
    """Delete a batch of all preview links; return how many."""
    return await delete_oldest(session, batch, PreviewLink.id, order_by=PreviewLink.id)


async def purge(session: AsyncSession, batch: Batch) -> int:
    """Delete a batch of expired links; return how many."""
    by = PreviewLink.expires_at
    expired = by <= clock.now()
    return await delete_oldest(session, batch, PreviewLink.id, expired, order_by=by)


def _record(session: AsyncSession, action: AuditAction, link_id: int, actor: Identity) -> None:
    audit.record(session, action, actor_id=actor.id, subject="preview_link", subject_id=link_id)
