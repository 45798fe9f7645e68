# ruff: noqa: S603 - it runs wrk
"""wrk, which makes the load, and what it says of it."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import psutil

from report import Measurement, Workload
from servers import BENCH_DIR, HOST, BenchError, Server

PAUSE_SECONDS: Final = 0.5
PATIENT_SECONDS: Final = 20


@dataclass(frozen=True)
class Generator:
    """wrk, and all that was measured with it."""

    program: str
    measurements: list[Measurement] = field(default_factory=list)

    def start(self, server: Server, workload: Workload, seconds: int) -> "subprocess.Popen[str]":
        """Begin to ask as often as the server answers."""
        command = [self.program, "--threads", "1", "--connections", str(workload.connections)]
        command += ["--duration", f"{seconds}s", "--timeout", "10s"]
        command += ["--script", str(BENCH_DIR / "load.lua"), f"http://{HOST}:{server.port}", "--"]
        command += _script_arguments(server, workload)
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def warm_up(self, server: Server, workload: Workload, seconds: int) -> None:
        """Ask before it counts. Of what takes long there may be no answer yet."""
        self.drive(server, workload, seconds, forgiven=("none",))

    def drive(
        self, server: Server, workload: Workload, seconds: int, *, forgiven: Sequence[str] = ()
    ) -> dict[str, Any]:
        """Ask as often as the server answers; raise BenchError for any answer that is wrong."""
        with self.start(server, workload, seconds) as wrk:
            counts = result(wrk, seconds + 30)
        if workload.is_chain:
            continue_chains(server, workload, counts["tokens"])
        check(counts, server, workload, forgiven=forgiven)
        return counts

    def measure(self, server: Server, workload: Workload, seconds: int, number: int) -> Measurement:
        """One measurement, after a pause in which only what is not ours can be busy."""
        busy = psutil.cpu_percent(interval=PAUSE_SECONDS)
        cpu_before = server.cpu_seconds()
        counts = self.drive(server, workload, seconds, forgiven=("none",))
        if not counts["requests"]:  # passwords are hashed in the time that a busy machine spares
            cpu_before = server.cpu_seconds()
            counts = self.drive(server, workload, PATIENT_SECONDS)
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
    """What load.lua is told."""
    if workload.is_chain:
        return ["chains", workload.requests[0].path, *server.refresh_tokens]
    header = workload.header
    if workload.is_authenticated:
        header = f"Authorization: {server.authorization()}"
    arguments = ["turns", workload.method, header, workload.content_type]
    return arguments + [part for request in workload.requests for part in request]


def result(wrk: "subprocess.Popen[str]", timeout: float) -> dict[str, Any]:
    """What wrk counted, once it has ended."""
    try:
        output, complaints = wrk.communicate(timeout=timeout)
    except BaseException:
        wrk.kill()
        raise
    if wrk.returncode != 0:
        raise BenchError(f"wrk failed: {complaints.strip()[-500:]}")
    counts: dict[str, Any] = json.loads(output.splitlines()[-1])
    return counts


def check(
    counts: dict[str, Any], server: Server, workload: Workload, *, forgiven: Sequence[str] = ()
) -> None:
    """Raise BenchError where an answer was wrong, or where there is none; some may be forgiven."""
    where = f"{server.name}, {workload.name}"
    errors = counts["errors"].items()
    if wrong := {kind: count for kind, count in errors if count and kind not in forgiven}:
        raise BenchError(f"{where}: not every answer was right: {wrong}")
    if not counts["requests"]:
        if "none" in forgiven:
            return
        raise BenchError(f"{where}: no answer in the time: is the machine busy?")
    # Catches answers below 400 that are not 200: a redirect and a 204 have no such body.
    if counts["bytes"] / counts["requests"] < workload.least_bytes:
        raise BenchError(f"{where}: answers are too short to be right")


def continue_chains(server: Server, workload: Workload, tokens: Sequence[str]) -> None:
    """Send each token once more, and keep its successor for the next measurement.

    The answers to some were on their way when wrk hung up. Whoever repeats such a request soon is
    given the same successor: what a client does whose answer got lost.
    """
    server.refresh_tokens.clear()
    for token in tokens:
        server.refresh_tokens.append(refresh(server, workload.requests[0].path, token)[1])


def refresh(server: Server, path: str, token: str) -> tuple[str, str]:
    """The access and the refresh token that a refresh token is exchanged for."""
    body = json.dumps({"refresh_token": token})
    status, answer = server.ask("POST", path, body, "application/json")
    if status != 200:
        raise BenchError(f"{server.name} refuses a refresh token with {status}")
    found = json.loads(answer)
    return found["access_token"], found["refresh_token"]
