"""Sessions, as their user sees them."""

from datetime import datetime

from app.schemas.types import Output


class SessionResponse(Output):
    """Where one is logged in; `current` is the session that asks."""

    id: int
    created_at: datetime
    last_used_at: datetime
    expires_at: datetime
    ip: str | None
    user_agent: str
    current: bool
