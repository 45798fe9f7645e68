"""Processes that read and render: the same results, and no process that stays."""

import os
import resource
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from multiprocessing import Pipe
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, cast

import psutil
import pytest

from app.core.config import BACKEND_DIR
from app.services.bulk import ghost, reading, wordpress
from app.services.bulk.foreign import ReadOptions, SourceError
from app.services.bulk.ndjson import fixed_author
from app.services.bulk.reading import ReadingProcess
from app.services.bulk.texts import Renderers, render_texts
from app.services.bulk.workers import Worker
from tests.bulk.exports import wordpress_post, wxr
from tests.bulk.test_bad_input import ghost_source, wordpress_source
from tests.bulk.working import Authors
from tests.interpreter import forks_of_multiprocessing
from tests.processes import DEADLINE, Checkout, Fork, wait_until

OPTIONS = ReadOptions(now=datetime(2026, 1, 1, tzinfo=UTC))
JANE = partial(fixed_author, "jane")


_OLD: set[psutil.Process] = set()


@pytest.fixture(autouse=True)
def all_files(monkeypatch: pytest.MonkeyPatch) -> None:
    _OLD.clear()
    _OLD.update(psutil.Process().children())  # such as the database of other tests
    monkeypatch.setattr(reading, "MIN_BYTES", 0)


@pytest.fixture
def forked() -> Iterator[None]:
    """Let new interpreters be forks, which need no time for imports."""
    with forks_of_multiprocessing():
        yield


@pytest.fixture(params=["with threads", "alone"])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    """Let a thread run beside the test, or none: then the process is forked."""
    if request.param == "alone":
        if threading.active_count() > 1:
            pytest.skip("the test process has threads")
        yield
        return
    event = threading.Event()
    thread = threading.Thread(target=event.wait)
    thread.start()
    yield
    event.set()
    thread.join()


def start(path: Path, module: ModuleType = wordpress) -> ReadingProcess:
    process = reading.start(path, module)
    assert process is not None
    return process


def children() -> list[psutil.Process]:
    """Return the processes that were started since the start of the test."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if (
                child not in _OLD
                and child.status() != psutil.STATUS_ZOMBIE
                and "resource_tracker" not in " ".join(child.cmdline())
            ):
                found.append(child)
    return found


def ignore(_: int) -> None:
    """Ignore the progress."""


@pytest.mark.usefixtures("threads")
class TestRecords:
    @pytest.mark.usefixtures("forked")
    @pytest.mark.parametrize(
        ("module", "source"), [(wordpress, wordpress_source), (ghost, ghost_source)]
    )
    def test_they_are_those_of_this_process(
        self, module: ModuleType, source: Callable[[Path], Path], tmp_path: Path
    ) -> None:
        path = source(tmp_path)
        counts: list[int] = []
        process = start(path, module)
        survey = process.survey(counts.append)
        assert sum(counts) == path.stat().st_size
        counts.clear()
        authors = Authors()
        records = list(process.read(OPTIONS, resolve_author=authors, advance=counts.append))
        assert sum(counts) == path.stat().st_size

        own = module.survey(path, ignore)
        assert survey == own._replace(index=None)
        own_authors = Authors()
        assert records == list(
            module.read(path, own, OPTIONS, resolve_author=own_authors, advance=ignore)
        )
        assert len(records) == 40
        assert authors.asked == own_authors.asked != []
        assert children() == []

    @pytest.mark.usefixtures("forked")
    def test_an_error_is_raised_here(self, tmp_path: Path) -> None:
        path = tmp_path / "wp.xml"
        path.write_text("no XML")
        with pytest.raises(SourceError, match="not a WordPress export"):
            start(path).survey(ignore)
        wait_until(lambda: not children(), "the process ends")

    @pytest.mark.usefixtures("forked")
    def test_a_killed_process_is_an_error(self, tmp_path: Path) -> None:
        process = start(wordpress_source(tmp_path))
        process.survey(ignore)
        (child,) = children()
        child.kill()
        with pytest.raises(SourceError, match="it was killed"):
            list(process.read(OPTIONS, resolve_author=JANE, advance=ignore))

    def test_closing_ends_it_and_a_thread_that_waits(self, tmp_path: Path) -> None:
        process = start(wordpress_source(tmp_path))
        process.survey(ignore)
        (child,) = children()
        child.suspend()
        errors: list[BaseException] = []

        def read() -> None:
            try:
                list(process.read(OPTIONS, resolve_author=JANE, advance=ignore))
            except SourceError as error:
                errors.append(error)

        thread = threading.Thread(target=read)
        thread.start()
        process.close()
        thread.join(DEADLINE)
        assert not thread.is_alive()
        assert len(errors) == 1
        assert children() == []

    @pytest.mark.usefixtures("forked")
    def test_it_ends_with_the_object(self, tmp_path: Path) -> None:
        process = start(wordpress_source(tmp_path))
        assert children()
        del process
        assert children() == []

    def test_few_records_wait(self, tmp_path: Path) -> None:
        """The pipe is full after a few chunks, however large the source is."""
        path = tmp_path / "wp.xml"
        text = "A text that is long enough. " * 200
        path.write_text(wxr("".join(wordpress_post(number=n, content=text) for n in range(2000))))
        process = start(path)
        process.survey(ignore)
        (child,) = children()
        counts: list[int] = []
        records = process.read(OPTIONS, resolve_author=JANE, advance=counts.append)
        next(records)
        wait_until(lambda: child.status() == psutil.STATUS_SLEEPING, "it waits")
        assert sum(counts) < path.stat().st_size / 4
        process.close()


class TestServing:
    """The functions of the process, called in a thread: coverage does not see processes."""

    @pytest.fixture(autouse=True)
    def in_thread(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def start_in_thread(_: str, target: Callable[..., None], *arguments: Any) -> Worker:
            here, there = Pipe()

            def run() -> None:
                with there, suppress(EOFError, OSError):
                    target(there, *arguments)

            thread = threading.Thread(target=run)
            thread.start()
            process = SimpleNamespace(kill=here.close, join=thread.join)
            return Worker(cast("BaseProcess", process), here)

        monkeypatch.setattr(reading, "start_worker", start_in_thread)
        monkeypatch.setattr(reading, "PROGRESS_SECONDS", -1)

    @pytest.mark.parametrize(
        ("limit", "value"), [("CHUNK_RECORDS", 7), ("CHUNK_CHARACTERS", 1), ("CHUNK_RECORDS", 1000)]
    )
    def test_chunks_contain_all_records(
        self, limit: str, value: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(reading, limit, value)
        path = wordpress_source(tmp_path)
        process = start(path)
        counts: list[int] = []
        survey = process.survey(counts.append)
        assert sum(counts) == path.stat().st_size
        assert survey.index is None
        authors = Authors()
        records = list(process.read(OPTIONS, resolve_author=authors, advance=ignore))
        assert len(records) == 40
        assert authors.asked != []  # the state of the other end

    def test_unexpected_errors_are_described(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise KeyError("field")

        monkeypatch.setattr(wordpress, "survey", fail)
        with pytest.raises(RuntimeError, match="KeyError: 'field'"):
            start(wordpress_source(tmp_path)).survey(ignore)


@pytest.mark.usefixtures("forked", "threads")
class TestRendering:
    TEXTS = (
        *(f"Text **{number}**" for number in range(10)),
        ">" * 100 + "too deep",
        "The last one",
    )

    @pytest.mark.parametrize("jobs", [1, 3])
    def test_the_order_is_that_of_the_texts(self, jobs: int) -> None:
        render = Renderers(jobs)
        assert len(children()) == jobs - 1
        for count in (0, 1, 2, 5, len(self.TEXTS)):
            assert render(self.TEXTS[:count]) == render_texts(self.TEXTS[:count])
        assert isinstance(render(self.TEXTS)[10], str)
        del render
        assert children() == []

    def test_texts_of_a_killed_process_are_rendered_here(self) -> None:
        render = Renderers(3)
        children()[0].kill()
        for _ in range(2):
            assert render(self.TEXTS) == render_texts(self.TEXTS)


class TestThisProcess:
    """Sources that are read in the process that writes."""

    def test_small_files_and_folders(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        assert reading.start(tmp_path, wordpress) is None
        monkeypatch.setattr(reading, "MIN_BYTES", 100_000)
        assert reading.start(wordpress_source(tmp_path), wordpress) is None

    def test_no_process_can_be_started(self, tmp_path: Path) -> None:
        path = wordpress_source(tmp_path)
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        used = max(int(file.name) for file in Path("/proc/self/fd").iterdir())
        resource.setrlimit(resource.RLIMIT_NOFILE, (used // 2, before[1]))
        try:
            files = []
            with suppress(OSError):
                while True:
                    files.append(os.dup(0))
            assert reading.start(path, wordpress) is None
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
            for file in files:
                os.close(file)

    def test_one_cpu(self, tmp_path: Path) -> None:
        path = wordpress_source(tmp_path)
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {min(before)})
        try:
            assert reading.start(path, wordpress) is None
        finally:
            os.sched_setaffinity(0, before)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_they_end_with_their_parent(number: signal.Signals, tmp_path: Path) -> None:
    path = wordpress_source(tmp_path)
    checkout = Checkout(directory=BACKEND_DIR, logs=tmp_path)
    settings = {"ENVIRONMENT": "test"}
    with Fork("tests.bulk.working", str(path), checkout=checkout, settings=settings) as parent:
        wait_until(lambda: "ready" in parent.log or not parent.running, "the parent is ready")
        processes = psutil.Process(parent.pid).children()
        assert len(processes) == 3
        if number is signal.SIGINT:  # of the terminal: both processes get it
            os.killpg(parent.pid, number)
        else:
            parent.send(number)
        parent.wait()
        wait_until(lambda: not any(each.is_running() for each in processes), "they end")
