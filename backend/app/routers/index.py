"""/: what this server is, and where its documentation is."""

from fastapi import Response

from app import __version__
from app.routers.responses import create_router
from app.schemas.index import Index

router = create_router(prefix="", tag="index")


@router.get("/")
async def read_index(response: Response) -> Index:
    """Show what this server is, with the paths of its documentation."""
    response.headers["Vary"] = "Accept"  # browsers are redirected to a page (app.web)
    return Index(version=__version__)
