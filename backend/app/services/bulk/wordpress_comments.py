"""The comments of WordPress's posts."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, tzinfo
from hashlib import sha256
from xml.etree.ElementTree import Element

from app.core.enums import CommentStatus
from app.schemas.types import EARLIEST
from app.services.bulk.comment_texts import to_markdown
from app.services.bulk.converting.results import TooComplex
from app.services.bulk.dates import DateError, read_date
from app.services.bulk.foreign import RecordBuilder, without_html
from app.services.bulk.ndjson import ResolveAuthor
from app.services.bulk.wxr import local_name

_LEFT_OUT_STATUSES = {
    "spam": "spam comments",
    "trash": "comments in the trash",
    "post-trashed": "comments in the trash",
}
_LEFT_OUT_TYPES = {
    "pingback": "pingbacks and trackbacks",
    "trackback": "pingbacks and trackbacks",
    "pings": "pingbacks and trackbacks",
    "webmention": "pingbacks and trackbacks",
}
_APPROVED = {"1", "approve", "approved"}


def add_comments(
    builder: RecordBuilder,
    elements: Iterable[Element],
    *,
    logins: Mapping[str, str],
    resolve_author: ResolveAuthor,
) -> None:
    """Add the comments of a post. `logins` has the logins of authors by their number.

    Spam, comments in the trash and messages of other sites are counted. Replies to them become
    replies to the comment before.
    """
    found = [{local_name(child): child.text or "" for child in element} for element in elements]
    parents = {_id(comment): comment.get("comment_parent", "").strip() for comment in found}
    kept: dict[str, dict[str, str]] = {}
    for comment in found:
        if kind := _left_out(comment):
            builder.leave_out(kind)
        elif kept.setdefault(_id(comment), comment) is not comment:
            builder.leave_out("comments with the number of another comment")
    is_fixed = resolve_author("") is not None
    for number, comment in kept.items():
        try:
            content = to_markdown(comment.get("comment_content", ""))
        except TooComplex:
            builder.leave_out("comments that are too complex")
            continue
        login = logins.get(comment.get("comment_user_id", "0").strip())
        at = _date(comment, builder.options.zone)
        is_public = comment.get("comment_approved", "").strip() in _APPROVED
        builder.add_comment(
            id=number,
            parent=_parent(number, parents, kept),
            content=content,
            author=resolve_author(login) if login and not is_fixed else None,
            name=without_html(comment.get("comment_author", "")),
            url=comment.get("comment_author_url", ""),
            status=None if is_public else CommentStatus.PENDING.value,
            created_at=at or builder.created_at,
        )


def _left_out(comment: Mapping[str, str]) -> str | None:
    kind = comment.get("comment_type", "").strip()
    if kind not in {"", "comment"}:
        return _LEFT_OUT_TYPES.get(kind, f"comments of the type {kind[:40]!r}")
    return _LEFT_OUT_STATUSES.get(comment.get("comment_approved", "").strip())


def _id(comment: Mapping[str, str]) -> str:
    """Return the number of a comment. Some exports have none: then it is made from the content."""
    number = comment.get("comment_id", "").strip()[:200]
    if number not in {"", "0"}:
        return number
    parts = (comment.get(f"comment_{name}", "") for name in ("author", "date", "content"))
    return sha256("\0".join(parts).encode(errors="replace")).hexdigest()[:32]


def _parent(number: str, parents: dict[str, str], kept: Mapping[str, dict[str, str]]) -> str | None:
    """Return the nearest comment above that is imported, and note it for those between."""
    seen = {number}
    parent = parents.get(number, "")
    while parent and parent not in seen:
        if parent in kept:
            break
        seen.add(parent)
        parent = parents.get(parent, "")
    else:
        parent = ""
    parents.update(dict.fromkeys(seen, parent))
    return parent or None


def _date(comment: Mapping[str, str], zone: tzinfo) -> datetime | None:
    for name, of in (("comment_date_gmt", UTC), ("comment_date", zone)):
        text = comment.get(name, "").strip()
        if text and not text.startswith("0000"):
            try:
                found = read_date(text, of)
            except DateError:
                continue
            if found is not None and found.at >= EARLIEST:
                return found.at
    return None
