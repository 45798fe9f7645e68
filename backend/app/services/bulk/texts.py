"""Rendering of many texts, in this process and in others."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import TypeVar

from app.content.markdown import Rendered, render_sync
from app.core.errors import ContentTooComplex
from app.services.bulk.workers import Worker, WorkerEnded, start_worker

MAX_RUN_SECONDS = 0.001
"""Seconds after which the thread pauses, so that the event loop can run."""

Item = TypeVar("Item")
RenderTexts = Callable[[Sequence[str]], list[Rendered | str]]
"""Renders texts in a thread. A text that cannot be rendered yields the reason."""


def render_texts(texts: Sequence[str]) -> list[Rendered | str]:
    """Render the texts. A text that cannot be rendered yields the reason."""
    return list(with_pauses(map(_render, texts)))


def with_pauses(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items with short pauses, to release the GIL.

    Otherwise the event loop waits 5 ms for the GIL after each of its own short steps.
    """
    pause_at = time.perf_counter() + MAX_RUN_SECONDS
    for item in items:
        yield item
        if time.perf_counter() > pause_at:
            time.sleep(0.000_05)
            pause_at = time.perf_counter() + MAX_RUN_SECONDS


def paced(items: Iterable[Item], *, user_id: int | None) -> Iterator[Item]:
    """Yield the items with pauses if a user imports. A command serves no requests meanwhile."""
    return iter(items) if user_id is None else with_pauses(items)


def _render(text: str) -> Rendered | str:
    try:
        return render_sync(text)
    except ContentTooComplex as error:
        return str(error)


class Renderers:
    """Processes that render texts beside this one. They end with this object.

    They are for commands, which serve no requests: nothing pauses.
    """

    def __init__(self, jobs: int) -> None:
        """Start the processes, so that `jobs` render together with this one."""
        started = (start_worker("rendering", _serve) for _ in range(jobs - 1))
        self._workers: Sequence[Worker] = [worker for worker in started if worker is not None]

    def __call__(self, texts: Sequence[str]) -> list[Rendered | str]:
        """Render the texts, as `render_texts` does."""
        size = -(-len(texts) // (len(self._workers) + 1)) or 1
        own, *others = [texts[at : at + size] for at in range(0, len(texts), size)] or [texts]
        busy = list(zip(self._workers, others, strict=False))
        for worker, part in busy:
            worker.send(part)
        results = list(map(_render, own))
        for worker, part in busy:
            try:
                results += worker.receive()
            except WorkerEnded:
                results += map(_render, part)
        return results


def _serve(connection: Connection) -> None:
    """Render the texts that arrive, in the process."""
    while True:
        texts = connection.recv()
        connection.send([_render(text) for text in texts])
