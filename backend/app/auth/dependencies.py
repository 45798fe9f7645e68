"""FastAPI dependencies for authentication.

The alias that a route uses determines the scope that an API key needs. For example,
`ArticlesActor` requires `articles:write`. `CurrentUser` and `Actor` accept only login sessions.
"""

import ipaddress
from collections.abc import Sequence
from ipaddress import IPv6Address
from typing import Annotated, Any, Protocol

from fastapi import Depends, Request, Security
from fastapi.security import OAuth2PasswordBearer, SecurityScopes
from fastapi.security.base import SecurityBase
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.auth.identity import (
    ApiKeyIdentity,
    Client,
    Identity,
    IPAddress,
    find_by_api_key,
    find_by_session,
    record_use,
    record_use_on_primary,
    share_account,
)
from app.auth.security import read_access_token
from app.auth.tokens import API_KEY_PREFIX, fingerprint, is_api_key
from app.core.enums import SCOPE_DESCRIPTIONS, Scope
from app.core.errors import (
    InsufficientScope,
    InvalidToken,
    NotAuthenticated,
    SessionRequired,
    TokenExpired,
    TokenRevoked,
)
from app.db.dependencies import CurrentDatabase, WriteSession
from app.db.reading import Reader
from app.db.session import Database
from app.http.routing import raises

MAX_USER_AGENT = 300

_TOKEN_ERRORS = (InvalidToken, TokenExpired, TokenRevoked)

bearer_token = OAuth2PasswordBearer(
    tokenUrl="auth/login",
    auto_error=False,
    description=(
        "Log in with a username or an email. Scopes apply to API keys. A login session has all "
        "scopes. Operations without a scope require a login session."
    ),
    scopes={scope.value: description for scope, description in SCOPE_DESCRIPTIONS.items()},
)

BearerToken = Annotated[str | None, Depends(bearer_token)]


class TokenScheme(Protocol):
    """Extracts the token from the header Authorization of a request."""

    model: Any
    scheme_name: str

    async def __call__(self, request: Request) -> str | None: ...


@raises(*_TOKEN_ERRORS)
class Viewer(SecurityBase):
    """The user who sends a read request; None for an anonymous request.

    The class reads the request directly, which takes one dependency instead of four. Every read
    request resolves it.

    An invalid token is an error even if no login is required. Otherwise its sender would mistake
    the public view for the complete one.
    """

    def __init__(self, *scopes: Scope, scheme: TokenScheme = bearer_token) -> None:
        """`scheme` extracts the token from the request."""
        self.model = scheme.model
        self.scheme_name = scheme.scheme_name
        self._scheme = scheme
        self._scopes = scopes

    async def __call__(self, request: Request) -> Identity | None:
        # Most reads are anonymous. A scheme would search a mapping of all headers: 6 µs.
        if all(name != b"authorization" for name, _ in request.scope["headers"]):
            return None
        token = await self._scheme(request)
        if token is None:
            return None
        database: Database = request.app.state.database
        return await viewer_of(token, database, self._scopes)


@raises(NotAuthenticated, *_TOKEN_ERRORS)
class RequiredViewer(Viewer):
    """The user who sends a read request. Raises NotAuthenticated for an anonymous request."""

    async def __call__(self, request: Request) -> Identity:
        viewer = await super().__call__(request)
        if viewer is None:
            raise NotAuthenticated
        return viewer


async def viewer_of(token: str, database: Database, scopes: Sequence[str]) -> Identity:
    """Return the user of a token; an API key needs the scopes.

    Raises InvalidToken, TokenExpired, TokenRevoked, InsufficientScope, SessionRequired.
    """
    if not token.startswith(API_KEY_PREFIX):
        return await _find_by_session(token, database)
    if database.has_replicas:
        return await _find_by_api_key(token, database, scopes)
    return await _by_api_key(token, database, scopes)


async def _find_by_session(token: str, database: Database) -> Identity:
    """Find the session on the replica, and on the primary if the replica does not have it yet."""
    try:
        return await _by_session(token, database.reader)
    except _SessionNotInDatabase:
        if not database.has_replicas:
            raise
    async with database.autocommit() as primary:
        return await _by_session(token, primary)


@raises(NotAuthenticated, *_TOKEN_ERRORS)
async def actor(
    token: BearerToken, session: WriteSession, database: CurrentDatabase, scopes: SecurityScopes
) -> Identity:
    """Return the user who sends a write request. Raises NotAuthenticated if it is anonymous.

    The query uses the connection that will write. A handler that waits for a lock therefore
    occupies no read connection. A lagging replica cannot reject a user who has just registered.
    """
    if token is None:
        raise NotAuthenticated
    if token.startswith(API_KEY_PREFIX):
        identity = await _by_api_key(token, database, scopes.scopes)
        await share_account(session, user_id=identity.id)
        return identity
    return await _by_session(token, session)


@raises(SessionRequired)
async def logout_user(
    token: BearerToken, session: WriteSession, database: CurrentDatabase, scopes: SecurityScopes
) -> Identity | None:
    """Return the user who logs out; None if the access token is missing or no longer valid."""
    try:
        return await actor(token, session, database, scopes)
    except NotAuthenticated:
        return None


@raises(NotAuthenticated, *_TOKEN_ERRORS)
async def confirming_user(
    token: BearerToken, database: CurrentDatabase, scopes: SecurityScopes
) -> Identity:
    """Return the user of a request that is confirmed with a password or a code.

    The unit of work ends before the handler starts. The request therefore holds no connection
    while a password is hashed or an attempt is counted.
    """
    async with database.unit_of_work() as session:
        return await actor(token, session, database, scopes)


class _SessionNotInDatabase(InvalidToken):
    """The token is valid, but this database does not contain its session."""


async def _by_session(token: str, connection: Reader | AsyncConnection | AsyncSession) -> Identity:
    claims = read_access_token(token)
    identity = await find_by_session(
        connection, user_id=claims.user_id, session_id=claims.session_id
    )
    if identity is None:
        raise _SessionNotInDatabase
    return identity


@raises(NotAuthenticated, *_TOKEN_ERRORS)
async def key_user(token: BearerToken, database: CurrentDatabase) -> Identity:
    """Return the user of an API key, whose scopes the caller checks. Sessions are refused."""
    if token is None:
        raise NotAuthenticated
    if not token.startswith(API_KEY_PREFIX):
        raise InvalidToken("Send an API key as the bearer token")
    return await _by_api_key(token, database, None)


async def _by_api_key(token: str, database: Database, needed: Sequence[str] | None) -> Identity:
    """Return the user of an API key that has the needed scopes; None for any scopes.

    The queries run on the primary, which has the newest keys, and in autocommit mode. They run
    before the request locks any row.
    """
    hashed = _fingerprint(token)
    async with database.autocommit() as connection:
        key = await _read_key(hashed, connection, needed)
        await record_use(connection, key)
    return key.identity


async def _find_by_api_key(token: str, database: Database, needed: Sequence[str]) -> Identity:
    """Return the user of an API key for reading, like `_by_api_key`, from a replica."""
    key = await _read_key(_fingerprint(token), database.reader, needed)
    await record_use_on_primary(database, key)
    return key.identity


def _fingerprint(token: str) -> bytes:
    if not is_api_key(token):
        raise InvalidToken
    return fingerprint(token)


async def _read_key(
    hashed: bytes, connection: Reader | AsyncConnection, needed: Sequence[str] | None
) -> ApiKeyIdentity:
    key = await find_by_api_key(connection, fingerprint=hashed)
    if key is None:
        raise InvalidToken
    if needed is not None and not needed:
        raise SessionRequired
    for scope in needed or ():
        if scope not in (key.identity.scopes or ()):
            raise InsufficientScope(scope)
    return key


async def current_client(request: Request) -> Client:
    """Return the client address, as reported by the server or a trusted proxy, and user agent."""
    host = request.client.host if request.client else ""
    try:
        ip: IPAddress | None = ipaddress.ip_address(host)
    except ValueError:
        ip = None
    if isinstance(ip, IPv6Address):  # a dual-stack socket reports IPv4 addresses as IPv6
        ip = ip.ipv4_mapped or ip
    agent = request.headers.get("user-agent", "")
    printable = "".join(character for character in agent if character.isprintable())
    return Client(ip=ip, user_agent=printable[:MAX_USER_AGENT])


CurrentClient = Annotated[Client, Depends(current_client)]
"""The address and the user agent of the client."""


async def optional_confirming_user(
    token: BearerToken, database: CurrentDatabase, scopes: SecurityScopes
) -> Identity | None:
    """Return the user of a request that is confirmed; None without a valid login session.

    The unit of work ends before the handler starts, as in `confirming_user`.
    """
    try:
        return await confirming_user(token, database, scopes)
    except (NotAuthenticated, SessionRequired):
        return None


KeyUser = Annotated[Identity, Depends(key_user)]
"""The user of an API key with any scopes."""
CurrentUser = Annotated[Identity, Security(RequiredViewer())]
"""The user who reads their own account; API keys are refused."""
Actor = Annotated[Identity, Security(actor)]
"""The user who changes something that API keys must not change."""
ConfirmingUser = Annotated[Identity, Security(confirming_user)]
"""The user who confirms a change with a password or a code; API keys are refused."""
OptionalConfirmingUser = Annotated[Identity | None, Security(optional_confirming_user)]
"""The user who confirms a change, or None: a password in the body is sufficient."""
LogoutUser = Annotated[Identity | None, Security(logout_user)]
"""The user who logs out, or None if the access token is no longer valid."""


def _viewer_with_scope(viewer: type[Viewer], scope: Scope) -> Any:
    """Return a dependency that also accepts API keys with this scope."""
    return Security(viewer(scope), scopes=[scope])


ArticlesViewer = Annotated[Identity | None, _viewer_with_scope(Viewer, Scope.ARTICLES_READ)]
"""The user who reads articles; None for an anonymous request."""
ArticlesActor = Annotated[Identity, Security(actor, scopes=[Scope.ARTICLES_WRITE])]
"""The user who writes articles."""
RequiredArticlesViewer = Annotated[
    Identity, _viewer_with_scope(RequiredViewer, Scope.ARTICLES_READ)
]
"""The user who reads drafts, revisions or other data that only authors and editors see."""
RequiredArticlesWriter = Annotated[
    Identity, _viewer_with_scope(RequiredViewer, Scope.ARTICLES_WRITE)
]
"""The user who reads the progress of their imports."""
RequiredMediaViewer = Annotated[Identity, _viewer_with_scope(RequiredViewer, Scope.MEDIA_READ)]
"""The user who lists media."""
MediaActor = Annotated[Identity, Security(actor, scopes=[Scope.MEDIA_WRITE])]
"""The user who uploads or changes media."""
UsersViewer = Annotated[Identity | None, _viewer_with_scope(Viewer, Scope.USERS_READ)]
"""The user who reads users; None for an anonymous request."""
RequiredUsersViewer = Annotated[Identity, _viewer_with_scope(RequiredViewer, Scope.USERS_READ)]
"""The user who reads users."""
UsersActor = Annotated[Identity, Security(actor, scopes=[Scope.USERS_WRITE])]
"""The user who changes a profile."""
CommunityViewer = Annotated[Identity | None, _viewer_with_scope(Viewer, Scope.COMMUNITY_READ)]
"""The user who reads comments, favorites or profiles; None for an anonymous request."""
RequiredCommunityViewer = Annotated[
    Identity, _viewer_with_scope(RequiredViewer, Scope.COMMUNITY_READ)
]
"""The user who reads comments, favorites or profiles."""
CommunityActor = Annotated[Identity, Security(actor, scopes=[Scope.COMMUNITY_WRITE])]
"""The user who follows, favorites, comments, moderates or reports."""
RequiredAddressesViewer = Annotated[
    Identity, _viewer_with_scope(RequiredViewer, Scope.ADDRESSES_READ)
]
"""The user who reads addresses."""
AddressesActor = Annotated[Identity, Security(actor, scopes=[Scope.ADDRESSES_WRITE])]
"""The user who changes addresses."""
RequiredWebhooksViewer = Annotated[
    Identity, _viewer_with_scope(RequiredViewer, Scope.WEBHOOKS_READ)
]
"""The user who reads webhooks and their deliveries."""
WebhooksActor = Annotated[Identity, Security(actor, scopes=[Scope.WEBHOOKS_WRITE])]
"""The user who creates, changes or tests webhooks."""
