"""/users/{id}/addresses: postal addresses, for the user and for administrators."""

from collections.abc import Sequence

from fastapi import Response, status

from app.auth.dependencies import AddressesActor, RequiredAddressesViewer
from app.core.errors import (
    AddressNotFound,
    LimitReached,
    NotAuthorized,
    QuotaExceeded,
    UserNotFound,
)
from app.db.dependencies import ReadConnection, WriteSession
from app.http.caching import last_modified
from app.routers.idempotency import idempotent
from app.routers.parameters import AddressId, IfMatch, Page, UserId
from app.routers.responses import create_router, errors
from app.schemas.accounts.address import AddressInput, AddressResponse
from app.services.accounts import addresses

router = create_router(prefix="/users/{user_id:user_id}/addresses", tag="addresses")


@router.get("", responses=errors(NotAuthorized, UserNotFound))
async def list_addresses(
    connection: ReadConnection,
    user: RequiredAddressesViewer,
    user_id: UserId,
    page: Page,
    response: Response,
) -> Sequence[AddressResponse]:
    """List a user's addresses by id."""
    listed = await addresses.list_addresses(connection, user_id=user_id, page=page, actor=user)
    response.headers.update(last_modified(address.updated_at for address in listed))
    return listed


@router.get("/{address_id}", responses=errors(NotAuthorized, AddressNotFound))
async def read_address(
    connection: ReadConnection,
    user: RequiredAddressesViewer,
    user_id: UserId,
    address_id: AddressId,
) -> AddressResponse:
    """Read an address."""
    return await addresses.get_address(
        connection, user_id=user_id, address_id=address_id, actor=user
    )


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    responses=errors(LimitReached, QuotaExceeded, NotAuthorized, UserNotFound),
    dependencies=[idempotent(AddressesActor)],
)
async def create_address(
    session: WriteSession, actor: AddressesActor, user_id: UserId, new: AddressInput
) -> AddressResponse:
    """Create an address."""
    return await addresses.create_address(session, user_id=user_id, new=new, actor=actor)


@router.put("/{address_id}", responses=errors(LimitReached, NotAuthorized, AddressNotFound))
async def replace_address(
    session: WriteSession,
    actor: AddressesActor,
    *,
    user_id: UserId,
    address_id: AddressId,
    new: AddressInput,
    precondition: IfMatch,
) -> AddressResponse:
    """Replace an address."""
    return await addresses.replace_address(
        session,
        user_id=user_id,
        address_id=address_id,
        new=new,
        actor=actor,
        precondition=precondition,
    )


@router.delete(
    "/{address_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=errors(LimitReached, NotAuthorized, AddressNotFound),
)
async def delete_address(
    session: WriteSession,
    actor: AddressesActor,
    user_id: UserId,
    address_id: AddressId,
    precondition: IfMatch,
) -> None:
    """Delete an address."""
    await addresses.delete_address(
        session, user_id=user_id, address_id=address_id, actor=actor, precondition=precondition
    )
