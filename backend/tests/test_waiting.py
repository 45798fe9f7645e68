"""No request waits for a thread while it holds a database connection.

The connection pools have one connection each. All work for thread pools is held back, and requests
of other users must be answered meanwhile. The table must list every route.
"""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from anyio import to_thread
from fastapi import FastAPI
from fastapi.routing import APIRoute, iter_route_contexts
from sqlalchemy import delete, select, text, update
from starlette.routing import Mount

from app.auth.identity import Client
from app.auth.tokens import RefreshToken, fingerprint, new_secret
from app.conduit.application import PATH as CONDUIT
from app.content.markdown import MAX_EVENT_LOOP_BYTES
from app.core import clock
from app.core.config import get_settings
from app.core.enums import Role
from app.db.session import Database
from app.main import create_app
from app.models import Article, ArticleRevision, DiscardedFolder, User, UserSession
from app.services.accounts.sessions import open_page_session
from app.services.media.discarding import remove_discarded
from app.web.csrf import FORM_COOKIE, SESSION_COOKIE
from app.web.csrf import HEADER as CSRF_HEADER
from tests.bulk.exports import (
    ghost_export,
    ghost_post,
    markdown_post,
    wordpress_post,
    wxr,
    zipped,
)
from tests.databases import migrated_database, restore_all_rows, save_all_rows
from tests.factories import PASSWORD, bearer, create_article, create_session, create_user
from tests.images import image_bytes
from tests.processes import DEADLINE
from tests.test_permissions import CALLERS, EXPECTED, create_callers, create_rows
from tests.web.pages import Page
from tests.web.test_permissions import EXPECTED as PAGES

LONG = "A long text is rendered in a thread. " * (MAX_EVENT_LOOP_BYTES // 30)
NEW_PASSWORD = "staple of a better battery"
READING_IN_A_THREAD = {
    "GET /articles/{article_id}/revisions/{revision_id}/diff",
    "GET /articles/export",
    "GET /media/{folder}/{name}",
}


@dataclass(frozen=True)
class Case:
    """A request, its caller, the expected response, and whether it waits for a thread."""

    status: int
    options: dict[str, Any] = field(default_factory=dict)
    caller: str = "owner"
    waits: bool = False
    contains: str = ""
    """A part of the response."""


RECORD = json.dumps({"title": "Imported", "content": LONG, "author": "nobody"}).encode()
CHANGES: dict[str, Case] = {
    "POST /articles": Case(201, {"json": {"title": "Title", "content": LONG}}, waits=True),
    "PATCH /articles/{article_id}": Case(200, {"json": {"content": LONG}}, waits=True),
    "PATCH /articles/{draft_id}": Case(200, {"json": {"content": LONG}}, "editor", waits=True),
    "POST /articles/{article_id}/revisions/{revision_id}/restore": Case(200, waits=True),
    "POST /articles/import": Case(
        200,
        {"content": RECORD, "headers": {"Content-Type": "application/x-ndjson"}},
        waits=True,
    ),
    "POST /media": Case(
        201, {"files": {"file": ("a.jpg", image_bytes(), "image/jpeg")}}, waits=True
    ),
    "POST /auth/login": Case(
        200, {"data": {"username": "owner@example.com", "password": PASSWORD}}, waits=True
    ),
}
"""Requests that differ from the table of permissions: those with long-running work."""

HASHING = {
    "POST /users",
    "POST /raw/users",
    "POST /users/me/password",
    "POST /users/me/email",
    "POST /users/me/export",
    "POST /users/me/api-keys",
    "POST /auth/second-factor",
    "POST /auth/second-factor/recovery-codes",
    "POST /auth/second-factor/disable",
}


def _cases() -> Iterator[tuple[str, Case]]:
    """Yield all routes that write or use a thread, with the first permitted caller."""
    for route, expectation in EXPECTED.items():
        if route.startswith("GET ") and route not in READING_IN_A_THREAD:
            continue
        statuses = dict(zip(CALLERS, expectation.statuses, strict=True))
        caller = min(("owner", "editor", "admin"), key=statuses.__getitem__)
        waits = route in HASHING or route.endswith("/diff")
        options = {} if expectation.body is None else {"json": expectation.body}
        yield route, CHANGES.get(route, Case(statuses[caller], options, caller, waits))


NEW_USER = {"username": "newname", "email": "new@example.com", "password": PASSWORD}
LOGIN = {"email": "owner@example.com", "password": PASSWORD}
NEW_ARTICLE = {"title": "Title", "description": "About", "body": LONG}
CONDUIT_CASES = {
    "POST /articles": Case(201, {"json": {"article": NEW_ARTICLE}}, waits=True),
    "PUT /articles/{slug}": Case(200, {"json": {"article": {"body": LONG}}}, waits=True),
    "DELETE /articles/{slug}": Case(204),
    "POST /articles/{slug}/favorite": Case(200),
    "DELETE /articles/{slug}/favorite": Case(200),
    "POST /articles/{slug}/comments": Case(201, {"json": {"comment": {"body": "Indeed."}}}),
    "DELETE /articles/{slug}/comments/{id}": Case(204),
    "POST /profiles/{username}/follow": Case(200, caller="editor"),
    "DELETE /profiles/{username}/follow": Case(200, caller="editor"),
    "POST /users/login": Case(200, {"json": {"user": LOGIN}}, waits=True),
    "POST /users": Case(201, {"json": {"user": NEW_USER}}, waits=True),
    "PUT /user": Case(200, {"json": {"user": {"password": NEW_PASSWORD}}}, waits=True),
}
CASES = dict(_cases()) | {
    f"{method} {CONDUIT}{path}": case
    for (method, path), case in ((route.split(), case) for route, case in CONDUIT_CASES.items())
}


RELINKED = "New URLs: 1 link to imported articles"
LINK = '<p><a href="/post-2/">A link</a></p>'


def _import_case(content_type: str, body: bytes) -> Case:
    options = {"content": body, "headers": {"Content-Type": content_type}}
    return Case(200, options, waits=True, contains=RELINKED)


CASES |= {
    "POST /articles/import?source=https://wordpress.example": _import_case(
        "application/xml", wxr(wordpress_post(1, content=LINK) + wordpress_post(2)).encode()
    ),
    "POST /articles/import?source=https://ghost.example": _import_case(
        "application/json",
        json.dumps(ghost_export([ghost_post(1, LINK), ghost_post(2)])).encode(),
    ),
    "POST /articles/import?source=blog": _import_case(
        "application/zip",
        zipped({"1.md": markdown_post(1, "[A link](2.md)"), "2.md": markdown_post(2)}),
    ),
    "GET /articles/export?format=markdown": Case(200, waits=True),
    "GET /articles/export?format=ghost": Case(200, waits=True, contains="db"),
}
"""Formats with work of their own: files are surveyed, archives unpacked, and links replaced."""

_passes: ContextVar[bool] = ContextVar("passes", default=False)


class Gate:
    """Holds back work for all thread pools until the test releases it.

    Work in a context with `_passes` is not held back.
    """

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._held: asyncio.Queue[threading.Event] = asyncio.Queue()
        self._all: list[threading.Event] = []
        self._is_open = False
        submit, run_sync = ThreadPoolExecutor.submit, to_thread.run_sync

        def held(
            pool: ThreadPoolExecutor, work: Any, /, *arguments: Any, **named: Any
        ) -> Future[Any]:
            passes = self._hold()

            def when_it_passes() -> Any:
                passes.wait(DEADLINE)
                return work(*arguments, **named)

            return submit(pool, when_it_passes)

        async def run_sync_held(work: Any, *arguments: Any, **options: Any) -> Any:
            passes = self._hold()

            def when_it_passes() -> Any:
                passes.wait(DEADLINE)
                return work(*arguments)

            return await run_sync(when_it_passes, **options)

        patch.setattr(ThreadPoolExecutor, "submit", held)
        patch.setattr(to_thread, "run_sync", run_sync_held)

    def _hold(self) -> threading.Event:
        passes = threading.Event()
        self._all.append(passes)
        if self._is_open or _passes.get():
            passes.set()
        else:
            self._held.put_nowait(passes)
        return passes

    async def next(self, request: "asyncio.Task[Any]") -> threading.Event | None:
        """Return what the request waits for; None once it is answered."""
        waiting = asyncio.create_task(self._held.get())
        await asyncio.wait(
            (request, waiting), return_when=asyncio.FIRST_COMPLETED, timeout=DEADLINE
        )
        if waiting.done():
            return waiting.result()
        waiting.cancel()
        assert request.done()
        return None

    def open(self) -> None:
        """Release all work, including later work."""
        self._is_open = True
        for each in self._all:
            each.set()


@pytest.fixture(scope="module")
def small_database_url() -> Iterator[str]:
    with migrated_database() as url:
        yield url


@pytest.fixture(scope="module")
async def small_app(
    small_database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[FastAPI]:
    """The application with one connection for writing and one for reading."""
    small = get_settings().model_copy(
        update={
            "database_url": small_database_url,
            "media_dir": tmp_path_factory.mktemp("media"),
            "raw_sql_reference": True,
            "database_pool_size": 1,
            "database_pool_timeout": 0.5,
        }
    )
    app = create_app(small)
    app.state.database = Database.from_settings(small)
    async with client_of(app) as client, app.state.database.unit_of_work() as session:
        await session.execute(select(1))
        assert (await client.get("/tags")).json() == []  # both connections are open from now on
    yield app
    await app.state.database.dispose()


def client_of(app: FastAPI) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    return httpx.AsyncClient(transport=transport, base_url="http://testserver")


class OtherUser:
    """Another user whose requests need only the database."""

    def __init__(self, client: httpx.AsyncClient, user: User, article: Article, token: str) -> None:
        self._client = client
        self._headers = bearer(user)
        self._article = f"/articles/{article.id}"
        self._token = token

    async def is_answered(self) -> None:
        requests = (
            ("PUT", f"{self._article}/favorite", None),
            ("GET", self._article, None),
            ("POST", "/auth/refresh", {"refresh_token": self._token}),
        )
        _passes.set(True)
        for method, path, body in requests:
            response = await self._client.request(method, path, json=body, headers=self._headers)
            assert response.is_success, f"{method} {path}: {response.text}"
        self._token = response.json()["refresh_token"]


@dataclass(frozen=True)
class Given:
    """The users and rows for the requests, and those of another user."""

    callers: dict[str, User]
    ids: dict[str, Any]
    user: User
    article: Article
    token: str


@pytest.fixture(scope="module")
async def given(small_app: FastAPI) -> Given:
    """What each test begins with. It is restored before each test."""
    async with small_app.state.database.unit_of_work() as session:
        callers = await create_callers(session)
        ids = await create_rows(session, callers["owner"])
        ids["id"] = ids["own_comment_id"]
        await session.execute(update(ArticleRevision).values(content=LONG))
        user = await create_user(session)
        article = await create_article(session, author=user)
        login, secret = await create_session(session, user=user), new_secret()
        login.token_hash = fingerprint(secret)
        token = str(RefreshToken.issue(login.id, secret))
        await session.execute(update(UserSession).values(by_conduit=True))  # for PUT /api/user
    async with small_app.state.database.unit_of_work() as session:
        await session.execute(text(save_all_rows()))
    return Given(callers, ids, user, article, token)


@pytest.fixture
async def client(small_app: FastAPI, given: Given) -> AsyncIterator[httpx.AsyncClient]:
    async with small_app.state.database.unit_of_work() as session:
        await session.execute(text(restore_all_rows()))
    async with client_of(small_app) as client:
        yield client


@dataclass(frozen=True)
class Scenario:
    """The users and rows for the requests, and another user."""

    callers: dict[str, User]
    ids: dict[str, Any]
    other_user: OtherUser


@pytest.fixture
def scenario(client: httpx.AsyncClient, given: Given) -> Scenario:
    other_user = OtherUser(client, given.user, given.article, given.token)
    return Scenario(given.callers, given.ids, other_user)


@pytest.fixture
def gate(scenario: Scenario) -> Iterator[Gate]:
    with pytest.MonkeyPatch.context() as patch:
        gate = Gate(patch)
        yield gate
        gate.open()


@pytest.mark.parametrize("route", CASES)
async def test_waiting_for_a_thread_holds_no_connection(
    client: httpx.AsyncClient, scenario: Scenario, gate: Gate, route: str
) -> None:
    case = CASES[route]
    method, path = route.split()
    options = {**case.options}
    options["headers"] = {**bearer(scenario.callers[case.caller]), **options.get("headers", {})}
    request = asyncio.create_task(client.request(method, path.format(**scenario.ids), **options))
    waits = 0
    try:
        while (held := await gate.next(request)) is not None:
            waits += 1
            await asyncio.create_task(scenario.other_user.is_answered())  # in its own context
            held.set()
    finally:
        gate.open()
        response = await request
    assert response.status_code == case.status, response.text
    assert case.contains in response.text
    assert waits or not case.waits


PICTURE = ("a.jpg", image_bytes(), "image/jpeg")
PASSWORDS = {"current_password": PASSWORD, "new_password": NEW_PASSWORD}
RECOVERY = {"token": "#token=x", "password": NEW_PASSWORD}
TEXT = {"title": "Title", "content": LONG}
PAGE_CASES: dict[str, Case] = {
    "POST /studio/articles": Case(303, {"data": TEXT}, waits=True),
    "POST /studio/articles/preview": Case(200, {"data": TEXT}, waits=True),
    "POST /studio/articles/pictures": Case(200, {"files": {"file": PICTURE}}, waits=True),
    "POST /studio/articles/{article_id}": Case(303, {"data": TEXT}, waits=True),
    "POST /studio/articles/{article_id}/revisions/{revision_id}": Case(303, waits=True),
    "POST /studio/media": Case(303, {"files": {"file": PICTURE}}, waits=True),
    "POST /studio/account/picture": Case(303, {"files": {"picture": PICTURE}}, waits=True),
    "POST /studio/sign-in": Case(
        303, {"data": {"username": "owner@example.com", "password": PASSWORD}}, "", waits=True
    ),
    "POST /studio/register": Case(303, {"data": {**NEW_USER, "name": "New"}}, "", waits=True),
    "POST /studio/account/password": Case(303, {"data": PASSWORDS}, waits=True),
    "POST /studio/account/email": Case(
        303, {"data": {"email": "new@example.com", "password": PASSWORD}}, waits=True
    ),
    "POST /studio/account/keys": Case(
        200,
        {"data": {"name": "Key", "scopes": "articles:write", "password": PASSWORD}},
        waits=True,
    ),
    "POST /studio/account/second-factor": Case(200, {"data": {"password": PASSWORD}}, waits=True),
    "POST /studio/account/delete": Case(
        303, {"data": {"articles": "trash", "password": PASSWORD}}, waits=True
    ),
    "POST /studio/account/data": Case(200, {"data": {"password": PASSWORD}}, waits=True),
    "POST /studio/confirm": Case(303, {"data": {"password": PASSWORD}}, waits=True),
    "POST /studio/confirm-registration": Case(400, {"data": RECOVERY}, ""),
    "POST /studio/reset-password": Case(400, {"data": RECOVERY}, ""),
}
"""Forms of pages whose requests use a thread, or hash a password."""
PAGE_IDS = {"key_id": "api_key_id", "comment_id": "own_comment_id"}
"""Path parameters of pages that have another name in `create_rows`."""


@pytest.mark.parametrize("route", sorted(each for each in PAGES if each.startswith("POST ")))
async def test_page_that_waits_for_a_thread_holds_no_connection(
    small_app: FastAPI, client: httpx.AsyncClient, scenario: Scenario, gate: Gate, route: str
) -> None:
    """Pages without a case get an empty form."""
    caller = "admin" if "/admin/" in route else "editor" if "reports" in route else "owner"
    case = PAGE_CASES.get(route, Case(0, caller=caller))
    cookie = f"{FORM_COOKIE}={new_secret()}"
    if case.caller:
        async with small_app.state.database.unit_of_work() as session:
            user_id = scenario.callers[case.caller].id
            page_token = await open_page_session(session, user_id=user_id, client=Client(None, ""))
            cookie = f"{SESSION_COOKIE}={page_token}"
    headers = {"Cookie": cookie, "Accept": "text/html", "Sec-Fetch-Site": "same-origin"}
    shown = Page(await client.get("/studio/language", headers=headers))
    headers[CSRF_HEADER] = shown.xpath('//meta[@name="csrf-token"]/@content')[0]
    ids = scenario.ids | {name: scenario.ids[known] for name, known in PAGE_IDS.items()}
    if "/trash/" in route:
        ids["article_id"] = ids["trashed_id"]
    path = route.removeprefix("POST ").format(**ids)
    request = asyncio.create_task(client.post(path, headers=headers, **case.options))
    waits = 0
    try:
        while (held := await gate.next(request)) is not None:
            waits += 1
            await asyncio.create_task(scenario.other_user.is_answered())
            held.set()
    finally:
        gate.open()
        response = await request
    assert waits or not case.waits, response.text
    if case.status:
        assert response.status_code == case.status, response.text
    else:
        assert response.status_code < 500, response.text
        assert response.status_code not in {401, 403}, response.text


async def test_failed_upload_deletes_files_without_a_connection(
    small_app: FastAPI, client: httpx.AsyncClient, scenario: Scenario, gate: Gate
) -> None:
    owner = scenario.callers["owner"]
    folder = small_app.state.storage._files
    before = set(folder.glob("*/picture.jpg"))
    files = CHANGES["POST /media"].options["files"]
    request = asyncio.create_task(client.post("/media", files=files, headers=bearer(owner)))
    held = await gate.next(request)
    async with small_app.state.database.unit_of_work() as session:
        await session.execute(delete(User).where(User.id == owner.id))
    while held is not None:
        await asyncio.create_task(scenario.other_user.is_answered())
        held.set()
        held = await gate.next(request)
    assert (await request).status_code == 401
    assert set(folder.glob("*/picture.jpg")) == before


async def test_discarded_files_are_deleted_without_a_connection(
    small_app: FastAPI, scenario: Scenario, gate: Gate
) -> None:
    database: Database = small_app.state.database
    async with database.unit_of_work() as session:
        session.add(DiscardedFolder(folder="0" * 32, discarded_at=clock.now()))
    job = asyncio.create_task(remove_discarded(database, storage=small_app.state.storage))
    held = await gate.next(job)
    assert held is not None
    await asyncio.create_task(scenario.other_user.is_answered())
    await remove_discarded(database, storage=small_app.state.storage)  # as another process
    held.set()
    assert await gate.next(job) is None
    async with database.unit_of_work() as session:
        assert (await session.scalars(select(DiscardedFolder))).all() == []


class TestWaitingTexts:
    """Requests that wait for a thread to render a long text."""

    @pytest.fixture
    def path(self, scenario: Scenario) -> str:
        return f"/articles/{scenario.ids['article_id']}"

    async def test_two_requests_per_user_may_wait(
        self, client: httpx.AsyncClient, scenario: Scenario, gate: Gate
    ) -> None:
        async def post(caller: str, content: str = LONG) -> httpx.Response:
            headers = bearer(scenario.callers[caller])
            body = {"title": "Title", "content": content}
            return await client.post("/articles", json=body, headers=headers)

        waiting = []
        for caller in ("owner", "owner", "other user"):
            waiting.append(asyncio.create_task(post(caller)))
            assert await gate.next(waiting[-1]) is not None
        refused = await post("owner")
        assert refused.status_code == 429
        assert refused.json()["code"] == "too_many_at_once"
        assert refused.headers["Retry-After"] == "1"
        _passes.set(True)
        assert (await post("owner", "A short text is not concerned.")).status_code == 201
        _passes.set(False)
        gate.open()
        assert {(await each).status_code for each in waiting} == {201}
        assert (await post("owner")).status_code == 201

    @pytest.mark.parametrize(
        ("change", "status"), [({"is_active": False}, 401), ({"role": Role.AUTHOR}, 403)]
    )
    async def test_identity_is_rechecked_after_waiting(
        self,
        small_app: FastAPI,
        client: httpx.AsyncClient,
        scenario: Scenario,
        gate: Gate,
        path: str,
        change: dict[str, Any],
        status: int,
    ) -> None:
        editor = scenario.callers["editor"]
        request = asyncio.create_task(
            client.patch(path, json={"content": LONG}, headers=bearer(editor))
        )
        held = await gate.next(request)
        assert held is not None
        async with small_app.state.database.unit_of_work() as session:
            await session.execute(update(User).where(User.id == editor.id).values(**change))
        held.set()
        assert (await request).status_code == status
        article = (await client.get(path)).json()
        assert article["version"] == 1

    async def test_one_of_two_concurrent_changes_succeeds(
        self, client: httpx.AsyncClient, scenario: Scenario, gate: Gate, path: str
    ) -> None:
        headers = bearer(scenario.callers["owner"])
        read = await client.get(path, headers=headers)
        headers["If-Match"] = read.headers["ETag"]
        requests = []
        for number in (1, 2):
            body = {"content": f"{number}. {LONG}"}
            requests.append(asyncio.create_task(client.patch(path, json=body, headers=headers)))
            assert await gate.next(requests[-1]) is not None
        gate.open()
        statuses = [(await each).status_code for each in requests]
        assert sorted(statuses) == [200, 412]

    async def test_repeated_request_is_executed_once(
        self, client: httpx.AsyncClient, scenario: Scenario, gate: Gate
    ) -> None:
        headers = {**bearer(scenario.callers["owner"]), "Idempotency-Key": "once"}
        body = {"title": "Once", "content": LONG}
        requests = []
        for _ in range(2):
            send = client.post("/articles", json=body, headers=headers)
            requests.append(asyncio.create_task(send))
            assert await gate.next(requests[-1]) is not None
        gate.open()
        answers = [await each for each in requests]
        made = [answer for answer in answers if answer.status_code == 201]
        others = [answer for answer in answers if answer.status_code != 201]
        assert all(answer.json()["code"] == "request_in_progress" for answer in others)
        assert len({answer.json()["id"] for answer in made}) == 1
        again = await client.post("/articles", json=body, headers=headers)
        assert again.headers["Idempotency-Replayed"] == "true"
        assert again.content == made[0].content


def test_every_write_route_is_in_the_table(small_app: FastAPI) -> None:
    (conduit,) = (
        route.app
        for route in small_app.routes
        if isinstance(route, Mount) and route.path == CONDUIT and isinstance(route.app, FastAPI)
    )
    routes = {
        f"{method} {CONDUIT}{route.path_format}"
        for route in iter_route_contexts(conduit.routes)
        if isinstance(route.original_route, APIRoute)
        for method in route.methods or ()
        if method != "GET"
    }
    assert routes == {route for route in CASES if f" {CONDUIT}/" in route}
