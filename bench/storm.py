"""The effect of many concurrent logins on reads."""

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, Final

import psutil

from load import PAUSE_SECONDS, Generator, check, result
from report import Reads, StormRound, Workload
from servers import Server, execute

STORM_CONNECTIONS: Final = 16
STORM_READERS: Final = 8
LEAD_SECONDS: Final = 1
TRAIL_SECONDS: Final = 1
SESSIONS: Final = "SELECT count(*) FROM user_sessions"


def measure_storm(
    generator: Generator,
    server: Server,
    reads: Workload,
    logins: Workload,
    *,
    url: str,
    rounds: int,
    seconds: int,
    log: Callable[[str], None],
) -> list[StormRound]:
    """Measure reads without and with concurrent logins. The order alternates."""
    measured = []
    storm = partial(login_storm, generator, server, logins, url, seconds)
    generator.warm_up(server, reads, seconds=2)
    for number in range(1, rounds + 1):
        if number % 2:
            alone = read_alone(generator, server, reads, seconds)
        beside, rate = read_beside(generator, server, reads, storm, seconds)
        if not number % 2:
            alone = read_alone(generator, server, reads, seconds)
        measured.append(StormRound(number, alone, beside, rate))
        log(
            f"round {number}/{rounds}  login storm: reads {alone.rate:.0f}/s -> {beside.rate:.0f}/s"
            f"  p99 {alone.p99_ms:.1f} -> {beside.p99_ms:.1f} ms  logins {rate:.1f}/s"
        )
    return measured


def read_alone(generator: Generator, server: Server, reads: Workload, seconds: int) -> Reads:
    """Measure reads without other load."""
    busy = psutil.cpu_percent(interval=PAUSE_SECONDS)
    return _reads(generator.drive(server, reads, seconds), busy)


@contextmanager
def login_storm(
    generator: Generator, server: Server, logins: Workload, url: str, seconds: int
) -> Iterator[Callable[[], int]]:
    """Log in continuously for `seconds` and some more; yield a function that counts sessions."""
    storm_seconds = LEAD_SECONDS + seconds + TRAIL_SECONDS
    with generator.start(server, logins, storm_seconds) as storm:
        yield lambda: int(execute(url, SESSIONS)[0])
        counts = result(storm, storm_seconds + 30)
    # Logins may time out or not finish. The table shows their rate.
    check(counts, server, logins, allowed_errors=("timeout", "none"))


def read_beside(
    generator: Generator,
    server: Server,
    reads: Workload,
    work: Callable[[], AbstractContextManager[Callable[[], int]]],
    seconds: int,
) -> tuple[Reads, float]:
    """Measure reads during other work. Return also how much of it was done per second.

    The work starts before the reads and ends after them. Its context yields a function that returns
    how much was done. Then wait until the server is idle, so that the next measurement is not
    affected.
    """
    busy = psutil.cpu_percent(interval=PAUSE_SECONDS)
    with work() as done:
        time.sleep(LEAD_SECONDS)
        before, began = done(), time.monotonic()
        counts = generator.drive(server, reads, seconds)
        after, ended = done(), time.monotonic()
    server.wait_until_idle()
    return _reads(counts, busy), (after - before) / (ended - began)


def _reads(counts: dict[str, Any], busy_before: float) -> Reads:
    return Reads(
        requests=counts["requests"],
        rate=counts["requests"] / counts["duration"] * 1e6,
        p50_ms=counts["p50"] / 1000,
        p99_ms=counts["p99"] / 1000,
        busy_before=busy_before,
    )
