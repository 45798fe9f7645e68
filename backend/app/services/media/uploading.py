"""Uploading: from a form to a picture that is stored and belongs to somebody.

Nothing is left of what fails. What is being worked on is in a directory of its own, which goes at
the end; before files are put where they stay, a row says that they are to go again, and the unit of
work that adds the picture takes that row away. Whatever ends the process in between, the row stays,
and `services.media.discarding` does what it says.
"""

import asyncio
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import bindparam, delete, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity, recheck
from app.core import clock
from app.core.config import get_settings
from app.core.errors import InvalidToken, QuotaExceeded, ServiceUnavailable
from app.core.logging import get_logger
from app.db.session import NO_KEY_UPDATE, Database
from app.models.media import DiscardedFolder, Media
from app.models.user import User
from app.schemas.media import MediaResponse
from app.services import audit
from app.services.audit import AuditAction
from app.services.media import forms, pictures
from app.services.media.pictures import Picture
from app.services.media.rows import response_to
from app.services.media.storage import Storage, new_folder

logger = get_logger(__name__)

GIVEN_UP_AFTER = timedelta(hours=1)
"""When files that were put into the store, and that no picture has, may go."""

_TAKEN = select(func.coalesce(func.sum(Media.bytes), 0)).where(
    Media.owner_id == bindparam("owner_id")
)
_LOCK_OWNER = select(User.id).where(User.id == bindparam("owner_id"))
_KEEP = delete(DiscardedFolder).where(
    DiscardedFolder.folder == bindparam("name"),
    DiscardedFolder.discarded_at == bindparam("give_up_at"),  # else it is being deleted
)


class Upload(NamedTuple):
    """What has arrived, in a directory that is gone once it has been dealt with."""

    directory: Path
    form: forms.Form

    @property
    def file(self) -> Path:
        return self.directory / "upload"


class Stored(NamedTuple):
    """A picture in the store, which nobody owns yet; at `give_up_at` it may go again."""

    picture: Picture
    folder: str
    give_up_at: datetime
    alt: str


@asynccontextmanager
async def received(
    storage: Storage, *, content_type: str, body: AsyncIterator[bytes]
) -> AsyncIterator[Upload]:
    """Take a form's file to disk, for as long as the block runs.

    Raises UnsupportedMediaType, InvalidRequest, InvalidInput, ContentTooLarge, ServiceUnavailable.
    """
    directory = storage.incoming / secrets.token_hex(16)
    try:
        with _storage_errors():
            await asyncio.to_thread(directory.mkdir, mode=0o700, parents=True)
            form = await forms.receive(
                content_type,
                body,
                path=directory / "upload",
                max_bytes=get_settings().media_max_bytes,
            )
        yield Upload(directory, form)
    finally:
        await asyncio.to_thread(shutil.rmtree, directory, ignore_errors=True)


async def store(database: Database, *, storage: Storage, upload: Upload, owner: Identity) -> Stored:
    """Re-encode an upload and put it into the store, before there is a transaction to add it in.

    Raises InvalidMedia, QuotaExceeded, TooManyAtOnce, ServiceUnavailable.
    """
    settings = get_settings()
    async with database.autocommit() as connection:  # spares who has no space left the work
        taken = await connection.scalar(_TAKEN, {"owner_id": owner.id})
    _require_space(0, taken=taken or 0)
    files = upload.directory / "files"
    with _storage_errors():
        await asyncio.to_thread(files.mkdir)
        picture = await pictures.reencode(
            upload.file, files, max_pixels=settings.media_max_pixels, user_id=owner.id
        )
    stored = Stored(picture, new_folder(), clock.now() + GIVEN_UP_AFTER, upload.form.alt)
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
    session: AsyncSession, *, storage: Storage, stored: Stored, owner: Identity
) -> MediaResponse:
    """Give a stored picture to its owner.

    Raises QuotaExceeded, ServiceUnavailable; InvalidToken where the owner's account was deleted a
    moment ago. The files are deleted then, and the session is rolled back before: no connection is
    held meanwhile.
    """
    try:
        return await _add(session, stored, owner=owner)
    except BaseException:
        await session.rollback()
        await _give_up(storage, stored)
        raise


async def _give_up(storage: Storage, stored: Stored) -> None:
    with _storage_errors():
        await storage.delete(stored.folder)


async def _add(session: AsyncSession, stored: Stored, *, owner: Identity) -> MediaResponse:
    picture, folder = stored.picture, stored.folder
    lock = _LOCK_OWNER.with_for_update(**NO_KEY_UPDATE)  # of two uploads, the second counts both
    if await session.scalar(lock, {"owner_id": owner.id}) is None:
        raise InvalidToken
    await recheck(session, owner)
    taken = await session.scalar(_TAKEN, {"owner_id": owner.id})
    _require_space(picture.bytes, taken=taken or 0)
    parameters = {"name": folder, "give_up_at": stored.give_up_at}
    kept = await session.execute(_KEEP.returning(DiscardedFolder.folder), parameters)
    if kept.first() is None:  # it took so long that the files are gone already
        raise ServiceUnavailable("The picture could not be kept in time; send it again")
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


def _require_space(needed: int, *, taken: int) -> None:
    quota = get_settings().media_quota_bytes
    if taken + max(needed, 1) > quota:
        raise QuotaExceeded(
            f"Your pictures take {taken} of {quota} bytes"
            + (f", and this one would take {needed}; delete some" if needed else "; delete some")
        )


@contextmanager
def _storage_errors() -> Iterator[None]:
    """A disk that is full or gone, a bucket that does not answer: 503, and the log says why."""
    try:
        yield
    except OSError as error:
        logger.exception("the store of pictures failed", error=type(error).__name__)
        raise ServiceUnavailable("Pictures cannot be stored at the moment") from error
