"""How a file of the store is sent: by nginx where it can, in parts where somebody wants one."""

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
    # Opened by itself, it may load nothing, run nothing, and is of no origin.
    "Content-Security-Policy": "default-src 'none'; sandbox",
    "Cross-Origin-Resource-Policy": "cross-origin",  # front ends elsewhere show it
}
INTERNAL_PATH = "/_media"
"""Where nginx has the files, for us alone (nginx/templates/edge.conf.template)."""

_RANGE = re.compile(r"bytes=([0-9]{0,18})-([0-9]{0,18})", re.ASCII | re.IGNORECASE)


async def file_response(request: Request, *, storage: Storage, folder: str, name: str) -> Response:
    """The file, or a part of it.

    Raises MediaNotFound, RangeNotSatisfiable, ServiceUnavailable. Whoever has it already gets 304,
    by its ETag, as from every route.
    """
    if not is_media_file(folder, name):
        raise MediaNotFound
    try:
        size = await storage.size(folder, name)
    except OSError:
        raise ServiceUnavailable("Pictures cannot be read at the moment") from None
    if size is None:
        raise MediaNotFound
    headers = {**HEADERS, "Content-Type": CONTENT_TYPES[name.rpartition(".")[2]]}
    if get_settings().media_accel_redirect and isinstance(storage, LocalStorage):
        return Response(headers={**headers, "X-Accel-Redirect": f"{INTERNAL_PATH}/{folder}/{name}"})
    headers["Accept-Ranges"] = "bytes"
    headers["ETag"] = tag = f'"{folder}/{name}"'  # what is at an address never changes
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
    """RFC 9110 §14.1.2, for one part: where it starts and ends; None for all of it."""
    found = _RANGE.fullmatch(header.strip())
    if found is None or not (found[1] or found[2]):
        return None
    if not found[1]:
        return max(0, size - int(found[2])), size
    end = min(int(found[2]) + 1, size) if found[2] else size
    if found[2] and int(found[2]) < int(found[1]):
        return None
    return int(found[1]), end
