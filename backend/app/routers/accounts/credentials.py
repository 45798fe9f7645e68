"""/users/me/password, /users/me/email and /users/me/export, which require the password."""

from fastapi import Depends, status
from fastapi.responses import StreamingResponse

from app.auth.dependencies import ConfirmingUser
from app.core.config import get_settings
from app.core.errors import IncorrectCode, IncorrectPassword, LimitReached, TooManyAttempts
from app.core.streams import Deadline
from app.db.dependencies import CurrentDatabase, WriteSession
from app.http.routing import allowed_in_maintenance, no_store
from app.routers.responses import create_router, errors
from app.schemas.accounts.own_data import OwnDataRequest
from app.schemas.accounts.recovery import Accepted, EmailChange, PasswordChange
from app.services.accounts import own_data, recovery

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


@router.post(
    "/export",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Successful Response",
            "content": {"application/zip": {"schema": {"type": "string", "format": "binary"}}},
        },
        **errors(LimitReached, IncorrectPassword, IncorrectCode, TooManyAttempts),
    },
)
@allowed_in_maintenance
async def export_account(
    database: CurrentDatabase, user: ConfirmingUser, confirmation: OwnDataRequest
) -> StreamingResponse:
    """Export what is stored about your account: a ZIP file with NDJSON files.

    A second factor requires its code. Articles with their tags and comments are exported by
    `GET /articles/export`.
    """
    parts = await own_data.export_account(
        database,
        user=user,
        confirmation=confirmation,
        deadline=Deadline(get_settings().stream_seconds),
    )
    return StreamingResponse(
        parts,
        media_type="application/zip",
        headers={
            "Content-Disposition": 'attachment; filename="account.zip"',
            "Cache-Control": "private, no-store",
        },
    )
