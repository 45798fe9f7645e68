"""The routers of the area studio, in the order in which their routes are matched."""

from fastapi import APIRouter

from app.web.studio import media, moderation, overview

ROUTERS: tuple[APIRouter, ...] = (
    overview.router,
    moderation.router,
    media.router,
)
