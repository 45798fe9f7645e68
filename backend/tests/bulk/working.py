"""Start processes that read and render, and wait until the end of this one.

    python -m tests.bulk.working PATH

Processes that import this module need no test modules.
"""

import multiprocessing
import sys
import time
from pathlib import Path

from app.services.bulk import reading, wordpress
from app.services.bulk.texts import Renderers


class Authors:
    """Notes the authors that it was asked for."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, handle: str) -> str:
        self.asked.append(handle)
        return "jane"


if __name__ == "__main__":
    reading.MIN_BYTES = 0
    config = multiprocessing.current_process()._config  # type: ignore[attr-defined]  # private
    config["daemon"] = False  # tests start it as a daemon, which may not have children
    process = reading.start(Path(sys.argv[1]), wordpress)
    assert process is not None
    renderers = Renderers(3)
    process.survey(lambda _: None)
    renderers(["a", "b", "c"])
    print("ready", flush=True)
    while True:
        time.sleep(0.1)  # a signal just before a sleep does not end it
