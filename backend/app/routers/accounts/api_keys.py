"""/users/me/api-keys: API keys, which only a login session can manage."""

from collections.abc import Sequence

from fastapi import Depends, status

from app.auth.dependencies import Actor, ConfirmingUser, CurrentUser
from app.core.errors import (
    ApiKeyNotFound,
    IncorrectPassword,
    LimitReached,
    TooManyApiKeys,
    TooManyAttempts,
)
from app.db.dependencies import CurrentDatabase, ReadConnection, WriteSession
from app.http.routing import no_store
from app.routers.idempotency import idempotent
from app.routers.parameters import ApiKeyId, Page
from app.routers.responses import create_router, errors
from app.schemas.accounts.api_key import ApiKeyCreate, ApiKeyCreated, ApiKeyResponse
from app.services.accounts import api_keys

router = create_router(
    prefix="/users/me/api-keys", tag="api keys", dependencies=[Depends(no_store)]
)


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses=errors(LimitReached, IncorrectPassword, TooManyApiKeys, TooManyAttempts),
    dependencies=[idempotent(ConfirmingUser)],
)
async def create_api_key(
    session: WriteSession, database: CurrentDatabase, actor: ConfirmingUser, new: ApiKeyCreate
) -> ApiKeyCreated:
    """Create a key with the given scopes. Only this response contains it."""
    return await api_keys.create_api_key(session, database=database, new=new, actor=actor)


@router.get("")
async def list_api_keys(
    connection: ReadConnection, user: CurrentUser, page: Page
) -> Sequence[ApiKeyResponse]:
    """List your keys by id, without the secrets."""
    return await api_keys.list_api_keys(connection, page=page, user=user)


@router.delete(
    "/{api_key_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=errors(LimitReached, ApiKeyNotFound),
)
async def delete_api_key(session: WriteSession, actor: Actor, api_key_id: ApiKeyId) -> None:
    """Delete a key; it is refused from then on."""
    await api_keys.delete_api_key(session, api_key_id=api_key_id, actor=actor)
