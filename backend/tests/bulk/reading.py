"""Read sources as `pressroom import` does, without a database, each in a process of its own.

    python -m tests.bulk.reading '[["xml", PATH], …]'

The program is loaded once; each source is read in a fork of it. For each, it prints the titles, the
problems, and the MiB that reading it took, as JSON.
"""

import json
import os
import resource
import sys
from datetime import UTC, datetime
from pathlib import Path

from app.services.bulk import ghost, markdown, wordpress
from app.services.bulk.foreign import ReadOptions, SourceError
from app.services.bulk.texts import render_texts

MODULES = {"xml": wordpress, "json": ghost, "md": markdown}


def peak() -> float:
    """Return the greatest memory of this process in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def read(form: str, path: Path) -> tuple[list[str], list[str], float]:
    """Read and render a source."""
    module, options = MODULES[form], ReadOptions(now=datetime(2026, 1, 1, tzinfo=UTC))
    before = peak()
    titles: list[str] = []
    problems: list[str] = []
    try:
        survey = module.survey(path, lambda _: None)
        problems += survey.problems
        for item in module.read(
            path, survey, options, resolve_author=lambda _: "jane", advance=lambda _: None
        ):
            if item.record is not None:
                titles.append(item.record.title)
                render_texts([item.record.content])
            elif not item.left_out:
                problems.append(item.problem[:300])
    except SourceError as error:
        problems.append(str(error))
    return titles, problems, peak() - before


def read_in_child(form: str, path: str) -> object:
    """Return what a child process returns, or None if it failed."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        with os.fdopen(writing, "w") as output:
            json.dump(read(form, Path(path)), output)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else None


if __name__ == "__main__":
    print(json.dumps([read_in_child(form, path) for form, path in json.loads(sys.argv[1])]))
