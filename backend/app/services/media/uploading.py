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
"""The time from reserving space until the picture is stored, at most."""
MAX_RECEIVE_SECONDS = 15 * 60
"""The upper limit of the time to receive a body; STREAM_SECONDS may set a shorter one."""
MAX_OTHER_BYTES = 64 * 1024
"""The size of everything in a form besides the file, at most."""

_LOCK_OWNER = select(User.id).where(User.id == bindparam("owner_id"))
_KEEP = delete(DiscardedFolder).where(
    DiscardedFolder.folder == bindparam("name"),
    DiscardedFolder.discarded_at == bindparam("give_up_at"),  # else it is being deleted
)
_RELEASE = delete(UploadReservation).where(
    UploadReservation.id == bindparam("reservation_id"),
    UploadReservation.expires_at > bindparam("now"),
)


class Upload(NamedTuple):
    """What has arrived, in a directory that is gone once it has been dealt with."""

    directory: Path
    form: forms.Form
    reservation_id: int

    @property
    def file(self) -> Path:
        return self.directory / "upload"


class Stored(NamedTuple):
    """A picture in the store, which nobody owns yet; at `give_up_at` it may go again."""

    picture: Picture
    folder: str
    give_up_at: datetime
    alt: str
    reservation_id: int


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
            form = await forms.receive(
                content_type, body, path=directory / "upload", max_bytes=largest
            )
        yield Upload(directory, form, reservation_id)
    except BaseException:
        await _release(session, database=database, reservation_id=reservation_id)
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


async def _release(session: AsyncSession, *, database: Database, reservation_id: int) -> None:
    """Release the reservation of an upload that failed, or let it expire.

    The session is rolled back first: it may have locked the reservation, and holds a connection.
    """
    await session.rollback()
    with suppress(ServiceUnavailable):
        async with database.autocommit() as connection:
            released = {"reservation_id": reservation_id, "now": clock.now()}
            await connection.execute(_RELEASE, released)


async def _lock_owner(session: AsyncSession, owner: Identity) -> None:
    """Of two uploads of one user, the second counts both. Raises InvalidToken without the user."""
    lock = _LOCK_OWNER.with_for_update(**NO_KEY_UPDATE)
    if await session.scalar(lock, {"owner_id": owner.id}) is None:
        raise InvalidToken


async def store(database: Database, *, storage: Storage, upload: Upload, owner: Identity) -> Stored:
    """Re-encode an upload and put it into the store, before there is a transaction to add it in.

    Raises InvalidMedia, QuotaExceeded, TooManyAtOnce, ServiceUnavailable.
    """
    files = upload.directory / "files"
    with _storage_errors():
        await asyncio.to_thread(files.mkdir)
        picture = await pictures.reencode(
            upload.file,
            files,
            max_pixels=get_settings().media_max_pixels,
            user_id=owner.id,
        )
    stored = Stored(
        picture,
        new_folder(),
        clock.now() + GIVEN_UP_AFTER,
        upload.form.alt,
        upload.reservation_id,
    )
    async with database.autocommit() as connection:
        give_up = {"folder": stored.folder, "discarded_at": stored.give_up_at}
        await connection.execute(insert(DiscardedFolder), give_up)
    try:
        with _storage_errors():
            await storage.put(stored.folder, files)
    except BaseException:
        await _give_up(storage, stored)
        raise
    return stored


async def create_media(
    session: AsyncSession,
    *,
    database: Database,
    storage: Storage,
    stored: Stored,
    owner: Identity,
) -> MediaResponse:
    """Give a stored picture to its owner.

    Raises QuotaExceeded, ServiceUnavailable; InvalidToken where the owner's account was deleted a
    moment ago. The files are deleted then, and the session is rolled back before: no connection is
    held meanwhile.
    """
    try:
        return await _add(session, stored, owner=owner)
    except BaseException:
        await _release(session, database=database, reservation_id=stored.reservation_id)
        await _give_up(storage, stored)
        raise


async def _give_up(storage: Storage, stored: Stored) -> None:
    with _storage_errors():
        await storage.delete(stored.folder)


async def _add(session: AsyncSession, stored: Stored, *, owner: Identity) -> MediaResponse:
    picture, folder = stored.picture, stored.folder
    await _lock_owner(session, owner)
    await recheck(session, owner)
    released = {"reservation_id": stored.reservation_id, "now": clock.now()}
    kept = {"name": folder, "give_up_at": stored.give_up_at}
    for statement, parameters in (
        (_RELEASE.returning(UploadReservation.id), released),
        (_KEEP.returning(DiscardedFolder.folder), kept),
    ):
        if await session.scalar(statement, parameters) is None:  # it took too long
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
        alt=stored.alt,
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
