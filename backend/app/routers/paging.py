"""How an answer says which page of a list it is."""

from collections.abc import Sequence
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode

from fastapi import Depends, Request, Response

from app.core.conditional import last_modified
from app.services.paging import Listed

Item = TypeVar("Item")

LINK_HEADERS: dict[str, Any] = {
    "Link": {
        "description": "RFC 8288: `first`, `prev` and `next`, where there are such pages",
        "schema": {"type": "string"},
    },
    "X-Total-Count": {
        "description": "How many there are on all pages; with `count=true`",
        "schema": {"type": "integer"},
    },
}
"""For a route's `responses`."""
LINKED: dict[int | str, dict[str, Any]] = {200: {"headers": {"Link": LINK_HEADERS["Link"]}}}
"""The same, of a list that is read page after page and never counted."""


class PageHeaders:
    """Describes a page in the headers of its answer."""

    def __init__(self, request: Request, response: Response) -> None:
        self._request = request
        self._response = response

    def describe(self, listed: Listed[Item]) -> Sequence[Item]:
        """Set `Link`, and `X-Total-Count` and `Last-Modified` where they are known; the items."""
        pages = {"first": None, "prev": listed.previous, "next": listed.next}
        links = [
            f'<{self._address(cursor)}>; rel="{relation}"'
            for relation, cursor in pages.items()
            if cursor is not None or relation == "first"
        ]
        headers = self._response.headers
        headers["Link"] = ", ".join(links)
        if listed.total is not None:
            headers["X-Total-Count"] = str(listed.total)
        if listed.modified_at is not None:
            headers.update(last_modified([listed.modified_at]))
        return listed.items

    def _address(self, cursor: str | None) -> str:
        """This list, at another place; relative to the host, whatever it is called outside."""
        query = [
            (name, value)
            for name, value in self._request.query_params.multi_items()
            if name not in {"cursor", "skip"}
        ]
        if cursor is not None:
            query.append(("cursor", cursor))
        path = self._request.scope.get("root_path", "") + self._request.url.path
        return f"{path}?{urlencode(query)}" if query else path


async def page_headers(request: Request, response: Response) -> PageHeaders:
    """What describes the page. Async, lest FastAPI run it in a thread for each request."""
    return PageHeaders(request, response)


Paging = Annotated[PageHeaders, Depends(page_headers)]
