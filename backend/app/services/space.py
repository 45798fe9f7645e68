"""Disk space for uploads and imports in progress, below `incoming/` of the media storage.

They reserve what they are going to write, in PostgreSQL. All of them together, in all processes,
leave a part of the disk free.
"""

import asyncio
import shutil
from datetime import timedelta
from pathlib import Path

from sqlalchemy import BigInteger, bindparam, func, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import clock
from app.core.errors import ServiceUnavailable
from app.models.bulk import Import
from app.models.limit import UploadReservation

MIN_FREE_FRACTION = 0.1
MIN_FREE_BYTES = 1024**3
"""A disk should have this fraction or this number of bytes free, whichever is less."""
IMPORT_LOST_AFTER = timedelta(minutes=1)
"""The time without an update after which an import counts as interrupted."""

_LOCK = text("SELECT pg_advisory_xact_lock(:lock)").bindparams(
    bindparam("lock", 0x7370616365, type_=BigInteger)
)
"""Serialize reservations, so that each sees the others. The key is "space" in ASCII."""
_UPLOADS = select(func.coalesce(func.sum(UploadReservation.bytes), 0)).where(
    UploadReservation.expires_at > bindparam("now")
)
_IMPORTS = select(func.coalesce(func.sum(Import.reserved_bytes), 0)).where(
    Import.finished_at.is_(None), Import.active_at >= bindparam("active_after")
)
_RESERVED = select(_UPLOADS.scalar_subquery() + _IMPORTS.scalar_subquery())


def min_free_bytes(total: int) -> float:
    """Return how much of a disk with `total` bytes should be free."""
    return min(MIN_FREE_BYTES, total * MIN_FREE_FRACTION)


async def available_bytes(directory: Path) -> int:
    """Return how much may be written to a directory, which may not exist yet."""
    return await asyncio.to_thread(_available_bytes, directory)


def _available_bytes(directory: Path) -> int:
    existing = next(each for each in (directory, *directory.parents) if each.exists())
    usage = shutil.disk_usage(existing)
    return usage.free - int(min_free_bytes(usage.total))


async def require_space(session: AsyncSession, available: int) -> None:
    """Raise ServiceUnavailable if all reservations exceed what is available.

    Those of the session are included. Other reservations wait until the end of its transaction.
    """
    await session.execute(_LOCK)
    now = clock.now()
    reserved = await session.scalar(
        _RESERVED, {"now": now, "active_after": now - IMPORT_LOST_AFTER}
    )
    if (reserved or 0) > available:
        raise ServiceUnavailable("The server does not have enough disk space; try again later")
