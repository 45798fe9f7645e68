"""Outages of 90 seconds: public pages stay available, and withdrawn pages do not return."""

import threading
import time
from collections import Counter
from functools import partial

import httpx
import pytest

from tests.edge.stack import is_cached, publish
from tests.processes import wait_until
from tests.releases.release import Release

SECONDS = 90
NO_REUSE = httpx.Limits(max_keepalive_connections=0)
"""Each request is that of another reader. A server may close an idle connection at any time."""


@pytest.mark.parametrize("services", [("db",), ("backend",), ("db", "backend")])
def test_outage(running: Release, author: dict[str, str], services: tuple[str, ...]) -> None:
    running.wait_for_change_feed()
    with running.client(limits=NO_REUSE) as client:
        paths = [f"/articles/{publish(client, author)['id']}" for _ in range(2)]
        page, withdrawn = paths
        assert all(is_cached(client, path) for path in paths)
        client.patch(withdrawn, json={"published": False}, headers=author)
        wait_until(lambda: client.get(withdrawn).status_code == 404, "it is withdrawn", seconds=5)
        running.project.output("stop", "--timeout", "5", *services)
        counts: Counter[tuple[str, int, str]] = Counter()
        longest = 0.0
        end = time.monotonic() + SECONDS
        pause = threading.Event()
        while time.monotonic() < end:
            for name, path in (("page", page), ("withdrawn", withdrawn)):
                started = time.monotonic()
                answer = client.get(path)
                longest = max(longest, time.monotonic() - started)
                counts[name, answer.status_code, answer.headers.get("X-Cache", "")] += 1
            pause.wait(0.2)
        print(f"{services}: {dict(counts)}, the longest after {longest:.1f} s")
        assert "exited on signal" not in running.project.output("logs", "nginx")
        running.recover()
        ready = partial(client.get, "/health/ready")
        wait_until(lambda: ready().status_code == 200, "the API is ready", seconds=180)
        assert {status for name, status, _ in counts if name == "page"} == {200}
        assert {status for name, status, _ in counts if name == "withdrawn"} <= {404, 503}
        assert counts["page", 200, "STALE"] > sum(counts.values()) / 3
        wait_until(lambda: client.get(page).headers["X-Cache"] == "HIT", "recovery")
        client.patch(page, json={"published": False}, headers=author)
        wait_until(lambda: client.get(page).status_code == 404, "it is withdrawn", seconds=5)
