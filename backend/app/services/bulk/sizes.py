"""The bytes that records store, which limits count. Values that are derived from them do not count.

`app.services.limits` measures the same columns.
"""

import json
from collections.abc import Iterable
from typing import Any

from sqlalchemy import Row

from app.schemas.bulk_comment import CommentRecord
from app.services.bulk.records import PreparedRecord


def text_bytes(item: PreparedRecord) -> int:
    """Return the size of the text."""
    return _total([item.record.content])


def comment_bytes(comments: Iterable[CommentRecord]) -> int:
    """Return the size of comments with their ids and the websites of their authors."""
    return _total(each.content + each.id + (each.url or "") for each in comments)


def other_bytes(item: PreparedRecord, before: Row[Any] | None = None) -> int:
    """Return the size of what is stored beside text and comments, and was not stored `before`.

    These are fields and addresses of the old site, and the id of the record.
    """
    record = item.record
    known = set[str]() if before is None else {*before.old_paths, *before.former_slugs}
    parts = [slug for slug in record.former_slugs if slug not in known]
    parts += [path + item.source for path in record.old_paths if path not in known]
    parts += [each.address + each.source_address for each in item.addresses or ()]
    if before is None:
        parts += [item.source, item.source_id]
    if record.imported and (before is None or before.imported != record.imported):
        parts.append(json.dumps(record.imported, ensure_ascii=False))
    return _total(parts)


def total_bytes(item: PreparedRecord) -> int:
    """Return the size of everything that a new record stores."""
    return text_bytes(item) + comment_bytes(item.record.comments) + other_bytes(item)


def _total(parts: Iterable[str]) -> int:
    return sum(len(part.encode(errors="replace")) for part in parts)
