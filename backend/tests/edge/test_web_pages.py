"""Pages behind nginx: readers' pages are cached like those of the API, the studio never is."""

import re
from collections.abc import Iterator
from uuid import uuid4

import httpx
import pytest

from tests.edge.stack import Stack, is_cached, publish, register
from tests.processes import wait_until

BROWSER = {"Accept": "text/html,application/xhtml+xml"}


@pytest.fixture(scope="module")
def shared(stack: Stack) -> Iterator[httpx.Client]:
    with stack.client() as client:
        yield client


@pytest.fixture(scope="module")
def author(shared: httpx.Client) -> dict[str, str]:
    return register(shared)


def page_of(article: dict[str, str]) -> str:
    return f"/read/articles/{article['slug']}"


class TestReaderPages:
    def test_page_of_an_article_is_cached(
        self, client: httpx.Client, author: dict[str, str]
    ) -> None:
        path = page_of(publish(client, author))
        first, second = client.get(path, headers=BROWSER), client.get(path, headers=BROWSER)
        assert [each.headers["X-Cache"] for each in (first, second)] == ["MISS", "HIT"]
        assert first.content == second.content
        assert second.headers["Content-Type"] == "text/html; charset=utf-8"
        for response in (first, second):
            assert "Set-Cookie" not in response.headers
            (policy,) = response.headers.get_list("Content-Security-Policy")
            assert "default-src 'self'" in policy
            assert response.headers.get_list("Referrer-Policy") == ["same-origin"]
            assert response.headers.get_list("X-Frame-Options") == ["DENY"]
        same = client.get(path, headers={"If-None-Match": first.headers["ETag"]})
        assert (same.status_code, same.content) == (304, b"")

    def test_pages_are_compressed(self, client: httpx.Client, author: dict[str, str]) -> None:
        path = page_of(publish(client, author))
        assert client.get(path).headers["Content-Encoding"] == "gzip"

    @pytest.mark.parametrize(
        "path",
        [
            "",
            "/articles",
            "/tags",
            "/tags?page=1",
            "/archive",
            "/search",
            "/search?q=engine",
            "/search?q=engine&page=1",
            "/search/suggest?q=engine",
        ],
    )
    def test_lists_are_cached(
        self, client: httpx.Client, author: dict[str, str], path: str
    ) -> None:
        publish(client, author)
        assert client.get(f"/read{path}").status_code == 200
        assert is_cached(client, f"/read{path}")

    @pytest.mark.parametrize(
        "query", ["utm_source=x", "q=a&utm_source=x", "Q=a", "%71=a", "q=a&", "&q=a", "q"]
    )
    def test_unknown_parameters_are_not_cached(self, client: httpx.Client, query: str) -> None:
        """Pages ignore them, so any number of copies would fill the cache."""
        states = {client.get(f"/read/search?{query}").headers["X-Cache"] for _ in range(3)}
        assert states == {"BYPASS"}

    def test_requests_with_cookies_are_not_cached(
        self, client: httpx.Client, author: dict[str, str]
    ) -> None:
        path = page_of(publish(client, author))
        for _ in range(3):
            response = client.get(path, headers={"Cookie": "__Host-pressroom=x"})
            assert (response.status_code, response.headers["X-Cache"]) == (200, "BYPASS")

    def test_change_is_visible_within_seconds(
        self, client: httpx.Client, author: dict[str, str]
    ) -> None:
        article = publish(client, author)
        path, title = page_of(article), f"Changed {uuid4()}"
        assert is_cached(client, path)
        client.patch(f"/articles/{article['id']}", json={"title": title}, headers=author)
        wait_until(lambda: title in client.get(path).text, "the change", seconds=5)

    def test_withdrawn_article_is_gone_within_seconds(
        self, client: httpx.Client, author: dict[str, str], stack: Stack
    ) -> None:
        """One is requested again. The other is deleted from the cache without a request."""
        requested, forgotten = (publish(client, author, title=f"Gone {uuid4()}") for _ in range(2))
        for article in (requested, forgotten):
            assert is_cached(client, page_of(article))
            client.delete(f"/articles/{article['id']}", headers=author)
        wait_until(
            lambda: client.get(page_of(requested)).status_code == 404, "it is gone", seconds=5
        )
        shown = client.get(page_of(requested), headers=BROWSER)
        assert shown.headers["Content-Type"].startswith("text/html")
        assert "no-store" in shown.headers["Cache-Control"]
        stack.wait_until_not_cached(forgotten["slug"])

    def test_forms_of_readers_are_not_cached(
        self, client: httpx.Client, author: dict[str, str]
    ) -> None:
        article = publish(client, author)
        new = {"content": "Indeed."}
        path = f"/articles/{article['id']}/comments"
        comment = client.post(path, json=new, headers=author).json()
        for form in (
            f"{page_of(article)}/comments/new",
            f"{page_of(article)}/report",
            f"/read/comments/{comment['id']}",
            f"/read/comments/{comment['id']}/report",
        ):
            states = {client.get(form).headers["X-Cache"] for _ in range(3)}
            assert not states & {"HIT", "STALE", "UPDATING"}, form
            assert "no-store" in client.get(form).headers["Cache-Control"], form


class TestStudio:
    @pytest.mark.parametrize("path", ["/studio", "/studio/sign-in", "/studio/unknown"])
    def test_is_never_cached(self, client: httpx.Client, path: str) -> None:
        for _ in range(3):
            response = client.get(path, headers=BROWSER)
            assert response.headers["X-Cache"] == "BYPASS"
            assert "no-store" in response.headers["Cache-Control"]
            if response.status_code == 200:
                assert response.headers.get_list("Referrer-Policy") == ["same-origin"]


class TestStaticFiles:
    def test_are_immutable_and_cached(self, client: httpx.Client) -> None:
        page = client.get("/read").text
        files = set(re.findall(r'"(/static/[^"]+)"', page))
        assert len(files) >= 4
        for path in files:
            response = client.get(path)
            assert response.status_code == 200
            assert response.headers["Cache-Control"] == "public, max-age=31536000, immutable"
            assert client.get(path).headers["X-Cache"] == "HIT"
            assert response.headers["X-Content-Type-Options"] == "nosniff"

    def test_with_a_query_are_not_cached(self, client: httpx.Client) -> None:
        (path, *_) = re.findall(r'"(/static/[^"]+\.css)"', client.get("/read").text)
        for query in ("x=1", "q=1"):
            assert {client.get(f"{path}?{query}").headers["X-Cache"] for _ in range(3)} == {
                "BYPASS"
            }

    def test_unknown_file(self, client: httpx.Client) -> None:
        for _ in range(3):
            response = client.get("/static/base.000000000000.css")
            assert response.status_code == 404
            assert response.headers["X-Cache"] != "HIT"


class TestAddresses:
    def test_browsers_are_led_to_the_readers(self, client: httpx.Client) -> None:
        """The API's own page of the same address does not replace it, nor the other way round."""
        for _ in range(3):
            assert client.get("/", headers={"Accept": "application/json"}).status_code == 200
            response = client.get("/", headers=BROWSER)
            assert (response.status_code, response.headers["Location"]) == (302, "/read")

    @pytest.mark.parametrize("path", ["/read/x", "/studio/sign-in", "/static/x"])
    def test_errors_of_nginx_are_pages(self, client: httpx.Client, path: str) -> None:
        response = client.request("TRACE", path)
        assert response.status_code == 405
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"
        assert response.headers["Cache-Control"] == "no-store"
        assert "<h1>Method Not Allowed</h1>" in response.text
        api = client.request("TRACE", "/articles")
        assert api.headers["Content-Type"] == "application/json"
