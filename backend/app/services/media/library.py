"""Media rows: list, get, update and delete."""

import re
from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    DateTime,
    Row,
    String,
    and_,
    any_,
    bindparam,
    case,
    exists,
    func,
    literal,
    null,
    or_,
    select,
)
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.auth.permissions import Action, may, may_on_any, require
from app.core import clock
from app.core.conditional import Precondition
from app.core.errors import MediaInUse, MediaNotFound, NotAuthorized
from app.core.limits import LimitKind
from app.db.reading import Reader
from app.db.selection import Selection
from app.db.session import paged
from app.models.accounts.user import User
from app.models.articles.article import PUBLISHED_OR_SCHEDULED, Article
from app.models.media import FOLDER_PATTERN, ArticleMedia, Media
from app.schemas.media import LibraryQuery, MediaQuery, MediaResponse, MediaUpdate
from app.services import audit, limits
from app.services.audit import AuditAction
from app.services.media.rows import response_to
from app.services.pages.keyset import keyset, read_page
from app.services.pages.paging import ListPage

_COLUMNS = select(*Media.__table__.columns)
MAX_PICTURES = 200
"""How many images `find_by_urls` reads at most."""

_FOLDER = re.compile(rf"/media/({FOLDER_PATTERN})/")
_BY_FOLDER = _COLUMNS.where(Media.folder == any_(bindparam("folders", type_=ARRAY(String))))
_BY_ID = _COLUMNS.where(Media.id == bindparam("media_id"))
_LIST = paged(_COLUMNS.where(Media.owner_id == bindparam("owner_id")).order_by(Media.id.desc()))
_USE_COUNTS = or_(Article.author_id == Media.owner_id, PUBLISHED_OR_SCHEDULED)
"""Drafts of other users do not count: any user who knows the URL can put it into a draft."""
_USED_BY_ARTICLE = (
    select(ArticleMedia.article_id)
    .join(Article, Article.id == ArticleMedia.article_id)
    .join(Media, Media.id == ArticleMedia.media_id)
    .where(
        ArticleMedia.media_id == bindparam("media_id"),
        _USE_COUNTS,
    )
)
IS_PROFILE_IMAGE = exists(literal(1)).where(
    User.id == Media.owner_id, func.strpos(User.image_url, "/media/" + Media.folder + "/") > 0
)
"""Whether an image is used in its owner's profile."""
_USED_BY_PROFILE = select(Media.id).where(Media.id == bindparam("media_id"), IS_PROFILE_IMAGE)
MAX_USES = 100
_TEXT = bindparam("text", type_=String)
_LIBRARY_ROW = Selection(
    lambda values: response_to(SimpleNamespace(**values)),
    {column.name: column for column in Media.__table__.columns},
)
_MATCHING = select(*_LIBRARY_ROW.columns).where(
    or_(_TEXT.is_(None), func.strpos(func.lower(Media.alt), func.lower(_TEXT)) > 0),
    or_(~bindparam("without_alt", type_=Boolean), Media.alt == ""),
)
_LIBRARIES = {
    everyone: keyset("library", _LIBRARY_ROW, statement, Media.id)
    for everyone, statement in {
        True: _MATCHING,
        False: _MATCHING.where(Media.owner_id == bindparam("owner_id", type_=BigInteger)),
    }.items()
}
"""Keyed by whether they have the images of all users."""
_IDS = bindparam("ids", type_=ARRAY(BigInteger))
_USES = (
    select(ArticleMedia.media_id, func.count().label("number"))
    .join(Article, Article.id == ArticleMedia.article_id)
    .join(Media, Media.id == ArticleMedia.media_id)
    .where(
        ArticleMedia.media_id == any_(_IDS),
        _USE_COUNTS,
    )
    .group_by(ArticleMedia.media_id)
    .order_by(ArticleMedia.media_id)
)
_PROFILE_USES = select(Media.id).where(Media.id == any_(_IDS), IS_PROFILE_IMAGE)
_IS_SHOWN = or_(
    bindparam("sees_all", type_=Boolean),
    Article.author_id == bindparam("viewer_id", type_=BigInteger),
    and_(
        PUBLISHED_OR_SCHEDULED,
        Article.dated_at <= bindparam("now", type_=DateTime(timezone=True)),
    ),
)
_USING_ARTICLES = (
    select(
        Article.id,
        case((_IS_SHOWN, Article.title), else_=null()).label("title"),
        Article.deleted_at.is_not(None).label("in_trash"),
    )
    .where(Article.id.in_(_USED_BY_ARTICLE))
    .order_by(Article.id.desc())
    .limit(MAX_USES)
)


class UsingArticle(NamedTuple):
    """An article that uses an image. `title` is None if the user may not see the article."""

    id: int
    title: str | None
    in_trash: bool


async def search_media(
    reader: Reader, *, query: LibraryQuery, user: Identity
) -> ListPage[MediaResponse]:
    """List the user's images, newest first; editors may list those of others.

    Raises NotAuthorized, InvalidCursor.
    """
    owner_id = None if query.everyone else query.owner or user.id
    if owner_id != user.id and not may_on_any(user, Action.MANAGE_MEDIA):
        raise NotAuthorized
    filters = {"owner_id": owner_id, "text": query.q, "without_alt": query.without_alt}
    listing = _LIBRARIES[owner_id is None]
    return await read_page(reader, listing, query=query, parameters=filters, of=filters)


async def count_uses(reader: Reader, *, media: Sequence[MediaResponse]) -> Mapping[int, int]:
    """Return in how many articles and profiles each image is used, by its id."""
    if not media:
        return {}
    parameters = {"ids": [each.id for each in media]}
    uses = {row.media_id: row.number for row in await reader.execute(_USES, parameters)}
    for row in await reader.execute(_PROFILE_USES, parameters):
        uses[row.id] = uses.get(row.id, 0) + 1
    return uses


async def list_uses(
    reader: Reader, *, media: MediaResponse, user: Identity
) -> tuple[Sequence[UsingArticle], bool]:
    """Return the latest articles that use an image, and whether its owner's profile does."""
    parameters = {
        "media_id": media.id,
        "sees_all": may_on_any(user, Action.READ_DRAFT),
        "viewer_id": user.id,
        "now": clock.now(),
    }
    articles = [UsingArticle(*row) for row in await reader.execute(_USING_ARTICLES, parameters)]
    by_profile = await reader.scalar(_USED_BY_PROFILE, {"media_id": media.id}) is not None
    return articles, by_profile


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
