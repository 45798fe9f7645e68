"""Rules of OpenAPI documents that help generators of clients (decision 0046).

FastAPI and Pydantic describe the same facts in a notation that many generators misread. `install`
rewrites the document of an application; what it permits stays the same, with two exceptions. A
parameter in a query or a header cannot be null. Errors may get more fields.
"""

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from fastapi import FastAPI

Schema = dict[str, Any]

_REFERENCE = "#/components/schemas/"
_MAX_INT32 = 2**31 - 1
_IF_NONE_MATCH = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "An ETag of an earlier response: 304 if it is current (RFC 9110 §13.1.2)",
}


def install(app: FastAPI) -> None:
    """Rewrite the document that the application generates."""
    generate = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = for_generators(generate())
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # the documented way to extend it


def for_generators(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document that generators of clients read correctly."""
    document = deepcopy(document)
    schemas: dict[str, Schema] = document["components"]["schemas"]
    codes = {name: code for name, schema in schemas.items() if (code := _code(schema))}
    for name in codes:
        schemas[name].pop("additionalProperties", None)
    for operations in document["paths"].values():
        for method, operation in operations.items():
            _describe_conditions(method, operation)
            for parameter in operation.get("parameters", ()):
                if not parameter["required"] and "schema" in parameter:
                    parameter["schema"] = _without_null(parameter["schema"])
    for schema in _schemas(document):
        _name_type(schema)
        _discriminate(schema, codes)
    for name, schema in schemas.items():
        schema["title"] = name
    _share_responses(document, codes)
    return document


def _code(schema: Schema) -> str | None:
    """Return the code of an error, or None for other schemas."""
    properties = schema.get("properties", {})
    if properties.get("success", {}).get("const") is not False:
        return None
    code: str | None = properties.get("code", {}).get("const")
    return code


def _describe_conditions(method: str, operation: dict[str, Any]) -> None:
    """Describe If-None-Match where 304 is possible: where the response has an ETag."""
    responses = operation["responses"]
    if method != "get" or "304" not in responses:
        return
    if "ETag" in responses.get("200", {}).get("headers", {}):
        operation.setdefault("parameters", []).append(deepcopy(_IF_NONE_MATCH))
    else:
        del responses["304"]


def _without_null(schema: Schema) -> Schema:
    """Return the schema of a parameter without the null of its default."""
    options = schema.get("anyOf", ())
    others = [option for option in options if option != {"type": "null"}]
    if len(others) == len(options) or len(others) != 1:
        return schema
    return {**others[0], **{name: each for name, each in schema.items() if name != "anyOf"}}


def _schemas(node: Any, *, is_schema: bool = False) -> Iterator[Schema]:
    """Yield all schemas, the inner ones first. Examples and constants are not searched."""
    if isinstance(node, list):
        for each in node:
            yield from _schemas(each, is_schema=is_schema)
    if not isinstance(node, dict):
        return
    for name, each in node.items():
        if name in {"properties", "schemas"}:
            for schema in each.values():
                yield from _schemas(schema, is_schema=True)
        elif name in {"schema", "items", "anyOf", "oneOf", "allOf", "additionalProperties"}:
            yield from _schemas(each, is_schema=True)
        elif name not in {"example", "examples", "default", "const", "enum", "mapping"}:
            yield from _schemas(each)
    if is_schema:
        yield node


def _name_type(schema: Schema) -> None:
    """Drop derived titles, write simple nullable types as a list, and give integers their size."""
    if "properties" not in schema:  # the title of an inline object is its name
        schema.pop("title", None)
    options = schema.get("anyOf", [])
    simple = [option for option in options if option != {"type": "null"}]
    if len(options) == 2 and len(simple) == 1:
        option = simple[0]
        if isinstance(option.get("type"), str) and not {"const", "enum"} & option.keys():
            del schema["anyOf"]
            schema |= {**option, **schema, "type": [option["type"], "null"]}
    kinds = schema.get("type")
    is_integer = "integer" in ([kinds] if isinstance(kinds, str) else kinds or ())
    if is_integer and schema.get("maximum", _MAX_INT32 + 1) > _MAX_INT32:
        # Without it, generators for Java, Go and C# choose 32 bits.
        schema.setdefault("format", "int64")


def _discriminate(schema: Schema, codes: dict[str, str]) -> None:
    """Describe a union of errors as `oneOf` with `code` as its discriminator."""
    options = schema.get("anyOf", ())
    references = [str(option.get("$ref", "")) for option in options]
    names = [reference.removeprefix(_REFERENCE) for reference in references]
    if len(names) < 2 or not all(name in codes for name in names):
        return
    schema["oneOf"] = schema.pop("anyOf")
    schema["discriminator"] = {
        "propertyName": "code",
        "mapping": {codes[name]: f"{_REFERENCE}{name}" for name in names},
    }


def _share_responses(document: dict[str, Any], codes: dict[str, str]) -> None:
    """Move the responses with errors to the components: operations with the same errors share one.

    Generators then write one type for it. Its name consists of those of its errors.
    """
    shared: dict[str, dict[str, Any]] = {}
    for operations in document["paths"].values():
        for operation in operations.values():
            for status, response in operation["responses"].items():
                _describe_as_json(status, response)
                name = "Or".join(_names_of_errors(response, codes))
                if name and shared.setdefault(name, response) == response:
                    operation["responses"][status] = {"$ref": f"#/components/responses/{name}"}
    if shared:
        document["components"]["responses"] = dict(sorted(shared.items()))


def _describe_as_json(status: str, response: dict[str, Any]) -> None:
    """Correct the media type of errors: FastAPI describes them like successful responses."""
    if status >= "400" and "content" in response:
        (content,) = response["content"].values()
        response["content"] = {"application/json": content}


def _names_of_errors(response: dict[str, Any], codes: dict[str, str]) -> list[str]:
    """Return the names of the schemas of a response, if all of them are errors."""
    schema = response.get("content", {}).get("application/json", {}).get("schema", {})
    references = [option.get("$ref", "") for option in schema.get("oneOf", [schema])]
    names = [str(reference).removeprefix(_REFERENCE) for reference in references]
    return names if all(name in codes for name in names) else []
