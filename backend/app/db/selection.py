"""Selected columns, and the objects that are read from their rows.

A schema declares its fields once. `Selection.of` finds the columns by the names of the fields.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, TypeAdapter
from sqlalchemy import ColumnElement

Item = TypeVar("Item")
Schema = TypeVar("Schema", bound=BaseModel)


class Selection(Generic[Item]):
    """The columns of a query, and the conversion of its rows.

    `fields` maps each field to its column, or to the fields of a nested object. A nested object is
    None if its first column is NULL. A statement may select further columns after these.
    """

    def __init__(self, make: Callable[[dict[str, Any]], Item], fields: Mapping[str, Any]) -> None:
        """Read rows with `make`, which gets a mapping by field."""
        self._make = make
        plain = {name: each for name, each in fields.items() if not isinstance(each, Mapping)}
        self._names = tuple(plain)
        columns = [column.label(name) for name, column in plain.items()]
        self._nested: list[tuple[str, slice, tuple[str, ...]]] = []
        for name, nested in fields.items():
            if isinstance(nested, Mapping):
                part = slice(len(columns), len(columns) + len(nested))
                self._nested.append((name, part, tuple(nested)))
                columns += [column.label(f"{name}__{field}") for field, column in nested.items()]
        self.columns: Sequence[ColumnElement[Any]] = columns

    @classmethod
    def of(cls, schema: type[Schema], source: Any, **expressions: Any) -> "Selection[Schema]":
        """Select the fields of a schema. See `fields_of`."""
        # The validator itself: `model_validate` takes a microsecond more for each row.
        validate = TypeAdapter(schema).validator.validate_python
        return Selection(validate, fields_of(schema, source, **expressions))

    def read(self, row: Sequence[Any]) -> Item:
        """Return the object of a row."""
        values = dict(zip(self._names, row, strict=False))
        for name, part, fields in self._nested:
            nested = row[part]
            values[name] = None if nested[0] is None else dict(zip(fields, nested, strict=True))
        return self._make(values)


def fields_of(schema: type[BaseModel], source: Any, **expressions: Any) -> dict[str, Any]:
    """Return the column of each field of a schema: an expression, or an attribute of `source`."""
    return {
        name: expressions[name] if name in expressions else getattr(source, name)
        for name in schema.model_fields
    }
