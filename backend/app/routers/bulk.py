"""/articles/import and /articles/export: bulk import and export as NDJSON."""

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated

from fastapi import Request, Security
from fastapi.responses import StreamingResponse
from starlette.requests import ClientDisconnect

from app.auth.dependencies import RequiredArticlesViewer, confirming_user
from app.auth.identity import Identity
from app.core.config import get_settings
from app.core.enums import Scope
from app.core.errors import (
    ContentTooLarge,
    InvalidRequest,
    InvalidToken,
    RequestTimedOut,
    UnsupportedMediaType,
)
from app.core.streams import Deadline
from app.db.dependencies import CurrentDatabase
from app.routers.responses import create_router, errors
from app.schemas.bulk import ImportFailure, ImportReport
from app.services.bulk import exporting, importing
from app.services.bulk.records import Importer
from app.services.bulk.tally import Tally

router = create_router(prefix="/articles", tag="bulk")

NDJSON = "application/x-ndjson"
RECORDS_SCHEMA = {"type": "string", "description": "One ArticleRecord per line, as JSON"}
RECORDS_CONTENT = {NDJSON: {"schema": RECORDS_SCHEMA}}

ImportingUser = Annotated[Identity, Security(confirming_user, scopes=[Scope.ARTICLES_WRITE])]
"""The importing user, read before the body is received, which may take hours."""


@router.post(
    "/import",
    responses=errors(RequestTimedOut, UnsupportedMediaType),
    openapi_extra={"requestBody": {"required": True, "content": RECORDS_CONTENT}},
)
async def import_articles(
    request: Request, database: CurrentDatabase, actor: ImportingUser
) -> ImportReport:
    """Import articles, one JSON object per line. Repeating an import changes nothing.

    An invalid record is reported with its line, and the import continues. A limit ends the import.
    If the import takes too long, or the user is disabled meanwhile, it ends with an error that
    contains the number of written records.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != NDJSON:
        raise UnsupportedMediaType(f"Send the records with Content-Type: {NDJSON}")
    tally, deadline = Tally(), Deadline(get_settings().stream_seconds)
    body = deadline.limit(_body(request))
    try:
        records = importing.from_lines(body, user_id=actor.id)
        await importing.import_articles(
            database, records, importer=Importer(actor), report=tally.add
        )
    except importing.ImportStopped as stop:
        tally.stopped = ImportFailure(line=int(stop.position), message=stop.message)
        with suppress(RequestTimedOut, ContentTooLarge):
            async for _ in body:  # clients read the response after sending the whole body
                pass
    except (InvalidToken, RequestTimedOut) as error:
        raise type(error)(f"{error}. The import ended early: {tally.summary()}") from error
    return tally.report()


async def _body(request: Request) -> AsyncIterator[bytes]:
    """Yield the body in chunks. Raises InvalidRequest if the client disconnects."""
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect as error:
        raise InvalidRequest("The request body is incomplete") from error


@router.get(
    "/export",
    response_class=StreamingResponse,
    responses={200: {"description": "Successful Response", "content": RECORDS_CONTENT}},
)
async def export_articles(
    database: CurrentDatabase, user: RequiredArticlesViewer
) -> StreamingResponse:
    """Export your articles, or as an editor all. Drafts are included, the trash is not."""
    return StreamingResponse(
        exporting.export_lines(
            database, viewer=user, deadline=Deadline(get_settings().stream_seconds)
        ),
        media_type=NDJSON,
        headers={
            "Content-Disposition": 'attachment; filename="articles.ndjson"',
            "Cache-Control": "private, no-store",
            "Vary": "Authorization",
        },
    )
