"""The client that blocks; `test_async_client.py` tests the other one."""

import io
import json
from base64 import b64decode
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from uuid import uuid4

import httpx
import pytest
from conftest import PASSWORD, publish

from pressroom_client import Client, MemoryStore, PressroomError, Retry, errors, models

PIXEL = b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
QUICK = Retry(max_pause=0.05)


class Transport(httpx.HTTPTransport):
    """Counts the requests, and lets `change` replace their responses."""

    def __init__(
        self,
        change: Callable[[httpx.Request, httpx.Response], httpx.Response] = lambda _, each: each,
    ) -> None:
        super().__init__()
        self.change = change
        self.requests: list[httpx.Request] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        return self.change(request, super().handle_request(request))

    @property
    def paths(self) -> Counter[str]:
        return Counter(request.url.path for request in self.requests)


def http(transport: Transport) -> httpx.Client:
    return httpx.Client(transport=transport)


def test_session_identifies_its_user(client: Client, user: models.UserPrivate) -> None:
    identity = client.read_identity()
    assert identity.username == user.username


def test_etag_protects_a_change(client: Client) -> None:
    article = publish(client, "Notes")
    assert article.etag
    changed = client.update_article(
        article.id, models.ArticleUpdate(title="Notes on engines"), if_match=article.etag
    )
    assert changed.etag != article.etag
    with pytest.raises(errors.PreconditionFailed) as caught:
        client.update_article(article.id, models.ArticleUpdate(title="x"), if_match=article.etag)
    assert caught.value.status == 412
    client.delete_article(article.id)


def test_only_fields_that_are_set_are_sent(client: Client) -> None:
    article = publish(client, "Excerpts")
    changed = client.update_article(article.id, models.ArticleUpdate(excerpt="Short."))
    assert (changed.title, changed.excerpt) == ("Excerpts", "Short.")
    derived = client.update_article(article.id, models.ArticleUpdate(excerpt=None))
    assert derived.excerpt != "Short."


def test_errors_have_the_class_of_their_code(client: Client) -> None:
    with pytest.raises(errors.ArticleNotFound) as caught:
        client.read_article(2**40)
    assert caught.value.code == "article_not_found"
    assert caught.value.request_id == caught.value.body.request_id
    with pytest.raises(errors.InvalidInput) as invalid:
        client.create_article(models.ArticleCreate(title="", content="x"))
    findings = invalid.value.body.detail
    assert isinstance(findings, list)
    assert findings[0].loc == ["body", "title"]


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"<html>", "unknown"),
        (b'["a list"]', "unknown"),
        (b'{"code": "from_the_future", "message": "New"}', "from_the_future"),
        (b'{"code": "article_not_found"}', "unknown"),
    ],
)
def test_other_errors_have_the_base_class(url: str, content: bytes, code: str) -> None:
    transport = Transport(lambda *_: httpx.Response(404, content=content))
    with Client(url, http=http(transport)) as client, pytest.raises(PressroomError) as caught:
        client.read_index()
    assert (type(caught.value), caught.value.code) == (PressroomError, code)


def test_each_yields_the_items_of_all_pages(client: Client, user: models.UserPrivate) -> None:
    tag = uuid4().hex
    for title in ("One", "Two", "Three"):
        publish(client, title, tag)
    titles = [each.title for each in client.each(client.list_articles, tag=[tag], limit=2)]
    assert titles == ["Three", "Two", "One"]
    page = client.list_articles(tag=[tag], limit=2, count=True)
    assert (page[0].title, len(page), page.total) == ("Three", 2, 3)
    assert page.next
    assert client.list_articles(tag=[tag], cursor=page.next).next is None
    parts = client.list_articles(tag=[tag], fields="slug")
    assert all(part.model_fields_set == {"slug"} for part in parts)
    client.login(models.LoginForm(username=user.username, password=PASSWORD))
    assert len(list(client.each(client.list_sessions, limit=1))) >= 2
    with pytest.raises(TypeError, match="no list"):
        next(client.each(client.read_index))  # type: ignore[arg-type]  # what the test is for


def test_changes_continue_after_a_cursor(client: Client) -> None:
    end = client.list_changes(cursor="latest").next
    article = publish(client, "A change")
    changes = list(client.changes(cursor=end))
    assert [(change.kind, change.article_id) for change in changes] == [("created", article.id)]
    assert list(client.changes(cursor=changes[0].cursor)) == []
    with pytest.raises(errors.InvalidCursor):
        next(client.changes(cursor="unknown"))


@pytest.mark.parametrize("change", [{"expires_at": 0}, {"access_token": "broken"}])
def test_token_is_refreshed_once_for_all_threads(
    url: str, user: models.UserPrivate, change: dict[str, object]
) -> None:
    transport, store = Transport(), MemoryStore()
    with Client(url, store=store, http=http(transport)) as client:
        client.login(models.LoginForm(username=user.username, password=PASSWORD))
        old = store.tokens
        assert old
        store.tokens = replace(old, **change)  # type: ignore[arg-type]  # one field of either type
        with ThreadPoolExecutor(5) as pool:
            names = list(pool.map(lambda _: client.read_identity().username, range(5)))
    assert names == [user.username] * 5
    assert transport.paths["/auth/refresh"] == 1
    new = store.get()
    assert new is not None
    assert new.refresh_token != old.refresh_token


def test_session_that_has_ended_is_forgotten(url: str, user: models.UserPrivate) -> None:
    store = MemoryStore()
    with Client(url, store=store) as client:
        client.login(models.LoginForm(username=user.username, password=PASSWORD))
        tokens = store.tokens
        assert tokens
        client.log_out()
        assert store.get() is None
        store.tokens = replace(tokens, expires_at=0)
        with pytest.raises(errors.NotAuthenticated):
            client.read_identity()
        assert store.get() is None
        store.tokens = tokens  # the server refuses the access token
        with pytest.raises(errors.TokenRevoked):
            client.read_identity()


def test_lost_response_is_requested_again_with_its_key(
    url: str, store: MemoryStore, user: models.UserPrivate
) -> None:
    title = uuid4().hex
    lost = iter([True, True])

    def lose(request: httpx.Request, response: httpx.Response) -> httpx.Response:
        if request.method == "POST" and next(lost, False):
            raise httpx.ReadError("the connection was lost", request=request)
        return response

    transport = Transport(lose)
    with Client(url, store=store, http=http(transport), retry=QUICK) as client:
        article = publish(client, title)
        keys = {each.headers["Idempotency-Key"] for each in transport.requests}
        assert (len(transport.requests), len(keys)) == (3, 1)
        found = client.list_articles(author=user.username, q=title)
        assert [each.id for each in found] == [article.id]


def test_request_that_may_have_been_carried_out_is_not_repeated(
    url: str, store: MemoryStore
) -> None:
    def fail(request: httpx.Request, _: httpx.Response) -> httpx.Response:
        if request.method == "PATCH":
            raise httpx.ReadError("the connection was lost", request=request)
        return httpx.Response(503)

    transport = Transport(fail)
    with Client(url, store=store, http=http(transport), retry=QUICK) as client:
        with pytest.raises(httpx.ReadError):
            client.update_article(2**40, models.ArticleUpdate())
        with pytest.raises(PressroomError) as caught:
            client.read_article(2**41)
    assert caught.value.status == 503
    assert transport.paths == {f"/articles/{2**40}": 1, f"/articles/{2**41}": 4}


@pytest.mark.parametrize(("retry_after", "requests"), [("3600", 1), ("0", 4)])
def test_limit_is_waited_for(url: str, retry_after: str, requests: int) -> None:
    transport = Transport(lambda *_: httpx.Response(429, headers={"Retry-After": retry_after}))
    with (
        Client(url, http=http(transport), retry=QUICK) as client,
        pytest.raises(PressroomError) as caught,
    ):
        client.read_index()
    assert caught.value.retry_after == float(retry_after)
    assert len(transport.requests) == requests


def test_upload_reports_its_progress(client: Client) -> None:
    progress: list[float] = []
    media = client.upload_media(io.BytesIO(PIXEL), alt="A pixel", on_progress=progress.append)
    assert media.alt == "A pixel"
    assert progress[-1] == 1.0


def test_other_media_types_are_returned_as_the_response(client: Client) -> None:
    response = client.read_atom()
    assert "atom" in response.headers["Content-Type"]
    assert "<feed" in response.read().decode()
    record = json.dumps({"title": "Imported", "content": "Text."})
    imported = client.import_articles(record, dry_run=True, content_type="application/x-ndjson")
    assert imported.dry_run


def test_api_key_is_sent_as_the_token(url: str, client: Client) -> None:
    created = client.create_api_key(
        models.ApiKeyCreate(name=uuid4().hex, password=PASSWORD, scopes=["articles:read"])
    )
    with Client(url, api_key=created.key) as other:
        assert other.list_articles(limit=1)
        with pytest.raises(errors.InsufficientScope):
            publish(other, "Without the scope")


def test_stream_has_what_happens_from_now_on(client: Client) -> None:
    end = client.list_changes(cursor="latest").next
    first = publish(client, "Streamed")
    with closing(client.stream(cursor=end)) as stream:
        event = next(stream)
    assert (event.data.kind, event.data.article_id) == ("created", first.id)
    second = publish(client, "Streamed later")
    with closing(client.stream(cursor=event.cursor)) as stream:
        assert next(stream).data.article_id == second.id


class Scripted(httpx.HTTPTransport):
    """Gives these answers, then those of the server."""

    def __init__(self, *answers: httpx.Response | httpx.TransportError) -> None:
        super().__init__()
        self.answers = list(answers)
        self.cursors: list[str | None] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.cursors.append(request.url.params.get("cursor"))
        if not self.answers:
            return super().handle_request(request)
        answer = self.answers.pop(0)
        if isinstance(answer, httpx.TransportError):
            raise answer
        return answer


def interrupted_stream(end: str) -> httpx.Response:
    """Return a stream of one change, of which a line has two parts, up to the cursor `end`."""
    change = {"cursor": "first", "article_id": 1, "slug": "\u2028", "kind": "updated"}
    text = json.dumps(change | {"occurred_at": "2026-11-20T12:00:00Z"}, ensure_ascii=False).replace(
        ', "kind"', ',\ndata: "kind"'
    )
    return httpx.Response(
        200,
        content=(
            f": alive\nretry: 1\n\nid: first\r\nevent: change\r\ndata:{text}\n\nid: {end}\n\n"
            'retry: 2\nevent: closing\ndata: {"code": "server_stopping"}\n\nid: incomplete'
        ).encode(),
    )


def test_interrupted_stream_continues_without_a_gap(url: str, client: Client) -> None:
    end = client.list_changes(cursor="latest").next
    article = publish(client, "After an interruption")
    transport = Scripted(
        interrupted_stream(end), httpx.Response(503), httpx.ReadError("the connection was lost")
    )
    other = Client(url, http=httpx.Client(transport=transport), retry=Retry(attempts=1))
    with other, closing(other.stream()) as stream:
        first, second = next(stream), next(stream)
    assert (first.cursor, first.data.slug) == ("first", "\u2028")
    assert second.data.article_id == article.id
    assert transport.cursors == [None, end, end, end]


def test_stream_that_is_refused_ends(url: str, client: Client) -> None:
    with Client(url) as anonymous, pytest.raises(errors.NotAuthenticated):
        next(anonymous.stream(topic="feed"))
    with pytest.raises(errors.InvalidCursor):
        next(client.stream(cursor="unknown"))
    transport = Scripted(*(httpx.Response(503) for _ in range(4)))
    full = Client(url, http=httpx.Client(transport=transport), retry=QUICK)
    with full, pytest.raises(PressroomError, match="503"):
        next(full.stream())


def test_request_waits_for_the_limit_that_a_response_has_reported(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("time.sleep", pauses.append)
    headers = {"RateLimit": '"articles";r=0;t=5, "writes";r=7;t=9'}
    for retry in (Retry(), Retry(max_pause=4)):
        transport = Scripted(*(httpx.Response(204, headers=headers) for _ in range(3)))
        with Client(url, http=httpx.Client(transport=transport), retry=retry) as client:
            client.log_out()
            client.read_rss()  # has no limit
            client.log_out()
    assert pauses == [pytest.approx(5, abs=0.5)]
