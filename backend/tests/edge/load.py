"""Clients that read (with and without the cache) and write, and count all responses."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from uuid import uuid4

import httpx

from tests.edge.stack import Stack, publish
from tests.processes import wait_until

HOLD_SECONDS = 15
"""How long nginx holds a request while no backend accepts connections."""
TIMEOUT_SECONDS = 60
CALLERS = 10
"""The number of concurrent clients."""
PAUSE_SECONDS = 0.1
"""A pause after each request, which leaves CPU time for the containers that start."""


def ended_by_hold(status: int, seconds: float) -> bool:
    """Return whether a request got 503 because no backend accepted it while nginx held it.

    On a busy machine, the backend may need longer than that.
    """
    return status == 503 and seconds >= HOLD_SECONDS


@dataclass
class Load:
    """The responses to all clients."""

    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)
    confirmed: list[str] = field(default_factory=list)
    """Titles of articles whose POST returned 201."""
    sent: list[str] = field(default_factory=list)
    longest: float = 0.0
    stop: threading.Event = field(default_factory=threading.Event)

    def record(self, name: str, request: Callable[[], httpx.Response]) -> httpx.Response | None:
        started = time.monotonic()
        try:
            answer = request()
        except httpx.HTTPError as error:
            self.broken.append(f"{name}: {error!r}")
            return None
        self.statuses[name, answer.status_code] += 1
        self.longest = max(self.longest, time.monotonic() - started)
        return answer

    @property
    def wrong(self) -> dict[tuple[str, int], int]:
        return {what: count for what, count in self.statuses.items() if what[1] >= 300}

    @property
    def answered(self) -> int:
        return sum(self.statuses.values())

    def wait_for(self, count: int) -> None:
        """Wait for this number of further responses."""
        enough = self.answered + count
        wait_until(lambda: self.answered >= enough, "the load continues")


@contextmanager
def load(stack: Stack, author: dict[str, str]) -> Iterator[Load]:
    """Run ten clients: four read without the cache, two read with it, and four write."""
    results = Load()
    with stack.client() as client:
        path = f"/articles/{publish(client, author)['id']}"

    def read(name: str, headers: dict[str, str]) -> None:
        with stack.client() as client:
            while not results.stop.wait(PAUSE_SECONDS):
                results.record(name, lambda: client.get(path, headers=headers))

    def write() -> None:
        with stack.client() as client:
            while not results.stop.wait(PAUSE_SECONDS):
                title = f"Under load {uuid4().hex}"
                body = {"title": title, "content": "Once, and only once."}
                results.sent.append(title)
                request = partial(client.post, "/articles", json=body, headers=author)
                answer = results.record("write", request)
                if answer is not None and answer.status_code == 201:
                    results.confirmed.append(title)

    callers = [
        *(threading.Thread(target=read, args=("read", author)) for _ in range(4)),
        *(threading.Thread(target=read, args=("page", {})) for _ in range(2)),
        *(threading.Thread(target=write) for _ in range(4)),
    ]
    for caller in callers:
        caller.start()
    try:
        results.wait_for(100)
        yield results
        enough = results.answered + 100
        wait_until(lambda: results.answered > enough or results.broken, "the load continues")
    finally:
        results.stop.set()
        for caller in callers:
            caller.join(TIMEOUT_SECONDS)


def stored_titles(stack: Stack) -> Counter[str]:
    """Return the number of stored articles by title."""
    query = "SELECT title FROM articles WHERE title LIKE 'Under load %'"
    command = ("exec", "-T", "db", "psql", "-U", "pressroom", "-At", "-c", query)
    return Counter(stack.project.output(*command).split("\n"))


def assert_nothing_was_lost(stack: Stack, results: Load, *, may_exceed_hold: bool = False) -> None:
    """Check that all responses are successful, and that each acknowledged write is stored once.

    With `may_exceed_hold`, 503 is accepted if a request waited longer than nginx holds it.
    """
    found = stored_titles(stack)
    print(f"{results.answered} responses, at most {results.longest:.1f} s: {results.statuses}")
    assert not results.broken, results.broken[:5]
    ended = {each for each in results.wrong if ended_by_hold(each[1], results.longest)}
    assert not results.wrong.keys() - (ended if may_exceed_hold else set()), results.wrong
    assert [title for title in results.sent if found[title] > 1] == []
    stored = results.confirmed if ended else results.sent
    assert [title for title in stored if not found[title]] == []
