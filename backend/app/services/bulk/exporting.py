"""Export of articles as import records, in batches of bounded size.

A record has everything that an article has. So an export that is imported into an empty server, and
exported there, is the same, byte by byte.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Integer,
    Row,
    Select,
    String,
    bindparam,
    func,
    not_,
    select,
    true,
    union_all,
)

from app.auth.identity import Identity, recheck
from app.auth.permissions import Action, may_on_any
from app.core import clock
from app.core.config import get_settings
from app.core.enums import CommentPolicy, ExportFormat
from app.core.errors import InvalidInput, NotAuthorized, PressroomError
from app.core.plurals import listed
from app.core.streams import Deadline
from app.db.session import Database
from app.models.accounts.user import User
from app.models.articles.article import Article, DraftFormerSlug, FormerSlug
from app.models.bulk import ImportRecord, Redirect
from app.schemas.bulk import MAX_FORMER_SLUGS, MAX_OLD_PATHS
from app.services.articles.rows import NOT_DELETED, article_fields
from app.services.bulk import installation
from app.services.bulk.comments import exported_comments
from app.services.bulk.ghost_writing import GhostWriter
from app.services.bulk.markdown_writing import ArchiveWriter
from app.services.bulk.records import MAX_RECORD_BYTES, prefix_of
from app.services.bulk.statements import COMMENT_BYTES, EXPORTED_COMMENTS

Batches = AsyncIterator[list[dict[str, Any]]]

NEVER_EXPORTED = (
    "Not exported: revisions, favorites, accounts, articles in the trash and the files of images. "
    "Texts refer to the images of this server."
)
MAX_ARCHIVED = 50_000
"""Maximum articles in a ZIP file. Its list of files is kept in memory until the end."""
BATCH = 200
BATCH_BYTES = 1024 * 1024
"""Content bytes of a batch. The article that exceeds the limit is the last one in the batch."""

_FIELDS = (
    "title",
    "slug",
    "content",
    "cover_image_url",
    "language",
    "tags_in_order",
    "published_at",
    "created_at",
    "updated_at",
)

_PREFIX = bindparam("prefix", type_=String)
_IDENTITY = (
    select(ImportRecord.source, ImportRecord.source_id)
    .where(
        ImportRecord.article_id == Article.id,
        ImportRecord.source_id.is_not(None),
        ImportRecord.source != _PREFIX + bindparam("installation", type_=String),
    )
    .order_by(ImportRecord.key)
    .limit(1)
    .correlate(Article)
)
_IDENTITY_OF_USER = _IDENTITY.where(func.starts_with(ImportRecord.source, _PREFIX)).lateral()
_IDENTITY_OF_OPERATOR = _IDENTITY.where(
    not_(ImportRecord.source.regexp_match("^user [0-9]+: "))
).lateral()
_OLD_PATHS = func.array(
    select(Redirect.path)
    .where(Redirect.article_id == Article.id)
    .group_by(Redirect.path)
    .order_by(func.max(Redirect.created_at).desc(), Redirect.path)
    .limit(MAX_OLD_PATHS)
    .correlate(Article)
    .scalar_subquery()
).label("old_paths")
_former_slugs = union_all(
    select(FormerSlug.article_id, FormerSlug.slug),
    select(DraftFormerSlug.article_id, DraftFormerSlug.slug),
).subquery()
_FORMER_SLUGS = func.array(
    select(_former_slugs.c.slug)
    .where(_former_slugs.c.article_id == Article.id)
    .order_by(_former_slugs.c.slug)
    .limit(MAX_FORMER_SLUGS)
    .correlate(Article)
    .scalar_subquery()
).label("former_slugs")


def _batch_query(*, own_only: bool, by_operator: bool) -> Select[Any]:
    """Select the next articles by id, up to the batch size, without reading texts for the sizes."""
    identity = _IDENTITY_OF_OPERATOR if by_operator else _IDENTITY_OF_USER
    is_author = Article.author_id == bindparam("author_id", type_=BigInteger)
    condition = is_author if own_only else true()
    after = bindparam("after", type_=BigInteger)
    limit = bindparam("limit", type_=Integer)
    size = func.octet_length(Article.content).label("size")
    following = (
        select(Article.id, size)
        .where(NOT_DELETED, condition, Article.id > after)
        .order_by(Article.id)
        .limit(limit)
        .subquery()
    )
    total = func.sum(following.c.size).over(order_by=following.c.id) - following.c.size
    sized = select(following.c.id, total.label("before")).subquery()
    return (
        select(
            Article.id,
            Article.excerpt,
            Article.own_excerpt,
            Article.archived_at,
            Article.imported,
            Article.comment_policy,
            User.username,
            _OLD_PATHS,
            _FORMER_SLUGS,
            identity.c.source,
            identity.c.source_id,
            *article_fields(_FIELDS).columns,
        )
        .join(sized, sized.c.id == Article.id)
        .join(User, User.id == Article.author_id)
        .outerjoin(identity, true())
        .where(sized.c.before < bindparam("bytes", type_=BigInteger))
        .order_by(Article.id)
    )


_LINE_BREAKS = {0x85: "\\u0085", 0x2028: "\\u2028", 0x2029: "\\u2029"}
_OF_OPERATOR = _batch_query(own_only=False, by_operator=True)
_ALL_ARTICLES = _batch_query(own_only=False, by_operator=False)
_OWN_ARTICLES = _batch_query(own_only=True, by_operator=False)
_COUNT = select(func.count()).select_from(Article).where(NOT_DELETED)


async def export_articles(database: Database, *, viewer: Identity | None) -> Batches:
    """Yield batches of records of all articles that `viewer` may edit, including drafts.

    None stands for the operator, who exports all articles. Articles in the trash are excluded. A
    database connection is held only while a batch is read, not while the client receives it.

    A record that `viewer` has imported has the identity that it had there. All others have that of
    this server, so that nobody exports, or later occupies, the ids of others.

    Before each batch, `viewer` is checked again. Raises InvalidToken if their access was withdrawn,
    and NotAuthorized if their permissions were reduced during the export.
    """
    is_unrestricted = viewer is None or may_on_any(viewer, Action.READ_DRAFT)
    statement = _ALL_ARTICLES if is_unrestricted else _OWN_ARTICLES
    if viewer is None:
        statement = _OF_OPERATOR
    here, prefix = await installation.source_name(database), prefix_of(viewer)
    parameters: dict[str, Any] = {
        "after": 0,
        "limit": BATCH,
        "bytes": BATCH_BYTES,
        "installation": here,
        "prefix": prefix,
    }
    if viewer is not None and not is_unrestricted:
        parameters["author_id"] = viewer.id
    while True:
        parameters["now"] = clock.now()
        rows = await database.reader.execute(statement, parameters)
        if viewer is not None:
            async with database.autocommit() as primary:
                viewer = await recheck(primary, viewer)
            if is_unrestricted and not may_on_any(viewer, Action.READ_DRAFT):
                raise NotAuthorized("You may no longer export articles of other authors")
        if not rows:
            return
        async for part in _with_comments(database, rows, here=here, prefix=prefix):
            yield part
        parameters["after"] = rows[-1].id


async def _with_comments(
    database: Database, rows: Sequence[Row[Any]], *, here: str, prefix: str
) -> AsyncIterator[list[dict[str, Any]]]:
    """Yield the records of articles in parts, so that their comments are of bounded size."""
    ids = [row.id for row in rows]
    found = await database.reader.execute(COMMENT_BYTES, {"article_ids": ids})
    sizes = {row.article_id: row.bytes for row in found}
    part: list[Row[Any]] = []
    size = 0
    for row in rows:
        part.append(row)
        size += sizes.get(row.id, 0)
        if size >= BATCH_BYTES or row is rows[-1]:
            commented = [each.id for each in part if each.id in sizes]
            comments: Mapping[int, Sequence[dict[str, Any]]] = {}
            if commented:
                found = await database.reader.execute(EXPORTED_COMMENTS, {"article_ids": commented})
                comments = exported_comments(found)
            yield [
                _record(each, comments.get(each.id, ()), here=here, prefix=prefix) for each in part
            ]
            part, size = [], 0


async def count_articles(database: Database) -> int:
    """Return the number of articles that the operator exports."""
    return await database.reader.scalar(_COUNT) or 0


async def start_export(
    database: Database, *, viewer: Identity, export_format: ExportFormat, deadline: Deadline
) -> AsyncIterator[bytes]:
    """Return the export in a format, which is read until `deadline`.

    Raises InvalidInput if there are more articles than a ZIP file may contain.
    """
    if export_format is ExportFormat.NDJSON:
        return export_lines(database, viewer=viewer, deadline=deadline)
    records = _until(deadline, export_articles(database, viewer=viewer))
    if export_format is ExportFormat.GHOST:
        return _ghost_file(records)
    own_only = not may_on_any(viewer, Action.READ_DRAFT)
    count = _COUNT.where(Article.author_id == viewer.id) if own_only else _COUNT
    if (await database.reader.scalar(count) or 0) > MAX_ARCHIVED:
        raise InvalidInput(f"A ZIP file has at most {MAX_ARCHIVED} articles: export NDJSON instead")
    return _archive(records)


async def _until(deadline: Deadline, batches: Batches) -> Batches:
    async for records in batches:
        deadline.check()
        yield records


async def export_lines(
    database: Database, *, viewer: Identity | None, deadline: Deadline
) -> AsyncIterator[bytes]:
    """Yield the export as NDJSON, until `deadline`.

    A failed export ends with the line `{"error": …}` and raises the error. This closes the
    connection, so that the client notices the incomplete export.
    """
    try:
        async for records in _until(deadline, export_articles(database, viewer=viewer)):
            yield b"".join(map(to_line, records))
    except PressroomError as error:
        yield to_line({"error": str(error)})
        raise


async def _ghost_file(batches: Batches) -> AsyncIterator[bytes]:
    with GhostWriter(api_url=get_settings().api_url) as writer:
        yield writer.head()
        async for records in batches:
            yield await asyncio.to_thread(writer.posts, records)
        for part in writer.tail(remarks(ExportFormat.GHOST, writer.lost)):
            yield part


async def _archive(batches: Batches) -> AsyncIterator[bytes]:
    writer = ArchiveWriter()
    async for records in batches:
        yield await asyncio.to_thread(writer.add, records)
    text = "\n".join(remarks(ExportFormat.MARKDOWN, writer.lost))
    yield writer.finish(f"{text}\n", at=str(_timestamp(clock.now())))


def remarks(export_format: ExportFormat, lost: Mapping[str, int]) -> list[str]:
    """Return what an export does not contain, in sentences for the user."""
    sentences = [NEVER_EXPORTED]
    if export_format is ExportFormat.MARKDOWN:
        sentences.append(
            "Markdown files contain no comments, and not the ids by which NDJSON updates articles."
        )
    if export_format is ExportFormat.GHOST:
        sentences.append(
            "Ghost imports no comments, redirects, comment policies and archived articles, and only"
            " some fields of other systems."
        )
    if shown := listed(lost.items()):
        sentences.append(f"Left out here: {shown}.")
    return sentences


def to_line(record: dict[str, Any]) -> bytes:
    """Return a record as a line of NDJSON, with all Unicode line breaks escaped.

    Comments that are too long for one line are divided: more lines follow, which differ only in
    their comments.
    """
    line = _dump(record)
    return line if len(line) <= MAX_RECORD_BYTES else b"".join(_divided(record))


def _dump(record: Mapping[str, Any]) -> bytes:
    text = json.dumps(record, ensure_ascii=False, separators=(",", ":"))
    return text.translate(_LINE_BREAKS).encode() + b"\n"


def _divided(record: Mapping[str, Any]) -> Iterator[bytes]:
    comments: list[Any] = []
    size = without_comments = len(_dump({**record, "comments": []}))
    for comment in record.get("comments", ()):
        length = len(_dump(comment))  # with a line break instead of the comma
        if comments and size + length > MAX_RECORD_BYTES:
            yield _dump({**record, "comments": comments})
            comments, size = [], without_comments
        comments.append(comment)
        size += length
    yield _dump({**record, "comments": comments})


def _record(
    row: Row[Any], comments: Sequence[dict[str, Any]], *, here: str, prefix: str
) -> dict[str, Any]:
    """Return the record of an article, without fields that have their default value."""
    is_imported = row.source_id is not None
    record = {
        "title": row.title,
        "slug": row.slug,
        "content": row.content,
        "excerpt": row.excerpt if row.own_excerpt else None,
        "cover_image_url": row.cover_image_url,
        "language": row.language,
        "tags": list(row.tags_in_order),
        "published_at": _timestamp(row.published_at),
        "archived": row.archived_at is not None,
        "created_at": _timestamp(row.created_at),
        "updated_at": _timestamp(row.updated_at),
        "old_paths": sorted(row.old_paths),
        "former_slugs": sorted(row.former_slugs),
        "imported": _sorted(row.imported),
        "author": row.username,
        "source": row.source.removeprefix(prefix) if is_imported else here,
        "source_id": row.source_id if is_imported else str(row.id),
        "comment_policy": None if row.comment_policy == CommentPolicy.OPEN else row.comment_policy,
        "comments": list(comments),
    }
    return {name: value for name, value in record.items() if value not in (None, [], False)}


def _sorted(value: Any) -> Any:
    """Return a JSON value with sorted members: PostgreSQL does not keep their order."""
    if isinstance(value, dict):
        return {name: _sorted(value[name]) for name in sorted(value)}
    return [_sorted(each) for each in value] if isinstance(value, list) else value


def _timestamp(value: datetime | None) -> str | None:
    return value.isoformat().replace("+00:00", "Z") if value else None
