"""First start: without an administrator, a code that only the log contains makes one.

The code is computed from SECRET_KEY and from a random nonce in the database. All workers log the
same code, also after a restart. It is valid until an administrator exists.
"""

import hashlib
import hmac
from base64 import b32encode
from uuid import UUID, uuid4

from pydantic import SecretStr
from sqlalchemy import bindparam, delete, exists, func, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.auth.codes import normalize_code
from app.auth.identity import Client
from app.auth.keys import derived_keys
from app.auth.tokens import PageToken
from app.core.enums import Role
from app.core.errors import AlreadySetUp, IncorrectCode
from app.core.logging import get_logger
from app.db.session import Database
from app.models.accounts.first_start import FirstStart
from app.models.accounts.user import User
from app.schemas.accounts.user import UserCreate
from app.services.accounts import rate_limits, sessions, users

logger = get_logger(__name__)

CODE_LENGTH = 20
"""Characters of the code, with 5 bits each."""

_HAS_ADMIN = select(exists().where(User.role == Role.ADMIN))
_HAS_OTHER_ADMIN = select(exists().where(User.role == Role.ADMIN, User.id != bindparam("user_id")))
_NONCE = select(FirstStart.nonce)
_CREATE_NONCE = insert(FirstStart).values(id=1, nonce=bindparam("nonce")).on_conflict_do_nothing()
_DELETE_NONCE = delete(FirstStart).where(FirstStart.id == 1)


async def is_open(database: Database) -> bool:
    """Return whether there is no administrator yet. A disabled one counts."""
    async with database.autocommit() as connection:  # on the primary, because a replica may lag
        return not await connection.scalar(_HAS_ADMIN)


class Announcement:
    """Logs the code once in each process, if there is no administrator."""

    def __init__(self, database: Database, *, url: str) -> None:
        """`url` is that of the page that asks for the code."""
        self._database = database
        self._url = url
        self._done = False

    async def run(self) -> None:
        """Log the code, unless it was logged or there is an administrator."""
        if self._done:
            return
        if await is_open(self._database):
            logger.warning(
                "there is no administrator: create one with this code",
                url=self._url,
                code=await current_code(self._database),
            )
        self._done = True


async def current_code(database: Database) -> str:
    """Return the code, such as `k3vq-7dpa-xw2m-hn5e-q4tb`. The first call stores its nonce."""
    async with database.autocommit() as connection:
        await connection.execute(_CREATE_NONCE, {"nonce": uuid4()})
        return (await _codes(connection))[0]


async def create_administrator(
    session: AsyncSession,
    *,
    database: Database,
    new: UserCreate,
    code: SecretStr,
    client: Client,
) -> PageToken:
    """Create the first administrator, and open a page session.

    `session` must not have been used yet. Raises AlreadySetUp, also for the second of two
    concurrent requests. Raises IncorrectCode, TooManyAttempts, EmailTaken, UsernameTaken.
    """
    if not await is_open(database):
        raise AlreadySetUp
    async with rate_limits.attempt(database, rate_limits.first_start_limits(client=client)):
        await _check(database, normalize_code(code.get_secret_value()))
    user = await users.create_user(session, new=new, role=Role.ADMIN, email_verified=True)
    await session.execute(select(func.pg_advisory_xact_lock(users.ADMIN_LOCK_ID)))
    if await session.scalar(_HAS_OTHER_ADMIN, {"user_id": user.id}):
        raise AlreadySetUp
    await session.execute(_DELETE_NONCE)
    return await sessions.open_page_session(session, user_id=user.id, client=client)


async def _check(database: Database, code: str) -> None:
    """Raise IncorrectCode unless the normalized code is valid.

    Raises AlreadySetUp if a concurrent request has made it invalid.
    """
    async with database.autocommit() as connection:
        valid = [normalize_code(each) for each in await _codes(connection)]
    # All codes are compared, so that the duration does not show which one is similar.
    matches = [hmac.compare_digest(code.encode(), each.encode()) for each in valid]
    if not any(matches):
        raise IncorrectCode if await is_open(database) else AlreadySetUp


async def _codes(connection: AsyncConnection) -> list[str]:
    """Return the code for each configured key, the current key first; none without a nonce."""
    nonce: UUID | None = await connection.scalar(_NONCE)
    if nonce is None:
        return []
    return [
        _grouped(hmac.digest(key, nonce.bytes, hashlib.sha256))
        for key in derived_keys("first administrator")
    ]


def _grouped(digest: bytes) -> str:
    letters = b32encode(digest).decode().lower()[:CODE_LENGTH]
    return "-".join(letters[start : start + 4] for start in range(0, CODE_LENGTH, 4))
