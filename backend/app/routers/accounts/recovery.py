"""/auth/password and /auth/email: password reset and email verification with tokens from mails.

Tokens are accepted only in bodies, because URLs are logged.
"""

from fastapi import Depends, status

from app.auth.dependencies import CurrentClient, OptionalConfirmingUser
from app.core.errors import (
    EmailTaken,
    IncorrectPassword,
    InvalidAccountToken,
    PasswordRequired,
    TooManyAttempts,
)
from app.db.dependencies import CurrentDatabase, WriteSession
from app.http.routing import no_store
from app.routers.responses import create_router, errors
from app.schemas.accounts.recovery import Accepted, EmailRequest, EmailVerification, PasswordReset
from app.services.accounts import recovery

router = create_router(prefix="/auth", tag="auth", dependencies=[Depends(no_store)])


@router.post(
    "/password/forgot", status_code=status.HTTP_202_ACCEPTED, responses=errors(TooManyAttempts)
)
async def forget_password(
    session: WriteSession, database: CurrentDatabase, client: CurrentClient, request: EmailRequest
) -> Accepted:
    """Send a password reset link; the response does not reveal whether an account exists."""
    return await recovery.request_password_reset(
        session, database=database, client=client, request=request
    )


@router.post(
    "/password/reset", status_code=status.HTTP_204_NO_CONTENT, responses=errors(InvalidAccountToken)
)
async def reset_password(
    session: WriteSession, database: CurrentDatabase, client: CurrentClient, reset: PasswordReset
) -> None:
    """Set a new password with the token from the mail; all sessions end.

    API keys and the second factor stay if the address was verified before.
    """
    await recovery.reset_password(session, database=database, client=client, reset=reset)


@router.post(
    "/email/verify",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=errors(
        InvalidAccountToken, PasswordRequired, IncorrectPassword, EmailTaken, TooManyAttempts
    ),
)
async def verify_email(
    session: WriteSession,
    database: CurrentDatabase,
    actor: OptionalConfirmingUser,
    verification: EmailVerification,
) -> None:
    """Verify an address, or confirm a new one, with the token from the mail.

    Requires a login session of the account, or its password in the body.
    """
    await recovery.verify_email(session, database=database, verification=verification, actor=actor)


@router.post(
    "/email/verify/resend", status_code=status.HTTP_202_ACCEPTED, responses=errors(TooManyAttempts)
)
async def resend_verification(
    session: WriteSession, database: CurrentDatabase, client: CurrentClient, request: EmailRequest
) -> Accepted:
    """Send the verification link again; the response does not reveal whether an account exists."""
    return await recovery.resend_verification(
        session, database=database, client=client, request=request
    )
