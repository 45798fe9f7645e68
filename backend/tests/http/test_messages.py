"""Messages of validation errors: each constraint of each schema has a sentence."""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.dependencies.models import Dependant
from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.routing import Mount

from app.conduit.errors import message_of
from app.core.validation import PATTERN_MESSAGES, validation_message
from app.main import create_app
from app.schemas.types import Input, Output

WRONG = [
    None,
    5,
    -1,
    2**70,
    1.5,
    True,
    "",
    " ",
    "\0",
    "a\u2028b",
    "a b <é>",
    "x" * (1024 * 1024 + 1),
    [],
    ["\0"],
    [5] * 200,
    {},
    {"\0": "\0"},
]
"""Values of which each field rejects some."""


def parameters(dependant: Dependant) -> Iterator[TypeAdapter[Any]]:
    for fields in (
        dependant.path_params,
        dependant.query_params,
        dependant.header_params,
        dependant.cookie_params,
        dependant.body_params,
    ):
        yield from (field._type_adapter for field in fields)
    for dependency in dependant.dependencies:
        yield from parameters(dependency)


def subclasses(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for each in model.__subclasses__():
        yield each
        yield from subclasses(each)


def applications(app: FastAPI) -> list[FastAPI]:
    mounted = [route.app for route in app.routes if isinstance(route, Mount)]
    return [app, *(each for each in mounted if isinstance(each, FastAPI))]


@pytest.fixture(scope="module")
def schemas() -> list[TypeAdapter[Any]]:
    """Return the schemas of all parameters and bodies, and all request models, of both APIs."""
    both = applications(create_app())
    assert len(both) == 2
    routes = [route for app in both for route in app.routes if isinstance(route, APIRoute)]
    found = [adapter for route in routes for adapter in parameters(route.dependant)]
    models = [*subclasses(Input)]
    assert not {*models} & {*subclasses(Output)}
    assert len(found) > 150
    assert len(models) > 40
    return found + [TypeAdapter(model) for model in models]


def patterns_of(schema: Any) -> Iterator[str]:
    if isinstance(schema, Mapping):
        if schema.get("type") == "str" and "pattern" in schema:
            yield schema["pattern"]
        schema = schema.values()
    if isinstance(schema, Iterable) and not isinstance(schema, str | bytes):
        for each in schema:
            yield from patterns_of(each)


def test_each_pattern_has_a_message(schemas: list[TypeAdapter[Any]]) -> None:
    used = {pattern for schema in schemas for pattern in patterns_of(schema.core_schema)}
    assert used == PATTERN_MESSAGES.keys()
    for message in PATTERN_MESSAGES.values():
        assert re.fullmatch(r"should (not )?(be|contain) [\w ,:/]+", message), message


def errors_of(schema: TypeAdapter[Any], value: Any) -> list[Any]:
    try:
        schema.validate_python(value)
    except ValidationError as error:
        return list(error.errors())
    return []


def fields_of(schema: TypeAdapter[Any]) -> list[str]:
    """Return the names of the fields of a model; of other types, none."""
    kind = schema._type
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return []
    return [field.alias or name for name, field in kind.model_fields.items()]


def test_no_message_contains_a_regular_expression(schemas: list[TypeAdapter[Any]]) -> None:
    messages: set[str] = set()
    for schema in schemas:
        values = [*WRONG, *({name: value} for name in fields_of(schema) for value in WRONG)]
        for value in values:
            for error in errors_of(schema, value):
                messages |= {validation_message(error), message_of(error)}
    assert len(messages) > 100
    for message in messages:
        assert not any(pattern.strip("^$") in message for pattern in PATTERN_MESSAGES), message
        assert not re.search(r"pattern|validation|dictionary|\(\?|\^|<[A-Z]|\$$", message), message
        assert len(message.split()) > 1, message
