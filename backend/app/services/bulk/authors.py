"""Mapping from authors of other systems to users: by email or username, otherwise created."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
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
_BY_EMAILS = select(func.lower(User.email).label("email"), User.username).where(
    func.lower(User.email) == bindparam("emails", type_=ARRAY(String)).any_()
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
    by_email = await _by_email(session, authors)
    known = {
        row.username.lower(): row.username
        for row in await session.execute(_BY_NAMES, {"names": _possible_names(authors)})
    }
    known |= {username.lower(): username for username in by_email.values()}
    others = [author for author in authors if _email(author) not in by_email]
    names = _Usernames(others, known, taken=by_email.values())
    usernames: dict[str, str] = {}
    created: list[str] = []
    for author in authors:
        username = by_email.get(_email(author)) or names.choose(author)
        if username.lower() not in known:
            await _create(session, author, username, hashed_password)
            created.append(username)
            known[username.lower()] = username
            if _is_usable(author.email.strip()):
                by_email[_email(author)] = username
        usernames[author.handle] = username
    return ResolvedAuthors(usernames, created)


async def _by_email(session: AsyncSession, authors: Sequence[SourceAuthor]) -> dict[str, str]:
    """Return the usernames of users by those of these emails that they have."""
    emails = sorted({_email(author) for author in authors} - {""})
    rows = await session.execute(_BY_EMAILS, {"emails": emails})
    return {row.email: row.username for row in rows}


class _Usernames:
    """Chooses usernames for authors. Different authors get different ones.

    `known` has the usernames of users by their lower-case forms. `taken` are those of authors who
    were found by their emails.
    """

    def __init__(
        self,
        authors: Iterable[SourceAuthor],
        known: Mapping[str, str],
        *,
        taken: Iterable[str] = (),
    ) -> None:
        self._known = known
        self._owners = dict.fromkeys(map(str.lower, taken), "")
        self._owners |= {
            _identity(author): _identity(author)
            for author in authors
            if _username(author).lower() == _identity(author)
        }

    def choose(self, author: SourceAuthor) -> str:
        """Return the author's own username, or one that no other author has.

        If an earlier import created the second one, it is kept.
        """
        name, unique, identity = _username(author), _unique_username(author), _identity(author)
        if author.username.lower() in self._known:
            name = author.username
        elif unique in self._known or self._owner(name, identity) != identity:
            name = unique
        return self._known.get(name.lower(), name)

    def _owner(self, name: str, identity: str) -> str:
        """Return the author who has a name: this one, if there was none."""
        return self._owners.setdefault(name.lower(), identity)


async def _create(
    session: AsyncSession, author: SourceAuthor, username: str, hashed_password: str
) -> None:
    email = author.email.strip()
    if not _is_usable(email):
        email = f"{username.lower()}@{PLACEHOLDER_DOMAIN}"
    name = normalize_text(author.name)[:100] or username
    await _add_user(session, username, email, name, hashed_password)


async def create_author(session: AsyncSession, username: str, *, hashed_password: str) -> int:
    """Create a user for an author of whom only the username is known. Return the id."""
    email = f"{username.lower()}@{PLACEHOLDER_DOMAIN}"
    return await _add_user(session, username, email, username, hashed_password)


async def _add_user(
    session: AsyncSession, username: str, email: str, name: str, hashed_password: str
) -> int:
    user = User(email=email, username=username, name=name, hashed_password=hashed_password)
    session.add(user)
    await session.flush()  # assigns the id
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
        authors = list(self._authors.values())
        found = {
            row.username.lower(): row.username
            for row in await reader.execute(_BY_NAMES, {"names": _possible_names(authors)})
        }
        usernames = _Usernames(authors, found)
        names = {
            handle: (author.username or usernames.choose(author)).lower()
            for handle, author in self._authors.items()
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


def _unique_username(author: SourceAuthor) -> str:
    """Return a username that no other author of the source has, in lower case."""
    digest = sha256(_identity(author).encode(errors="replace")).hexdigest()[:8]
    return f"{_username(author)[:41]}-{digest}".lower()


def _identity(author: SourceAuthor) -> str:
    """Return what distinguishes an author from the others of a source."""
    return (author.username or author.handle).lower()


def _possible_names(authors: Iterable[SourceAuthor]) -> list[str]:
    names = {
        name
        for author in authors
        for name in (author.username, _username(author), _unique_username(author))
    }
    return sorted({name.lower() for name in names} - {""})


def _email(author: SourceAuthor) -> str:
    return author.email.strip().lower()


def _is_usable(email: str) -> bool:
    return _EMAIL.fullmatch(email) is not None and len(email) <= 254
