"""Account tokens: sent by mail, valid for one hour, for one purpose and one use.

A token is bound to the address to which it was sent. It becomes invalid when the user changes the
email.
"""

from collections.abc import Collection
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.auth.tokens import fingerprint, new_secret
from app.core import clock
from app.core.enums import Purpose
from app.core.errors import InvalidAccountToken
from app.db.session import NO_KEY_UPDATE
from app.models.accounts.account_token import AccountToken
from app.models.accounts.user import User
from app.services import outbox
from app.services.outbox import MailKind
from app.services.purging import Batch, delete_oldest

LIFETIME = timedelta(hours=1)


class Redeemed(NamedTuple):
    """A redeemed token: its locked `user`, or the `registration` of a new user."""

    purpose: Purpose
    email: str
    user: User | None
    registration: dict[str, Any] | None


async def issue(
    session: AsyncSession,
    *,
    purpose: Purpose,
    email: str,
    user_id: int | None,
    registration: dict[str, Any] | None = None,
) -> str:
    """Return a new token for the owner of `email`. Only its SHA-256 is stored."""
    secret = new_secret()
    now = clock.now()
    session.add(
        AccountToken(
            purpose=purpose,
            email=email,
            user_id=user_id,
            registration=registration,
            token_hash=fingerprint(secret),
            created_at=now,
            expires_at=now + LIFETIME,
        )
    )
    return secret


def _valid(secret: str, purposes: Collection[Purpose]) -> ColumnElement[bool]:
    return and_(
        AccountToken.token_hash == fingerprint(secret),
        AccountToken.purpose.in_(purposes),
        AccountToken.expires_at > clock.now(),
    )


async def check(
    connection: AsyncConnection, *, secret: str, purposes: Collection[Purpose]
) -> dict[str, Any] | None:
    """Return the registration of a token; None if it has another purpose.

    Raises InvalidAccountToken for an invalid token, so that the caller need not hash a password.
    """
    query = select(AccountToken.registration).where(_valid(secret, purposes))
    token = (await connection.execute(query)).one_or_none()
    if token is None:
        raise InvalidAccountToken
    registration: dict[str, Any] | None = token.registration
    return registration


class Addressee(NamedTuple):
    """The user to whom a link was sent, and their password hash."""

    user_id: int
    hashed_password: str


async def find_addressee(
    connection: AsyncConnection, *, secret: str, purposes: Collection[Purpose]
) -> Addressee:
    """Return the user of a token. Raises InvalidAccountToken for an invalid token."""
    query = (
        select(User.id, User.hashed_password)
        .join(AccountToken, AccountToken.user_id == User.id)
        .where(_valid(secret, purposes))
    )
    found = (await connection.execute(query)).one_or_none()
    if found is None:
        raise InvalidAccountToken
    return Addressee._make(found)


async def redeem(session: AsyncSession, *, secret: str, purposes: Collection[Purpose]) -> Redeemed:
    """Consume a token for one of `purposes`.

    Raises InvalidAccountToken if the token is unknown, used, expired or for another purpose. Also
    raises it if the user is disabled or has changed the email.
    """
    is_valid = _valid(secret, purposes)
    found = await session.execute(
        select(
            AccountToken.purpose,
            AccountToken.email,
            AccountToken.user_id,
            AccountToken.registration,
        ).where(is_valid)
    )
    token = found.one_or_none()
    if token is None:
        raise InvalidAccountToken
    # Lock the user before the token. Otherwise two tokens of one user could deadlock.
    user = None
    if token.user_id is not None:
        user = await session.get(User, token.user_id, with_for_update=NO_KEY_UPDATE)
        if user is None or not user.is_active:
            raise InvalidAccountToken
        if token.purpose is not Purpose.CHANGE_EMAIL and user.email != token.email:
            raise InvalidAccountToken
    # One statement decides: the second of two concurrent requests waits, and then finds no row.
    deleted = await session.scalar(delete(AccountToken).where(is_valid).returning(AccountToken.id))
    if deleted is None:
        raise InvalidAccountToken
    return Redeemed(token.purpose, token.email, user, token.registration)


async def revoke(
    session: AsyncSession, *, user_id: int, purposes: Collection[Purpose] = tuple(Purpose)
) -> None:
    """Delete a user's tokens for `purposes`."""
    of_user = delete(AccountToken).where(AccountToken.user_id == user_id)
    await session.execute(of_user.where(AccountToken.purpose.in_(purposes)))


async def revoke_links(session: AsyncSession, *, user_id: int, email: str) -> None:
    """Revoke all links that were mailed to a user or are queued. The user's row is locked."""
    await revoke(session, user_id=user_id)
    kinds = (MailKind.RESET_PASSWORD, MailKind.CHANGE_EMAIL, MailKind.VERIFY_EMAIL)
    await outbox.cancel(session, user_id=user_id, email=email, kinds=kinds)


async def revoke_token(session: AsyncSession, *, token_hash: bytes) -> None:
    """Delete one token, whose mail was not delivered."""
    await session.execute(delete(AccountToken).where(AccountToken.token_hash == token_hash))


async def delete_batch(session: AsyncSession, batch: Batch) -> int:
    """Delete a batch of all tokens; return how many."""
    return await delete_oldest(session, batch, AccountToken.id, order_by=AccountToken.id)


async def purge(session: AsyncSession, batch: Batch) -> int:
    """Delete a batch of expired tokens; return how many."""
    column = AccountToken.expires_at
    expired = column <= clock.now()
    return await delete_oldest(session, batch, AccountToken.id, expired, order_by=column)
