"""Which articles show which pictures, by the addresses in their content and as their cover."""

import re
from collections.abc import Sequence

from sqlalchemy import (
    BigInteger,
    String,
    all_,
    any_,
    bindparam,
    delete,
    exists,
    func,
    literal,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.models.article import Article
from app.models.media import ArticleMedia, Media
from app.models.user import User
from app.services.media.storage import FOLDER

# Wherever the API is reached, now or when this was written: nobody else has such a folder.
_ADDRESS = re.compile(rf"/media/({FOLDER})/")

_folders = any_(bindparam("folders", type_=ARRAY(String)))
_articles = bindparam("article_ids", type_=ARRAY(BigInteger))
_pictures = bindparam("media_ids", type_=ARRAY(BigInteger))
_article = bindparam("article_id", type_=BigInteger)

# Locked against being deleted, for whoever deletes a picture looks first who shows it; in one
# order, so that two articles do not wait for each other.
_SHOWN = select(Media.id).where(Media.folder == _folders).order_by(Media.id)
_SHOWN_AND_LOCKED = _SHOWN.with_for_update(read=True, key_share=True)
_FORGET = delete(ArticleMedia).where(ArticleMedia.article_id == _article)
_FORGET_OTHERS = _FORGET.where(ArticleMedia.media_id != all_(_pictures))
_NOTE = insert(ArticleMedia).on_conflict_do_nothing()

# Of the articles' own authors: whoever knows an address may put another's picture into theirs.
_CANDIDATES = (
    select(Media.id)
    .where(
        exists(literal(1))
        .where(
            ArticleMedia.media_id == Media.id,
            ArticleMedia.article_id == any_(_articles),
            Article.id == ArticleMedia.article_id,
            Article.author_id == Media.owner_id,
        )
        .correlate(Media)
    )
    .order_by(Media.id)
    .with_for_update()
)
_SHOWN_ELSEWHERE = exists(literal(1)).where(
    ArticleMedia.media_id == Media.id, ArticleMedia.article_id != all_(_articles)
)
IN_PROFILE = exists(literal(1)).where(
    User.id == Media.owner_id, func.strpos(User.image_url, "/media/" + Media.folder + "/") > 0
)
"""Whether a picture is the one of its owner's profile."""
_PURGE = delete(Media).where(Media.id == any_(_pictures), ~_SHOWN_ELSEWHERE, ~IN_PROFILE)


async def note_references(
    session: AsyncSession, *, article_id: int, content: str, cover_image_url: str | None
) -> None:
    """Remember which of our pictures an article shows now, and that it shows no others.

    To be called whenever one of the two is written, in its unit of work.
    """
    folders = _ADDRESS.findall(content) + _ADDRESS.findall(cover_image_url or "")
    if not folders:
        await session.execute(_FORGET, {"article_id": article_id})
        return
    shown = await session.scalars(_SHOWN_AND_LOCKED, {"folders": sorted(set(folders))})
    media_ids = list(shown)
    await session.execute(_FORGET_OTHERS, {"article_id": article_id, "media_ids": media_ids})
    if media_ids:
        rows = [{"article_id": article_id, "media_id": media_id} for media_id in media_ids]
        await session.execute(_NOTE, rows)


async def purge_pictures_of(session: AsyncSession, *, article_ids: Sequence[int]) -> None:
    """Delete their authors' pictures that these articles show, and no other does, nor a profile.

    To be called before the articles go for good, in their unit of work.
    """
    parameters = {"article_ids": list(article_ids)}
    candidates = await session.scalars(_CANDIDATES, parameters)
    media_ids = list(candidates)
    if media_ids:  # locked: what shows one of them now is seen by the next statement
        await session.execute(_PURGE, {**parameters, "media_ids": media_ids})
