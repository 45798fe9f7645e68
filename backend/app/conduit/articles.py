"""Articles: lists, the feed, single articles, favorites."""

from typing import Annotated, Any

from fastapi import Query, status

from app.auth.identity import Identity
from app.conduit import shapes
from app.conduit.dependencies import (
    ArticlesActor,
    ArticlesViewer,
    CommunityActor,
    CurrentArticle,
    DiscussedArticleId,
    RequiredArticlesViewer,
)
from app.conduit.routing import OPTIONAL_AUTH, TOKEN_ERRORS, create_router, errors
from app.conduit.schemas import (
    ArticleResponse,
    ArticlesQuery,
    ArticlesResponse,
    Name,
    NewArticleRequest,
    PageQuery,
    UpdateArticleRequest,
    article_changes,
    article_query,
    feed_query,
    new_article,
)
from app.conduit.shapes import FIELDS, LISTED_FIELDS
from app.core.conditional import Precondition
from app.db.dependencies import ReadConnection, WriteSession
from app.http.json import to_json
from app.services.articles import listing, reading, writing
from app.services.community import favorites

router = create_router("Articles")


@router.get(
    "/articles", response_model=ArticlesResponse, openapi_extra=OPTIONAL_AUTH, responses=errors(403)
)
async def list_articles(
    connection: ReadConnection, viewer: ArticlesViewer, query: Annotated[ArticlesQuery, Query()]
) -> bytes:
    """List published articles, the newest first."""
    listed = await listing.list_articles(
        connection, query=article_query(query), viewer=viewer, fields=LISTED_FIELDS
    )
    return to_json(shapes.articles(listed))


@router.get("/articles/feed", response_model=ArticlesResponse, responses=errors(*TOKEN_ERRORS))
async def read_feed(
    connection: ReadConnection, user: RequiredArticlesViewer, query: Annotated[PageQuery, Query()]
) -> bytes:
    """List the articles of users whom you follow, the newest first."""
    listed = await listing.list_feed(
        connection, query=feed_query(query), viewer=user, fields=LISTED_FIELDS
    )
    return to_json(shapes.articles(listed))


@router.get(
    "/articles/{slug}",
    response_model=ArticleResponse,
    openapi_extra=OPTIONAL_AUTH,
    responses=errors(403, 404),
)
async def read_article(
    connection: ReadConnection, viewer: ArticlesViewer, slug: Name
) -> dict[str, Any]:
    """Read an article by its current or a former slug."""
    return shapes.article(
        await reading.get_fields(connection, slug=slug, viewer=viewer, fields=FIELDS)
    )


@router.post(
    "/articles",
    response_model=ArticleResponse,
    status_code=status.HTTP_201_CREATED,
    responses=errors(*TOKEN_ERRORS, 409),
)
async def create_article(
    session: WriteSession, actor: ArticlesActor, new: NewArticleRequest
) -> dict[str, Any]:
    """Create and publish an article."""
    row = await writing.create_article(session, new=new_article(new.article), author=actor)
    return await _read(session, row.id, actor)


@router.put(
    "/articles/{slug}", response_model=ArticleResponse, responses=errors(*TOKEN_ERRORS, 404)
)
async def update_article(
    session: WriteSession,
    actor: ArticlesActor,
    current: CurrentArticle,
    changes: UpdateArticleRequest,
) -> dict[str, Any]:
    """Update an article; a new title changes its slug."""
    await writing.update_article(
        session,
        article_id=current.id,
        changes=article_changes(changes.article, title=current.title),
        actor=actor,
        precondition=Precondition(),
    )
    return await _read(session, current.id, actor)


@router.delete(
    "/articles/{slug}", status_code=status.HTTP_204_NO_CONTENT, responses=errors(*TOKEN_ERRORS, 404)
)
async def delete_article(
    session: WriteSession, actor: ArticlesActor, current: CurrentArticle
) -> None:
    """Move an article to the trash, where it stays for 30 days."""
    await writing.delete_article(
        session, article_id=current.id, actor=actor, precondition=Precondition()
    )


@router.post(
    "/articles/{slug}/favorite",
    response_model=ArticleResponse,
    tags=["Favorites"],
    responses=errors(*TOKEN_ERRORS, 404),
)
async def favorite(
    session: WriteSession, actor: CommunityActor, article_id: DiscussedArticleId
) -> dict[str, Any]:
    """Add an article to your favorites."""
    await favorites.favorite(session, article_id=article_id, actor=actor)
    return await _read(session, article_id, actor)


@router.delete(
    "/articles/{slug}/favorite",
    response_model=ArticleResponse,
    tags=["Favorites"],
    responses=errors(*TOKEN_ERRORS, 404),
)
async def unfavorite(
    session: WriteSession, actor: CommunityActor, article_id: DiscussedArticleId
) -> dict[str, Any]:
    """Remove an article from your favorites."""
    await favorites.unfavorite(session, article_id=article_id, actor=actor)
    return await _read(session, article_id, actor)


async def _read(session: WriteSession, article_id: int, actor: Identity) -> dict[str, Any]:
    return shapes.article(
        await reading.get_fields(session, article_id=article_id, viewer=actor, fields=FIELDS)
    )
