"""Handlers of reads: they behave as FastAPI's own."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, Header, Path, Query, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field

from app.http.reads import ReadRoutes, read_handler
from app.http.routing import StrictRoute


class PlannedRoute(APIRoute):
    """A route with a handler of http.reads."""

    def get_route_handler(self) -> Any:
        handle = read_handler(self)
        assert handle is not None
        return handle


class Search(BaseModel):
    word: Annotated[str, Field(max_length=5)]
    tag: list[str] = Field(default_factory=list, max_length=2)
    limit: int = 20


class Found(BaseModel):
    number: int
    values: dict[str, Any]
    calls: int
    missing: str = "default"


class Counter:
    """A dependency that is an object, and counts its calls in the request."""

    async def __call__(self, request: Request) -> int:
        request.state.calls = getattr(request.state, "calls", 0) + 1
        calls: int = request.state.calls
        return calls


counter = Counter()


async def described(response: Response, calls: Annotated[int, Depends(counter)]) -> int:
    response.headers["X-Calls"] = str(calls)
    response.headers.append("Link", "<a>")
    return calls


def application(route_class: type[APIRoute]) -> FastAPI:
    router = APIRouter(route_class=route_class)

    @router.get("/numbers/{number}", response_model_exclude_unset=True)
    async def read(
        number: Annotated[int, Path(gt=0)],
        search: Annotated[Search, Query()],
        calls: Annotated[int, Depends(counter)],
        again: Annotated[int, Depends(described)],
    ) -> Found:
        return Found(number=number, values=search.model_dump(), calls=calls + again)

    app = FastAPI()
    app.router.routes.extend(router.routes)
    return app


@pytest.mark.parametrize(
    "path",
    [
        "/numbers/1?word=loom",
        "/numbers/1?word=loom&tag=a&tag=b&limit=7&unknown=1&unknown=2",
        "/numbers/1?word=first&word=last",
        "/numbers/1?word=&tag=",
        "/numbers/0?word=too-long&tag=a&tag=b&tag=c&limit=many",
        "/numbers/one",
        "/numbers/2?limit=",
    ],
)
async def test_responses_are_those_of_fastapi(path: str) -> None:
    answers = []
    for route_class in (APIRoute, PlannedRoute):
        transport = httpx.ASGITransport(application(route_class))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            response = await client.get(path)
        answers.append((response.status_code, response.headers.multi_items(), response.text))
    assert answers[0] == answers[1]


async def yielding() -> AsyncIterator[int]:
    yield 1


def in_a_thread() -> int:
    return 1


async def with_header(x_name: Annotated[str, Header()]) -> str:
    return x_name


@pytest.mark.parametrize("dependency", [yielding, in_a_thread, with_header])
def test_other_dependencies_are_left_to_fastapi(dependency: Any) -> None:
    router = APIRouter(dependencies=[Depends(dependency)])

    @router.get("/")
    async def read() -> int:
        return 1

    assert isinstance(router.routes[0], APIRoute)
    assert read_handler(router.routes[0]) is None


def test_routes_that_write_are_left_to_fastapi() -> None:
    router = APIRouter()

    @router.post("/")
    async def write() -> int:
        return 1

    assert isinstance(router.routes[0], APIRoute)
    assert read_handler(router.routes[0]) is None


async def test_the_first_matching_route_is_called_directly_if_it_only_reads() -> None:
    router = APIRouter(route_class=StrictRoute)

    @router.get("/numbers/{number}")
    async def read(number: Annotated[int, Path()]) -> int:
        return number

    @router.get("/{anything}/three")
    async def read_anything(anything: Annotated[str, Path()]) -> str:
        return anything

    async def earlier(request: Request) -> Response:
        return Response("earlier")

    async def other(scope: Any, receive: Any, send: Any) -> None:
        await Response("other")(scope, receive, send)

    app = FastAPI()
    app.add_route("/{segment}/one", earlier)
    app.router.routes.extend(router.routes)
    transport = httpx.ASGITransport(ReadRoutes(other, app.router.routes))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/numbers/2")).text == "2"
        for method, path in (
            ("GET", "/numbers/one"),
            ("GET", "/words/three"),
            ("GET", "/numbers"),
            ("GET", "/"),
            ("POST", "/numbers/2"),
        ):
            assert (await client.request(method, path)).text == "other", path
