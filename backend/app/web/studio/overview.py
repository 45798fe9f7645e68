"""The first page of the studio."""

from fastapi import Request, Response

from app.web.rendering import page
from app.web.routing import create_router
from app.web.sessions import PageUser

router = create_router()


@router.get("/studio")
async def show_overview(request: Request, user: PageUser) -> Response:
    """Show what the user may do here."""
    return page(request, "studio/overview.html")
