"""Run `pressroom import` several times, and kill it with SIGKILL at given statements.

    python -m tests.bulk.killing '[3, 17, 0]' PATH

Each number is that of the statement before which the command is killed; 0 lets it run to its end.
The program is loaded once; each run is a fork of it. It prints the exit statuses as JSON.
"""

import json
import multiprocessing
import os
import signal
import sys
from typing import Any

from sqlalchemy import Engine, event

from app import cli
from app.services.bulk import importing, reading


def run(path: str, kill_at: int) -> int:
    """Run the command in a child process, and return its status: -9 if it was killed."""
    child = os.fork()
    if not child:
        _import(path, kill_at)
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def _import(path: str, kill_at: int) -> None:
    """Import with small batches, so that there are many transactions."""
    importing.BATCH = 5
    reading.MIN_BYTES = 0
    config = multiprocessing.current_process()._config  # type: ignore[attr-defined]  # private
    config["daemon"] = False  # tests start it as a daemon, which may not have children
    count = 0

    def step(*_: Any) -> None:
        nonlocal count
        count += 1
        if count == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

    for name in ("before_cursor_execute", "commit"):
        event.listen(Engine, name, step)
    sys.argv = ["pressroom", "import", path]
    sys.stdout = sys.stderr
    try:
        cli.main()
    except SystemExit as end:
        os._exit(int(end.code or 0))
    os._exit(0)


if __name__ == "__main__":
    print(json.dumps([run(sys.argv[2], number) for number in json.loads(sys.argv[1])]))
