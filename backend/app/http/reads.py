"""Handlers of routes with JSON, without FastAPI's work for each request.

FastAPI examines the dependencies and the fields of query models again for each request, and opens
exit stacks. That takes more time than the query. Here a route's dependencies are examined once.
The declarations, the order, the values and the errors are FastAPI's. Routes with anything else,
such as a form or a dependency that needs a thread, are left to FastAPI.

`yield` dependencies must have `scope="function"`: a unit of work ends before its response is sent.

Such a handler may also return JSON as bytes, which are sent as they are. Lists do that: to validate
what was just selected and to serialise the models takes twice as long as to serialise the rows.
"""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from inspect import isasyncgenfunction, iscoroutinefunction
from json import JSONDecodeError
from typing import Any, NamedTuple, get_origin

from fastapi import APIRouter, BackgroundTasks, FastAPI, HTTPException, Request, Response
from fastapi.datastructures import DefaultPlaceholder
from fastapi.dependencies.models import Dependant
from fastapi.dependencies.utils import request_body_to_args, request_params_to_args
from fastapi.exceptions import RequestValidationError, ResponseValidationError
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.params import File, Form
from fastapi.routing import APIRoute
from fastapi.security import SecurityScopes
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from starlette.datastructures import QueryParams
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

from app.core.errors import PressroomError

Handler = Callable[[Request], Awaitable[Response]]
Call = Callable[..., Awaitable[Any]]

EXIT_STACK = "fastapi_function_astack"
"""Key in the scope of the exit stack of `yield` dependencies, as in FastAPI."""
_SUPPORTED = frozenset(
    {
        "background_tasks_param_name",
        "body_params",
        "dependencies",
        "header_params",
        "http_connection_param_name",
        "path_params",
        "query_params",
        "request_param_name",
        "response_param_name",
        "security_scopes_param_name",
    }
)
_NEUTRAL = frozenset(
    {"name", "call", "path", "own_oauth_scopes", "parent_oauth_scopes", "scope", "use_cache"}
)
"""Attributes of a Dependant that do not change how it is called, with `use_cache`."""


class _Step(NamedTuple):
    """A function to call, with its arguments: dependencies, parameters, request and response."""

    call: Call
    name: str | None
    """The argument of the calling function, if it has one for the result."""
    dependencies: "tuple[_Step, ...]"
    path: tuple[Any, ...]
    query: Any
    """The field of the query model, or None."""
    lists: frozenset[str]
    """The names of the query parameters that are lists."""
    headers: Sequence[Any]
    body: list[Any]
    """The field of the body, if the function has one."""
    given: tuple[tuple[str, str], ...]
    """Names of arguments, and the attributes of `_Request` with their values."""
    constants: Mapping[str, SecurityScopes]
    enter: Callable[..., AbstractAsyncContextManager[Any]] | None
    """The context manager of a `yield` dependency; None for other functions."""


class _Request(NamedTuple):
    """A request while its dependencies are resolved, with what they add to the response."""

    request: Request
    response: Response | None
    """None if no function of the route gets it."""
    tasks: BackgroundTasks | None
    """None if no function of the route gets them."""
    body: Any
    solved: dict[Call, Any]
    errors: list[Any]


def has_units(route: APIRoute) -> bool:
    """Return whether the route has `yield` dependencies."""
    return any(isasyncgenfunction(each.call) for each in _dependants(route.dependant))


def planned_handler(route: APIRoute) -> Handler | None:
    """Return a handler of the route, or None if FastAPI has to handle it."""
    step = _step(route.dependant)
    field = route.response_field
    is_json = field is not None and isinstance(route.response_class, DefaultPlaceholder)
    if step is None or not is_json or not _has_plain_body(route) or _has_mixed_scopes(route):
        return None
    assert field is not None  # noqa: S101 - for mypy
    options: Mapping[str, Any] = {
        "include": route.response_model_include,
        "exclude": route.response_model_exclude,
        "by_alias": route.response_model_by_alias,
        "exclude_unset": route.response_model_exclude_unset,
        "exclude_defaults": route.response_model_exclude_defaults,
        "exclude_none": route.response_model_exclude_none,
    }
    status = route.status_code or 200
    has_body = route.body_field is not None
    dependants = list(_dependants(route.dependant))
    has_tasks = any(each.background_tasks_param_name for each in dependants)
    is_described = any(each.response_param_name for each in dependants)

    async def handle(request: Request) -> Response:
        described = _no_response() if is_described else None
        tasks = BackgroundTasks() if has_tasks else None
        body = await _read_body(request) if has_body else PydanticUndefined
        solving = _Request(request, described, tasks, body, {}, [])
        arguments = await _arguments(step, solving)
        if solving.errors:
            raise RequestValidationError(
                solving.errors, body=None if body is PydanticUndefined else body
            )
        result = await step.call(**arguments)
        if isinstance(result, Response):
            if result.background is None:
                result.background = tasks  # added until the unit of work ends
            return result
        if not isinstance(result, bytes):
            value, errors = field.validate(result, {}, loc=("response",))
            if errors:
                raise ResponseValidationError(errors, body=result)
            result = field.serialize_json(value, **options)
        described_status = 0 if described is None else described.status_code
        response = Response(
            result, described_status or status, media_type="application/json", background=tasks
        )
        if described is not None:
            response.raw_headers.extend(described.raw_headers)
        return response

    return handle


def _no_response() -> Response:
    """Return the response that functions of a route describe: without a status and a body."""
    response = Response()
    response.raw_headers.clear()
    response.status_code = 0
    return response


def _dependants(dependant: Dependant) -> Iterator[Dependant]:
    """Yield a dependant and all its dependencies."""
    yield dependant
    for each in dependant.dependencies:
        yield from _dependants(each)


def _has_plain_body(route: APIRoute) -> bool:
    """Return whether the route has no body, or one JSON body that is a single parameter."""
    fields = [field for each in _dependants(route.dependant) for field in each.body_params]
    return not fields or (
        len(fields) == 1
        and not isinstance(fields[0].field_info, (Form, File))
        and not getattr(fields[0].field_info, "embed", None)
    )


def _has_mixed_scopes(route: APIRoute) -> bool:
    """Return whether a function that gets scopes is used with different ones."""
    used = {
        (each.call, _scopes(each))
        for each in _dependants(route.dependant)
        if each.security_scopes_param_name
    }
    return len(used) > len({call for call, _ in used})


def _scopes(dependant: Dependant) -> tuple[str, ...]:
    scopes = [*(dependant.parent_oauth_scopes or ()), *(dependant.own_oauth_scopes or ())]
    return tuple(dict.fromkeys(scopes))


async def _read_body(request: Request) -> Any:
    """Return the parsed JSON body; PydanticUndefined if it is empty."""
    try:
        return await request.json() if await request.body() else PydanticUndefined
    except JSONDecodeError as error:
        invalid = {
            "type": "json_invalid",
            "loc": ("body", error.pos),
            "msg": "JSON decode error",
            "input": {},
            "ctx": {"error": error.msg},
        }
        raise RequestValidationError([invalid], body=error.doc) from error
    except (HTTPException, PressroomError):
        raise
    except Exception as error:
        raise HTTPException(400, "There was an error parsing the body") from error


def _step(dependant: Dependant) -> _Step | None:
    """Return the step of a dependency or a route; None if it has more than is supported here."""
    call: Any = dependant.call
    used = {name for name in Dependant.__slots__ if getattr(dependant, name)} - _NEUTRAL
    is_unit = isasyncgenfunction(call) and dependant.scope == "function"
    is_async = iscoroutinefunction(call) or iscoroutinefunction(type(call).__call__)
    if not (is_async or is_unit) or not used <= _SUPPORTED or not dependant.use_cache:
        return None
    query, lists = None, frozenset[str]()
    if dependant.query_params:
        query = dependant.query_params[0]
        model: Any = query.field_info.annotation
        if len(dependant.query_params) > 1 or not _is_plain_model(model):
            return None
        fields = model.model_fields.items()
        lists = frozenset(name for name, info in fields if get_origin(info.annotation) is list)
    steps = tuple(map(_step, dependant.dependencies))
    if None in steps:
        return None
    given = {
        dependant.http_connection_param_name: "request",
        dependant.request_param_name: "request",
        dependant.response_param_name: "response",
        dependant.background_tasks_param_name: "tasks",
    }
    scopes_name = dependant.security_scopes_param_name
    return _Step(
        call,
        dependant.name,
        steps,  # type: ignore[arg-type] # none of them is None
        tuple(dependant.path_params),
        query,
        lists,
        dependant.header_params,
        dependant.body_params,
        tuple((name, source) for name, source in given.items() if name),
        {} if scopes_name is None else {scopes_name: SecurityScopes(list(_scopes(dependant)))},
        asynccontextmanager(call) if is_unit else None,
    )


def _is_plain_model(model: Any) -> bool:
    """Return whether it is a Pydantic model whose fields have no aliases."""
    return (
        isinstance(model, type)
        and issubclass(model, BaseModel)
        and not any(info.alias or info.validation_alias for info in model.model_fields.values())
    )


async def _arguments(step: _Step, solving: _Request) -> dict[str, Any]:
    """Return the arguments of a step, and append the errors of its parameters."""
    arguments: dict[str, Any] = dict(step.constants)
    solved, errors = solving.solved, solving.errors
    for dependency in step.dependencies:
        call = dependency.call
        if call not in solved:
            before = len(errors)
            values = await _arguments(dependency, solving)
            if len(errors) > before:
                continue
            if dependency.enter is None:
                solved[call] = await call(**values)
            else:
                stack: AsyncExitStack = solving.request.scope[EXIT_STACK]
                solved[call] = await stack.enter_async_context(dependency.enter(**values))
        if dependency.name is not None:
            arguments[dependency.name] = solved[call]
    _add_parameters(arguments, step, solving)
    if step.body:
        values, found = await request_body_to_args(step.body, solving.body, embed_body_fields=False)
        arguments |= values
        errors += found
    for name, source in step.given:
        arguments[name] = getattr(solving, source)
    return arguments


def _add_parameters(arguments: dict[str, Any], step: _Step, solving: _Request) -> None:
    """Add the parameters of the path, the query and the headers to the arguments of a step."""
    request, errors = solving.request, solving.errors
    for field in step.path:
        value, found = field.validate(
            request.path_params[field.alias], {}, loc=("path", field.alias)
        )
        arguments[field.name] = value
        errors += found
    if step.query is not None:
        value, found = step.query.validate(
            _query_values(request.query_params, step.lists), {}, loc=("query",)
        )
        arguments[step.query.name] = value
        errors += found
    if step.headers:
        values, found = request_params_to_args(step.headers, request.headers)
        arguments |= values
        errors += found


def _query_values(parameters: QueryParams, lists: frozenset[str]) -> dict[str, Any]:
    """Return the values by name: a list for `lists`, otherwise the last value."""
    return {
        name: parameters.getlist(name) if name in lists else value
        for name, value in parameters.items()
    }


class ReadRoutes:
    """Finds routes of `router` that only read without Starlette's search.

    The routes of a request are those with the first segment of its path. The first one that
    matches is called, as in Starlette, which tries all routes in turn. With traces, FastAPI finds
    all routes, because it names the spans.
    """

    def __init__(self, router: APIRouter, otherwise: ASGIApp) -> None:
        """`otherwise` handles all other requests."""
        self._router = router
        self._app = otherwise
        routes = router.routes
        segments = {_first_segment(route) for route in routes if _is_read(route)}
        self._routes = {
            segment: [
                route
                for route in routes
                if _first_segment(route) in {segment, None} and _may_read(route)
            ]
            for segment in segments
        }
        """The routes of GET requests, by first segment."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_read = scope["type"] == "http" and scope["method"] == "GET"
        if is_read and "fastapi.telemetry" not in scope:
            path, prefix = scope["path"], scope.get("root_path", "") + "/"
            below = path[len(prefix) :] if path.startswith(prefix) else path[1:]
            for route in self._routes.get(below.partition("/")[0], ()):
                match, child_scope = route.matches(scope)
                if match is Match.FULL:
                    if not _is_read(route):
                        break
                    scope.setdefault("router", self._router)
                    scope.update(child_scope)
                    await route.handle(scope, receive, send)
                    return
        await self._app(scope, receive, send)


def find_reads_directly(app: FastAPI, *, is_traced: bool = False) -> None:
    """Let ReadRoutes find the routes of an application, which must be complete.

    It replaces FastAPI's exit stack, which closes the files of forms. Layers around the middleware
    of the application are removed: ErrorBoundary answers errors, and there is no FastAPI body
    limit. With `is_traced` they stay, because one of them notes errors in spans.
    """
    layers: Any = app.build_middleware_stack()
    if app.user_middleware and not is_traced:
        outermost: Any = app.user_middleware[0].cls
        while type(layers) is not outermost:
            layers = layers.app
    layer = layers
    while not isinstance(layer.app, AsyncExitStackMiddleware):
        layer = layer.app
    layer.app = ReadRoutes(app.router, layer.app)
    app.middleware_stack = layers


def _first_segment(route: BaseRoute) -> str | None:
    """Return the first segment of a route's path; None if it may be any segment."""
    path = getattr(route, "path", "")
    segment: str = path.partition("/")[2].partition("/")[0]
    return None if not path or "{" in segment else segment


def _may_read(route: BaseRoute) -> bool:
    methods = getattr(route, "methods", None)
    return methods is None or "GET" in methods


def _is_read(route: BaseRoute) -> bool:
    return getattr(route, "is_read", False)
