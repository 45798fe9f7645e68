"""/users/me/password and /users/me/email: change of credentials, which requires the password."""

from fastapi import Depends, status

from app.auth.dependencies import ConfirmingUser
from app.core.errors import IncorrectPassword, LimitReached, TooManyAttempts
from app.db.dependencies import CurrentDatabase, WriteSession
from app.http.routing import no_store
from app.routers.responses import create_router, errors
from app.schemas.accounts.recovery import Accepted, EmailChange, PasswordChange
from app.services.accounts import recovery

router = create_router(prefix="/users/me", tag="users", dependencies=[Depends(no_store)])

ERRORS = errors(LimitReached, IncorrectPassword, TooManyAttempts)


@router.post("/password", status_code=status.HTTP_204_NO_CONTENT, responses=ERRORS)
async def change_password(
    session: WriteSession,
    database: CurrentDatabase,
    actor: ConfirmingUser,
    change: PasswordChange,
) -> None:
    """Change your password; your other sessions end."""
    await recovery.change_password(session, database=database, actor=actor, change=change)


@router.post("/email", status_code=status.HTTP_202_ACCEPTED, responses=ERRORS)
async def change_email(
    session: WriteSession,
    database: CurrentDatabase,
    actor: ConfirmingUser,
    change: EmailChange,
) -> Accepted:
    """Send a link to a new address; your email changes when the link is used."""
    return await recovery.change_email(session, database=database, actor=actor, change=change)
