"""Users: registering, reading, changing and deleting accounts."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, Row, Select, bindparam, func, or_, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.auth.permissions import Action, may, require
from app.auth.security import hash_password
from app.core import clock
from app.core.conditional import Precondition
from app.core.errors import (
    EmailTaken,
    LastAdmin,
    PasswordRequired,
    SessionRequired,
    UsernameTaken,
    UserNotFound,
)
from app.core.limits import LimitKind
from app.core.roles import Role
from app.db.reading import Reader
from app.db.session import (
    MAX_STATEMENT_SECONDS,
    NO_KEY_UPDATE,
    Database,
    constraint_errors,
    paged,
)
from app.models.comment import Comment
from app.models.favorite import ArticleCounts, Favorite
from app.models.follow import Follow, UserCounts
from app.models.user import UNIQUE_EMAIL, UNIQUE_USERNAME, User
from app.schemas.page import PageQuery
from app.schemas.user import (
    UserCreate,
    UserDeletion,
    UserDeletionQuery,
    UserPrivate,
    UserPublic,
    UserReplace,
    UserUpdate,
)
from app.services import account_tokens, audit, deletion, limits, mail, sessions
from app.services.audit import AuditAction
from app.services.mail import MailKind

ADMINISTRATORS_LOCK = 0x61646D696E
"""Any number will do, as long as all who remove an administrator take the same: "admin"."""

CONSTRAINTS = {str(UNIQUE_EMAIL.name): EmailTaken, str(UNIQUE_USERNAME.name): UsernameTaken}

_COLUMNS = select(*(getattr(User, field) for field in UserPrivate.model_fields))
_ONE = _COLUMNS.where(User.id == bindparam("user_id"))
_LIST = paged(_COLUMNS.order_by(User.id))
_BY_USERNAME = select(User.id).where(func.lower(User.username) == func.lower(bindparam("username")))


async def create_user(
    session: AsyncSession, *, new: UserCreate, role: Role = Role.AUTHOR, vouched_for: bool = False
) -> UserPrivate:
    """Register a user. Raises EmailTaken or UsernameTaken, whatever the case of the letters.

    They get a mail to verify their email, unless an operator has vouched for it.
    """
    hashed = await hash_password(new.password.get_secret_value())  # before a connection is held
    user = User(
        email=new.email,
        username=new.username,
        name=new.name,
        hashed_password=hashed,
        role=role,
        email_verified_at=clock.now() if vouched_for else None,
    )
    session.add(user)
    with constraint_errors(CONSTRAINTS):
        await session.flush()  # the constraints speak, and the user has an id
    audit.record(session, AuditAction.CREATE_USER, actor_id=user.id, subject_id=user.id)
    if not vouched_for:
        mail.queue(session, MailKind.VERIFY_EMAIL, email=user.email, user_id=user.id)
    return UserPrivate.model_validate(user)


async def list_users(
    connection: Reader, *, page: PageQuery, viewer: Identity | None
) -> Sequence[UserPublic]:
    """Users by id, each as `viewer` may see them."""
    rows = await connection.execute(_LIST, page.model_dump())
    return [as_seen_by(viewer, row) for row in rows]


def changes_shown(listed: Sequence[UserPublic]) -> Sequence[datetime]:
    """When the users of a list were changed, where its reader sees that of all; none otherwise."""
    shown = [user.updated_at for user in listed if isinstance(user, UserPrivate)]
    return shown if len(shown) == len(listed) else []


async def get_user(connection: Reader, *, user_id: int, viewer: Identity | None) -> UserPublic:
    """One user, as `viewer` may see them. Raises UserNotFound."""
    row = (await connection.execute(_ONE, {"user_id": user_id})).one_or_none()
    if row is None:
        raise UserNotFound
    return as_seen_by(viewer, row)


async def username_exists(connection: Reader, *, username: str) -> bool:
    """Whether somebody has this username, in whatever case."""
    return await connection.scalar(_BY_USERNAME, {"username": username}) is not None


def as_seen_by(viewer: Identity | None, user: Row[Any]) -> UserPublic:
    """The private view for the user themselves and for administrators, else the public one."""
    private = may(viewer, Action.READ_PRIVATE_USER, owner_id=user.id)
    return (UserPrivate if private else UserPublic).model_validate(user)


async def update_user(
    session: AsyncSession,
    *,
    user_id: int,
    changes: UserReplace | UserUpdate,
    actor: Identity,
    precondition: Precondition,
) -> UserPrivate:
    """Change what `changes` sets. Raises UserNotFound, NotAuthorized, EmailTaken, UsernameTaken.

    PreconditionFailed where the user is not what the client believes. Another email: raises what
    `change_email_of` does. Another username: SessionRequired for a key.
    """
    user = await _locked_user(session, user_id=user_id)
    require(actor, Action.CHANGE_USER, owner_id=user.id)
    precondition.require(UserPrivate.model_validate(user))
    await limits.spend(session, actor, {LimitKind.ACCOUNT_CHANGES: 1})
    if "email" in changes.model_fields_set and changes.email != user.email:
        await change_email_of(
            session,
            user.id,
            before=user.email,
            was_verified=user.email_verified_at is not None,
            now=changes.email,
            actor=actor,
        )
        user.email_verified_at = None
    if "username" in changes.model_fields_set and changes.username != user.username:
        require_login_for_username(actor)
    for field, value in changes.model_dump(exclude_unset=True).items():
        setattr(user, field, value)
    if session.is_modified(user):
        audit.record(session, AuditAction.UPDATE_USER, actor_id=actor.id, subject_id=user.id)
    with constraint_errors(CONSTRAINTS):
        await session.flush()  # the constraints speak
    return UserPrivate.model_validate(user)


def require_login_for_username(actor: Identity) -> None:
    """A username is what one logs in with: raise SessionRequired for an API key."""
    if actor.session_id is None:
        raise SessionRequired


async def change_email_of(
    session: AsyncSession,
    user_id: int,
    *,
    before: str,
    was_verified: bool,
    now: str,
    actor: Identity,
) -> None:
    """Let an administrator change another's email: links to the old one end, and both are told.

    Whoever changes an email can take the account over, by a reset of its password. So one's own
    takes the password: raises PasswordRequired. Another's takes a login: raises SessionRequired for
    an API key.
    """
    if actor.id == user_id:
        raise PasswordRequired
    if actor.session_id is None:
        raise SessionRequired
    await account_tokens.revoke_links(session, user_id=user_id, email=before)
    if was_verified:
        mail.queue(session, MailKind.EMAIL_CHANGED, email=before, user_id=user_id)
    mail.queue(session, MailKind.VERIFY_EMAIL, email=now, user_id=user_id)


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
    user = await _locked_user(session, user_id=user_id)
    require(actor, Action.DELETE_USER, owner_id=user.id)
    precondition.require(UserPrivate.model_validate(user))
    await keep_an_admin(session, without=user.id)
    await end_account(session, user_id=user.id, to=to, actor=actor)
    await session.delete(user)
    audit.record(session, AuditAction.DELETE_USER, actor_id=actor.id, subject_id=user.id)


_PATIENCE = text(f"SET LOCAL statement_timeout = {MAX_STATEMENT_SECONDS * 1000}")
_USER = bindparam("user_id", type_=BigInteger)
_LOCKS: Sequence[Select[Any]] = tuple(
    select(func.count()).select_from(locked.with_for_update().subquery())
    for locked in (
        select(User.id).where(User.id == _USER),
        select(Comment.id).where(Comment.author_id == _USER).order_by(Comment.id),
        select(ArticleCounts.article_id)
        .where(
            or_(
                ArticleCounts.article_id.in_(
                    select(Favorite.article_id).where(Favorite.user_id == _USER)
                ),
                ArticleCounts.article_id.in_(
                    select(Comment.article_id).where(Comment.author_id == _USER)
                ),
            )
        )
        .order_by(ArticleCounts.article_id),
        select(UserCounts.user_id)
        .where(
            or_(
                UserCounts.user_id == _USER,
                UserCounts.user_id.in_(
                    select(Follow.followed_id).where(Follow.follower_id == _USER)
                ),
                UserCounts.user_id.in_(
                    select(Follow.follower_id).where(Follow.followed_id == _USER)
                ),
            )
        )
        .order_by(UserCounts.user_id),
    )
)
"""In the order in which whoever follows, favorites or comments locks them."""


async def end_account(
    session: AsyncSession, *, user_id: int, to: int | None, actor: Identity
) -> None:
    """Part with the articles of a user, and lock what goes with the account.

    The articles first: whoever is changing one may need to refer to its author until then. Then
    again, for those that were added before the user's row was locked against references.
    """
    await session.execute(_PATIENCE)
    number = await deletion.part_with_articles(session, user_id=user_id, to=to)
    await lock_what_goes(session, user_id=user_id)
    number += await deletion.part_with_articles(session, user_id=user_id, to=to)
    deletion.record_articles(session, actor=actor, number=number, to=to)


async def lock_what_goes(session: AsyncSession, *, user_id: int) -> None:
    """Lock whatever the end of an account will change, in one order.

    It ends in many steps, each with triggers that count: two of them, or one and a new follower,
    would wait for each other. It may take long where there are many.
    """
    for lock in _LOCKS:
        await session.execute(lock, {"user_id": user_id})


async def change_role(
    session: AsyncSession, *, user_id: int, role: Role, actor: Identity, precondition: Precondition
) -> UserPrivate:
    """Give a user another role.

    Raises NotAuthorized, UserNotFound, PreconditionFailed, LastAdmin.
    """
    require(actor, Action.CHANGE_ROLE, owner_id=user_id)
    user = await _locked_user(session, user_id=user_id)
    precondition.require(UserPrivate.model_validate(user))
    await limits.spend(session, actor, {LimitKind.ACCOUNT_CHANGES: 1})
    if role is not user.role:
        await keep_an_admin(session, without=user.id)
        user.role = role
        audit.record(session, AuditAction.CHANGE_ROLE, actor_id=actor.id, subject_id=user.id)
        await session.flush()  # `updated_at` is set
    return UserPrivate.model_validate(user)


async def disable_user(session: AsyncSession, *, user_id: int, actor: Identity) -> UserPrivate:
    """Keep a user out, and end their sessions and the links that they got by mail.

    Raises NotAuthorized, UserNotFound, LastAdmin.
    """
    require(actor, Action.DISABLE_USER, owner_id=user_id)
    user = await _locked_user(session, user_id=user_id)
    await limits.spend(session, actor, {LimitKind.ACCOUNT_CHANGES: 1})
    if user.is_active:
        await keep_an_admin(session, without=user.id)
        user.is_active = False
        await sessions.end_all(session, user_id=user.id)
        await account_tokens.revoke_links(session, user_id=user.id, email=user.email)
        audit.record(session, AuditAction.DISABLE_USER, actor_id=actor.id, subject_id=user.id)
        await session.flush()  # `updated_at` is set
    return UserPrivate.model_validate(user)


async def enable_user(session: AsyncSession, *, user_id: int, actor: Identity) -> UserPrivate:
    """Let a user log in again. Raises NotAuthorized, UserNotFound."""
    require(actor, Action.DISABLE_USER, owner_id=user_id)
    user = await _locked_user(session, user_id=user_id)
    await limits.spend(session, actor, {LimitKind.ACCOUNT_CHANGES: 1})
    if not user.is_active:
        user.is_active = True
        audit.record(session, AuditAction.ENABLE_USER, actor_id=actor.id, subject_id=user.id)
        await session.flush()  # `updated_at` is set
    return UserPrivate.model_validate(user)


async def keep_an_admin(session: AsyncSession, *, without: int) -> None:
    """Raise LastAdmin where nobody could administer `without` this user.

    Those who are about to remove an administrator queue for a lock, so that two who remove each
    other do not both find the other one still there.
    """
    admins = select(User.id).where(User.role == Role.ADMIN, User.is_active)
    if await session.scalar(admins.where(User.id == without)) is None:
        return
    await session.execute(select(func.pg_advisory_xact_lock(ADMINISTRATORS_LOCK)))
    if await session.scalar(admins.where(User.id != without).limit(1)) is None:
        raise LastAdmin


async def _locked_user(session: AsyncSession, *, user_id: int) -> User:
    user = await session.get(User, user_id, with_for_update=NO_KEY_UPDATE)
    if user is None:
        raise UserNotFound
    deletion.require_not_placeholder(user.email)
    return user
