"""/articles/import, /articles/imports and /articles/export: bulk import and export."""

import re
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any

from fastapi import Depends, Header, Query, Request, Response, Security, status
from starlette.requests import ClientDisconnect

from app.auth.dependencies import (
    ArticlesActor,
    RequiredArticlesViewer,
    RequiredArticlesWriter,
    confirming_user,
)
from app.auth.identity import Identity
from app.core.config import get_settings
from app.core.enums import ExportFormat, ImportState, Scope
from app.core.errors import (
    ImportInProgress,
    ImportNotFound,
    InvalidRequest,
    LimitReached,
    RequestTimedOut,
    UnsupportedMediaType,
)
from app.core.streams import Deadline
from app.db.dependencies import CurrentDatabase, WriteSession
from app.http.headers import described
from app.http.routing import allowed_in_maintenance
from app.http.streaming import StreamedFile
from app.routers.media.media import CurrentStorage
from app.routers.paging import Paging
from app.routers.parameters import CursorPage, ImportId
from app.routers.responses import create_router, errors
from app.schemas.imports import ImportQuery, ImportResponse
from app.services.bulk import exporting, imports
from app.services.bulk.runs import ImportRuns

router = create_router(prefix="/articles", tag="bulk")

NDJSON = "application/x-ndjson"
_BINARY = {"type": "string", "format": "binary"}
RECORDS_SCHEMA = {**_BINARY, "description": "One ArticleRecord per line, as JSON"}
RECORDS_CONTENT = {NDJSON: {"schema": RECORDS_SCHEMA}}
IMPORT_CONTENT: dict[str, Any] = {
    **RECORDS_CONTENT,
    "application/xml": {"schema": {**_BINARY, "description": "An export of WordPress (WXR)"}},
    "application/json": {"schema": {"type": "object", "description": "An export of Ghost"}},
    "application/zip": {
        "schema": {**_BINARY, "description": "A folder of texts with front matter, as a ZIP file"}
    },
}
EXPORT_CONTENT: dict[str, Any] = {
    **RECORDS_CONTENT,
    "application/zip": {"schema": _BINARY},
    "application/json": {"schema": {"type": "object", "description": "A file for Ghost"}},
}
EXPORT_FILES = {
    ExportFormat.NDJSON: (NDJSON, "articles.ndjson"),
    ExportFormat.MARKDOWN: ("application/zip", "articles.zip"),
    ExportFormat.GHOST: ("application/json", "articles-for-ghost.json"),
}
UNFINISHED = frozenset({ImportState.RECEIVING, ImportState.RUNNING})
_RESPOND_ASYNC = re.compile(r"(^|,)\s*respond-async\s*(;|,|$)", re.IGNORECASE)

ImportingUser = Annotated[Identity, Security(confirming_user, scopes=[Scope.ARTICLES_WRITE])]
"""The importing user, read before the body is received, which may take hours."""
Preference = Annotated[
    str | None,
    Header(
        alias="Prefer",
        max_length=200,
        description="`respond-async`: respond when the body is received (RFC 7240 §4.1)",
    ),
]


async def get_runs(request: Request) -> ImportRuns:
    """Return the running imports. Async, so that FastAPI does not run it in a thread."""
    runs: ImportRuns = request.app.state.imports
    return runs


CurrentRuns = Annotated[ImportRuns, Depends(get_runs)]


@router.post(
    "/import",
    responses={
        200: {
            "description": "The import has ended",
            "headers": described("Location", "Preference-Applied"),
        },
        202: {
            "description": "The import is running. Its Location has the progress",
            "model": ImportResponse,
            "headers": described("Location", "Preference-Applied", "Retry-After"),
        },
        **errors(RequestTimedOut, UnsupportedMediaType, ImportInProgress, LimitReached),
    },
    openapi_extra={"requestBody": {"required": True, "content": IMPORT_CONTENT}},
)
async def import_articles(
    *,
    request: Request,
    response: Response,
    database: CurrentDatabase,
    storage: CurrentStorage,
    runs: CurrentRuns,
    actor: ImportingUser,
    query: Annotated[ImportQuery, Query()],
    prefer: Preference = None,
) -> ImportResponse:
    """Import articles: NDJSON, an export of WordPress or Ghost, or texts in a ZIP file.

    The import runs in the background. If it ends within ten seconds, the response has its result.
    Otherwise the status is 202: read the import at its Location until it has ended.

    Repeating an import changes nothing. An invalid record is reported, and the import continues.
    """
    length = request.headers.get("content-length")
    is_async = prefer is not None and _RESPOND_ASYNC.search(prefer) is not None
    found = await runs.run(
        database,
        storage=storage,
        identity=actor,
        content_type=request.headers.get("content-type", "").partition(";")[0].strip().lower(),
        query=query,
        content_length=None if length is None else int(length),
        body=_body(request),
        waits=not is_async,
    )
    response.headers["Location"] = f"/articles/imports/{found.id}"
    if is_async:
        response.headers["Preference-Applied"] = "respond-async"
    if found.state in UNFINISHED:
        response.status_code = status.HTTP_202_ACCEPTED
        response.headers["Retry-After"] = "1"
    return found


async def _body(request: Request) -> AsyncIterator[bytes]:
    """Yield the body in chunks. Raises InvalidRequest if the client disconnects."""
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect as error:
        raise InvalidRequest("The request body is incomplete") from error


@router.get("/imports")
async def list_imports(
    database: CurrentDatabase, user: RequiredArticlesWriter, query: CursorPage, paging: Paging
) -> Sequence[ImportResponse]:
    """List your imports, newest first. The last 20 are kept for 30 days."""
    return paging.describe(await imports.list_imports(database, user=user, query=query))


@router.get("/imports/{import_id}", responses=errors(ImportNotFound))
async def get_import(
    database: CurrentDatabase, user: RequiredArticlesWriter, import_id: ImportId
) -> ImportResponse:
    """Get one of your imports, with its progress."""
    return await imports.get_import(database, import_id=import_id, user=user)


@router.get(
    "/imports/{import_id}/report",
    response_class=Response,
    responses={
        200: {
            "description": "The report, as `pressroom import --report` writes it",
            "headers": described("ETag"),
            "content": {"application/json": {"schema": {"type": "object"}}},
        },
        **errors(ImportNotFound, ImportInProgress),
    },
)
async def get_import_report(
    database: CurrentDatabase, user: RequiredArticlesWriter, import_id: ImportId
) -> Response:
    """Get the report on every record of one of your imports."""
    report = await imports.get_report(database, import_id=import_id, user=user)
    return Response(report, media_type="application/json")


@router.post("/imports/{import_id}/cancel", responses=errors(ImportNotFound, LimitReached))
@allowed_in_maintenance
async def cancel_import(
    session: WriteSession, actor: ArticlesActor, import_id: ImportId
) -> ImportResponse:
    """Cancel a running import. What it has written stays. A finished one stays as it is."""
    return await imports.cancel(session, import_id=import_id, actor=actor)


@router.get(
    "/export",
    response_class=StreamedFile,
    responses={200: {"description": "Successful Response", "content": EXPORT_CONTENT}},
)
async def export_articles(
    database: CurrentDatabase,
    user: RequiredArticlesViewer,
    export_format: Annotated[ExportFormat, Query(alias="format")] = ExportFormat.NDJSON,
) -> StreamedFile:
    """Export your articles, or as an editor all. Drafts are included, the trash is not.

    NDJSON has everything that an article has. The other formats say what they do not contain: a ZIP
    file of Markdown in README.txt, a file for Ghost in `db[0].meta.not_exported`.
    """
    media_type, name = EXPORT_FILES[export_format]
    parts = await exporting.start_export(
        database,
        viewer=user,
        export_format=export_format,
        deadline=Deadline(get_settings().stream_seconds),
    )
    return StreamedFile(
        parts,
        media_type=media_type,
        headers={
            "Content-Disposition": f'attachment; filename="{name}"',
            "Cache-Control": "private, no-store",
            "Vary": "Authorization",
        },
    )
