"""The routers of the area studio, in the order in which their routes are matched."""

from fastapi import APIRouter

from app.web.studio import calendar, overview
from app.web.studio.writing import assistance, editing, history, listing, sharing, trash

ROUTERS: tuple[APIRouter, ...] = (
    overview.router,
    listing.router,
    assistance.router,
    editing.router,
    history.router,
    sharing.router,
    trash.router,
    calendar.router,
)
