"""Imports of articles from a file, their progress and their reports."""

from collections.abc import Mapping
from pathlib import PurePath

from fastapi import Request, Response

from app.core.config import get_settings
from app.core.enums import ImportState
from app.core.errors import InvalidInput
from app.db.dependencies import CurrentDatabase
from app.http.middleware import MAX_FORM_IMPORT_BYTES
from app.http.routing import allowed_in_maintenance
from app.schemas.imports import ImportQuery
from app.schemas.page import CursorQuery
from app.services.bulk import imports
from app.services.bulk.runs import ImportRuns
from app.services.media.storage import Storage
from app.web.administration.labels import IMPORT_STATES
from app.web.forms import FormError, SubmittedForm
from app.web.localization import gettext as _
from app.web.queries import ObjectId, read_query
from app.web.rendering import page
from app.web.routing import create_router, form_page, redirect
from app.web.sessions import PageUser, PageWriteSession
from app.web.uploads import chunks

router = create_router()

IMPORTS = "/studio/admin/imports"
PAGE_SIZE = 20
TYPES: Mapping[str, str] = {
    ".ndjson": "application/x-ndjson",
    ".jsonl": "application/x-ndjson",
    ".xml": "application/xml",
    ".json": "application/json",
    ".zip": "application/zip",
}
"""The media type of a file by the end of its name: browsers send different ones."""
UNFINISHED = frozenset({ImportState.RECEIVING, ImportState.RUNNING})


@router.get(IMPORTS)
async def show_imports(request: Request, database: CurrentDatabase, user: PageUser) -> Response:
    """Show the user's imports, and the form for another."""
    query = read_query(request, CursorQuery, limit=PAGE_SIZE)
    listed = await imports.list_imports(database, user=user, query=query)
    return page(
        request,
        "administration/imports.html",
        imports=listed.items,
        states=IMPORT_STATES,
        accept=",".join(TYPES),
        max_bytes=min(get_settings().max_import_bytes, MAX_FORM_IMPORT_BYTES),
        following=listed.next,
    )


@router.post(IMPORTS)
async def import_file(
    request: Request, form: SubmittedForm, database: CurrentDatabase, user: PageUser
) -> Response:
    """Import a file in the background, or check what importing it would change."""
    file = form.file("file")
    if file is None:
        raise FormError(file=_("Choose a file"))
    content_type = TYPES.get(PurePath(file.filename or "").suffix.lower())
    if content_type is None:
        raise FormError(file=_("The name of the file must end with one of .ndjson .xml .json .zip"))
    runs: ImportRuns = request.app.state.imports
    storage: Storage = request.app.state.storage
    try:
        started = await runs.run(
            database,
            storage=storage,
            identity=user,
            content_type=content_type,
            query=form.read(ImportQuery),
            content_length=file.size,
            body=chunks(file),
            waits=False,
        )
    except InvalidInput as error:
        name, _colon, message = str(error).partition(": ")
        if name not in ImportQuery.model_fields:
            raise
        raise FormError(None, **{name: message}) from error
    return redirect(f"{IMPORTS}/{started.id}")


@router.get("/studio/admin/imports/{import_id}")
async def show_import(
    request: Request, database: CurrentDatabase, user: PageUser, import_id: ObjectId
) -> Response:
    """Show the progress or the result of an import."""
    found = await imports.get_import(database, import_id=import_id, user=user)
    return page(
        request,
        "administration/import.html",
        found=found,
        is_running=found.state in UNFINISHED,
        states=IMPORT_STATES,
    )


@router.get("/studio/admin/imports/{import_id}/report")
async def download_report(
    database: CurrentDatabase, user: PageUser, import_id: ObjectId
) -> Response:
    """Return the report on every record, as a file."""
    report = await imports.get_report(database, import_id=import_id, user=user)
    name = f"import-{import_id}.json"
    return Response(
        report,
        media_type="application/json",
        headers={
            "Content-Disposition": f'attachment; filename="{name}"',
            "Cache-Control": "private, no-store",
        },
    )


@router.post("/studio/admin/imports/{import_id}/cancel")
@form_page("/studio/admin/imports/{import_id}")
@allowed_in_maintenance
async def cancel(session: PageWriteSession, user: PageUser, import_id: ObjectId) -> Response:
    """Cancel a running import."""
    await imports.cancel(session, import_id=import_id, actor=user)
    text = _("The import is being cancelled. What it has written stays.")
    return redirect(f"{IMPORTS}/{import_id}", flash=text)
