"""The documentation pages and the OpenAPI document."""

import re
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from app import __version__


@pytest.mark.parametrize("path", ["/docs", "/redoc"])
async def test_documentation_pages_load_only_local_assets(
    client: httpx.AsyncClient, path: str
) -> None:
    response = await client.get(path)
    assert response.status_code == 200
    assert "http://" not in response.text
    assert "https://" not in response.text
    assert not re.search(r"<script>|<style|\son\w+=", response.text)
    for source in re.findall(r'(?:src|href|spec-url)="([^"]+)"', response.text):
        assert (await client.get(source)).status_code == 200
    policy = response.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'self';" in policy
    assert "http" not in policy


@pytest.mark.parametrize("ranges", ["bytes=x", "bytes=999999999-", "bytes=0-3"])
async def test_assets_ignore_range_requests(client: httpx.AsyncClient, ranges: str) -> None:
    response = await client.get("/docs/assets/swagger-ui.css", headers={"Range": ranges})
    assert response.status_code == 200
    assert len(response.content) > 100_000


async def test_paths_outside_of_the_assets_are_not_found(client: httpx.AsyncClient) -> None:
    for path in ("../core.py", "..%2fcore.py", "%2e%2e/core.py", "nothing.js", ""):
        assert (await client.get(f"/docs/assets/{path}")).status_code in {404, 405}


class TestOpenApi:
    def test_openapi_has_title_version_and_tag_descriptions(self, app: FastAPI) -> None:
        info = app.openapi()["info"]
        assert info["title"] == "Pressroom"
        assert info["version"] == __version__
        assert {"summary", "description", "contact", "license"} <= set(info)
        assert all(tag["description"] for tag in app.openapi()["tags"])

    def test_operation_ids_are_function_names(self, app: FastAPI) -> None:
        ids = [operation["operationId"] for operation in _operations(app)]
        assert len(ids) == len(set(ids))
        assert {"create_user", "login", "list_articles", "read_article"} <= set(ids)
        assert all(re.fullmatch(r"[a-z_]+", identifier) for identifier in ids)

    def test_every_operation_is_described_and_tagged(self, app: FastAPI) -> None:
        for operation in _operations(app):
            assert operation["summary"]
            assert operation["description"].endswith(".")
            assert len(operation["tags"]) == 1

    def test_every_error_has_the_error_schema_and_an_example(self, app: FastAPI) -> None:
        for operation in _operations(app):
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    content = response["content"]["application/json"]
                    assert content["schema"]["$ref"].endswith("/ErrorBody"), operation
                    assert content.get("examples") or content.get("example")
                    assert response["description"]

    def test_token_is_optional_only_for_public_reads(self, app: FastAPI) -> None:
        security: dict[str, Any] = {
            operation["operationId"]: operation.get("security") for operation in _operations(app)
        }
        assert {} in security["list_articles"]
        assert {} not in security["create_article"]
        assert security["create_article"]
        assert security["login"] is None

    def test_request_bodies_have_examples(self, app: FastAPI) -> None:
        schemas = app.openapi()["components"]["schemas"]
        for name in ("UserCreate", "UserReplace", "UserUpdate", "ArticleCreate", "AddressInput"):
            assert schemas[name]["examples"]

    def test_partial_update_fields_are_not_nullable(self, app: FastAPI) -> None:
        properties = app.openapi()["components"]["schemas"]["ArticleUpdate"]["properties"]
        assert properties["title"]["type"] == "string"
        assert "default" not in properties["title"]


def _operations(app: FastAPI) -> list[dict[str, Any]]:
    methods = {"get", "put", "post", "delete", "patch"}
    return [
        operation
        for path in app.openapi()["paths"].values()
        for method, operation in path.items()
        if method in methods
    ]
