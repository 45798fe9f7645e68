"""/media: images, and public access to their files by URL."""

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Security, status
from fastapi.responses import Response
from starlette.requests import ClientDisconnect

from app.auth.dependencies import MediaActor, RequiredMediaViewer, confirming_user
from app.auth.identity import Identity
from app.core.config import get_settings
from app.core.enums import Scope
from app.core.errors import (
    InvalidMedia,
    InvalidRequest,
    LimitReached,
    MediaInUse,
    MediaNotFound,
    NotAuthorized,
    QuotaExceeded,
    RangeNotSatisfiable,
    RequestTimedOut,
    TooManyAtOnce,
    UnsupportedMediaType,
)
from app.core.streams import Deadline
from app.db.dependencies import CurrentDatabase, ReadConnection, WriteSession
from app.http.headers import described
from app.routers.idempotency import RepeatableRequest
from app.routers.media.files import file_response
from app.routers.parameters import IfMatch, MediaId
from app.routers.responses import create_router, errors
from app.schemas.media import MediaQuery, MediaResponse, MediaUpdate
from app.services.media import library, uploading
from app.services.media.formats import CONTENT_TYPES
from app.services.media.storage import Storage

router = create_router(prefix="/media", tag="media")

UPLOAD_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "additionalProperties": False,
                    "properties": {
                        "file": {
                            "type": "string",
                            "format": "binary",
                            "description": "JPEG, PNG, WebP, GIF or AVIF",
                        },
                        "alt": {
                            "type": "string",
                            "maxLength": 500,
                            "description": "Alternative text for the image",
                        },
                    },
                }
            }
        },
    }
}
"""The body is not parsed by FastAPI: it is streamed to disk after authentication."""

FILE_RESPONSES: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file. It never changes and can be cached indefinitely",
        "headers": described("ETag"),
        "content": {
            content_type: {"schema": {"type": "string", "format": "binary"}}
            for content_type in CONTENT_TYPES.values()
        },
    },
    206: {"description": "The requested range of the file", "headers": described("ETag")},
}


async def get_storage(request: Request) -> Storage:
    """Return the media storage. Async, so that FastAPI does not run it in a thread."""
    storage: Storage = request.app.state.storage
    return storage


CurrentStorage = Annotated[Storage, Depends(get_storage)]
Uploader = Annotated[Identity, Security(confirming_user, scopes=[Scope.MEDIA_WRITE])]
"""The uploading user, read in a transaction that ends before the body is received."""


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    openapi_extra=UPLOAD_BODY,
    responses=errors(
        RequestTimedOut,
        LimitReached,
        QuotaExceeded,
        UnsupportedMediaType,
        InvalidMedia,
        TooManyAtOnce,
    ),
)
async def upload_media(
    *,
    request: Request,
    session: WriteSession,
    database: CurrentDatabase,
    storage: CurrentStorage,
    owner: Uploader,
    repeatable: RepeatableRequest,
) -> MediaResponse:
    """Upload an image: JPEG, PNG, WebP, GIF or AVIF.

    The image is re-encoded, and metadata such as camera and location is removed. GIFs and
    animations become WebP.
    """
    content_type = request.headers.get("content-type", "")
    length = request.headers.get("content-length")
    seconds = min(get_settings().stream_seconds, uploading.MAX_RECEIVE_SECONDS)
    try:
        async with uploading.receive_upload(
            session,
            database=database,
            storage=storage,
            owner=owner,
            content_type=content_type,
            content_length=None if length is None else int(length),
            is_repeated=await repeatable.was_answered(caller=owner),
            body=Deadline(seconds).limit(request.stream()),
        ) as upload:
            await repeatable.claim(upload.form.digest, upload.form.alt.encode(), caller=owner)
            stored = await uploading.store_upload(
                database, storage=storage, upload=upload, owner=owner
            )
    except ClientDisconnect:
        raise InvalidRequest("The request body is incomplete") from None
    return await uploading.create_media(
        session, database=database, storage=storage, stored=stored, owner=owner
    )


@router.get("", responses=errors(NotAuthorized))
async def list_media(
    connection: ReadConnection, user: RequiredMediaViewer, query: Annotated[MediaQuery, Query()]
) -> Sequence[MediaResponse]:
    """List your images, newest first. Editors and administrators can select another owner."""
    return await library.list_media(connection, query=query, user=user)


@router.get("/{media_id}", responses=errors(MediaNotFound))
async def get_media(
    connection: ReadConnection, user: RequiredMediaViewer, media_id: MediaId
) -> MediaResponse:
    """Get one of your images."""
    return await library.get_media(connection, media_id=media_id, user=user)


@router.patch("/{media_id}", responses=errors(MediaNotFound, LimitReached))
async def update_media(
    session: WriteSession,
    actor: MediaActor,
    media_id: MediaId,
    changes: MediaUpdate,
    precondition: IfMatch,
) -> MediaResponse:
    """Update the description of an image."""
    return await library.update_media(
        session, media_id=media_id, changes=changes, precondition=precondition, actor=actor
    )


@router.delete(
    "/{media_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=errors(MediaNotFound, MediaInUse, LimitReached),
)
async def delete_media(
    session: WriteSession, actor: MediaActor, media_id: MediaId, precondition: IfMatch
) -> None:
    """Delete an image that no article and no profile uses."""
    await library.delete_media(session, media_id=media_id, precondition=precondition, actor=actor)


@router.get(
    "/{folder}/{name}",
    response_class=Response,
    responses={**FILE_RESPONSES, **errors(MediaNotFound, RangeNotSatisfiable)},
)
async def read_file(request: Request, storage: CurrentStorage, folder: str, name: str) -> Response:
    """Get a file of an image. No authentication is required: the URL is not guessable."""
    return await file_response(request, storage=storage, folder=folder, name=name)
