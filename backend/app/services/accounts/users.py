"""Users: create, read, update, disable and delete accounts."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Integer,
    Row,
    Select,
    String,
    bindparam,
    func,
    or_,
    select,
    text,
)
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.auth.permissions import Action, may, require
from app.auth.security import hash_password
from app.core import clock
from app.core.conditional import Precondition
from app.core.enums import Role
from app.core.errors import (
    EmailTaken,
    LastAdmin,
    PasswordRequired,
    SessionRequired,
    UsernameTaken,
    UserNotFound,
)
from app.core.limits import LimitKind
from app.db.connections import MAX_STATEMENT_SECONDS
from app.db.reading import Reader
from app.db.selection import Selection, fields_of
from app.db.session import (
    NO_KEY_UPDATE,
    Database,
    constraint_errors,
    paged,
)
from app.models.accounts.user import UNIQUE_EMAIL, UNIQUE_USERNAME, User
from app.models.community.comment import Comment
from app.models.community.favorite import ArticleCounts, Favorite
from app.models.community.follow import Follow, UserCounts
from app.schemas.accounts.user import (
    AccountQuery,
    UserCreate,
    UserDeletion,
    UserDeletionQuery,
    UserPrivate,
    UserPublic,
    UserReplace,
    UserUpdate,
)
from app.schemas.page import PageQuery
from app.services import audit, limits, outbox
from app.services.accounts import account_tokens, deletion, sessions
from app.services.audit import AuditAction
from app.services.outbox import MailKind
from app.services.pages.keyset import keyset, read_page
from app.services.pages.paging import ListPage

ADMIN_LOCK_ID = 0x61646D696E
"""Key of the advisory lock for changes that remove an administrator: "admin" in ASCII."""

CONSTRAINTS = {str(UNIQUE_EMAIL.name): EmailTaken, str(UNIQUE_USERNAME.name): UsernameTaken}

_SELECT = select(*fields_of(UserPrivate, User).values())
_ONE = _SELECT.where(User.id == bindparam("user_id"))
_LIST = paged(_SELECT.order_by(User.id))
_BY_USERNAME = select(User.id).where(func.lower(User.username) == func.lower(bindparam("username")))
_BY_EMAIL = select(User.id).where(func.lower(User.email) == func.lower(bindparam("email")))
_ACCOUNTS = (
    _SELECT.where(
        User.id > bindparam("after", type_=BigInteger),
        or_(bindparam("role", type_=String).is_(None), User.role == bindparam("role")),
        or_(bindparam("active", type_=Boolean).is_(None), User.is_active == bindparam("active")),
    )
    .order_by(User.id)
    .limit(bindparam("limit", type_=Integer))
)
_TEXT = func.lower(bindparam("text", type_=String))
_ACCOUNT = Selection.of(UserPrivate, User)
_MATCHING = keyset(
    "accounts",
    _ACCOUNT,
    select(*_ACCOUNT.columns).where(
        or_(
            bindparam("text", type_=String).is_(None),
            *(
                func.strpos(func.lower(column), _TEXT) > 0
                for column in (User.username, User.name, User.email)
            ),
        ),
        or_(bindparam("role", type_=String).is_(None), User.role == bindparam("role")),
        or_(bindparam("active", type_=Boolean).is_(None), User.is_active == bindparam("active")),
    ),
    User.id,
)


async def create_user(
    session: AsyncSession,
    *,
    new: UserCreate,
    role: Role = Role.AUTHOR,
    email_verified: bool = False,
    actor: Identity | None = None,
) -> UserPrivate:
    """Create a user. Raises EmailTaken or UsernameTaken; both are compared case-insensitively.

    Queues a mail to verify the email, unless `email_verified` is True. Without an `actor`, the user
    has registered.
    """
    hashed = await hash_password(new.password.get_secret_value())  # before a connection is held
    user = User(
        email=new.email,
        username=new.username,
        name=new.name,
        hashed_password=hashed,
        role=role,
        email_verified_at=clock.now() if email_verified else None,
    )
    session.add(user)
    with constraint_errors(CONSTRAINTS):
        await session.flush()  # checks the unique constraints and assigns the id
    actor_id = user.id if actor is None else actor.id
    audit.record(session, AuditAction.CREATE_USER, actor_id=actor_id, subject_id=user.id)
    if not email_verified:
        outbox.queue(session, MailKind.VERIFY_EMAIL, email=user.email, user_id=user.id)
    return UserPrivate.model_validate(user)


async def list_users(
    reader: Reader, *, page: PageQuery, viewer: Identity | None
) -> Sequence[UserPublic]:
    """List users by id, each with the fields that `viewer` may see."""
    rows = await reader.execute(_LIST, page.model_dump())
    return [visible_user(viewer, row) for row in rows]


def visible_update_times(listed: Sequence[UserPublic]) -> Sequence[datetime]:
    """Return the `updated_at` of all users in a list; an empty list unless all are visible."""
    visible = [user.updated_at for user in listed if isinstance(user, UserPrivate)]
    return visible if len(visible) == len(listed) else []


async def get_user(reader: Reader, *, user_id: int, viewer: Identity | None) -> UserPublic:
    """Return one user with the fields that `viewer` may see. Raises UserNotFound."""
    row = (await reader.execute(_ONE, {"user_id": user_id})).one_or_none()
    if row is None:
        raise UserNotFound
    return visible_user(viewer, row)


async def list_accounts(
    reader: Reader,
    *,
    after: int,
    limit: int,
    role: Role | None = None,
    is_active: bool | None = None,
) -> Sequence[UserPrivate]:
    """List users with a larger id than `after`, by id, for an administrator."""
    parameters = {"after": after, "limit": limit, "role": role and role.value, "active": is_active}
    rows = await reader.execute(_ACCOUNTS, parameters)
    return [UserPrivate.model_validate(row) for row in rows]


async def search_accounts(
    reader: Reader, *, query: AccountQuery, user: Identity
) -> ListPage[UserPrivate]:
    """List the accounts that match, newest first. Raises NotAuthorized, InvalidCursor."""
    require(user, Action.CHANGE_ROLE, owner_id=user.id)
    role = query.role and query.role.value
    filters = {"text": query.q, "role": role, "active": query.active}
    return await read_page(reader, _MATCHING, query=query, parameters=filters, of=filters)


async def find_user_id(reader: Reader, *, name: str) -> int:
    """Return the id of the user with this username or email. Raises UserNotFound."""
    statement, key = (_BY_EMAIL, "email") if "@" in name else (_BY_USERNAME, "username")
    user_id: int | None = await reader.scalar(statement, {key: name})
    if user_id is None:
        raise UserNotFound
    return user_id


async def username_exists(reader: Reader, *, username: str) -> bool:
    """Return whether the username is taken, ignoring case."""
    return await reader.scalar(_BY_USERNAME, {"username": username}) is not None


def visible_user(viewer: Identity | None, user: Row[Any]) -> UserPublic:
    """Return UserPrivate for the user and for administrators, otherwise UserPublic."""
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
    """Update the fields that `changes` sets.

    Raises UserNotFound, NotAuthorized, EmailTaken, UsernameTaken, PreconditionFailed. A new email
    also raises the errors of `prepare_email_change`. A new username raises SessionRequired for an
    API key.
    """
    user = await _locked_user(session, user_id=user_id)
    require(actor, Action.CHANGE_USER, owner_id=user.id)
    precondition.require(UserPrivate.model_validate(user))
    await limits.spend(session, actor, {LimitKind.ACCOUNT_CHANGES: 1})
    if "email" in changes.model_fields_set and changes.email != user.email:
        await prepare_email_change(
            session,
            user.id,
            old_email=user.email,
            was_verified=user.email_verified_at is not None,
            new_email=changes.email,
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
        await session.flush()  # checks the unique constraints
    return UserPrivate.model_validate(user)


def require_login_for_username(actor: Identity) -> None:
    """Raise SessionRequired for an API key, because a username is a login name."""
    if actor.session_id is None:
        raise SessionRequired


async def prepare_email_change(
    session: AsyncSession,
    user_id: int,
    *,
    old_email: str,
    was_verified: bool,
    new_email: str,
    actor: Identity,
) -> None:
    """Prepare a change of a user's email by an administrator.

    Revokes links to the old address, and queues mails to both addresses. A changed email allows a
    password reset and thus an account takeover. Users therefore cannot change their own email here:
    raises PasswordRequired. Raises SessionRequired for an API key.
    """
    if actor.id == user_id:
        raise PasswordRequired
    if actor.session_id is None:
        raise SessionRequired
    await account_tokens.revoke_links(session, user_id=user_id, email=old_email)
    if was_verified:
        outbox.queue(session, MailKind.EMAIL_CHANGED, email=old_email, user_id=user_id)
    outbox.queue(session, MailKind.VERIFY_EMAIL, email=new_email, user_id=user_id)


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
    user = await _locked_user(session, user_id=user_id)
    require(actor, Action.DELETE_USER, owner_id=user.id)
    precondition.require(UserPrivate.model_validate(user))
    await require_another_admin(session, user_id=user.id)
    await release_account(session, user_id=user.id, recipient_id=recipient_id, actor=actor)
    await session.delete(user)
    audit.record(session, AuditAction.DELETE_USER, actor_id=actor.id, subject_id=user.id)


_SET_STATEMENT_TIMEOUT = text(f"SET LOCAL statement_timeout = {MAX_STATEMENT_SECONDS * 1000}")
_USER = bindparam("user_id", type_=BigInteger)
_LOCK_STATEMENTS: Sequence[Select[Any]] = tuple(
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
"""Statements in the lock order of following, favoriting and commenting."""


async def release_account(
    session: AsyncSession, *, user_id: int, recipient_id: int | None, actor: Identity
) -> None:
    """Trash or reassign a user's articles, and lock the rows that the deletion changes.

    Articles come first, because a concurrent change of an article may need a foreign key lock on
    its author. The second call handles articles that were added before the user's row was locked.
    """
    await session.execute(_SET_STATEMENT_TIMEOUT)
    count = await deletion.trash_or_reassign_articles(
        session, user_id=user_id, recipient_id=recipient_id
    )
    await lock_dependent_rows(session, user_id=user_id)
    count += await deletion.trash_or_reassign_articles(
        session, user_id=user_id, recipient_id=recipient_id
    )
    deletion.record_articles(session, actor=actor, count=count, recipient_id=recipient_id)


async def lock_dependent_rows(session: AsyncSession, *, user_id: int) -> None:
    """Lock all rows that the deletion of an account changes, in a fixed order.

    The deletion cascades in many steps, whose triggers update counters. Without a fixed order, two
    deletions, or a deletion and a new follower, could deadlock. Many rows may take long.
    """
    for lock in _LOCK_STATEMENTS:
        await session.execute(lock, {"user_id": user_id})


async def change_role(
    session: AsyncSession, *, user_id: int, role: Role, actor: Identity, precondition: Precondition
) -> UserPrivate:
    """Change a user's role.

    Raises NotAuthorized, UserNotFound, PreconditionFailed, LastAdmin.
    """
    require(actor, Action.CHANGE_ROLE, owner_id=user_id)
    user = await _locked_user(session, user_id=user_id)
    precondition.require(UserPrivate.model_validate(user))
    await limits.spend(session, actor, {LimitKind.ACCOUNT_CHANGES: 1})
    if role is not user.role:
        await require_another_admin(session, user_id=user.id)
        user.role = role
        audit.record(session, AuditAction.CHANGE_ROLE, actor_id=actor.id, subject_id=user.id)
        await session.flush()  # sets `updated_at`
    return UserPrivate.model_validate(user)


async def disable_user(session: AsyncSession, *, user_id: int, actor: Identity) -> UserPrivate:
    """Disable a user, end their sessions and revoke the links that were mailed to them.

    Raises NotAuthorized, UserNotFound, LastAdmin.
    """
    require(actor, Action.DISABLE_USER, owner_id=user_id)
    user = await _locked_user(session, user_id=user_id)
    await limits.spend(session, actor, {LimitKind.ACCOUNT_CHANGES: 1})
    if user.is_active:
        await require_another_admin(session, user_id=user.id)
        user.is_active = False
        await sessions.end_all(session, user_id=user.id)
        await account_tokens.revoke_links(session, user_id=user.id, email=user.email)
        audit.record(session, AuditAction.DISABLE_USER, actor_id=actor.id, subject_id=user.id)
        await session.flush()  # sets `updated_at`
    return UserPrivate.model_validate(user)


async def enable_user(session: AsyncSession, *, user_id: int, actor: Identity) -> UserPrivate:
    """Enable a disabled user. Raises NotAuthorized, UserNotFound."""
    require(actor, Action.DISABLE_USER, owner_id=user_id)
    user = await _locked_user(session, user_id=user_id)
    await limits.spend(session, actor, {LimitKind.ACCOUNT_CHANGES: 1})
    if not user.is_active:
        user.is_active = True
        audit.record(session, AuditAction.ENABLE_USER, actor_id=actor.id, subject_id=user.id)
        await session.flush()  # sets `updated_at`
    return UserPrivate.model_validate(user)


async def require_another_admin(session: AsyncSession, *, user_id: int) -> None:
    """Raise LastAdmin if the user is the only active administrator.

    An advisory lock serializes the removal of administrators. Otherwise two administrators who
    remove each other would both find the other one still active.
    """
    admins = select(User.id).where(User.role == Role.ADMIN, User.is_active)
    if await session.scalar(admins.where(User.id == user_id)) is None:
        return
    await session.execute(select(func.pg_advisory_xact_lock(ADMIN_LOCK_ID)))
    if await session.scalar(admins.where(User.id != user_id).limit(1)) is None:
        raise LastAdmin


async def _locked_user(session: AsyncSession, *, user_id: int) -> User:
    user = await session.get(User, user_id, with_for_update=NO_KEY_UPDATE)
    if user is None:
        raise UserNotFound
    deletion.require_not_placeholder(user.email)
    return user
