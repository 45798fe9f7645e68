"""What a storm of logins does to the reads beside it."""

import time
from collections.abc import Callable
from typing import Any, Final

import psutil

from load import PAUSE_SECONDS, Generator, check, result
from report import Reads, StormRound, Workload
from servers import Server, execute

STORM_CONNECTIONS: Final = 16
STORM_READERS: Final = 8
GATHERING_SECONDS: Final = 1
LEAVING_SECONDS: Final = 1
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
    say: Callable[[str], None],
) -> list[StormRound]:
    """Reads alone and reads beside logins, in turn; what comes first changes with the round."""
    measured = []
    generator.warm_up(server, reads, seconds=2)
    for number in range(1, rounds + 1):
        if number % 2:
            alone = read_alone(generator, server, reads, seconds)
        beside, rate = read_beside(generator, server, reads, logins, url=url, seconds=seconds)
        if not number % 2:
            alone = read_alone(generator, server, reads, seconds)
        measured.append(StormRound(number, alone, beside, rate))
        say(
            f"round {number}/{rounds}  login storm: reads {alone.rate:.0f}/s -> {beside.rate:.0f}/s"
            f"  p99 {alone.p99_ms:.1f} -> {beside.p99_ms:.1f} ms  logins {rate:.1f}/s"
        )
    return measured


def read_alone(generator: Generator, server: Server, reads: Workload, seconds: int) -> Reads:
    """Reads, with nothing beside them."""
    busy = psutil.cpu_percent(interval=PAUSE_SECONDS)
    return _reads(generator.drive(server, reads, seconds), busy)


def read_beside(
    generator: Generator,
    server: Server,
    reads: Workload,
    logins: Workload,
    *,
    url: str,
    seconds: int,
) -> tuple[Reads, float]:
    """Reads while others log in without end, and how many of those did so in a second.

    The storm has begun when the reads begin, and ends after them. Afterwards the server works off
    what the storm has left behind, for the next measurement is to be without it.
    """
    busy = psutil.cpu_percent(interval=PAUSE_SECONDS)
    storm_seconds = GATHERING_SECONDS + seconds + LEAVING_SECONDS
    with generator.start(server, logins, storm_seconds) as storm:
        time.sleep(GATHERING_SECONDS)
        before, began = execute(url, SESSIONS)[0], time.monotonic()
        counts = generator.drive(server, reads, seconds)
        after, ended = execute(url, SESSIONS)[0], time.monotonic()
        stormed = result(storm, storm_seconds + 30)
    # That some wait for long, or for longer than the storm lasts, is for the table to tell.
    check(stormed, server, logins, forgiven=("timeout", "none"))
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
