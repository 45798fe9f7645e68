"""Account pre-hijacking: an attacker registers the address of another person first.

The attacks are from "Pre-hijacked accounts" (Sudhodanan and Paverd, USENIX Security 2022). Those
with federated logins or several addresses per account do not apply.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple

import httpx
import pyotp
import pytest
from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import InstrumentedAttribute

from app.core import clock
from app.core.config import Registration, Settings
from app.db.base import Base
from app.db.session import Database
from app.main import create_app
from app.models import (
    Address,
    ApiKey,
    Article,
    Comment,
    Mail,
    PreviewLink,
    RecoveryCode,
    SecondFactor,
    User,
    UserSession,
)
from app.services.accounts import claiming
from tests.factories import PASSWORD, create_article, create_media
from tests.inbox import Inbox, token_in

EMAIL = "owner@example.com"
OWNER_PASSWORD = "staple of a better battery"

KEPT = {
    "articles.author_id": "public, or drafts that the owner sees and can delete",
    "articles.edited_by": "names the editor of a text",
    "article_revisions.author_id": "names the editor of a text",
    "comments.author_id": "public",
    "favorites.user_id": "public",
    "follows.follower_id": "public",
    "follows.followed_id": "of others",
    "user_counts.user_id": "follows from follows",
    "blocks.blocker_id": "the owner sees it and can end it",
    "blocks.blocked_id": "of others",
    "reports.reporter_id": "for editors",
    "reports.handled_by": "of an editor",
    "media.owner_id": "articles show it; the owner sees it and can delete it",
    "mails.user_id": "what waits is cancelled; what was sent counts against floods",
    "account_tokens.user_id": "revoked by revoke_links",
    "limit_overrides.user_id": "set by an administrator",
    "upload_reservations.user_id": "expires within half an hour",
    "imports.user_id": "the owner sees it and can cancel it",
}
"""References to users that stay after a reset by the owner of the address, and the reasons."""


def test_every_reference_to_users_is_listed() -> None:
    references = {
        f"{table.name}.{column.name}"
        for table in Base.metadata.tables.values()
        for column in table.columns
        if any(key.column.table is User.__table__ for key in column.foreign_keys)
    }
    removed = {f"{owner.class_.__tablename__}.{owner.key}" for owner in claiming.REMOVED_BY_OWNER}
    advice = "add the column to claiming.REMOVED_BY_OWNER or, with a reason, to KEPT"
    assert removed | KEPT.keys() == references, advice
    assert not removed & KEPT.keys()


class Attacker(NamedTuple):
    """An attacker who registered EMAIL."""

    client: httpx.AsyncClient
    user_id: int
    headers: dict[str, str]
    tokens: dict[str, Any]
    key: dict[str, str]
    links: Sequence[str]

    async def working_credentials(self) -> list[str]:
        """Return the credentials with which the attacker still has access."""
        ways = []
        for name, headers in (("session", self.headers), ("key", self.key)):
            if (await self.client.get("/users/me", headers=headers)).status_code == 200:
                ways.append(name)
        for name in (EMAIL, "mallory"):
            form = {"username": name, "password": PASSWORD}
            if (await self.client.post("/auth/login", data=form)).status_code == 200:
                ways.append(f"password of {name}")
        if refresh := self.tokens.get("refresh_token"):
            answer = await self.client.post("/auth/refresh", json={"refresh_token": refresh})
            if answer.status_code == 200:
                ways.append("refresh token")
        for link in self.links:
            body = {"token": link, "password": PASSWORD}
            if (await self.client.post("/auth/email/verify", json=body)).status_code == 204:
                ways.append("change of email")
        return ways


async def register_native(client: httpx.AsyncClient) -> dict[str, Any]:
    body = {"email": EMAIL, "username": "mallory", "name": "Mallory", "password": PASSWORD}
    assert (await client.post("/users", json=body)).status_code == 201
    form = {"username": "mallory", "password": PASSWORD}
    tokens: dict[str, Any] = (await client.post("/auth/login", data=form)).json()
    return tokens


async def register_conduit(client: httpx.AsyncClient) -> dict[str, Any]:
    user = {"username": "mallory", "email": EMAIL, "password": PASSWORD}
    answer = await client.post("/api/users", json={"user": user})
    return {"access_token": answer.json()["user"]["token"]}


@pytest.fixture
async def attacker(
    request: pytest.FixtureRequest,
    client: httpx.AsyncClient,
    session: AsyncSession,
    inbox: Inbox,
    monkeypatch: pytest.MonkeyPatch,
) -> Attacker:
    """Register and prepare the account in every possible way."""
    tokens = await getattr(request, "param", register_native)(client)
    headers = {"Authorization": f"Bearer {tokens['access_token']}"}
    me = (await client.get("/users/me", headers=headers)).json()

    async def post(path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = await client.post(path, json=body, headers=headers)
        assert answer.is_success, answer.text
        made: dict[str, Any] = answer.json()
        return made

    key = await post(
        "/users/me/api-keys", {"name": "door", "scopes": ["users:read"], "password": PASSWORD}
    )
    profile = {"bio": "Mallory was here", "image_url": "https://mallory.example.com/track.png"}
    await client.patch("/users/me", json=profile, headers=headers)
    place = {
        "label": "home",
        "line1": "1 Lane",
        "city": "Town",
        "postal_code": "1",
        "country": "GB",
    }
    await post(f"/users/{me['id']}/addresses", place)
    draft = await post("/articles", {"title": "A draft", "content": "Some content, long enough."})
    await post(f"/articles/{draft['id']}/preview-links", {"expires_in_hours": 720})
    change = {"email": "mallory@example.com", "password": PASSWORD}
    await post("/users/me/email", change)
    links = [token_in(each) for each in await inbox.deliver() if each["To"] == change["email"]]
    change = {"email": "mallory2@example.com", "password": PASSWORD}
    await post("/users/me/email", change)  # stays queued
    begun = await post("/auth/second-factor", {"password": PASSWORD})
    step = pyotp.TOTP(begun["secret"])
    await post("/auth/second-factor/confirm", {"code": step.at(clock.now())})
    now = clock.now() + timedelta(minutes=2)
    monkeypatch.setattr(clock, "now", lambda: now)
    return Attacker(
        client, me["id"], headers, tokens, {"Authorization": f"Bearer {key['key']}"}, links
    )


BOTH_APIS = pytest.mark.parametrize("attacker", [register_native, register_conduit], indirect=True)


async def reset(client: httpx.AsyncClient, inbox: Inbox) -> None:
    await client.post("/auth/password/forgot", json={"email": EMAIL})
    (mail,) = [each for each in await inbox.deliver() if "new password" in each["Subject"]]
    body = {"token": token_in(mail), "password": OWNER_PASSWORD}
    answer = await client.post("/auth/password/reset", json=body)
    assert answer.status_code == 204, answer.text


async def assert_is_the_owners(session: AsyncSession, attacker: Attacker, inbox: Inbox) -> None:
    client = attacker.client
    form = {"username": EMAIL, "password": OWNER_PASSWORD}
    login = await client.post("/auth/login", data=form)
    assert login.status_code == 200, login.text  # no code is required
    headers = {"Authorization": f"Bearer {login.json()['access_token']}"}
    assert await attacker.working_credentials() == []
    assert [mail["To"] for mail in await inbox.deliver()] == [EMAIL]  # a notice
    me = (await client.get("/users/me", headers=headers)).json()
    assert (me["email"], me["bio"], me["image_url"]) == (EMAIL, "", None)
    assert (await client.get("/auth/second-factor", headers=headers)).json()["enabled"] is False
    owners: list[InstrumentedAttribute[int] | InstrumentedAttribute[int | None]] = [
        ApiKey.user_id,
        SecondFactor.user_id,
        RecoveryCode.user_id,
        Address.user_id,
        PreviewLink.created_by,
    ]
    for owner in owners:
        query = select(func.count()).where(owner == attacker.user_id)
        assert await session.scalar(query) == 0, owner


@BOTH_APIS
async def test_reset_removes_the_access_of_the_attacker(
    session: AsyncSession, attacker: Attacker, inbox: Inbox
) -> None:
    await reset(attacker.client, inbox)
    await assert_is_the_owners(session, attacker, inbox)


async def test_published_content_stays(
    session: AsyncSession, attacker: Attacker, inbox: Inbox
) -> None:
    user = await session.get_one(User, attacker.user_id)
    article = await create_article(session, author=user)
    image = await create_media(session, owner=user)
    session.add(Comment(article_id=article.id, author_id=user.id, content="x", html="x"))
    await session.flush()
    await reset(attacker.client, inbox)
    for column in (Article.author_id, Comment.author_id):
        kept = select(func.count()).where(column == user.id)
        assert await session.scalar(kept)
    await session.refresh(image)
    assert image.owner_id == user.id


async def test_networks_of_the_attacker_become_unknown(
    session: AsyncSession, attacker: Attacker, inbox: Inbox
) -> None:
    await reset(attacker.client, inbox)
    (place,) = (await session.scalars(select(UserSession))).all()
    assert place.revoked_at is not None  # the owner's


@BOTH_APIS
async def test_registration_by_mail_leads_the_owner_to_a_reset(
    session: AsyncSession,
    attacker: Attacker,
    inbox: Inbox,
    settings: Settings,
    database: Database,
) -> None:
    app = create_app(settings.model_copy(update={"registration": Registration.BY_EMAIL}))
    app.state.database = database
    body = {"email": EMAIL, "username": "owner", "name": "Owner", "password": OWNER_PASSWORD}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
        answer = await client.post("/users", json=body)
    assert answer.status_code == 202, answer.text
    mails = [mail for mail in await inbox.deliver() if mail["To"] == EMAIL]
    assert "/forgot-password" in mails[-1].get_content()
    await reset(attacker.client, inbox)
    await assert_is_the_owners(session, attacker, inbox)


@BOTH_APIS
async def test_link_alone_does_not_verify_the_account(
    session: AsyncSession, attacker: Attacker, inbox: Inbox
) -> None:
    """Otherwise the account would be verified, and a reset would keep the attacker's access."""
    client = attacker.client
    await client.post("/auth/email/verify/resend", json={"email": EMAIL})
    (mail,) = [each for each in await inbox.deliver() if each["To"] == EMAIL]
    token = token_in(mail)
    clicked = await client.post("/auth/email/verify", json={"token": token})
    assert (clicked.status_code, clicked.json()["code"]) == (403, "password_required")
    guessed = await client.post(
        "/auth/email/verify", json={"token": token, "password": OWNER_PASSWORD}
    )
    assert (guessed.status_code, guessed.json()["code"]) == (403, "incorrect_password")
    user = await session.get_one(User, attacker.user_id, populate_existing=True)
    assert user.email_verified_at is None
    await reset(client, inbox)
    await assert_is_the_owners(session, attacker, inbox)


async def test_session_of_another_account_does_not_verify(attacker: Attacker, inbox: Inbox) -> None:
    client = attacker.client
    body = {
        "email": "other@example.com",
        "username": "other",
        "name": "O",
        "password": OWNER_PASSWORD,
    }
    assert (await client.post("/users", json=body)).status_code == 201
    form = {"username": "other", "password": OWNER_PASSWORD}
    login = (await client.post("/auth/login", data=form)).json()
    await client.post("/auth/email/verify/resend", json={"email": EMAIL})
    (mail,) = [each for each in await inbox.deliver() if each["To"] == EMAIL]
    headers = {"Authorization": f"Bearer {login['access_token']}"}
    body = {"token": token_in(mail)}
    answer = await client.post("/auth/email/verify", json=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (403, "password_required")


@BOTH_APIS
async def test_verification_with_own_session_keeps_everything(
    attacker: Attacker, inbox: Inbox
) -> None:
    client = attacker.client
    await client.post("/auth/email/verify/resend", json={"email": EMAIL})
    (mail,) = [each for each in await inbox.deliver() if each["To"] == EMAIL]
    body = {"token": token_in(mail)}
    answer = await client.post("/auth/email/verify", json=body, headers=attacker.headers)
    assert answer.status_code == 204
    for headers in (attacker.headers, attacker.key):
        assert (await client.get("/users/me", headers=headers)).status_code == 200
    status = await client.get("/auth/second-factor", headers=attacker.headers)
    assert status.json()["enabled"] is True


async def test_sent_mails_still_count_for_the_limits(
    session: AsyncSession, attacker: Attacker, inbox: Inbox
) -> None:
    before = await session.scalar(select(func.count()).select_from(Mail))
    await reset(attacker.client, inbox)
    after = await session.scalar(select(func.count()).select_from(Mail))
    assert after is not None
    assert before is not None
    assert after > before
