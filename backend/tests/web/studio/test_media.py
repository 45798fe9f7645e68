"""The media library."""

from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import clock
from app.core.enums import Role
from app.models import ArticleMedia, Media
from app.services.media.storage import LocalStorage
from tests.factories import create_article, create_media, create_user
from tests.images import image_bytes
from tests.web.conftest import SignIn
from tests.web.pages import HOSTILE, no_markup, visit

LIBRARY = "/studio/media"
SAME_ORIGIN = {"Origin": "https://testserver", "Sec-Fetch-Site": "same-origin"}


@pytest.fixture(autouse=True)
def storage(app: FastAPI, tmp_path: Path) -> LocalStorage:
    storage = LocalStorage(tmp_path)
    app.state.storage = storage
    return storage


async def test_upload_describe_and_delete(
    pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession
) -> None:
    user = await create_user(session)
    await sign_in(user)
    shown = await visit(pages, LIBRARY)
    assert "No pictures found" in shown.text
    picture = ("a.jpg", image_bytes(), "image/jpeg")
    stored = await shown.submit(
        pages, form="#upload", files={"file": picture}, alt=f"A loom {HOSTILE}"
    )
    assert stored.flash == ["The picture was uploaded."]
    no_markup(stored)
    no_markup(await visit(pages, LIBRARY))
    media = (await session.scalars(select(Media))).one()
    assert (media.owner_id, media.alt) == (user.id, f"A loom {HOSTILE}")
    assert stored.path == f"{LIBRARY}/{media.id}"

    described = await stored.submit(pages, form="#describe", alt="Another loom")
    assert described.flash == ["The alternative text was saved."]
    too_long = await described.submit(pages, form="#describe", alt="x" * 501)
    assert too_long.status == 422
    assert "alt" in too_long.errors
    found = await visit(pages, f"{LIBRARY}?q=LOOM")
    assert len(found.xpath('//ul[@class="pictures"]/li')) == 1
    assert "No pictures found" in (await visit(pages, f"{LIBRARY}?without_alt=true")).text

    deleted = await described.submit(pages, form=f"{LIBRARY}/{media.id}/delete")
    assert deleted.flash == ["The picture was deleted."]
    await visit(pages, f"{LIBRARY}/{media.id}", status=404)


async def test_refused_uploads(
    pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession
) -> None:
    await sign_in(await create_user(session))
    shown = await visit(pages, LIBRARY)
    nothing = await shown.submit(pages, form="#upload", alt="kept")
    assert nothing.errors == {"file": "Choose a picture"}
    assert nothing.form("#upload").fields["alt"] == "kept"
    text = await shown.submit(
        pages, form="#upload", files={"file": ("a.html", b"<script>", "text/html")}
    )
    assert text.status == 422
    assert list(text.errors) == ["file"]
    large = await shown.submit(
        pages, form="#upload", files={"file": ("a.jpg", image_bytes(), "")}, alt="x" * 501
    )
    assert list(large.errors) == ["alt"]
    assert (await session.scalars(select(Media))).all() == []


async def test_script_gets_json(
    pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession
) -> None:
    await sign_in(await create_user(session))
    shown = await visit(pages, LIBRARY)
    token = shown.xpath('//meta[@name="csrf-token"]/@content')[0]
    response = await pages.post(
        LIBRARY,
        data={"alt": "A loom"},
        files={"file": ("a.png", image_bytes("PNG"), "image/png")},
        headers={**SAME_ORIGIN, "Accept": "application/json", "X-CSRF-Token": token},
    )
    assert response.status_code == 201
    assert response.headers["cache-control"] == "no-store"
    assert response.json()["alt"] == "A loom"


async def test_uses_of_a_picture(
    pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession
) -> None:
    owner, other = await create_user(session), await create_user(session)
    media = await create_media(session, owner=owner)
    draft = await create_article(session, author=owner, title=HOSTILE, published=False)
    foreign = await create_article(session, author=other, title="Foreign draft", published=False)
    public = await create_article(session, author=other, title="Public article")
    later = clock.now() + timedelta(days=1)
    scheduled = await create_article(
        session, author=other, title="Scheduled secret", published_at=later
    )
    for article in (draft, foreign, public, scheduled):
        session.add(ArticleMedia(article_id=article.id, media_id=media.id))
    await session.flush()
    await sign_in(owner)
    assert "used 3 times" in (await visit(pages, LIBRARY)).text  # others' drafts do not count
    shown = await visit(pages, f"{LIBRARY}/{media.id}")
    no_markup(shown)
    assert "Public article" in shown.text
    assert "Foreign draft" not in shown.text
    assert "Scheduled secret" not in shown.text
    assert "an article that you cannot see" in shown.text
    token = shown.xpath('//meta[@name="csrf-token"]/@content')[0]
    refused = await pages.post(
        f"{LIBRARY}/{media.id}/delete", data={"csrf_token": token}, headers=SAME_ORIGIN
    )
    assert refused.status_code == 409
    assert "uses this image" in refused.text


async def test_foreign_pictures(
    pages: httpx.AsyncClient, sign_in: SignIn, session: AsyncSession
) -> None:
    owner = await create_user(session)
    media = await create_media(session, owner=owner)
    await sign_in(await create_user(session))
    await visit(pages, f"{LIBRARY}/{media.id}", status=404)
    await visit(pages, f"{LIBRARY}?everyone=true", status=403)
    await visit(pages, f"{LIBRARY}?owner={owner.id}", status=403)
    await sign_in(await create_user(session, role=Role.EDITOR))
    assert "No pictures found" in (await visit(pages, LIBRARY)).text
    for query in ("everyone=true", f"owner={owner.id}"):
        shown = await visit(pages, f"{LIBRARY}?{query}")
        assert len(shown.xpath('//ul[@class="pictures"]/li')) == 1
    await visit(pages, f"{LIBRARY}/{media.id}")
