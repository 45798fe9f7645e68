"""The documentation pages and the OpenAPI document."""

import json
import re
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Mount

from app import __version__
from app.schemas.articles.article import DEFAULT_FIELDS


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

    def test_every_error_response_lists_its_codes(self, app: FastAPI) -> None:
        schemas = app.openapi()["components"]["schemas"]
        for operation in _operations(app):
            for status, response in operation["responses"].items():
                if int(status) >= 400:
                    assert response["description"]
                    schema = response["content"]["application/json"]["schema"]
                    for reference in schema.get("anyOf", [schema]):
                        error = schemas[reference["$ref"].rpartition("/")[2]]
                        assert error["properties"]["code"]["const"]
                        assert "code" in error["required"]
                        assert error["examples"]

    def test_patterns_are_valid_in_javascript(self, app: FastAPI) -> None:
        """U+2028 and U+2029 end a line of JavaScript, which has no inline flags."""
        for document in _documents(app):
            patterns = re.findall(r'"pattern": "(.*?)"[,}]', json.dumps(document))
            assert len(patterns) > 20
            for pattern in patterns:
                assert not re.search(r"\\u202[89]|\(\?(?![:=!])", pattern), pattern

    def test_properties_of_requests_have_no_default(self, app: FastAPI) -> None:
        """openapi-typescript makes them required; hey-api splits types with `writeOnly`."""
        for document in _documents(app):
            schemas = document["components"]["schemas"]
            for operation in _operations_of(document):
                for content in operation.get("requestBody", {}).get("content", {}).values():
                    name = content["schema"].get("$ref", "").rpartition("/")[2]
                    schema = schemas[name] if name else content["schema"]
                    assert '"default"' not in json.dumps(schema), operation["operationId"]
            assert '"writeOnly"' not in json.dumps(document)

    def test_constant_fields_of_responses_are_required(self, app: FastAPI) -> None:
        schemas = app.openapi()["components"]["schemas"]
        assert set(schemas["Tokens"]["required"]) == set(schemas["Tokens"]["properties"])
        assert set(schemas["Index"]["required"]) == set(schemas["Index"]["properties"])
        assert "n" not in schemas["JsonWebKey"]["required"]

    @pytest.mark.parametrize("path", ["/articles", "/feed"])
    def test_default_fields_of_listed_articles_are_required(self, app: FastAPI, path: str) -> None:
        document = app.openapi()
        response = document["paths"][path]["get"]["responses"]["200"]
        lists = response["content"]["application/json"]["schema"]["anyOf"]
        assert [each["items"]["$ref"].rpartition("/")[2] for each in lists] == [
            "ListedArticle",
            "ArticlePart",
        ]
        listed = document["components"]["schemas"]["ListedArticle"]
        assert set(listed["required"]) == set(listed["properties"]) == set(DEFAULT_FIELDS)

    def test_login_accepts_a_form_or_json(self, app: FastAPI) -> None:
        content = app.openapi()["paths"]["/auth/login"]["post"]["requestBody"]["content"]
        assert set(content) == {"application/x-www-form-urlencoded", "application/json"}

    def test_security_of_the_realworld_api_names_the_scheme(self, app: FastAPI) -> None:
        scheme = _documents(app)[1]["components"]["securitySchemes"]["Token"]
        assert (scheme["in"], scheme["name"]) == ("header", "Authorization")
        assert scheme["description"].startswith("`Token `")

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


def _documents(app: FastAPI) -> list[dict[str, Any]]:
    """Return the documents of the native API and of the RealWorld API."""
    conduit = next(
        mount.app
        for mount in app.routes
        if isinstance(mount, Mount) and isinstance(mount.app, FastAPI)
    )
    return [app.openapi(), conduit.openapi()]


def _operations(app: FastAPI) -> list[dict[str, Any]]:
    return _operations_of(app.openapi())


def _operations_of(document: dict[str, Any]) -> list[dict[str, Any]]:
    methods = {"get", "put", "post", "delete", "patch"}
    return [
        operation
        for path in document["paths"].values()
        for method, operation in path.items()
        if method in methods
    ]
