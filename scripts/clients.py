"""Generate the clients in clients/ from the OpenAPI document, and check that they are current.

    clients.py generate   write backend/openapi.json, and the generated files of both clients
    clients.py check      fail if a generated file does not belong to backend/openapi.json

`generate` requires .venv, Node.js, and both registries of packages. `check` requires only Python:
the first line of each generated file has a checksum of the document, and one of the rest of the
file. The test suite compares backend/openapi.json with the application.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
DOCUMENT = ROOT / "backend" / "openapi.json"
TYPESCRIPT = ROOT / "clients" / "typescript"
PYTHON = ROOT / "clients" / "python"
PACKAGE = PYTHON / "src" / "pressroom_client"
TOOLS = ROOT / ".data" / "clients"

TYPESCRIPT_TYPES = TYPESCRIPT / "src" / "schema.ts"
TYPESCRIPT_OPERATIONS = TYPESCRIPT / "src" / "operations.ts"
MODELS = PACKAGE / "models.py"
ERRORS = PACKAGE / "errors.py"
OPERATIONS = PACKAGE / "operations.py"
GENERATED = (TYPESCRIPT_TYPES, TYPESCRIPT_OPERATIONS, MODELS, ERRORS, OPERATIONS)

VERSIONS = {
    TYPESCRIPT / "package.json": r'"version": "([^"]+)"',
    PACKAGE / "__init__.py": r'__version__ = "([^"]+)"',
}
"""The files with the version of a client, which is that of the API."""

METHODS = ("get", "put", "post", "patch", "delete")
JSON_TYPES = ("application/json", "application/feed+json")
SERVER_CHECKS = (
    "pattern", "minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems",
    "uniqueItems", "examples",
)  # fmt: skip
"""Keywords that the models of Python omit: the server checks requests."""

PYTHON_TYPES = {
    "string": "str", "date-time": "datetime", "integer": "int", "number": "float",
    "boolean": "bool", "null": "None", "object": "dict[str, Any]",
}  # fmt: skip
"""Annotations of formats and types."""

WRITE_DOCUMENT = """
import json, pathlib, sys
from app.core.config import Settings
from app.main import create_app
document = create_app(Settings(environment="test", _env_file=None)).openapi()
text = json.dumps(document, indent=1, ensure_ascii=False)
pathlib.Path(sys.argv[1]).write_text(text + "\\n", encoding="utf-8")
"""


# --- the operations of the document


@dataclass(frozen=True)
class Operation:
    """An operation, with what both clients need."""

    id: str
    method: str
    path: str
    summary: str
    parameters: Sequence[dict[str, Any]]
    body: dict[str, Any]
    body_required: bool
    result: dict[str, Any]
    """The content of the successful response, by media type."""

    def names(self, place: str) -> list[str]:
        """Return the names of the parameters in the path, the query or a header."""
        return [each["name"] for each in self.parameters if each["in"] == place]

    @property
    def is_raw(self) -> bool:
        """Return whether the result has, or may have, a media type other than JSON."""
        return any(name not in JSON_TYPES for name in self.result)

    @property
    def schema(self) -> dict[str, Any] | None:
        """Return the schema of a result in JSON; None without one."""
        if self.is_raw or not self.result:
            return None
        schema: dict[str, Any] = next(iter(self.result.values()))["schema"]
        return schema

    @property
    def pages(self) -> str | None:
        """Return how the list is paginated; None for an operation without a list."""
        if self.schema is None:
            return None
        if any(each.get("type") != "array" for each in self.schema.get("anyOf", [self.schema])):
            return None
        query = self.names("query")
        return "cursor" if "cursor" in query else "skip" if "skip" in query else None


def operations_of(document: dict[str, Any]) -> Iterator[Operation]:
    """Yield the operations in the order of their ids."""
    found = []
    for path, methods in document["paths"].items():
        for method in METHODS:
            if method not in methods:
                continue
            operation = methods[method]
            success = min(status for status in operation["responses"] if status < "300")
            request = operation.get("requestBody", {})
            found.append(
                Operation(
                    id=operation["operationId"],
                    method=method.upper(),
                    path=path,
                    summary=operation["description"].strip().partition("\n\n")[0],
                    parameters=operation.get("parameters", []),
                    body=request.get("content", {}),
                    body_required=request.get("required", False),
                    result=operation["responses"][success].get("content", {}),
                )
            )
    return iter(sorted(found, key=lambda operation: operation.id))


# --- TypeScript


def camel(name: str) -> str:
    """Return `list_articles` as `listArticles`."""
    first, *others = name.split("_")
    return first + "".join(map(str.capitalize, others))


def typescript_operations(document: dict[str, Any]) -> str:
    """Return the table of operations, and the interface of their methods."""
    table, methods = [], []
    for operation in operations_of(document):
        facts = [
            f"id: '{operation.id}'", f"method: '{operation.method}'", f"path: '{operation.path}'"
        ]  # fmt: skip
        if operation.pages:
            facts.append(f"pages: '{operation.pages}'")
        if "Idempotency-Key" in operation.names("header"):
            facts.append("key: true")
        if operation.is_raw:
            facts.append("raw: true")
        name = camel(operation.id)
        table.append(f"  {name}: {{ {', '.join(facts)} }},")
        summary = " ".join(operation.summary.split()).replace("*/", "* /")
        methods.append(f"  /** {summary} */\n  {name}: Method<'{operation.id}'>;")
    lines = [
        "import type { Method, OperationInfo } from './types.js';", "",
        "/** What requests need to know of each operation. */",
        "export const operationTable = {", *table,
        "} as const satisfies Record<string, OperationInfo>;", "",
        "/** The methods of all operations. */",
        "export interface Operations {", *methods, "}", "",
    ]  # fmt: skip
    return "\n".join(lines)


def typescript_types() -> str:
    """Run openapi-typescript."""
    npm = shutil.which("npm") or sys.exit("npm is not installed")
    if not (TYPESCRIPT / "node_modules" / ".package-lock.json").exists():
        subprocess.run([npm, "ci", "--ignore-scripts"], cwd=TYPESCRIPT, check=True)
    command = [
        str(TYPESCRIPT / "node_modules" / ".bin" / "openapi-typescript"), str(DOCUMENT),
        "--root-types", "--root-types-no-schema-prefix",
    ]  # fmt: skip
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


# --- Python


def python_models(document: dict[str, Any]) -> str:
    """Run datamodel-code-generator."""
    install_python_generator()
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder, "openapi.json"), Path(folder, "models.py")
        source.write_text(json.dumps(without_server_checks(document)))
        command = [
            sys.executable, "-m", "datamodel_code_generator",
            "--input", str(source), "--input-file-type", "openapi", "--openapi-scopes", "schemas",
            "--output", str(output), "--output-model-type", "pydantic_v2.BaseModel",
            "--base-class", "pressroom_client._base.Model", "--target-python-version", "3.11",
            "--enum-field-as-literal", "all", "--use-annotated", "--use-union-operator",
            "--use-standard-collections", "--use-schema-description", "--disable-timestamp",
            "--use-double-quotes", "--formatters", "builtin",
        ]  # fmt: skip
        environment = {**os.environ, "PYTHONPATH": str(TOOLS / "python")}
        subprocess.run(command, check=True, env=environment)
        text = output.read_text()
    return text.partition("\n\n")[2]  # without the comment of the generator


def install_python_generator() -> None:
    """Install the locked packages of datamodel-code-generator, once."""
    lock = ROOT / "backend" / "requirements" / "models.txt"
    stamp = TOOLS / "models.stamp"
    if stamp.exists() and stamp.read_text() == checksum(lock.read_text()):
        return
    python = ROOT / ".venv" / ".stamp-python"
    pip = python.read_text().strip() if python.exists() else sys.executable
    shutil.rmtree(TOOLS / "python", ignore_errors=True)
    TOOLS.mkdir(parents=True, exist_ok=True)
    command = [
        pip, "-m", "pip", "install", "-qq", "--disable-pip-version-check", "--no-deps",
        "--require-hashes", "--target", str(TOOLS / "python"), "--requirement", str(lock),
    ]  # fmt: skip
    subprocess.run(command, check=True)
    stamp.write_text(checksum(lock.read_text()))


def without_server_checks(node: Any) -> Any:
    """Return a copy without constraints that the server checks, and without examples."""
    if isinstance(node, dict):
        return {
            name: {inner: without_server_checks(each) for inner, each in value.items()}
            if name == "properties"
            else without_server_checks(value)
            for name, value in node.items()
            if name not in SERVER_CHECKS and not (name == "format" and value != "date-time")
        }
    return [without_server_checks(each) for each in node] if isinstance(node, list) else node


def with_inline_enums(document: dict[str, Any]) -> dict[str, Any]:
    """Return a copy in which enumerations are written where they are used, as `Literal`."""
    schemas = document["components"]["schemas"]
    enums = {
        f"#/components/schemas/{name}": {"type": "string", "enum": schema["enum"]}
        for name, schema in schemas.items()
        if "enum" in schema
    }

    def replace(node: Any) -> Any:
        if isinstance(node, list):
            return [replace(each) for each in node]
        if not isinstance(node, dict):
            return node
        if node.get("$ref") in enums:
            return enums[node["$ref"]]
        return {name: replace(each) for name, each in node.items()}

    inlined: dict[str, Any] = replace(document)
    for reference in enums:
        del inlined["components"]["schemas"][reference.rpartition("/")[2]]
    return inlined


def errors_of(document: dict[str, Any]) -> dict[str, str]:
    """Return the names of the error schemas, by code."""
    return {
        schema["properties"]["code"]["const"]: name
        for name, schema in sorted(document["components"]["schemas"].items())
        if schema.get("properties", {}).get("success", {}).get("const") is False
    }


def python_errors(document: dict[str, Any]) -> str:
    """Return a module with an exception for each error."""
    classes = [
        f'''class {name}(PressroomError):
    """{document["components"]["schemas"][name]["description"]}"""

    code = "{code}"
    body: models.{name}


register({name}, models.{name})
'''
        for code, name in errors_of(document).items()
    ]
    head = '"""An exception for each error of the API."""\n\nfrom . import models\n'
    head += "from ._errors import PressroomError, register\n"
    return "\n\n".join([head, *classes])


def python_type(schema: dict[str, Any]) -> str:
    """Return the annotation of a parameter or a result."""
    if "$ref" in schema:
        return f"models.{schema['$ref'].rpartition('/')[2]}"
    kinds = schema.get("type", "object")
    options = schema.get("anyOf") or schema.get("oneOf") or []
    if isinstance(kinds, list):
        options = [{**schema, "type": kind} for kind in kinds]
    if options:
        return " | ".join(map(python_type, options))
    values = [schema["const"]] if "const" in schema else schema.get("enum")
    if values:
        return f"Literal[{', '.join(map(repr, values))}]"
    if kinds == "array":
        return f"list[{python_type(schema['items'])}]"
    return PYTHON_TYPES.get(schema.get("format", kinds), PYTHON_TYPES[kinds])


def result_types(operation: Operation) -> list[str]:
    """Return the type of the result; for lists with `fields`, first that without it."""
    if operation.is_raw:
        return ["httpx.Response"]
    if operation.schema is None:
        return ["None"]
    if operation.pages:
        lists = operation.schema.get("anyOf", [operation.schema])
        return [f"Page[{python_type(each['items'])}]" for each in lists]
    return [python_type(operation.schema)]


def body_type(operation: Operation) -> str | None:
    """Return the type of the request body; None without one."""
    if not operation.body:
        return None
    if "application/x-ndjson" in operation.body or "application/json" not in operation.body:
        return "Content"
    schema = operation.body["application/json"]["schema"]
    title = "models.LoginForm" if operation.id == "login" else python_type(schema)
    return title.replace("dict[str, Any] | None", "dict[str, Any]").removesuffix(" | None")


def python_operations(document: dict[str, Any]) -> str:
    """Return the module with the operations, and the methods of both clients."""
    operations = [each for each in operations_of(document) if each.id != "upload_media"]
    constants = []
    for operation in operations_of(document):
        result = " | ".join(result_types(operation))
        facts = [repr(operation.id), repr(operation.method), repr(operation.path)]
        facts.append("None" if result == "None" else result.replace("Page[", "list["))
        facts += [f"pages={operation.pages!r}"] if operation.pages else []
        facts += ["key=True"] if "Idempotency-Key" in operation.names("header") else []
        facts += ["raw=True"] if operation.is_raw else []
        constants.append(
            f"{operation.id.upper()}: Operation[{result}] = Operation({', '.join(facts)})"
        )
    head = '''"""The operations of the API, and their methods for both clients."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, Literal, overload

import httpx

from . import models
from ._base import Content, Operation, Page
from ._sending import AsyncSender, Sender
'''
    parts = [head, "\n".join(constants)]
    for name, base, is_async in (
        ("SyncOperations", "Sender", False),
        ("AsyncOperations", "AsyncSender", True),
    ):
        lines = [f"class {name}({base}):", '    """The methods of all operations."""', ""]
        for operation in operations:
            lines += python_method(operation, is_async=is_async)
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def python_method(operation: Operation, *, is_async: bool) -> list[str]:
    """Return the lines of a method."""
    required, optional = python_parameters(operation)
    define = "async def" if is_async else "def"
    results = result_types(operation)
    lines = []
    if len(results) > 1:
        for result, fields in zip(results, ("None = None", "str"), strict=True):
            arguments = [
                f"fields: {fields}" if each.startswith("fields:") else each for each in optional
            ]
            signature = ", ".join([*required, "*", *arguments])
            lines += ["    @overload", f"    {define} {operation.id}({signature}) -> {result}: ..."]
    signature = ", ".join([*required, *(["*", *optional] if optional else [])])
    names = [each.partition(":")[0] for each in (*required, *optional)]
    call = [operation.id.upper()]
    for place in ("path", "query"):
        if operation.names(place):
            pairs = ", ".join(f'"{name}": {name}' for name in operation.names(place))
            call.append(f"{place}={{{pairs}}}")
    options = ("body", "if_match", "idempotency_key", "content_type")
    call += [f"{name}={name}" for name in options if name in names]
    summary = " ".join(operation.summary.split())
    return [
        *lines,
        f"    {define} {operation.id}({signature}) -> {' | '.join(results)}:",
        f'        """{summary}"""',
        f"        return {'await ' if is_async else ''}self.call({', '.join(call)})",
        "",
    ]


def python_parameters(operation: Operation) -> tuple[list[str], list[str]]:
    """Return the positional parameters of a method, and those that are keywords."""
    required, optional = ["self"], []
    for parameter in operation.parameters:
        if parameter["in"] == "header":
            continue
        kind = python_type(parameter["schema"]).replace("list[", "Sequence[")
        if parameter["required"]:
            required.append(f"{parameter['name']}: {kind}")
        else:
            optional.append(f"{parameter['name']}: {kind} | None = None")
    body = body_type(operation)
    if body:
        required.append(f"body: {body}{'' if operation.body_required else ' | None = None'}")
    for header, name in (("If-Match", "if_match"), ("Idempotency-Key", "idempotency_key")):
        if header in operation.names("header"):
            optional.append(f"{name}: str | None = None")
    if body == "Content":
        optional.append('content_type: str = "application/octet-stream"')
    return required, optional


def formatted(text: str) -> str:
    """Return Python code in the format of the project."""
    ruff = [str(ROOT / ".venv" / "bin" / "ruff")]
    options = ["--config", str(PYTHON / "pyproject.toml"), "--stdin-filename", "generated.py", "-"]
    for command in (["check", "--select", "I,F401", "--fix", "-q"], ["format", "-q"]):
        text = subprocess.run(
            [*ruff, *command, *options], input=text, check=True, capture_output=True, text=True
        ).stdout
    return text


# --- checksums


def checksum(text: str) -> str:
    """Return the beginning of the SHA-256 of a text."""
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def stamped(path: Path, text: str) -> str:
    """Return the text with a first line that has the checksums."""
    comment = "//" if path.suffix == ".ts" else "#"
    sums = f"document {checksum(DOCUMENT.read_text('utf-8'))}, content {checksum(text)}"
    return f"{comment} Generated by `make clients-generate`; do not edit: {sums}\n{text}"


def check() -> list[str]:
    """Return what is wrong with the generated files and the versions."""
    problems = []
    document = checksum(DOCUMENT.read_text("utf-8"))
    for path in GENERATED:
        first, _, rest = path.read_text("utf-8").partition("\n")
        if f"document {document}," not in first:
            problems.append(f"{path.relative_to(ROOT)} was generated from another document")
        if not first.endswith(f"content {checksum(rest)}"):
            problems.append(f"{path.relative_to(ROOT)} was edited")
    version = json.loads(DOCUMENT.read_text("utf-8"))["info"]["version"]
    for path, pattern in VERSIONS.items():
        found = re.search(pattern, path.read_text("utf-8"))
        if found is None or found[1] != version:
            problems.append(f"{path.relative_to(ROOT)} has another version than the API, {version}")
    return problems


def generate() -> None:
    """Write the document and all generated files."""
    environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    subprocess.run(
        [str(ROOT / ".venv" / "bin" / "python"), "-c", WRITE_DOCUMENT, str(DOCUMENT)],
        cwd=ROOT / "backend", env=environment, check=True,
    )  # fmt: skip
    document = json.loads(DOCUMENT.read_text("utf-8"))
    for_python = with_inline_enums(document)
    version = document["info"]["version"]
    for path, pattern in VERSIONS.items():
        text = path.read_text("utf-8")
        found = re.search(pattern, text)
        if found and found[1] != version:
            path.write_text(text[: found.start(1)] + version + text[found.end(1) :], "utf-8")
    for path, text in (
        (TYPESCRIPT_TYPES, typescript_types()),
        (TYPESCRIPT_OPERATIONS, typescript_operations(document)),
        (MODELS, formatted(python_models(for_python))),
        (ERRORS, formatted(python_errors(document))),
        (OPERATIONS, formatted(python_operations(for_python))),
    ):
        path.write_text(stamped(path, text), "utf-8")


def main(arguments: Sequence[str]) -> int:
    """Return the exit status."""
    if list(arguments) not in (["generate"], ["check"]):
        print(__doc__, file=sys.stderr)
        return 2
    if arguments[0] == "generate":
        generate()
    problems = check()
    for problem in problems:
        print(f"{problem}: run `make clients-generate`", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
