"""Account deletion: confirmation, and the articles of the deleted user.

Articles outlive their author. They go to the trash, where an editor can restore them, or to another
author. Articles in the trash belong to the placeholder, a disabled user without a known password.
"""

from itertools import count

from sqlalchemy import ColumnElement, case, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity, lock_account, recheck
from app.auth.permissions import Action, may_on_any, require
from app.core import clock
from app.core.errors import InvalidInput, NotAuthorized, PasswordRequired, UserNotFound
from app.db.retry import retry
from app.db.session import NO_KEY_UPDATE, Database
from app.models.accounts.user import User
from app.models.articles.article import Article
from app.schemas.accounts.user import ArticlesOfDeleted, UserDeletion, UserDeletionQuery
from app.schemas.types import MAX_ID
from app.services import audit
from app.services.accounts import second_factor
from app.services.accounts.confirmation import confirm_password
from app.services.audit import AuditAction

PLACEHOLDER_EMAIL = "deleted-user@pressroom.invalid"
"""Identifies the placeholder. Registration refuses addresses under `.invalid` (RFC 2606 §2)."""
PLACEHOLDER_USERNAME = "deleted-user"
PLACEHOLDER_NAME = "Deleted user"
_UNUSABLE_PASSWORD_HASH = (
    "$bcrypt-sha256$v=2,t=2b,r=12$Bacxv1aHyR16bDyEN4cTde$kWSyS6JRjjBkm/5btei3WRdczey2Lme"  # noqa: S105
)
"""The hash of a discarded random password. Comparing it takes as long as any other hash."""


async def prepare(
    session: AsyncSession,
    *,
    database: Database,
    user_id: int,
    query: UserDeletionQuery,
    confirmation: UserDeletion | None,
    actor: Identity,
) -> tuple[int | None, Identity]:
    """Confirm a deletion, and lock the account and the users that it affects.

    Waits for the user's units of work in progress; later ones get ServiceUnavailable until the
    deletion commits or fails. Returns the id of the articles' recipient, None for the trash, and
    the actor as read again. `session` must not have been used yet. Raises PasswordRequired,
    IncorrectPassword, IncorrectCode, TooManyAttempts, NotAuthorized, InvalidInput, InvalidToken.
    """
    await _confirm(database, user_id=user_id, actor=actor, confirmation=confirmation)
    # Before the lock: others must not be able to refuse the user's writes.
    require(actor, Action.DELETE_USER, owner_id=user_id)
    await lock_account(session, user_id=user_id, actor_id=actor.id)
    recipient_id = await _find_recipient(session, user_id=user_id, actor=actor, query=query)
    actor = await _lock_users(session, user_id=user_id, recipient_id=recipient_id, actor=actor)
    return recipient_id, actor


async def _confirm(
    database: Database, *, user_id: int, actor: Identity, confirmation: UserDeletion | None
) -> None:
    """Check the password and second factor code of a user who deletes their own account.

    An administrator who deletes another account needs neither. Holds no connection while the
    password is hashed. Raises PasswordRequired, IncorrectPassword, IncorrectCode, TooManyAttempts.
    """
    if actor.id != user_id:
        return
    if confirmation is None:
        raise PasswordRequired('Send your password to delete your account: {"password": "…"}')
    await confirm_password(database, user=actor, password=confirmation.password)
    await second_factor.confirm_code(database, user=actor, code=confirmation.code)


async def _lock_users(
    session: AsyncSession, *, user_id: int, recipient_id: int | None, actor: Identity
) -> Identity:
    """Lock the deleted user, the recipient and the actor, in the order of their ids.

    Returns the actor as read again. Raises InvalidToken if the actor's access was revoked during
    the request, and InvalidInput if the recipient is deleted or disabled.
    """
    ids = {user_id, actor.id, *([] if recipient_id is None else [recipient_id])}
    users = select(User.id).where(User.id.in_(ids)).order_by(User.id)
    await session.execute(users.with_for_update(**NO_KEY_UPDATE))
    if recipient_id is not None:
        await _require_recipient(session, User.id == recipient_id, user_id=user_id)
    return await recheck(session, actor)


async def _find_recipient(
    session: AsyncSession, *, user_id: int, actor: Identity, query: UserDeletionQuery
) -> int | None:
    """Return the id of the articles' recipient; None if they go to the trash.

    Raises NotAuthorized unless the actor may write for others, and InvalidInput unless `to` names
    another active user.
    """
    if query.articles is ArticlesOfDeleted.TRASH:
        return None
    if actor.id == user_id and not may_on_any(actor, Action.IMPORT_ARTICLE):
        raise NotAuthorized("Only editors and administrators may reassign articles")
    name = query.to or ""
    is_id = name.isascii() and name.isdigit() and int(name) <= MAX_ID
    named = User.id == int(name) if is_id else func.lower(User.username) == name.lower()
    return await _require_recipient(session, named, user_id=user_id)


async def _require_recipient(
    session: AsyncSession, named: ColumnElement[bool], *, user_id: int
) -> int:
    found = await session.scalar(select(User.id).where(named, User.is_active))
    if found is None or found == user_id:
        raise InvalidInput("`to` must be the id or username of another active user")
    return found


async def trash_or_reassign_articles(
    session: AsyncSession, *, user_id: int, recipient_id: int | None
) -> int:
    """Reassign a user's articles, or move them to the trash; return how many.

    The user's row is locked. The articles are locked in the order of their ids. Raises
    ServiceUnavailable if concurrent requests always take a slug first.
    """
    locked = select(Article.id).where(Article.author_id == user_id).order_by(Article.id)
    ids = (await session.scalars(locked.with_for_update(**NO_KEY_UPDATE))).all()
    if not ids:
        return 0
    now = clock.now()
    values = {"author_id": recipient_id, "version": Article.version + 1, "updated_at": now}
    if recipient_id is None:
        values["author_id"] = await _placeholder(session)
        values["deleted_at"] = case((Article.deleted_at.is_(None), now), else_=Article.deleted_at)
    statement = update(Article).where(Article.author_id == user_id).values(values)
    statement = statement.execution_options(synchronize_session=False)
    # If the recipient gets a draft with the same slug, a trigger changes the slug here.
    await retry(session, lambda session: session.execute(statement))
    return len(ids)


def record_articles(
    session: AsyncSession, *, actor: Identity, count: int, recipient_id: int | None
) -> None:
    """Record in the audit trail that a deleted user's articles were trashed or reassigned."""
    if count:
        trashed = recipient_id is None
        action = AuditAction.DELETE_ARTICLE if trashed else AuditAction.REASSIGN_ARTICLES
        audit.record(
            session, action, actor_id=actor.id, subject="article", subject_id=None, count=count
        )


def require_not_placeholder(email: str) -> None:
    """Raise UserNotFound for the placeholder, which cannot be changed or deleted."""
    if email == PLACEHOLDER_EMAIL:
        raise UserNotFound


async def _placeholder(session: AsyncSession) -> int:
    """Return the id of the placeholder, which the first deletion with articles creates."""
    query = select(User.id).where(User.email == PLACEHOLDER_EMAIL)
    numbers = count(1)

    async def find_or_create(session: AsyncSession) -> int:
        found: int | None = await session.scalar(query)
        if found is not None:
            return found
        number = next(numbers)
        row = {
            "email": PLACEHOLDER_EMAIL,
            "username": PLACEHOLDER_USERNAME + (f"-{number}" if number > 1 else ""),
            "name": PLACEHOLDER_NAME,
            "hashed_password": _UNUSABLE_PASSWORD_HASH,
            "is_active": False,
        }
        created: int = (await session.scalars(insert(User).values(row).returning(User.id))).one()
        return created

    return await retry(session, find_or_create)
