"""/auth/sessions: active sessions of the user."""

from collections.abc import Sequence

from fastapi import Depends, status

from app.auth.dependencies import Actor, CurrentUser
from app.core.errors import SessionNotFound
from app.db.dependencies import ReadConnection, WriteSession
from app.http.routing import allowed_in_maintenance, no_store
from app.routers.parameters import Page, SessionId
from app.routers.responses import create_router, errors
from app.schemas.accounts.session import SessionResponse
from app.services.accounts import sessions

router = create_router(prefix="/auth/sessions", tag="auth", dependencies=[Depends(no_store)])


@router.get("")
async def list_sessions(
    connection: ReadConnection, user: CurrentUser, page: Page
) -> Sequence[SessionResponse]:
    """List your active sessions, the last used first."""
    return await sessions.list_sessions(connection, page=page, user=user)


@router.delete(
    "/{session_id}", status_code=status.HTTP_204_NO_CONTENT, responses=errors(SessionNotFound)
)
@allowed_in_maintenance
async def end_session(session: WriteSession, actor: Actor, session_id: SessionId) -> None:
    """End a session; its tokens are refused from then on."""
    await sessions.end_session(session, session_id=session_id, actor=actor)
