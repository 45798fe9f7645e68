"""Results as tables for the terminal and for RESULTS.md."""

import os
import platform
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import mean, median
from typing import NamedTuple

PRESSROOM, REFERENCE = "Pressroom", "reference"
LOGIN, REFRESH = "login", "refresh"
REFRESHES_PER_LOGIN = 100
"""The goal: refreshes in the time of a login, independent of the machine."""
MAX_SLOWDOWN = 1.5
"""The goal: the maximum factor by which concurrent logins increase the p99 of reads."""
QUIET_PERCENT = 10
"""Above this CPU load before a measurement, other programs disturb it."""

PACKAGES = (
    "fastapi", "starlette", "pydantic", "sqlalchemy", "asyncpg", "orjson", "gunicorn", "uvicorn",
    "uvicorn-worker", "uvloop", "httptools", "structlog", "bcrypt", "libpass",
)  # fmt: skip


class Request(NamedTuple):
    """A path and a request body."""

    path: str
    body: str = ""


@dataclass(frozen=True)
class Workload:
    """Requests that are sent in turn. `min_bytes` is the minimum size of a correct response.

    If `is_chain` is set, each request sends the refresh token of the previous response. With
    `pause_ms`, each connection waits that long before a request, on average.
    """

    name: str
    requests: Sequence[Request]
    min_bytes: int
    connections: int
    method: str = "GET"
    content_type: str = ""
    header: str = ""
    is_authenticated: bool = False
    is_chain: bool = False
    pause_ms: int = 0


@dataclass(frozen=True)
class Measurement:
    """The measurement of a server with a workload.

    `cpu_ms` is the worker's CPU time per response. `busy_before` is the CPU load in per cent.
    """

    server: str
    workload: str
    round: int
    requests: int
    rate: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    busy_before: float


@dataclass(frozen=True)
class Reads:
    """The measurement of reads. `busy_before` is the CPU load in per cent."""

    requests: int
    rate: float
    p50_ms: float
    p99_ms: float
    busy_before: float


@dataclass(frozen=True)
class StormRound:
    """The same reads without and with concurrent logins, a few seconds apart."""

    round: int
    alone: Reads
    beside: Reads
    logins_per_second: float

    @property
    def slowdown(self) -> float:
        """Return the ratio of the p99 with and without concurrent logins."""
        return self.beside.p99_ms / self.alone.p99_ms


@dataclass(frozen=True)
class Storm:
    """Pressroom's reads during a storm of logins. `sharing` describes the CPU affinities."""

    reads: Workload
    logins: Workload
    sharing: str
    rounds: Sequence[StormRound]


@dataclass(frozen=True)
class Conditions:
    """The conditions of a run."""

    rounds: int
    seconds: int
    seed_seconds: float
    articles: int
    article_bytes: int
    busy_at_start: float
    durable: str
    note: str
    machine: str
    versions: str
    revision: str


@dataclass(frozen=True)
class Results:
    """The results of a run."""

    workloads: Sequence[Workload]
    measurements: Sequence[Measurement]
    storm: Storm
    conditions: Conditions

    def of(self, workload: Workload, server: str) -> list[Measurement]:
        """Return a server's measurements with a workload, by round."""
        key = (workload.name, server)
        selected = [m for m in self.measurements if (m.workload, m.server) == key]
        return sorted(selected, key=lambda measurement: measurement.round)

    def ratios(self, workload: Workload) -> list[float]:
        """Return Pressroom's rate divided by the reference's for each round."""
        pairs = zip(self.of(workload, PRESSROOM), self.of(workload, REFERENCE), strict=True)
        return [ours.rate / theirs.rate for ours, theirs in pairs]

    def named(self, name: str) -> Workload:
        """Return the workload with this name."""
        return next(workload for workload in self.workloads if workload.name == name)

    def refreshes_per_login(self, server: str) -> list[float]:
        """Return the refreshes in the time of a login for each round."""
        pairs = zip(
            self.of(self.named(REFRESH), server), self.of(self.named(LOGIN), server), strict=True
        )
        return [refreshing.rate / login.rate for refreshing, login in pairs]


def describe_machine() -> str:
    """Return the CPU model, the available CPUs, the memory and the operating system."""
    model = platform.machine()
    memory = ""
    cpu_facts = Path("/proc/cpuinfo")
    if cpu_facts.exists():
        lines = (line.partition(":") for line in cpu_facts.read_text().splitlines())
        model = next((value.strip() for key, _, value in lines if "model name" in key), model)
        gibibytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
        memory = f", {gibibytes:.0f} GiB"
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cpus} CPUs{memory}, {platform.system()} {platform.release()}"


def describe_versions(wrk: str | None, postgres: str) -> str:
    """Return the versions of the software that affects the results."""
    packages = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    versions = f"Python {platform.python_version()}, PostgreSQL {postgres}, {packages}"
    if wrk is None:
        return versions
    # wrk --version prints its name and version, and exits with status 1.
    output = subprocess.run([wrk, "--version"], capture_output=True, text=True, check=False)  # noqa: S603 - the path is from shutil.which
    return f"{versions}; {' '.join(output.stdout.split()[:2])}"


def _spread(values: Sequence[float], form: Callable[[float], str]) -> str:
    return f"{form(min(values))} to {form(max(values))}"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _ratio(value: float) -> str:
    return f"{value:.2f}"


HEADINGS = (
    "what", "connections", "server", "per second", "spread", "p50 ms", "p99 ms", "CPU ms", "ratio",
    "spread",
)  # fmt: skip
ROUND_HEADINGS = (
    "what", "server", "round", "answers", "per second", "p50 ms", "p99 ms", "CPU ms",
    "busy before", "ratio",
)  # fmt: skip
RATIO_EXPLAINED = (
    "A ratio is Pressroom's rate divided by the reference's in the same round. Each figure is the"
    " median of the rounds; a spread is their minimum and maximum. CPU ms is the worker's CPU time"
    " per response. Other load on the machine affects it less than the rate."
)


def summary_rows(results: Results) -> list[list[str]]:
    """Return the main table: medians of the rounds with their spread."""
    rows = []
    for workload in results.workloads:
        ratios = results.ratios(workload)
        for server in (PRESSROOM, REFERENCE):
            measured = results.of(workload, server)
            rates = [measurement.rate for measurement in measured]
            row = [workload.name, str(workload.connections), server]
            row += [_rate(median(rates)), _spread(rates, _rate)]
            row += [f"{median(m.p50_ms for m in measured):.1f}"]
            row += [f"{median(m.p99_ms for m in measured):.1f}"]
            row += [f"{median(m.cpu_ms for m in measured):.2f}"]
            ours = server == PRESSROOM
            row += [_ratio(median(ratios)), _spread(ratios, _ratio)] if ours else ["", ""]
            rows.append(row)
    return rows


REFRESH_HEADINGS = (
    "server", "refreshes/s", "logins/s", "refreshes a login", "spread", "CPU ms of a refresh",
    "of a login",
)  # fmt: skip
REFRESH_EXPLAINED = (
    f"The goal is {REFRESHES_PER_LOGIN} refreshes in the time of a login, for example 1,000 per"
    " second if 10 users per second can log in. Both rates are of the same round. The event loop"
    " handles refreshes on one CPU; the two hashing threads handle logins on two CPUs if available."
    " The goal is then twice as hard. CPU ms does not depend on this. A refresh is committed to"
    " disk before the response."
)


def refresh_rows(results: Results) -> list[list[str]]:
    """Return the table of refreshes and logins."""
    rows = []
    for server in (PRESSROOM, REFERENCE):
        ratios = results.refreshes_per_login(server)
        measured = [
            results.of(results.named(REFRESH), server),
            results.of(results.named(LOGIN), server),
        ]
        row = [server, *(_rate(median(one.rate for one in rounds)) for rounds in measured)]
        row += [f"{median(ratios):.0f}", _spread(ratios, "{:.0f}".format)]
        row += [f"{median(one.cpu_ms for one in rounds):.2f}" for rounds in measured]
        rows.append(row)
    return rows


STORM_HEADINGS = (
    "reads", "per second", "spread", "p50 ms", "p99 ms", "spread", "logins/s", "p99 ratio",
    "spread", "rate ratio",
)  # fmt: skip
STORM_ROUND_HEADINGS = (
    "round", "reads/s alone", "beside", "p50 ms alone", "beside", "p99 ms alone", "beside",
    "p99 ratio", "logins/s", "busy before alone", "beside",
)  # fmt: skip


def storm_rows(storm: Storm) -> list[list[str]]:
    """Return the table of reads without and with logins, with medians and spreads."""
    rows = []
    slowdowns = [one.slowdown for one in storm.rounds]
    rate_ratio = median(one.beside.rate / one.alone.rate for one in storm.rounds)
    logins = mean(one.logins_per_second for one in storm.rounds)  # few, or none, in a round
    alone, beside = [one.alone for one in storm.rounds], [one.beside for one in storm.rounds]
    for name, reads in (("alone", alone), (f"beside {storm.logins.connections} logins", beside)):
        rates, slowest = [read.rate for read in reads], [read.p99_ms for read in reads]
        row = [name, _rate(median(rates)), _spread(rates, _rate)]
        row += [f"{median(read.p50_ms for read in reads):.1f}"]
        row += [f"{median(slowest):.1f}", _spread(slowest, "{:.1f}".format)]
        in_storm = [f"{logins:.2f}", _ratio(median(slowdowns)), _spread(slowdowns, _ratio)]
        rows.append(row + ([*in_storm, _ratio(rate_ratio)] if reads is beside else [""] * 4))
    return rows


def _storm_round_rows(storm: Storm) -> list[list[str]]:
    rows = []
    for one in storm.rounds:
        alone, beside = one.alone, one.beside
        row = [str(one.round), _rate(alone.rate), _rate(beside.rate)]
        row += [f"{alone.p50_ms:.1f}", f"{beside.p50_ms:.1f}"]
        row += [f"{alone.p99_ms:.1f}", f"{beside.p99_ms:.1f}", _ratio(one.slowdown)]
        row += [f"{one.logins_per_second:.2f}"]
        rows.append([*row, f"{alone.busy_before:.0f} %", f"{beside.busy_before:.0f} %"])
    return rows


def _storm_explained(storm: Storm) -> str:
    return (
        f"Only Pressroom is measured. {storm.reads.connections} connections request"
        f" {storm.reads.name} continuously, which keeps the event loop of the worker busy."
        f" Meanwhile, {storm.logins.connections} connections log in continuously. Here"
        f" {storm.sharing}. The goal is a p99 ratio of at most {MAX_SLOWDOWN}: the p99 with logins"
        " divided by the p99 without, in the same round. Logins/s is the mean rate of successful"
        " logins during the reads. They only get the CPU time that the reads leave."
    )


def text_table(headings: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """Return an aligned table for the terminal."""
    rows = [list(headings), *map(list, body)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(headings))]
    rows.insert(1, ["-" * width for width in widths])
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def render_tables(results: Results) -> str:
    """Return the tables for the terminal."""
    tables = [
        text_table(HEADINGS, summary_rows(results)),
        text_table(REFRESH_HEADINGS, refresh_rows(results)),
        text_table(STORM_HEADINGS, storm_rows(results.storm)),
    ]
    return "\n\n".join(tables)


def markdown_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _round_rows(results: Results) -> list[list[str]]:
    rows = []
    for workload in results.workloads:
        ratios = results.ratios(workload)
        for server in (PRESSROOM, REFERENCE):
            for ratio, one in zip(ratios, results.of(workload, server), strict=True):
                row = [workload.name, server, str(one.round), f"{one.requests:,}", _rate(one.rate)]
                row += [f"{one.p50_ms:.1f}", f"{one.p99_ms:.1f}", f"{one.cpu_ms:.2f}"]
                row += [f"{one.busy_before:.0f} %"]
                rows.append([*row, _ratio(ratio) if server == PRESSROOM else ""])
    return rows


def _quietness(results: Results) -> str:
    before = [measurement.busy_before for measurement in results.measurements]
    for one in results.storm.rounds:
        before += [one.alone.busy_before, one.beside.busy_before]
    disturbed = sum(busy > QUIET_PERCENT for busy in before)
    start = results.conditions.busy_at_start
    return (
        f"{start:.0f} % CPU load before the start. In the pause before each"
        f" measurement: median {median(before):.0f} %, maximum {max(before):.0f} %; above"
        f" {QUIET_PERCENT} % before {disturbed} of {len(before)} measurements."
    )


TITLE = """# The last results

What is measured, and how to read it: [README.md](README.md)."""


def write_section(path: Path, heading: str, section: str) -> None:
    """Write a section of RESULTS.md, and replace the one with the same heading."""
    written = path.read_text() if path.exists() else TITLE
    first, *sections = written.split("\n## ")
    by_heading = {f"## {each.partition(chr(10))[0]}": f"## {each}".rstrip() for each in sections}
    by_heading[heading] = section.rstrip()
    path.write_text("\n\n".join([first.rstrip(), *by_heading.values()]) + "\n")


IDENTITY = "## Identity"


def render_markdown(results: Results) -> str:
    """Return the section for RESULTS.md."""
    conditions = results.conditions
    facts = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "revision": conditions.revision,
        "machine": conditions.machine,
        "versions": conditions.versions,
        "data": (
            f"{conditions.articles:,} articles, {conditions.article_bytes:,} bytes of content on"
            f" average; `pressroom seed` took {conditions.seed_seconds:.1f} s (goal: under 10)"
        ),
        "PostgreSQL": conditions.durable,
        "rounds": (
            f"{conditions.rounds}, of {conditions.seconds} s a measurement; the servers in turn,"
            " and who is first changes each round"
        ),
        "other load": _quietness(results),
    }
    if conditions.note:
        facts["note"] = conditions.note
    parts = [
        IDENTITY,
        "Written by `make bench ARGS=identity`.",
        "\n".join(f"- {name}: {fact}" for name, fact in facts.items()),
        "### Medians of the rounds",
        markdown_table(HEADINGS, summary_rows(results)),
        RATIO_EXPLAINED,
        "### Refreshes in the time of a login",
        markdown_table(REFRESH_HEADINGS, refresh_rows(results)),
        REFRESH_EXPLAINED,
        "### A storm of logins",
        markdown_table(STORM_HEADINGS, storm_rows(results.storm)),
        _storm_explained(results.storm),
        "### Each round",
        markdown_table(ROUND_HEADINGS, _round_rows(results)),
        "### Each round of the storm",
        markdown_table(STORM_ROUND_HEADINGS, _storm_round_rows(results.storm)),
    ]
    return "\n\n".join(parts) + "\n"
