"""The first page of the studio."""

from typing import NamedTuple

from fastapi import Request, Response

from app.db.dependencies import ReadConnection
from app.services.overview import MAX_COUNTED, count_waiting
from app.web.localization import mark as N_  # noqa: N812 - the usual name of this function
from app.web.rendering import page
from app.web.routing import create_router
from app.web.sessions import PageUser

router = create_router()


class Counted(NamedTuple):
    """What is counted, and the page that shows it."""

    label: str
    path: str


COUNTED = {
    "drafts": Counted(N_("Drafts"), "/studio/articles?status=draft"),
    "scheduled": Counted(N_("Scheduled"), "/studio/articles?status=scheduled"),
    "held": Counted(N_("Held comments"), "/studio/moderation"),
    "reports": Counted(N_("Open reports"), "/studio/moderation/reports"),
    "failed_mails": Counted(N_("Failed mails"), "/studio/admin/mails?state=failed"),
}


@router.get("/studio")
async def show_overview(request: Request, reader: ReadConnection, user: PageUser) -> Response:
    """Show what waits for the user, and what the user may do here."""
    return page(
        request,
        "studio/overview.html",
        numbers=await count_waiting(reader, user=user),
        counted=COUNTED,
        maximum=MAX_COUNTED,
    )
