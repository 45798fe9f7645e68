"""Protection against account pre-hijacking (Sudhodanan and Paverd, 2022).

An attacker may register with another person's address and prepare the account, in order to keep
access when that person uses it. Until the address is verified, its owner can therefore take the
account over by a password reset.
"""

from collections.abc import Sequence

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.models.accounts.address import Address
from app.models.accounts.api_key import ApiKey
from app.models.accounts.second_factor import RecoveryCode, SecondFactor
from app.models.accounts.session import UserSession
from app.models.accounts.user import User
from app.models.articles.preview_link import PreviewLink
from app.models.integrations.webhook import Webhook
from app.services.accounts import account_tokens

REMOVED_BY_OWNER: Sequence[InstrumentedAttribute[int] | InstrumentedAttribute[int | None]] = (
    UserSession.user_id,  # also makes the attacker's networks unknown to the account
    ApiKey.user_id,
    SecondFactor.user_id,
    RecoveryCode.user_id,
    PreviewLink.created_by,
    Webhook.owner_id,  # would send events of the owner to the attacker
    Address.user_id,
)
"""Rows that give access or are personal. Articles and comments stay."""


async def remove_prior_access(session: AsyncSession, user: User) -> None:
    """Remove everything that could give an attacker access to an unverified account again.

    The caller has locked the row of `user`, and sets a new password. Articles and comments stay.
    They give no access, and the owner can delete them.
    """
    for owner in REMOVED_BY_OWNER:
        await session.execute(
            delete(owner.class_).where(owner == user.id),
            execution_options={"synchronize_session": False},
        )
    await account_tokens.revoke_links(session, user_id=user.id, email=user.email)
    user.bio = ""
    user.image_url = None
