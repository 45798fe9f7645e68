"""API keys: credentials for programs that act for a user with limited scopes."""

from collections.abc import Sequence

from sqlalchemy import BigInteger, bindparam, delete, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.auth.permissions import Action, require
from app.auth.tokens import HINT_LENGTH, fingerprint, new_api_key
from app.core.errors import ApiKeyNotFound, TooManyApiKeys
from app.core.limits import LimitKind
from app.db.reading import Reader
from app.db.selection import Selection
from app.db.session import Database, paged
from app.models.accounts.api_key import ApiKey
from app.models.accounts.user import User
from app.schemas.accounts.api_key import (
    ApiKeyCreate,
    ApiKeyCreated,
    ApiKeyQuery,
    ApiKeyResponse,
    UserApiKey,
)
from app.schemas.page import PageQuery
from app.services import audit, limits
from app.services.accounts.confirmation import confirm_password, lock_user
from app.services.audit import AuditAction
from app.services.pages.keyset import keyset, read_page
from app.services.pages.paging import ListPage
from app.services.purging import Batch, delete_oldest

MAX_API_KEYS = 50

_API_KEY = Selection.of(ApiKeyResponse, ApiKey)
_LIST = paged(
    select(*_API_KEY.columns).where(ApiKey.user_id == bindparam("user_id")).order_by(ApiKey.id)
)
_OWNER = bindparam("owner_id", type_=BigInteger)
_USER_KEY = Selection.of(UserApiKey, ApiKey, username=User.username)
_ALL = keyset(
    "api keys",
    _USER_KEY,
    select(*_USER_KEY.columns)
    .join(User, User.id == ApiKey.user_id)
    .where(or_(_OWNER.is_(None), ApiKey.user_id == _OWNER)),
    ApiKey.id,
)


async def list_api_keys(
    reader: Reader, *, page: PageQuery, user: Identity
) -> Sequence[ApiKeyResponse]:
    """List a user's keys by id, including expired keys."""
    rows = await reader.execute(_LIST, {"user_id": user.id, **page.model_dump()})
    return [_API_KEY.read(row) for row in rows]


async def create_api_key(
    session: AsyncSession, *, database: Database, new: ApiKeyCreate, actor: Identity
) -> ApiKeyCreated:
    """Create a key. Only its hash is stored.

    The user's row is locked, so that concurrent requests cannot exceed MAX_API_KEYS. Raises
    IncorrectPassword, TooManyAttempts, TooManyApiKeys.
    """
    await confirm_password(database, user=actor, password=new.password)
    await lock_user(session, user=actor)
    count = select(func.count()).select_from(ApiKey).where(ApiKey.user_id == actor.id)
    if (await session.scalar(count) or 0) >= MAX_API_KEYS:
        raise TooManyApiKeys
    key = new_api_key()
    api_key = ApiKey(
        user_id=actor.id,
        name=new.name,
        hint=key[:HINT_LENGTH],
        token_hash=fingerprint(key),
        scopes=[scope.value for scope in new.scopes],
        expires_at=new.expires_at,
    )
    session.add(api_key)
    await session.flush()  # assigns the id
    _record(session, AuditAction.CREATE_API_KEY, api_key.id, actor)
    response = ApiKeyResponse.model_validate(api_key)
    return ApiKeyCreated(**response.model_dump(), key=key)


async def delete_api_key(session: AsyncSession, *, api_key_id: int, actor: Identity) -> None:
    """Delete one of the actor's keys. Raises ApiKeyNotFound."""
    await limits.spend(session, actor, {LimitKind.ACCOUNT_CHANGES: 1})
    statement = delete(ApiKey).where(ApiKey.id == api_key_id, ApiKey.user_id == actor.id)
    if await session.scalar(statement.returning(ApiKey.id)) is None:
        raise ApiKeyNotFound
    _record(session, AuditAction.DELETE_API_KEY, api_key_id, actor)


async def list_all_api_keys(
    reader: Reader, *, query: ApiKeyQuery, user: Identity
) -> ListPage[UserApiKey]:
    """List the keys of all users or of one, newest first. Raises NotAuthorized, InvalidCursor."""
    require(user, Action.RESET_CREDENTIALS, owner_id=user.id)
    parameters = {"owner_id": query.user}
    return await read_page(reader, _ALL, query=query, parameters=parameters, of=query.user)


async def revoke_api_key(session: AsyncSession, *, api_key_id: int, actor: Identity) -> None:
    """Delete a key of any user, as an administrator. Raises NotAuthorized, ApiKeyNotFound."""
    require(actor, Action.RESET_CREDENTIALS, owner_id=actor.id)
    await limits.spend(session, actor, {LimitKind.ACCOUNT_CHANGES: 1})
    statement = delete(ApiKey).where(ApiKey.id == api_key_id).returning(ApiKey.id)
    if await session.scalar(statement) is None:
        raise ApiKeyNotFound
    _record(session, AuditAction.DELETE_API_KEY, api_key_id, actor)


async def delete_batch(session: AsyncSession, batch: Batch) -> int:
    """Delete a batch of the keys of all users; return how many."""
    return await delete_oldest(session, batch, ApiKey.id, order_by=ApiKey.id)


def _record(session: AsyncSession, action: AuditAction, api_key_id: int, actor: Identity) -> None:
    audit.record(session, action, actor_id=actor.id, subject="api_key", subject_id=api_key_id)
