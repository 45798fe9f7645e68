"""Mapping from authors of other systems to users: by email or username, otherwise created."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from secrets import token_urlsafe
from typing import NamedTuple

from sqlalchemy import String, bindparam, func, select
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import COMMAND_LINE, Identity
from app.auth.permissions import Action, may_on_any
from app.auth.security import hash_password
from app.content.slugs import normalize_text, slugify
from app.db.reading import Reader
from app.models.accounts.user import User
from app.services import audit
from app.services.audit import AuditAction
from app.services.bulk.foreign import SourceAuthor

PLACEHOLDER_DOMAIN = "import.invalid"
"""The email domain of authors without an email. It cannot receive mail (RFC 2606 §2)."""

_EMAIL = re.compile(r"[^@\s<>=?]{1,64}@[^@\s<>]{1,180}\.[^@\s<>]+")
_BY_NAMES = (
    select(User.username)
    .where(func.lower(User.username) == bindparam("names", type_=ARRAY(String)).any_())
    .order_by(User.id)
)
_INVALID_CHARACTERS = re.compile(r"[^A-Za-z0-9._-]+")


class ResolvedAuthors(NamedTuple):
    """The usernames of authors, by their handles, and the usernames of created users."""

    usernames: Mapping[str, str]
    created: Sequence[str]


async def hash_random_password() -> str:
    """Return the hash of a random password. The user sets a new one by a password reset."""
    return await hash_password(token_urlsafe(32))


async def resolve_authors(
    session: AsyncSession, authors: Sequence[SourceAuthor], *, hashed_password: str
) -> ResolvedAuthors:
    """Find the authors among the users, and create the missing users.

    Emails from an import file are not verified, and no mail is sent to them.
    """
    usernames: dict[str, str] = {}
    created: list[str] = []
    for author in authors:
        username = await _find(session, author)
        if username is None:
            username = await _create(session, author, hashed_password)
            created.append(username)
        usernames[author.handle] = username
    return ResolvedAuthors(usernames, created)


async def _find(session: AsyncSession, author: SourceAuthor) -> str | None:
    email = author.email.strip().lower()
    if email:
        query = select(User.username).where(func.lower(User.email) == email)
        username = await session.scalar(query)
        if username is not None:
            return username
    names = {author.username.lower(), _username(author).lower()} - {""}
    query = select(User.username).where(func.lower(User.username).in_(names)).order_by(User.id)
    return await session.scalar(query.limit(1))


async def _create(session: AsyncSession, author: SourceAuthor, hashed_password: str) -> str:
    username = _username(author)
    email = author.email.strip()
    if not _EMAIL.fullmatch(email) or len(email) > 254:
        email = f"{username.lower()}@{PLACEHOLDER_DOMAIN}"
    name = normalize_text(author.name)[:100] or username
    await _add_user(session, username, email, name, hashed_password)
    return username


async def create_author(session: AsyncSession, username: str, *, hashed_password: str) -> int:
    """Create a user for an author of whom only the username is known. Return the id."""
    email = f"{username.lower()}@{PLACEHOLDER_DOMAIN}"
    return await _add_user(session, username, email, username, hashed_password)


async def _add_user(
    session: AsyncSession, username: str, email: str, name: str, hashed_password: str
) -> int:
    user = User(email=email, username=username, name=name, hashed_password=hashed_password)
    session.add(user)
    await session.flush()  # assigns the id, and lets the next author find this user
    audit.record(session, AuditAction.CREATE_USER, actor_id=COMMAND_LINE.id, subject_id=user.id)
    return user.id


class AuthorsOfUser:
    """Maps authors to users for an import by a user, who cannot create users.

    Editors import for users with the same username. All other texts become the importer's.
    """

    def __init__(self, identity: Identity, authors: Sequence[SourceAuthor]) -> None:
        self._identity = identity
        self._authors = {author.handle: author for author in authors}
        self._known: dict[str, str] = {}
        self._others: Counter[str] = Counter()

    async def look_up(self, reader: Reader) -> None:
        """Find the users. Emails are not compared: editors must not learn them."""
        if not may_on_any(self._identity, Action.IMPORT_ARTICLE):
            return
        names = {
            handle: (author.username or _username(author)).lower()
            for handle, author in self._authors.items()
        }
        parameters = {"names": sorted(set(names.values()))}
        found = {
            row.username.lower(): row.username
            for row in await reader.execute(_BY_NAMES, parameters)
        }
        self._known = {handle: found[name] for handle, name in names.items() if name in found}

    def __call__(self, handle: str) -> str:
        """Return the username of an author."""
        username = self._known.get(handle)
        if username is not None:
            return username
        author = self._authors.get(handle)
        name = (author and (author.name or author.username)) or handle
        if name and name.lower() != self._identity.username.lower():
            self._others[name] += 1
        return self._identity.username

    def remarks(self) -> list[str]:
        """Return whose texts became the importer's."""
        names = ", ".join(f"{name} ({count})" for name, count in self._others.most_common(20))
        return [f"You became the author of the records of: {names}"] if names else []


def _username(author: SourceAuthor) -> str:
    """Return a valid username made from the author's names."""
    name = _INVALID_CHARACTERS.sub("-", author.username).strip("-.")
    if len(name) < 3:
        name = slugify(author.name or author.username or author.handle, fallback="author")
    return (name if len(name) >= 3 else f"{name}-author")[:50]
