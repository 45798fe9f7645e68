"""Registration: immediate, or confirmed by mail, which does not reveal who has an account.

With confirmation by mail, the response and the work are always the same. A new address gets a
link, which creates the account. The owner of a known address gets a mail that an account exists.
"""

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Client
from app.auth.security import hash_password, verify_password
from app.core import clock
from app.core.enums import Purpose
from app.core.errors import IncorrectPassword, UsernameTaken
from app.core.limits import LimitKind
from app.db.session import Database, constraint_errors
from app.models.accounts.user import User
from app.schemas.accounts.recovery import Accepted, RegistrationConfirmation
from app.schemas.accounts.user import UserCreate, UserPrivate
from app.services import audit, limits, outbox
from app.services.accounts import account_tokens, rate_limits, users
from app.services.audit import AuditAction
from app.services.outbox import MailKind

REGISTER = frozenset({Purpose.REGISTER})


async def register(
    session: AsyncSession, *, database: Database, client: Client, new: UserCreate
) -> UserPrivate:
    """Register a user. Raises EmailTaken, UsernameTaken, TooManyAttempts, LimitReached."""
    await _count(database, client)
    return await users.create_user(session, new=new)


async def request_registration(
    session: AsyncSession, *, database: Database, client: Client, new: UserCreate
) -> Accepted:
    """Queue a mail to `new.email` with a link that creates the account.

    Raises UsernameTaken whether the email is known or not, because usernames are public. Raises
    TooManyAttempts, LimitReached.
    """
    same_name = select(User.id).where(func.lower(User.username) == func.lower(new.username))
    await _count(database, client)
    async with database.autocommit() as lookup:
        taken = await lookup.scalar(same_name)
    if taken is not None:
        raise UsernameTaken
    hashed = await hash_password(new.password.get_secret_value())  # before a connection is held
    pending = {"username": new.username, "name": new.name, "hashed_password": hashed}
    outbox.queue(session, MailKind.REGISTER, email=new.email, details=pending)
    return Accepted()


async def _count(database: Database, client: Client) -> None:
    """Count a registration by client address. Raises TooManyAttempts, LimitReached."""
    await rate_limits.count(database, rate_limits.mail_limits(client=client))
    await limits.spend_for_client(database, client, LimitKind.REGISTRATIONS)


async def complete_registration(
    session: AsyncSession, *, database: Database, confirmation: RegistrationConfirmation
) -> UserPrivate:
    """Create the account of a requested registration.

    The password of the registration is required again. If an attacker requested the link with
    their own password, neither they nor the owner of the address can use it.

    Raises InvalidAccountToken, IncorrectPassword, TooManyAttempts. Raises EmailTaken or
    UsernameTaken if another user was faster.
    """
    token, password = confirmation.token, confirmation.password.get_secret_value()
    async with database.autocommit() as lookup:
        pending = await account_tokens.check(lookup, secret=token, purposes=REGISTER)
    hashed = str(pending["hashed_password"]) if pending else None
    async with rate_limits.attempt(database, rate_limits.registration_limits(token)):
        if not await verify_password(password, hashed):
            raise IncorrectPassword
    redeemed = await account_tokens.redeem(session, secret=token, purposes=REGISTER)
    user = User(
        email=redeemed.email, email_verified_at=clock.now(), **(redeemed.registration or {})
    )
    session.add(user)
    with constraint_errors(users.CONSTRAINTS):
        await session.flush()  # checks the unique constraints and assigns the id
    audit.record(session, AuditAction.CREATE_USER, actor_id=user.id, subject_id=user.id)
    return UserPrivate.model_validate(user)
