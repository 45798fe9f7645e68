"""Taking an account over from whoever registered an address that they never proved to read.

A stranger may register somebody else's address and prepare the account, so that they keep a way in
when the owner of the address comes (account pre-hijacking, Sudhodanan and Paverd, 2022). Until the
address is verified, the account belongs to whoever reads its mail.
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
"""What gives access or is personal. Links and mails are revoked; what was published stays."""


async def forget_stranger(session: AsyncSession, user: User) -> None:
    """Remove what whoever registered an unverified account could come back by.

    The caller has locked the row of `user`, and gives it another password. Articles, comments and
    the like stay, for the owner to judge: they are public, or seen by the owner, and open nothing.
    """
    for owner in REMOVED:
        await session.execute(
            delete(owner.class_).where(owner == user.id),
            execution_options={"synchronize_session": False},
        )
    await account_tokens.revoke_links(session, user_id=user.id, email=user.email)
    user.bio = ""
    user.image_url = None
