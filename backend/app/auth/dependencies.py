"""The HTTP side of auth: who is asking, as a handler asks for it."""

from typing import Annotated

from fastapi import Depends
from fastapi.security import OAuth2PasswordBearer
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.auth.identity import Identity, find_identity
from app.auth.security import user_id_of
from app.core.errors import InvalidToken, NotAuthenticated
from app.db.dependencies import ReadConnection, WriteSession

bearer_token = OAuth2PasswordBearer(
    tokenUrl="auth/login", auto_error=False, description="Log in with a username or an email."
)

BearerToken = Annotated[str | None, Depends(bearer_token)]


async def _identify(token: str, connection: AsyncConnection | AsyncSession) -> Identity:
    identity = await find_identity(connection, user_id=user_id_of(token))
    if identity is None:
        raise InvalidToken
    return identity


async def viewer(token: BearerToken, connection: ReadConnection) -> Identity | None:
    """The user who is reading, or None for an anonymous request.

    A token that is not valid is an error even where none is needed: its sender believes to be
    known, and would take what the public sees for all there is.
    """
    return None if token is None else await _identify(token, connection)


Viewer = Annotated[Identity | None, Depends(viewer)]
"""Who is reading: a user, or None for anybody."""


async def current_user(viewer: Viewer) -> Identity:
    """The user who is reading. Raises NotAuthenticated for an anonymous request."""
    if viewer is None:
        raise NotAuthenticated
    return viewer


CurrentUser = Annotated[Identity, Depends(current_user)]
"""Who is reading what is not for anybody."""


async def actor(token: BearerToken, session: WriteSession) -> Identity:
    """The user who is changing something. Raises NotAuthenticated for an anonymous request.

    Found on the connection that will write: a handler that waits for a lock keeps none from the
    readers, and a replica that lags behind cannot deny a user who has just registered.
    """
    if token is None:
        raise NotAuthenticated
    return await _identify(token, session)


Actor = Annotated[Identity, Depends(actor)]
"""Who is changing something."""
