"""Uploads: receive a form, re-encode and store the image, and add its row.

A failed upload leaves no files. Temporary files are in a directory that is deleted at the end.
Before files are stored, a row in `discarded_folders` schedules their deletion. The transaction
that adds the media row deletes that row. If the process is killed in between, the row remains, and
`services.media.discarding` deletes the files.

Quota is reserved before the body is received, so that concurrent uploads cannot exceed it. The
reservation ends with the transaction that adds the media row, after a failure, or after
RESERVATION_LIFETIME.
"""

import asyncio
import os
import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity, recheck
from app.core import clock
from app.core.config import get_settings
from app.core.errors import ContentTooLarge, InvalidToken, ServiceUnavailable
from app.core.limits import LimitKind
from app.core.logging import get_logger
from app.core.memory import MemoryBudget
from app.db.session import NO_KEY_UPDATE, Database
from app.models.accounts.user import User
from app.models.limit import UploadReservation
from app.models.media import DiscardedFolder, Media
from app.schemas.media import MediaResponse
from app.services import audit, limits
from app.services.audit import AuditAction
from app.services.media import forms, images
from app.services.media.images import EncodedImage
from app.services.media.rows import response_to
from app.services.media.storage import Storage, new_folder
from app.services.space import available_bytes, require_space

logger = get_logger(__name__)

DISCARD_AFTER = timedelta(hours=1)
"""The age at which stored files without a media row may be deleted."""

RESERVATION_LIFETIME = timedelta(minutes=30)
"""The maximum time from reserving space until the image is stored."""
MAX_RECEIVE_SECONDS = 15 * 60
"""The maximum time to receive a body. STREAM_SECONDS may set a shorter one."""
MAX_OTHER_BYTES = 64 * 1024
"""The maximum size of a form without the file."""
TOO_SLOW = "The upload took too long: send the image again"

_LOCK_OWNER = select(User.id).where(User.id == bindparam("owner_id"))
_KEEP_FILES = delete(DiscardedFolder).where(
    DiscardedFolder.folder == bindparam("name"),
    DiscardedFolder.discarded_at == bindparam("discard_at"),  # else it is being deleted
)
_RELEASE_RESERVATION = delete(UploadReservation).where(
    UploadReservation.id == bindparam("reservation_id"),
    UploadReservation.expires_at > bindparam("now"),
)


class Upload(NamedTuple):
    """A received form, in a directory that is deleted after the request."""

    directory: Path
    form: forms.Form
    reservation_id: int

    @property
    def file(self) -> Path:
        return self.directory / "upload"


class StoredUpload(NamedTuple):
    """A stored image without a media row. Its files may be deleted from `discard_at` on."""

    image: EncodedImage
    folder: str
    discard_at: datetime
    alt: str
    reservation_id: int | None = None
    """None if an operator imports it: no quota was reserved."""


@asynccontextmanager
async def receive_upload(
    session: AsyncSession,
    *,
    database: Database,
    storage: Storage,
    owner: Identity,
    content_type: str,
    content_length: int | None,
    is_repeated: bool,
    body: AsyncIterator[bytes],
) -> AsyncIterator[Upload]:
    """Write the file of a form to a temporary directory that exists while the block runs.

    `session` must be unused. It is rolled back if the block fails. `is_repeated` tells that the
    request is a retry of an answered upload, which takes no space.

    Raises UnsupportedMediaType, InvalidRequest, InvalidInput, ContentTooLarge, LimitReached,
    QuotaExceeded, ServiceUnavailable, and InvalidToken if the owner's account was deleted.
    """
    max_bytes = get_settings().media_max_bytes
    if content_length is not None and content_length > max_bytes + MAX_OTHER_BYTES:
        raise ContentTooLarge(f"An image may have at most {max_bytes} bytes")
    size = max_bytes if content_length is None else min(content_length, max_bytes)
    available = await available_bytes(storage.incoming)
    reservation_id = await _reserve(
        database, owner, 0 if is_repeated else size, available=available
    )
    directory = storage.incoming / secrets.token_hex(16)
    try:
        with storage_errors():
            await asyncio.to_thread(directory.mkdir, mode=0o700, parents=True)
            form = await forms.receive(
                content_type, body, path=directory / "upload", max_bytes=max_bytes
            )
        yield Upload(directory, form, reservation_id)
    except BaseException:
        await _release(session, database=database, reservation_id=reservation_id)
        raise
    finally:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


async def upload_file(
    session: AsyncSession,
    *,
    database: Database,
    storage: Storage,
    owner: Identity,
    file: AsyncIterator[bytes],
    size: int,
    alt: str,
) -> MediaResponse:
    """Store an image of `size` bytes whose form was already parsed.

    `session` must be unused. Raises InvalidMedia, ContentTooLarge, LimitReached, QuotaExceeded,
    TooManyAtOnce, ServiceUnavailable, and InvalidToken if the owner's account was deleted.
    """
    max_bytes = get_settings().media_max_bytes
    if size > max_bytes:
        raise ContentTooLarge(f"An image may have at most {max_bytes} bytes")
    available = await available_bytes(storage.incoming)
    reservation_id = await _reserve(database, owner, size, available=available)
    directory = storage.incoming / secrets.token_hex(16)
    upload = Upload(directory, forms.Form(alt=alt, digest=b""), reservation_id)
    try:
        with storage_errors():
            await asyncio.to_thread(directory.mkdir, mode=0o700, parents=True)
            with await asyncio.to_thread(upload.file.open, "xb") as target:
                async for chunk in file:
                    await asyncio.to_thread(target.write, chunk)
        stored = await store_upload(database, storage=storage, upload=upload, owner=owner)
    except BaseException:
        await _release(session, database=database, reservation_id=reservation_id)
        raise
    finally:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)
    return await create_media(
        session, database=database, storage=storage, stored=stored, owner=owner
    )


async def _reserve(database: Database, owner: Identity, size: int, *, available: int) -> int:
    """Reserve quota and disk space for an upload. Return the reservation's id.

    Raises LimitReached, QuotaExceeded, ServiceUnavailable.
    """
    async with database.unit_of_work() as session:
        await _lock_owner(session, owner)
        await limits.spend(session, owner, {LimitKind.UPLOADS: 1})
        await limits.require_total(session, owner, LimitKind.UPLOADS_AT_ONCE, 1)
        if size:
            await limits.require_total(session, owner, LimitKind.MEDIA_BYTES, size)
        reservation = UploadReservation(
            user_id=owner.id, bytes=size, expires_at=clock.now() + RESERVATION_LIFETIME
        )
        session.add(reservation)
        await session.flush()  # assigns the id
        await require_space(session, available)
        return reservation.id


async def _release(
    session: AsyncSession, *, database: Database, reservation_id: int | None
) -> None:
    """Release the reservation of a failed upload, or let it expire if the database fails.

    The session is rolled back first: it may have locked the reservation and holds a connection.
    """
    await session.rollback()
    with suppress(ServiceUnavailable):
        async with database.autocommit() as connection:
            parameters = {"reservation_id": reservation_id, "now": clock.now()}
            await connection.execute(_RELEASE_RESERVATION, parameters)


async def _lock_owner(session: AsyncSession, owner: Identity) -> None:
    """Serialize uploads of one user, so that each counts the others.

    Raises InvalidToken if the user was deleted.
    """
    lock = _LOCK_OWNER.with_for_update(**NO_KEY_UPDATE)
    if await session.scalar(lock, {"owner_id": owner.id}) is None:
        raise InvalidToken


def _memory_budget() -> MemoryBudget | None:
    total = get_settings().media_memory_bytes
    if total is None:
        return None
    # Not in the storage, which containers with memory limits of their own may share.
    return MemoryBudget(Path(tempfile.gettempdir()) / f"pressroom-{os.getuid()}", total=total)


async def store_upload(
    database: Database, *, storage: Storage, upload: Upload, owner: Identity
) -> StoredUpload:
    """Re-encode an upload and store its files, outside of any transaction.

    Raises InvalidMedia, QuotaExceeded, TooManyAtOnce, ServiceUnavailable.
    """
    stored = await store_image(
        database, storage=storage, file=upload.file, owner_id=owner.id, alt=upload.form.alt
    )
    return stored._replace(reservation_id=upload.reservation_id)


async def store_image(
    database: Database, *, storage: Storage, file: Path, owner_id: int, alt: str
) -> StoredUpload:
    """Re-encode an image and store its files, outside of any transaction.

    The file is in a temporary directory, in which the result is written before it is stored.

    Raises InvalidMedia, QuotaExceeded, TooManyAtOnce, ServiceUnavailable.
    """
    files = file.parent / "files"
    with storage_errors():
        await asyncio.to_thread(files.mkdir)
        image = await images.reencode(
            file,
            files,
            max_pixels=get_settings().media_max_pixels,
            user_id=owner_id,
            budget=_memory_budget(),
        )
    stored = StoredUpload(image, new_folder(), clock.now() + DISCARD_AFTER, alt)
    async with database.autocommit() as connection:
        discarded = {"folder": stored.folder, "discarded_at": stored.discard_at}
        await connection.execute(insert(DiscardedFolder), discarded)
    try:
        with storage_errors():
            await storage.put(stored.folder, files)
    except BaseException:
        await delete_files(storage, stored)
        raise
    return stored


async def create_media(
    session: AsyncSession,
    *,
    database: Database,
    storage: Storage,
    stored: StoredUpload,
    owner: Identity,
) -> MediaResponse:
    """Add the row of a stored image.

    Raises QuotaExceeded, ServiceUnavailable, and InvalidToken if the owner's account was deleted.
    On failure, the session is rolled back to return its connection, then the files are deleted.
    """
    try:
        return await _insert_media(session, stored, owner=owner)
    except BaseException:
        await _release(session, database=database, reservation_id=stored.reservation_id)
        await delete_files(storage, stored)
        raise


async def delete_files(storage: Storage, stored: StoredUpload) -> None:
    """Delete the files of an image that gets no media row. Raises ServiceUnavailable."""
    with storage_errors():
        await storage.delete(stored.folder)


async def _insert_media(
    session: AsyncSession, stored: StoredUpload, *, owner: Identity
) -> MediaResponse:
    await _lock_owner(session, owner)
    await recheck(session, owner)
    released = {"reservation_id": stored.reservation_id, "now": clock.now()}
    released_id = _RELEASE_RESERVATION.returning(UploadReservation.id)
    if await session.scalar(released_id, released) is None:
        raise ServiceUnavailable(TOO_SLOW)
    await limits.require_total(session, owner, LimitKind.MEDIA_BYTES, stored.image.bytes)
    return response_to(await insert_media(session, stored, owner_id=owner.id, actor_id=owner.id))


async def insert_media(
    session: AsyncSession, stored: StoredUpload, *, owner_id: int, actor_id: int
) -> Media:
    """Add the row of a stored image without regard to limits, and keep its files.

    Raises ServiceUnavailable if the files may have been deleted.
    """
    kept = {"name": stored.folder, "discard_at": stored.discard_at}
    if await session.scalar(_KEEP_FILES.returning(DiscardedFolder.folder), kept) is None:
        raise ServiceUnavailable(TOO_SLOW)
    image = stored.image
    media = Media(
        owner_id=owner_id,
        folder=stored.folder,
        content_type=image.content_type,
        bytes=image.bytes,
        width=image.width,
        height=image.height,
        widths=image.widths,
        alt=stored.alt,
        color=image.color,
        placeholder=image.placeholder,
    )
    session.add(media)
    await session.flush()  # assigns the id
    audit.record(
        session,
        AuditAction.CREATE_MEDIA,
        actor_id=actor_id,
        subject="media",
        subject_id=media.id,
    )
    return media


@contextmanager
def storage_errors() -> Iterator[None]:
    """Log storage errors, such as a full disk, and raise ServiceUnavailable."""
    try:
        yield
    except OSError as error:
        logger.exception("media storage failed", error=type(error).__name__)
        raise ServiceUnavailable(
            "Images cannot be stored at the moment: try again later"
        ) from error
