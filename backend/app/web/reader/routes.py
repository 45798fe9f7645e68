"""The routers of the area reader, in the order in which their routes are matched."""

from fastapi import APIRouter

from app.web.reader import articles, comments, lists, search

ROUTERS: tuple[APIRouter, ...] = (
    lists.router,
    search.router,
    comments.router,
    articles.router,
)
