"""/auth: login, token refresh, logout, and the current user."""

from typing import Annotated, Any

from fastapi import Depends, Form, Response, status

from app.auth.dependencies import Actor, CurrentClient, LogoutUser, RequiredUsersViewer
from app.auth.identity import Identity
from app.core.errors import (
    InvalidChallenge,
    InvalidCode,
    InvalidCredentials,
    LimitReached,
    NotAuthenticated,
    SecondFactorRequired,
    TooManyAttempts,
)
from app.db.dependencies import CurrentDatabase, WriteSession
from app.http.routing import allowed_in_maintenance, no_store
from app.routers.accounts.refresh_tokens import (
    KnownCookie,
    OptionalPresentedToken,
    PresentedToken,
    WantsCookie,
    delete_cookie,
    with_cookie,
)
from app.routers.responses import create_router, errors
from app.schemas.accounts.login import LoginForm, Tokens
from app.schemas.accounts.second_factor import SecondFactorLogin
from app.schemas.accounts.user import UserPrivate
from app.services.accounts import login as login_service
from app.services.accounts import second_factor, sessions

router = create_router(prefix="/auth", tag="auth", dependencies=[Depends(no_store)])

_JSON_SCHEMA = {**LoginForm.model_json_schema(), "title": "LoginRequest"}
AS_JSON: dict[str, Any] = {
    "requestBody": {"content": {"application/json": {"schema": _JSON_SCHEMA}}}
}
"""The form may also be sent as JSON (http.routing).

The schema has another name: openapi-python-client selects the media type by the class of the body.
"""


@router.post(
    "/login",
    openapi_extra=AS_JSON,
    responses=errors(LimitReached, InvalidCredentials, SecondFactorRequired, TooManyAttempts),
)
@allowed_in_maintenance
async def login(
    *,
    session: WriteSession,
    database: CurrentDatabase,
    form: Annotated[LoginForm, Form()],
    client: CurrentClient,
    known: KnownCookie,
    cookie: WantsCookie,
    response: Response,
) -> Tokens:
    """Log in with a username or an email, and get an access token and a refresh token."""
    tokens = await login_service.login(
        session, database=database, form=form, client=client, session_token=known
    )
    return with_cookie(tokens, response, as_cookie=cookie)


@router.post(
    "/login/second-factor",
    responses=errors(LimitReached, InvalidChallenge, InvalidCode, TooManyAttempts),
)
@allowed_in_maintenance
async def log_in_with_second_factor(
    *,
    database: CurrentDatabase,
    form: SecondFactorLogin,
    client: CurrentClient,
    known: KnownCookie,
    cookie: WantsCookie,
    response: Response,
) -> Tokens:
    """Complete a login with its challenge and an authenticator or recovery code."""
    tokens = await second_factor.log_in(database, form=form, client=client, session_token=known)
    return with_cookie(tokens, response, as_cookie=cookie)


@router.post("/refresh")
@allowed_in_maintenance
async def refresh(
    database: CurrentDatabase, presented: PresentedToken, response: Response
) -> Tokens:
    """Exchange the refresh token, in the body or the cookie, for a new pair of tokens."""
    tokens = await sessions.refresh(database, text=presented.token)
    return with_cookie(tokens, response, as_cookie=presented.by_cookie)


@router.post("/logout", status_code=status.HTTP_204_NO_CONTENT, responses=errors(NotAuthenticated))
@allowed_in_maintenance
async def log_out(
    session: WriteSession,
    identity: LogoutUser,
    presented: OptionalPresentedToken,
    response: Response,
) -> None:
    """End the session of the access token or the refresh token; other sessions stay."""
    text = presented.token if presented else None
    await sessions.log_out(session, identity=identity, refresh_token=text)
    delete_cookie(response)


@router.post("/logout-all", status_code=status.HTTP_204_NO_CONTENT)
@allowed_in_maintenance
async def log_out_everywhere(session: WriteSession, actor: Actor, response: Response) -> None:
    """End all your sessions on all devices; API keys stay."""
    await sessions.log_out_everywhere(session, actor=actor)
    delete_cookie(response)


@router.get("/me", response_model=UserPrivate)
async def read_identity(user: RequiredUsersViewer) -> Identity:
    """Read the account of the access token."""
    return user
