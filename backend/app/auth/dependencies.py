"""The HTTP side of auth: who is asking, as a handler asks for it.

A route that takes API keys says which scope they need, by the alias it uses: `ArticlesActor` for
`articles:write`. `CurrentUser` and `Actor` name none: they take a login and nothing else.
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
    Client,
    Identity,
    IPAddress,
    find_by_api_key,
    find_by_session,
    note_use,
)
from app.auth.security import read_access_token
from app.auth.tokens import API_KEY_PREFIX, fingerprint, is_api_key
from app.core.errors import InsufficientScope, InvalidToken, NotAuthenticated, SessionRequired
from app.core.scopes import SCOPE_DESCRIPTIONS, Scope
from app.db.dependencies import CurrentDatabase, WriteSession
from app.db.reading import Reader
from app.db.session import Database

MAX_USER_AGENT = 300

bearer_token = OAuth2PasswordBearer(
    tokenUrl="auth/login",
    auto_error=False,
    description=(
        "Log in with a username or an email. Scopes are for API keys: a login has all, and what "
        "names none takes a login."
    ),
    scopes={scope.value: description for scope, description in SCOPE_DESCRIPTIONS.items()},
)

BearerToken = Annotated[str | None, Depends(bearer_token)]


class TokenScheme(Protocol):
    """What finds the token in a request."""

    model: Any
    scheme_name: str

    async def __call__(self, request: Request) -> str | None: ...


class Viewer(SecurityBase):
    """Who is reading: a user, or None for an anonymous request.

    It reads the request itself, so that it is one dependency and not four: this is asked each time
    that anybody reads.

    A token that is not valid is an error even where none is needed: its sender believes to be
    known, and would take what the public sees for all there is.
    """

    def __init__(self, *scopes: Scope, scheme: TokenScheme = bearer_token) -> None:
        """`scheme` finds the token in the request."""
        self.model = scheme.model
        self.scheme_name = scheme.scheme_name
        self._scheme = scheme
        self._scopes = scopes

    async def __call__(self, request: Request) -> Identity | None:
        token = await self._scheme(request)
        if token is None:
            return None
        database: Database = request.app.state.database
        if token.startswith(API_KEY_PREFIX):
            return await _by_api_key(token, database, self._scopes)
        return await _in_session(token, database)


class KnownViewer(Viewer):
    """The user who is reading. Raises NotAuthenticated for an anonymous request."""

    async def __call__(self, request: Request) -> Identity:
        viewer = await super().__call__(request)
        if viewer is None:
            raise NotAuthenticated
        return viewer


async def _in_session(token: str, database: Database) -> Identity:
    """A session that a replica has not heard of yet is looked for on the primary."""
    try:
        return await _by_session(token, database.reader)
    except _UnknownSession:
        if not database.has_replica:
            raise
    async with database.autocommit() as primary:
        return await _by_session(token, primary)


async def actor(
    token: BearerToken, session: WriteSession, database: CurrentDatabase, scopes: SecurityScopes
) -> Identity:
    """The user who is changing something. Raises NotAuthenticated for an anonymous request.

    Found on the connection that will write: a handler that waits for a lock keeps none from the
    readers, and a replica that lags behind cannot deny a user who has just registered.
    """
    if token is None:
        raise NotAuthenticated
    if token.startswith(API_KEY_PREFIX):
        return await _by_api_key(token, database, scopes.scopes)
    return await _by_session(token, session)


async def leaving(
    token: BearerToken, session: WriteSession, database: CurrentDatabase, scopes: SecurityScopes
) -> Identity | None:
    """Who logs out, as far as an access token says it: it may have expired meanwhile."""
    try:
        return await actor(token, session, database, scopes)
    except NotAuthenticated:
        return None


async def confirming(
    token: BearerToken, database: CurrentDatabase, scopes: SecurityScopes
) -> Identity:
    """The user who is about to confirm something by a password or a code.

    Found in a unit of work that is over before the handler starts: no connection is held while a
    password is hashed, and none waits for another while an attempt is counted.
    """
    async with database.unit_of_work() as session:
        return await actor(token, session, database, scopes)


class _UnknownSession(InvalidToken):
    """A genuine token of a session that this database does not have."""


async def _by_session(token: str, connection: Reader | AsyncConnection | AsyncSession) -> Identity:
    claims = read_access_token(token)
    identity = await find_by_session(
        connection, user_id=claims.user_id, session_id=claims.session_id
    )
    if identity is None:
        raise _UnknownSession
    return identity


async def _by_api_key(token: str, database: Database, needed: Sequence[str]) -> Identity:
    """The user of an API key that has the scopes.

    Found on the primary, which knows the newest keys, before anything is locked; each statement is
    a transaction of its own.
    """
    if not is_api_key(token):
        raise InvalidToken
    async with database.autocommit() as connection:
        key = await find_by_api_key(connection, fingerprint=fingerprint(token))
        if key is None:
            raise InvalidToken
        if not needed:
            raise SessionRequired
        for scope in needed:
            if scope not in (key.identity.scopes or ()):
                raise InsufficientScope(scope)
        await note_use(connection, key=key)
    return key.identity


async def current_client(request: Request) -> Client:
    """Where the request comes from: what the server, or the proxy that it trusts, says."""
    host = request.client.host if request.client else ""
    try:
        ip: IPAddress | None = ipaddress.ip_address(host)
    except ValueError:
        ip = None
    if isinstance(ip, IPv6Address):  # what a socket for both families calls an IPv4 address
        ip = ip.ipv4_mapped or ip
    agent = request.headers.get("user-agent", "")
    printable = "".join(letter for letter in agent if letter.isprintable())
    return Client(ip=ip, user_agent=printable[:MAX_USER_AGENT])


CurrentClient = Annotated[Client, Depends(current_client)]
"""The address and the program that a request comes from."""


async def confirming_if_known(
    token: BearerToken, database: CurrentDatabase, scopes: SecurityScopes
) -> Identity | None:
    """The user who is about to confirm something, or None without a valid login.

    Found in a unit of work that is over before the handler starts, as in `confirming`.
    """
    try:
        return await confirming(token, database, scopes)
    except (NotAuthenticated, SessionRequired):
        return None


CurrentUser = Annotated[Identity, Security(KnownViewer())]
"""Who is reading what is their own business; never by an API key."""
Actor = Annotated[Identity, Security(actor)]
"""Who is changing what is their own business; never by an API key."""
Confirming = Annotated[Identity, Security(confirming)]
"""Who is changing what takes their password or a code too; never by an API key."""
MaybeConfirming = Annotated[Identity | None, Security(confirming_if_known)]
"""Who is confirming something for which a password in the body is enough."""
Leaving = Annotated[Identity | None, Security(leaving)]
"""Who is logging out, where their access token is still good."""


def _taking(reading: type[Viewer], scope: Scope) -> Any:
    """What takes an API key with this scope as well."""
    return Security(reading(scope), scopes=[scope])


ArticlesViewer = Annotated[Identity | None, _taking(Viewer, Scope.ARTICLES_READ)]
"""Who is reading articles: a user, or None for anybody."""
ArticlesActor = Annotated[Identity, Security(actor, scopes=[Scope.ARTICLES_WRITE])]
"""Who is writing articles."""
ArticlesReader = Annotated[Identity, _taking(KnownViewer, Scope.ARTICLES_READ)]
"""Who is reading what only those who write articles see: a user."""
MediaReader = Annotated[Identity, _taking(KnownViewer, Scope.MEDIA_READ)]
"""Who is listing their pictures."""
MediaActor = Annotated[Identity, Security(actor, scopes=[Scope.MEDIA_WRITE])]
"""Who is uploading and changing pictures."""
UsersViewer = Annotated[Identity | None, _taking(Viewer, Scope.USERS_READ)]
"""Who is reading users: a user, or None for anybody."""
UsersReader = Annotated[Identity, _taking(KnownViewer, Scope.USERS_READ)]
"""Who is reading users: a user."""
UsersActor = Annotated[Identity, Security(actor, scopes=[Scope.USERS_WRITE])]
"""Who is changing a user's profile."""
CommunityViewer = Annotated[Identity | None, _taking(Viewer, Scope.COMMUNITY_READ)]
"""Who is reading what readers do: a user, or None for anybody."""
CommunityReader = Annotated[Identity, _taking(KnownViewer, Scope.COMMUNITY_READ)]
"""Who is reading what readers do: a user."""
CommunityActor = Annotated[Identity, Security(actor, scopes=[Scope.COMMUNITY_WRITE])]
"""Who is following, favoriting, commenting, moderating or reporting."""
AddressesReader = Annotated[Identity, _taking(KnownViewer, Scope.ADDRESSES_READ)]
"""Who is reading addresses."""
AddressesActor = Annotated[Identity, Security(actor, scopes=[Scope.ADDRESSES_WRITE])]
"""Who is changing addresses."""
