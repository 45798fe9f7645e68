"""The comparison of `make restore-drill`, which itself needs containers."""

import importlib
from typing import Any

import pytest

pytestmark = pytest.mark.checkout

TABLES = {"users": (2, "a"), "media": (1, "b")}
IMAGES = {"one": "x", "two": "y"}


@pytest.fixture(scope="module")
def drill() -> Any:
    return importlib.import_module("restore_drill")


@pytest.mark.parametrize(
    ("tables", "images", "found"),
    [
        (TABLES, IMAGES, []),
        (TABLES, IMAGES | {"later": "z"}, []),
        (TABLES | {"users": (1, "a")}, IMAGES, ["users has 1 rows, but had 2"]),
        (TABLES | {"users": (2, "c")}, IMAGES, ["users has other contents"]),
        ({"users": (2, "a")}, IMAGES, ["media is missing"]),
        (TABLES, {"one": "x"}, ["1 images have no files"]),
        (TABLES, {"one": "z", "two": "y"}, ["1 images have other files"]),
    ],
)
def test_differences_are_found(
    drill: Any, tables: dict[str, Any], images: dict[str, str], found: list[str]
) -> None:
    expected = drill.State(TABLES, IMAGES)
    assert drill.differences(expected, drill.State(tables, images)) == found
