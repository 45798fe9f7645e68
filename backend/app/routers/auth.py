"""/auth: logging in, and who one is."""

from typing import Annotated

from fastapi import Form, Response

from app.auth.dependencies import CurrentUser
from app.auth.identity import Identity
from app.core.errors import InvalidCredentials, UnsupportedMediaType
from app.core.routing import create_router
from app.db.dependencies import CurrentDatabase, WriteSession
from app.routers.responses import NEEDS_USER, errors
from app.schemas.auth import AccessToken, LoginForm
from app.schemas.user import UserPrivate
from app.services import auth

router = create_router(prefix="/auth", tag="auth")


@router.post("/login", responses=errors(InvalidCredentials, UnsupportedMediaType))
async def login(
    session: WriteSession,
    database: CurrentDatabase,
    form: Annotated[LoginForm, Form()],
    response: Response,
) -> AccessToken:
    """Log in with a username or an email, and get an access token."""
    response.headers["Cache-Control"] = "no-store"  # RFC 6749 §5.1
    return await auth.login(session, database=database, form=form)


@router.get("/me", response_model=UserPrivate, responses=errors(*NEEDS_USER))
async def read_identity(user: CurrentUser) -> Identity:
    """Read the account that the access token belongs to."""
    return user
