"""Pagination headers."""

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

from fastapi import Depends, Request, Response

from app.core.errors import InvalidCursor
from app.http.caching import last_modified
from app.http.negotiation import markdown_response
from app.http.routing import raises
from app.services.articles import documents
from app.services.pages.paging import ListPage

Item = TypeVar("Item")


class PageHeaders:
    """Sets the pagination headers of a response."""

    def __init__(self, request: Request, response: Response) -> None:
        self._request = request
        self._response = response

    def describe(self, listed: ListPage[Item]) -> Sequence[Item]:
        """Set `Link`, and `X-Total-Count` and `Last-Modified` if known; return the items."""
        links = (f'<{path}>; rel="{relation}"' for relation, path in self._pages(listed).items())
        headers = self._response.headers
        headers["Link"] = ", ".join(links)
        if listed.total is not None:
            headers["X-Total-Count"] = str(listed.total)
        if listed.modified_at is not None:
            headers.update(last_modified([listed.modified_at]))
        return listed.items

    def as_markdown(self, listed: ListPage[dict[str, Any]]) -> Response:
        """Return the document of a list of articles, with the pagination headers."""
        articles = self.describe(listed)
        pages = {name: path for name, path in self._pages(listed).items() if name != "first"}
        document = documents.list_document(articles, total=listed.total, pages=pages)
        return markdown_response(document, self._response.headers)

    def _pages(self, listed: ListPage[Item]) -> dict[str, str]:
        """Return the paths of the first page, and of the previous and next ones if they exist."""
        cursors = {"first": None, "prev": listed.previous, "next": listed.next}
        path = self._request.scope.get("root_path", "") + self._request.url.path
        return {
            relation: self._page_url(path, cursor)
            for relation, cursor in cursors.items()
            if cursor is not None or relation == "first"
        }

    def _page_url(self, path: str, cursor: str | None) -> str:
        """Return the URL of another page, relative to the host, whose public name may differ."""
        query = [
            (name, value)
            for name, value in self._request.query_params.multi_items()
            if name not in {"cursor", "skip"}
        ]
        if cursor is not None:
            query.append(("cursor", cursor))
        return f"{path}?{urlencode(query)}" if query else path


@raises(InvalidCursor)
async def page_headers(request: Request, response: Response) -> PageHeaders:
    """Return the headers' writer. Async, so that FastAPI does not use a thread."""
    return PageHeaders(request, response)


Paging = Annotated[PageHeaders, Depends(page_headers)]
