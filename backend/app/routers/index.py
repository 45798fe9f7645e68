"""/: what this server is, and where its documentation is."""

from app import __version__
from app.routers.responses import create_router
from app.schemas.index import Index

router = create_router(prefix="", tag="index")


@router.get("/")
async def read_index() -> Index:
    """Show what this server is, with the paths of its documentation."""
    return Index(version=__version__)
