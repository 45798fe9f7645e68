"""The media library: pictures, their alternative texts, and where they are used."""

from fastapi import Request, Response
from pydantic import TypeAdapter, ValidationError
from starlette.responses import JSONResponse

from app.auth.permissions import Action, may_on_any
from app.core.conditional import Precondition
from app.core.config import get_settings
from app.core.validation import validation_message
from app.db.dependencies import CurrentDatabase, ReadConnection, WriteSession
from app.schemas.media import Alt, LibraryQuery, MediaUpdate
from app.services.media import library
from app.web.forms import FormError, SubmittedForm
from app.web.localization import gettext as _
from app.web.queries import ObjectId, read_query
from app.web.rendering import page
from app.web.routing import create_router, form_page, redirect
from app.web.sessions import PageUser, PageWriteSession
from app.web.uploads import store_picture

router = create_router()

LIBRARY = "/studio/media"
PAGE_SIZE = 24
_ALT: TypeAdapter[str] = TypeAdapter(Alt)


@router.get(LIBRARY)
async def show_library(request: Request, reader: ReadConnection, user: PageUser) -> Response:
    """Show the user's pictures; editors may see those of all users."""
    query = read_query(request, LibraryQuery, limit=PAGE_SIZE)
    listed = await library.search_media(reader, query=query, user=user)
    return page(
        request,
        "studio/media.html",
        pictures=listed.items,
        uses=await library.count_uses(reader, media=listed.items),
        query=query,
        sees_all=may_on_any(user, Action.MANAGE_MEDIA),
        max_bytes=get_settings().media_max_bytes,
        following=listed.next,
    )


@router.post(LIBRARY)
async def upload(
    request: Request,
    form: SubmittedForm,
    session: WriteSession,
    database: CurrentDatabase,
    user: PageUser,
) -> Response:
    """Store a picture. Scripts that accept JSON get its addresses."""
    file = form.file("file")
    if file is None:
        raise FormError(file=_("Choose a picture"))
    try:
        alt = _ALT.validate_python(form.text("alt"))
    except ValidationError as error:
        raise FormError(alt=validation_message(error.errors()[0])) from error
    media = await store_picture(request, session, database=database, file=file, owner=user, alt=alt)
    if request.headers.get("accept") == "application/json":
        return JSONResponse(media.model_dump(mode="json"), 201, {"Cache-Control": "no-store"})
    return redirect(f"{LIBRARY}/{media.id}", flash=_("The picture was uploaded."))


@router.get("/studio/media/{media_id}")
async def show_picture(
    request: Request, reader: ReadConnection, user: PageUser, media_id: ObjectId
) -> Response:
    """Show a picture, and what uses it."""
    media = await library.get_media(reader, media_id=media_id, user=user)
    articles, by_profile = await library.list_uses(reader, media=media, user=user)
    return page(
        request,
        "studio/media_picture.html",
        picture=media,
        articles=articles,
        by_profile=by_profile,
    )


@router.post("/studio/media/{media_id}")
async def describe(
    form: SubmittedForm, session: PageWriteSession, user: PageUser, media_id: ObjectId
) -> Response:
    """Change the alternative text of a picture."""
    await library.update_media(
        session,
        media_id=media_id,
        changes=form.read(MediaUpdate),
        precondition=Precondition(),
        actor=user,
    )
    return redirect(f"{LIBRARY}/{media_id}", flash=_("The alternative text was saved."))


@router.post("/studio/media/{media_id}/delete")
@form_page("/studio/media/{media_id}")
async def delete(session: PageWriteSession, user: PageUser, media_id: ObjectId) -> Response:
    """Delete a picture that nothing uses."""
    await library.delete_media(session, media_id=media_id, precondition=Precondition(), actor=user)
    return redirect(LIBRARY, flash=_("The picture was deleted."))
