"""The example theme of docs/pages.md."""

import re
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.config import PROJECT_DIR, get_settings
from app.db.session import Database
from app.main import create_app
from tests.factories import create_article, create_user
from tests.web.pages import visit

DOCUMENT = PROJECT_DIR / "docs" / "pages.md"
FILE = re.compile(r"`theme/([\w./]+)`:\n\n```\w+\n(.*?)```", re.DOTALL)

pytestmark = pytest.mark.checkout


@pytest.fixture
def themed(tmp_path: Path, database: Database) -> FastAPI:
    """Return an application with the theme of the document."""
    files = FILE.findall(DOCUMENT.read_text())
    assert len(files) == 2
    for name, content in files:
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_text(content)
    app = create_app(get_settings().model_copy(update={"web_theme_dir": tmp_path}))
    app.state.database = database
    return app


async def test_example_changes_all_pages_of_readers(themed: FastAPI, session: AsyncSession) -> None:
    article = await create_article(session, author=await create_user(session), title="Notes")
    transport = httpx.ASGITransport(themed)
    async with httpx.AsyncClient(transport=transport, base_url="https://testserver") as client:
        for path in ("/read", f"/read/articles/{article.slug}"):
            shown = await visit(client, path)
            assert "Written in Lisbon." in shown.text
            assert "Notes" in shown.text
            sheets = shown.xpath('//link[@rel="stylesheet"]/@href')
            names = [re.sub(r"\.[0-9a-f]{12}\.", ".", each) for each in sheets]
            assert names == ["/static/base.css", "/static/reader.css", "/static/theme.css"]
            assert "#7a2e5d" in (await client.get(sheets[-1])).text
            assert shown.xpath('//link[@rel="canonical"]')
        studio = await visit(client, "/studio/sign-in")
        assert "Lisbon" not in studio.text
