"""Uploading: from a form to a picture that is stored and belongs to somebody.

Nothing is left of what fails. What is being worked on is in a directory of its own, which goes at
the end; before files are put where they stay, a row says that they are to go again, and the unit of
work that adds the picture takes that row away. Whatever ends the process in between, the row stays,
and `services.media.discarding` does what it says.

Space is reserved before anything is received, so that uploads at once cannot together exceed the
quota. The reservation goes with the unit of work that adds the picture, after a failure, or after
LASTS.
"""

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import bindparam, delete, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity
from app.core import clock
from app.core.config import get_settings
from app.core.errors import ContentTooLarge, InvalidRequest, InvalidToken, ServiceUnavailable
from app.core.limits import LimitKind
from app.core.logging import get_logger
from app.db.session import NO_KEY_UPDATE, Database
from app.models.limit import UploadReservation
from app.models.media import DiscardedFolder, Media
from app.models.user import User
from app.schemas.media import MediaResponse
from app.services import audit, limits
from app.services.audit import AuditAction
from app.services.media import forms, pictures
from app.services.media.pictures import Picture
from app.services.media.rows import response_to
from app.services.media.storage import Storage, new_folder

logger = get_logger(__name__)

GIVEN_UP_AFTER = timedelta(hours=1)
"""When files that were put into the store, and that no picture has, may go."""

LASTS = timedelta(minutes=30)
"""How long an upload may take in all, until its picture is kept."""
RECEIVE_SECONDS = 15 * 60
"""How long its body may take to arrive."""
MAX_OTHER_BYTES = 64 * 1024
"""What a form may have besides the file."""

_LOCK_OWNER = select(User.id).where(User.id == bindparam("owner_id"))
_RELEASE = delete(UploadReservation).where(
    UploadReservation.id == bindparam("reservation_id"),
    UploadReservation.expires_at > bindparam("now"),
)
_KEEP = delete(DiscardedFolder).where(DiscardedFolder.folder == bindparam("name"))


class Upload(NamedTuple):
    """What has arrived, in a directory that is gone once it has been dealt with."""

    directory: Path
    form: forms.Form
    reservation_id: int

    @property
    def file(self) -> Path:
        return self.directory / "upload"


@asynccontextmanager
async def received(
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
    """Take a form's file to disk, for as long as the block runs.

    `session`, which must not have been used yet, is rolled back where the block fails.
    `is_repeated`: whether the upload was answered before and takes no space.

    Raises UnsupportedMediaType, InvalidRequest, InvalidInput, ContentTooLarge, LimitReached,
    QuotaExceeded, ServiceUnavailable; InvalidToken where the owner's account was deleted.
    """
    largest = get_settings().media_max_bytes
    if content_length is not None and content_length > largest + MAX_OTHER_BYTES:
        raise ContentTooLarge(f"A picture may have {largest} bytes at most")
    size = largest if content_length is None else min(content_length, largest)
    reservation_id = await _reserve(database, owner, 0 if is_repeated else size)
    directory = storage.incoming / secrets.token_hex(16)
    try:
        with _storage_errors():
            await asyncio.to_thread(directory.mkdir, mode=0o700, parents=True)
            form = await _receive(content_type, body, path=directory / "upload")
        yield Upload(directory, form, reservation_id)
    except BaseException:
        await session.rollback()  # it may have locked the reservation, and holds a connection
        with suppress(ServiceUnavailable):  # then it expires
            async with database.autocommit() as connection:
                released = {"reservation_id": reservation_id, "now": clock.now()}
                await connection.execute(_RELEASE, released)
        raise
    finally:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


async def _reserve(database: Database, owner: Identity, size: int) -> int:
    """Reserve space for an upload; the reservation's id. Raises LimitReached, QuotaExceeded."""
    async with database.unit_of_work() as session:
        await _lock_owner(session, owner)
        await limits.spend(session, owner, {LimitKind.UPLOADS: 1})
        await limits.require_total(session, owner, LimitKind.UPLOADS_AT_ONCE, 1)
        if size:
            await limits.require_total(session, owner, LimitKind.MEDIA_BYTES, size)
        reservation = UploadReservation(
            user_id=owner.id, bytes=size, expires_at=clock.now() + LASTS
        )
        session.add(reservation)
        await session.flush()  # it has an id
        return reservation.id


async def _lock_owner(session: AsyncSession, owner: Identity) -> None:
    """Of two uploads of one user, the second counts both. Raises InvalidToken without the user."""
    lock = _LOCK_OWNER.with_for_update(**NO_KEY_UPDATE)
    if await session.scalar(lock, {"owner_id": owner.id}) is None:
        raise InvalidToken


async def _receive(content_type: str, body: AsyncIterator[bytes], *, path: Path) -> forms.Form:
    """Write a form's file to `path`. Raises InvalidRequest where it takes too long to arrive."""
    try:
        async with asyncio.timeout(RECEIVE_SECONDS) as limit:
            return await forms.receive(
                content_type, body, path=path, max_bytes=get_settings().media_max_bytes
            )
    except TimeoutError:
        if not limit.expired():
            raise
        raise InvalidRequest(
            f"The upload took longer than {RECEIVE_SECONDS // 60} minutes; send it again"
        ) from None


async def create_media(
    session: AsyncSession,
    *,
    database: Database,
    storage: Storage,
    upload: Upload,
    owner: Identity,
) -> MediaResponse:
    """Re-encode an upload and keep it.

    No connection is held while it is re-encoded and put into the store: `session` must not have
    been used yet. Raises InvalidMedia, QuotaExceeded, ServiceUnavailable; InvalidToken where the
    owner's account was deleted a moment ago.
    """
    files = upload.directory / "files"
    with _storage_errors():
        await asyncio.to_thread(files.mkdir)
        picture = await pictures.reencode(
            upload.file, files, max_pixels=get_settings().media_max_pixels
        )
    folder = new_folder()
    async with database.autocommit() as connection:
        give_up = {"folder": folder, "discarded_at": clock.now() + GIVEN_UP_AFTER}
        await connection.execute(insert(DiscardedFolder), give_up)
    try:
        with _storage_errors():
            await storage.put(folder, files)
        return await _add(session, picture, folder=folder, upload=upload, owner=owner)
    except BaseException:
        with _storage_errors():
            await storage.delete(folder)
        raise


async def _add(
    session: AsyncSession, picture: Picture, *, folder: str, upload: Upload, owner: Identity
) -> MediaResponse:
    await _lock_owner(session, owner)
    released = {"reservation_id": upload.reservation_id, "now": clock.now()}
    for kept, parameters in (
        (_RELEASE.returning(UploadReservation.id), released),
        (_KEEP.returning(DiscardedFolder.folder), {"name": folder}),
    ):
        if await session.scalar(kept, parameters) is None:  # it took too long
            raise ServiceUnavailable("The picture could not be kept in time; send it again")
    await limits.require_total(session, owner, LimitKind.MEDIA_BYTES, picture.bytes)
    media = Media(
        owner_id=owner.id,
        folder=folder,
        content_type=picture.content_type,
        bytes=picture.bytes,
        width=picture.width,
        height=picture.height,
        widths=picture.widths,
        alt=upload.form.alt,
        color=picture.color,
        placeholder=picture.placeholder,
    )
    session.add(media)
    await session.flush()  # it has an id
    audit.record(
        session,
        AuditAction.CREATE_MEDIA,
        actor_id=owner.id,
        subject="media",
        subject_id=media.id,
    )
    return response_to(media)


@contextmanager
def _storage_errors() -> Iterator[None]:
    """A disk that is full or gone, a bucket that does not answer: 503, and the log says why."""
    try:
        yield
    except OSError as error:
        logger.exception("the store of pictures failed", error=type(error).__name__)
        raise ServiceUnavailable("Pictures cannot be stored at the moment") from error
