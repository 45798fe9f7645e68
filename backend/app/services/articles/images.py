"""References from articles to media, found by the URLs in the content and the cover image."""

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
    literal,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.ext.asyncio import AsyncSession

from app.models.articles.article import Article
from app.models.media import FOLDER_PATTERN, ArticleMedia, Media
from app.services.media.library import IS_PROFILE_IMAGE

# The host is ignored: it may change, and the random folder identifies the image.
_MEDIA_PATH = re.compile(rf"/media/({FOLDER_PATTERN})/")

_folders = any_(bindparam("folders", type_=ARRAY(String)))
_article_ids = bindparam("article_ids", type_=ARRAY(BigInteger))
_media_ids = bindparam("media_ids", type_=ARRAY(BigInteger))
_article_id = bindparam("article_id", type_=BigInteger)

# The lock prevents deletion, because deleting an image first checks its references.
# The order prevents deadlocks between two articles.
_REFERENCED = select(Media.id).where(Media.folder == _folders).order_by(Media.id)
_LOCK_REFERENCED = _REFERENCED.with_for_update(read=True, key_share=True)
_DELETE_REFERENCES = delete(ArticleMedia).where(ArticleMedia.article_id == _article_id)
_DELETE_OTHER_REFERENCES = _DELETE_REFERENCES.where(ArticleMedia.media_id != all_(_media_ids))
_INSERT_REFERENCES = insert(ArticleMedia).on_conflict_do_nothing()

# Only images of the articles' authors: any user who knows a URL can put it into an article.
_CANDIDATES = (
    select(Media.id)
    .where(
        exists(literal(1))
        .where(
            ArticleMedia.media_id == Media.id,
            ArticleMedia.article_id == any_(_article_ids),
            Article.id == ArticleMedia.article_id,
            Article.author_id == Media.owner_id,
        )
        .correlate(Media)
    )
    .order_by(Media.id)
    .with_for_update()
)
_IS_REFERENCED_ELSEWHERE = exists(literal(1)).where(
    ArticleMedia.media_id == Media.id, ArticleMedia.article_id != all_(_article_ids)
)
_DELETE_MEDIA = delete(Media).where(
    Media.id == any_(_media_ids), ~_IS_REFERENCED_ELSEWHERE, ~IS_PROFILE_IMAGE
)


def mentions_media(*texts: str | None) -> bool:
    """Return whether one of the texts may contain the URL of an image."""
    return any("/media/" in text for text in texts if text)


async def update_media_references(
    session: AsyncSession, *, article_id: int, content: str, cover_image_url: str | None
) -> None:
    """Set the media that an article references.

    Call this in the same transaction whenever the content or the cover image is written.
    """
    folders = _MEDIA_PATH.findall(content) + _MEDIA_PATH.findall(cover_image_url or "")
    if not folders:
        await session.execute(_DELETE_REFERENCES, {"article_id": article_id})
        return
    media_ids = list(await session.scalars(_LOCK_REFERENCED, {"folders": sorted(set(folders))}))
    await session.execute(
        _DELETE_OTHER_REFERENCES, {"article_id": article_id, "media_ids": media_ids}
    )
    if media_ids:
        rows = [{"article_id": article_id, "media_id": media_id} for media_id in media_ids]
        await session.execute(_INSERT_REFERENCES, rows)


async def delete_media_of_articles(session: AsyncSession, *, article_ids: Sequence[int]) -> None:
    """Delete the authors' images that only these articles reference, and no profile.

    Call this in the same transaction, before the articles are permanently deleted.
    """
    parameters = {"article_ids": list(article_ids)}
    candidates = await session.scalars(_CANDIDATES, parameters)
    media_ids = list(candidates)
    if media_ids:  # the rows are locked: the next statement sees references added meanwhile
        await session.execute(_DELETE_MEDIA, {**parameters, "media_ids": media_ids})
