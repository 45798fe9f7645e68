"""POST /users: registration, as configured by the setting REGISTRATION."""

from fastapi import status

from app.auth.dependencies import CurrentClient
from app.core.errors import (
    EmailTaken,
    IncorrectPassword,
    InvalidAccountToken,
    LimitReached,
    TooManyAttempts,
    UsernameTaken,
)
from app.db.dependencies import CurrentDatabase, WriteSession
from app.routers.idempotency import idempotent
from app.routers.responses import create_router, errors
from app.schemas.accounts.recovery import Accepted, RegistrationConfirmation
from app.schemas.accounts.user import UserCreate, UserPrivate
from app.services.accounts import registration

open_router = create_router(prefix="/users", tag="users")
by_email_router = create_router(prefix="/users", tag="users")


@open_router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses=errors(LimitReached, EmailTaken, UsernameTaken, TooManyAttempts),
    dependencies=[idempotent()],
)
async def create_user(
    session: WriteSession, database: CurrentDatabase, client: CurrentClient, new: UserCreate
) -> UserPrivate:
    """Register a user."""
    return await registration.register(session, database=database, client=client, new=new)


@by_email_router.post(
    "",
    status_code=status.HTTP_202_ACCEPTED,
    responses=errors(LimitReached, UsernameTaken, TooManyAttempts),
    dependencies=[idempotent()],
)
async def request_registration(
    session: WriteSession, database: CurrentDatabase, client: CurrentClient, new: UserCreate
) -> Accepted:
    """Send a registration link; the response does not reveal whether an account exists."""
    return await registration.request_registration(
        session, database=database, client=client, new=new
    )


@by_email_router.post(
    "/confirm",
    status_code=status.HTTP_201_CREATED,
    responses=errors(
        InvalidAccountToken, IncorrectPassword, EmailTaken, UsernameTaken, TooManyAttempts
    ),
    dependencies=[idempotent()],
)
async def complete_registration(
    session: WriteSession, database: CurrentDatabase, confirmation: RegistrationConfirmation
) -> UserPrivate:
    """Complete a registration with the token from the mail and the chosen password."""
    return await registration.complete_registration(
        session, database=database, confirmation=confirmation
    )
