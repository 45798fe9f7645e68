"""Limits on what one user or one client address may create: kinds, defaults and notation.

app.services.limits counts and enforces them.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from enum import StrEnum
from typing import NamedTuple, Self

MAX_AMOUNT = 2**53
"""The largest amount that JavaScript represents exactly."""

_UNITS = {"": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3}
_WINDOWS = {
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
}
_NOTATION = re.compile(r"([0-9]{1,16})(|KiB|MiB|GiB)(?:/(minute|hour|day))?")


class LimitKind(StrEnum):
    """What is limited. LIMITS, the database and the API use these names."""

    ARTICLES = "articles"
    CHANGES = "changes"
    TEXT_WRITTEN = "text_written"
    TEXT_KEPT = "text_kept"
    DRAFTS = "drafts"
    COMMENTS = "comments"
    MODERATION = "moderation"
    REACTIONS = "reactions"
    REPORTS = "reports"
    NEW_TAGS = "new_tags"
    IMPORTS = "imports"
    IMPORTED_RECORDS = "imported_records"
    CHECKED_RECORDS = "checked_records"
    CHECKED_TEXT = "checked_text"
    UPLOADS = "uploads"
    UPLOADS_AT_ONCE = "uploads_at_once"
    MEDIA_BYTES = "media_bytes"
    ADDRESSES = "addresses"
    ACCOUNT_CHANGES = "account_changes"
    LOGINS = "logins"
    REGISTRATIONS = "registrations"


class Limit(NamedTuple):
    """A rate (`amount` within the window `per`) or a total (`per` is None)."""

    amount: int
    per: timedelta | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """Parse `60/hour`, `32MiB/day` or `2000`. Raises ValueError for anything else."""
        match = _NOTATION.fullmatch(text)
        if match is None or int(match[1]) * _UNITS[match[2]] > MAX_AMOUNT:
            raise ValueError(f"{text!r} must look like 60/hour, 32MiB/day or 2000")
        return cls(int(match[1]) * _UNITS[match[2]], _WINDOWS[match[3]] if match[3] else None)


_HOUR, _DAY, _MIB = timedelta(hours=1), timedelta(days=1), 1024**2

DEFAULTS: Mapping[LimitKind, Limit] = {
    LimitKind.ARTICLES: Limit(1000, _HOUR),
    LimitKind.CHANGES: Limit(6000, _HOUR),
    LimitKind.TEXT_WRITTEN: Limit(32 * _MIB, _HOUR),
    LimitKind.TEXT_KEPT: Limit(256 * _MIB),
    LimitKind.DRAFTS: Limit(2000),
    LimitKind.COMMENTS: Limit(600, _HOUR),
    LimitKind.MODERATION: Limit(3000, _HOUR),
    LimitKind.REACTIONS: Limit(2000, _HOUR),
    LimitKind.REPORTS: Limit(30, _HOUR),
    LimitKind.NEW_TAGS: Limit(1000, _DAY),
    LimitKind.IMPORTS: Limit(600, _HOUR),
    LimitKind.IMPORTED_RECORDS: Limit(10_000, _HOUR),
    LimitKind.CHECKED_RECORDS: Limit(20_000, _HOUR),
    LimitKind.CHECKED_TEXT: Limit(64 * _MIB, _HOUR),
    LimitKind.UPLOADS: Limit(600, _HOUR),
    LimitKind.UPLOADS_AT_ONCE: Limit(4),
    LimitKind.MEDIA_BYTES: Limit(1024 * _MIB),
    LimitKind.ADDRESSES: Limit(100),
    LimitKind.ACCOUNT_CHANGES: Limit(600, _HOUR),
    LimitKind.LOGINS: Limit(1000, _HOUR),
    LimitKind.REGISTRATIONS: Limit(2000, _DAY),
}

DEVELOPMENT_DEFAULTS = {**DEFAULTS, LimitKind.REGISTRATIONS: Limit(100_000, _DAY)}
"""End-to-end tests of front ends create many accounts from one address."""

MAX_WINDOW = max(limit.per for limit in DEFAULTS.values() if limit.per is not None)

ADDRESS_KINDS = frozenset({LimitKind.REGISTRATIONS})
"""Kinds that are counted by client address, because no user is logged in."""
USER_KINDS = tuple(kind for kind in LimitKind if kind not in ADDRESS_KINDS)

UNSCALED_KINDS = frozenset({LimitKind.MEDIA_BYTES, LimitKind.UPLOADS_AT_ONCE, LimitKind.LOGINS})
"""Kinds to which TRUSTED_FACTOR does not apply: they use disk space immediately, or are counted
before the role is known."""
TRUSTED_FACTOR = 10
"""Factor by which the limits of editors and administrators are higher."""


def parse_limits(text: str) -> dict[LimitKind, Limit | None]:
    """Parse `comments=60/hour,drafts=5000,reports=none`; None means no limit.

    `off` removes all limits except MEDIA_BYTES. Raises ValueError with the reason.
    """
    if text.strip() == "off":
        return dict.fromkeys(kind for kind in LimitKind if kind is not LimitKind.MEDIA_BYTES)
    limits: dict[LimitKind, Limit | None] = {}
    for item in filter(None, map(str.strip, text.split(","))):
        name, _, value = (part.strip() for part in item.partition("="))
        if name not in DEFAULTS:
            raise ValueError(f"{name!r} is not one of {', '.join(LimitKind)}")
        kind = LimitKind(name)
        if kind is LimitKind.MEDIA_BYTES:
            raise ValueError("media_bytes is set by MEDIA_QUOTA_BYTES")
        limit = None if value == "none" else Limit.parse(value)
        if limit is not None and (limit.per is None) is not (DEFAULTS[kind].per is None):
            needs = "a window, such as 60/hour" if DEFAULTS[kind].per else "a total, such as 2000"
            raise ValueError(f"{name} needs {needs}")
        limits[kind] = limit
    return limits
