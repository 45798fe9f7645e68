"""The export of all rows that belong to a user."""

import json
from datetime import timedelta
from io import BytesIO
from typing import Any
from zipfile import ZipFile

import httpx
import pyotp
import pytest
from fastapi import FastAPI
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import find_by_session
from app.core import clock
from app.core.errors import InvalidToken
from app.core.streams import Deadline
from app.db.base import Base
from app.models import User
from app.services.accounts import own_data
from tests.factories import (
    PASSWORD,
    api_key,
    bearer,
    create_address,
    create_article,
    create_comment,
    create_media,
    create_report,
    create_revision,
    create_session,
    create_user,
    create_webhook,
)

EXPORT = "/users/me/export"
NOT_EXPORTED = {
    ("articles", "edited_by"): "articles of others",
    ("blocks", "blocked_id"): "what others have done",
    ("recovery_codes", "user_id"): "hashes of codes",
    ("upload_reservations", "user_id"): "uploads in progress",
    ("user_counts", "user_id"): "counts of other rows",
}
"""References to users whose rows are not exported, with the reason."""
AUDITED = {("audit_events", "actor_id"), ("audit_events", "subject_id")}
"""Columns with ids of users that are no foreign keys."""
SECRET = {
    "hashed_password",
    "token_hash",
    "previous_hash",
    "code_hash",
    "sealed_secret",
    "sealed_previous_secret",
}
DERIVED = {
    "awaits_publication",
    "color",
    "dated_at",
    "excerpt",
    "html",
    "last_step",
    "locked_at",
    "placeholder",
    "plain_text",
    "reading_time",
    "rendered_with",
    "root_id",
    "search_vector",
    "tag_names",
    "tag_names_in_order",
    "toc",
    "widths",
    "word_count",
}
"""Columns that are computed from others."""
OF_OTHERS = {
    # Other users who acted on the row, and values that only the server uses.
    "active_at",
    "actor_id",
    "attempts",
    "details",
    "edited_at",
    "edited_by",
    "error",
    "event_id",
    "event_xid",
    "guest_name",
    "guest_url",
    "handled_at",
    "handled_by",
    "imported",
    "next_attempt_at",
    "note",
    "progress",
    "reason",
    "registration",
    "report",
    "reporter_id",
    "request_id",
    "reserved_bytes",
    "source_id",
    "subject_type",
    "summary",
    "text",
}


async def _export(client: httpx.AsyncClient, user: User, **fields: Any) -> httpx.Response:
    body = {"password": PASSWORD, **fields}
    return await client.post(EXPORT, json=body, headers=bearer(user))


def _read(content: bytes) -> dict[str, list[dict[str, Any]]]:
    with ZipFile(BytesIO(content)) as archive:
        assert archive.testzip() is None
        return {
            name.removesuffix(".ndjson"): [
                json.loads(line) for line in archive.read(name).splitlines()
            ]
            for name in archive.namelist()
            if name.endswith(".ndjson")
        }


async def test_archive_has_the_rows_of_the_user(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    user, other = await create_user(session), await create_user(session)
    for owner in (user, other):
        article = await create_article(session, author=owner, published=False)
        await create_revision(session, article=article)
        await create_comment(session, article=article, author=owner, content=f"By {owner.name}")
        await create_address(session, user=owner)
        await create_media(session, owner=owner)
        await create_report(session, article=article, reporter=owner)
        await create_session(session, user=owner)
        await create_webhook(session, owner=owner, url=f"https://{owner.username}.example.com/")
        await client.put(f"/articles/{article.id}/favorite", headers=bearer(owner))
    response = await _export(client, user)
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/zip"
    assert response.headers["cache-control"] == "private, no-store"
    assert response.headers["content-disposition"] == 'attachment; filename="account.zip"'
    files = _read(response.content)
    assert list(files) == [each.name for each in own_data.FILES]
    assert [each["email"] for each in files["account"]] == [user.email]
    assert [each["content"] for each in files["comments"]] == [f"By {user.name}"]
    for name in ("addresses", "articles", "media", "reports", "webhooks"):
        assert len(files[name]) == 1, name
    text = json.dumps(files)
    assert other.email not in text
    assert not [name for name in SECRET if name in text]


async def test_large_lists_are_complete(
    client: httpx.AsyncClient, session: AsyncSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = await create_user(session)
    article = await create_article(session, author=user)
    for number in range(5):
        await create_comment(session, article=article, author=user, content=f"Comment {number}")
    small = [each._replace(rows=2) for each in own_data.FILES]
    monkeypatch.setattr(own_data, "FILES", small)
    files = _read((await _export(client, user)).content)
    contents = [each["content"] for each in files["comments"]]
    assert contents == [f"Comment {number}" for number in range(5)]


@pytest.mark.parametrize("fields", [{"password": "incorrect"}, {"password": ""}])
async def test_wrong_password_is_refused(
    client: httpx.AsyncClient, session: AsyncSession, fields: dict[str, str]
) -> None:
    response = await _export(client, await create_user(session), **fields)
    assert response.status_code in {403, 422}


async def test_second_factor_needs_its_code(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    user = await create_user(session)
    headers, path = bearer(user), "/auth/second-factor"
    begun = await client.post(path, json={"password": PASSWORD}, headers=headers)
    code = pyotp.TOTP(begun.json()["secret"]).at(clock.now() - timedelta(seconds=30))
    confirmed = await client.post(f"{path}/confirm", json={"code": code}, headers=headers)
    for fields in ({}, {"code": code}):
        refused = await _export(client, user, **fields)
        assert (refused.status_code, refused.json()["code"]) == (403, "incorrect_code")
    recovery = confirmed.json()["recovery_codes"][0]
    assert (await _export(client, user, code=recovery)).status_code == 200


async def test_api_key_is_refused(client: httpx.AsyncClient, session: AsyncSession) -> None:
    user = await create_user(session)
    key = await api_key(session, user=user, scopes=["users:read", "articles:read"])
    response = await client.post(EXPORT, json={"password": PASSWORD}, headers=key)
    assert response.status_code == 403


async def test_export_ends_when_access_is_withdrawn(app: FastAPI, session: AsyncSession) -> None:
    user = await create_user(session)
    login = await create_session(session, user=user)
    identity = await find_by_session(session, user_id=user.id, session_id=login.id)
    assert identity is not None
    parts = own_data._archive(app.state.database, identity, Deadline(60))
    assert await anext(parts)
    user.is_active = False
    await session.flush()
    with pytest.raises(InvalidToken):
        [part async for part in parts]


def test_every_row_and_column_is_exported_or_listed() -> None:
    exported = {(each.model.__tablename__, each.owner) for each in own_data.FILES}
    references = {
        (table.name, column.name)
        for table in Base.metadata.tables.values()
        for column in table.columns
        for key in column.foreign_keys
        if key.target_fullname == "users.id"
    }
    known = exported | NOT_EXPORTED.keys()
    advice = "add the column to own_data.FILES or, with a reason, to NOT_EXPORTED"
    assert references | {("users", "id"), *AUDITED} == known, advice
    for each in own_data.FILES:
        columns = {column.name for column in each.model.__table__.columns}
        listed = {*each.columns.split(), each.owner} | SECRET | DERIVED | OF_OTHERS
        assert columns <= listed, each.name
        assert not SECRET & set(each.columns.split())
