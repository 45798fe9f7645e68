"""Replacing, scaling and killing backends loses no request."""

import subprocess
from uuid import uuid4

import pytest

from tests.edge.load import CALLERS, assert_nothing_was_lost, load, stored_titles
from tests.edge.stack import PRODUCTION, Stack, register
from tests.processes import wait_until

WORKERS = int(PRODUCTION["WEB_CONCURRENCY"])


@pytest.fixture(scope="module")
def author(stack: Stack) -> dict[str, str]:
    with stack.client() as client:
        return register(client)


def replicas(stack: Stack) -> list[str]:
    ids: str = stack.project.output("ps", "--quiet", "backend")
    return ids.split()


def pids(container: str) -> set[str]:
    """The processes of a container."""
    return set(docker("top", container, "-eo", "pid").split()[1:])


def docker(*arguments: str, sent: str = "") -> str:
    result = subprocess.run(
        ["docker", *arguments], input=sent, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_replacing_the_only_container_loses_no_request(
    stack: Stack, author: dict[str, str]
) -> None:
    """With `docker compose up -d`, the old container stops before the new one is ready."""
    before = replicas(stack)
    assert len(before) == 1
    with load(stack, author) as results:
        image = docker("inspect", "--format", "{{.Config.Image}}", before[0]).strip()
        docker("build", "-t", image, "-", sent=f"FROM {image}\nLABEL upgrade={uuid4().hex}\n")
        stack.up()
    assert replicas(stack) != before
    assert_nothing_was_lost(stack, results, may_exceed_hold=True)  # on a busy machine


def test_sighup_loses_no_request(stack: Stack, author: dict[str, str]) -> None:
    (backend,) = replicas(stack)
    before = pids(backend)
    with load(stack, author) as results:
        stack.project.output("kill", "--signal", "HUP", "backend")
        wait_until(
            lambda: stack.project.output("logs", "backend").count("Handling signal: hup"), "SIGHUP"
        )
        wait_until(lambda: len(before & pids(backend)) <= len(before) - WORKERS, "they ended")
    assert_nothing_was_lost(stack, results)


def test_scaling_loses_no_request(stack: Stack, author: dict[str, str]) -> None:
    with load(stack, author) as results:
        stack.scale(3)
        assert len(replicas(stack)) == 3
        stack.scale(1)
        assert len(replicas(stack)) == 1
    assert_nothing_was_lost(stack, results)


def test_sigterm_of_one_of_two_replicas_loses_no_request(
    stack: Stack, author: dict[str, str]
) -> None:
    stack.scale(2)
    with load(stack, author) as results:
        docker("stop", replicas(stack)[0])
    stack.scale(1)
    assert_nothing_was_lost(stack, results)


KILL_A_WORKER = """
import os, signal
children = open("/proc/1/task/1/children").read().split()
os.kill(int(children[0]), signal.SIGKILL)
"""


def test_kill_9_of_a_worker_fails_only_its_requests(stack: Stack, author: dict[str, str]) -> None:
    """Only the requests of the killed worker fail, and no write is executed twice.

    nginx retries reads, unless the response has already begun.
    """
    stack.recover()
    with load(stack, author) as results:
        for _ in range(3):
            stack.project.output("exec", "-T", "backend", "python", "-c", KILL_A_WORKER)
            results.wait_for(50)
    found = stored_titles(stack)
    print(f"{results.answered} answers, {results.wrong} failed, {results.broken} broke off")
    assert set(results.wrong) <= {("write", 503)}
    failed = sum(results.wrong.values()) + len(results.broken)
    assert failed <= 3 * CALLERS  # three workers
    assert all(found[title] == 1 for title in results.confirmed)
    assert all(found[title] <= 1 for title in results.sent)
