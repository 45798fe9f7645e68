"""Descriptions of response headers, for OpenAPI."""

from collections.abc import Mapping
from typing import Any

_DESCRIPTIONS: Mapping[str, str] = {
    "Cache-Control": "How long the response is fresh",
    "Content-Location": "The path of the changed resource",
    "Content-Range": "The range of the file, or its size if the requested range is outside",
    "ETag": "The version of the resource, for `If-None-Match` and `If-Match`",
    "Idempotency-Replayed": "`true` if this is the stored response to an earlier request",
    "Last-Modified": "For `If-Modified-Since`; not within a minute after a change",
    "Link": "RFC 8288: `first`, and `prev` and `next` if these pages exist",
    "Location": "The path of the resource",
    "Preference-Applied": "The honored preference of `Prefer` (RFC 7240)",
    "RateLimit": "What is left of the limits that the request counts for, and when there is more",
    "RateLimit-Policy": "The limits that the request counts for, and their windows in seconds",
    "Retry-After": "After how many seconds another attempt may succeed",
    "WWW-Authenticate": "The authentication scheme and the reason (RFC 6750 §3)",
    "X-Merged-Into": "The slug of the existing tag that the renamed one was merged into",
    "X-Total-Count": "The number of items on all pages; requires `count=true`",
}
_INTEGERS = frozenset({"Retry-After", "X-Total-Count"})


def described(*names: str) -> dict[str, Any]:
    """Return the `headers` of a response."""
    return {
        name: {
            "description": _DESCRIPTIONS[name],
            "schema": {"type": "integer" if name in _INTEGERS else "string"},
        }
        for name in names
    }
