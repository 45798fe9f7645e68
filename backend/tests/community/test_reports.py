"""Reports: create once per user, handle as an editor."""

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.core.enums import Role
from app.models import Article, AuditEvent, User
from tests.community.test_profiles import pages
from tests.factories import (
    PASSWORD,
    bearer,
    create_article,
    create_comment,
    create_report,
    create_user,
)
from tests.test_lists import statements

REASON = {"reason": "Advertising\nfor looms"}


@pytest.fixture
async def author(session: AsyncSession) -> User:
    return await create_user(session)


@pytest.fixture
async def editor(session: AsyncSession) -> User:
    return await create_user(session, role=Role.EDITOR)


@pytest.fixture
async def reader(session: AsyncSession) -> User:
    return await create_user(session)


@pytest.fixture
async def article(session: AsyncSession, author: User) -> Article:
    return await create_article(session, author=author)


async def test_report_article_and_comment(
    client: httpx.AsyncClient,
    session: AsyncSession,
    article: Article,
    author: User,
    editor: User,
    reader: User,
) -> None:
    comment = await create_comment(session, article=article, author=author)
    ids: list[int] = []
    for path in (f"/articles/{article.id}/reports", f"/comments/{comment.id}/reports"):
        response = await client.post(path, json=REASON, headers=bearer(reader))
        assert response.status_code == 201
        assert response.json()["state"] == "open"
        assert "note" not in response.json()
        ids.insert(0, response.json()["id"])
        again = await client.post(path, json=REASON, headers=bearer(reader))
        assert again.status_code == 409
        assert again.json()["code"] == "already_reported"
        another = await client.post(path, json=REASON, headers=bearer(author))
        ids.insert(0, another.json()["id"])
    listed = await pages(client, "/reports?limit=3", bearer(editor))
    assert [each["id"] for each in listed] == ids
    assert listed[-1]["reporter"]["username"] == reader.username
    assert listed[-1]["article_id"] == article.id
    assert listed[0]["comment_id"] == comment.id
    assert listed[0]["reason"] == REASON["reason"]


async def test_editor_handles_report(
    client: httpx.AsyncClient, session: AsyncSession, article: Article, editor: User, reader: User
) -> None:
    report = await create_report(session, article=article, reporter=reader)
    url = f"/reports/{report.id}"
    read = await client.get(url, headers=bearer(editor))
    assert read.json()["handled_by"] is None
    headers = {**bearer(editor), "If-Match": read.headers["ETag"]}
    changes = {"state": "in_review", "note": "Looking."}
    response = await client.patch(url, json=changes, headers=headers)
    assert response.status_code == 200
    assert {**response.json(), **changes, "handled_by": editor.id} == response.json()
    assert response.json()["handled_at"] is not None
    late = await client.patch(url, json={"state": "dismissed"}, headers=headers)
    assert late.status_code == 412
    for state, expected in (("open", []), ("in_review", [report.id]), ("resolved", [])):
        listed = await client.get(f"/reports?state={state}", headers=bearer(editor))
        assert [each["id"] for each in listed.json()] == expected
    actions = (await session.scalars(select(AuditEvent.action).order_by(AuditEvent.id))).all()
    assert actions == ["UPDATE_REPORT"]
    same = await client.patch(url, json=changes, headers=bearer(editor))
    assert same.json()["updated_at"] == response.json()["updated_at"]


async def test_report_outlives_reporter_but_not_subject(
    client: httpx.AsyncClient,
    session: AsyncSession,
    article: Article,
    author: User,
    editor: User,
    reader: User,
) -> None:
    report = await create_report(session, article=article, reporter=reader)
    await client.request(
        "DELETE", f"/users/{reader.id}", json={"password": PASSWORD}, headers=bearer(reader)
    )
    session.expunge_all()
    read = await client.get(f"/reports/{report.id}", headers=bearer(editor))
    assert read.json()["reporter"] is None
    await client.delete(f"/articles/{article.id}", headers=bearer(author))
    await client.delete(f"/trash/{article.id}", headers=bearer(author))
    gone = await client.get(f"/reports/{report.id}", headers=bearer(editor))
    assert gone.status_code == 404
    assert gone.json()["code"] == "report_not_found"


@pytest.mark.parametrize(
    "body", [{}, {"reason": ""}, {"reason": "x" * 1001}, {"reason": "\0"}, {**REASON, "state": "x"}]
)
async def test_invalid_report_is_rejected(
    client: httpx.AsyncClient, article: Article, reader: User, body: dict[str, str]
) -> None:
    response = await client.post(
        f"/articles/{article.id}/reports", json=body, headers=bearer(reader)
    )
    assert response.status_code == 422


@pytest.mark.parametrize("body", [{"state": "done"}, {"state": None}, {"reason": "x"}])
async def test_invalid_update_is_rejected(
    client: httpx.AsyncClient,
    session: AsyncSession,
    article: Article,
    editor: User,
    body: dict[str, str],
) -> None:
    report = await create_report(session, article=article, reporter=editor)
    response = await client.patch(f"/reports/{report.id}", json=body, headers=bearer(editor))
    assert response.status_code == 422


async def test_list_runs_two_queries(
    client: httpx.AsyncClient,
    session: AsyncSession,
    connection: AsyncConnection,
    article: Article,
    editor: User,
) -> None:
    for number in (1, 2):
        await create_report(session, article=article, reporter=await create_user(session))
        with statements(connection) as executed:
            listed = (await client.get("/reports", headers=bearer(editor))).json()
        assert (len(listed), len(executed)) == (number, 2)


async def test_repeated_report_is_stored_once(
    client: httpx.AsyncClient, article: Article, reader: User
) -> None:
    headers = {**bearer(reader), "Idempotency-Key": "again"}
    url = f"/articles/{article.id}/reports"
    first = await client.post(url, json=REASON, headers=headers)
    again = await client.post(url, json=REASON, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.headers["Idempotency-Replayed"] == "true"


async def test_editor_reads_deleted_comment(
    client: httpx.AsyncClient,
    session: AsyncSession,
    article: Article,
    author: User,
    editor: User,
    reader: User,
) -> None:
    comment = await create_comment(session, article=article, author=author, content="Abuse")
    url = f"/comments/{comment.id}"
    made = (await client.post(f"{url}/reports", json=REASON, headers=bearer(reader))).json()
    assert (await client.delete(url, headers=bearer(author))).status_code == 204
    report = (await client.get(f"/reports/{made['id']}", headers=bearer(editor))).json()
    assert (report["comment_content"], report["comment_author_id"]) == ("Abuse", author.id)
    assert report["comment_deleted_at"] is not None
