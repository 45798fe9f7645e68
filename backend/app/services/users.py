"""Users: registering, reading, changing and deleting accounts."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.auth.identity import Identity
from app.auth.permissions import Action, may, require
from app.auth.security import hash_password
from app.core.errors import EmailTaken, UsernameTaken, UserNotFound
from app.core.roles import Role
from app.db.session import NO_KEY_UPDATE, constraint_errors, paged
from app.models.user import UNIQUE_EMAIL, UNIQUE_USERNAME, User
from app.schemas.page import PageQuery
from app.schemas.user import UserCreate, UserPrivate, UserPublic, UserReplace, UserUpdate
from app.services import audit
from app.services.audit import AuditAction

CONSTRAINTS = {str(UNIQUE_EMAIL.name): EmailTaken, str(UNIQUE_USERNAME.name): UsernameTaken}

_COLUMNS = select(*(getattr(User, field) for field in UserPrivate.model_fields))
_ONE = _COLUMNS.where(User.id == bindparam("user_id"))
_LIST = paged(_COLUMNS.order_by(User.id))


async def create_user(
    session: AsyncSession, *, new: UserCreate, role: Role = Role.AUTHOR
) -> UserPrivate:
    """Register a user. Raises EmailTaken or UsernameTaken, whatever the case of the letters."""
    hashed = await hash_password(new.password.get_secret_value())  # before a connection is held
    user = User(
        email=new.email, username=new.username, name=new.name, hashed_password=hashed, role=role
    )
    session.add(user)
    with constraint_errors(CONSTRAINTS):
        await session.flush()  # the constraints speak, and the user has an id
    audit.record(session, AuditAction.CREATE_USER, actor_id=user.id, subject_id=user.id)
    return UserPrivate.model_validate(user)


async def list_users(
    connection: AsyncConnection, *, page: PageQuery, viewer: Identity | None
) -> Sequence[UserPublic]:
    """Users by id, each as `viewer` may see them."""
    rows = await connection.execute(_LIST, page.model_dump())
    return [as_seen_by(viewer, row) for row in rows]


async def get_user(
    connection: AsyncConnection, *, user_id: int, viewer: Identity | None
) -> UserPublic:
    """One user, as `viewer` may see them. Raises UserNotFound."""
    row = (await connection.execute(_ONE, {"user_id": user_id})).one_or_none()
    if row is None:
        raise UserNotFound
    return as_seen_by(viewer, row)


async def username_exists(connection: AsyncConnection, *, username: str) -> bool:
    """Whether somebody has this username, in whatever case."""
    query = select(User.id).where(func.lower(User.username) == func.lower(username))
    return await connection.scalar(query) is not None


def as_seen_by(viewer: Identity | None, user: Row[Any]) -> UserPublic:
    """The private view for the user themselves and for administrators, else the public one."""
    private = may(viewer, Action.READ_PRIVATE_USER, owner_id=user.id)
    return (UserPrivate if private else UserPublic).model_validate(user)


async def update_user(
    session: AsyncSession, *, user_id: int, changes: UserReplace | UserUpdate, actor: Identity
) -> UserPrivate:
    """Change what `changes` sets. Raises UserNotFound, NotAuthorized, EmailTaken, UsernameTaken."""
    user = await _locked_user(session, user_id=user_id)
    require(actor, Action.CHANGE_USER, owner_id=user.id)
    for field, value in changes.model_dump(exclude_unset=True).items():
        setattr(user, field, value)
    if session.is_modified(user):
        audit.record(session, AuditAction.UPDATE_USER, actor_id=actor.id, subject_id=user.id)
    with constraint_errors(CONSTRAINTS):
        await session.flush()  # the constraints speak
    return UserPrivate.model_validate(user)


async def delete_user(session: AsyncSession, *, user_id: int, actor: Identity) -> None:
    """Delete an account with its articles and addresses. Raises UserNotFound, NotAuthorized."""
    user = await _locked_user(session, user_id=user_id)
    require(actor, Action.DELETE_USER, owner_id=user.id)
    await session.delete(user)
    audit.record(session, AuditAction.DELETE_USER, actor_id=actor.id, subject_id=user.id)


async def _locked_user(session: AsyncSession, *, user_id: int) -> User:
    user = await session.get(User, user_id, with_for_update=NO_KEY_UPDATE)
    if user is None:
        raise UserNotFound
    return user
