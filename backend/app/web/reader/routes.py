"""The routers of the area reader, in the order in which their routes are matched."""

from fastapi import APIRouter

ROUTERS: tuple[APIRouter, ...] = ()
