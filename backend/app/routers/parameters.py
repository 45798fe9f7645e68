"""Path and query parameters that several routers take."""

from typing import Annotated

from fastapi import Depends, Header, Path, Query, Request
from starlette.convertors import Convertor, register_url_convertor

from app.core.conditional import Precondition, list_header
from app.core.config import get_settings
from app.core.errors import PreconditionRequired
from app.schemas.page import CursorQuery, PageQuery
from app.schemas.types import STORABLE_PATTERN, Id


class UserIdConvertor(Convertor[str]):
    """Any segment but `me`, so that `PUT /users/me` is a wrong method and not a wrong id."""

    regex = "(?!me$)[^/]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


class ArticleIdConvertor(UserIdConvertor):
    """Any segment but those that are no articles."""

    regex = "(?!(?:by-slug|import|export)$)[^/]+"


register_url_convertor("user_id", UserIdConvertor())
register_url_convertor("article_id", ArticleIdConvertor())


async def if_match(
    request: Request,
    tags: Annotated[
        str | None,
        Header(
            alias="If-Match",
            description="The ETag of the version that is to be changed (RFC 9110 §13.1.1)",
        ),
    ] = None,
) -> Precondition:
    """What the client believes to be changing. Raises PreconditionRequired where it has to say."""
    if tags is None and get_settings().require_if_match:
        raise PreconditionRequired
    return Precondition.parse(
        list_header(request, "If-Match"), if_none_match=list_header(request, "If-None-Match")
    )


IfMatch = Annotated[Precondition, Depends(if_match)]
"""For what changes something that has an ETag."""

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
ApiKeyId = Annotated[Id, Path(description="An API key's id", examples=[1])]
ArticleSlug = Annotated[
    str, Path(description="An article's slug", max_length=100, examples=["notes-on-engines"])
]
TagSlug = Annotated[str, Path(description="A tag's slug", max_length=100, examples=["engines"])]
RevisionId = Annotated[Id, Path(description="A revision's id", examples=[1])]
PreviewLinkId = Annotated[Id, Path(description="A preview link's id", examples=[1])]
MediaId = Annotated[Id, Path(description="A picture's id", examples=[1])]
