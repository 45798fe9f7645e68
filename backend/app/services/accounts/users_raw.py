"""The users API in raw SQL, as a reference for the ORM implementation.

RAW_SQL_REFERENCE=true mounts it at /raw/users. The contract tests of users run against both
implementations, so they stay equal. It executes the statements that services/accounts/users.py
sends.
"""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import RowMapping, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Client, Identity
from app.auth.permissions import Action, require
from app.auth.security import hash_password
from app.core import clock
from app.core.conditional import Precondition
from app.core.errors import UserNotFound
from app.db.reading import Reader
from app.db.session import Database, constraint_errors
from app.schemas.accounts.user import (
    UserCreate,
    UserDeletion,
    UserDeletionQuery,
    UserPrivate,
    UserPublic,
    UserReplace,
)
from app.schemas.page import PageQuery
from app.services import audit, outbox
from app.services.accounts import deletion, rate_limits
from app.services.accounts.users import (
    CONSTRAINTS,
    prepare_email_change,
    release_account,
    require_another_admin,
    require_login_for_username,
    visible_user,
)
from app.services.audit import AuditAction
from app.services.outbox import MailKind

_COLUMNS = ", ".join(UserPrivate.model_fields)

_INSERT = text(f"""
    INSERT INTO users
        (email, username, name, hashed_password, role, is_active, created_at, updated_at)
    VALUES (:email, :username, :name, :hashed_password, 'author', true, :now, :now)
    RETURNING {_COLUMNS}
""")
_SELECT_PAGE = text(f"SELECT {_COLUMNS} FROM users ORDER BY id OFFSET :skip LIMIT :limit")
_SELECT = text(f"SELECT {_COLUMNS} FROM users WHERE id = :id")
_SELECT_LOCKED = text(f"SELECT {_COLUMNS} FROM users WHERE id = :id FOR NO KEY UPDATE")
_UPDATE = text(f"""
    UPDATE users SET email = :email, username = :username, name = :name, bio = :bio,
        image_url = :image_url, updated_at = :now,
        email_verified_at = CASE WHEN email = CAST(:email AS varchar) THEN email_verified_at END
    WHERE id = :id
    RETURNING {_COLUMNS}
""")
_DELETE = text("DELETE FROM users WHERE id = :id")


async def create_user(
    session: AsyncSession, *, database: Database, client: Client, new: UserCreate
) -> UserPrivate:
    """Create a user. Raises EmailTaken, UsernameTaken, TooManyAttempts."""
    await rate_limits.count(database, rate_limits.mail_limits(client=client))
    values = {
        "email": new.email,
        "username": new.username,
        "name": new.name,
        "hashed_password": await hash_password(new.password.get_secret_value()),
        "now": clock.now(),
    }
    with constraint_errors(CONSTRAINTS):
        row = (await session.execute(_INSERT, values)).one()
    audit.record(session, AuditAction.CREATE_USER, actor_id=row.id, subject_id=row.id)
    outbox.queue(session, MailKind.VERIFY_EMAIL, email=row.email, user_id=row.id)
    return UserPrivate.model_validate(row)


async def list_users(
    reader: Reader, *, page: PageQuery, viewer: Identity | None
) -> Sequence[UserPublic]:
    """List users by id, each with the fields that `viewer` may see."""
    rows = await reader.execute(_SELECT_PAGE, {"skip": page.skip, "limit": page.limit})
    return [visible_user(viewer, row) for row in rows]


async def get_user(reader: Reader, *, user_id: int, viewer: Identity | None) -> UserPublic:
    """Return one user with the fields that `viewer` may see. Raises UserNotFound."""
    row = (await reader.execute(_SELECT, {"id": user_id})).one_or_none()
    if row is None:
        raise UserNotFound
    return visible_user(viewer, row)


async def update_user(
    session: AsyncSession,
    *,
    user_id: int,
    changes: UserReplace,
    actor: Identity,
    precondition: Precondition,
) -> UserPrivate:
    """Update the fields that `changes` sets.

    Raises UserNotFound, NotAuthorized, EmailTaken, UsernameTaken, PreconditionFailed. A new email
    also raises the errors of `prepare_email_change`. A new username raises SessionRequired for an
    API key.
    """
    row = await _locked_user(session, user_id=user_id)
    require(actor, Action.CHANGE_USER, owner_id=user_id)
    precondition.require(UserPrivate.model_validate(row))
    if changes.email != row["email"]:
        await prepare_email_change(
            session,
            user_id,
            old_email=row["email"],
            was_verified=row["email_verified_at"] is not None,
            new_email=changes.email,
            actor=actor,
        )
    if changes.username != row["username"]:
        require_login_for_username(actor)
    values = {**row, **changes.model_dump(exclude_unset=True)}
    if values == row:
        return UserPrivate.model_validate(values)
    with constraint_errors(CONSTRAINTS):
        updated = (await session.execute(_UPDATE, {**values, "now": clock.now()})).one()
    audit.record(session, AuditAction.UPDATE_USER, actor_id=actor.id, subject_id=user_id)
    return UserPrivate.model_validate(updated)


async def delete_user(
    session: AsyncSession,
    *,
    database: Database,
    user_id: int,
    query: UserDeletionQuery,
    confirmation: UserDeletion | None,
    actor: Identity,
    precondition: Precondition,
) -> None:
    """Delete an account and its data. `query` determines what happens to its articles.

    `session` must not have been used yet. Raises UserNotFound, PreconditionFailed, LastAdmin, and
    what `deletion.prepare` raises.
    """
    recipient_id, actor = await deletion.prepare(
        session,
        database=database,
        user_id=user_id,
        query=query,
        confirmation=confirmation,
        actor=actor,
    )
    row = await _locked_user(session, user_id=user_id)
    require(actor, Action.DELETE_USER, owner_id=user_id)
    precondition.require(UserPrivate.model_validate(row))
    await require_another_admin(session, user_id=user_id)
    await release_account(session, user_id=user_id, recipient_id=recipient_id, actor=actor)
    await session.execute(_DELETE, {"id": user_id})
    audit.record(session, AuditAction.DELETE_USER, actor_id=actor.id, subject_id=user_id)


async def _locked_user(session: AsyncSession, *, user_id: int) -> dict[str, Any]:
    result = await session.execute(_SELECT_LOCKED, {"id": user_id})
    row: RowMapping | None = result.mappings().one_or_none()
    if row is None:
        raise UserNotFound
    deletion.require_not_placeholder(row["email"])
    return dict(row)
