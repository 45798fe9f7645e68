"""Sessions: opened by a login, continued by refreshing, ended by logging out or by an abuse.

A refresh token is used once: it is exchanged for its successor. Its bearer may repeat that for ten
seconds, for several tabs wake up at once and answers get lost, and gets the same successor. Later,
whoever uses it cannot be told from a thief: the session ends, for both (RFC 9700 §4.14.2).
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    and_,
    bindparam,
    case,
    cast,
    exists,
    func,
    null,
    or_,
    select,
    true,
    update,
)
from sqlalchemy.dialects.postgresql import INET
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Client, Identity
from app.auth.security import access_token_seconds, create_access_token
from app.auth.tokens import RefreshToken, fingerprint, new_secret
from app.core import clock
from app.core.config import get_settings
from app.core.errors import (
    InvalidRefreshToken,
    InvalidToken,
    NotAuthenticated,
    SessionNotFound,
)
from app.core.limits import LimitKind
from app.db.reading import Reader
from app.db.session import Database, constraint_errors, paged
from app.models.session import UserSession
from app.models.user import User
from app.schemas.auth import Tokens
from app.schemas.page import PageQuery
from app.schemas.session import SessionResponse
from app.services import audit, limits
from app.services.attempts import network_of
from app.services.audit import AuditAction
from app.services.limits import Spender
from app.services.purging import delete_oldest

GRACE = timedelta(seconds=10)
"""How long a refresh token that was just exchanged is answered with the same successor."""
PLACE_KNOWN_FOR = timedelta(days=30)
"""How long an address stays known that a user has logged in from."""
KEPT_AFTER_END = timedelta(days=30)

USER_REFERENCE = {"fk_user_sessions_user_id": InvalidToken}


_LIVE = and_(
    UserSession.revoked_at.is_(None),
    UserSession.expires_at > bindparam("now"),
    UserSession.last_used_at > bindparam("idle_since"),
)


def _live() -> dict[str, datetime]:
    """The parameters of _LIVE."""
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
    """Log a user in, with an access token for so many seconds; `by_conduit`: at the RealWorld API.

    Raises LimitReached; InvalidToken where the account was deleted a moment ago.
    """
    await limits.spend(session, Spender(user_id), {LimitKind.LOGINS: 1})
    now = clock.now()
    secret = new_secret()
    login = UserSession(
        user_id=user_id,
        token_hash=fingerprint(secret),
        created_at=now,
        last_used_at=now,
        expires_at=now + timedelta(days=get_settings().session_expire_days),
        ip=client.ip,
        user_agent=client.user_agent,
        by_conduit=by_conduit,
    )
    session.add(login)
    with constraint_errors(USER_REFERENCE):
        await session.flush()  # the reference speaks, and the session has an id
    return _tokens(user_id, login.id, secret, seconds=seconds)


_BY_ID = UserSession.id == bindparam("session_id")
_ROTATE = (
    update(UserSession)
    .where(_BY_ID, UserSession.token_hash == bindparam("presented"), _LIVE)
    .where(User.id == UserSession.user_id, User.is_active)
    .values(
        token_hash=bindparam("successor"),
        previous_hash=bindparam("presented"),
        # By the database's clock, if that is later: the grace begins when the exchange is done, and
        # whoever has waited for it for long has their ten seconds too.
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
        _LIVE.label("is_live"),
    )
    .join(User)
    .where(_BY_ID, User.is_active)
)


async def refresh(database: Database, *, text: str) -> Tokens:
    """Exchange a refresh token for the next pair.

    Raises InvalidRefreshToken, without saying whether it is unknown, used, expired or revoked. One
    that was used before ends its session, for good.
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
        **_live(),
    }
    # One statement decides: of two that come at once the second waits, and then matches no more.
    async with database.autocommit() as connection:
        user_id = await connection.scalar(_ROTATE, parameters)
    if user_id is not None:
        return _tokens(user_id, token.session_id, successors[0])

    async with database.unit_of_work() as session:
        state = (await session.execute(_STATE, parameters)).one_or_none()
        if state is None or not state.is_live:
            raise InvalidRefreshToken
        if presented == state.previous_hash and clock.now() <= state.last_used_at + GRACE:
            # Of the successors by each of our keys, the one that was stored; a replica that has not
            # heard of a new key makes none of them, and nobody is to blame.
            for secret in successors:
                if fingerprint(secret) == state.token_hash:
                    return _tokens(state.user_id, token.session_id, secret)
        elif token.is_ours and await _end(session, UserSession.id == token.session_id):
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
    """The user and the session that a refresh token continues; None where it continues none."""
    token = RefreshToken.parse(text)
    if token is None:
        return None
    query = select(UserSession.user_id, UserSession.id).where(
        _BY_ID, _is_token(fingerprint(token.secret)), _LIVE
    )
    row = (await session.execute(query, {"session_id": token.session_id, **_live()})).one_or_none()
    return None if row is None else (row.user_id, row.id)


def _is_token(hashed: bytes) -> ColumnElement[bool]:
    return or_(UserSession.token_hash == hashed, UserSession.previous_hash == hashed)


def known_by(client: Client, *, refresh_token: str | None) -> ColumnElement[str | None]:
    """What makes a client known to a user, of the query around it; None where nothing does.

    The session that the token is of, be it ended by now; else the network that they have logged in
    from lately.
    """
    theirs = UserSession.user_id == User.id
    lately = UserSession.last_used_at > clock.now() - PLACE_KNOWN_FOR
    token = RefreshToken.parse(refresh_token) if refresh_token else None
    evidence: list[tuple[ColumnElement[bool], str]] = []
    if token is not None:
        is_it = and_(UserSession.id == token.session_id, _is_token(fingerprint(token.secret)))
        evidence.append((exists().where(theirs, lately, is_it), f"session {token.session_id}"))
    if client.ip is not None:
        network = network_of(client)
        is_there = UserSession.ip.op("<<=")(cast(network, INET))
        evidence.append((exists().where(theirs, lately, is_there), network))
    found: ColumnElement[Any] = case(*evidence, else_=None) if evidence else null()
    return found


async def remember_place(session: AsyncSession, *, user_id: int, client: Client) -> None:
    """Count a client as known to a user who has not logged in from there: by an ended session."""
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


_LIST = paged(
    select(
        UserSession.id,
        UserSession.created_at,
        UserSession.last_used_at,
        UserSession.expires_at,
        func.host(UserSession.ip).label("ip"),
        UserSession.user_agent,
    )
    .where(UserSession.user_id == bindparam("user_id"), _LIVE)
    .order_by(UserSession.last_used_at.desc(), UserSession.id.desc())
)


async def list_sessions(
    connection: Reader, *, page: PageQuery, user: Identity
) -> Sequence[SessionResponse]:
    """Where a user is logged in, by last use."""
    parameters = {"user_id": user.id, **_live(), **page.model_dump()}
    rows = await connection.execute(_LIST, parameters)
    return [SessionResponse(**row, current=row.id == user.session_id) for row in rows]


async def end_session(session: AsyncSession, *, session_id: int, actor: Identity) -> None:
    """End one of the actor's sessions. Raises SessionNotFound for another's, or an ended one."""
    if not await _end(session, UserSession.id == session_id, UserSession.user_id == actor.id):
        raise SessionNotFound
    action = AuditAction.REVOKE_SESSION
    audit.record(session, action, actor_id=actor.id, subject="session", subject_id=session_id)


async def log_out(
    session: AsyncSession, *, identity: Identity | None, refresh_token: str | None
) -> None:
    """End the session that an access token, a refresh token or both of them are of.

    One that has ended already stays so, and a refresh token that is not good ends nothing. Raises
    NotAuthenticated where there is neither.
    """
    leaving = {(identity.id, identity.session_id)} if identity else set()
    if refresh_token is not None and (found := await _session_of(session, refresh_token)):
        leaving.add(found)
    if not leaving and refresh_token is None:
        raise NotAuthenticated
    for user_id, session_id in leaving:
        if await _end(session, UserSession.id == session_id):
            audit.record(session, AuditAction.LOGOUT, actor_id=user_id, subject_id=user_id)


async def log_out_everywhere(session: AsyncSession, *, actor: Identity) -> None:
    """End all sessions of the actor, with the one that asks for it."""
    await end_all(session, user_id=actor.id)
    audit.record(session, AuditAction.LOGOUT_ALL, actor_id=actor.id, subject_id=actor.id)


async def end_all(session: AsyncSession, *, user_id: int, but: int | None = None) -> None:
    """End a user's sessions, except for the one with the id `but`."""
    others = UserSession.id != but if but is not None else true()
    await _end(session, UserSession.user_id == user_id, others)


async def _end(session: AsyncSession, *which: ColumnElement[bool]) -> bool:
    """End those that have not ended; whether there were any."""
    statement = update(UserSession).where(UserSession.revoked_at.is_(None), *which)
    ended = await session.scalars(
        statement.values(revoked_at=clock.now()).returning(UserSession.id)
    )
    return bool(ended.all())


async def purge(session: AsyncSession) -> int:
    """Delete a batch of what ended long ago; how many."""
    by = UserSession.expires_at
    old = by < clock.now() - KEPT_AFTER_END
    return await delete_oldest(session, UserSession.id, old, by=by)
