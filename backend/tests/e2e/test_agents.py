"""The page for agents, and the official client of the Model Context Protocol, on a real server."""

import asyncio
import os
import re
import subprocess

import httpx2
import pytest
from mcp.client.client import Client
from mcp.client.streamable_http import streamable_http_client

from app.core.config import PROJECT_DIR
from tests.e2e.test_pages import SEPARATOR, fresh_api, loosely, read_steps
from tests.processes import Api

__all__ = ["fresh_api"]
pytestmark = [pytest.mark.e2e, pytest.mark.checkout]

PAGE = PROJECT_DIR / "docs" / "integrations" / "agents.md"


def test_commands_of_the_page_print_what_it_shows(fresh_api: Api) -> None:
    steps = read_steps(PAGE.name, PAGE.read_text())
    script = f"\necho; echo '{SEPARATOR}'\n".join(step.commands for step in steps)
    ended = subprocess.run(
        ["bash", "-euo", "pipefail"],
        input=script,
        env={"PATH": os.environ["PATH"], "API": fresh_api.url},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, f"{ended.stdout}\n{ended.stderr}"
    for step, output in zip(steps, ended.stdout.split(SEPARATOR), strict=True):
        for line in filter(None, map(str.strip, step.shown.splitlines())):
            assert re.search(loosely(line), output), f"{line!r} is not in:\n{output}"
    asyncio.run(_use_client(fresh_api.url, _create_key(fresh_api)))
    document = fresh_api.client.get("/articles/by-legacy.md")
    assert document.headers["Content-Type"] == "text/markdown; charset=utf-8"


def _create_key(api: Api) -> str:
    """Return an API key of the page's user."""
    password = "nanoseconds of wire"
    token = api.log_in("grace", password=password).json()["access_token"]
    new = {"name": "x", "scopes": ["articles:read", "articles:write"], "password": password}
    headers = {"Authorization": f"Bearer {token}"}
    created = api.client.post("/users/me/api-keys", json=new, headers=headers)
    key: str = created.json()["key"]
    return key


async def _use_client(url: str, key: str) -> None:
    """Let clients of both generations of the protocol work at the same time."""

    async def work(mode: str) -> None:
        async with (
            httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, verify=False) as http,
            Client(streamable_http_client(f"{url}/mcp", http_client=http), mode=mode) as client,
        ):
            arguments = {"title": f"By {mode}", "content": "They weave patterns."}
            created = await client.call_tool("create_draft", arguments)
            article_id = created.structured_content["article_id"]
            published = await client.call_tool("publish_article", {"article_id": article_id})
            assert published.structured_content["status"] == "published"

    await asyncio.gather(*(work(mode) for mode in ("auto", "legacy") for _ in range(5)))
