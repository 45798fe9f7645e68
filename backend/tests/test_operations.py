"""Lists for administrators: accounts, keys, sessions, the audit trail, mails and settings."""

from datetime import timedelta
from functools import partial

import pytest
from sqlalchemy import null
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.auth.identity import Identity
from app.core import clock
from app.core.config import get_settings
from app.core.enums import Role
from app.core.errors import ApiKeyNotFound, NotAuthorized, UserNotFound
from app.db.session import Database
from app.models import AuditEvent, Mail, User
from app.schemas.accounts.api_key import ApiKeyQuery
from app.schemas.accounts.user import AccountQuery
from app.schemas.audit import AuditQuery
from app.schemas.mail import MailQuery, MailState
from app.schemas.media import LibraryQuery
from app.schemas.page import PageQuery
from app.services import operations
from app.services.accounts import api_keys, sessions, users
from app.services.media import library
from tests.factories import create_api_key, create_session, create_user
from tests.test_lists import statements


def identity_of(user: User) -> Identity:
    fields = {name: getattr(user, name) for name in Identity._fields if hasattr(user, name)}
    return Identity(**fields)


@pytest.fixture
async def admin(session: AsyncSession) -> Identity:
    return identity_of(await create_user(session, username="root", role=Role.ADMIN))


@pytest.fixture
async def editor(session: AsyncSession) -> Identity:
    return identity_of(await create_user(session, username="editor", role=Role.EDITOR))


async def test_accounts_are_found(
    database: Database, session: AsyncSession, admin: Identity, editor: Identity
) -> None:
    await create_user(session, username="ada", name="Ada Lovelace", is_active=False)
    await create_user(session, username="Babbage", email="charles@example.com")

    async def found(**filters: object) -> list[str]:
        query = AccountQuery.model_validate(filters)
        listed = await users.search_accounts(database.reader, query=query, user=admin)
        return [each.username for each in listed.items]

    assert await found(q="LOVE") == ["ada"]
    assert await found(q="charles@") == ["Babbage"]
    assert await found(q="babb") == ["Babbage"]
    assert await found(q="%") == []
    assert await found(role="editor") == ["editor"]
    assert await found(active=False) == ["ada"]
    assert await found() == ["Babbage", "ada", "editor", "root"]
    with pytest.raises(NotAuthorized):
        await users.search_accounts(database.reader, query=AccountQuery(), user=editor)


async def test_accounts_have_pages(database: Database, admin: Identity, editor: Identity) -> None:
    first = await users.search_accounts(database.reader, query=AccountQuery(limit=1), user=admin)
    assert [each.id for each in first.items] == [editor.id]
    query = AccountQuery(limit=1, cursor=first.next)
    second = await users.search_accounts(database.reader, query=query, user=admin)
    assert [each.id for each in second.items] == [admin.id]
    assert second.next is None


async def test_sessions_of_a_user_end(
    database: Database, session: AsyncSession, admin: Identity, editor: Identity
) -> None:
    user = await create_user(session)
    await create_session(session, user=user)
    page = PageQuery()
    reader = database.reader
    listed = await sessions.list_sessions_of(reader, user_id=user.id, page=page, actor=admin)
    assert len(listed) == 2
    with pytest.raises(NotAuthorized):
        await sessions.list_sessions_of(reader, user_id=user.id, page=page, actor=editor)
    with pytest.raises(NotAuthorized):
        await sessions.end_sessions_of(session, user_id=user.id, actor=editor)
    with pytest.raises(UserNotFound):
        await sessions.end_sessions_of(session, user_id=10**12, actor=admin)
    async with database.unit_of_work() as unit:
        await sessions.end_sessions_of(unit, user_id=user.id, actor=admin)
    assert not await sessions.list_sessions_of(reader, user_id=user.id, page=page, actor=admin)
    assert await sessions.list_sessions_of(reader, user_id=admin.id, page=page, actor=admin)


async def test_keys_of_all_users(
    database: Database, session: AsyncSession, admin: Identity, editor: Identity
) -> None:
    first, second = [await create_user(session) for _ in range(2)]
    keys = [await create_api_key(session, user=each) for each in (first, second)]

    async def listed(user: int | None = None) -> list[tuple[int, str]]:
        query = ApiKeyQuery(user=user)
        page = await api_keys.list_all_api_keys(database.reader, query=query, user=admin)
        return [(each.id, each.username) for each in page.items]

    assert await listed() == [(keys[1].id, second.username), (keys[0].id, first.username)]
    assert await listed(first.id) == [(keys[0].id, first.username)]
    with pytest.raises(NotAuthorized):
        await api_keys.list_all_api_keys(database.reader, query=ApiKeyQuery(), user=editor)
    with pytest.raises(NotAuthorized):
        await api_keys.revoke_api_key(session, api_key_id=keys[0].id, actor=editor)
    async with database.unit_of_work() as unit:
        await api_keys.revoke_api_key(unit, api_key_id=keys[0].id, actor=admin)
    assert await listed(first.id) == []
    with pytest.raises(ApiKeyNotFound):
        await api_keys.revoke_api_key(session, api_key_id=keys[0].id, actor=admin)


async def test_audit_trail_is_filtered(
    database: Database, session: AsyncSession, admin: Identity, editor: Identity
) -> None:
    for action, actor, subject, subject_id in (
        ("LOGIN", admin.id, "user", admin.id),
        ("DELETE_ARTICLE", editor.id, "article", 7),
        ("RUN_JOB", None, "mail job", None),
    ):
        session.add(
            AuditEvent(
                action=action,
                actor_id=actor,
                subject_type=subject,
                subject_id=subject_id,
                message=action,
            )
        )
    await session.flush()

    async def actions(**filters: object) -> list[tuple[str, str | None]]:
        query = AuditQuery.model_validate(filters)
        page = await operations.list_events(database.reader, query=query, user=admin)
        return [(each.action, each.actor) for each in page.items]

    assert await actions() == [("RUN_JOB", None), ("DELETE_ARTICLE", "editor"), ("LOGIN", "root")]
    assert await actions(action="LOGIN") == [("LOGIN", "root")]
    assert await actions(actor=editor.id) == [("DELETE_ARTICLE", "editor")]
    assert await actions(subject="article", subject_id=7) == [("DELETE_ARTICLE", "editor")]
    assert await actions(subject="article", subject_id=8) == []
    with pytest.raises(NotAuthorized):
        await operations.list_events(database.reader, query=AuditQuery(), user=editor)


async def test_mails_by_state(
    database: Database, session: AsyncSession, admin: Identity, editor: Identity
) -> None:
    now = clock.now()
    mails = [
        Mail(kind="verify_email", email="a@example.com", next_attempt_at=now + timedelta(hours=1)),
        Mail(kind="verify_email", email="b@example.com", next_attempt_at=null(), sent_at=now),
        Mail(kind="verify_email", email="c@example.com", next_attempt_at=null(), error="refused"),
    ]
    session.add_all(mails)
    await session.flush()

    async def emails(state: MailState | None) -> list[str]:
        query = MailQuery(state=state)
        page = await operations.list_mails(database.reader, query=query, user=admin)
        assert state is None or {each.state for each in page.items} == {state}
        return [each.email[0] for each in page.items]

    assert await emails(None) == ["c", "b", "a"]
    assert await emails(MailState.WAITING) == ["a"]
    assert await emails(MailState.SENT) == ["b"]
    assert await emails(MailState.FAILED) == ["c"]
    with pytest.raises(NotAuthorized):
        await operations.list_mails(database.reader, query=MailQuery(), user=editor)


async def test_each_list_runs_one_query(
    database: Database, connection: AsyncConnection, admin: Identity
) -> None:
    reader = database.reader
    lists = (
        partial(users.search_accounts, query=AccountQuery()),
        partial(api_keys.list_all_api_keys, query=ApiKeyQuery()),
        partial(operations.list_events, query=AuditQuery()),
        partial(operations.list_mails, query=MailQuery()),
        partial(library.search_media, query=LibraryQuery()),
    )
    for read in lists:
        with statements(connection) as executed:
            await read(reader, user=admin)
        (statement,) = executed
        assert "ORDER BY" in statement
        assert "LIMIT" in statement


async def test_settings_hide_secrets(admin: Identity, editor: Identity) -> None:
    settings = get_settings().model_copy(
        update={"secret_key": "hidden-secret", "database_url": "postgresql://a:hidden@b/c"}
    )
    listed = {each.name: each for each in operations.list_settings(settings, user=admin)}
    assert listed["SECRET_KEY"].value is None
    assert listed["DATABASE_URL"].value is None
    assert "hidden" not in str(listed)
    assert listed["ENVIRONMENT"].value == "test"
    assert listed["DEBUG"].value == "false"
    assert listed["ENVIRONMENT"].is_set
    assert not listed["MEDIA_MAX_PIXELS"].is_set
    with pytest.raises(NotAuthorized):
        operations.list_settings(settings, user=editor)
