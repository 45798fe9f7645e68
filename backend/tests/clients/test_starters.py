"""The starters in clients/starters build, and show what the API has."""

import base64
import hashlib
import hmac
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.clients.conftest import CLIENTS, install_packages
from tests.contract.conftest import run
from tests.processes import Api, free_port, wait_until

pytestmark = [pytest.mark.clients, pytest.mark.xdist_group("typescript")]

SECRET = "whsec_" + base64.b64encode(b"0123456789abcdef" * 2).decode()


@contextmanager
def started(
    command: list[str], *, cwd: Path, port: int, **environment: str
) -> Iterator[httpx.Client]:
    """Run a server of JavaScript, and yield a client of it."""
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env={**os.environ, **environment},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with httpx.Client(base_url=f"http://localhost:{port}", timeout=60) as client:

            def answers() -> bool:
                assert process.poll() is None
                try:
                    return client.get("/").status_code < 500
                except httpx.TransportError:
                    return False

            wait_until(answers, "the server answers")
            yield client
    finally:
        process.terminate()
        process.wait(timeout=30)


def build(npm: str, name: str, **environment: str) -> Path:
    """Install the packages of a starter, build it, and return its folder."""
    folder = CLIENTS / "starters" / name
    install_packages(npm, folder)
    run([npm, "run", "build"], cwd=folder, NO_UPDATE_NOTIFIER="1", **environment)
    return folder


def publish(api: Api, title: str, **fields: object) -> dict[str, str]:
    article = {"title": title, "content": f"About {title}.", "published": True} | fields
    response = api.client.post("/articles", json=article, headers=api.bearer("starter"))
    assert response.status_code == 201, response.text
    created: dict[str, str] = response.json()
    return created


def test_astro_reads_only_changed_articles(npm: str, typescript: Path, api: Api) -> None:
    folder = CLIENTS / "starters" / "astro"
    for cache in (".astro", "dist", "node_modules/.astro"):
        shutil.rmtree(folder / cache, ignore_errors=True)
    kept, removed = publish(api, "Kept"), publish(api, "Removed")
    settings = {"PRESSROOM_URL": api.url, "ASTRO_TELEMETRY_DISABLED": "1"}
    build(npm, "astro", **settings)
    page = (folder / "dist" / kept["slug"] / "index.html").read_text()
    assert "<p>About Kept.</p>" in page
    assert (folder / "dist" / removed["slug"] / "index.html").exists()

    headers = api.bearer("starter")
    api.client.delete(f"/articles/{removed['id']}", headers=headers).raise_for_status()
    api.client.patch(
        f"/articles/{kept['id']}", json={"title": "Changed"}, headers=headers
    ).raise_for_status()
    output = run(["npm", "run", "build"], cwd=folder, **settings)
    assert "2 changed articles" in output
    assert not (folder / "dist" / removed["slug"]).exists()
    assert "Changed" in (folder / "dist" / "index.html").read_text()


def signed(body: bytes, *, secret: str = SECRET, age: float = 0) -> dict[str, str]:
    """Return the headers of Standard Webhooks."""
    identifier, moment = "msg_1", str(int(time.time() - age))
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = f"{identifier}.{moment}.".encode() + body
    signature = base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode()
    return {
        "webhook-id": identifier,
        "webhook-timestamp": moment,
        "webhook-signature": f"v1,{signature}",
    }


def test_next_renders_again_after_a_webhook(npm: str, typescript: Path, api: Api) -> None:
    article = publish(api, "Incremental")
    settings = {
        "PRESSROOM_URL": api.url,
        "PRESSROOM_WEBHOOK_SECRET": SECRET,
        "NEXT_TELEMETRY_DISABLED": "1",
    }
    folder = build(npm, "next", **settings)
    port = free_port()
    program = str(folder / "node_modules" / ".bin" / "next")
    command = [program, "start", "--port", str(port)]
    with started(command, cwd=folder, port=port, **settings) as client:
        path = f"/{article['slug']}"
        assert "About Incremental." in client.get(path).text
        change = {"content": "A new text."}
        headers = api.bearer("starter")
        api.client.patch(f"/articles/{article['id']}", json=change, headers=headers)
        assert "About Incremental." in client.get(path).text

        event = {
            "type": "article.updated",
            "timestamp": "2026-11-20T12:00:00Z",
            "data": {"article": {"id": article["id"], "slug": article["slug"]}},
        }
        body = json.dumps(event).encode()
        other = "whsec_" + base64.b64encode(b"another secret of 32 characters!").decode()
        for forged in (signed(body, secret=other), signed(body, age=3600), signed(b"{}"), {}):
            assert client.post("/webhook", content=body, headers=forged).status_code == 401
        assert "About Incremental." in client.get(path).text
        assert client.post("/webhook", content=body, headers=signed(body)).status_code == 204
        wait_until(lambda: "A new text." in client.get(path).text, "the page has the new text")
