"""Pictures as rows: listing, reading, describing and deleting them."""

from collections.abc import Sequence

from sqlalchemy import bindparam, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.auth.permissions import Action, may, may_on_any, require
from app.core.conditional import Precondition
from app.core.errors import MediaInUse, MediaNotFound
from app.core.limits import LimitKind
from app.db.reading import Reader
from app.db.session import paged
from app.models.article import Article
from app.models.media import ArticleMedia, Media
from app.schemas.media import MediaQuery, MediaResponse, MediaUpdate
from app.services import audit, limits
from app.services.articles.rows import PUBLISHED_OR_SCHEDULED
from app.services.audit import AuditAction
from app.services.media.references import IN_PROFILE
from app.services.media.rows import MediaRow, response_to

_COLUMNS = select(*Media.__table__.columns)
_BY_ID = _COLUMNS.where(Media.id == bindparam("media_id"))
_LIST = paged(_COLUMNS.where(Media.owner_id == bindparam("owner_id")).order_by(Media.id.desc()))
# A draft of somebody else's does not count: whoever knows an address may put it into theirs.
_IN_USE = (
    select(ArticleMedia.article_id)
    .join(Article, Article.id == ArticleMedia.article_id)
    .join(Media, Media.id == ArticleMedia.media_id)
    .where(
        ArticleMedia.media_id == bindparam("media_id"),
        or_(Article.author_id == Media.owner_id, PUBLISHED_OR_SCHEDULED),
    )
)
_IS_FACE = select(Media.id).where(Media.id == bindparam("media_id"), IN_PROFILE)


async def list_media(
    connection: Reader, *, query: MediaQuery, user: Identity
) -> Sequence[MediaResponse]:
    """Somebody's pictures, newest first; one's own unless another is named.

    Raises NotAuthorized for another's, but to editors and administrators.
    """
    owner_id = query.owner or user.id
    require(user, Action.MANAGE_MEDIA, owner_id=owner_id)
    parameters = {"owner_id": owner_id, "skip": query.skip, "limit": query.limit}
    return [response_to(row) for row in await connection.execute(_LIST, parameters)]


async def get_media(connection: Reader, *, media_id: int, user: Identity) -> MediaResponse:
    """A picture. Raises MediaNotFound, for another's too."""
    row = (await connection.execute(_BY_ID, {"media_id": media_id})).one_or_none()
    if row is None or not _may_manage(user, row):
        raise MediaNotFound
    return response_to(row)


async def update_media(
    session: AsyncSession,
    *,
    media_id: int,
    changes: MediaUpdate,
    precondition: Precondition,
    actor: Identity,
) -> MediaResponse:
    """Describe a picture. Raises MediaNotFound, PreconditionFailed."""
    media = await _locked_media(session, media_id, precondition=precondition, actor=actor)
    await limits.spend(session, actor, {LimitKind.CHANGES: 1})
    for field, value in changes.model_dump(exclude_unset=True).items():
        setattr(media, field, value)
    if session.is_modified(media):
        _record(session, AuditAction.UPDATE_MEDIA, media, actor)
    return response_to(media)


async def delete_media(
    session: AsyncSession, *, media_id: int, precondition: Precondition, actor: Identity
) -> None:
    """Delete a picture that no article shows, nor its owner's profile; a job deletes its files.

    Raises MediaNotFound, PreconditionFailed, and MediaInUse while one does, be it in the trash.
    """
    media = await _locked_media(session, media_id, precondition=precondition, actor=actor)
    for shown in (_IN_USE.limit(1), _IS_FACE):
        if await session.scalar(shown, {"media_id": media_id}) is not None:
            raise MediaInUse
    await limits.spend(session, actor, {LimitKind.CHANGES: 1})
    await session.delete(media)
    _record(session, AuditAction.DELETE_MEDIA, media, actor)


async def _locked_media(
    session: AsyncSession, media_id: int, *, precondition: Precondition, actor: Identity
) -> Media:
    """The picture, which no article can come to show before the end of the unit of work."""
    media = await session.get(Media, media_id, with_for_update=True)
    if media is None or not _may_manage(actor, media):
        raise MediaNotFound
    precondition.require(response_to(media))
    return media


def _may_manage(user: Identity, media: MediaRow) -> bool:
    if media.owner_id is None:  # who has left
        return may_on_any(user, Action.MANAGE_MEDIA)
    return may(user, Action.MANAGE_MEDIA, owner_id=media.owner_id)


def _record(session: AsyncSession, action: AuditAction, media: Media, actor: Identity) -> None:
    audit.record(session, action, actor_id=actor.id, subject="media", subject_id=media.id)
