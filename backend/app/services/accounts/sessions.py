"""Sessions: opened by a login, extended by a refresh, ended by logout or refresh token reuse.

Each refresh token is used once and exchanged for its successor. Browser tabs refresh concurrently,
and responses get lost. So for ten seconds, a repeated exchange returns the same successor. A later
reuse may come from a thief, so it ends the session (RFC 9700 §4.14.2).
"""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    and_,
    bindparam,
    case,
    cast,
    exists,
    func,
    literal,
    null,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Client, Identity, network_of
from app.auth.permissions import Action, require
from app.auth.security import access_token_seconds, create_access_token
from app.auth.tokens import (
    PageToken,
    RefreshToken,
    fingerprint,
    new_secret,
    page_fingerprint,
)
from app.core import clock
from app.core.config import get_settings
from app.core.errors import (
    InvalidRefreshToken,
    InvalidToken,
    NotAuthenticated,
    SessionNotFound,
    UserNotFound,
)
from app.core.limits import LimitKind
from app.db.reading import Reader
from app.db.selection import Selection
from app.db.session import Database, constraint_errors, paged
from app.models.accounts.session import UserSession
from app.models.accounts.user import User
from app.schemas.accounts.login import Tokens
from app.schemas.accounts.session import (
    SessionKind,
    SessionQuery,
    SessionResponse,
    UserSessionResponse,
)
from app.schemas.page import PageQuery
from app.services import audit, limits
from app.services.audit import AuditAction
from app.services.limits import LimitedUser
from app.services.pages.keyset import Keyset, keyset, read_page
from app.services.pages.paging import ListPage
from app.services.purging import Batch, delete_oldest, update_oldest

MAX_KNOWN_PLACES = 1000
REUSE_GRACE_PERIOD = timedelta(seconds=10)
"""How long an exchanged refresh token still returns the same successor."""
NETWORK_REMEMBERED_FOR = timedelta(days=30)
"""How long a network counts as known after the user's last session from it."""
RETENTION = timedelta(days=30)

USER_REFERENCE = {"fk_user_sessions_user_id": InvalidToken}


_ACTIVE = and_(
    UserSession.revoked_at.is_(None),
    UserSession.expires_at > bindparam("now"),
    UserSession.last_used_at > bindparam("idle_since"),
)


def _active_parameters() -> dict[str, datetime]:
    """Return the parameters of _ACTIVE."""
    now = clock.now()
    return {"now": now, "idle_since": now - timedelta(days=get_settings().session_idle_days)}


async def open_session(
    session: AsyncSession,
    *,
    user_id: int,
    client: Client,
    seconds: int | None = None,
    by_conduit: bool = False,
) -> Tokens:
    """Open a session, and return its access token and refresh token.

    `seconds` overrides the lifetime of the access token. `by_conduit` marks a login at the
    RealWorld API. Raises LimitReached, and InvalidToken if the account was deleted concurrently.
    """
    secret = new_secret()
    session_id = await _add(
        session,
        user_id=user_id,
        client=client,
        token_hash=fingerprint(secret),
        by_conduit=by_conduit,
    )
    return _tokens(user_id, session_id, secret, seconds=seconds)


async def open_page_session(session: AsyncSession, *, user_id: int, client: Client) -> PageToken:
    """Open a session of the web pages, and return the value of its cookie.

    No access token is issued for it. Raises LimitReached, and InvalidToken if the account was
    deleted concurrently.
    """
    secret = new_secret()
    session_id = await _add(
        session,
        user_id=user_id,
        client=client,
        token_hash=page_fingerprint(secret),
        by_page=True,
        confirmed_at=clock.now(),
    )
    return PageToken(session_id, secret)


async def _add(session: AsyncSession, *, user_id: int, client: Client, **columns: Any) -> int:
    """Add a session with these columns, and return its id."""
    await limits.spend(session, LimitedUser(user_id), {LimitKind.LOGINS: 1})
    now = clock.now()
    login = UserSession(
        user_id=user_id,
        created_at=now,
        last_used_at=now,
        expires_at=now + timedelta(days=get_settings().session_expire_days),
        ip=client.ip,
        user_agent=client.user_agent,
        **columns,
    )
    session.add(login)
    with constraint_errors(USER_REFERENCE):
        await session.flush()  # checks the foreign key and assigns the id
    return login.id


_BY_ID = UserSession.id == bindparam("session_id")
_ROTATE = (
    update(UserSession)
    .where(_BY_ID, UserSession.token_hash == bindparam("presented"), _ACTIVE)
    .where(User.id == UserSession.user_id, User.is_active)
    .values(
        token_hash=bindparam("successor"),
        previous_hash=bindparam("presented"),
        # The grace period starts when the exchange is done. `now` is older if the statement had
        # to wait for a lock. The database clock is used if it is later.
        last_used_at=func.greatest(bindparam("now"), func.clock_timestamp()),
    )
    .returning(UserSession.user_id)
)
_STATE = (
    select(
        UserSession.user_id,
        UserSession.token_hash,
        UserSession.previous_hash,
        UserSession.last_used_at,
        _ACTIVE.label("is_live"),
    )
    .join(User)
    .where(_BY_ID, User.is_active)
)


async def refresh(database: Database, *, text: str) -> Tokens:
    """Exchange a refresh token for the next pair of tokens.

    Raises InvalidRefreshToken for an unknown, used, expired or revoked token, without the reason.
    A used token ends its session permanently.
    """
    token = RefreshToken.parse(text)
    if token is None:
        raise InvalidRefreshToken
    presented = fingerprint(token.secret)
    successors = token.successors()
    parameters = {
        "session_id": token.session_id,
        "presented": presented,
        "successor": fingerprint(successors[0]),
        **_active_parameters(),
    }
    # One statement decides: the second of two concurrent requests waits, and then matches no row.
    user_id = await database.primary.scalar(_ROTATE, parameters)
    if user_id is not None:
        return _tokens(user_id, token.session_id, successors[0])

    async with database.unit_of_work() as session:
        state = (await session.execute(_STATE, parameters)).one_or_none()
        if state is None or not state.is_live:
            raise InvalidRefreshToken
        grace_end = state.last_used_at + REUSE_GRACE_PERIOD
        if presented == state.previous_hash and clock.now() <= grace_end:
            # Find the stored successor among those of each key. A process that does not have the
            # newest key yet finds none; that is not a reuse.
            for secret in successors:
                if fingerprint(secret) == state.token_hash:
                    return _tokens(state.user_id, token.session_id, secret)
        elif token.has_valid_tag and await _end(session, UserSession.id == token.session_id):
            action = AuditAction.REFRESH_REUSED
            audit.record(session, action, actor_id=None, subject_id=state.user_id)
    raise InvalidRefreshToken


def _tokens(user_id: int, session_id: int, secret: str, *, seconds: int | None = None) -> Tokens:
    seconds = seconds or access_token_seconds()
    token = create_access_token(user_id=user_id, session_id=session_id, seconds=seconds)
    return Tokens(
        access_token=token,
        expires_in=seconds,
        refresh_token=str(RefreshToken.issue(session_id, secret)),
    )


async def _session_of(session: AsyncSession, text: str) -> tuple[int, int] | None:
    """Return the user id and session id of a refresh token; None if it is not valid."""
    token = RefreshToken.parse(text)
    if token is None:
        return None
    query = select(UserSession.user_id, UserSession.id).where(
        _BY_ID, _is_token(fingerprint(token.secret)), _ACTIVE
    )
    row = (
        await session.execute(query, {"session_id": token.session_id, **_active_parameters()})
    ).one_or_none()
    return None if row is None else (row.user_id, row.id)


def _is_token(hashed: bytes) -> ColumnElement[bool]:
    return or_(UserSession.token_hash == hashed, UserSession.previous_hash == hashed)


def known_by(client: Client, *, session_token: str | None) -> ColumnElement[str | None]:
    """Return an expression for what makes a client known to the user of the enclosing query.

    Its value is the session of the token, even if that has ended. Otherwise it is the network from
    which the user has logged in recently, or NULL for an unknown client. `session_token` is a
    refresh token, or the cookie of a page session.
    """
    of_user = UserSession.user_id == User.id
    recent = UserSession.last_used_at > clock.now() - NETWORK_REMEMBERED_FOR
    criteria: list[tuple[ColumnElement[bool], str]] = []
    for session_id, hashed in _presented(session_token or ""):
        same_token = and_(UserSession.id == session_id, _is_token(hashed))
        session_name = f"session {session_id}"
        criteria.append((exists().where(of_user, recent, same_token), session_name))
    if client.ip is not None:
        network = network_of(client)
        in_network = UserSession.ip.op("<<=")(cast(network, INET))
        criteria.append((exists().where(of_user, recent, in_network), network))
    found: ColumnElement[Any] = case(*criteria, else_=None) if criteria else null()
    return found


def _presented(token: str) -> Iterator[tuple[int, bytes]]:
    """Yield the id of the session that a token names, and the hash of its secret."""
    if refresh := RefreshToken.parse(token):
        yield refresh.session_id, fingerprint(refresh.secret)
    elif page := PageToken.parse(token):
        yield page.session_id, page_fingerprint(page.secret)


async def known_places(session: AsyncSession, *, user_id: int) -> Sequence[str]:
    """Return the values that `known_by` may have for a user, the last used first."""
    latest = (
        select(UserSession.id, UserSession.ip)
        .where(
            UserSession.user_id == user_id,
            UserSession.last_used_at > clock.now() - NETWORK_REMEMBERED_FOR,
        )
        .order_by(UserSession.last_used_at.desc())
        .limit(MAX_KNOWN_PLACES)
    )
    places: list[str] = []
    for session_id, ip in await session.execute(latest):
        places.append(f"session {session_id}")
        if ip is not None:
            places.append(network_of(Client(ip, "")))
    return places


async def remember_network(session: AsyncSession, *, user_id: int, client: Client) -> None:
    """Make the client's network known to a user, by adding an ended session."""
    now = clock.now()
    session.add(
        UserSession(
            user_id=user_id,
            token_hash=b"",
            created_at=now,
            last_used_at=now,
            expires_at=now,
            revoked_at=now,
            ip=client.ip,
            user_agent=client.user_agent,
        )
    )


_SESSION = Selection.of(
    SessionResponse,
    UserSession,
    ip=func.host(UserSession.ip),
    current=UserSession.id.is_not_distinct_from(bindparam("current_id", type_=BigInteger)),
)
_LIST = paged(
    select(*_SESSION.columns)
    .where(UserSession.user_id == bindparam("user_id"), _ACTIVE)
    .order_by(UserSession.last_used_at.desc(), UserSession.id.desc())
)


async def list_sessions(
    reader: Reader, *, page: PageQuery, user: Identity
) -> Sequence[SessionResponse]:
    """List a user's active sessions, the last used first."""
    ids = {"user_id": user.id, "current_id": user.session_id}
    rows = await reader.execute(_LIST, {**ids, **_active_parameters(), **page.model_dump()})
    return [_SESSION.read(row) for row in rows]


async def list_sessions_of(
    reader: Reader, *, user_id: int, page: PageQuery, actor: Identity
) -> Sequence[SessionResponse]:
    """List the active sessions of a user, the last used first. Raises NotAuthorized."""
    require(actor, Action.READ_PRIVATE_USER, owner_id=user_id)
    ids = {"user_id": user_id, "current_id": actor.session_id}
    rows = await reader.execute(_LIST, {**ids, **_active_parameters(), **page.model_dump()})
    return [_SESSION.read(row) for row in rows]


_USER_SESSION = Selection.of(
    UserSessionResponse,
    UserSession,
    ip=func.host(UserSession.ip),
    current=UserSession.id.is_not_distinct_from(bindparam("current_id", type_=BigInteger)),
    username=User.username,
    kind=case(
        (UserSession.by_page, literal(SessionKind.PAGE.value)),
        (UserSession.by_conduit, literal(SessionKind.REALWORLD.value)),
        else_=literal(SessionKind.API.value),
    ),
)
_ALL = select(*_USER_SESSION.columns).join(User).where(_ACTIVE)
_OF_USER = UserSession.user_id == bindparam("user_id", type_=BigInteger)


def _all_sessions(*conditions: ColumnElement[bool]) -> Keyset[UserSessionResponse]:
    return keyset("sessions", _USER_SESSION, _ALL.where(*conditions), UserSession.id)


_SESSIONS, _SESSIONS_OF_USER = _all_sessions(), _all_sessions(_OF_USER)


async def list_all_sessions(
    reader: Reader, *, query: SessionQuery, user: Identity
) -> ListPage[UserSessionResponse]:
    """List the active sessions of all users or of one, the last opened first.

    Raises NotAuthorized, InvalidCursor.
    """
    require(user, Action.RESET_CREDENTIALS, owner_id=user.id)
    parameters = {"current_id": user.session_id, **_active_parameters()}
    if query.user is None:
        return await read_page(reader, _SESSIONS, query=query, parameters=parameters)
    parameters["user_id"] = query.user
    return await read_page(
        reader, _SESSIONS_OF_USER, query=query, parameters=parameters, of=query.user
    )


async def end_any_session(session: AsyncSession, *, session_id: int, actor: Identity) -> None:
    """End a session of any user, as an administrator.

    Raises NotAuthorized, LimitReached, and SessionNotFound for an ended session.
    """
    require(actor, Action.RESET_CREDENTIALS, owner_id=actor.id)
    await limits.spend(session, actor, {LimitKind.ACCOUNT_CHANGES: 1})
    if not await _end(session, UserSession.id == session_id):
        raise SessionNotFound
    action = AuditAction.REVOKE_SESSION
    audit.record(session, action, actor_id=actor.id, subject="session", subject_id=session_id)


async def end_session(session: AsyncSession, *, session_id: int, actor: Identity) -> None:
    """End one of the actor's sessions.

    Raises SessionNotFound for an ended session and for a session of another user.
    """
    if not await _end(session, UserSession.id == session_id, UserSession.user_id == actor.id):
        raise SessionNotFound
    action = AuditAction.REVOKE_SESSION
    audit.record(session, action, actor_id=actor.id, subject="session", subject_id=session_id)


async def log_out(
    session: AsyncSession, *, identity: Identity | None, refresh_token: str | None
) -> None:
    """End the sessions of the access token and of the refresh token.

    An invalid refresh token and an ended session are ignored. Raises NotAuthenticated if the
    request contains neither token.
    """
    ending = {(identity.id, identity.session_id)} if identity else set()
    if refresh_token is not None and (found := await _session_of(session, refresh_token)):
        ending.add(found)
    if not ending and refresh_token is None:
        raise NotAuthenticated
    for user_id, session_id in ending:
        if await _end(session, UserSession.id == session_id):
            audit.record(session, AuditAction.LOGOUT, actor_id=user_id, subject_id=user_id)


async def log_out_everywhere(session: AsyncSession, *, actor: Identity) -> None:
    """End all sessions of the actor, including the current one."""
    await end_all(session, user_id=actor.id)
    audit.record(session, AuditAction.LOGOUT_ALL, actor_id=actor.id, subject_id=actor.id)


async def end_others(session: AsyncSession, *, actor: Identity) -> None:
    """End all sessions of the actor, except for the current one."""
    await end_all(session, user_id=actor.id, except_id=actor.session_id)
    audit.record(session, AuditAction.LOGOUT_ALL, actor_id=actor.id, subject_id=actor.id)


async def end_all(session: AsyncSession, *, user_id: int, except_id: int | None = None) -> None:
    """End a user's sessions, except for the session with the id `except_id`."""
    not_excepted = UserSession.id != except_id if except_id is not None else true()
    await _end(session, UserSession.user_id == user_id, not_excepted)


async def end_sessions_of(session: AsyncSession, *, user_id: int, actor: Identity) -> None:
    """End all sessions of another user, as an administrator.

    API keys stay valid. Raises NotAuthorized, UserNotFound, LimitReached.
    """
    require(actor, Action.RESET_CREDENTIALS, owner_id=user_id)
    if await session.get(User, user_id) is None:
        raise UserNotFound
    await limits.spend(session, actor, {LimitKind.ACCOUNT_CHANGES: 1})
    await end_all(session, user_id=user_id)
    audit.record(session, AuditAction.LOGOUT_ALL, actor_id=actor.id, subject_id=user_id)


async def _end(session: AsyncSession, *conditions: ColumnElement[bool]) -> bool:
    """End the matching sessions that are not revoked; return whether there were any."""
    statement = update(UserSession).where(UserSession.revoked_at.is_(None), *conditions)
    ended = await session.scalars(
        statement.values(revoked_at=clock.now()).returning(UserSession.id)
    )
    return bool(ended.all())


async def end_batch(session: AsyncSession, batch: Batch) -> int:
    """End a batch of the sessions of all users; return how many."""
    column = UserSession.revoked_at
    return await update_oldest(
        session,
        batch,
        UserSession.id,
        column.is_(None),
        order_by=UserSession.id,
        values={"revoked_at": clock.now()},
    )


async def purge(session: AsyncSession, batch: Batch) -> int:
    """Delete a batch of sessions that expired long ago; return how many."""
    column = UserSession.expires_at
    old = column < clock.now() - RETENTION
    return await delete_oldest(session, batch, UserSession.id, old, order_by=column)
