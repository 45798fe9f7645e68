"""My account: API keys."""

from fastapi import Request, Response

from app.core.enums import Scope
from app.core.errors import ApiKeyNotFound
from app.db.dependencies import CurrentDatabase, ReadConnection, WriteSession
from app.schemas.accounts.api_key import ApiKeyCreate
from app.schemas.page import MAX_LIMIT, PageQuery
from app.schemas.types import Id
from app.services.accounts import api_keys
from app.web.forms import SubmittedForm
from app.web.localization import gettext as _
from app.web.localization import mark as N_  # noqa: N812 - the usual name of this function
from app.web.rendering import page
from app.web.routing import create_router, form_page, redirect
from app.web.sessions import PageUser, PageWriteSession

router = create_router()

KEYS = "/studio/account/keys"
SCOPES = {
    Scope.ARTICLES_READ: N_("Read articles, including your drafts"),
    Scope.ARTICLES_WRITE: N_("Create, change and delete articles"),
    Scope.MEDIA_READ: N_("List your pictures"),
    Scope.MEDIA_WRITE: N_("Upload, describe and delete pictures"),
    Scope.USERS_READ: N_("Read users, including your private data"),
    Scope.USERS_WRITE: N_("Change your profile"),
    Scope.ADDRESSES_READ: N_("Read your addresses"),
    Scope.ADDRESSES_WRITE: N_("Add, change and delete your addresses"),
    Scope.COMMUNITY_READ: N_("Read comments, favorites and reports as you"),
    Scope.COMMUNITY_WRITE: N_("Follow, favorite, comment, moderate and report"),
    Scope.WEBHOOKS_READ: N_("List your webhooks and their deliveries"),
    Scope.WEBHOOKS_WRITE: N_("Create, change, test and delete your webhooks"),
}
"""What each scope allows."""


@router.get(KEYS)
async def list_keys(request: Request, reader: ReadConnection, user: PageUser) -> Response:
    """List the keys, and show the form of a new one."""
    listed = await api_keys.list_api_keys(reader, page=PageQuery(limit=MAX_LIMIT), user=user)
    return page(request, "account/keys.html", keys=listed, scopes=SCOPES)


@router.post(KEYS)
async def create_key(
    request: Request,
    form: SubmittedForm,
    session: WriteSession,
    database: CurrentDatabase,
    user: PageUser,
) -> Response:
    """Create a key. Only this page shows it."""
    day = form.text("expires_at")
    new = form.read(
        ApiKeyCreate,
        ("name", "scopes", "password"),
        expires_at=f"{day}T23:59:59Z" if day else None,
    )
    created = await api_keys.create_api_key(session, database=database, new=new, actor=user)
    return page(request, "account/key_created.html", key=created, scopes=SCOPES)


@router.post(KEYS + "/{key_id}/delete")
@form_page(KEYS)
async def delete_key(session: PageWriteSession, user: PageUser, key_id: Id) -> Response:
    """Delete a key; it is refused from then on."""
    try:
        await api_keys.delete_api_key(session, api_key_id=key_id, actor=user)
    except ApiKeyNotFound:
        return redirect(KEYS, flash=_("This key was already deleted."), kind="info")
    return redirect(KEYS, flash=_("The key was deleted. It no longer works."))
