"""Active sessions of a user."""

from datetime import datetime
from enum import StrEnum

from app.schemas.page import CursorQuery
from app.schemas.types import Id, Output


class SessionResponse(Output):
    """An active session; `current` marks the session of the request."""

    id: int
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    ip: str | None
    user_agent: str
    current: bool


class SessionKind(StrEnum):
    """What opened a session: this API, the RealWorld API, or a page."""

    API = "api"
    REALWORLD = "realworld"
    PAGE = "page"


class UserSessionResponse(SessionResponse):
    """An active session with its user, for administrators."""

    user_id: int
    username: str
    kind: SessionKind


class SessionQuery(CursorQuery):
    """Filter and page of the list of all users' sessions."""

    user: Id | None = None
