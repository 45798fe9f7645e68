"""Clients that read and write through both nginx, and what they got.

Writers repeat a request that failed, with its Idempotency-Key, until it is acknowledged. They then
read what they wrote.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple
from uuid import uuid4

import httpx

from tests.edge.stack import publish
from tests.processes import wait_until

READERS = 2
WRITERS = 2
PAUSE_SECONDS = 0.05
"""A pause after each request, which leaves CPU time for the containers that start."""
TIMEOUT_SECONDS = 60
PREFIX = "Under failures"


class Answer(NamedTuple):
    """A response, or a broken connection (status 0)."""

    kind: str
    status: int
    at: float
    """The monotonic time at its end."""
    seconds: float
    retry_after: str


@dataclass
class Load:
    """The responses to all clients."""

    answers: list[Answer] = field(default_factory=list)
    sent: list[str] = field(default_factory=list)
    acknowledged: list[tuple[float, str]] = field(default_factory=list)
    """The times and titles of articles whose POST returned 201."""
    stale: list[str] = field(default_factory=list)
    """What a writer read after its write that was older than the write."""
    stop: threading.Event = field(default_factory=threading.Event)

    def record(self, kind: str, send: Callable[[], httpx.Response]) -> httpx.Response | None:
        """Send a request, and return the response; None if the connection broke."""
        started = time.monotonic()
        answer: httpx.Response | None = None
        try:
            answer = send()
        except httpx.HTTPError:
            status, retry_after = 0, ""
        else:
            status, retry_after = answer.status_code, answer.headers.get("Retry-After", "")
        now = time.monotonic()
        self.answers.append(Answer(kind, status, now, now - started, retry_after))
        return answer

    def of(self, kind: str, *, since: float = 0.0) -> list[Answer]:
        """Return the responses of a kind, `read`, `page` or `write`, that ended after `since`."""
        return [each for each in self.answers if each.kind == kind and each.at >= since]

    def failed(self, *kinds: str, since: float = 0.0) -> list[Answer]:
        """Return the responses that are not successful."""
        return [
            each
            for kind in kinds
            for each in self.of(kind, since=since)
            if not 200 <= each.status < 400
        ]

    def longest_gap(self, since: float) -> float:
        """Return the longest time without an acknowledged write after `since`, in seconds."""
        times = [since, *sorted(at for at, _ in self.acknowledged if at >= since)]
        return max(after - before for before, after in pairwise(times))

    def longest(self, since: float) -> float:
        """Return the duration of the longest request that ended after `since`, in seconds."""
        return max(each.seconds for each in self.answers if each.at >= since)

    def wait_for_writes(self, count: int, *, seconds: float = 90) -> None:
        """Wait for this number of further acknowledged writes."""
        enough = len(self.acknowledged) + count
        wait_until(lambda: len(self.acknowledged) >= enough, "writes go on", seconds=seconds)

    def summary(self, since: float) -> str:
        """Return the number of responses by kind and status."""
        counts = Counter((each.kind, each.status) for each in self.answers if each.at >= since)
        return ", ".join(f"{kind} {status}: {n}" for (kind, status), n in sorted(counts.items()))


@contextmanager
def load(urls: Sequence[str], author: Mapping[str, str]) -> Iterator[Load]:
    """Run clients at these URLs: for each one, readers with and without the cache, and writers."""
    results = Load()
    with httpx.Client(base_url=urls[0], timeout=TIMEOUT_SECONDS) as client:
        path = f"/articles/{publish(client, dict(author))['id']}"

    def read(url: str, kind: str, headers: Mapping[str, str]) -> None:
        with httpx.Client(base_url=url, timeout=TIMEOUT_SECONDS, headers=headers) as client:
            while not results.stop.wait(PAUSE_SECONDS):
                results.record(kind, lambda: client.get(path))

    def write(url: str) -> None:
        with httpx.Client(base_url=url, timeout=TIMEOUT_SECONDS, headers=author) as client:
            while not results.stop.wait(PAUSE_SECONDS):
                _write_once(client, results)

    callers = [
        threading.Thread(target=read, args=(url, kind, headers))
        for url in urls
        for kind, headers in [("page", {}), *[("read", author)] * READERS]
    ] + [threading.Thread(target=write, args=(urls[n % len(urls)],)) for n in range(WRITERS)]
    for caller in callers:
        caller.start()
    try:
        results.wait_for_writes(20)
        yield results
        results.wait_for_writes(20)
    finally:
        results.stop.set()
        for caller in callers:
            caller.join(TIMEOUT_SECONDS)


def _write_once(client: httpx.Client, results: Load) -> None:
    """Create an article, change it, and read it after each. Repeat what failed."""
    title = f"{PREFIX} {uuid4().hex}"
    body = {"title": title, "content": "Once, and only once.", "published": True}
    results.sent.append(title)
    key = {"Idempotency-Key": uuid4().hex}
    while True:
        created = results.record("write", lambda: client.post("/articles", json=body, headers=key))
        if created is not None and created.status_code == 201:
            break
        # Stopped, it stays unacknowledged.
        if results.stop.wait(0.2):
            return
    results.acknowledged.append((time.monotonic(), title))
    path = f"/articles/{created.json()['id']}"
    read = results.record("own", lambda: client.get(path))
    if read is None or read.status_code != 200:
        if read is not None and read.status_code == 404:
            results.stale.append(f"404 for {title}")
        return
    match = {"If-Match": read.headers["ETag"]}
    change = {"excerpt": title}
    changed = results.record("write", lambda: client.patch(path, json=change, headers=match))
    if changed is None or changed.status_code != 200:
        if changed is not None and changed.status_code == 412:
            results.stale.append(f"412 for {title}")
        return
    read = results.record("own", lambda: client.get(path))
    if read is not None and read.status_code == 200 and read.json()["excerpt"] != title:
        results.stale.append(f"the former version of {title}")
