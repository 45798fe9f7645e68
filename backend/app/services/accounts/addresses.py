"""Postal addresses of a user, visible to the user and to administrators."""

from collections.abc import Sequence

from sqlalchemy import bindparam, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.auth.permissions import Action, require
from app.core.conditional import Precondition
from app.core.errors import AddressNotFound, UserNotFound
from app.core.limits import LimitKind
from app.db.reading import Reader
from app.db.selection import Selection
from app.db.session import NO_KEY_UPDATE, constraint_errors, paged
from app.models.accounts.address import Address
from app.models.accounts.user import User
from app.schemas.accounts.address import AddressInput, AddressResponse
from app.schemas.page import PageQuery
from app.services import audit, limits
from app.services.audit import AuditAction
from app.services.limits import LimitedUser

USER_REFERENCE = {"fk_addresses_user_id": UserNotFound}

_ADDRESS = Selection.of(AddressResponse, Address)
_SELECT = select(*_ADDRESS.columns)
_LIST = paged(_SELECT.where(Address.user_id == bindparam("user_id")).order_by(Address.id))

_USER = select(User.id).where(User.id == bindparam("user_id"))
_ONE = _SELECT.where(Address.user_id == bindparam("user_id"), Address.id == bindparam("address_id"))


async def list_addresses(
    reader: Reader, *, user_id: int, page: PageQuery, actor: Identity
) -> Sequence[AddressResponse]:
    """List a user's addresses by id. Raises NotAuthorized, UserNotFound."""
    require(actor, Action.MANAGE_ADDRESSES, owner_id=user_id)
    rows = (await reader.execute(_LIST, {"user_id": user_id, **page.model_dump()})).all()
    if not rows and await reader.scalar(_USER, {"user_id": user_id}) is None:
        raise UserNotFound
    return [_ADDRESS.read(row) for row in rows]


async def get_address(
    reader: Reader, *, user_id: int, address_id: int, actor: Identity
) -> AddressResponse:
    """Return one address. Raises NotAuthorized, AddressNotFound."""
    require(actor, Action.MANAGE_ADDRESSES, owner_id=user_id)
    parameters = {"user_id": user_id, "address_id": address_id}
    row = (await reader.execute(_ONE, parameters)).one_or_none()
    if row is None:
        raise AddressNotFound
    return _ADDRESS.read(row)


async def create_address(
    session: AsyncSession, *, user_id: int, new: AddressInput, actor: Identity
) -> AddressResponse:
    """Create an address. Raises NotAuthorized, UserNotFound."""
    require(actor, Action.MANAGE_ADDRESSES, owner_id=user_id)
    address = Address(user_id=user_id, **new.model_dump())
    session.add(address)
    with constraint_errors(USER_REFERENCE):
        await session.flush()  # checks the foreign key and assigns the id
    costs = {LimitKind.ADDRESSES: 1, LimitKind.ACCOUNT_CHANGES: 1}
    await limits.spend(session, LimitedUser(user_id, actor.role), costs)
    _record(session, AuditAction.CREATE_ADDRESS, address, actor)
    return AddressResponse.model_validate(address)


async def replace_address(
    session: AsyncSession,
    *,
    user_id: int,
    address_id: int,
    new: AddressInput,
    actor: Identity,
    precondition: Precondition,
) -> AddressResponse:
    """Replace an address. Raises NotAuthorized, AddressNotFound, PreconditionFailed."""
    address = await _locked_address(session, user_id=user_id, address_id=address_id, actor=actor)
    precondition.require(AddressResponse.model_validate(address))
    await limits.spend(session, actor, {LimitKind.ACCOUNT_CHANGES: 1})
    for field, value in new.model_dump().items():
        setattr(address, field, value)
    if session.is_modified(address):
        _record(session, AuditAction.UPDATE_ADDRESS, address, actor)
    await session.flush()  # sets `updated_at`
    return AddressResponse.model_validate(address)


async def delete_address(
    session: AsyncSession,
    *,
    user_id: int,
    address_id: int,
    actor: Identity,
    precondition: Precondition,
) -> None:
    """Delete an address. Raises NotAuthorized, AddressNotFound, PreconditionFailed."""
    address = await _locked_address(session, user_id=user_id, address_id=address_id, actor=actor)
    precondition.require(AddressResponse.model_validate(address))
    await limits.spend(session, actor, {LimitKind.ACCOUNT_CHANGES: 1})
    await session.delete(address)
    _record(session, AuditAction.DELETE_ADDRESS, address, actor)


async def _locked_address(
    session: AsyncSession, *, user_id: int, address_id: int, actor: Identity
) -> Address:
    require(actor, Action.MANAGE_ADDRESSES, owner_id=user_id)
    query = select(Address).where(Address.id == address_id, Address.user_id == user_id)
    address = (await session.scalars(query.with_for_update(**NO_KEY_UPDATE))).one_or_none()
    if address is None:
        raise AddressNotFound
    return address


def _record(session: AsyncSession, action: AuditAction, address: Address, actor: Identity) -> None:
    audit.record(session, action, actor_id=actor.id, subject="address", subject_id=address.id)
