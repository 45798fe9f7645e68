"""My account: profile, email, password, sessions, keys, addresses, data and deletion."""

import json
from io import BytesIO
from typing import Any
from zipfile import ZipFile

import httpx
import pytest
from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.enums import Role
from app.models import Address, ApiKey, Article, User, UserSession
from tests.factories import (
    PASSWORD,
    create_address,
    create_api_key,
    create_article,
    create_comment,
    create_session,
    create_user,
)
from tests.images import image_bytes
from tests.inbox import Inbox
from tests.web.conftest import SignIn
from tests.web.pages import HOSTILE, no_markup, visit

ORIGIN = {"Origin": "https://testserver", "Sec-Fetch-Site": "same-origin"}
NEW_PASSWORD = "another good passphrase"
ADDRESS: dict[str, Any] = {
    "label": "home",
    "line1": "12 St James's Square",
    "city": "London",
    "country": "GB",
}


async def test_profile(pages: httpx.AsyncClient, user: User, session: AsyncSession) -> None:
    form = await visit(pages, "/studio/account")
    shown = await form.submit(pages, form="#profile", name="Ada King", username="ada.king", bio="I")
    assert (shown.path, shown.flash) == ("/studio/account", ["Your profile was saved."])
    await session.refresh(user)
    assert (user.name, user.username, user.bio) == ("Ada King", "ada.king", "I")


async def test_refused_profile(pages: httpx.AsyncClient, user: User, session: AsyncSession) -> None:
    await create_user(session, username="taken")
    form = await visit(pages, "/studio/account")
    refused = await form.submit(pages, form="#profile", username="taken", name=HOSTILE[:100])
    assert (refused.status, list(refused.errors)) == (409, ["username"])
    assert refused.form("#profile").fields["name"] == HOSTILE[:100]
    no_markup(refused, HOSTILE[:100])
    long = await refused.submit(pages, form="#profile", username="free", name="x" * 101)
    assert long.errors == {"name": "Use at most 100 characters."}


async def test_hostile_profile_is_escaped(
    pages: httpx.AsyncClient, user: User, session: AsyncSession
) -> None:
    await session.execute(
        update(User).where(User.id == user.id).values(name=HOSTILE, bio=f"</textarea>{HOSTILE}")
    )
    shown = await visit(pages, "/studio/account")
    no_markup(shown)
    assert not shown.xpath("//textarea/*")


async def test_picture(pages: httpx.AsyncClient, user: User, session: AsyncSession) -> None:
    form = await visit(pages, "/studio/account")
    none = await form.submit(pages, form="#picture-form")
    assert none.errors == {"picture": "Choose a picture."}
    text = await form.submit(
        pages, form="#picture-form", files={"picture": ("a.jpg", b"no picture", "image/jpeg")}
    )
    assert (text.status, list(text.errors)) == (422, ["picture"])
    shown = await form.submit(
        pages, form="#picture-form", files={"picture": ("a.jpg", image_bytes(), "image/jpeg")}
    )
    assert shown.flash == ["Your picture was saved."]
    await session.refresh(user)
    assert shown.xpath("//main//img/@src") == [user.image_url]
    removed = await shown.submit(pages, form="/studio/account/picture/remove")
    assert removed.flash == ["Your picture was removed."]
    await session.refresh(user)
    assert user.image_url is None


async def test_email_change(pages: httpx.AsyncClient, user: User, inbox: Inbox) -> None:
    form = await visit(pages, "/studio/account/email")
    refused = await form.submit(pages, email="new@example.com", password="incorrect")
    assert (refused.status, list(refused.errors)) == (403, ["password"])
    shown = await refused.submit(pages, form="#email-form", password=PASSWORD)
    assert "sent a mail" in shown.flash[0]
    confirm = await visit(pages, "/studio/verify-email")
    done = await confirm.submit(pages, token=await inbox.token())
    assert done.path == "/studio/account/email"
    assert "new@example.com" in done.text


async def test_unverified_email_can_be_verified(
    pages: httpx.AsyncClient, session: AsyncSession, inbox: Inbox, sign_in: SignIn
) -> None:
    await sign_in(await create_user(session))
    shown = await visit(pages, "/studio/account/email")
    assert "not confirmed" in shown.text
    sent = await shown.submit(pages, form="/studio/account/email/verify")
    assert "sent you a mail" in sent.flash[0]
    confirm = await visit(pages, "/studio/verify-email")
    done = await confirm.submit(pages, token=await inbox.token())
    assert "not confirmed" not in done.text


async def test_password_change_ends_other_sessions(
    pages: httpx.AsyncClient, user: User, session: AsyncSession
) -> None:
    assert await _active_sessions(session, user) == 2
    form = await visit(pages, "/studio/account/password")
    refused = await form.submit(pages, current_password="incorrect", new_password=NEW_PASSWORD)
    assert list(refused.errors) == ["current_password"]
    short = await form.submit(pages, current_password=PASSWORD, new_password="short")
    assert list(short.errors) == ["new_password"]
    shown = await form.submit(pages, current_password=PASSWORD, new_password=NEW_PASSWORD)
    assert "was changed" in shown.flash[0]
    assert await _active_sessions(session, user) == 1


async def _active_sessions(session: AsyncSession, user: User) -> int:
    query = select(func.count()).where(
        UserSession.user_id == user.id, UserSession.revoked_at.is_(None)
    )
    return await session.scalar(query) or 0


async def test_sessions(pages: httpx.AsyncClient, user: User, session: AsyncSession) -> None:
    first = await create_session(session, user=user)  # beside those of the factory and the page
    shown = await visit(pages, "/studio/account/sessions")
    assert len(shown.xpath('//li[contains(@class, "card")]')) == 3
    ended = await shown.submit(pages, form=f"/studio/account/sessions/{first.id}/end")
    assert ended.flash == ["The session has ended."]
    again = await shown.submit(pages, form=f"/studio/account/sessions/{first.id}/end")
    assert again.flash == ["This session has already ended."]
    others = await shown.submit(pages, form="/studio/account/sessions/others/end")
    assert others.flash == ["All other sessions have ended."]
    assert await _active_sessions(session, user) == 1
    out = await others.submit(pages, form="/studio/account/sessions/all/end")
    assert (out.path, out.flash) == ("/studio/sign-in", ["You have signed out everywhere."])
    assert await _active_sessions(session, user) == 0


@pytest.mark.parametrize(
    ("agent", "shown"),
    [
        (
            "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0 Safari/537.36",
            "Chrome on Linux",
        ),
        ("Mozilla/5.0 (Windows NT 10.0) Gecko/20100101 Firefox/150.0", "Firefox on Windows"),
        ("Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) Safari/604.1", "Safari on iOS"),
        ("curl/8.9.1", "curl"),
        ("", "Unknown program"),
        (HOSTILE, HOSTILE.partition("/")[0]),
    ],
)
async def test_programs_of_sessions(
    pages: httpx.AsyncClient, user: User, session: AsyncSession, agent: str, shown: str
) -> None:
    await session.execute(update(UserSession).values(user_agent=agent))
    page = await visit(pages, "/studio/account/sessions")
    assert page.xpath('//li[contains(@class, "card")]//strong/text()')[0] == shown
    if agent == HOSTILE:
        no_markup(page)


async def test_ending_the_current_session_signs_out(
    pages: httpx.AsyncClient, user: User, session: AsyncSession
) -> None:
    current = await session.scalar(select(UserSession.id).where(UserSession.by_page))
    shown = await visit(pages, "/studio/account/sessions")
    out = await shown.submit(pages, form=f"/studio/account/sessions/{current}/end")
    assert out.path == "/studio/sign-in"


async def test_foreign_objects(pages: httpx.AsyncClient, user: User, session: AsyncSession) -> None:
    """Objects of another user look as if they did not exist, and stay."""
    other = await create_user(session)
    login = await create_session(session, user=other)
    address = await create_address(session, user=other)
    key = await create_api_key(session, user=other)
    shown = await visit(pages, "/studio/account/sessions")
    token = shown.xpath('//meta[@name="csrf-token"]/@content')[0]
    for path, status in (
        (f"sessions/{login.id}/end", 303),
        (f"keys/{key.id}/delete", 303),
        (f"addresses/{address.id}/delete", 303),
        (f"addresses/{address.id}", 404),
    ):
        response = await pages.post(
            f"/studio/account/{path}", data={**ADDRESS, "csrf_token": token}
        )
        assert response.status_code == status, path
    await visit(pages, f"/studio/account/addresses/{address.id}", status=404)
    assert await _active_sessions(session, other) == 2
    assert await session.scalar(select(func.count()).select_from(ApiKey)) == 1
    assert await session.scalar(select(Address.city)) == address.city


async def test_api_keys(
    pages: httpx.AsyncClient, client: httpx.AsyncClient, user: User, session: AsyncSession
) -> None:
    form = await visit(pages, "/studio/account/keys")
    nothing = await form.submit(pages, form="#new-key", name="", scopes=None, password="")
    assert sorted(nothing.errors) == ["name", "password", "scopes"]
    past = await form.submit(
        pages,
        form="#new-key",
        name="Old",
        scopes=["users:read"],
        expires_at="2020-01-01",
        password=PASSWORD,
    )
    assert list(past.errors) == ["expires_at"]
    assert past.form("#new-key").xpath(".//input[@checked]/@value") == ["users:read"]
    wrong = await past.submit(pages, form="#new-key", expires_at="", password="incorrect")
    assert list(wrong.errors) == ["password"]
    created = await wrong.submit(pages, form="#new-key", name=HOSTILE[:100], password=PASSWORD)
    (key,) = created.xpath('//*[@id="key"]/text()')
    bearer = {"Authorization": f"Bearer {key}"}
    assert (await client.get("/users/me", headers=bearer)).status_code == 200
    listed = await visit(pages, "/studio/account/keys")
    assert key not in listed.response.text
    no_markup(listed, HOSTILE[:100])
    key_id = await session.scalar(select(ApiKey.id))
    deleted = await listed.submit(pages, form=f"/studio/account/keys/{key_id}/delete")
    assert deleted.flash == ["The key was deleted. It no longer works."]
    assert (await client.get("/users/me", headers=bearer)).status_code == 401


async def test_addresses(pages: httpx.AsyncClient, user: User, session: AsyncSession) -> None:
    form = await visit(pages, "/studio/account/addresses/new")
    refused = await form.submit(pages, form="#address", **{**ADDRESS, "country": "XX", "city": ""})
    assert sorted(refused.errors) == ["city", "country"]
    shown = await form.submit(pages, form="#address", **{**ADDRESS, "label": HOSTILE[:50]})
    assert shown.flash == ["The address was added."]
    assert "United Kingdom" in shown.text
    no_markup(shown, HOSTILE[:50])
    address_id = await session.scalar(select(Address.id))
    edit = await visit(pages, f"/studio/account/addresses/{address_id}")
    assert edit.form("#address").fields["country"] == "GB"
    saved = await edit.submit(pages, form="#address", city="Leeds", line2="", region="")
    assert "Leeds" in saved.text
    deleted = await saved.submit(pages, form=f"/studio/account/addresses/{address_id}/delete")
    assert deleted.flash == ["The address was deleted."]
    again = await saved.submit(pages, form=f"/studio/account/addresses/{address_id}/delete")
    assert again.flash == ["This address was already deleted."]


async def test_export(pages: httpx.AsyncClient, user: User, session: AsyncSession) -> None:
    article = await create_article(session, author=user)
    other = await create_article(session, author=await create_user(session), published=True)
    await create_comment(session, article=other, author=user, content="Well said")
    await create_address(session, user=user)
    form = await visit(pages, "/studio/account/data")
    wrong = await form.submit(pages, form="#download-account", password="incorrect")
    assert list(wrong.errors) == ["password"]
    data = {**form.form("#download-account").fields, "password": PASSWORD}
    response = await pages.post("/studio/account/data", data=data, headers=ORIGIN)
    assert response.headers["content-disposition"] == 'attachment; filename="account.zip"'
    assert "no-store" in response.headers["cache-control"]
    with ZipFile(BytesIO(response.content)) as archive:
        (comment,) = archive.read("comments.ndjson").splitlines()
    assert json.loads(comment)["content"] == "Well said"
    lines = (await pages.get("/studio/account/data/articles/ndjson")).text.splitlines()
    assert [json.loads(each)["slug"] for each in lines] == [article.slug]
    for name in ("markdown", "ghost"):
        file = await pages.get(f"/studio/account/data/articles/{name}")
        assert file.status_code == 200
        assert "no-store" in file.headers["cache-control"]
    await visit(pages, "/studio/account/data/articles/unknown", status=422)


async def test_forms_that_sign_out_name_their_user(pages: httpx.AsyncClient, user: User) -> None:
    """js/kept.js deletes the texts of this user."""
    shown = await visit(pages, "/studio/account/sessions")
    (current,) = shown.xpath('//main//form[.//button[text()="Sign out"]]')
    signing_out = {"/studio/sign-out", "/studio/account/sessions/all/end", current.get("action")}
    found = shown.xpath(f'//form[@data-signs-out="{user.id}"][@data-text-kept]/@action')
    assert set(found) == signing_out
    assert shown.xpath('//script[contains(@src, "/js/kept")]')
    assert not (await visit(pages, "/read")).xpath('//script[contains(@src, "/js/kept")]')


async def test_deletion(pages: httpx.AsyncClient, user: User, session: AsyncSession) -> None:
    article = await create_article(session, author=user)
    form = await visit(pages, "/studio/account/delete")
    assert not form.xpath('//*[@name="to"]')
    wrong = await form.submit(pages, form="#delete-account", password="incorrect")
    assert list(wrong.errors) == ["password"]
    token = form.form("#delete-account").fields["csrf_token"]
    reassigned = await pages.post(
        "/studio/account/delete",
        data={"csrf_token": token, "articles": "reassign", "to": "x", "password": PASSWORD},
    )
    assert reassigned.status_code == 403
    done = await form.submit(pages, form="#delete-account", password=PASSWORD)
    assert (done.path, done.flash) == ("/studio/sign-in", ["Your account was deleted."])
    (redirect,) = done.response.history
    assert redirect.headers["clear-site-data"] == '"cache", "storage"'
    assert await session.scalar(select(User.id).where(User.id == user.id)) is None
    assert await session.scalar(select(Article.deleted_at).where(Article.id == article.id))


async def test_deletion_by_an_editor_reassigns(
    pages: httpx.AsyncClient, session: AsyncSession, sign_in: SignIn
) -> None:
    editor, heir = await create_user(session, role=Role.EDITOR), await create_user(session)
    article = await create_article(session, author=editor)
    await sign_in(editor)
    form = await visit(pages, "/studio/account/delete")
    missing = await form.submit(
        pages, form="#delete-account", articles="reassign", to="", password=PASSWORD
    )
    assert missing.status == 422
    assert missing.summary
    done = await form.submit(
        pages, form="#delete-account", articles="reassign", to=heir.username, password=PASSWORD
    )
    assert done.path == "/studio/sign-in"
    assert (
        await session.scalar(select(Article.author_id).where(Article.id == article.id)) == heir.id
    )


async def test_last_administrator_stays(
    pages: httpx.AsyncClient, session: AsyncSession, sign_in: SignIn
) -> None:
    await sign_in(await create_user(session, role=Role.ADMIN))
    form = await visit(pages, "/studio/account/delete")
    refused = await form.submit(pages, form="#delete-account", password=PASSWORD)
    assert refused.status == 409
    assert "last administrator" in refused.summary[0]


@pytest.mark.parametrize(
    "path",
    ["", "/email", "/password", "/sessions", "/keys", "/addresses", "/data", "/second-factor"],
)
async def test_german(pages: httpx.AsyncClient, user: User, path: str) -> None:
    pages.headers["Accept-Language"] = "de"
    shown = await visit(pages, f"/studio/account{path}")
    assert shown.html.get("lang") == "de"
    (current,) = shown.xpath('//nav[contains(@class, "tabs")]//a[@aria-current]/text()')
    assert shown.xpath("//h1")[0].text == current
