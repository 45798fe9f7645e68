"""Taking over an account that somebody else registered with an address that is not theirs.

A stranger may register with somebody else's address and prepare the account, to keep access once
the owner of the address uses it (account pre-hijacking, Sudhodanan and Paverd, 2022). Until the
address is verified, the account belongs to its owner, who can read the mail.
"""

from collections.abc import Sequence

from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.models.address import Address
from app.models.api_key import ApiKey
from app.models.preview_link import PreviewLink
from app.models.second_factor import RecoveryCode, SecondFactor
from app.models.session import UserSession
from app.models.user import User
from app.services import account_tokens

REMOVED: Sequence[InstrumentedAttribute[int] | InstrumentedAttribute[int | None]] = (
    UserSession.user_id,  # with them the networks from which the stranger counts as known
    ApiKey.user_id,
    SecondFactor.user_id,
    RecoveryCode.user_id,
    PreviewLink.created_by,
    Address.user_id,
)
"""Rows that give access or are personal. Links in mails are revoked; published content stays."""


async def forget_stranger(session: AsyncSession, user: User) -> None:
    """Remove everything by which the stranger could regain access to an unverified account.

    The caller has locked the row of `user`, and sets another password. Articles and comments stay:
    they give no access, and the owner can delete them.
    """
    for owner in REMOVED:
        await session.execute(
            delete(owner.class_).where(owner == user.id),
            execution_options={"synchronize_session": False},
        )
    await account_tokens.revoke_links(session, user_id=user.id, email=user.email)
    user.bio = ""
    user.image_url = None
