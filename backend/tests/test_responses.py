"""Each error of a route is declared once: by the route, or by one of its dependencies.

`tests.declared` requires in all tests that a route declares the errors that it returns.
"""

import re
from contextlib import nullcontext

import httpx
import pytest
from fastapi import FastAPI

from app.core import errors
from tests.declared import declared_codes, native_routes, require_declared

ERROR_NAMES = {name for name in vars(errors) if isinstance(getattr(errors, name), type)}


def test_no_route_declares_an_error_twice(app: FastAPI) -> None:
    for route in native_routes(app):
        for status, response in route.responses.items():
            if codes := declared_codes(route, int(status)):
                messages = response["description"].split(" · ")
                assert len(messages) == len(codes), f"{route.name}: {status}"


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
    response = httpx.Response(status, json={"code": code}, request=request)
    with nullcontext() if declared else pytest.raises(AssertionError, match=code):
        await require_declared(app, response)
