"""Revocation of access during requests: streams, late steps, links, repeated requests."""

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from functools import partial
from typing import Any, NamedTuple, Self
from uuid import uuid4

import httpx
import pytest
from sqlalchemy import delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from app.auth.identity import Identity, find_by_api_key, find_by_session
from app.auth.tokens import fingerprint
from app.core.enums import ExportFormat, Role
from app.core.errors import InvalidToken, NotAuthorized, RequestTimedOut
from app.core.limits import DEFAULTS, MAX_AMOUNT, LimitKind
from app.core.streams import Deadline
from app.db.session import Database
from app.models import Article, Import, LimitOverride, Media, User
from app.services.bulk import exporting, importing, relinking, statements
from app.services.media import images
from tests.bulk.exports import (
    ghost_export,
    ghost_post,
    markdown_post,
    wordpress_post,
    wxr,
    zipped,
)
from tests.factories import (
    PASSWORD,
    api_key,
    bearer,
    create_article,
    create_session,
    create_user,
)
from tests.images import image_bytes
from tests.inbox import Inbox
from tests.security.conftest import ClientAt, waiting_for_a_lock

UPLOADS = DEFAULTS[LimitKind.UPLOADS_AT_ONCE].amount
"""Concurrent uploads that one user may send."""
Rows = Callable[[], AbstractAsyncContextManager[AsyncSession]]
CLIENTS = 8


class Scenario(NamedTuple):
    """An editor with a session or an API key, and a function that revokes their access."""

    editor: User
    author: User
    headers: dict[str, str]
    withdraw: Callable[[str], Awaitable[None]]


class Writing(NamedTuple):
    """A user's request that waits until `release` is called, and their credentials."""

    user: User
    credentials: list[dict[str, str]]
    request: "asyncio.Task[httpx.Response]"
    release: Callable[[], Awaitable[None]]


@pytest.fixture(params=["session", "key"])
async def scenario(
    request: pytest.FixtureRequest, live: httpx.AsyncClient, live_rows: Rows
) -> Scenario:
    async with live_rows() as session:
        editor = await create_user(session, role=Role.EDITOR)
        author = await create_user(session)
        admin = await create_user(session, role=Role.ADMIN)
        scopes = ["articles:read", "articles:write", "media:write"]
        key = await api_key(session, user=editor, scopes=scopes)
    by_key = request.param == "key"

    async def withdraw(how: str) -> None:
        url, own = f"/users/{editor.id}", bearer(editor)
        match how:
            case "disable":
                answer = await live.post(f"{url}/disable", headers=bearer(admin))
            case "demote":
                role = {"role": "author"}
                answer = await live.patch(f"{url}/role", json=role, headers=bearer(admin))
            case "delete":
                answer = await live.delete(url, headers=bearer(admin))
            case "end" if by_key:
                (listed,) = (await live.get("/users/me/api-keys", headers=own)).json()
                answer = await live.delete(f"/users/me/api-keys/{listed['id']}", headers=own)
            case _:
                answer = await live.post("/auth/logout-all", headers=own)
        assert answer.is_success, answer.text

    return Scenario(editor, author, key if by_key else bearer(editor), withdraw)


def record(author: User, number: int) -> bytes:
    fields = {
        "title": f"Article {number}",
        "content": "Written by an import.",
        "slug": f"{author.username}-{uuid4().hex}",
        "author": author.username,
        "published_at": "2001-01-01T00:00:00Z",
    }
    return json.dumps(fields).encode() + b"\n"


async def count_of(rows: Rows, author: User) -> int:
    query = select(func.count()).select_from(Article).where(Article.author_id == author.id)
    async with rows() as session:
        return await session.scalar(query) or 0


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until `condition`, which queries the database, is true."""
    async with asyncio.timeout(60):
        while not await condition():  # noqa: ASYNC110 - the database has no event for it
            await asyncio.sleep(0.01)


@pytest.fixture
def one_record_a_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importing, "BATCH", 1)


class Batches:
    """Lets the batches of imports pass one by one, by the lock that they take."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        await self._hold()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.aclose()

    async def _hold(self) -> None:
        session = await self._stack.enter_async_context(self._rows())
        lock = {"lock": statements.IMPORTS_LOCK}
        await session.execute(statements.ACQUIRE_IMPORTS_LOCK, lock)

    async def pass_one(self) -> None:
        """Return when a batch is written, and the next one waits."""
        await waiting_for_a_lock(self._rows)
        before, self._stack = self._stack, AsyncExitStack()
        holding = asyncio.create_task(self._hold())  # after the batch: locks are first-come
        await waiting_for_a_lock(self._rows, count=2)
        await before.aclose()
        await holding
        await waiting_for_a_lock(self._rows)


def import_of(
    client: httpx.AsyncClient,
    headers: dict[str, str],
    *records: bytes,
    content_type: str = "application/x-ndjson",
    **query: str,
) -> Awaitable[httpx.Response]:
    headers = {"Content-Type": content_type, "Prefer": "respond-async", **headers}
    content = b"".join(records)
    return client.post("/articles/import", content=content, params=query, headers=headers)


NUMBERS = (1, 2, 3)
FOREIGN: dict[str, bytes] = {
    "application/xml": wxr("".join(map(wordpress_post, NUMBERS))).encode(),
    "application/json": json.dumps(ghost_export([*map(ghost_post, NUMBERS)])).encode(),
    "application/zip": zipped({f"{number}.md": markdown_post(number) for number in NUMBERS}),
}
"""Bodies with three articles each, by their Content-Types."""


async def result_of(rows: Rows, answer: httpx.Response) -> tuple[str, str, dict[str, Any]]:
    """Return the state, message and counts of an import after its end."""
    assert answer.status_code == 202, answer.text
    found: Any = None

    async def has_ended() -> bool:
        nonlocal found
        async with rows() as session:
            found = await session.get(Import, answer.json()["id"])
        return found is None or found.finished_at is not None

    await until(has_ended)
    return found and (found.state, found.message, found.summary)


@pytest.mark.usefixtures("one_record_a_batch")
class TestImports:
    @pytest.mark.parametrize("how", ["disable", "delete", "end"])
    async def test_import_stops_after_revocation(
        self, live: httpx.AsyncClient, live_rows: Rows, scenario: Scenario, how: str
    ) -> None:
        lines = [record(scenario.author, number) for number in range(6)]
        async with Batches(live_rows) as batches:
            answer = await import_of(live, scenario.headers, *lines)
            await batches.pass_one()
            await scenario.withdraw(how)
        result = await result_of(live_rows, answer)
        if how != "delete":
            state, message, summary = result
            assert (state, summary["created"], summary["failed"]) == ("failed", 1, 0)
            assert "Your access ended" in message
        assert await count_of(live_rows, scenario.author) == 1
        polled = await live.get(answer.headers["Location"], headers=scenario.headers)
        assert polled.status_code == 401

    @pytest.mark.parametrize(
        ("scenario", "content_type"),
        [*(("session", each) for each in FOREIGN), ("key", "application/zip")],
        indirect=["scenario"],
    )
    async def test_import_of_another_system_stops_after_revocation(
        self, live: httpx.AsyncClient, live_rows: Rows, scenario: Scenario, content_type: str
    ) -> None:
        query = {"source": "https://blog.example", "author": scenario.author.username}
        body = FOREIGN[content_type]
        async with Batches(live_rows) as batches:
            answer = await import_of(
                live, scenario.headers, body, content_type=content_type, **query
            )
            await batches.pass_one()
            await scenario.withdraw("end")
        state, message, summary = await result_of(live_rows, answer)
        assert (state, summary["created"], summary["failed"]) == ("failed", 1, 0)
        assert "Your access ended" in message
        assert await count_of(live_rows, scenario.author) == 1

    @pytest.mark.parametrize(
        ("scenario", "how", "state", "is_changed"),
        [
            ("session", "end", "failed", False),
            ("key", "end", "failed", False),
            ("session", "demote", "completed", False),
            ("key", "nothing", "completed", True),
        ],
        indirect=["scenario"],
    )
    async def test_links_are_not_changed_after_revocation(
        self,
        live: httpx.AsyncClient,
        live_rows: Rows,
        scenario: Scenario,
        monkeypatch: pytest.MonkeyPatch,
        how: str,
        state: str,
        is_changed: bool,
    ) -> None:
        """The access ends after the last batch, before the links are looked up again."""
        finish = relinking.Relinker.finish

        async def withdraw_and_finish(relinker: relinking.Relinker, *args: Any) -> None:
            if how != "nothing":
                await scenario.withdraw(how)
            await finish(relinker, *args)

        monkeypatch.setattr(relinking.Relinker, "finish", withdraw_and_finish)
        texts = {"1.md": markdown_post(1, "[later](2.md)"), "2.md": markdown_post(2)}
        query = {"source": "blog", "author": scenario.author.username}
        answer = await import_of(
            live, scenario.headers, zipped(texts), content_type="application/zip", **query
        )
        result, _, summary = await result_of(live_rows, answer)
        assert (result, summary["created"]) == (state, 2)
        text = select(Article.content).where(
            Article.author_id == scenario.author.id, Article.content.contains("later")
        )
        async with live_rows() as session:
            content = await session.scalar(text)
        assert content is not None
        assert ("[later](2.md)" not in content) is is_changed

    async def test_demoted_editor_imports_only_own_articles(
        self, live: httpx.AsyncClient, live_rows: Rows, scenario: Scenario
    ) -> None:
        lines = [record(scenario.author, number) for number in range(3)]
        async with Batches(live_rows) as batches:
            answer = await import_of(live, scenario.headers, *lines, record(scenario.editor, 4))
            await batches.pass_one()
            await scenario.withdraw("demote")
        state, _, summary = await result_of(live_rows, answer)
        assert (state, summary["created"], summary["failed"]) == ("completed", 2, 2)
        assert {error["line"] for error in summary["errors"]} == {2, 3}
        assert await count_of(live_rows, scenario.author) == 1
        assert await count_of(live_rows, scenario.editor) == 1

    async def test_nothing_is_written_after_revocation(
        self, live: httpx.AsyncClient, live_rows: Rows, scenario: Scenario
    ) -> None:
        """The batch that is being written delays the revocation."""
        lines = [record(scenario.author, number) for number in range(100)]
        answer = await import_of(live, scenario.headers, *lines)

        async def some_are_written() -> bool:
            return await count_of(live_rows, scenario.author) >= CLIENTS

        await until(some_are_written)
        await scenario.withdraw("disable")
        at_the_answer = await count_of(live_rows, scenario.author)
        await result_of(live_rows, answer)
        assert await count_of(live_rows, scenario.author) == at_the_answer < len(lines)

    async def test_access_is_checked_before_the_response(
        self, live: httpx.AsyncClient, live_rows: Rows, scenario: Scenario
    ) -> None:
        async def body() -> AsyncIterator[bytes]:
            yield record(scenario.author, 1)
            await scenario.withdraw("disable")
            yield record(scenario.author, 2)

        headers = {**scenario.headers, "Content-Type": "application/x-ndjson"}
        answer = await live.post("/articles/import", content=body(), headers=headers)
        assert answer.status_code == 401, answer.text
        assert await count_of(live_rows, scenario.author) == 0

    async def test_import_beyond_its_deadline_keeps_written_records(
        self,
        live: httpx.AsyncClient,
        live_rows: Rows,
        scenario: Scenario,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        timeouts: dict[float | None, asyncio.Timeout] = {}
        create = asyncio.timeout

        def timeout(seconds: float | None) -> asyncio.Timeout:
            created = timeouts[seconds] = create(seconds)
            return created

        monkeypatch.setattr(asyncio, "timeout", timeout)
        lines = [record(scenario.author, number) for number in range(4)]
        async with Batches(live_rows) as batches:
            answer = await import_of(live, scenario.headers, *lines)
            await batches.pass_one()
            timeouts[3600].reschedule(0)
            state, message, summary = await result_of(live_rows, answer)
        assert (state, summary["created"]) == ("failed", 1)
        assert "longer than the limit of 3600 seconds" in message
        assert await count_of(live_rows, scenario.author) == 1


async def test_stalled_stream_ends_at_its_deadline() -> None:
    async def stalled() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b"a"

    with pytest.raises(RequestTimedOut):
        [chunk async for chunk in Deadline(0.01).limit(stalled())]


async def test_endless_stream_ends_at_its_deadline() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"a"

    with pytest.raises(RequestTimedOut):
        [chunk async for chunk in Deadline(0.01).limit(endless())]


REVOCATIONS = pytest.mark.parametrize(
    ("change", "error"),
    [
        (update(User).values(is_active=False), InvalidToken),
        (update(User).values(role=Role.AUTHOR), NotAuthorized),
    ],
    ids=["disabled", "demoted"],
)


class TestExports:
    @pytest.fixture(params=["session", "key"])
    async def identity(self, request: pytest.FixtureRequest, session: AsyncSession) -> Identity:
        editor = await create_user(session, role=Role.EDITOR)
        found: Identity | None
        if request.param == "session":
            login = await create_session(session, user=editor)
            found = await find_by_session(session, user_id=editor.id, session_id=login.id)
        else:
            header = await api_key(session, user=editor, scopes=["articles:read"])
            hashed = fingerprint(header["Authorization"].removeprefix("Bearer "))
            known = await find_by_api_key(await session.connection(), fingerprint=hashed)
            found = known and known.identity
        assert found is not None
        return found

    @REVOCATIONS
    async def test_export_stops_after_revocation(
        self,
        session: AsyncSession,
        database: Database,
        identity: Identity,
        monkeypatch: pytest.MonkeyPatch,
        change: Any,
        error: type[Exception],
    ) -> None:
        monkeypatch.setattr(exporting, "BATCH", 1)
        author = await create_user(session)
        for _ in range(3):
            await create_article(session, author=author, published=False)
        lines = exporting.export_lines(database, viewer=identity, deadline=Deadline(60))
        assert "content" in json.loads(await anext(lines))
        await session.execute(change.where(User.id == identity.id))
        assert json.loads(await anext(lines)).keys() == {"error"}
        with pytest.raises(error):
            await anext(lines)

    @pytest.mark.parametrize(
        ("export_format", "parts_before"), [(ExportFormat.MARKDOWN, 1), (ExportFormat.GHOST, 2)]
    )
    @REVOCATIONS
    async def test_export_in_another_format_stops_after_revocation(
        self,
        session: AsyncSession,
        database: Database,
        identity: Identity,
        monkeypatch: pytest.MonkeyPatch,
        change: Any,
        error: type[Exception],
        export_format: ExportFormat,
        parts_before: int,
    ) -> None:
        """The file remains incomplete, so that nobody takes it for the whole export."""
        monkeypatch.setattr(exporting, "BATCH", 1)
        author = await create_user(session)
        for number in range(3):
            await create_article(session, author=author, published=False, title=f"Secret {number}")
        parts = await exporting.start_export(
            database, viewer=identity, export_format=export_format, deadline=Deadline(60)
        )
        received = [await anext(parts) for _ in range(parts_before)]
        await session.execute(change.where(User.id == identity.id))
        with pytest.raises(error):
            received += [part async for part in parts]
        content = b"".join(received)
        if export_format is ExportFormat.MARKDOWN:
            assert not zipfile.is_zipfile(io.BytesIO(content))
            assert content.count(b"PK\x03\x04") == 1
        else:
            assert content.count(b"Secret 0") > 0
            assert b"Secret 1" not in content
            with pytest.raises(ValueError, match="Expecting"):
                json.loads(content)

    async def test_export_beyond_its_deadline_is_reported(
        self, session: AsyncSession, database: Database, identity: Identity
    ) -> None:
        await create_article(session, author=await create_user(session))
        deadline = Deadline(1)
        deadline._at = 0
        lines = exporting.export_lines(database, viewer=identity, deadline=deadline)
        assert "longer than" in json.loads(await anext(lines))["error"]
        with pytest.raises(RequestTimedOut):
            await anext(lines)


FORM = {"Content-Type": "multipart/form-data; boundary=frontier"}
HEAD = (
    b'--frontier\r\nContent-Disposition: form-data; name="file"; filename="a.png"\r\n'
    b"Content-Type: image/png\r\n\r\n"
)
TAIL = b"\r\n--frontier--\r\n"
IMAGE = image_bytes("PNG", size=(8, 8))


async def images_of(rows: Rows, owner: User) -> int:
    query = select(func.count()).select_from(Media).where(Media.owner_id == owner.id)
    async with rows() as session:
        return await session.scalar(query) or 0


SOME_WAYS = pytest.mark.parametrize(
    ("scenario", "how"),
    [("session", "disable"), ("key", "delete"), ("session", "end"), ("key", "end")],
    indirect=["scenario"],
)
"""The ways of withdrawal, where another test of the same check has all combinations."""


class TestUploads:
    @pytest.mark.parametrize("how", ["disable", "delete", "end"])
    async def test_upload_of_user_disabled_during_transfer_is_refused(
        self, live: httpx.AsyncClient, live_rows: Rows, scenario: Scenario, how: str
    ) -> None:
        async def body() -> AsyncIterator[bytes]:
            yield HEAD
            await scenario.withdraw(how)
            yield IMAGE + TAIL

        headers = {**FORM, **scenario.headers}
        answer = await live.post("/media", content=body(), headers=headers)
        assert answer.status_code == 401, answer.text
        assert await images_of(live_rows, scenario.editor) == 0

    @SOME_WAYS
    async def test_upload_of_user_disabled_during_encoding_is_refused(
        self,
        live: httpx.AsyncClient,
        live_rows: Rows,
        scenario: Scenario,
        how: str,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        reencode = images.reencode

        async def reencode_and_revoke(*args: Any, **options: Any) -> Any:
            made = await reencode(*args, **options)
            await scenario.withdraw(how)
            return made

        monkeypatch.setattr(images, "reencode", reencode_and_revoke)
        form = {"file": ("a.png", IMAGE)}
        answer = await live.post("/media", files=form, headers=scenario.headers)
        assert answer.status_code == 401, answer.text
        assert await images_of(live_rows, scenario.editor) == 0

    @SOME_WAYS
    async def test_repeated_upload_gets_no_stored_response(
        self, live: httpx.AsyncClient, live_rows: Rows, scenario: Scenario, how: str
    ) -> None:
        headers = {**FORM, **scenario.headers, "Idempotency-Key": uuid4().hex}
        content = IMAGE + TAIL
        first = await live.post("/media", content=HEAD + content, headers=headers)
        assert first.status_code == 201, first.text

        async def body() -> AsyncIterator[bytes]:
            yield HEAD
            await scenario.withdraw(how)
            yield content

        again = await live.post("/media", content=body(), headers=headers)
        assert again.status_code == 401, again.text


async def test_concurrent_uploads_store_nothing_after_revocation(
    live_client_at: ClientAt, live_rows: Rows, scenario: Scenario
) -> None:
    """Each upload locks its owner's row to count, without deadlocks."""
    started = asyncio.Barrier(UPLOADS + 1)
    at_the_answer = 0

    async def body() -> AsyncIterator[bytes]:
        yield HEAD
        await started.wait()
        yield IMAGE + TAIL

    async def upload() -> httpx.Response:
        async with live_client_at() as client:
            headers = {**FORM, **scenario.headers}
            return await client.post("/media", content=body(), headers=headers)

    async def withdraw() -> None:
        nonlocal at_the_answer
        await started.wait()
        await scenario.withdraw("disable")
        at_the_answer = await images_of(live_rows, scenario.editor)

    uploads = asyncio.gather(*(upload() for _ in range(UPLOADS)))
    answers, _ = await asyncio.gather(uploads, withdraw())
    statuses = [answer.status_code for answer in answers]
    assert set(statuses) <= {201, 401}
    assert await images_of(live_rows, scenario.editor) == at_the_answer == statuses.count(201)


@pytest.mark.parametrize(
    ("change", "works_again"),
    [
        (update(User).values(is_active=False), update(User).values(is_active=True)),
        (update(User).values(role=Role.AUTHOR), update(User).values(role=Role.ADMIN)),
        (delete(User), None),
    ],
    ids=["disabled", "demoted", "deleted"],
)
async def test_preview_link_has_the_permissions_of_its_creator(
    client: httpx.AsyncClient, session: AsyncSession, change: Any, works_again: Any
) -> None:
    editor = await create_user(session, role=Role.EDITOR)
    author = await create_user(session)
    draft = await create_article(session, author=author, published=False)
    tokens = []
    for user in (editor, author):
        url = f"/articles/{draft.id}/preview-links"
        made = await client.post(url, json={"expires_in_hours": 720}, headers=bearer(user))
        tokens.append(made.json()["token"])

    async def statuses() -> list[int]:
        return [(await client.get(f"/previews/{token}")).status_code for token in tokens]

    assert await statuses() == [200, 200]
    await session.execute(change.where(User.id == editor.id))
    assert await statuses() == [404, 200]
    if works_again is not None:
        await session.execute(works_again.where(User.id == editor.id))
        assert await statuses() == [200, 200]


async def test_preview_link_of_author_ends_after_reassignment(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    before, after = await create_user(session), await create_user(session)
    draft = await create_article(session, author=before, published=False)
    url = f"/articles/{draft.id}/preview-links"
    token = (await client.post(url, json={}, headers=bearer(before))).json()["token"]
    await session.execute(update(Article).values(author_id=after.id))
    assert (await client.get(f"/previews/{token}")).status_code == 404


async def test_repeated_request_of_disabled_user_gets_no_stored_response(
    client: httpx.AsyncClient, session: AsyncSession
) -> None:
    user = await create_user(session)
    headers = {**bearer(user), "Idempotency-Key": uuid4().hex}
    body = {"title": "A title", "content": "Some content, long enough."}
    assert (await client.post("/articles", json=body, headers=headers)).status_code == 201
    await session.execute(update(User).where(User.id == user.id).values(is_active=False))
    assert (await client.post("/articles", json=body, headers=headers)).status_code == 401


async def test_links_from_before_disabling_stay_revoked(
    client: httpx.AsyncClient, session: AsyncSession, inbox: Inbox
) -> None:
    admin = await create_user(session, role=Role.ADMIN)
    user = await create_user(session)
    await client.post("/auth/password/forgot", json={"email": user.email})
    token = await inbox.token()
    for step in ("disable", "enable"):
        answer = await client.post(f"/users/{user.id}/{step}", headers=bearer(admin))
        assert answer.status_code == 200
    body = {"token": token, "password": "staple of a better battery"}
    assert (await client.post("/auth/password/reset", json=body)).status_code == 400


@pytest.mark.parametrize("credential", ["session", "key"])
async def test_concurrent_writes_during_account_deletion_lose_nothing(
    live_client_at: ClientAt, live_rows: Rows, credential: str
) -> None:
    """Each article is either refused or in the trash. Constant writing does not delay the deletion.

    Creations and changes both lock the author's row FOR KEY SHARE.
    """
    async with live_rows() as session:
        user = await create_user(session)
        key = await api_key(session, user=user, scopes=["articles:write"])
        session.add_all(
            LimitOverride(user_id=user.id, kind=kind.value, amount=MAX_AMOUNT)
            for kind in (LimitKind.ARTICLES, LimitKind.CHANGES, LimitKind.DRAFTS)
        )
        articles = [await create_article(session, author=user) for _ in range(CLIENTS)]
    headers = key if credential == "key" else bearer(user)
    begun, deleted = asyncio.Event(), asyncio.Event()
    title = f"Of {user.username}"
    created = changed = 0

    async def create(client: httpx.AsyncClient) -> int:
        nonlocal created
        body = {"title": title, "content": "Written while leaving."}
        answer = await client.post("/articles", json=body, headers=headers)
        created += answer.status_code == 201
        return answer.status_code

    async def change(client: httpx.AsyncClient, article: Article) -> int:
        nonlocal changed
        url, body = f"/articles/{article.id}", {"content": f"Text {uuid4().hex}"}
        answer = await client.patch(url, json=body, headers=headers)
        changed += answer.status_code == 200
        return answer.status_code

    async def write(request: Callable[[httpx.AsyncClient], Awaitable[int]]) -> set[int]:
        statuses: set[int] = set()
        async with live_client_at() as client:
            while not deleted.is_set() or not statuses & {401}:
                statuses.add(await request(client))
                if min(created, changed) >= CLIENTS:
                    begun.set()
        return statuses

    async def delete() -> None:
        await begun.wait()
        async with live_client_at() as client:
            answer = await client.request(
                "DELETE", f"/users/{user.id}", json={"password": PASSWORD}, headers=bearer(user)
            )
        deleted.set()
        assert answer.status_code == 204, answer.text

    requests: list[Callable[[httpx.AsyncClient], Awaitable[int]]]
    requests = [*[create] * CLIENTS, *(partial(change, article=each) for each in articles)]
    writes = asyncio.gather(*map(write, requests))
    statuses, _ = await asyncio.gather(writes, delete())
    assert set[int]().union(*statuses) <= {200, 201, 401, 404, 503}
    query = select(func.count()).where(Article.title == title, Article.deleted_at.is_not(None))
    async with live_rows() as session:
        assert await session.scalar(query) == created


@pytest.fixture
async def writing(live: httpx.AsyncClient, live_rows: Rows) -> AsyncIterator[Writing]:
    """Return a user with a request that waits for an article, which the caller releases."""
    async with live_rows() as session:
        user = await create_user(session)
        article = await create_article(session, author=user)
        key = await api_key(session, user=user, scopes=["articles:write"])
    async with live_rows() as session:
        await session.execute(select(Article.id).where(Article.id == article.id).with_for_update())
        url, body = f"/articles/{article.id}", {"title": "Changed before leaving"}
        request = asyncio.create_task(live.patch(url, json=body, headers=bearer(user)))
        await waiting_for_a_lock(live_rows)
        yield Writing(user, [bearer(user), key], request, session.rollback)
    await request


async def test_deletion_waits_only_for_requests_before_it(
    live: httpx.AsyncClient, live_rows: Rows, writing: Writing
) -> None:
    url, own = f"/users/{writing.user.id}", bearer(writing.user)
    async with live_rows() as session:
        admin = await create_user(session, role=Role.ADMIN)
    deleting = asyncio.create_task(live.delete(url, headers=bearer(admin)))
    await waiting_for_a_lock(live_rows, count=2)
    body = {"title": "Too late", "content": "Written while leaving."}
    for headers in writing.credentials:
        late = await live.post("/articles", json=body, headers=headers)
        assert (late.status_code, late.json()["code"]) == (503, "service_unavailable")
    assert (await live.get("/auth/me", headers=own)).status_code == 200
    await writing.release()
    assert (await writing.request).status_code == 200
    assert (await deleting).status_code == 204
    for headers in writing.credentials:
        late = await live.post("/articles", json=body, headers=headers)
        assert late.status_code == 401


async def test_refused_deletion_refuses_no_request(
    live: httpx.AsyncClient, live_rows: Rows, writing: Writing
) -> None:
    async with live_rows() as session:
        other = await create_user(session)
    url = f"/users/{writing.user.id}"
    assert (await live.delete(url, headers=bearer(other))).status_code == 403
    assert not writing.request.done()  # the refused deletion has not waited for it
    body = {"title": "Still here", "content": "Written without waiting."}
    for headers in writing.credentials:
        assert (await live.post("/articles", json=body, headers=headers)).status_code == 201


async def test_mutual_reassignment_loses_no_article(
    live_client_at: ClientAt, live_rows: Rows
) -> None:
    async with live_rows() as session:
        admin = await create_user(session, role=Role.ADMIN)
        pair = [await create_user(session) for _ in range(2)]
        articles = [await create_article(session, author=user) for user in pair]

    async def delete(user: User, to: User) -> int:
        query = {"articles": "reassign", "to": str(to.id)}
        async with live_client_at() as client:
            answer = await client.delete(f"/users/{user.id}", params=query, headers=bearer(admin))
        return answer.status_code

    statuses = await asyncio.gather(delete(*pair), delete(*pair[::-1]))
    assert sorted(statuses) == [204, 422]
    kept = select(func.count()).where(Article.id.in_([each.id for each in articles]))
    async with live_rows() as session:
        assert await session.scalar(kept) == 2
