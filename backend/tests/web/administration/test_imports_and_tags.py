"""Pages for imports and tags."""

import json

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.enums import ImportState, Role
from app.models import Article, Tag
from app.models.bulk import Import
from tests.factories import create_article, create_import, create_user
from tests.web.conftest import SignIn
from tests.web.pages import HOSTILE, no_markup, visit

IMPORTS = "/studio/admin/imports"
TAGS = "/studio/admin/tags"


async def test_another_user_has_no_access_to_an_import(
    pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession
) -> None:
    owner = await create_user(session)
    summary = {"remarks": [HOSTILE], "errors": [{"line": HOSTILE, "message": HOSTILE}]}
    found = await create_import(session, user=owner, source=HOSTILE, summary=summary, report="{}")
    path = f"{IMPORTS}/{found.id}"
    await sign_in(owner)
    no_markup(await visit(pages, path))
    no_markup(await visit(pages, IMPORTS))
    report = await pages.get(f"{path}/report")
    assert report.headers["content-disposition"] == f'attachment; filename="import-{found.id}.json"'
    await sign_in(await create_user(session, role=Role.ADMIN))
    await visit(pages, path, status=404)
    await visit(pages, f"{path}/report", status=404)
    assert "not imported anything" in (await visit(pages, IMPORTS)).text


async def test_running_import_is_cancelled(
    pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession
) -> None:
    user = await create_user(session)
    running = await create_import(
        session, user=user, state=ImportState.RUNNING, finished_at=None, progress=0.4
    )
    await sign_in(user)
    shown = await visit(pages, f"{IMPORTS}/{running.id}")
    assert shown.xpath("//progress/@value") == ["0.4"]
    assert shown.xpath('//*[@id="import-state"]/@data-running')
    await visit(pages, f"{IMPORTS}/{running.id}/report", status=409)
    cancelled = await shown.submit(pages, form=f"{IMPORTS}/{running.id}/cancel")
    assert cancelled.flash == ["The import is being cancelled. What it has written stays."]
    await session.refresh(running)
    assert running.state == ImportState.CANCELLED


async def test_refused_files(
    pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession
) -> None:
    await sign_in(await create_user(session))
    shown = await visit(pages, IMPORTS)
    nothing = await shown.submit(pages, form="#import")
    assert nothing.errors == {"file": "Choose a file"}
    word = await shown.submit(pages, form="#import", files={"file": ("a.doc", b"x", "text/xml")})
    assert list(word.errors) == ["file"]
    archive = await shown.submit(pages, form="#import", files={"file": ("a.zip", b"x", "")})
    assert archive.errors == {"source": "a ZIP file needs a name for its source"}
    zone = await shown.submit(
        pages, form="#import", files={"file": ("a.ndjson", b"{}", "")}, timezone="Mars"
    )
    assert list(zone.errors) == ["timezone"]
    assert (await session.scalars(select(Import))).all() == []


@pytest.mark.parametrize("dry_run", [True, False])
async def test_import(
    pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession, dry_run: bool
) -> None:
    user = await create_user(session)
    await sign_in(user)
    record = {"title": "On looms", "content": "Text.", "source_id": "1"}
    shown = await visit(pages, IMPORTS)
    started = await shown.submit(
        pages,
        form="#import",
        files={"file": ("a.ndjson", json.dumps(record).encode(), "text/plain")},
        dry_run="1" if dry_run else None,
    )
    assert started.path.startswith(f"{IMPORTS}/")
    while started.xpath('//*[@id="import-state"]/@data-running'):
        started = await visit(pages, started.path)
    assert "Completed" in started.text
    titles = list(await session.scalars(select(Article.title)))
    assert titles == ([] if dry_run else ["On looms"])
    assert ("only a check" in started.text) is dry_run


async def test_rename_merge_and_delete_tags(
    pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession
) -> None:
    editor = await create_user(session, role=Role.EDITOR)
    hostile = "<b>x</b>{{ 7*7 }}"
    await create_article(session, author=editor, tags=["Looms", hostile])
    await create_article(session, author=editor, tags=["Weaving"])
    await sign_in(editor)
    listed = await visit(pages, TAGS)
    no_markup(listed, hostile)
    assert len(listed.xpath("//tbody/tr")) == 3
    assert len((await visit(pages, f"{TAGS}?q=loo&sort=count")).xpath("//tbody/tr")) == 1
    shown = await visit(pages, f"{TAGS}/looms")
    renamed = await shown.submit(pages, form="#rename", name="Power looms")
    assert renamed.flash == ["The tag was saved."]
    assert renamed.path == f"{TAGS}/power-looms"
    empty = await renamed.submit(pages, form="#rename", name=" ")
    assert list(empty.errors) == ["name"]
    asked = await renamed.submit(pages, form="#rename", name="weaving")
    assert asked.status == 422
    assert list(asked.errors) == ["merge"]
    assert len((await session.scalars(select(Tag))).all()) == 3
    merged = await asked.submit(pages, form="#rename", merge="1")
    assert merged.flash == ["The tags were merged."]
    assert merged.path == f"{TAGS}/weaving"
    gone = await merged.submit(pages, form=f"{TAGS}/weaving/delete")
    assert gone.flash == ["The tag was removed from all articles."]
    assert len((await session.scalars(select(Tag))).all()) == 1
