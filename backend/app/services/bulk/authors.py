"""The users whom another system's authors become: found by their email or name, else created."""

import re
from collections.abc import Mapping, Sequence
from secrets import token_urlsafe
from typing import NamedTuple

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.security import hash_password
from app.core.text import normalize_text, slugify
from app.models.user import User
from app.services import audit
from app.services.audit import AuditAction
from app.services.bulk.foreign import ForeignAuthor

NOWHERE = "import.invalid"
"""The domain of those who come without an email: nothing can be sent there (RFC 2606 §2)."""

_EMAIL = re.compile(r"[^@\s<>=?]{1,64}@[^@\s<>]{1,180}\.[^@\s<>]+")
_NOT_USERNAME = re.compile(r"[^A-Za-z0-9._-]+")


class Admitted(NamedTuple):
    """Which user each author is, by what their posts call them; and who of them is new."""

    usernames: Mapping[str, str]
    created: Sequence[str]


async def unknown_password() -> str:
    """The hash of a password that nobody knows: a reset by mail, or an administrator, gives one."""
    return await hash_password(token_urlsafe(32))


async def admit(
    session: AsyncSession, authors: Sequence[ForeignAuthor], *, hashed_password: str
) -> Admitted:
    """Find the authors among the users, and create those who are missing.

    Their emails are what a file says: they count as not verified, and nobody gets a mail.
    """
    usernames: dict[str, str] = {}
    created: list[str] = []
    for author in authors:
        username = await _find(session, author)
        if username is None:
            username = await _create(session, author, hashed_password)
            created.append(username)
        usernames[author.handle] = username
    return Admitted(usernames, created)


async def _find(session: AsyncSession, author: ForeignAuthor) -> str | None:
    email = author.email.strip().lower()
    if email:
        query = select(User.username).where(func.lower(User.email) == email)
        username = await session.scalar(query)
        if username is not None:
            return username
    names = {author.username.lower(), _username(author).lower()} - {""}
    query = select(User.username).where(func.lower(User.username).in_(names)).order_by(User.id)
    return await session.scalar(query.limit(1))


async def _create(session: AsyncSession, author: ForeignAuthor, hashed_password: str) -> str:
    username = _username(author)
    email = author.email.strip()
    if not _EMAIL.fullmatch(email) or len(email) > 254:
        email = f"{username.lower()}@{NOWHERE}"
    user = User(
        email=email,
        username=username,
        name=normalize_text(author.name)[:100] or username,
        hashed_password=hashed_password,
    )
    session.add(user)
    await session.flush()  # it has an id, and the next author finds it
    audit.record(session, AuditAction.CREATE_USER, actor_id=None, subject_id=user.id)
    return username


def _username(author: ForeignAuthor) -> str:
    """What they are called elsewhere, as far as a username goes."""
    name = _NOT_USERNAME.sub("-", author.username).strip("-.")
    if len(name) < 3:
        name = slugify(author.name or author.username or author.handle, fallback="author")
    return (name if len(name) >= 3 else f"{name}-author")[:50]
