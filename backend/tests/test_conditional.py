"""Conditional requests (RFC 9110 §13) and cache headers."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple

import httpx
import pytest
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from app.core.enums import Role
from app.http.caching import public
from app.models import User
from tests.databases import database_within, savepoint_of
from tests.factories import PASSWORD, bearer, create_address, create_article, create_user
from tests.security.conftest import Install, install, live, live_app, live_database_url, live_rows

__all__ = ["install", "live", "live_app", "live_database_url", "live_rows"]

ADDRESS = {"label": "office", "line1": "1 Street", "city": "Town", "country": "GB"}
ORIGIN = {"Origin": "http://localhost:3000"}

Headers = dict[str, str]
Rows = Callable[[], AbstractAsyncContextManager[AsyncSession]]


class Resource(NamedTuple):
    """A resource, and a change of it."""

    url: str
    changes: list[tuple[str, dict[str, Any] | None]]
    list_url: str


class OwnerRows(NamedTuple):
    """A user with one resource of each kind."""

    owner: User
    admin: User
    resources: dict[str, Resource]


RESOURCES = ("myself", "user", "raw user", "address", "article")


async def create_owner_rows(session: AsyncSession) -> OwnerRows:
    owner, admin = await create_user(session), await create_user(session, role=Role.ADMIN)
    address = await create_address(session, user=owner)
    article = await create_article(session, author=owner)
    whole = {"email": owner.email, "username": owner.username, "name": "New"}
    addresses = f"/users/{owner.id}/addresses"
    resources = {
        "myself": Resource("/users/me", [("PATCH", {"name": "Newer"})], "/users"),
        "user": Resource(
            f"/users/{owner.id}", [("PUT", whole), ("DELETE", {"password": PASSWORD})], "/users"
        ),
        "raw user": Resource(
            f"/raw/users/{owner.id}",
            [("PUT", whole), ("DELETE", {"password": PASSWORD})],
            "/raw/users",
        ),
        "address": Resource(
            f"{addresses}/{address.id}", [("PUT", ADDRESS), ("DELETE", None)], addresses
        ),
        "article": Resource(
            f"/articles/{article.id}", [("PATCH", {"title": "New"}), ("DELETE", None)], "/articles"
        ),
    }
    return OwnerRows(owner, admin, resources)


@pytest.fixture(scope="module")
async def module_rows(module_connection: AsyncConnection) -> OwnerRows:
    async with database_within(module_connection).unit_of_work() as session:
        return await create_owner_rows(session)


@pytest.fixture
async def connection(
    module_connection: AsyncConnection, module_rows: OwnerRows
) -> AsyncIterator[AsyncConnection]:
    """The connection of all tests, in a savepoint that is rolled back at the end of each."""
    async with savepoint_of(module_connection):
        yield module_connection


@pytest.fixture
def rows(connection: AsyncConnection, module_rows: OwnerRows) -> OwnerRows:
    return module_rows


async def tag_of(client: httpx.AsyncClient, url: str, headers: Headers) -> str:
    response = await client.get(url, headers=headers)
    assert response.status_code == 200, response.text
    return response.headers["ETag"]


@pytest.mark.parametrize("kind", RESOURCES)
class TestIfMatch:
    @pytest.fixture
    async def resource(self, rows: OwnerRows, kind: str) -> Resource:
        return rows.resources[kind]

    async def test_etag_of_read_is_accepted(
        self, client: httpx.AsyncClient, rows: OwnerRows, resource: Resource
    ) -> None:
        headers = bearer(rows.owner)
        tag = await tag_of(client, resource.url, headers)
        assert tag.startswith('"')
        for method, body in resource.changes:
            changed = await client.request(
                method, resource.url, json=body, headers={**headers, "If-Match": tag}
            )
            assert changed.status_code in {200, 204}, changed.text
            if changed.status_code == 200:  # the response's ETag is valid for the next change
                assert changed.headers["ETag"] != tag
                tag = changed.headers["ETag"]
                assert tag == await tag_of(client, resource.url, headers)

    @pytest.mark.parametrize("form", ['"{}"', 'W/"{}"', '"x", "{}"', ',"y","x" , W/"{}",'])
    async def test_header_forms_with_the_current_tag_match(
        self, client: httpx.AsyncClient, rows: OwnerRows, resource: Resource, form: str
    ) -> None:
        headers = bearer(rows.owner)
        tag = (await tag_of(client, resource.url, headers)).strip('"')
        method, body = resource.changes[0]
        changed = await client.request(
            method, resource.url, json=body, headers={**headers, "If-Match": form.format(tag)}
        )
        assert changed.status_code == 200

    async def test_several_header_lines_form_one_list(
        self, client: httpx.AsyncClient, rows: OwnerRows, resource: Resource
    ) -> None:
        headers = bearer(rows.owner)
        tag = await tag_of(client, resource.url, headers)
        method, body = resource.changes[0]
        lines = [*headers.items(), ("If-Match", '"x"'), ("If-Match", tag)]
        changed = await client.request(method, resource.url, json=body, headers=lines)
        assert changed.status_code == 200

    async def test_asterisk_matches_any_version(
        self, client: httpx.AsyncClient, rows: OwnerRows, resource: Resource
    ) -> None:
        for method, body in resource.changes:
            changed = await client.request(
                method,
                resource.url,
                json=body,
                headers={**bearer(rows.owner), "If-Match": "*"},
            )
            assert changed.status_code in {200, 204}

    async def test_outdated_etag_is_rejected_without_changes(
        self, client: httpx.AsyncClient, rows: OwnerRows, resource: Resource
    ) -> None:
        headers = bearer(rows.owner)
        old = await tag_of(client, resource.url, headers)
        method, body = resource.changes[0]
        changed = await client.request(method, resource.url, json=body, headers=headers)
        before = (await client.get(resource.url, headers=headers)).content
        for method, body in resource.changes:
            late = {**headers, **ORIGIN, "If-Match": old}
            refused = await client.request(method, resource.url, json=body, headers=late)
            assert refused.status_code == 412
            assert refused.json()["code"] == "precondition_failed"
            assert refused.headers["ETag"] == changed.headers["ETag"]
            assert refused.headers["Cache-Control"] == "no-store"
            assert refused.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]
        assert (await client.get(resource.url, headers=headers)).content == before

    @pytest.mark.parametrize("tag", ["nonsense", '"x"', '"', "'x'", "", '"a" "b"'])
    async def test_other_values_never_match(
        self, client: httpx.AsyncClient, rows: OwnerRows, resource: Resource, tag: str
    ) -> None:
        for method, body in resource.changes:
            refused = await client.request(
                method,
                resource.url,
                json=body,
                headers={**bearer(rows.owner), "If-Match": tag},
            )
            assert refused.status_code == 412

    async def test_if_none_match_prevents_overwriting(
        self, client: httpx.AsyncClient, rows: OwnerRows, resource: Resource
    ) -> None:
        for method, body in resource.changes:
            refused = await client.request(
                method, resource.url, json=body,
                headers={**bearer(rows.owner), "If-None-Match": "*"},
            )  # fmt: skip
            assert refused.status_code == 412

    async def test_administrator_uses_the_same_etag(
        self, client: httpx.AsyncClient, rows: OwnerRows, resource: Resource, kind: str
    ) -> None:
        if kind == "myself":
            return  # an administrator's own account is another resource
        headers = bearer(rows.admin)
        tag = await tag_of(client, resource.url, headers)
        assert tag == await tag_of(client, resource.url, bearer(rows.owner))
        method, body = resource.changes[0]
        changed = await client.request(
            method, resource.url, json=body, headers={**headers, "If-Match": tag}
        )
        assert changed.status_code == 200
        assert changed.headers["ETag"] == await tag_of(client, resource.url, headers)

    async def test_permissions_are_checked_before_etags(
        self, client: httpx.AsyncClient, rows: OwnerRows, session: AsyncSession, resource: Resource,
        kind: str,
    ) -> None:  # fmt: skip
        if kind == "myself":
            return
        other_user = bearer(await create_user(session))
        for method, body in resource.changes:
            refused = await client.request(
                method, resource.url, json=body, headers={**other_user, "If-Match": '"x"'}
            )
            assert refused.status_code == 403
            assert "ETag" not in refused.headers

    async def test_setting_requires_if_match(
        self, client: httpx.AsyncClient, rows: OwnerRows, resource: Resource, install: Install
    ) -> None:
        install(REQUIRE_IF_MATCH="true")
        headers = bearer(rows.owner)
        for method, body in resource.changes:
            refused = await client.request(method, resource.url, json=body, headers=headers)
            assert refused.status_code == 428
            assert refused.json()["code"] == "precondition_required"
        tag = await tag_of(client, resource.url, headers)
        method, body = resource.changes[0]
        taken = await client.request(
            method, resource.url, json=body, headers={**headers, "If-Match": tag}
        )
        assert taken.status_code == 200


async def test_role_change_checks_if_match(client: httpx.AsyncClient, rows: OwnerRows) -> None:
    url, headers = f"/users/{rows.owner.id}", bearer(rows.admin)
    tag = await tag_of(client, url, headers)
    for expected in (200, 412):
        changed = await client.patch(
            f"{url}/role", json={"role": "editor"}, headers={**headers, "If-Match": tag}
        )
        assert changed.status_code == expected
    assert changed.headers["ETag"] == await tag_of(client, url, headers)


@pytest.mark.parametrize("path", ["/users/me", "/articles"])
async def test_etag_of_creation_is_accepted(
    client: httpx.AsyncClient, rows: OwnerRows, path: str
) -> None:
    headers = bearer(rows.owner)
    created = await client.post(f"/users/{rows.owner.id}/addresses", json=ADDRESS, headers=headers)
    url = f"/users/{rows.owner.id}/addresses/{created.json()['id']}"
    if path == "/articles":
        body = {"title": "New", "content": "Long enough, I think.", "tags": ["a", "b"]}
        created = await client.post("/articles", json=body, headers=headers)
        url = f"/articles/{created.json()['id']}"
    assert created.status_code == 201
    assert created.headers["ETag"] == await tag_of(client, url, headers)


class TestIfNoneMatch:
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    @pytest.mark.parametrize("who", ["anonymous", "owner", "admin"])
    @pytest.mark.parametrize("kind", ["user", "raw user", "article", "list of articles"])
    async def test_current_etag_returns_304(
        self, client: httpx.AsyncClient, rows: OwnerRows, kind: str, who: str, method: str
    ) -> None:
        url = "/articles" if kind.startswith("list") else rows.resources[kind].url
        headers = {} if who == "anonymous" else bearer(getattr(rows, who))
        full = await client.request(method, url, headers=headers)
        tag = full.headers["ETag"]
        assert tag.startswith("W/" if kind.startswith("list") else '"')
        for known in (tag, f'"x", {tag}', "*", f"W/{tag.removeprefix('W/')}"):
            again = await client.request(
                method, url, headers={**headers, **ORIGIN, "If-None-Match": known}
            )
            assert again.status_code == 304
            assert again.content == b""
            assert "Content-Type" not in again.headers
            assert again.headers["ETag"] == tag
            assert again.headers["Cache-Control"] == full.headers["Cache-Control"]
            accept = ", Accept" if "article" in kind else ""  # they are Markdown, too
            assert again.headers["Vary"] == f"Authorization{accept}, Origin"
            assert again.headers["Access-Control-Allow-Origin"] == ORIGIN["Origin"]
            assert "ETag" in again.headers["Access-Control-Expose-Headers"]
        for unknown in ('"x"', "nonsense", tag.removeprefix("W/").strip('"')):
            fresh = await client.request(method, url, headers={**headers, "If-None-Match": unknown})
            assert fresh.status_code == 200

    async def test_etag_depends_on_the_viewer(
        self, client: httpx.AsyncClient, rows: OwnerRows
    ) -> None:
        url = rows.resources["user"].url
        public, private = (
            await tag_of(client, url, {}),
            await tag_of(client, url, bearer(rows.owner)),
        )
        assert public != private
        fresh = await client.get(url, headers={**bearer(rows.owner), "If-None-Match": public})
        assert fresh.status_code == 200

    async def test_changed_resource_is_sent(
        self, client: httpx.AsyncClient, rows: OwnerRows
    ) -> None:
        """A renamed author changes the ETags of their articles, and of lists with them."""
        article = rows.resources["article"].url
        before = {url: await tag_of(client, url, {}) for url in (article, "/articles", "/users")}
        headers = bearer(rows.owner)
        await client.patch("/users/me", json={"name": "Somebody Else"}, headers=headers)
        for url, tag in before.items():
            fresh = await client.get(url, headers={"If-None-Match": tag})
            assert fresh.status_code == 200
            assert fresh.headers["ETag"] != tag

    async def test_if_match_on_read(self, client: httpx.AsyncClient, rows: OwnerRows) -> None:
        url = rows.resources["article"].url
        tag = await tag_of(client, url, {})
        assert (await client.get(url, headers={"If-Match": tag})).status_code == 200
        assert (await client.get(url, headers={"If-Match": "*"})).status_code == 200
        other = await client.get(url, headers={"If-Match": '"x"'})
        assert other.status_code == 412
        assert other.headers["ETag"] == tag
        # RFC 9110 §13.2.2: If-Match comes first.
        both = await client.get(url, headers={"If-Match": '"x"', "If-None-Match": tag})
        assert both.status_code == 412

    async def test_if_modified_since_is_ignored(
        self, client: httpx.AsyncClient, rows: OwnerRows
    ) -> None:
        url = f"/users/{rows.owner.id}/addresses"
        listed = await client.get(url, headers=bearer(rows.owner))
        since = {"If-Modified-Since": listed.headers["Last-Modified"]}
        again = await client.get(url, headers={**bearer(rows.owner), **since})
        assert again.status_code == 200


class TestCaching:
    @pytest.mark.parametrize("path", ["/articles", "/users", "article", "user"])
    async def test_public_responses_are_cacheable(
        self, client: httpx.AsyncClient, rows: OwnerRows, path: str
    ) -> None:
        url = path if path.startswith("/") else rows.resources[path].url
        public = await client.get(url)
        assert (
            public.headers["Cache-Control"]
            == "public, max-age=0, s-maxage=1, stale-while-revalidate=2, stale-if-error=3600"
        )
        private = await client.get(url, headers=bearer(rows.owner))
        assert private.headers["Cache-Control"] == "private, no-cache"
        for response in (public, private):
            assert "Authorization" in response.headers["Vary"]
            assert len(response.headers.get_list("Vary")) == 1

    async def test_identical_responses_do_not_vary(self, client: httpx.AsyncClient) -> None:
        keys = await client.get("/.well-known/jwks.json")
        assert keys.headers["Cache-Control"] == public(300)
        assert "Authorization" not in keys.headers["Vary"]
        again = await client.get(
            "/.well-known/jwks.json", headers={"If-None-Match": keys.headers["ETag"]}
        )
        assert again.status_code == 304

    @pytest.mark.parametrize("path", ["/users/me/api-keys", "/auth/sessions"])
    async def test_secrets_are_not_stored(
        self, client: httpx.AsyncClient, rows: OwnerRows, path: str
    ) -> None:
        response = await client.get(path, headers={**bearer(rows.owner), "If-None-Match": "*"})
        assert response.status_code == 200
        assert response.headers["Cache-Control"] == "no-store"
        assert "ETag" not in response.headers

    @pytest.mark.parametrize(
        ("method", "path", "status"),
        [
            ("GET", "/articles/999999", 404),
            ("GET", "/nowhere", 404),
            ("PUT", "/articles", 405),
            ("GET", "/users/me", 401),
            ("GET", "/articles?limit=x", 422),
            ("GET", "/articles?token=x", 400),
        ],
    )
    async def test_errors_are_not_cached(
        self, client: httpx.AsyncClient, method: str, path: str, status: int
    ) -> None:
        response = await client.request(method, path)
        assert response.status_code == status
        assert response.headers["Cache-Control"] == "no-store"

    async def test_lists_send_last_modified(
        self, client: httpx.AsyncClient, rows: OwnerRows, session: AsyncSession
    ) -> None:
        url = f"/users/{rows.owner.id}/addresses"
        nobody = await create_user(session)
        assert "Last-Modified" in (await client.get(url, headers=bearer(rows.owner))).headers
        empty = await client.get(f"/users/{nobody.id}/addresses", headers=bearer(nobody))
        assert "Last-Modified" not in empty.headers

    @pytest.mark.parametrize("path", ["/users", "/raw/users"])
    async def test_last_modified_does_not_disclose_user_changes(
        self, client: httpx.AsyncClient, rows: OwnerRows, path: str
    ) -> None:
        for headers in ({}, bearer(rows.owner)):
            assert "Last-Modified" not in (await client.get(path, headers=headers)).headers
        assert "Last-Modified" in (await client.get(path, headers=bearer(rows.admin))).headers


class TestConcurrency:
    """Real commits, with one connection per request."""

    @pytest.fixture
    async def committed_rows(self, live_rows: Rows) -> OwnerRows:
        async with live_rows() as session:
            return await create_owner_rows(session)

    @pytest.mark.parametrize("kind", RESOURCES)
    async def test_one_of_many_concurrent_changes_succeeds(
        self, live: httpx.AsyncClient, committed_rows: OwnerRows, kind: str
    ) -> None:
        resource, headers = committed_rows.resources[kind], bearer(committed_rows.owner)
        method, body = resource.changes[0]
        field = next(name for name in ("name", "title", "label") if name in (body or {}))
        for round_number in range(3):
            tag = await tag_of(live, resource.url, headers)

            def change(number: int, tag: str = tag, rounds: int = round_number) -> Awaitable[Any]:
                changed = {**(body or {}), field: f"Version {rounds} of {number}"}
                return live.request(
                    method, resource.url, json=changed, headers={**headers, "If-Match": tag}
                )

            answers = await asyncio.gather(*(change(number) for number in range(8)))
            statuses = sorted(answer.status_code for answer in answers)
            assert statuses == [200] + [412] * 7
            (winner,) = (answer for answer in answers if answer.status_code == 200)
            now = await live.get(resource.url, headers=headers)
            assert now.json()[field] == winner.json()[field]
            assert now.headers["ETag"] == winner.headers["ETag"]
            for loser in answers:
                assert loser.headers["ETag"] == winner.headers["ETag"]

    async def test_concurrent_deletion_and_change_do_not_both_succeed(
        self, live: httpx.AsyncClient, committed_rows: OwnerRows
    ) -> None:
        resource, headers = committed_rows.resources["address"], bearer(committed_rows.owner)
        tag = {"If-Match": await tag_of(live, resource.url, headers)}
        put, deleted = await asyncio.gather(
            live.put(resource.url, json=ADDRESS, headers={**headers, **tag}),
            live.delete(resource.url, headers={**headers, **tag}),
        )
        assert (put.status_code, deleted.status_code) in {(200, 412), (404, 204)}


class TestCors:
    async def test_request_headers_are_allowed(self, client: httpx.AsyncClient) -> None:
        for name in ("If-Match", "If-None-Match", "If-Modified-Since", "Idempotency-Key"):
            preflight_headers = {
                **ORIGIN,
                "Access-Control-Request-Method": "PATCH",
                "Access-Control-Request-Headers": name.lower(),
            }
            assert (
                await client.options("/articles/1", headers=preflight_headers)
            ).status_code == 200

    async def test_response_headers_are_exposed(self, client: httpx.AsyncClient) -> None:
        exposed = (
            (await client.get("/articles", headers=ORIGIN))
            .headers["Access-Control-Expose-Headers"]
            .split(", ")
        )
        assert {
            "ETag", "Link", "Last-Modified", "Location", "X-Total-Count", "Idempotency-Replayed"
        } <= set(exposed)  # fmt: skip
