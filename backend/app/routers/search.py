"""/search: finding articles by their words."""

from collections.abc import Sequence
from typing import Annotated

from fastapi import Query

from app.auth.dependencies import ArticlesViewer
from app.db.dependencies import ReadConnection
from app.routers.responses import KNOWS_USER, OPTIONAL_USER, create_router, errors
from app.schemas.search import SearchQuery, SearchResult, Suggestion, SuggestionQuery
from app.services import search

router = create_router(prefix="/search", tag="search")


@router.get("", responses=errors(*KNOWS_USER), openapi_extra=OPTIONAL_USER)
async def search_articles(
    connection: ReadConnection, viewer: ArticlesViewer, query: Annotated[SearchQuery, Query()]
) -> Sequence[SearchResult]:
    """Find articles by their words, the most relevant first, with the places that match.

    Words count in whatever form the article's language gives them; most in the title, less in the
    excerpt, least in the text. Of many articles that match, the newest thousand are ranked. Words
    that are in nearly every text, such as `the`, find nothing.
    """
    return await search.search_articles(connection, query=query, viewer=viewer)


@router.get("/suggest", responses=errors(*KNOWS_USER), openapi_extra=OPTIONAL_USER)
async def suggest_titles(
    connection: ReadConnection, viewer: ArticlesViewer, query: Annotated[SuggestionQuery, Query()]
) -> Sequence[Suggestion]:
    """Suggest the newest ten articles whose titles have these words; the last one may go on."""
    return await search.suggest_titles(connection, query=query, viewer=viewer)
