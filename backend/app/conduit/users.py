"""Registration, login, and the user's own account."""

from typing import Any

from fastapi import Depends, status

from app.auth.dependencies import CurrentClient
from app.conduit import shapes
from app.conduit.dependencies import (
    ConfirmingUser,
    PresentedToken,
    RequiredUsersViewer,
    identity_of_new_token,
)
from app.conduit.routing import TOKEN_ERRORS, create_router, errors
from app.conduit.schemas import (
    LoginUserRequest,
    NewUserRequest,
    UpdateUserRequest,
    UserResponse,
    account_update,
    login_form,
    user_create,
)
from app.core.config import Registration, get_settings
from app.core.errors import InvalidInput
from app.db.dependencies import CurrentDatabase, WriteSession
from app.http.routing import allowed_in_maintenance, no_store
from app.services.accounts import account_changes, registration, sessions
from app.services.accounts import login as login_service

router = create_router("User and Authentication", dependencies=[Depends(no_store)])


def _token_seconds() -> int:
    return get_settings().conduit_token_expire_minutes * 60


@router.post("/users/login", response_model=UserResponse, responses=errors(401))
@allowed_in_maintenance
async def login(
    session: WriteSession, database: CurrentDatabase, client: CurrentClient, form: LoginUserRequest
) -> dict[str, Any]:
    """Log in with email and password."""
    tokens = await login_service.login(
        session,
        database=database,
        form=login_form(form.user),
        client=client,
        seconds=_token_seconds(),
        by_conduit=True,
    )
    identity = await identity_of_new_token(session, tokens.access_token)
    return shapes.user(identity, tokens.access_token)


@router.post(
    "/users",
    response_model=UserResponse,
    status_code=status.HTTP_201_CREATED,
    responses=errors(409),
)
async def register(
    session: WriteSession, database: CurrentDatabase, client: CurrentClient, new: NewUserRequest
) -> dict[str, Any]:
    """Register and log in. Not available with REGISTRATION=by_email."""
    if get_settings().registration is Registration.BY_EMAIL:
        raise InvalidInput("Registration requires confirmation by mail here; use POST /users")
    user = await registration.register(
        session, database=database, client=client, new=user_create(new.user)
    )
    tokens = await sessions.open_session(
        session, user_id=user.id, client=client, seconds=_token_seconds(), by_conduit=True
    )
    return shapes.user(user, tokens.access_token)


@router.get("/user", response_model=UserResponse, responses=errors(*TOKEN_ERRORS))
async def read_user(user: RequiredUsersViewer, token: PresentedToken) -> dict[str, Any]:
    """Read your own account. The response contains the token that was sent."""
    return shapes.user(user, token)


@router.put("/user", response_model=UserResponse, responses=errors(*TOKEN_ERRORS))
async def update_user(
    *,
    session: WriteSession,
    database: CurrentDatabase,
    client: CurrentClient,
    actor: ConfirmingUser,
    token: PresentedToken,
    changes: UpdateUserRequest,
) -> dict[str, Any]:
    """Update your own account. Email and password require a login at this API within one hour."""
    user = await account_changes.update_account(
        session,
        database=database,
        client=client,
        actor=actor,
        changes=account_update(changes.user),
    )
    return shapes.user(user, token)
