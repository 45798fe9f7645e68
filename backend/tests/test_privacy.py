"""docs/privacy.md lists every table and column, and what a user can export."""

import re

import pytest
from sqlalchemy import Table

import app.models  # noqa: F401 - registers the tables
from app.core.config import PROJECT_DIR
from app.db.base import Base
from app.services.accounts import own_data

pytestmark = pytest.mark.checkout

NAME = re.compile(r"`([\w-]+)`")


def documented() -> dict[str, tuple[list[str], str]]:
    """Return the columns of each table in docs/privacy.md, and the cell *exported as*."""
    text = (PROJECT_DIR / "docs" / "privacy.md").read_text(encoding="utf-8")
    rows = [each.split("|") for each in re.findall(r"^\| `\w+` \|.*\|$", text, re.MULTILINE)]
    tables = {
        NAME.findall(row[1])[0]: (NAME.findall(row[2]) + NAME.findall(row[3]), row[5])
        for row in rows
        if len(row) == 7
    }
    assert len(tables) == len([row for row in rows if len(row) == 7])
    return tables


def test_every_table_and_column_is_listed_once() -> None:
    columns = {table.name: [each.name for each in table.columns] for table in _tables()}
    listed = {name: columns for name, (columns, _) in documented().items()}
    assert columns.keys() == listed.keys(), "add the table to docs/privacy.md"
    for name, expected in columns.items():
        assert sorted(listed[name]) == sorted(expected), f"correct {name} in docs/privacy.md"


def test_every_exported_file_is_at_its_table() -> None:
    tables = documented()
    for each in own_data.FILES:
        assert each.name in NAME.findall(tables[each.model.__tablename__][1]), each.name


def _tables() -> list[Table]:
    return list(Base.metadata.tables.values())
