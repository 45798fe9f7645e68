"""/auth/password and /auth/email: what links in mails are for.

Tokens come in bodies alone: a URL would be logged.
"""

from fastapi import Depends, status

from app.auth.dependencies import CurrentClient, MaybeConfirming
from app.core.errors import (
    EmailTaken,
    IncorrectPassword,
    InvalidAccountToken,
    PasswordRequired,
    TooManyAttempts,
)
from app.core.routing import no_store
from app.db.dependencies import CurrentDatabase, WriteSession
from app.routers.responses import OPTIONAL_USER, TAKES_JSON, create_router, errors
from app.schemas.recovery import Accepted, EmailRequest, EmailVerification, PasswordReset
from app.services import recovery

router = create_router(prefix="/auth", tag="auth", dependencies=[Depends(no_store)])


@router.post(
    "/password/forgot",
    status_code=status.HTTP_202_ACCEPTED,
    responses=errors(TooManyAttempts, *TAKES_JSON),
)
async def forget_password(
    session: WriteSession, database: CurrentDatabase, client: CurrentClient, request: EmailRequest
) -> Accepted:
    """Get a link to a new password by mail; the answer does not tell who has an account."""
    return await recovery.forget_password(
        session, database=database, client=client, request=request
    )


@router.post(
    "/password/reset",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=errors(InvalidAccountToken, *TAKES_JSON),
)
async def reset_password(
    session: WriteSession, database: CurrentDatabase, client: CurrentClient, reset: PasswordReset
) -> None:
    """Choose a new password with the token from the mail; all sessions end.

    API keys and the second factor stay, unless the address had never been verified.
    """
    await recovery.reset_password(session, database=database, client=client, reset=reset)


@router.post(
    "/email/verify",
    status_code=status.HTTP_204_NO_CONTENT,
    openapi_extra=OPTIONAL_USER,
    responses=errors(
        InvalidAccountToken,
        PasswordRequired,
        IncorrectPassword,
        EmailTaken,
        TooManyAttempts,
        *TAKES_JSON,
    ),
)
async def verify_email(
    session: WriteSession,
    database: CurrentDatabase,
    actor: MaybeConfirming,
    verification: EmailVerification,
) -> None:
    """Use the token from a mail: verify the address, or change to it.

    Log in to the account, or send its password as well.
    """
    await recovery.verify_email(session, database=database, verification=verification, actor=actor)


@router.post(
    "/email/verify/resend",
    status_code=status.HTTP_202_ACCEPTED,
    responses=errors(TooManyAttempts, *TAKES_JSON),
)
async def resend_verification(
    session: WriteSession, database: CurrentDatabase, client: CurrentClient, request: EmailRequest
) -> Accepted:
    """Get the link that verifies an address again; the answer tells nothing about its user."""
    return await recovery.resend_verification(
        session, database=database, client=client, request=request
    )
