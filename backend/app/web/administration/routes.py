"""The routers of the area administration, in the order in which their routes are matched."""

from fastapi import APIRouter

ROUTERS: tuple[APIRouter, ...] = ()
