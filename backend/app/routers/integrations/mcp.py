"""/mcp: tools for agents by the Model Context Protocol, over streamable HTTP.

The library takes 19 MB and half a second, so it is loaded at the first authenticated request, in a
thread. Each request is complete in itself: any worker of any replica may answer it.
"""

import asyncio
from json import JSONDecodeError
from typing import TYPE_CHECKING

from fastapi import APIRouter, Request, Response
from starlette.types import Message

from app.auth.dependencies import KeyUser
from app.core.config import get_settings
from app.core.errors import InvalidRequest, NotAuthorized
from app.core.origins import ANY, is_listed
from app.core.strict_json import parse_json
from app.db.dependencies import CurrentDatabase
from app.http.headers import described
from app.http.routing import StrictRoute, allowed_in_maintenance
from app.routers.media.media import CurrentStorage
from app.services.integrations.tools import Caller

if TYPE_CHECKING:
    from app.routers.integrations.mcp_server import AgentServer

PATH = "/mcp"

router = APIRouter(route_class=StrictRoute)


@router.post(
    PATH,
    include_in_schema=False,
    response_class=Response,
    responses={200: {"headers": described("RateLimit", "RateLimit-Policy")}},
)
@allowed_in_maintenance
async def serve_mcp(
    request: Request, identity: KeyUser, database: CurrentDatabase, storage: CurrentStorage
) -> Response:
    """Answer a message of an agent, which authenticates with an API key."""
    _require_origin(request)
    body = await request.body()
    try:
        parse_json(body)
    except JSONDecodeError as error:
        raise InvalidRequest(f"The body is not valid JSON: {error.msg}") from None
    state = request.app.state
    server: AgentServer | None = getattr(state, "agent_server", None)
    if server is None:
        server = state.agent_server = await asyncio.to_thread(_create_server)
    parts: list[Message] = []
    is_read = False

    async def receive() -> Message:
        nonlocal is_read
        if is_read:
            return await request.receive()
        is_read = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Message) -> None:
        parts.append(message)

    caller = Caller(identity, database, storage, state.maintenance.message)
    await server.answer(caller, request.scope, receive, send)
    response = Response(b"".join(part.get("body", b"") for part in parts), parts[0]["status"])
    response.raw_headers = [
        *((name, value) for name, value in parts[0]["headers"] if name != b"content-length"),
        (b"content-length", str(len(response.body)).encode()),
        (b"cache-control", b"no-store"),
    ]
    return response


def _require_origin(request: Request) -> None:
    """Raise NotAuthorized for a page of a foreign origin, such as one with a rebound name."""
    origin, allowed = request.headers.get("origin"), get_settings().cors_origins
    if origin is None or ANY in allowed or is_listed(origin, allowed):
        return
    if origin.partition("://")[2] != request.headers.get("host"):
        raise NotAuthorized("This origin is not allowed; add it to CORS_ORIGINS")


def _create_server() -> "AgentServer":
    from app.routers.integrations.mcp_server import AgentServer  # noqa: PLC0415 - loaded late

    return AgentServer()
