"""Active sessions of a user."""

from datetime import datetime

from app.schemas.types import Output


class SessionResponse(Output):
    """An active session; `current` marks the session of the request."""

    id: int
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    ip: str | None
    user_agent: str
    current: bool
