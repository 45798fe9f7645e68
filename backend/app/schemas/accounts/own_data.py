"""The export of a user's own data."""

from datetime import datetime

from app.schemas.accounts.address import AddressResponse
from app.schemas.accounts.api_key import ApiKeyResponse
from app.schemas.accounts.session import SessionResponse
from app.schemas.accounts.user import UserPrivate
from app.schemas.types import Output


class OwnComment(Output):
    """A comment of the user."""

    id: int
    article_id: int
    created_at: datetime
    content: str


class OwnData(Output):
    """What is stored about a user, except for articles and pictures, and without secrets."""

    user: UserPrivate
    addresses: list[AddressResponse]
    sessions: list[SessionResponse]
    api_keys: list[ApiKeyResponse]
    comments: list[OwnComment]
