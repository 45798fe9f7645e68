"""Path, query and header parameters that several routers use."""

from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request
from starlette.convertors import Convertor, register_url_convertor

from app.core.conditional import Precondition
from app.core.config import get_settings
from app.core.errors import PreconditionFailed, PreconditionRequired
from app.http.caching import list_header
from app.http.routing import raises
from app.schemas.page import CursorQuery, PageQuery
from app.schemas.types import STORABLE_PATTERN, Id


class UserIdConvertor(Convertor[str]):
    """Any path segment except `me`, so that `PUT /users/me` returns 405 and not 422."""

    regex = "(?!me$)[^/]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class ArticleIdConvertor(UserIdConvertor):
    """Any path segment except the names of other routes under /articles."""

    regex = "(?!(?:by-slug|import|imports|export)$)[^/]+"


register_url_convertor("user_id", UserIdConvertor())
register_url_convertor("article_id", ArticleIdConvertor())


@raises(PreconditionFailed, PreconditionRequired)
async def if_match(
    request: Request,
    tags: Annotated[
        str | None,
        Header(
            alias="If-Match",
            description="The current ETag of the resource (RFC 9110 §13.1.1)",
        ),
    ] = None,
) -> Precondition:
    """Parse the preconditions. Raises PreconditionRequired if the setting requires If-Match."""
    if tags is None and get_settings().require_if_match:
        raise PreconditionRequired
    return Precondition.parse(
        list_header(request, "If-Match"), if_none_match=list_header(request, "If-None-Match")
    )


IfMatch = Annotated[Precondition, Depends(if_match)]
"""For routes that change a resource with an ETag."""

Page = Annotated[PageQuery, Query()]
CursorPage = Annotated[CursorQuery, Query()]
ProfileName = Annotated[
    str,
    Path(description="A username", max_length=50, pattern=STORABLE_PATTERN, examples=["ada"]),
]
CommentId = Annotated[Id, Path(description="A comment's id", examples=[1])]
ReportId = Annotated[Id, Path(description="A report's id", examples=[1])]
UserId = Annotated[Id, Path(description="A user's id", examples=[1])]
AddressId = Annotated[Id, Path(description="An address's id", examples=[1])]
ArticleId = Annotated[Id, Path(description="An article's id", examples=[1])]
SessionId = Annotated[Id, Path(description="A session's id", examples=[1])]
WebhookId = Annotated[Id, Path(description="A webhook's id", examples=[1])]
DeliveryId = Annotated[Id, Path(description="A delivery's id", examples=[1])]
ApiKeyId = Annotated[Id, Path(description="An API key's id", examples=[1])]
ArticleSlug = Annotated[
    str, Path(description="An article's slug", max_length=100, examples=["notes-on-engines"])
]
TagSlug = Annotated[str, Path(description="A tag's slug", max_length=100, examples=["engines"])]
RevisionId = Annotated[Id, Path(description="A revision's id", examples=[1])]
PreviewLinkId = Annotated[Id, Path(description="A preview link's id", examples=[1])]
ImportId = Annotated[Id, Path(description="An import's id", examples=[1])]
MailId = Annotated[Id, Path(description="A mail's id", examples=[1])]
MediaId = Annotated[Id, Path(description="An image's id", examples=[1])]
