# ruff: noqa: S603 - it runs wrk
"""The load generator wrk and its results."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import psutil

from report import Measurement, Workload
from servers import BENCH_DIR, HOST, BenchError, Server

PAUSE_SECONDS: Final = 0.5
LONG_RUN_SECONDS: Final = 20


@dataclass(frozen=True)
class Generator:
    """Runs wrk, and collects the measurements."""

    program: str
    pause_seconds: float = PAUSE_SECONDS
    measurements: list[Measurement] = field(default_factory=list)

    def start(self, server: Server, workload: Workload, seconds: int) -> "subprocess.Popen[str]":
        """Start wrk, which sends a request after each response."""
        command = [self.program, "--threads", "1", "--connections", str(workload.connections)]
        command += ["--duration", f"{seconds}s", "--timeout", "10s"]
        command += ["--script", str(BENCH_DIR / "load.lua"), f"http://{HOST}:{server.port}", "--"]
        command += _script_arguments(server, workload)
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def warm_up(self, server: Server, workload: Workload, seconds: int) -> None:
        """Send requests without measuring. Slow workloads may have no response yet."""
        self.drive(server, workload, seconds, allowed_errors=("none",))

    def drive(
        self,
        server: Server,
        workload: Workload,
        seconds: int,
        *,
        allowed_errors: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Run wrk and return its counts. Raises BenchError for any wrong response."""
        with self.start(server, workload, seconds) as wrk:
            counts = result(wrk, seconds + 30)
        if workload.is_chain:
            continue_chains(server, workload, counts["tokens"])
        check(counts, server, workload, allowed_errors=allowed_errors)
        return counts

    def measure(self, server: Server, workload: Workload, seconds: int, number: int) -> Measurement:
        """Measure once, after a pause in which the load of other programs is measured."""
        busy = psutil.cpu_percent(interval=self.pause_seconds)
        cpu_before = server.cpu_seconds()
        counts = self.drive(server, workload, seconds, allowed_errors=("none",))
        if not counts["requests"]:  # password hashing has low priority on a busy machine
            cpu_before = server.cpu_seconds()
            counts = self.drive(server, workload, LONG_RUN_SECONDS)
        cpu_seconds = server.cpu_seconds() - cpu_before
        measurement = Measurement(
            server=server.name,
            workload=workload.name,
            round=number,
            requests=counts["requests"],
            rate=counts["requests"] / counts["duration"] * 1e6,
            p50_ms=counts["p50"] / 1000,
            p99_ms=counts["p99"] / 1000,
            cpu_ms=cpu_seconds * 1000 / counts["requests"],
            busy_before=busy,
        )
        self.measurements.append(measurement)
        return measurement


def _script_arguments(server: Server, workload: Workload) -> list[str]:
    """Return the arguments of load.lua."""
    if workload.is_chain:
        return ["chains", workload.requests[0].path, *server.refresh_tokens]
    header = workload.header
    if workload.is_authenticated:
        header = f"Authorization: {server.authorization()}"
    mode = ["paced", f"{workload.pause_ms}"] if workload.pause_ms else ["turns"]
    arguments = [*mode, workload.method, header, workload.content_type]
    return arguments + [part for request in workload.requests for part in request]


def result(wrk: "subprocess.Popen[str]", timeout: float) -> dict[str, Any]:
    """Wait for wrk to end, and return its counts."""
    try:
        output, stderr = wrk.communicate(timeout=timeout)
    except BaseException:
        wrk.kill()
        raise
    if wrk.returncode != 0:
        raise BenchError(f"wrk failed: {stderr.strip()[-500:]}")
    counts: dict[str, Any] = json.loads(output.splitlines()[-1])
    return counts


def check(
    counts: dict[str, Any],
    server: Server,
    workload: Workload,
    *,
    allowed_errors: Sequence[str] = (),
) -> None:
    """Raise BenchError for wrong or missing responses, except for `allowed_errors`."""
    where = f"{server.name}, {workload.name}"
    errors = counts["errors"].items()
    if wrong := {kind: count for kind, count in errors if count and kind not in allowed_errors}:
        raise BenchError(f"{where}: wrong responses: {wrong}")
    if not counts["requests"]:
        if "none" in allowed_errors:
            return
        raise BenchError(f"{where}: no response in time: is the machine busy?")
    # Detects responses below 400 other than 200: a redirect and a 204 have a shorter body.
    if counts["bytes"] / counts["requests"] < workload.min_bytes:
        raise BenchError(f"{where}: responses are too short")


def continue_chains(server: Server, workload: Workload, tokens: Sequence[str]) -> None:
    """Send each token once more, and store its successor for the next measurement.

    Some responses were lost when wrk closed its connections. A repeated refresh returns the same
    successor for a short time.
    """
    server.refresh_tokens.clear()
    for token in tokens:
        server.refresh_tokens.append(refresh(server, workload.requests[0].path, token)[1])


def refresh(server: Server, path: str, token: str) -> tuple[str, str]:
    """Exchange a refresh token. Return the new access and refresh tokens."""
    body = json.dumps({"refresh_token": token})
    status, answer = server.request("POST", path, body, "application/json")
    if status != 200:
        raise BenchError(f"{server.name} rejects a refresh token with {status}")
    found = json.loads(answer)
    return found["access_token"], found["refresh_token"]
