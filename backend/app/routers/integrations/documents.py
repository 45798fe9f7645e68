"""Documents for agents: articles as Markdown files, and /llms.txt."""

from typing import Annotated

from fastapi import Path, Response
from pydantic import StringConstraints

from app.auth.dependencies import ArticlesViewer
from app.core.conditional import entity_tag
from app.core.errors import ArticleNotFound
from app.db.dependencies import ReadConnection
from app.http.caching import public
from app.http.headers import described
from app.http.negotiation import MARKDOWN_CONTENT, markdown_response
from app.routers.responses import create_router, errors
from app.schemas.types import STORABLE_PATTERN
from app.services.articles.documents import read_document
from app.services.integrations import llms

MAX_AGE_SECONDS = 300

DocumentSlug = Annotated[
    str,
    Path(description="The article's slug or a former one", examples=["notes-on-engines"]),
    StringConstraints(max_length=100, pattern=STORABLE_PATTERN),
]

router = create_router(prefix="", tag="agents")


@router.get(
    "/articles/{slug}.md",
    response_class=Response,
    responses={
        200: {"headers": described("ETag"), "content": MARKDOWN_CONTENT},
        **errors(ArticleNotFound),
    },
)
async def read_article_document(
    reader: ReadConnection, viewer: ArticlesViewer, slug: DocumentSlug
) -> Response:
    """Return an article as a Markdown file with front matter, which imports accept."""
    return markdown_response(await read_document(reader, slug=slug, viewer=viewer))


@router.get(
    "/llms.txt",
    response_class=Response,
    responses={
        200: {
            "headers": described("ETag", "Cache-Control"),
            "content": {"text/plain": {"schema": {"type": "string"}}},
        }
    },
)
async def read_llms_txt(reader: ReadConnection) -> Response:
    """Return an index of the site for language models."""
    body = await llms.write_index(reader)
    headers = {"Cache-Control": public(MAX_AGE_SECONDS), "ETag": entity_tag(body)}
    return Response(body, headers=headers, media_type="text/plain")
