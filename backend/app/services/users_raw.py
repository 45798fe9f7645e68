"""The users API in raw SQL: a reference to compare the ORM's with, not a second truth.

Mounted at /raw/users with RAW_SQL_REFERENCE=true. The contract tests of users run against both, so
that it cannot rot. It does what services/users.py does, by the statements that reach PostgreSQL.
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
from app.schemas.page import PageQuery
from app.schemas.user import (
    UserCreate,
    UserDeletion,
    UserDeletionQuery,
    UserPrivate,
    UserPublic,
    UserReplace,
)
from app.services import attempts, audit, deletion, mail
from app.services.audit import AuditAction
from app.services.mail import MailKind
from app.services.users import (
    CONSTRAINTS,
    as_seen_by,
    change_email_of,
    end_account,
    keep_an_admin,
    require_login_for_username,
)

_COLUMNS = (
    "id, username, name, email, role, is_active, email_verified_at, bio, image_url, created_at,"
    " updated_at"
)

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
    """Register a user. Raises EmailTaken, UsernameTaken, TooManyAttempts."""
    await attempts.count(database, attempts.on_mail(client=client))
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
    mail.queue(session, MailKind.VERIFY_EMAIL, email=row.email, user_id=row.id)
    return UserPrivate.model_validate(row)


async def list_users(
    connection: Reader, *, page: PageQuery, viewer: Identity | None
) -> Sequence[UserPublic]:
    """Users by id, each as `viewer` may see them."""
    rows = await connection.execute(_SELECT_PAGE, {"skip": page.skip, "limit": page.limit})
    return [as_seen_by(viewer, row) for row in rows]


async def get_user(connection: Reader, *, user_id: int, viewer: Identity | None) -> UserPublic:
    """One user, as `viewer` may see them. Raises UserNotFound."""
    row = (await connection.execute(_SELECT, {"id": user_id})).one_or_none()
    if row is None:
        raise UserNotFound
    return as_seen_by(viewer, row)


async def update_user(
    session: AsyncSession,
    *,
    user_id: int,
    changes: UserReplace,
    actor: Identity,
    precondition: Precondition,
) -> UserPrivate:
    """Change what `changes` sets. Raises UserNotFound, NotAuthorized, EmailTaken, UsernameTaken.

    PreconditionFailed where the user is not what the client believes. Another email: raises what
    `change_email_of` does. Another username: SessionRequired for a key.
    """
    row = await _locked_user(session, user_id=user_id)
    require(actor, Action.CHANGE_USER, owner_id=user_id)
    precondition.require(UserPrivate.model_validate(row))
    if changes.email != row["email"]:
        await change_email_of(
            session,
            user_id,
            before=row["email"],
            was_verified=row["email_verified_at"] is not None,
            now=changes.email,
            actor=actor,
        )
    if changes.username != row["username"]:
        require_login_for_username(actor)
    wanted = {**row, **changes.model_dump(exclude_unset=True)}
    if wanted == row:
        return UserPrivate.model_validate(wanted)
    with constraint_errors(CONSTRAINTS):
        updated = (await session.execute(_UPDATE, {**wanted, "now": clock.now()})).one()
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
    """Delete an account with all that is its own, but for its articles: `query` says where they go.

    `session` must not have been used yet. Raises UserNotFound, PreconditionFailed, LastAdmin, and
    what `deletion.prepare` raises.
    """
    to, actor = await deletion.prepare(
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
    await keep_an_admin(session, without=user_id)
    await end_account(session, user_id=user_id, to=to, actor=actor)
    await session.execute(_DELETE, {"id": user_id})
    audit.record(session, AuditAction.DELETE_USER, actor_id=actor.id, subject_id=user_id)


async def _locked_user(session: AsyncSession, *, user_id: int) -> dict[str, Any]:
    result = await session.execute(_SELECT_LOCKED, {"id": user_id})
    row: RowMapping | None = result.mappings().one_or_none()
    if row is None:
        raise UserNotFound
    deletion.require_not_placeholder(row["email"])
    return dict(row)
