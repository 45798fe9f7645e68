"""Handlers of routes that only read, without FastAPI's work for each request.

FastAPI examines the dependencies and the fields of query models again for each request, and opens
exit stacks. That takes more time than the query. Here a route's dependencies are examined once.
The declarations, the order, the values and the errors are FastAPI's. Routes with anything else,
such as a body or a `yield` dependency, are left to FastAPI.

Such a handler may also return JSON as bytes, which are sent as they are. Lists do that: to validate
what was just selected and to serialise the models takes twice as long as to serialise the rows.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from inspect import iscoroutinefunction
from typing import Any, NamedTuple, get_origin

from fastapi import FastAPI, Request, Response
from fastapi.datastructures import DefaultPlaceholder
from fastapi.dependencies.models import Dependant
from fastapi.exceptions import RequestValidationError, ResponseValidationError
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.datastructures import QueryParams
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Receive, Scope, Send

Handler = Callable[[Request], Awaitable[Response]]
Call = Callable[..., Awaitable[Any]]

_SUPPORTED = frozenset(
    {"path_params", "query_params", "dependencies", "request_param_name", "response_param_name"}
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
    request_name: str | None
    response_name: str | None


def read_handler(route: APIRoute) -> Handler | None:
    """Return a handler of the route, or None if FastAPI has to handle it."""
    step = _step(route.dependant)
    field = route.response_field
    is_json = field is not None and isinstance(route.response_class, DefaultPlaceholder)
    if route.methods != {"GET"} or route.body_field is not None or not is_json or step is None:
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
    status = route.status_code

    async def handle(request: Request) -> Response:
        described = Response()
        del described.headers["content-length"]
        errors: list[Any] = []
        arguments = await _arguments(step, request, described, {}, errors)
        if errors:
            raise RequestValidationError(errors)
        result = await step.call(**arguments)
        if isinstance(result, Response):
            return result
        if not isinstance(result, bytes):
            value, errors = field.validate(result, {}, loc=("response",))
            if errors:
                raise ResponseValidationError(errors, body=result)
            result = field.serialize_json(value, **options)
        response = Response(result, status or 200, media_type="application/json")
        response.raw_headers.extend(described.raw_headers)
        return response

    return handle


def _step(dependant: Dependant) -> _Step | None:
    """Return the step of a dependency or a route; None if it has more than is supported here."""
    call: Any = dependant.call
    used = {name for name in Dependant.__slots__ if getattr(dependant, name)} - _NEUTRAL
    is_async = iscoroutinefunction(call) or iscoroutinefunction(type(call).__call__)
    if not is_async or not used <= _SUPPORTED or not dependant.use_cache:
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
    return _Step(
        call,
        dependant.name,
        steps,  # type: ignore[arg-type] # none of them is None
        tuple(dependant.path_params),
        query,
        lists,
        dependant.request_param_name,
        dependant.response_param_name,
    )


def _is_plain_model(model: Any) -> bool:
    """Return whether it is a Pydantic model whose fields have no aliases."""
    return (
        isinstance(model, type)
        and issubclass(model, BaseModel)
        and not any(info.alias or info.validation_alias for info in model.model_fields.values())
    )


async def _arguments(
    step: _Step, request: Request, response: Response, solved: dict[Call, Any], errors: list[Any]
) -> dict[str, Any]:
    """Return the arguments of a step, and append the errors of its parameters to `errors`."""
    arguments: dict[str, Any] = {}
    for dependency in step.dependencies:
        call = dependency.call
        if call not in solved:
            before = len(errors)
            values = await _arguments(dependency, request, response, solved, errors)
            if len(errors) > before:
                continue
            solved[call] = await call(**values)
        if dependency.name is not None:
            arguments[dependency.name] = solved[call]
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
    if step.request_name is not None:
        arguments[step.request_name] = request
    if step.response_name is not None:
        arguments[step.response_name] = response
    return arguments


def _query_values(parameters: QueryParams, lists: frozenset[str]) -> dict[str, Any]:
    """Return the values by name: a list for `lists`, otherwise the last value."""
    return {
        name: parameters.getlist(name) if name in lists else value
        for name, value in parameters.items()
    }


class Application(FastAPI):
    """FastAPI with the direct calls of ReadRoutes, for an application with an ErrorBoundary.

    It has no layers for telemetry, which is not configured, for a limit of bodies, which
    RequestRules is, and for unhandled exceptions, which ErrorBoundary handles.
    """

    def build_middleware_stack(self) -> ASGIApp:
        app: ASGIApp = ReadRoutes(AsyncExitStackMiddleware(self.router), self.router.routes)
        app = ExceptionMiddleware(app, handlers=self.exception_handlers)
        for middleware, arguments, options in reversed(self.user_middleware):
            app = middleware(app, *arguments, **options)
        return app


class ReadRoutes:
    """Calls routes that only read directly. `app` handles all other requests.

    The routes of a request are those with the first segment of its path. The first one that
    matches is called, as in Starlette, which tries all routes in turn.
    """

    def __init__(self, app: ASGIApp, routes: Sequence[BaseRoute]) -> None:
        self._app = app
        segments = {_first_segment(route) for route in routes if getattr(route, "is_read", False)}
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
        if scope["type"] == "http" and scope["method"] == "GET":
            path = scope["path"].removeprefix(scope.get("root_path", ""))
            for route in self._routes.get(path.partition("/")[2].partition("/")[0], ()):
                match, child_scope = route.matches(scope)
                if match is Match.FULL:
                    if getattr(route, "is_read", False):
                        scope.update(child_scope)
                        await route.app(scope, receive, send)  # type: ignore[attr-defined]
                        return
                    break
        await self._app(scope, receive, send)


def _first_segment(route: BaseRoute) -> str | None:
    """Return the first segment of a route's path; None if it may be any segment."""
    path = getattr(route, "path", "")
    segment: str = path.partition("/")[2].partition("/")[0]
    return None if not path or "{" in segment else segment


def _may_read(route: BaseRoute) -> bool:
    methods = getattr(route, "methods", None)
    return methods is None or "GET" in methods
