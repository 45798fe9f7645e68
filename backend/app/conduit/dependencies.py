"""Authentication with `Authorization: Token …`, as in the RealWorld API, or `Bearer …`."""

from typing import Annotated, Any, NamedTuple

from fastapi import Depends, Request, Security
from fastapi.openapi.models import APIKey, APIKeyIn
from fastapi.security import SecurityScopes
from fastapi.security.base import SecurityBase

from app.auth import dependencies
from app.auth.dependencies import RequiredViewer, Viewer
from app.auth.identity import Identity, find_by_session
from app.auth.security import read_access_token
from app.conduit.schemas import Name
from app.core.enums import Scope
from app.core.errors import InvalidToken
from app.db.dependencies import CurrentDatabase, WriteSession
from app.services.articles import reading


class ArticleToChange(NamedTuple):
    """The fields of an article that an update needs."""

    id: int
    title: str


class TokenHeader(SecurityBase):
    """Returns the token of the header, with either scheme; None without a token."""

    scheme_name = "Token"

    def __init__(self) -> None:
        self.model = APIKey.model_validate(
            {
                "in": APIKeyIn.header,
                "name": "Authorization",
                "description": "`Token ` and a token of this API or of `/auth/login`",
            }
        )

    async def __call__(self, request: Request) -> str | None:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        return (token.strip() or None) if scheme.lower() in {"token", "bearer"} else None


token_header = TokenHeader()
PresentedToken = Annotated[str, Depends(token_header)]
"""The token of a request that another dependency has authenticated."""
_MaybeToken = Annotated[str | None, Depends(token_header)]


async def actor(
    token: _MaybeToken, session: WriteSession, database: CurrentDatabase, scopes: SecurityScopes
) -> Identity:
    """Return the user who sends a write request, as the native API does."""
    return await dependencies.actor(token, session, database, scopes)


async def identity_of_new_token(session: WriteSession, token: str) -> Identity:
    """Return the user of a token that was issued in this unit of work."""
    claims = read_access_token(token)
    identity = await find_by_session(session, user_id=claims.user_id, session_id=claims.session_id)
    if identity is None:
        raise InvalidToken
    return identity


async def confirming_user(
    token: _MaybeToken, database: CurrentDatabase, scopes: SecurityScopes
) -> Identity:
    """Return the user of a confirmed request, as the native API does."""
    return await dependencies.confirming_user(token, database, scopes)


class OptionalViewer(Viewer):
    """The user who sends a read request; None for an anonymous request or an invalid token.

    Front ends send a stored token with every request. With an error, a visitor whose token has
    expired could not even see the home page.
    """

    async def __call__(self, request: Request) -> Identity | None:
        try:
            return await super().__call__(request)
        except InvalidToken:
            return None


def _viewer_with_scope(viewer: type[Viewer], scope: Scope) -> Any:
    return Security(viewer(scope, scheme=token_header), scopes=[scope])


ArticlesViewer = Annotated[Identity | None, _viewer_with_scope(OptionalViewer, Scope.ARTICLES_READ)]
RequiredArticlesViewer = Annotated[
    Identity, _viewer_with_scope(RequiredViewer, Scope.ARTICLES_READ)
]
ArticlesActor = Annotated[Identity, Security(actor, scopes=[Scope.ARTICLES_WRITE])]
CommunityViewer = Annotated[
    Identity | None, _viewer_with_scope(OptionalViewer, Scope.COMMUNITY_READ)
]
CommunityActor = Annotated[Identity, Security(actor, scopes=[Scope.COMMUNITY_WRITE])]
RequiredUsersViewer = Annotated[Identity, _viewer_with_scope(RequiredViewer, Scope.USERS_READ)]
ConfirmingUser = Annotated[Identity, Security(confirming_user)]
"""The user who changes their account; API keys are refused."""


async def _article_to_change(
    session: WriteSession, actor: ArticlesActor, slug: Name
) -> ArticleToChange:
    return ArticleToChange(
        **await reading.get_fields(session, slug=slug, viewer=actor, fields=("id", "title"))
    )


async def _discussed_article_id(session: WriteSession, actor: CommunityActor, slug: Name) -> int:
    return await reading.get_article_id_by_slug(session, slug=slug, viewer=actor)


# Dependencies are resolved before the body is validated: an unknown article is 404 with any body.
CurrentArticle = Annotated[ArticleToChange, Depends(_article_to_change)]
"""The article of a write request. Raises ArticleNotFound."""
DiscussedArticleId = Annotated[int, Depends(_discussed_article_id)]
"""The id of the article whose comments or favorites change. Raises ArticleNotFound."""
