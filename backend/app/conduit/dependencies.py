"""Who is asking, by `Authorization: Token …`, as Conduit has it, or `Bearer …`."""

from typing import Annotated, Any

from fastapi import Depends, Request, Security
from fastapi.openapi.models import APIKey, APIKeyIn
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase

from app.auth import dependencies
from app.auth.dependencies import KnownViewer, Viewer
from app.auth.identity import Identity, find_by_session
from app.auth.security import read_access_token
from app.core.errors import InvalidToken
from app.core.scopes import Scope
from app.db.dependencies import CurrentDatabase, WriteSession


class TokenHeader(SecurityBase):
    """The token of the header, by either name of the scheme; None where there is none."""

    scheme_name = "Token"

    def __init__(self) -> None:
        self.model = APIKey.model_validate(
            {
                "in": APIKeyIn.header,
                "name": "Authorization",
                "description": "`Token …`, with the token of a login here or at `/auth/login`",
            }
        )

    async def __call__(self, request: Request) -> str | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return (token.strip() or None) if scheme.lower() in {"token", "bearer"} else None


token_header = TokenHeader()
PresentedToken = Annotated[str, Depends(token_header)]
"""The token of a route that needs one: its reader has been found by it."""
_MaybeToken = Annotated[str | None, Depends(token_header)]


async def actor(
    token: _MaybeToken, session: WriteSession, database: CurrentDatabase, scopes: SecurityScopes
) -> Identity:
    """As natively."""
    return await dependencies.actor(token, session, database, scopes)


async def logged_in(session: WriteSession, token: str) -> Identity:
    """The user to whom this token was given a moment ago, in the same unit of work."""
    claims = read_access_token(token)
    identity = await find_by_session(session, user_id=claims.user_id, session_id=claims.session_id)
    if identity is None:
        raise InvalidToken
    return identity


async def confirming(
    token: _MaybeToken, database: CurrentDatabase, scopes: SecurityScopes
) -> Identity:
    """As natively."""
    return await dependencies.confirming(token, database, scopes)


def _reading(reader: type[Viewer], scope: Scope) -> Any:
    return Security(reader(scope, scheme=token_header), scopes=[scope])


ArticlesViewer = Annotated[Identity | None, _reading(Viewer, Scope.ARTICLES_READ)]
ArticlesReader = Annotated[Identity, _reading(KnownViewer, Scope.ARTICLES_READ)]
ArticlesActor = Annotated[Identity, Security(actor, scopes=[Scope.ARTICLES_WRITE])]
CommunityViewer = Annotated[Identity | None, _reading(Viewer, Scope.COMMUNITY_READ)]
CommunityActor = Annotated[Identity, Security(actor, scopes=[Scope.COMMUNITY_WRITE])]
UsersReader = Annotated[Identity, _reading(KnownViewer, Scope.USERS_READ)]
Confirming = Annotated[Identity, Security(confirming)]
"""Who is changing their account; never by an API key."""
