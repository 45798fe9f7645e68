"""Identities: the user behind a valid token, read in one indexed query."""

from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, IPv6Network
from typing import Any, NamedTuple

from sqlalchemy import (
    ARRAY,
    BigInteger,
    DateTime,
    any_,
    bindparam,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.core import clock
from app.core.config import get_settings
from app.core.enums import Role
from app.core.errors import InvalidToken, ServiceUnavailable, TokenExpired, TokenRevoked
from app.db.reading import Reader
from app.db.session import Database
from app.db.writing import fetch, fetch_value
from app.models.accounts.api_key import ApiKey
from app.models.accounts.session import UserSession
from app.models.accounts.user import User

LAST_USE_PRECISION = timedelta(minutes=1)
"""Precision of an API key's last use: at most one write per minute instead of one per request."""
IPV6_PREFIX_LENGTH = 64
"""Providers usually assign one customer an IPv6 network with a prefix of 64 bits."""


IPAddress = IPv4Address | IPv6Address


class Client(NamedTuple):
    """The client of a request: its IP address, None if unknown, and its user agent."""

    ip: IPAddress | None
    user_agent: str


def network_of(client: Client) -> str:
    """Return the network that counts as one client: an IPv4 address or an IPv6 /64 network."""
    if client.ip is None:
        return "unknown"
    if isinstance(client.ip, IPv4Address):
        return str(client.ip)
    return str(IPv6Network((client.ip.packed, IPV6_PREFIX_LENGTH), strict=False))


class Identity(NamedTuple):
    """The authenticated user, read for this request, and the credential that was used.

    `scopes` is None for a login session, which has all permissions of its user.
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


COMMAND_LINE = Identity(
    id=0,
    username="command line",
    name="Command line",
    email="",
    role=Role.ADMIN,
    is_active=True,
    email_verified_at=None,
    bio="",
    image_url=None,
    created_at=datetime.min.replace(tzinfo=UTC),
    updated_at=datetime.min.replace(tzinfo=UTC),
)
"""The operator who runs a command: an administrator without an account or limits."""

_CREDENTIAL_FIELDS = {"session_id", "api_key_id", "scopes"}
_USER_FIELDS = [field for field in Identity._fields if field not in _CREDENTIAL_FIELDS]
_USER = [getattr(User, field) for field in _USER_FIELDS]
_SESSIONS = select(*_USER, UserSession.revoked_at, UserSession.expires_at).join(
    UserSession, UserSession.user_id == User.id
)
_BY_SESSION = _SESSIONS.where(
    UserSession.id == bindparam("session_id"), User.id == bindparam("user_id")
)
_BY_SESSIONS = _SESSIONS.add_columns(UserSession.id.label("key")).where(
    UserSession.id == any_(bindparam("keys", type_=ARRAY(BigInteger)))
)
_BY_PAGE_SESSION = (
    select(
        *_USER,
        UserSession.revoked_at,
        UserSession.expires_at,
        UserSession.last_used_at,
        UserSession.confirmed_at,
    )
    .join(UserSession, UserSession.user_id == User.id)
    .where(
        UserSession.id == bindparam("session_id"),
        UserSession.token_hash == bindparam("fingerprint"),
        UserSession.by_page,
    )
)
_SET_PAGE_USE = (
    update(UserSession)
    .where(UserSession.id == bindparam("used_id"), UserSession.last_used_at == bindparam("before"))
    .values(last_used_at=bindparam("now"))
)
_KEYS = select(
    *_USER,
    ApiKey.id.label("api_key_id"),
    ApiKey.scopes,
    ApiKey.expires_at,
    ApiKey.last_used_at,
).join(ApiKey, ApiKey.user_id == User.id)
_BY_API_KEY = _KEYS.where(ApiKey.token_hash == bindparam("fingerprint"))
_BY_API_KEY_ID = _KEYS.where(ApiKey.id == bindparam("key_id"), User.id == bindparam("user_id"))
_SET_KEY_USE = (
    update(ApiKey)
    .where(
        ApiKey.id == bindparam("used_id"),
        ApiKey.last_used_at.is_not_distinct_from(bindparam("before")),
    )
    .values(last_used_at=bindparam("now"))
)
"""Only one of several concurrent requests updates the row."""


ACCOUNT_LOCKS = 0x75736572
"""The first key of the advisory locks of accounts: "user" in ASCII. The second is a hash."""
_USER_HASH = func.hashint8(bindparam("user_id", type_=BigInteger))
_LOCK_ACCOUNT = select(func.pg_advisory_xact_lock(ACCOUNT_LOCKS, _USER_HASH))
_SHARE_ACCOUNT = select(func.pg_advisory_xact_lock_shared(ACCOUNT_LOCKS, _USER_HASH))
_TRY_SHARE = func.pg_try_advisory_xact_lock_shared(ACCOUNT_LOCKS, _USER_HASH).label("may_write")
_TRY_SHARE_ACCOUNT = select(_TRY_SHARE)
_WRITE_BY_SESSION = _BY_SESSION.add_columns(_TRY_SHARE)

_FOR_SHARE: dict[str, Any] = {"read": True, "of": User}
"""FOR SHARE on the user's row: disabling, demoting or deleting the user waits for the commit."""
_LOCK_BY_SESSION = _WRITE_BY_SESSION.with_for_update(**_FOR_SHARE)
_LOCK_BY_API_KEY_ID = _BY_API_KEY_ID.add_columns(_TRY_SHARE).with_for_update(**_FOR_SHARE)


async def find_by_session(
    connection: Reader | AsyncConnection | AsyncSession, *, user_id: int, session_id: int
) -> Identity | None:
    """Return the identity of a user in one of their sessions; None if the session does not exist.

    A unit of work shares the lock of the account, as with `share_account`.

    Raises InvalidToken if the user is disabled, and TokenRevoked if the session has ended. A unit
    of work raises ServiceUnavailable while the account is being deleted.
    """
    if isinstance(connection, Reader):
        row = await connection.find(_BY_SESSIONS, session_id)
        is_found = row is not None and row.id == user_id
        return _session_identity(row, session_id) if is_found else None
    parameters = {"user_id": user_id, "session_id": session_id}
    if not isinstance(connection, AsyncSession):
        row = (await connection.execute(_BY_SESSION, parameters)).one_or_none()
        return None if row is None else _session_identity(row, session_id)
    row = (await fetch(connection, _WRITE_BY_SESSION, parameters)).one_or_none()
    if row is None:
        return None
    identity = _session_identity(row, session_id)
    _require_shared(row.may_write)
    return identity


def _session_identity(row: Any, session_id: int) -> Identity:
    identity = _identity(row, session_id=session_id)
    if row.revoked_at is not None or row.expires_at <= clock.now():
        raise TokenRevoked
    return identity


class PageIdentity(NamedTuple):
    """The identity behind a page session, and when the session was used and confirmed."""

    identity: Identity
    last_used_at: datetime
    confirmed_at: datetime | None


async def find_by_page_session(
    connection: AsyncConnection | Reader, *, session_id: int, fingerprint: bytes
) -> PageIdentity | None:
    """Return the identity of a page session; None if the session does not exist.

    Raises InvalidToken if the user is disabled, and TokenRevoked if the session has ended.
    """
    parameters = {"session_id": session_id, "fingerprint": fingerprint}
    row = (await connection.execute(_BY_PAGE_SESSION, parameters)).one_or_none()
    if row is None:
        return None
    identity = _session_identity(row, session_id)
    if row.last_used_at <= clock.now() - timedelta(days=get_settings().session_idle_days):
        raise TokenRevoked
    return PageIdentity(identity, row.last_used_at, row.confirmed_at)


class ApiKeyIdentity(NamedTuple):
    """The identity behind an API key, and the previous use of the key."""

    identity: Identity
    last_used_at: datetime | None


async def find_by_api_key(
    connection: AsyncConnection | Reader, *, fingerprint: bytes
) -> ApiKeyIdentity | None:
    """Return the identity of an API key's user; None if the key does not exist.

    Raises InvalidToken if the user is disabled, and TokenExpired if the key has expired.
    """
    row = (await connection.execute(_BY_API_KEY, {"fingerprint": fingerprint})).one_or_none()
    return None if row is None else _key_identity(row)


def _key_identity(row: Any) -> ApiKeyIdentity:
    identity = _identity(row, api_key_id=row.api_key_id, scopes=frozenset(row.scopes))
    if row.expires_at is not None and row.expires_at <= clock.now():
        raise TokenExpired
    return ApiKeyIdentity(identity, row.last_used_at)


async def recheck(
    connection: Reader | AsyncConnection | AsyncSession, identity: Identity
) -> Identity:
    """Read the user and the session or API key of `identity` again, and return the new identity.

    In a transaction the user's row stays locked FOR SHARE until it ends. Disabling, demoting or
    deleting the user waits for that commit; requests of the same user do not wait for each other.
    A transaction that changes the user's row must lock it first. Otherwise two of them would
    deadlock. A Reader takes no lock, and a replica may return old rows.

    Raises InvalidToken if the user, the session or the API key is disabled or deleted. A unit of
    work shares the lock of the account, and raises ServiceUnavailable while it is being deleted.
    """
    locks = not isinstance(connection, Reader)
    if identity.api_key_id is not None:
        statement = _LOCK_BY_API_KEY_ID if locks else _BY_API_KEY_ID
        parameters: dict[str, Any] = {"user_id": identity.id, "key_id": identity.api_key_id}
    else:
        statement = _LOCK_BY_SESSION if locks else _BY_SESSION
        parameters = {"user_id": identity.id, "session_id": identity.session_id}
    row = (await connection.execute(statement, parameters)).one_or_none()
    if row is None:
        raise InvalidToken
    if identity.session_id is not None:
        found = _session_identity(row, identity.session_id)
    else:
        found = _key_identity(row).identity
    if isinstance(connection, AsyncSession):
        _require_shared(row.may_write)
    return found


_VALID_SESSIONS = (
    select(*_USER, UserSession.id.label("session_id"))
    .join(UserSession, UserSession.user_id == User.id)
    .where(
        UserSession.id == any_(bindparam("ids", type_=ARRAY(BigInteger))),
        UserSession.revoked_at.is_(None),
        UserSession.expires_at > bindparam("now", type_=DateTime(timezone=True)),
        User.is_active,
    )
)
_VALID_KEYS = (
    select(*_USER, ApiKey.id.label("api_key_id"), ApiKey.scopes)
    .join(ApiKey, ApiKey.user_id == User.id)
    .where(
        ApiKey.id == any_(bindparam("ids", type_=ARRAY(BigInteger))),
        or_(
            ApiKey.expires_at.is_(None),
            ApiKey.expires_at > bindparam("now", type_=DateTime(timezone=True)),
        ),
        User.is_active,
    )
)


async def find_valid(
    reader: Reader, identities: Iterable[Identity]
) -> dict[tuple[int | None, int | None], Identity]:
    """Read identities again. Return those that are still valid, by session and API key."""
    found = list(identities)
    sessions = {each.session_id for each in found if each.session_id is not None}
    keys = {each.api_key_id for each in found if each.api_key_id is not None}
    now = clock.now()
    valid: dict[tuple[int | None, int | None], Identity] = {}
    if sessions:
        for row in await reader.execute(_VALID_SESSIONS, {"ids": list(sessions), "now": now}):
            valid[row.session_id, None] = _identity(row, session_id=row.session_id)
    if keys:
        for row in await reader.execute(_VALID_KEYS, {"ids": list(keys), "now": now}):
            credential = {"api_key_id": row.api_key_id, "scopes": frozenset(row.scopes)}
            valid[None, row.api_key_id] = _identity(row, **credential)
    return valid


async def share_account(session: AsyncSession, *, user_id: int) -> None:
    """Share the lock of an account until the unit of work ends.

    Every unit of work of a user shares it; the deletion of the account takes it alone. Row locks
    are not sufficient: foreign keys share the user's row without a gap, past a waiting deletion. A
    waiting advisory lock comes before later ones.

    Does not wait. Raises ServiceUnavailable while the account is being deleted, or is about to be.
    """
    _require_shared(await fetch_value(session, _TRY_SHARE_ACCOUNT, {"user_id": user_id}))


def _require_shared(is_shared: bool | None) -> None:
    if not is_shared:
        raise ServiceUnavailable("This account is being deleted")


async def lock_account(session: AsyncSession, *, user_id: int, actor_id: int) -> None:
    """Lock an account alone, and share that of the actor; wait for their units of work.

    The order of the ids prevents deadlocks. `session` must not have been used yet.
    """
    for each in sorted({user_id, actor_id}):
        lock = _LOCK_ACCOUNT if each == user_id else _SHARE_ACCOUNT
        await session.execute(lock, {"user_id": each})


async def record_use(connection: AsyncConnection, used: PageIdentity | ApiKeyIdentity) -> None:
    """Store the current time as the last use of a page session or a key, once per minute."""
    if not _is_use_due(used):
        return
    if isinstance(used, PageIdentity):
        statement, used_id = _SET_PAGE_USE, used.identity.session_id
    else:
        statement, used_id = _SET_KEY_USE, used.identity.api_key_id
    parameters = {"used_id": used_id, "now": clock.now(), "before": used.last_used_at}
    await connection.execute(statement, parameters)


async def record_use_on_primary(database: Database, used: PageIdentity | ApiKeyIdentity) -> None:
    """Store the last use like `record_use`, after a replica was read. Needs no primary."""
    if _is_use_due(used):
        with suppress(ServiceUnavailable):
            async with database.autocommit() as connection:
                await record_use(connection, used)


def _is_use_due(used: PageIdentity | ApiKeyIdentity) -> bool:
    before = used.last_used_at
    return before is None or before < clock.now() - LAST_USE_PRECISION


def _identity(row: Any, **credential: Any) -> Identity:
    identity = Identity(*row[: len(_USER_FIELDS)], **credential)
    if not identity.is_active:
        raise InvalidToken
    return identity
