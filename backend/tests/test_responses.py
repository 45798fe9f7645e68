"""Each error of a route is declared once: by the route, or by one of its dependencies.

`tests.declared` requires in all tests that a route declares the errors and headers that it returns.
"""

import re
from contextlib import nullcontext

import httpx
import pytest
from fastapi import FastAPI

from app.core import errors
from app.http.errors import error_body
from tests.declared import declared_codes, native_routes, require_declared

ERROR_NAMES = {name for name in vars(errors) if isinstance(getattr(errors, name), type)}


def test_no_route_declares_an_error_twice(app: FastAPI) -> None:
    for route in native_routes(app):
        for status, types in route.errors.items():
            assert len(types) == len(declared_codes(route, status)), f"{route.name}: {status}"


def test_no_docstring_declares_an_error(app: FastAPI) -> None:
    for route in native_routes(app):
        words = re.findall(r"\w+", route.description)
        assert not ERROR_NAMES & set(words), route.name
        assert not [word for word in words if re.fullmatch(r"[345]\d\d", word)], route.name


@pytest.mark.parametrize(
    ("status", "code", "declared"),
    [(404, "article_not_found", True), (409, "slug_taken", False), (404, "user_not_found", False)],
)
async def test_undeclared_error_fails(app: FastAPI, status: int, code: str, declared: bool) -> None:
    request = httpx.Request("GET", "http://testserver/articles/1")
    body = error_body(message="Failed", code=code, identifier="0")
    response = httpx.Response(status, json=body, request=request)
    with nullcontext() if declared else pytest.raises(AssertionError, match=code):
        await require_declared(app, response)


@pytest.mark.parametrize(
    ("path", "header", "declared"),
    [
        ("/articles", "Link", True),
        ("/articles", "X-Total-Count", True),
        ("/articles/1", "ETag", True),
        ("/api/articles/a", "ETag", True),
        ("/articles/1", "Link", False),
        ("/api/tags", "X-Total-Count", False),
    ],
)
async def test_undeclared_header_fails(
    app: FastAPI, path: str, header: str, declared: bool
) -> None:
    request = httpx.Request("GET", f"http://testserver{path}")
    response = httpx.Response(200, headers={header: "1"}, request=request)
    with nullcontext() if declared else pytest.raises(AssertionError, match=header):
        await require_declared(app, response)
