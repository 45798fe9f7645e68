"""Account tokens: issued into a mail, redeemed once, for one purpose, within an hour.

A token is bound to the address that it was sent to: who reads the mail of an address that a user
has given up can do nothing with it.
"""

from collections.abc import Collection
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.auth.tokens import fingerprint, new_secret
from app.core import clock
from app.core.errors import InvalidAccountToken
from app.core.purposes import Purpose
from app.db.session import NO_KEY_UPDATE
from app.models.account_token import AccountToken
from app.models.user import User
from app.services import mail
from app.services.mail import MailKind
from app.services.purging import delete_oldest

LIFETIME = timedelta(hours=1)


class Redeemed(NamedTuple):
    """What a token was for: `user`, locked, or the `registration` of one who is to be."""

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
    """A new token for who reads `email`'s mail. It is stored nowhere, only its SHA-256 is."""
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
    """The registration that a token is for, if it is for one.

    Raises InvalidAccountToken where there is no such token: nothing needs to be hashed for it.
    """
    query = select(AccountToken.registration).where(_valid(secret, purposes))
    token = (await connection.execute(query)).one_or_none()
    if token is None:
        raise InvalidAccountToken
    registration: dict[str, Any] | None = token.registration
    return registration


class Addressee(NamedTuple):
    """The user whom a link was sent to, and the hash of their password."""

    user_id: int
    hashed_password: str


async def find_addressee(
    connection: AsyncConnection, *, secret: str, purposes: Collection[Purpose]
) -> Addressee:
    """The user of a token. Raises InvalidAccountToken where there is no such token."""
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
    """Use a token up, for one of `purposes`.

    Raises InvalidAccountToken where it is unknown, used, expired or for another purpose, where its
    user is disabled, or has another address by now.
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
    # The user before the token: two tokens of one user would wait for each other.
    user = None
    if token.user_id is not None:
        user = await session.get(User, token.user_id, with_for_update=NO_KEY_UPDATE)
        if user is None or not user.is_active:
            raise InvalidAccountToken
        if token.purpose is not Purpose.CHANGE_EMAIL and user.email != token.email:
            raise InvalidAccountToken
    # One statement decides: of two that come at once the second waits, and then finds none.
    deleted = await session.scalar(delete(AccountToken).where(is_valid).returning(AccountToken.id))
    if deleted is None:
        raise InvalidAccountToken
    return Redeemed(token.purpose, token.email, user, token.registration)


async def forget(
    session: AsyncSession, *, user_id: int, purposes: Collection[Purpose] = tuple(Purpose)
) -> None:
    """Make a user's tokens for `purposes` worthless."""
    theirs = delete(AccountToken).where(AccountToken.user_id == user_id)
    await session.execute(theirs.where(AccountToken.purpose.in_(purposes)))


async def revoke_links(session: AsyncSession, *, user_id: int, email: str) -> None:
    """Make worthless whatever link a user has got by mail, or has on its way; they are locked."""
    await forget(session, user_id=user_id)
    kinds = (MailKind.RESET_PASSWORD, MailKind.CHANGE_EMAIL, MailKind.VERIFY_EMAIL)
    await mail.cancel(session, user_id=user_id, email=email, kinds=kinds)


async def withdraw(session: AsyncSession, *, token_hash: bytes) -> None:
    """Make one token worthless: the mail that it was issued for did not go out."""
    await session.execute(delete(AccountToken).where(AccountToken.token_hash == token_hash))


async def purge(session: AsyncSession) -> int:
    """Delete a batch of the expired ones; how many."""
    by = AccountToken.expires_at
    expired = by <= clock.now()
    return await delete_oldest(session, AccountToken.id, expired, by=by)
