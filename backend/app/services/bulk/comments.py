"""Comments of imported articles: which of them are new, their threads, and their export.

A comment is identified by its id in the source of its article, so that a repeated import adds only
new ones. A comment that was deleted or hidden here stays deleted or hidden.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from html import escape
from typing import Any, NamedTuple

from sqlalchemy import Row
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.auth.permissions import Action, may
from app.content.markdown import render_comment
from app.core.enums import CommentStatus
from app.core.errors import ContentTooComplex
from app.schemas.bulk_comment import CommentRecord
from app.services.bulk import statements
from app.services.bulk.comment_texts import render_plain

ANONYMOUS = "Anonymous"


class CommentChanges(NamedTuple):
    """What an import changes among the comments of an article."""

    new: Sequence[tuple[CommentRecord, str]] = ()
    """The new comments with their HTML."""
    changed: Sequence[tuple[int, CommentRecord, str]] = ()
    """The ids of existing comments, with their new text."""
    approved: Sequence[int] = ()
    """The ids of comments that wait for approval here, and are public in the source."""
    stored: Mapping[str, Row[Any]] = {}

    @property
    def notes(self) -> tuple[str, ...]:
        """Return the notes on comments of an article that existed already."""
        counts = {
            "added": len(self.new),
            "changed": len(self.changed),
            "approved": len(self.approved),
        }
        return tuple(f"comments {name}: {count}" for name, count in counts.items() if count)

    def __bool__(self) -> bool:
        return bool(self.new or self.changed or self.approved)


def render_comments(records: Sequence[CommentRecord]) -> tuple[str, ...]:
    """Return the HTML of comments. A text that is too complex is shown as it was typed."""
    return tuple(_render(record.content) for record in records)


def _render(content: str) -> str:
    if (html := render_plain(content)) is not None:
        return html
    try:
        return render_comment(content)
    except ContentTooComplex:
        return f"<p>{escape(content, quote=False)}</p>\n"


def size_of(records: Sequence[CommentRecord]) -> int:
    """Return the number of characters of comments."""
    return sum(len(record.content) for record in records)


def changes_of(
    records: Sequence[CommentRecord], rendered: Sequence[str], stored: Mapping[str, Row[Any]]
) -> CommentChanges:
    """Compare the comments of a record with those of its article, by their ids in the source."""
    new: dict[str, tuple[CommentRecord, str]] = {}
    changed: list[tuple[int, CommentRecord, str]] = []
    approved: list[int] = []
    for record, html in zip(records, rendered, strict=True):
        row = stored.get(record.id)
        if row is None:
            new.setdefault(record.id, (record, html))
        elif row.source_id is not None and row.deleted_at is None:
            if record.content != row.content:
                changed.append((row.id, record, html))
            is_public = record.status is CommentStatus.VISIBLE
            if is_public and row.status == CommentStatus.PENDING.value:
                approved.append(row.id)
    return CommentChanges(list(new.values()), changed, approved, stored)


async def look_up_comments(
    session: AsyncSession, article_ids: Sequence[int]
) -> Mapping[int, Mapping[str, Row[Any]]]:
    """Return the comments of articles by the ids that they have in records."""
    found: dict[int, dict[str, Row[Any]]] = {}
    if article_ids:
        rows = await session.execute(statements.COMMENTS, {"article_ids": sorted(article_ids)})
        for row in rows:
            found.setdefault(row.article_id, {})[row.record_id] = row
    return found


async def save_comments(
    session: AsyncSession,
    changes: Sequence[tuple[int, CommentChanges]],
    *,
    authors: Mapping[str, int],
    importer: Identity | None,
    now: datetime,
) -> None:
    """Write the comments of articles, with two statements for all new ones.

    `authors` has the ids of users by their lower-case usernames.
    """
    added = [
        (article_id, record, html, each.stored)
        for article_id, each in changes
        for record, html in sorted(each.new, key=lambda new: new[0].created_at or now)
    ]
    if added:
        ids = await session.scalars(statements.NEXT_COMMENT_IDS, {"count": len(added)})
        rows = _rows(added, list(ids), authors=authors, importer=importer, now=now)
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        await session.execute(statements.INSERT_COMMENTS, columns)
    changed = [each for _, change in changes for each in change.changed]
    approved = [comment_id for _, change in changes for comment_id in change.approved]
    if changed:
        values = {
            "ids": [comment_id for comment_id, _, _ in changed],
            "contents": [record.content for _, record, _ in changed],
            "htmls": [html for _, _, html in changed],
            "edited": [record.edited_at or now for _, record, _ in changed],
        }
        await session.execute(statements.UPDATE_COMMENTS, values)
    if approved:
        await session.execute(statements.APPROVE_COMMENTS, {"ids": approved, "now": now})


_Added = tuple[int, CommentRecord, str, Mapping[str, Row[Any]]]


def _rows(
    added: Sequence[_Added],
    ids: Sequence[int],
    *,
    authors: Mapping[str, int],
    importer: Identity | None,
    now: datetime,
) -> list[dict[str, Any]]:
    """Return the rows of new comments. Authors without an account become guests."""
    threads = _Threads(added, ids)
    rows = []
    for comment, comment_id in zip(added, ids, strict=True):
        article_id, record, html, _ = comment
        parent_id, root_id = threads.find(comment)
        author_id = authors.get((record.author or "").lower())
        if author_id is not None and importer is not None:
            is_allowed = may(importer, Action.IMPORT_ARTICLE, owner_id=author_id)
            author_id = author_id if is_allowed else None
        created_at = record.created_at or now
        rows.append(
            {
                "ids": comment_id,
                "article_ids": article_id,
                "author_ids": author_id,
                "root_ids": root_id,
                "parent_ids": parent_id,
                "names": None if author_id else record.name or record.author or ANONYMOUS,
                "urls": None if author_id else record.url,
                "source_ids": record.id,
                "contents": record.content,
                "htmls": html,
                "statuses": record.status.value,
                "locked": created_at if record.locked and root_id is None else None,
                "edited": record.edited_at,
                "created": created_at,
                "updated": record.edited_at or created_at,
            }
        )
    return rows


class _Threads:
    """The threads of new comments. A comment whose parent is missing begins a thread."""

    def __init__(self, added: Sequence[_Added], ids: Sequence[int]) -> None:
        self._new = {
            (article_id, record.id): (comment_id, record.parent)
            for (article_id, record, _, _), comment_id in zip(added, ids, strict=True)
        }
        self._roots: dict[int, int] = {}

    def find(self, comment: _Added) -> tuple[int | None, int | None]:
        """Return the parent and the first comment of the thread; None if it is this one."""
        article_id, record, _, stored = comment
        comment_id, _ = self._new[article_id, record.id]
        root = self._root(comment)
        if root == comment_id or record.parent is None:
            return None, None
        row = stored.get(record.parent)
        return (self._new[article_id, record.parent][0] if row is None else row.id), root

    def _root(self, comment: _Added) -> int:
        article_id, record, _, stored = comment
        current, parent = self._new[article_id, record.id]
        path: dict[int, None] = {}
        root = 0
        while not root:
            if current in self._roots:
                root = self._roots[current]
            elif current in path:  # of a circle, the oldest comment is the first one
                members = list(path)
                root = min(members[members.index(current) :])
            else:
                path[current] = None
                if parent is not None and (row := stored.get(parent)) is not None:
                    root = row.root_id or row.id
                elif parent is not None and (found := self._new.get((article_id, parent))):
                    current, parent = found
                else:
                    root = current
        self._roots.update(dict.fromkeys(path, root))
        return root


def exported_comments(rows: Sequence[Row[Any]]) -> Mapping[int, list[dict[str, Any]]]:
    """Return the comments of articles as records, by article. Deleted ones are left out.

    A reply to a deleted comment becomes a reply to the comment before it.
    """
    parents = {row.id: row.parent_id for row in rows}
    kept = {row.id: row.record_id for row in rows if row.deleted_at is None and row.content}
    found: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        if row.id not in kept:
            continue
        parent = next((each for each in _ancestors(row.id, parents) if each in kept), None)
        record = {
            "id": row.record_id,
            "parent": kept[parent] if parent is not None else None,
            "author": row.username,
            "name": row.guest_name,
            "url": row.guest_url,
            "content": row.content,
            "status": None if row.status == CommentStatus.VISIBLE.value else row.status,
            "locked": row.locked_at is not None and parent is None,
            "created_at": _timestamp(row.created_at),
            "edited_at": _timestamp(row.edited_at) if row.edited_at else None,
        }
        found.setdefault(row.article_id, []).append(
            {name: value for name, value in record.items() if value not in (None, False)}
        )
    return found


def _ancestors(comment_id: int, parents: Mapping[int, int | None]) -> Iterator[int]:
    parent = parents.get(comment_id)
    while parent is not None:
        yield parent
        parent = parents.get(parent)


def _timestamp(value: datetime) -> str:
    return value.isoformat().replace("+00:00", "Z")
