"""Search, and suggestions of titles while a reader types."""

from collections.abc import Sequence

from fastapi import Request, Response
from pydantic import ValidationError

from app.core.validation import validation_message
from app.db.dependencies import ReadConnection
from app.schemas.articles.search import (
    MAX_SUGGESTION_QUERY,
    SearchQuery,
    SearchResult,
    Suggestion,
    SuggestionQuery,
)
from app.services.articles import search
from app.web.localization import gettext as _
from app.web.reader.parameters import PAGE_SIZE, PageNumber
from app.web.rendering import page
from app.web.routing import create_router, public_page

router = create_router()


@router.get("/search")
@public_page
async def show_search(
    request: Request, reader: ReadConnection, q: str = "", number: PageNumber = 1
) -> Response:
    """Show the articles that match `q`, the most relevant first."""
    words = q.strip()
    results: Sequence[SearchResult] = []
    suggestions: Sequence[Suggestion] = []
    problem = ""
    if words:
        try:
            query = SearchQuery(q=words, skip=(number - 1) * PAGE_SIZE, limit=PAGE_SIZE + 1)
        except ValidationError as error:
            problem = _(validation_message(error.errors()[0]))
        else:
            results = await search.search_articles(reader, query=query, viewer=None)
            if not results and len(words) <= MAX_SUGGESTION_QUERY:
                suggestions = await search.suggest_titles(
                    reader, query=SuggestionQuery(q=words), viewer=None
                )
    return page(
        request,
        "reader/search.html",
        public=True,
        status=422 if problem else 200,
        words=q,
        is_search=bool(words) and not problem,
        problem=problem,
        results=results[:PAGE_SIZE],
        suggestions=suggestions,
        number=number,
        has_more=len(results) > PAGE_SIZE,
    )


@router.get("/search/suggest")
@public_page
async def suggest(request: Request, reader: ReadConnection, q: str = "") -> Response:
    """Show the articles whose titles match, for static/js/reader.js."""
    suggestions: Sequence[Suggestion] = []
    try:
        query = SuggestionQuery(q=q.strip())
    except ValidationError:
        pass  # too short or too long: no suggestions
    else:
        suggestions = await search.suggest_titles(reader, query=query, viewer=None)
    return page(request, "reader/suggestions.html", public=True, suggestions=suggestions)
