"""Path and query parameters that several routers take."""

from typing import Annotated

from fastapi import Path, Query
from starlette.convertors import Convertor, register_url_convertor

from app.schemas.page import PageQuery
from app.schemas.types import Id


class UserIdConvertor(Convertor[str]):
    """Any segment but `me`, so that `PUT /users/me` is a wrong method and not a wrong id."""

    regex = "(?!me$)[^/]+"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("user_id", UserIdConvertor())

Page = Annotated[PageQuery, Query()]
UserId = Annotated[Id, Path(description="A user's id", examples=[1])]
AddressId = Annotated[Id, Path(description="An address's id", examples=[1])]
ArticleId = Annotated[Id, Path(description="An article's id", examples=[1])]
SessionId = Annotated[Id, Path(description="A session's id", examples=[1])]
ApiKeyId = Annotated[Id, Path(description="An API key's id", examples=[1])]
