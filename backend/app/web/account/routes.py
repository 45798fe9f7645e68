"""The routers of the area account, in the order in which their routes are matched."""

from fastapi import APIRouter

from app.web.account import (
    addresses,
    data,
    first_start,
    keys,
    language,
    profile,
    recovery,
    registration,
    second_factor,
    sessions,
    sign_in,
)

ROUTERS: tuple[APIRouter, ...] = (
    sign_in.router,
    registration.router,
    recovery.router,
    first_start.router,
    language.router,
    profile.router,
    sessions.router,
    keys.router,
    second_factor.router,
    addresses.router,
    data.router,
)
