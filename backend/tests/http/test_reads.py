"""Handlers of routes with JSON: they behave as FastAPI's own."""

from collections.abc import AsyncIterator
from typing import Annotated, Any

import httpx
import pytest
from fastapi import (
    APIRouter,
    BackgroundTasks,
    Body,
    Cookie,
    Depends,
    FastAPI,
    Form,
    Header,
    HTTPException,
    Path,
    Query,
    Request,
    Response,
    Security,
)
from fastapi.routing import APIRoute
from fastapi.security import SecurityScopes
from pydantic import BaseModel, Field
from starlette.middleware.errors import ServerErrorMiddleware

from app.http.middleware import ErrorBoundary
from app.http.reads import find_reads_directly, planned_handler
from app.http.routing import StrictRoute


class PlannedRoute(APIRoute):
    """A route with a handler of http.reads."""

    def get_route_handler(self) -> Any:
        handle = planned_handler(self)
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


ended: list[str] = []
"""How units of work ended, and what was done after the response."""


async def unit_of_work(tasks: BackgroundTasks) -> AsyncIterator[list[str]]:
    async def log(line: str) -> None:
        ended.append(line)

    unit: list[str] = []
    try:
        yield unit
    except Exception as error:
        ended.append(type(error).__name__)
        raise
    ended.extend(unit)
    tasks.add_task(log, "logged")


async def with_header(
    scopes: SecurityScopes,
    unit: Annotated[list[str], Depends(unit_of_work, scope="function")],
    x_name: Annotated[str, Header(max_length=5)] = "none",
) -> str:
    unit.append(x_name)
    return f"{x_name} {scopes.scope_str}"


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

    @router.post("/numbers/{number}", status_code=201)
    async def write(
        number: Annotated[int, Path(gt=0)],
        calls: Annotated[int, Depends(counter)],
        unit: Annotated[list[str], Depends(unit_of_work, scope="function")],
        scoped: Annotated[str, Security(with_header, scopes=["numbers:write"])],
        search: Search,
        response: Response,
    ) -> Found:
        response.headers["Location"] = f"/numbers/{number}"
        if number == 202:
            response.status_code = 202
        if search.limit == 0:
            raise HTTPException(409)
        unit.append("written")
        return Found(number=number, values={**search.model_dump(), "scoped": scoped}, calls=calls)

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


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/numbers/1", b'{"word": "loom"}', {}),
        ("/numbers/202", b'{"word": "loom", "tag": ["a"]}', {"X-Name": "ada"}),
        ("/numbers/0", b'{"word": "too-long", "limit": "many"}', {"X-Name": "too-long"}),
        ("/numbers/1", b'{"word": "loom", "limit": 0}', {}),
        ("/numbers/1", b'{"word"', {}),
        ("/numbers/1", b"[]", {}),
        ("/numbers/1", b"", {}),
    ],
)
async def test_writes_are_those_of_fastapi(path: str, body: bytes, headers: dict[str, str]) -> None:
    answers = []
    for route_class in (APIRoute, PlannedRoute):
        ended.clear()
        transport = httpx.ASGITransport(application(route_class))
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            headers = {**headers, "Content-Type": "application/json"}
            response = await client.post(path, content=body, headers=headers)
        shown = response.headers.multi_items()
        answers.append((response.status_code, shown, response.text, list(ended)))
    assert answers[0] == answers[1]


async def yielding() -> AsyncIterator[int]:
    yield 1


def in_a_thread() -> int:
    return 1


async def with_cookie(name: Annotated[str, Cookie()]) -> str:
    return name


async def with_form(name: Annotated[str, Form()]) -> str:
    return name


async def with_parts(one: Annotated[int, Body()], other: Annotated[int, Body()]) -> int:
    return one + other


@pytest.mark.parametrize("dependency", [yielding, in_a_thread, with_cookie, with_form, with_parts])
def test_other_dependencies_are_left_to_fastapi(dependency: Any) -> None:
    router = APIRouter(dependencies=[Depends(dependency)])

    @router.post("/")
    async def write() -> int:
        return 1

    assert isinstance(router.routes[0], APIRoute)
    assert planned_handler(router.routes[0]) is None


def test_a_dependency_with_different_scopes_is_left_to_fastapi() -> None:
    router = APIRouter(dependencies=[Security(with_header, scopes=["numbers:read"])])

    @router.post("/")
    async def write(scoped: Annotated[str, Security(with_header, scopes=["numbers:write"])]) -> str:
        return scoped

    assert isinstance(router.routes[0], APIRoute)
    assert planned_handler(router.routes[0]) is None


async def test_the_first_matching_route_is_found_directly_if_it_only_reads() -> None:
    router = APIRouter(route_class=StrictRoute)

    @router.get("/numbers/{number}")
    async def read(number: Annotated[int, Path()]) -> int:
        return number

    @router.post("/numbers/{number}")
    async def write(number: Annotated[int, Path()]) -> int:
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
    app.router.middleware_stack = other
    find_reads_directly(app)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/numbers/2")).text == "2"
        for method, path in (
            ("GET", "/numbers/one"),
            ("GET", "/words/three"),
            ("GET", "/numbers"),
            ("GET", "/"),
            ("POST", "/numbers/2"),
            ("PUT", "/numbers/2"),
        ):
            assert (await client.request(method, path)).text == "other", path
        transport.root_path = "/api"
        assert (await client.get("/api/numbers/2")).text == "2"
        assert (await client.get("/numbers/2")).text == "2"


@pytest.mark.parametrize("is_traced", [False, True])
def test_layers_around_the_middleware_stay_only_with_traces(*, is_traced: bool) -> None:
    app = FastAPI()
    app.add_middleware(ErrorBoundary)
    find_reads_directly(app, is_traced=is_traced)
    outermost = ServerErrorMiddleware if is_traced else ErrorBoundary
    assert type(app.middleware_stack) is outermost
