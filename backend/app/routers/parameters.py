"""Path and query parameters that several routers take."""

from typing import Annotated

from fastapi import Path, Query

from app.schemas.page import PageQuery
from app.schemas.types import Id

Page = Annotated[PageQuery, Query()]
UserId = Annotated[Id, Path(description="A user's id", examples=[1])]
AddressId = Annotated[Id, Path(description="An address's id", examples=[1])]
ArticleId = Annotated[Id, Path(description="An article's id", examples=[1])]
