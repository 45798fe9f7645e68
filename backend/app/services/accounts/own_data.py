"""The export of all rows that belong to a user, as a ZIP file of NDJSON files."""

import asyncio
import zipfile
from collections.abc import AsyncIterator
from typing import Any, NamedTuple
from zipfile import ZipFile, ZipInfo

from pydantic_core import to_json
from sqlalchemy import BigInteger, ColumnElement, Integer, Select, bindparam, select, true

from app.auth.identity import Identity, recheck
from app.core import clock
from app.core.archives import Parts
from app.core.streams import Deadline
from app.db.base import Base
from app.db.session import Database
from app.models.accounts.account_token import AccountToken
from app.models.accounts.address import Address
from app.models.accounts.api_key import ApiKey
from app.models.accounts.second_factor import SecondFactor
from app.models.accounts.session import UserSession
from app.models.accounts.user import User
from app.models.articles.article import Article
from app.models.articles.preview_link import PreviewLink
from app.models.articles.revision import ArticleRevision
from app.models.audit import AuditEvent
from app.models.bulk import Import
from app.models.community.comment import Comment
from app.models.community.favorite import Favorite
from app.models.community.follow import Block, Follow
from app.models.community.report import Report
from app.models.integrations.webhook import Webhook
from app.models.limit import LimitOverride
from app.models.mail import Mail
from app.models.media import Media
from app.schemas.accounts.own_data import OwnDataRequest
from app.services.accounts import second_factor
from app.services.accounts.confirmation import confirm_password, lock_user

README = """This archive has what is stored about your account, one JSON object a line.
Not contained: your password, secrets of sessions, keys and codes, and the files of pictures.
Articles with their tags and comments are another export.
"""
ROWS = 100
TEXTS = 10
"""Rows of a batch whose texts may have a megabyte each."""

_USER_ID = bindparam("user_id", type_=BigInteger)


class OwnFile(NamedTuple):
    """A file of the archive: the rows of a table that belong to the user, in the order of `key`.

    Without a key, the user has at most one row, or few.
    """

    name: str
    model: type[Base]
    owner: str
    columns: str
    key: str | None = "id"
    rows: int = ROWS
    condition: ColumnElement[bool] = true()

    def statement(self) -> Select[Any]:
        """Return the query for the rows of `user_id` whose key is larger than `after`."""
        table = self.model.__table__.columns
        query = select(*(table[name] for name in self.columns.split())).where(
            table[self.owner] == _USER_ID, self.condition
        )
        if self.key is None:
            return query
        key = table[self.key]
        return (
            query.add_columns(key.label("key_of_row"))
            .where(key > bindparam("after", type_=BigInteger))
            .order_by(key)
            .limit(bindparam("rows", type_=Integer))
        )


FILES = (
    OwnFile(
        "account",
        User,
        "id",
        "id email username name role is_active email_verified_at bio image_url created_at"
        " updated_at",
    ),
    OwnFile(
        "addresses",
        Address,
        "user_id",
        "id label line1 line2 city region postal_code country created_at updated_at",
    ),
    OwnFile(
        "sessions",
        UserSession,
        "user_id",
        "id created_at last_used_at expires_at revoked_at ip user_agent by_conduit by_page"
        " confirmed_at",
    ),
    OwnFile(
        "api-keys", ApiKey, "user_id", "id name hint scopes created_at expires_at last_used_at"
    ),
    OwnFile(
        "webhooks",
        Webhook,
        "owner_id",
        "id url description events tag author_id language payload_version is_active"
        " disabled_reason failures failing_since paused_until last_success_at"
        " previous_secret_until created_at updated_at",
    ),
    OwnFile("links-in-mails", AccountToken, "user_id", "id purpose email created_at expires_at"),
    OwnFile("second-factor", SecondFactor, "user_id", "created_at confirmed_at", None),
    OwnFile("limits", LimitOverride, "user_id", "kind amount", None),
    OwnFile(
        "articles",
        Article,
        "author_id",
        "id title slug draft_slug content own_excerpt cover_image_url language comment_policy"
        " version published published_at archived_at deleted_at created_at updated_at",
        rows=TEXTS,
    ),
    OwnFile(
        "revisions",
        ArticleRevision,
        "author_id",
        "id article_id version title content created_at",
        rows=TEXTS,
    ),
    OwnFile("preview-links", PreviewLink, "created_by", "id article_id created_at expires_at"),
    OwnFile(
        "comments",
        Comment,
        "author_id",
        "id article_id parent_id content status edited_at deleted_at created_at updated_at",
    ),
    OwnFile("favorites", Favorite, "user_id", "article_id created_at", "article_id"),
    OwnFile("following", Follow, "follower_id", "followed_id created_at", "followed_id"),
    OwnFile("followers", Follow, "followed_id", "follower_id created_at", "follower_id"),
    OwnFile("blocked", Block, "blocker_id", "blocked_id created_at", "blocked_id"),
    OwnFile(
        "reports",
        Report,
        "reporter_id",
        "id article_id comment_id reason state created_at updated_at",
    ),
    OwnFile(
        "handled-reports",
        Report,
        "handled_by",
        "id article_id comment_id state note handled_at created_at updated_at",
    ),
    OwnFile(
        "media",
        Media,
        "owner_id",
        "id folder content_type bytes width height alt created_at",
    ),
    OwnFile(
        "imports",
        Import,
        "user_id",
        "id state format source dry_run bytes message created_at finished_at",
    ),
    OwnFile("mails", Mail, "user_id", "id kind email subject created_at sent_at"),
    OwnFile(
        "audit-events",
        AuditEvent,
        "subject_id",
        "id occurred_at action message",
        condition=AuditEvent.subject_type == "user",
    ),
    OwnFile(
        "actions",
        AuditEvent,
        "actor_id",
        "id occurred_at action subject_type subject_id message request_id",
    ),
)


_STATEMENTS = {own.name: own.statement() for own in FILES}


async def export_account(
    database: Database, *, user: Identity, confirmation: OwnDataRequest, deadline: Deadline
) -> AsyncIterator[bytes]:
    """Return the parts of the archive, after the password and a code have been checked.

    It counts as one change of the account. Raises IncorrectPassword, IncorrectCode,
    TooManyAttempts, LimitReached, InvalidToken, and SessionRequired for an API key.
    """
    await confirm_password(database, user=user, password=confirmation.password)
    await second_factor.confirm_code(database, user=user, code=confirmation.code)
    async with database.unit_of_work() as session:
        await lock_user(session, user=user)
    return _archive(database, user, deadline)


async def _archive(database: Database, user: Identity, deadline: Deadline) -> AsyncIterator[bytes]:
    """Yield the archive in batches, until `deadline`.

    No connection is held while the client receives a batch. Before each one, the user is checked
    again. Raises InvalidToken if their access was withdrawn, and RequestTimedOut.
    """
    parts = Parts()
    archive = ZipFile(parts, "w", zipfile.ZIP_DEFLATED)
    archive.writestr(_info("README.txt"), README)
    for own in FILES:
        with archive.open(_info(f"{own.name}.ndjson"), "w", force_zip64=True) as file:
            async for lines in _lines(database, own, user.id):
                deadline.check()
                async with database.autocommit() as primary:
                    user = await recheck(primary, user)
                await asyncio.to_thread(file.write, lines)
                yield parts.take()
    archive.close()
    yield parts.take()


def _info(name: str) -> ZipInfo:
    info = ZipInfo(name, clock.now().timetuple()[:6])
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    return info


async def _lines(database: Database, own: OwnFile, user_id: int) -> AsyncIterator[bytes]:
    """Yield the lines of a file, in batches."""
    names, after = own.columns.split(), 0
    while True:
        parameters = {"user_id": user_id}
        if own.key is not None:
            parameters |= {"after": after, "rows": own.rows}
        rows = await database.reader.execute(_STATEMENTS[own.name], parameters)
        if not rows:
            return
        yield b"".join(to_json(dict(zip(names, row, strict=False))) + b"\n" for row in rows)
        if own.key is None:
            return
        after = rows[-1].key_of_row
