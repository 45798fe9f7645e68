"""Media rows: list, get, update and delete."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row, String, any_, bindparam, exists, func, literal, or_, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.auth.permissions import Action, may, may_on_any, require
from app.core.conditional import Precondition
from app.core.errors import MediaInUse, MediaNotFound
from app.core.limits import LimitKind
from app.db.reading import Reader
from app.db.session import paged
from app.models.accounts.user import User
from app.models.articles.article import PUBLISHED_OR_SCHEDULED, Article
from app.models.media import FOLDER_PATTERN, ArticleMedia, Media
from app.schemas.media import MediaQuery, MediaResponse, MediaUpdate
from app.services import audit, limits
from app.services.audit import AuditAction
from app.services.media.rows import response_to

_COLUMNS = select(*Media.__table__.columns)
MAX_PICTURES = 200
"""How many images `find_by_urls` reads at most."""

_FOLDER = re.compile(rf"/media/({FOLDER_PATTERN})/")
_BY_FOLDER = _COLUMNS.where(Media.folder == any_(bindparam("folders", type_=ARRAY(String))))
_BY_ID = _COLUMNS.where(Media.id == bindparam("media_id"))
_LIST = paged(_COLUMNS.where(Media.owner_id == bindparam("owner_id")).order_by(Media.id.desc()))
# Drafts of other users do not count: any user who knows the URL can put it into a draft.
_USED_BY_ARTICLE = (
    select(ArticleMedia.article_id)
    .join(Article, Article.id == ArticleMedia.article_id)
    .join(Media, Media.id == ArticleMedia.media_id)
    .where(
        ArticleMedia.media_id == bindparam("media_id"),
        or_(Article.author_id == Media.owner_id, PUBLISHED_OR_SCHEDULED),
    )
)
IS_PROFILE_IMAGE = exists(literal(1)).where(
    User.id == Media.owner_id, func.strpos(User.image_url, "/media/" + Media.folder + "/") > 0
)
"""Whether an image is used in its owner's profile."""
_USED_BY_PROFILE = select(Media.id).where(Media.id == bindparam("media_id"), IS_PROFILE_IMAGE)


async def list_media(
    reader: Reader, *, query: MediaQuery, user: Identity
) -> Sequence[MediaResponse]:
    """List a user's images, newest first; by default those of the current user.

    Raises NotAuthorized if another user's images are requested by a user without that permission.
    """
    owner_id = query.owner or user.id
    require(user, Action.MANAGE_MEDIA, owner_id=owner_id)
    parameters = {"owner_id": owner_id, "skip": query.skip, "limit": query.limit}
    return [response_to(row) for row in await reader.execute(_LIST, parameters)]


def folder_in(text: str) -> str | None:
    """Return the folder of the first image of this site whose URL is in `text`."""
    found = _FOLDER.search(text)
    return found[1] if found else None


async def find_by_urls(reader: Reader, *, texts: Sequence[str]) -> Mapping[str, MediaResponse]:
    """Return the images whose URLs are in the texts, by their folder (`folder_in`).

    Everyone may read a stored image, so this needs no user. Runs one query, or none.
    """
    folders = list(dict.fromkeys(folder for text in texts for folder in _FOLDER.findall(text)))
    if not folders:
        return {}
    rows = await reader.execute(_BY_FOLDER, {"folders": folders[:MAX_PICTURES]})
    return {row.folder: response_to(row) for row in rows}


async def get_media(reader: Reader, *, media_id: int, user: Identity) -> MediaResponse:
    """Return an image. Raises MediaNotFound, also for an image of another user."""
    row = (await reader.execute(_BY_ID, {"media_id": media_id})).one_or_none()
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
    """Update the description of an image. Raises MediaNotFound, PreconditionFailed."""
    media = await _lock_media(session, media_id, precondition=precondition, actor=actor)
    for field, value in changes.model_dump(exclude_unset=True).items():
        setattr(media, field, value)
    if session.is_modified(media):
        _record(session, AuditAction.UPDATE_MEDIA, media, actor)
    await session.flush()
    await limits.spend(session, actor, {LimitKind.CHANGES: 1})
    return response_to(media)


async def delete_media(
    session: AsyncSession, *, media_id: int, precondition: Precondition, actor: Identity
) -> None:
    """Delete an unused image. A background job deletes its files.

    Raises MediaNotFound, PreconditionFailed, and MediaInUse if an article (also one in the trash)
    or the owner's profile uses the image.
    """
    media = await _lock_media(session, media_id, precondition=precondition, actor=actor)
    for statement in (_USED_BY_ARTICLE.limit(1), _USED_BY_PROFILE):
        if await session.scalar(statement, {"media_id": media_id}) is not None:
            raise MediaInUse
    await session.delete(media)
    _record(session, AuditAction.DELETE_MEDIA, media, actor)
    await session.flush()
    await limits.spend(session, actor, {LimitKind.CHANGES: 1})


async def _lock_media(
    session: AsyncSession, media_id: int, *, precondition: Precondition, actor: Identity
) -> Media:
    """Return the image, locked: no article can add a reference before the transaction ends."""
    media = await session.get(Media, media_id, with_for_update=True)
    if media is None or not _may_manage(actor, media):
        raise MediaNotFound
    precondition.require(response_to(media))
    return media


def _may_manage(user: Identity, media: Media | Row[Any]) -> bool:
    if media.owner_id is None:  # the owner's account was deleted
        return may_on_any(user, Action.MANAGE_MEDIA)
    return may(user, Action.MANAGE_MEDIA, owner_id=media.owner_id)


def _record(session: AsyncSession, action: AuditAction, media: Media, actor: Identity) -> None:
    audit.record(session, action, actor_id=actor.id, subject="media", subject_id=media.id)
