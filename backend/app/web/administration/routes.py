"""The routers of the area administration, in the order in which their routes are matched."""

from fastapi import APIRouter

from app.web.administration import imports, keys, operations, tags, users

ROUTERS: tuple[APIRouter, ...] = (
    operations.router,
    users.router,
    keys.router,
    imports.router,
    tags.router,
)
