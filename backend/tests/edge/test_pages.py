"""The cache of nginx: public pages for a second, and no data of users."""

import re
import time
from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest

from app.services.bulk.paths import old_path
from tests.edge.stack import (
    CACHED_KEYS,
    ORIGIN,
    Stack,
    is_cached,
    publish,
    register,
    wait_for_state,
)
from tests.processes import PASSWORD, wait_until

PUBLIC = "public, max-age=0, s-maxage=1, stale-while-revalidate=2, stale-if-error=3600"


@pytest.fixture(scope="module")
def shared(stack: Stack) -> Iterator[httpx.Client]:
    with stack.client() as client:
        yield client


@pytest.fixture(scope="module")
def author(shared: httpx.Client) -> dict[str, str]:
    return register(shared)


class TestCaching:
    def test_public_page_is_cached_with_separate_request_ids(
        self, client: httpx.Client, author: dict[str, str]
    ) -> None:
        path = f"/articles/{publish(client, author)['id']}"
        first, second = client.get(path), client.get(path)
        assert [each.headers["X-Cache"] for each in (first, second)] == ["MISS", "HIT"]
        assert first.content == second.content
        assert first.headers["ETag"] == second.headers["ETag"]
        assert first.headers["Cache-Control"] == second.headers["Cache-Control"] == PUBLIC
        named = [each.headers.get_list("X-Request-ID") for each in (first, second)]
        assert [len(names) for names in named] == [1, 1]
        assert named[0] != named[1]
        assert "X-Process-Time" in first.headers
        assert "X-Process-Time" not in second.headers

    def test_change_is_visible_within_seconds(
        self, client: httpx.Client, author: dict[str, str]
    ) -> None:
        path = f"/articles/{publish(client, author)['id']}"
        assert is_cached(client, path)
        client.patch(path, json={"title": "Changed"}, headers=author)
        wait_until(lambda: client.get(path).json()["title"] == "Changed", "the change", seconds=5)

    def test_deletion_is_visible_within_seconds(
        self, client: httpx.Client, author: dict[str, str]
    ) -> None:
        """A 404 replaces the cached page, which is not served as stale."""
        path = f"/articles/{publish(client, author)['id']}"
        assert is_cached(client, path)
        client.delete(path, headers=author)
        wait_until(lambda: client.get(path).status_code == 404, "it is gone", seconds=5)

    def test_withdrawn_article_is_deleted_from_the_cache_without_a_request(
        self, client: httpx.Client, author: dict[str, str], stack: Stack
    ) -> None:
        """Otherwise, nginx would serve it in an outage."""
        kept, *withdrawn = (publish(client, author, title=f"Withdrawn {uuid4()}") for _ in range(3))
        for article in (kept, *withdrawn):
            assert is_cached(client, f"/articles/by-slug/{article['slug']}")
            assert is_cached(client, f"/articles/{article['slug']}.md")

        def cached() -> str:
            keys: str = stack.project.output("exec", "-T", "nginx", "sh", "-c", CACHED_KEYS)
            return keys

        found = cached()
        assert all(article["slug"] in found for article in (kept, *withdrawn))
        client.patch(f"/articles/{withdrawn[0]['id']}", json={"published": False}, headers=author)
        client.delete(f"/articles/{withdrawn[1]['id']}", headers=author)
        stack.wait_until_not_cached(*(each["slug"] for each in withdrawn))
        assert kept["slug"] in cached()

    def test_markdown_and_json_are_cached_apart(
        self, client: httpx.Client, author: dict[str, str]
    ) -> None:
        article = publish(client, author, title=f"Two forms {uuid4()}")
        path = f"/articles/{article['id']}"
        markdown = {"Accept": "text/markdown, */*"}
        first, second = (client.get(path, headers=markdown) for _ in range(2))
        assert [each.headers["X-Cache"] for each in (first, second)] == ["MISS", "HIT"]
        assert first.content == second.content
        assert second.headers["Content-Type"] == "text/markdown; charset=utf-8"
        assert "Accept" in second.headers["Vary"]
        as_json = client.get(path)
        assert as_json.headers["X-Cache"] == "MISS"
        assert as_json.json()["id"] == article["id"]
        # All spellings of other headers have one copy.
        for accept in ("text/html, */*;q=0.8", "application/json", "image/png"):
            response = client.get(path, headers={"Accept": accept})
            assert response.headers["X-Cache"] in {"HIT", "STALE", "UPDATING"}
            assert response.content == as_json.content
        # Neither weights nor white space let a client store one form as the other.
        for accept in ("text/markdown;q=0", "text/markdown, application/json"):
            response = client.get(path, headers={"Accept": accept})
            assert response.headers["X-Cache"] == "BYPASS"
            assert response.headers["Content-Type"] == "application/json"
        assert client.get(path, headers=markdown).content == first.content

    def test_agents_are_served(self, client: httpx.Client, author: dict[str, str]) -> None:
        """The index is cached, and calls of tools are not."""
        assert is_cached(client, "/llms.txt")
        new = {"name": "agent", "scopes": ["articles:draft"], "password": PASSWORD}
        key = client.post("/users/me/api-keys", json=new, headers=author).json()["key"]
        headers = {"Authorization": f"Bearer {key}", "Accept": "application/json"}
        call = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
        for _ in range(2):
            response = client.post("/mcp", json=call, headers=headers)
            assert response.status_code == 200, response.text
            assert response.headers["X-Cache"] == "BYPASS"
            assert len(response.json()["result"]["tools"]) == 2
        foreign = {**headers, "Origin": "https://evil.example"}
        assert client.post("/mcp", json=call, headers=foreign).status_code == 403
        assert client.get("/mcp").status_code == 405

    def test_withdrawn_article_is_gone_in_both_forms(
        self, client: httpx.Client, author: dict[str, str]
    ) -> None:
        article = publish(client, author, title=f"Two forms {uuid4()}")
        path, document = f"/articles/{article['id']}", f"/articles/{article['slug']}.md"
        markdown = {"Accept": "text/markdown"}
        requests: list[tuple[str, dict[str, str]]] = [(path, {}), (path, markdown), (document, {})]
        for address, headers in requests:
            assert client.get(address, headers=headers).status_code == 200
        client.delete(path, headers=author)
        wait_until(
            lambda: all(
                client.get(address, headers=headers).status_code == 404
                for address, headers in requests
            ),
            "all are gone",
            seconds=5,
        )

    def test_cached_page_is_revalidated_by_etag(
        self, client: httpx.Client, author: dict[str, str], stack: Stack
    ) -> None:
        article = publish(client, author)
        path = f"/articles/by-slug/{article['slug']}"
        assert is_cached(client, path)
        wait_for_state(client, path, "STALE")
        wait_until(
            lambda: f'"GET {path} -> 304' in stack.project.output("logs", "backend"),
            "the backend says that nothing has changed",
        )

    def test_current_etag_gets_304_and_another_one_the_page(
        self, client: httpx.Client, author: dict[str, str]
    ) -> None:
        path = f"/articles/{publish(client, author)['id']}"
        assert is_cached(client, path)
        tag = client.get(path).headers["ETag"]
        same = client.get(path, headers={"If-None-Match": tag})
        assert (same.status_code, same.content) == (304, b"")
        assert same.headers["ETag"] == tag
        other = client.get(path, headers={"If-None-Match": '"another"'})
        assert other.status_code == 200
        failed = client.get(path, headers={"If-Match": '"another"'})
        assert (failed.status_code, failed.headers["X-Cache"]) == (412, "BYPASS")
        mine = client.get(path, headers={**author, "If-None-Match": tag})
        assert (mine.status_code, mine.headers["X-Cache"]) == (304, "BYPASS")

    def test_if_modified_since_is_passed_to_the_backend(
        self, client: httpx.Client, author: dict[str, str]
    ) -> None:
        """A deletion does not change the date of a list, and must not result in a 304."""
        kept = [publish(client, author, title=f"Of a list {number}") for number in range(2)]
        path = "/articles?limit=2&fields=id"
        wait_until(
            lambda: (
                [each["id"] for each in client.get(path).json()] == [kept[1]["id"], kept[0]["id"]]
            ),
            "both are listed",
        )
        last_modified = client.get(path).headers["Last-Modified"]
        client.delete(f"/articles/{kept[0]['id']}", headers=author)
        wait_until(lambda: client.get(path).json()[1]["id"] != kept[0]["id"], "one is gone")
        assert client.get(path).headers["Last-Modified"] == last_modified
        answer = client.get(path, headers={"If-Modified-Since": last_modified})
        assert (answer.status_code, answer.headers["X-Cache"]) == (200, "BYPASS")
        feed = client.get("/robots.txt")
        etag = feed.headers.get("ETag", '"none"')
        both = {"If-None-Match": etag, "If-Modified-Since": last_modified}
        assert client.get("/robots.txt", headers=both).headers["X-Cache"] != "BYPASS"

    def test_head_has_headers_without_body(
        self, client: httpx.Client, author: dict[str, str]
    ) -> None:
        path = f"/articles/{publish(client, author)['id']}"
        read, head = client.get(path), client.head(path)
        assert head.status_code == 200
        assert head.content == b""
        assert head.headers["ETag"] == read.headers["ETag"]

    def test_responses_are_cached_per_origin(
        self, client: httpx.Client, author: dict[str, str]
    ) -> None:
        path = f"/articles/{publish(client, author)['id']}"
        origins = [ORIGIN, "https://elsewhere.example", None] * 2
        for origin in origins:
            headers = {"Origin": origin} if origin else {}
            answer = client.get(path, headers=headers)
            allowed = answer.headers.get("Access-Control-Allow-Origin")
            assert allowed == (ORIGIN if origin == ORIGIN else None)
            assert "Origin" in answer.headers["Vary"]

    @pytest.mark.parametrize(
        "path", ["/articles?limit=0", "/no-such-page", "/articles/999999999", "/auth/me"]
    )
    def test_errors_are_not_cached(self, client: httpx.Client, path: str) -> None:
        assert client.get(path).status_code >= 400
        assert not is_cached(client, path)

    def test_empty_query_equals_no_query(
        self, client: httpx.Client, author: dict[str, str]
    ) -> None:
        path = f"/articles/{publish(client, author)['id']}"
        client.get(path)
        assert client.get(f"{path}?").headers["X-Cache"] == "HIT"

    def test_different_pages_are_cached_separately(self, client: httpx.Client) -> None:
        for path in (
            "/articles?fields=id",
            "/articles?fields=title",
            "/articles?fields=id&limit=1",
        ):
            client.get(path)
            answer = client.get(path)
            fields = re.findall(r"fields=(\w+)", path) or ["name", "slug", "count"]
            assert set(answer.json()[0]) == set(fields)

    def test_concurrent_misses_reach_the_backend_once_or_twice(
        self, stack: Stack, client: httpx.Client, author: dict[str, str]
    ) -> None:
        from concurrent.futures import ThreadPoolExecutor

        path = f"/articles/{publish(client, author)['id']}"
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(lambda _: httpx.get(stack.url + path), range(20)))
        assert {each.status_code for each in answers} == {200}
        assert len({each.content for each in answers}) == 1


def _is_cached_with(client: httpx.Client, path: str, **headers: str) -> bool:
    states = [client.get(path, headers=headers).headers["X-Cache"] for _ in range(3)]
    return bool({"HIT", "STALE", "UPDATING"} & set(states))


class TestCacheLimits:
    """The contents of the cache are limited, and a full cache does not affect responses."""

    def test_large_responses_are_not_cached(
        self, client: httpx.Client, author: dict[str, str]
    ) -> None:
        for letters, kept in ((100_000, True), (400_000, False)):
            article = publish(client, author, content="a " * (letters // 2))
            path = f"/articles/{article['id']}?"
            length = len(client.get(path).content)
            assert (length < 260_000) is kept
            assert _is_cached_with(client, path) is kept

    def test_responses_to_unknown_origins_are_not_cached(
        self, client: httpx.Client, author: dict[str, str]
    ) -> None:
        path = f"/articles/{publish(client, author)['id']}"
        assert not _is_cached_with(client, path, Origin="https://elsewhere.example")
        assert _is_cached_with(client, path, Origin=ORIGIN)

    def test_native_api_rejects_unknown_parameters(self, client: httpx.Client) -> None:
        for path in ("/articles?x=1", "/feed.xml?x=1", "/articles?limit=1&limit=1", "/tags?&"):
            for method in ("GET", "HEAD"):
                answers = [client.request(method, path) for _ in range(3)]
                assert {each.status_code for each in answers} == {422}
                assert {each.headers["X-Cache"] for each in answers} == {"MISS"}

    @pytest.mark.parametrize(
        ("query", "kept"),
        [
            ("limit=3", True),
            ("limit=3&offset=0", True),
            ("tag=edge&author=nobody&favorited=nobody", True),
            ("x=1", False),
            ("limit=3&x=1", False),
            ("x=1&limit=3", False),
            ("&limit=3", False),
            ("limit=3&", False),
            ("limit=3&&offset=0", False),
            ("Limit=3", False),
            ("li%6dit=3", False),
            ("limit", False),
            ("limit=3&limit", False),
            ("limit=3;x=1", True),  # `3;x=1` is the value of `limit`
        ],
    )
    @pytest.mark.parametrize("path", ["/api/articles", "/%61pi/articles"])
    def test_unknown_realworld_parameters_are_not_cached(
        self, client: httpx.Client, path: str, query: str, kept: bool
    ) -> None:
        states = {client.get(f"{path}?{query}").headers["X-Cache"] for _ in range(3)}
        assert (states == {"BYPASS"}) is not kept

    def test_redirects_of_old_paths_are_not_cached(
        self, stack: Stack, client: httpx.Client, author: dict[str, str]
    ) -> None:
        """They accept any query, such as those of advertisements."""
        article = publish(client, author)
        rows = ", ".join(
            f"('{old_path(path)}', 'edge', {article['id']}, true)" for path in ("/name/", "/?p=17")
        )
        insert = f"INSERT INTO redirects (path, source, article_id, is_served) VALUES {rows}"
        stack.project.output("exec", "-T", "db", "psql", "-U", "pressroom", "-c", insert)
        for path in ("/name", "/name/?utm_source=x", "/name/?x=1", "/?p=17", "/?x=1&p=17"):
            for method in ("GET", "HEAD"):
                answers = [client.request(method, f"/old{path}") for _ in range(3)]
                assert {each.status_code for each in answers} == {301}
                targets = {each.headers["Location"].rpartition("/")[2] for each in answers}
                assert targets == {article["slug"]}
                assert {each.headers["X-Cache"] for each in answers} == {"MISS"}
        assert {client.get("/old/other").headers["X-Cache"] for _ in range(3)} == {"MISS"}

    def test_full_file_system_truncates_no_response(
        self, stack: Stack, client: httpx.Client, author: dict[str, str]
    ) -> None:
        """The cache has no free byte."""
        pages = [publish(client, author, content="b " * 50_000)["id"] for _ in range(5)]
        large = publish(client, author, content="c " * 400_000)["id"]
        paths = [f"/articles/{number}" for number in (*pages, large)]
        expected = [client.get(path, headers={"Cookie": "a=b"}).content for path in paths]
        shell = ("exec", "-T", "nginx", "sh", "-c")
        fill = "cat /dev/zero >/var/cache/nginx/filler 2>/dev/null; df -k /var/cache/nginx"
        try:
            assert "100%" in stack.project.output(*shell, fill)
            for _ in range(3):
                for path, content in zip(paths, expected, strict=True):
                    answer = client.get(path, headers={"Accept-Encoding": "identity"})
                    assert answer.status_code == 200
                    assert answer.content == content
        finally:
            stack.project.output(*shell, "rm /var/cache/nginx/filler")
        wait_until(lambda: is_cached(client, paths[0]), "pages are kept again")

    def test_incomplete_files_are_deleted(self, stack: Stack) -> None:
        """nginx leaves such a file when the cache has no space for a copy.

        A minute after a start, nginx deletes files with other names than those that it writes.
        """
        shell = ("exec", "-T", "nginx", "sh", "-c")
        old, new = (f"/var/cache/nginx/pages/{uuid4().hex}.000000004{n}" for n in (2, 3))
        minute_ago = int(time.time()) - 70
        stack.project.output(*shell, f"touch -d @{minute_ago} {old} && touch {new}")
        stack.wait_inside("nginx", f"[ ! -e {old} ]")
        stack.project.output(*shell, f"rm {new}")  # fails if it was deleted, too


class TestIsolation:
    """No data of a user is visible to other users or anonymously."""

    def test_no_route_leaks_data_of_other_users(self, stack: Stack, client: httpx.Client) -> None:
        """Each GET route is requested by the owner, another user and anonymously, in four orders.

        Each caller comes first once, and each directly follows every other caller once.

        The responses must not depend on the order. Requests with a token or a cookie are never
        cached.
        """
        owner, other = register(client), register(client)
        draft = publish(client, owner, published=False, title="Nobody else's")
        public = publish(client, owner)
        me = client.get("/auth/me", headers=owner).json()
        tag = client.patch(f"/articles/{public['id']}", json={"tags": ["edge"]}, headers=owner)
        assert tag.status_code == 200
        values = {
            "article_id": str(draft["id"]),
            "user_id": str(me["id"]),
            "slug": "edge",
            "username": me["username"],
            "revision_id": "1",
            "address_id": "1",
            "media_id": "1",
            "token": "prv_unknown",
            "number": "1",
            "folder": "x",
            "name": "y",
        }
        document = client.get("/openapi.json").json()
        reads = {
            path: operations["get"]
            for path, operations in document["paths"].items()
            if "get" in operations and path != "/changes/stream"  # it does not end
        }
        assert len(reads) > 25
        callers = {"owner": owner, "other": other, "nobody": {}, "cookie": {"Cookie": "a=b"}}
        names = list(callers)
        orders = [
            [names[int(number)] for number in row] for row in ("0132", "1203", "2310", "3021")
        ]
        bodies: dict[tuple[str, str], set[str]] = {}
        for template, operation in reads.items():
            path = re.sub(r"\{(\w+)[^}]*\}", lambda name: values.get(name[1], "1"), template)
            for order in orders:
                for who in order:
                    # Only the responses to `nobody` may be cached, so the second one may differ.
                    for _ in range(2 if who == "nobody" else 1):
                        answer = client.get(path, headers=callers[who])
                        if who != "nobody":
                            assert answer.headers.get("X-Cache", "BYPASS") == "BYPASS", path
                        if "Authorization" in callers[who] and answer.status_code == 200:
                            kept = answer.headers["Cache-Control"]
                            assert not kept.startswith("public") or "security" not in operation
                        bodies.setdefault((path, who), set()).add(_comparable(answer))
                        if who != "owner":
                            assert "Nobody else's" not in answer.text, path
                            assert me["email"] not in answer.text, path
        for path in {path for path, _ in bodies}:
            assert len(bodies[path, "nobody"]) == 1, f"{path} changes for nobody: {bodies}"
            assert bodies[path, "cookie"] == bodies[path, "nobody"], path

    def test_login_and_logout_bypass_cached_pages(
        self, client: httpx.Client, author: dict[str, str]
    ) -> None:
        path = f"/articles/{publish(client, author, published=False)['id']}"
        for headers, status in ((author, 200), ({}, 404), (author, 200), ({}, 404)):
            for _ in range(2):
                assert client.get(path, headers=headers).status_code == status

    def test_previews_are_not_cached(self, client: httpx.Client, author: dict[str, str]) -> None:
        article = publish(client, author, published=False)
        response = client.post(f"/articles/{article['id']}/preview-links", json={}, headers=author)
        assert response.status_code == 201, response.text
        path = f"/previews/{response.json()['token']}"
        assert client.get(path).status_code == 200
        assert not is_cached(client, path)


def _comparable(answer: httpx.Response) -> str:
    """Return a response without its values that differ for each request."""
    if answer.status_code >= 400:
        return f"{answer.status_code} {answer.json()['code']}"
    return f"{answer.status_code} {answer.text}"
