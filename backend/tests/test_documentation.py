"""The documentation pages and the OpenAPI document."""

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.routing import Mount

from app import __version__
from app.core.config import BACKEND_DIR, get_settings
from app.main import create_app
from app.schemas.articles.article import DEFAULT_FIELDS

UNIONS_WITHOUT_DISCRIMINATOR = (
    # Both describe a user; the private one has more fields. A field that tells them apart would be
    # in each author of each article.
    [{"$ref": "#/components/schemas/UserPrivate"}, {"$ref": "#/components/schemas/UserPublic"}],
)


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
        components = app.openapi()["components"]
        for operation in _operations(app):
            for status, reference in operation["responses"].items():
                if int(status) >= 400:
                    # Operations with the same errors share one response.
                    response = components["responses"][reference["$ref"].rpartition("/")[2]]
                    assert response["description"]
                    schema = response["content"]["application/json"]["schema"]
                    for option in schema.get("oneOf", [schema]):
                        error = components["schemas"][option["$ref"].rpartition("/")[2]]
                        assert error["properties"]["code"]["const"]
                        assert "code" in error["required"]
                        assert error["examples"]

    def test_unions_of_schemas_have_a_discriminator(self, app: FastAPI) -> None:
        for document in _documents(app):
            for schema in _dictionaries(document):
                options = schema.get("anyOf", schema.get("oneOf", []))
                if len([option for option in options if "$ref" in option]) < 2:
                    continue
                if options in UNIONS_WITHOUT_DISCRIMINATOR:
                    continue
                names = list(schema["discriminator"]["mapping"].values())
                assert names == sorted(names)  # so that equal sets of errors share a response
                assert [{"$ref": name} for name in names] == schema["oneOf"]
                codes = [
                    document["components"]["schemas"][name.rpartition("/")[2]]["properties"]["code"]
                    for name in names
                ]
                assert [code["const"] for code in codes] == list(schema["discriminator"]["mapping"])

    def test_errors_may_get_more_fields(self, app: FastAPI) -> None:
        assert "additionalProperties" not in _schema(app, "ArticleNotFound")
        assert _schema(app, "ArticleCreate")["additionalProperties"] is False

    def test_parameters_are_not_nullable(self, app: FastAPI) -> None:
        for document in _documents(app):
            for operation in _operations_of(document):
                for parameter in operation.get("parameters", []):
                    assert '"null"' not in json.dumps(parameter), parameter

    def test_nullable_types_are_simple(self, app: FastAPI) -> None:
        """Several generators write a class for `anyOf` with null."""
        assert _schema(app, "ArticleResponse")["properties"]["published_at"] == {
            "type": ["string", "null"],
            "format": "date-time",
        }
        for document in _documents(app):
            for schema in _dictionaries(document):
                options = schema.get("anyOf", [])
                if {"type": "null"} in options and len(options) == 2:
                    assert {"$ref", "const", "enum"} & options[0].keys(), schema

    def test_integers_have_the_size_of_their_values(self, app: FastAPI) -> None:
        """Generators for Java, Go and C# choose 32 bits by default."""
        assert _schema(app, "ArticleResponse")["properties"]["id"]["format"] == "int64"
        for document in _documents(app):
            for schema in _dictionaries(document):
                if "integer" in (schema.get("type"), *(schema.get("type") or ())):
                    small = schema.get("maximum", 2**31) < 2**31
                    assert small or schema["format"] == "int64", schema

    def test_titles_are_names_of_schemas(self, app: FastAPI) -> None:
        """Generators name types after titles, and Pydantic derives one from each field."""
        for document in _documents(app):
            schemas = document["components"]["schemas"]
            titles = re.findall(r'"title": "(.*?)"[,}]', json.dumps(_without_examples(document)))
            inline = {"LoginRequest", "JsonFeed", "JsonFeedAuthor", "JsonFeedItem"}
            assert set(titles) - {document["info"]["title"]} - inline == set(schemas)

    def test_304_needs_an_etag(self, app: FastAPI) -> None:
        for operation in _operations(app):
            names = [parameter["name"] for parameter in operation.get("parameters", [])]
            tagged = "ETag" in operation["responses"].get("200", {}).get("headers", {})
            assert ("304" in operation["responses"]) is ("If-None-Match" in names)
            assert tagged or "304" not in operation["responses"]
        reading = app.openapi()["paths"]["/articles/{article_id}"]["get"]
        assert "304" in reading["responses"]

    def test_committed_document_is_current(self, app: FastAPI) -> None:
        """The clients in clients/ are generated from this file."""
        committed = json.loads((BACKEND_DIR / "openapi.json").read_text())
        settings = get_settings().model_copy(update={"raw_sql_reference": False})
        assert create_app(settings).openapi() == committed, "run `make clients-generate`"

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


def _schema(app: FastAPI, name: str) -> dict[str, Any]:
    schema: dict[str, Any] = app.openapi()["components"]["schemas"][name]
    return schema


def _dictionaries(node: Any) -> Iterator[dict[str, Any]]:
    """Yield all dictionaries of a document, except for examples."""
    if isinstance(node, dict):
        yield node
        for name, each in node.items():
            if name not in {"example", "examples"}:
                yield from _dictionaries(each)
    elif isinstance(node, list):
        for each in node:
            yield from _dictionaries(each)


def _without_examples(node: Any) -> Any:
    if isinstance(node, dict):
        return {name: _without_examples(each) for name, each in node.items() if name != "examples"}
    return [_without_examples(each) for each in node] if isinstance(node, list) else node


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
