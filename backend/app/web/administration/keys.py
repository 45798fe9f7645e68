"""API keys of all users."""

from fastapi import Request, Response

from app.db.dependencies import ReadConnection
from app.schemas.accounts.api_key import ApiKeyQuery
from app.services.accounts import api_keys
from app.web.administration.access import Administrator
from app.web.forms import SubmittedForm
from app.web.localization import gettext as _
from app.web.queries import ObjectId, read_query
from app.web.rendering import page
from app.web.routing import create_router, form_page, local_path, redirect
from app.web.sessions import PageWriteSession

router = create_router()

KEYS = "/studio/admin/keys"
PAGE_SIZE = 50


@router.get(KEYS)
async def list_keys(request: Request, reader: ReadConnection, user: Administrator) -> Response:
    """List the keys of all users, or of one."""
    query = read_query(request, ApiKeyQuery, limit=PAGE_SIZE)
    listed = await api_keys.list_all_api_keys(reader, query=query, user=user)
    return page(
        request,
        "administration/keys.html",
        keys=listed.items,
        query=query,
        following=listed.next,
    )


@router.post("/studio/admin/keys/{key_id}/delete")
@form_page(KEYS)
async def delete_key(
    form: SubmittedForm, session: PageWriteSession, user: Administrator, key_id: ObjectId
) -> Response:
    """Delete a key of any user."""
    await api_keys.revoke_api_key(session, api_key_id=key_id, actor=user)
    path = local_path(form.text("next"), KEYS)
    return redirect(path, flash=_("The key was deleted. It is refused from now on."))
