"""Registering, logging in, and one's own account."""

from typing import Any

from fastapi import Depends, status

from app.auth.dependencies import CurrentClient
from app.conduit import shapes
from app.conduit.dependencies import Confirming, PresentedToken, UsersReader, logged_in
from app.conduit.routing import create_router
from app.conduit.schemas import (
    LoginUserRequest,
    NewUserRequest,
    UpdateUserRequest,
    UserResponse,
    account_update,
    login_form,
    registration_of,
)
from app.core.config import Registration, get_settings
from app.core.errors import InvalidInput
from app.core.routing import no_store
from app.db.dependencies import CurrentDatabase, WriteSession
from app.services import account, auth, registration, sessions

router = create_router("User and Authentication", dependencies=[Depends(no_store)])


def _seconds() -> int:
    return get_settings().conduit_token_expire_minutes * 60


@router.post("/users/login", response_model=UserResponse)
async def login(
    session: WriteSession, database: CurrentDatabase, client: CurrentClient, form: LoginUserRequest
) -> dict[str, Any]:
    """Log in by email and password."""
    tokens = await auth.login(
        session,
        database=database,
        form=login_form(form.user),
        client=client,
        seconds=_seconds(),
        by_conduit=True,
    )
    return shapes.user(await logged_in(session, tokens.access_token), tokens.access_token)


@router.post("/users", response_model=UserResponse, status_code=status.HTTP_201_CREATED)
async def register(
    session: WriteSession, database: CurrentDatabase, client: CurrentClient, new: NewUserRequest
) -> dict[str, Any]:
    """Register, and be logged in. Not where registering goes by mail."""
    if get_settings().registration is Registration.BY_EMAIL:
        raise InvalidInput("Registering goes by mail here: use POST /users")
    user = await registration.register(
        session, database=database, client=client, new=registration_of(new.user)
    )
    tokens = await sessions.open_session(
        session, user_id=user.id, client=client, seconds=_seconds(), by_conduit=True
    )
    return shapes.user(user, tokens.access_token)


@router.get("/user", response_model=UserResponse)
async def read_user(user: UsersReader, token: PresentedToken) -> dict[str, Any]:
    """Read one's own account; the token is the one that was sent."""
    return shapes.user(user, token)


@router.put("/user", response_model=UserResponse)
async def update_user(
    *,
    session: WriteSession,
    database: CurrentDatabase,
    client: CurrentClient,
    actor: Confirming,
    token: PresentedToken,
    changes: UpdateUserRequest,
) -> dict[str, Any]:
    """Change one's own account: email and password within an hour of a login at this API."""
    user = await account.update_account(
        session,
        database=database,
        client=client,
        actor=actor,
        changes=account_update(changes.user),
    )
    return shapes.user(user, token)
