"""The routers of the area studio, in the order in which their routes are matched."""

from fastapi import APIRouter

from app.web.studio import overview

ROUTERS: tuple[APIRouter, ...] = (overview.router,)
