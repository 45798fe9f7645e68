"""Attacking clients, each in a separate process that runs only on idle CPUs.

Real attackers use other machines, so these clients must not take CPU time from the server.
"""

import itertools
import multiprocessing
import os
import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.synchronize import Event

import httpx

Headers = Mapping[str, str]
Attack = Callable[[httpx.Client, Headers, int], Iterator[httpx.Response]]

# A process that has imported this module forks the clients. Most CPU time would be that of imports.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload([__name__])


@contextmanager
def attack_running(
    attack: Attack, url: str, headers: Headers, *, clients: int, pause: float
) -> Iterator[None]:
    """Run an attack by several clients during the block, which starts after all of them.

    Each client pauses for `pause` seconds after a response. The attacks use expensive requests,
    not a high number of requests.
    """
    stop = _context.Event()
    started = [_context.Event() for _ in range(clients)]
    processes = [
        _context.Process(
            target=_run, args=(attack, url, headers, number, each, stop, pause), daemon=True
        )
        for number, each in enumerate(started)
    ]
    for process in processes:
        process.start()
    try:
        for each in started:
            assert each.wait(60), "the attack did not begin"
        yield
    finally:
        stop.set()
        for process in processes:
            # Its last request need not wait for an idle CPU, if this process may change that.
            with suppress(PermissionError, ProcessLookupError):
                os.sched_setscheduler(process.pid or 0, os.SCHED_OTHER, os.sched_param(0))
        for process in processes:
            process.join(60)
            process.kill()


def _run(
    attack: Attack,
    url: str,
    headers: Headers,
    number: int,
    started: Event,
    stop: Event,
    pause: float,
) -> None:
    def begin() -> None:
        # Before this, nobody measures. Without idle CPUs, the first request would take long.
        if not started.is_set():
            os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
            started.set()

    with httpx.Client(base_url=url, timeout=60, verify=False) as client:
        while not stop.is_set():
            try:
                for _ in attack(client, headers, number):
                    begin()
                    if stop.wait(pause):
                        return
            except httpx.HTTPError:  # the server may close the connection of an attacker
                begin()


# --- 1. images with quadratic detection time

IMAGES = {
    "fill": b"\xff\xd8\xff" + b"\xff" * 60_000 + b"\0",
    "tail": b"\xff\xd8\xff\xd9" + b"\0" * 200_000 + b"X",
    "scan": b"\xff\xd8\xff\xda\0\x08\x01\x01\0\0?\0" + b"\xff" * 200_000,
}


def upload_images(client: httpx.Client, headers: Headers, number: int) -> Iterator[httpx.Response]:
    for content in IMAGES.values():
        form = {"file": ("a.jpg", content, "image/jpeg")}
        yield client.post("/media", files=form, headers=dict(headers))


# --- 3. Markdown that is rejected as too complex

MARKDOWN = ("*_`[" * 262_000)[: 1024 * 1024]


def post_markdown(client: httpx.Client, headers: Headers, number: int) -> Iterator[httpx.Response]:
    article = {"title": "Too complex", "content": MARKDOWN}
    yield client.post("/articles", json=article, headers=dict(headers))


# --- 4. an unlimited number of URLs

FIELDS = ["id", "title", "slug", "content", "excerpt", "language", "tags", "author", "created_at"]


def request_many_urls(
    client: httpx.Client, headers: Headers, number: int
) -> Iterator[httpx.Response]:
    """Request large responses with as many different URLs as possible."""
    random_source = random.Random(number)
    for count in itertools.count():
        value = f"{number}-{count}-{random_source.random()}"
        fields = ",".join(random_source.sample(FIELDS, len(FIELDS)))
        yield from _get(client, f"/articles?limit=2&x{value}=1")
        yield from _get(client, f"/api/articles?limit=2&x{value}=1")
        skip = random_source.randrange(10)
        yield from _get(client, f"/articles?limit=1&fields={fields}&skip={skip}")
        yield from _get(client, f"/articles?limit={random_source.randrange(1, 10)}&fields={fields}")
        yield from _get(client, f"/search?q=large%20-{value}&limit=2")
        yield from _get(client, "/articles?limit=1", Origin=f"https://{value}.example")
        yield from _get(client, f"/{_spelled('articles', count)}?limit=1")


def _get(client: httpx.Client, path: str, **headers: str) -> Iterator[httpx.Response]:
    with client.stream("GET", path, headers=headers) as answer:
        for _ in answer.iter_raw():
            pass
    yield answer


def _spelled(word: str, number: int) -> str:
    """Return one of many percent-encodings of a word."""
    return "".join(
        f"%{ord(letter):02x}" if number >> place & 1 else letter
        for place, letter in enumerate(word)
    )
