"""Responses with stored files: sent by nginx if configured, with support for ranges."""

import re

from fastapi import Request
from fastapi.responses import Response, StreamingResponse

from app.core.config import get_settings
from app.core.errors import MediaNotFound, RangeNotSatisfiable, ServiceUnavailable
from app.services.media.formats import CONTENT_TYPES
from app.services.media.storage import LocalStorage, Storage, is_media_file

HEADERS = {
    "Cache-Control": "public, max-age=31536000, immutable",
    "X-Content-Type-Options": "nosniff",
    # If the file is opened directly, it may load and run nothing, and has an opaque origin.
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "cross-origin",  # front ends on other sites show the images
}
INTERNAL_PATH = "/_media"
"""An nginx location for internal redirects only (nginx/templates/edge.conf.template)."""

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.ASCII | re.IGNORECASE)


async def file_response(request: Request, *, storage: Storage, folder: str, name: str) -> Response:
    """Return a stored file, or the requested range of it.

    The route class answers If-None-Match with 304.
    """
    if not is_media_file(folder, name):
        raise MediaNotFound
    try:
        size = await storage.size(folder, name)
    except OSError:
        raise ServiceUnavailable("The media store cannot be read; try again later") from None
    if size is None:
        raise MediaNotFound
    headers = {**HEADERS, "Content-Type": CONTENT_TYPES[name.rpartition(".")[2]]}
    if get_settings().media_accel_redirect and isinstance(storage, LocalStorage):
        return Response(headers={**headers, "X-Accel-Redirect": f"{INTERNAL_PATH}/{folder}/{name}"})
    headers["Accept-Ranges"] = "bytes"
    headers["ETag"] = tag = f'"{folder}/{name}"'  # the content at a name never changes
    start, end = 0, size
    status = 200
    if "if-none-match" not in request.headers and request.headers.get("if-range", tag) == tag:
        part = _part(request.headers.get("range", ""), size)
        if part is not None:
            start, end = part
            if start >= end:
                raise RangeNotSatisfiable(size=size)
            status = 206
            headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    headers["Content-Length"] = str(end - start)
    content = storage.read(folder, name, start=start, end=end)
    return StreamingResponse(content, status_code=status, headers=headers)


def _part(header: str, size: int) -> tuple[int, int] | None:
    """Parse a single range (RFC 9110 §14.1.2) to start and end; None means the whole file."""
    found = _RANGE.fullmatch(header.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        return max(0, size - int(found[2])), size
    end = min(int(found[2]) + 1, size) if found[2] else size
    if found[2] and int(found[2]) < int(found[1]):
        return None
    return int(found[1]), end
