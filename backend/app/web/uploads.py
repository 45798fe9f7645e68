"""Files of forms: read in chunks, and stored as pictures."""

from collections.abc import AsyncIterator

from fastapi import Request
from starlette.datastructures import UploadFile

from app.auth.identity import Identity
from app.db.dependencies import UnitOfWork
from app.db.session import Database
from app.schemas.media import MediaResponse
from app.services.media import uploading

CHUNK_BYTES = 256 * 1024


async def chunks(file: UploadFile) -> AsyncIterator[bytes]:
    """Yield the content of an uploaded file."""
    while chunk := await file.read(CHUNK_BYTES):
        yield chunk


async def store_picture(
    request: Request,
    session: UnitOfWork,
    *,
    database: Database,
    file: UploadFile,
    owner: Identity,
    alt: str,
) -> MediaResponse:
    """Store a picture of a form. Raises the errors of `uploading.upload_file`."""
    return await uploading.upload_file(
        session,
        database=database,
        storage=request.app.state.storage,
        owner=owner,
        file=chunks(file),
        size=file.size or 0,
        alt=alt,
    )
