"""Access to revisions and preview links, for users who may change the article."""

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.auth.permissions import Action, may, require
from app.core import clock
from app.core.errors import ArticleNotFound
from app.db.reading import Reader
from app.models.articles.article import Article
from app.services.articles.rows import NOT_DELETED, PUBLIC

_ARTICLE = select(Article.author_id, PUBLIC.label("is_public")).where(
    Article.id == bindparam("article_id"), NOT_DELETED
)


async def require_author(
    reader: Reader | AsyncSession, *, article_id: int, actor: Identity
) -> None:
    """Raise NotAuthorized unless `actor` may change the article.

    Raises ArticleNotFound if they may not see it.
    """
    parameters = {"article_id": article_id, "now": clock.now()}
    article = (await reader.execute(_ARTICLE, parameters)).one_or_none()
    if article is None or not (
        article.is_public or may(actor, Action.READ_DRAFT, owner_id=article.author_id)
    ):
        raise ArticleNotFound
    require(actor, Action.CHANGE_ARTICLE, owner_id=article.author_id)
