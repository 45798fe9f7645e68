"""What the editor's scripts ask for: suggested tags, and uploads of pictures."""

from fastapi import Request, Response

from app.core.errors import InvalidInput
from app.db.dependencies import CurrentDatabase, ReadConnection, WriteSession
from app.schemas.articles.tag import TagQuery, TagSort
from app.schemas.media import MediaUpdate
from app.services.articles import tags
from app.web.forms import SubmittedForm
from app.web.localization import gettext as _
from app.web.rendering import page
from app.web.routing import create_router, form_page
from app.web.sessions import PageUser
from app.web.uploads import store_picture

router = create_router()

MAX_SUGGESTIONS = 10


@router.get("/studio/articles/tags")
async def suggest_tags(
    request: Request, reader: ReadConnection, user: PageUser, q: str = ""
) -> Response:
    """List tags whose name starts with `q`, the most used first."""
    query = TagQuery(q=q.strip()[:50] or None, sort=TagSort.COUNT, limit=MAX_SUGGESTIONS)
    found = await tags.list_tags(reader, query=query, viewer=user)
    return page(request, "studio/writing/tags.html", tags=found)


@router.post("/studio/articles/pictures")
@form_page("/studio/articles/new")
async def upload_picture(
    request: Request,
    form: SubmittedForm,
    session: WriteSession,
    database: CurrentDatabase,
    user: PageUser,
) -> Response:
    """Store a picture, and return its address for the text."""
    file = form.file("file")
    if file is None or not file.size:
        raise InvalidInput(_("Choose a picture."))
    alt = form.read(MediaUpdate, ("alt",)).alt if form.text("alt") else ""
    picture = await store_picture(
        request, session, database=database, file=file, owner=user, alt=alt
    )
    return page(request, "studio/writing/picture.html", picture=picture)
