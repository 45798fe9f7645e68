"""Routes for full-text search."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Query

from app.auth.dependencies import ArticlesViewer
from app.db.dependencies import ReadConnection
from app.routers.responses import create_router
from app.schemas.articles.search import SearchQuery, SearchResult, Suggestion, SuggestionQuery
from app.services.articles import search

router = create_router(prefix="/search", tag="search")


@router.get("")
async def search_articles(
    reader: ReadConnection, viewer: ArticlesViewer, query: Annotated[SearchQuery, Query()]
) -> Sequence[SearchResult]:
    """Find articles by their words, most relevant first, with the matches highlighted.

    Inflected forms match according to the article's language. Words count most in the title, less
    in the excerpt, least in the content. If many articles match, the newest thousand are ranked.
    Stop words, such as `the`, match nothing.
    """
    return await search.search_articles(reader, query=query, viewer=viewer)


@router.get("/suggest")
async def suggest_titles(
    reader: ReadConnection, viewer: ArticlesViewer, query: Annotated[SuggestionQuery, Query()]
) -> Sequence[Suggestion]:
    """Suggest the newest ten articles with these words in the title; the last may be a prefix."""
    return await search.suggest_titles(reader, query=query, viewer=viewer)
