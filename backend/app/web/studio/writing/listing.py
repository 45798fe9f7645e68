"""The list of articles, with filters."""

from fastapi import Request, Response

from app.auth.permissions import Action, may_on_any
from app.db.dependencies import ReadConnection
from app.schemas.articles.article import ArticleQuery, Status
from app.services.articles import listing
from app.web.localization import mark as N_  # noqa: N812 - the usual name of this function
from app.web.rendering import page
from app.web.routing import create_router
from app.web.sessions import PageUser

router = create_router()

EVERYONE = "*"
FIELDS = (
    "id,title,slug,excerpt,tags,status,published_at,word_count,comments_count,"
    "created_at,updated_at,author"
)
STATES = {
    Status.DRAFT: N_("Drafts"),
    Status.SCHEDULED: N_("Scheduled"),
    Status.PUBLISHED: N_("Published"),
    Status.ARCHIVED: N_("Archived"),
}


@router.get("/studio/articles")
async def list_articles(
    *,
    request: Request,
    reader: ReadConnection,
    user: PageUser,
    status: str = "",
    q: str = "",
    tag: str = "",
    author: str = "",
    sort: str = "updated",
    cursor: str = "",
) -> Response:
    """List the user's articles; editors can choose those of another author, or all."""
    sees_all = may_on_any(user, Action.READ_DRAFT)
    author = author if sees_all and author else user.username
    filters = {
        "status": status,
        "q": q.strip(),
        "tag": [tag] if tag else [],
        "author": "" if author == EVERYONE else author,
        "sort": "" if q.strip() and sort == "updated" else sort,
        "cursor": cursor,
    }
    query = ArticleQuery.model_validate(
        {"fields": FIELDS, "count": True, **{name: each for name, each in filters.items() if each}}
    )
    found = await listing.list_articles(reader, query=query, viewer=user)
    return page(
        request,
        "studio/writing/list.html",
        articles=found,
        states=STATES,
        chosen=status,
        q=q,
        tag=tag,
        author=author,
        sort=sort,
        sees_all=sees_all,
        is_filtered=bool(q or tag or status),
    )
