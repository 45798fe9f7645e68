"""My account: export of own data, and deletion of the account."""

from fastapi import Request, Response

from app.auth.permissions import Action, may_on_any
from app.core.conditional import Precondition
from app.core.config import get_settings
from app.core.enums import ExportFormat
from app.core.streams import Deadline
from app.db.dependencies import CurrentDatabase, ReadConnection, WriteSession
from app.http.routing import allowed_in_maintenance
from app.http.streaming import StreamedFile
from app.schemas.accounts.own_data import OwnDataRequest
from app.schemas.accounts.user import ArticlesOfDeleted, UserDeletion, UserDeletionQuery
from app.services.accounts import own_data, second_factor, users
from app.services.bulk import exporting
from app.web.account.registration import SIGN_IN
from app.web.forms import SubmittedForm
from app.web.localization import gettext as _
from app.web.rendering import PRIVATE, page
from app.web.routing import create_router, redirect
from app.web.sessions import PageUser, delete_session_cookie

router = create_router()

DATA = "/studio/account/data"
DELETE = "/studio/account/delete"
FILES = {
    ExportFormat.NDJSON: ("application/x-ndjson", "articles.ndjson"),
    ExportFormat.MARKDOWN: ("application/zip", "articles.zip"),
    ExportFormat.GHOST: ("application/json", "articles-for-ghost.json"),
}
"""Media type and name of the file of each format."""


@router.get(DATA)
async def show_data(request: Request, reader: ReadConnection, user: PageUser) -> Response:
    """Show the downloads. That of the account asks for the password."""
    factor = await second_factor.read_second_factor(reader, user=user)
    return page(request, "account/data.html", needs_code=factor.enabled)


@router.post(DATA)
@allowed_in_maintenance
async def download_account(
    form: SubmittedForm, database: CurrentDatabase, user: PageUser
) -> Response:
    """Return the account's data as a file."""
    parts = await own_data.export_account(
        database,
        user=user,
        confirmation=form.read(OwnDataRequest),
        deadline=Deadline(get_settings().stream_seconds),
    )
    return StreamedFile(parts, media_type="application/zip", headers=_download("account.zip"))


@router.get(DATA + "/articles/{export_format}")
async def download_articles(
    database: CurrentDatabase, user: PageUser, export_format: ExportFormat
) -> Response:
    """Return the articles that the user may change as a file."""
    media_type, name = FILES[export_format]
    parts = await exporting.start_export(
        database,
        viewer=user,
        export_format=export_format,
        deadline=Deadline(get_settings().stream_seconds),
    )
    return StreamedFile(parts, media_type=media_type, headers=_download(name))


def _download(name: str) -> dict[str, str]:
    return {
        "Content-Disposition": f'attachment; filename="{name}"',
        "Cache-Control": PRIVATE,
        "X-Content-Type-Options": "nosniff",
    }


@router.get(DELETE)
async def show_deletion(request: Request, reader: ReadConnection, user: PageUser) -> Response:
    """Ask for the password, and what happens to the articles."""
    factor = await second_factor.read_second_factor(reader, user=user)
    return page(
        request,
        "account/delete.html",
        needs_code=factor.enabled,
        may_reassign=may_on_any(user, Action.IMPORT_ARTICLE),
    )


@router.post(DELETE)
async def delete_account(
    form: SubmittedForm, session: WriteSession, database: CurrentDatabase, user: PageUser
) -> Response:
    """Delete the account."""
    reassigns = form.text("articles") == ArticlesOfDeleted.REASSIGN
    query = form.read(UserDeletionQuery, ("articles", "to") if reassigns else ("articles",))
    await users.delete_user(
        session,
        database=database,
        user_id=user.id,
        query=query,
        confirmation=form.read(UserDeletion),
        actor=user,
        precondition=Precondition(),
    )
    response = redirect(SIGN_IN, flash=_("Your account was deleted."), kind="info")
    delete_session_cookie(response)
    # "storage" also deletes texts that were not saved. They have no owner any more.
    response.headers["Clear-Site-Data"] = '"cache", "storage"'
    return response
