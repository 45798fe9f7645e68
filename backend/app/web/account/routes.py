"""The routers of the area account, in the order in which their routes are matched."""

from fastapi import APIRouter

from app.web.account import sign_in

ROUTERS: tuple[APIRouter, ...] = (sign_in.router,)
