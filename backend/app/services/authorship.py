"""Who may look behind an article, at its revisions and its preview links: whoever may change it."""

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.auth.permissions import Action, may, require
from app.core import clock
from app.core.errors import ArticleNotFound
from app.db.reading import Reader
from app.models.article import Article
from app.services.articles.rows import KEPT, PUBLIC

_ARTICLE = select(Article.author_id, PUBLIC.label("is_public")).where(
    Article.id == bindparam("article_id"), KEPT
)


async def require_author(
    connection: Reader | AsyncSession, *, article_id: int, actor: Identity
) -> None:
    """Raise NotAuthorized unless `actor` may change the article.

    Raises ArticleNotFound where they may not even know that there is one.
    """
    parameters = {"article_id": article_id, "now": clock.now()}
    article = (await connection.execute(_ARTICLE, parameters)).one_or_none()
    if article is None or not (
        article.is_public or may(actor, Action.READ_DRAFT, owner_id=article.author_id)
    ):
        raise ArticleNotFound
    require(actor, Action.CHANGE_ARTICLE, owner_id=article.author_id)
