"""Who a request comes from: the user behind a valid token, read in one indexed query."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from ipaddress import IPv4Address, IPv6Address
from typing import Any, NamedTuple

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.core import clock
from app.core.errors import InvalidToken, TokenExpired, TokenRevoked
from app.core.roles import Role
from app.db.reading import Reader
from app.models.api_key import ApiKey
from app.models.session import UserSession
from app.models.user import User

LAST_USE_PRECISION = timedelta(minutes=1)
"""How exactly an API key's last use is kept: a write a minute, not one a request."""


IPAddress = IPv4Address | IPv6Address


class Client(NamedTuple):
    """What a request comes from: an address, None where it is not known, and a program."""

    ip: IPAddress | None
    user_agent: str


class Identity(NamedTuple):
    """The user who is asking, as of this request, and by what they are known.

    `scopes` is None for a login, which may do whatever its user may.
    """

    id: int
    username: str
    name: str
    email: str
    role: Role
    is_active: bool
    email_verified_at: datetime | None
    bio: str
    image_url: str | None
    created_at: datetime
    updated_at: datetime
    session_id: int | None = None
    api_key_id: int | None = None
    scopes: frozenset[str] | None = None


_KNOWN_BY = {"session_id", "api_key_id", "scopes"}
_USER_FIELDS = [field for field in Identity._fields if field not in _KNOWN_BY]
_USER = [getattr(User, field) for field in _USER_FIELDS]
_BY_SESSION = (
    select(*_USER, UserSession.revoked_at, UserSession.expires_at)
    .join(UserSession, UserSession.user_id == User.id)
    .where(UserSession.id == bindparam("session_id"), User.id == bindparam("user_id"))
)
_KEYS = select(*_USER, ApiKey.id, ApiKey.scopes, ApiKey.expires_at, ApiKey.last_used_at).join(
    ApiKey, ApiKey.user_id == User.id
)
_BY_API_KEY = _KEYS.where(ApiKey.token_hash == bindparam("fingerprint"))
_BY_API_KEY_ID = _KEYS.where(ApiKey.id == bindparam("key_id"), User.id == bindparam("user_id"))
_USED = (
    update(ApiKey)
    .where(
        ApiKey.id == bindparam("key_id"),
        ApiKey.last_used_at.is_not_distinct_from(bindparam("before")),
    )
    .values(last_used_at=bindparam("now"))
)
"""Of many who use it at once, one writes it down."""


_UNCHANGED: dict[str, Any] = {"read": True, "of": User}
"""FOR SHARE of the user's row: nobody disables, demotes or deletes the user before the commit."""
_HOLD_BY_SESSION = _BY_SESSION.with_for_update(**_UNCHANGED)
_HOLD_BY_API_KEY_ID = _BY_API_KEY_ID.with_for_update(**_UNCHANGED)


async def find_by_session(
    connection: Reader | AsyncConnection | AsyncSession, *, user_id: int, session_id: int
) -> Identity | None:
    """The identity of a user in one of their sessions; None where there is no such session.

    Raises InvalidToken where the user is disabled, TokenRevoked where the session has ended.
    """
    parameters = {"user_id": user_id, "session_id": session_id}
    row = (await connection.execute(_BY_SESSION, parameters)).one_or_none()
    return None if row is None else _in_session(row, session_id)


def _in_session(row: Sequence[Any], session_id: int) -> Identity:
    *_, revoked_at, expires_at = row
    identity = _identity(row, session_id=session_id)
    if revoked_at is not None or expires_at <= clock.now():
        raise TokenRevoked
    return identity


class KnownKey(NamedTuple):
    """An identity by an API key, and when that was used before."""

    identity: Identity
    last_used_at: datetime | None


async def find_by_api_key(connection: AsyncConnection, *, fingerprint: bytes) -> KnownKey | None:
    """The identity of an API key's user; None where there is no such key.

    Raises InvalidToken where the user is disabled, TokenExpired where the key's time is over.
    """
    row = (await connection.execute(_BY_API_KEY, {"fingerprint": fingerprint})).one_or_none()
    return None if row is None else _by_key(row)


def _by_key(row: Sequence[Any]) -> KnownKey:
    *_, key_id, scopes, expires_at, last_used_at = row
    identity = _identity(row, api_key_id=key_id, scopes=frozenset(scopes))
    if expires_at is not None and expires_at <= clock.now():
        raise TokenExpired
    return KnownKey(identity, last_used_at)


async def recheck(
    connection: Reader | AsyncConnection | AsyncSession, identity: Identity
) -> Identity:
    """Read the user behind `identity` again, with the session or the API key; return them as found.

    In a transaction the user's row stays locked FOR SHARE until it ends. Disabling, demoting or
    deleting the user waits for that commit; requests of the same user do not wait for each other.
    A transaction that changes the user's row must lock it before, or two would deadlock.
    A Reader takes no lock, and a replica may answer late.

    Raises InvalidToken if the user is disabled or gone, or if the session or the key is.
    """
    holds = not isinstance(connection, Reader)
    if identity.api_key_id is not None:
        statement = _HOLD_BY_API_KEY_ID if holds else _BY_API_KEY_ID
        parameters: dict[str, Any] = {"user_id": identity.id, "key_id": identity.api_key_id}
    else:
        statement = _HOLD_BY_SESSION if holds else _BY_SESSION
        parameters = {"user_id": identity.id, "session_id": identity.session_id}
    row = (await connection.execute(statement, parameters)).one_or_none()
    if row is None:
        raise InvalidToken
    if identity.session_id is not None:
        return _in_session(row, identity.session_id)
    return _by_key(row).identity


async def note_use(connection: AsyncConnection, *, key: KnownKey) -> None:
    """Write down that a key was used just now, unless that was done within the last minute."""
    now, before = clock.now(), key.last_used_at
    if before is None or before < now - LAST_USE_PRECISION:
        parameters = {"key_id": key.identity.api_key_id, "now": now, "before": before}
        await connection.execute(_USED, parameters)


def _identity(row: Sequence[Any], **known_by: Any) -> Identity:
    identity = Identity(*row[: len(_USER_FIELDS)], **known_by)
    if not identity.is_active:
        raise InvalidToken
    return identity
