"""Pages of administrators: users, keys, the audit trail, mails, settings and health."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import null, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.core import clock
from app.core.enums import Role
from app.core.errors import NotAuthorized
from app.core.limits import USER_KINDS
from app.db.session import Database
from app.models import ApiKey, LimitOverride, Mail, SecondFactor, User, UserSession
from app.services import maintenance
from app.services.accounts.second_factor import remove_second_factor
from app.services.audit import AuditAction
from app.web import localization, zones
from app.web.administration import labels
from tests.factories import PASSWORD, create_api_key, create_article, create_user
from tests.test_operations import identity_of
from tests.web.conftest import SignIn
from tests.web.pages import HOSTILE, no_markup, sign_in_with_form, visit

USERS = "/studio/admin/users"


@pytest.fixture
async def admin(session: AsyncSession, sign_in: SignIn) -> User:
    user = await create_user(session, username="root", name="Root", role=Role.ADMIN)
    await sign_in(user)
    return user


@pytest.fixture
async def user(session: AsyncSession) -> User:
    return await create_user(session, username="ada", name=HOSTILE)


async def test_find_users(
    pages: httpx.AsyncClient, session: AsyncSession, admin: User, user: User
) -> None:
    await create_user(session, username="gone", name="Gone", is_active=False)
    shown = await visit(pages, USERS)
    no_markup(shown)
    assert len(shown.xpath("//tbody/tr")) == 3
    for query, name in (("q=ADA", "ada"), ("role=admin", "root"), ("active=false", "gone")):
        found = await visit(pages, f"{USERS}?{query}&other=&cursor=")
        assert [each.text for each in found.xpath("//tbody//th/span")] == [f"@{name}"]
    assert "No users found" in (await visit(pages, f"{USERS}?q=%25")).text
    await visit(pages, f"{USERS}?role=king", status=422)


async def test_role_and_access(
    pages: httpx.AsyncClient, session: AsyncSession, admin: User, user: User
) -> None:
    path = f"{USERS}/{user.id}"
    shown = await visit(pages, path)
    no_markup(shown)
    saved = await shown.submit(pages, form="#change-role", role="editor")
    assert saved.flash == ["ada now has the role “Editor”."]
    await session.refresh(user)
    assert user.role is Role.EDITOR
    invalid = await saved.submit(pages, form="#change-role", role="king")
    assert (invalid.status, list(invalid.errors)) == (422, ["role"])
    disabled = await saved.submit(pages, form=f"{path}/disable")
    assert disabled.flash == ["The account is disabled. Its sessions have ended."]
    await session.refresh(user)
    assert not user.is_active
    enabled = await disabled.submit(pages, form=f"{path}/enable")
    assert enabled.flash == ["The account is enabled."]
    for action, text in (
        ("password-link", "A mail with a link to reset the password is on its way."),
        ("login-limits/reset", "The user may sign in again at once."),
    ):
        done = await enabled.submit(pages, form=f"{path}/{action}")
        assert done.flash == [text]
    without = await enabled.submit(pages, form=f"{path}/second-factor/remove")
    assert without.status == 409
    assert without.summary == ["The second factor is not enabled"]


async def test_own_second_factor_needs_password_and_code(
    pages: httpx.AsyncClient, session: AsyncSession, admin: User
) -> None:
    now = clock.now()
    session.add(SecondFactor(user_id=admin.id, sealed_secret="x", created_at=now, confirmed_at=now))
    await session.flush()
    shown = await visit(pages, f"{USERS}/{admin.id}")
    asked = await shown.submit(pages, form=f"{USERS}/{admin.id}/second-factor/remove")
    assert asked.path == "/studio/account/second-factor/disable"
    assert set(asked.form(fields=["code"]).fields.keys()) >= {"password", "code"}
    found = await session.scalar(select(SecondFactor).execution_options(populate_existing=True))
    assert found is not None
    with pytest.raises(NotAuthorized):
        await remove_second_factor(session, user_id=admin.id, actor=identity_of(admin))


async def test_role_needs_the_password_again(
    pages: httpx.AsyncClient, session: AsyncSession, admin: User, user: User
) -> None:
    shown = await visit(pages, f"{USERS}/{user.id}")
    long_ago = clock.now() - timedelta(minutes=16)
    await session.execute(update(UserSession).values(confirmed_at=long_ago))
    asked = await shown.submit(pages, form="#change-role", role="admin")
    assert asked.status == 403
    assert asked.form(f"{USERS}/{user.id}/role").fields["role"] == "admin"
    await session.refresh(user)
    assert user.role is Role.AUTHOR
    (link,) = asked.xpath('//a[@target="_blank"]/@href')
    confirmed = await (await visit(pages, link)).submit(pages, password=PASSWORD)
    assert confirmed.path == f"{USERS}/{user.id}"
    done = await asked.submit(pages, form=f"{USERS}/{user.id}/role")
    assert done.flash == ["ada now has the role “Administrator”."]


async def test_last_administrator_stays(
    pages: httpx.AsyncClient, session: AsyncSession, admin: User
) -> None:
    shown = await visit(pages, f"{USERS}/{admin.id}")
    assert not shown.xpath(f'//a[@href="{USERS}/{admin.id}/delete"]')
    refused = await shown.submit(pages, form="#change-role", role="author")
    assert refused.status == 409
    assert "last administrator" in refused.summary[0]
    await session.refresh(admin)
    assert admin.role is Role.ADMIN


async def test_sessions_end(
    pages: httpx.AsyncClient, session: AsyncSession, admin: User, user: User
) -> None:
    shown = await visit(pages, f"{USERS}/{user.id}")
    ended = await shown.submit(pages, form=f"{USERS}/{user.id}/sessions/end")
    assert ended.flash == ["All sessions of this user have ended."]
    assert "No active sessions." in ended.text
    login = (await session.scalars(select(UserSession).where(UserSession.user_id == user.id))).one()
    await session.refresh(login)
    assert login.revoked_at is not None


async def test_limits(
    pages: httpx.AsyncClient, session: AsyncSession, admin: User, user: User
) -> None:
    async def overrides() -> dict[str, int]:
        rows = await session.execute(select(LimitOverride.kind, LimitOverride.amount))
        return {row.kind: row.amount for row in rows}

    shown = await visit(pages, f"{USERS}/{user.id}")
    fields: dict[str, Any] = {"limit-comments": "7", "limit-drafts": "0"}
    saved = await shown.submit(pages, form="#change-limits", **fields)
    assert saved.flash == ["The limits were saved."]
    assert saved.form("#change-limits").fields["limit-comments"] == "7"
    assert await overrides() == {"comments": 7, "drafts": 0}
    stale = await shown.submit(pages, form="#change-limits", **{**fields, "limit-comments": "9"})
    assert stale.status == 412
    invalid = await saved.submit(
        pages, form="#change-limits", **{**fields, "limit-comments": "many"}
    )
    assert list(invalid.errors) == ["limit-comments"]
    assert invalid.form("#change-limits").fields["limit-comments"] == "many"
    assert await overrides() == {"comments": 7, "drafts": 0}
    fields = {"limit-comments": "", "limit-drafts": ""}
    await saved.submit(pages, form="#change-limits", **fields)
    assert await overrides() == {}


async def test_delete_an_account(
    pages: httpx.AsyncClient, session: AsyncSession, admin: User, user: User
) -> None:
    article = await create_article(session, author=user)
    shown = await visit(pages, f"{USERS}/{user.id}/delete")
    no_markup(shown)
    missing = await shown.submit(pages, form="#delete-account", articles="reassign")
    assert missing.errors == {"to": "Enter the username of the new author"}
    done = await shown.submit(pages, form="#delete-account", articles="reassign", to="root")
    assert done.flash == ["The account was deleted."]
    await session.refresh(article)
    assert article.author_id == admin.id
    await visit(pages, f"{USERS}/{user.id}", status=404)


async def test_keys(
    pages: httpx.AsyncClient, session: AsyncSession, admin: User, user: User
) -> None:
    first, second = [await create_api_key(session, user=each) for each in (user, admin)]
    first.name = HOSTILE
    await session.flush()
    shown = await visit(pages, "/studio/admin/keys")
    no_markup(shown)
    assert len(shown.xpath("//tbody/tr")) == 2
    own = await visit(pages, f"/studio/admin/keys?user={user.id}")
    assert len(own.xpath("//tbody/tr")) == 1
    deleted = await own.submit(pages, form=f"/studio/admin/keys/{first.id}/delete")
    assert deleted.flash == ["The key was deleted. It is refused from now on."]
    assert str(deleted.response.url).endswith(f"?user={user.id}")
    assert list(await session.scalars(select(ApiKey.id))) == [second.id]


async def test_audit_trail(pages: httpx.AsyncClient, admin: User) -> None:
    await sign_in_with_form(pages, admin)
    await visit(pages, f"{USERS}/{admin.id}")
    shown = await visit(pages, "/studio/admin/audit?action=LOGIN&actor=&subject_id=")
    assert [each.text.strip() for each in shown.xpath("//tbody//th")] == ["Signed in"]
    assert f"User {admin.id} logged in" in shown.text
    none = await visit(pages, f"/studio/admin/audit?actor={admin.id + 1}")
    assert "Nothing recorded" in none.text
    for actor in ("x", "%00", "unknown@example.com"):
        assert "Nothing recorded" in (await visit(pages, f"/studio/admin/audit?actor={actor}")).text


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Kiritimati"])
async def test_audit_trail_in_the_zone_of_the_visitor(
    pages: httpx.AsyncClient, admin: User, zone: str
) -> None:
    await sign_in_with_form(pages, admin)
    pages.cookies.set(zones.COOKIE, zone)
    shown = await visit(pages, "/studio/admin/audit?action=LOGIN")
    assert shown.xpath("//thead//th")[0].text == f"Time ({zone})"
    (time,) = shown.xpath("//tbody//time")
    moment = datetime.fromisoformat(time.get("datetime"))
    assert time.text == localization.format_moment(moment, zone=zones.find_zone(zone))


async def test_audit_trail_of_a_user(pages: httpx.AsyncClient, admin: User, user: User) -> None:
    await sign_in_with_form(pages, admin)
    saved = await (await visit(pages, f"{USERS}/{user.id}")).submit(
        pages, form="#change-role", role="editor"
    )
    assert saved.status == 200
    for actor in ("root", "ROOT", "@root", admin.email, str(admin.id), f" {admin.email.upper()} "):
        shown = await visit(pages, f"/studio/admin/audit?{urlencode({'actor': actor})}")
        assert len(shown.xpath("//tbody/tr")) == 2
        assert shown.xpath('//input[@name="actor"]/@value') == [actor.strip()]
    assert "Nothing recorded" in (await visit(pages, "/studio/admin/audit?actor=ada")).text


async def test_failed_mails_are_queued_again(
    pages: httpx.AsyncClient, session: AsyncSession, admin: User
) -> None:
    now = clock.now()
    failed, old = [
        Mail(
            kind="verify_email",
            email=f"{name}@example.com",
            created_at=created,
            next_attempt_at=null(),
            error=HOSTILE,
            text="the-token",
        )
        for name, created in (("a", now), ("b", now - timedelta(days=3)))
    ]
    session.add_all([failed, old])
    await session.flush()
    shown = await visit(pages, "/studio/admin/mails?state=failed")
    no_markup(shown)
    assert "the-token" not in shown.text
    empty = await shown.submit(pages, form="#requeue")
    assert empty.flash == ["Choose at least one mail."]
    too_old = await shown.submit(pages, form="#requeue", mails=[str(old.id), "x"])
    assert "too old" in too_old.flash[0]
    queued = await shown.submit(pages, form="#requeue", mails=[str(failed.id)])
    assert queued.flash == ["1 mail is queued again."]
    await session.refresh(failed)
    assert failed.next_attempt_at is not None
    again = await shown.submit(pages, form="#requeue", button="all")
    assert again.flash == ["1 mail is queued again."]


async def test_settings_and_health(pages: httpx.AsyncClient, admin: User) -> None:
    shown = await visit(pages, "/studio/admin/settings")
    (secret,) = shown.xpath('//tr[th/code="SECRET_KEY"]')
    assert "hidden" in secret.text_content()
    assert "development-only" not in shown.text
    health = await visit(pages, "/studio/admin")
    assert "ready" in health.text
    assert "PostgreSQL" in health.text
    current = health.xpath('//nav[@aria-label="Studio"]//a[@aria-current]')
    assert [each.text for each in current] == ["Administration"]
    tags = await visit(pages, "/studio/admin/tags")
    current = tags.xpath('//nav[@aria-label="Studio"]//a[@aria-current]')
    assert [each.text for each in current] == ["Tags"]


async def test_maintenance_refuses_changes_and_keeps_the_text(
    pages: httpx.AsyncClient, app: FastAPI, database: Database, admin: User
) -> None:
    sentence = "We move to another host."
    shown = await visit(pages, "/studio/admin")
    invalid = await shown.submit(pages, form="/studio/admin/maintenance", message="")
    assert (invalid.status, list(invalid.errors)) == (422, ["message"])
    begun = await shown.submit(pages, form="/studio/admin/maintenance", message=sentence)
    assert begun.flash == ["The server is in maintenance: changes are refused in a second or two."]
    profile = await visit(pages, "/studio/account")
    state = app.state.maintenance
    try:
        await maintenance.refresh(database, state)
        refused = await profile.submit(pages, form="/studio/account", name="Another name")
        assert refused.status == 503
        assert refused.response.headers["Retry-After"] == "60"
        assert refused.summary == [sentence]
        assert "Another name" in refused.xpath("//input/@value")
        ended = await begun.submit(pages, form="/studio/admin/maintenance/end")
        assert ended.flash == ["The maintenance has ended."]
        await maintenance.refresh(database, state)
        saved = await profile.submit(pages, form="/studio/account", name="Another name")
        assert saved.status == 200
    finally:
        state.set(None, None)


@pytest.mark.parametrize(
    ("values", "texts"), [(AuditAction, labels.ACTIONS), (USER_KINDS, labels.LIMITS)]
)
def test_every_value_has_a_label(values: Iterable[str], texts: Mapping[str, str]) -> None:
    missing = set(values) - set(texts)
    assert not missing, f"add {missing} to app/web/administration/labels.py"
