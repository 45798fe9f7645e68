"""Metrics of a process: counted in memory, and written to files that `pressroom metrics` reads.

Each process of a container writes to files of its own in METRICS_DIR, which should be in memory.
Once a second, `Recorder.write` adds what was counted since the last time. A request therefore takes
a microsecond more. prometheus_client alone would take eight. A process that is killed loses the
counts of its last second.

A file belongs to a slot, not to a process: a worker that replaces another one continues its counts.
Without METRICS_PORT there is no recorder, and the functions of this module do nothing.
"""

import os
import threading
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The upper bounds of all histograms, in seconds."""
WRITE_SECONDS = 1.0
OTHER = "other"
"""The label of values that are not known, so that clients cannot create new ones."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Definition(NamedTuple):
    """A metric: its help text and the names of its labels."""

    text: str
    labels: tuple[str, ...] = ()
    mode: str = ""
    """How the values of several processes become one; only for gauges."""


COUNTERS: Mapping[str, Definition] = {
    "pressroom_http_requests_total": Definition(
        "Requests by route and class of status", ("route", "method", "status")
    ),
    "pressroom_pool_timeouts_total": Definition(
        "Requests that got no connection in DATABASE_POOL_TIMEOUT", ("pool",)
    ),
    "pressroom_job_failures_total": Definition("Failed runs of background jobs", ("job",)),
    "pressroom_job_rows_total": Definition(
        "Rows or files that background jobs changed, or mails that they sent", ("job",)
    ),
    "pressroom_webhook_attempts_total": Definition(
        "Attempts to deliver to webhooks by result: ok, failed", ("result",)
    ),
    "pressroom_logins_total": Definition("Logins by result: ok, refused, limited", ("result",)),
    "pressroom_limited_requests_total": Definition("Requests refused by a limit", ("limit",)),
    "pressroom_live_closed_total": Definition(
        "Streams and sockets that the server refused or closed, by reason", ("reason",)
    ),
}
HISTOGRAMS: Mapping[str, Definition] = {
    "pressroom_http_request_duration_seconds": Definition(
        "Duration of requests, until the response is sent", ("route", "method")
    ),
    "pressroom_statement_duration_seconds": Definition(
        "Duration of SQL statements, with the round trip", ("pool",)
    ),
    "pressroom_thread_wait_seconds": Definition(
        "Time that work waits for a thread of a queue", ("queue",)
    ),
    "pressroom_live_delay_seconds": Definition(
        "Time from a change until the streams of a process have it in their queues"
    ),
    "pressroom_event_loop_delay_seconds": Definition(
        "How much later than planned the event loop wakes up"
    ),
}
GAUGES: Mapping[str, Definition] = {
    "pressroom_http_requests_in_flight": Definition("Requests being processed", (), "livesum"),
    "pressroom_pool_connections": Definition(
        "Connections of a pool: in_use, idle", ("pool", "state"), "livesum"
    ),
    "pressroom_pool_waiting": Definition(
        "Requests that wait for a connection", ("pool",), "livesum"
    ),
    "pressroom_database_disk_full": Definition(
        "Whether PostgreSQL reported a full disk in the last two minutes: 1 or 0", (), "livemax"
    ),
    "pressroom_thread_queue": Definition(
        "Work that waits for a thread or runs in it", ("queue",), "livesum"
    ),
    "pressroom_live_connections": Definition(
        "Open connections: stream, socket", ("kind",), "livesum"
    ),
    "pressroom_live_listen_gap_seconds": Definition(
        "How long a process has not listened to events; 0 while it listens", (), "livemax"
    ),
    "pressroom_process_resident_memory_bytes": Definition(
        "Memory of all workers; pages that they share count for each", (), "livesum"
    ),
    "pressroom_job_last_success_timestamp_seconds": Definition(
        "End of the last successful run of a job", ("job",), "max"
    ),
    "pressroom_job_duration_seconds": Definition(
        "Duration of the last run of a job", ("job",), "mostrecent"
    ),
}

SHARED: Mapping[str, Definition] = {
    "pressroom_build_info": Definition(
        "1; the labels are this release and its revision of the schema", ("version", "revision")
    ),
    "pressroom_collector_up": Definition(
        "Whether a group of these metrics could be read: 1 or 0", ("collector",)
    ),
    "pressroom_database_up": Definition("Whether the primary answers: 1 or 0"),
    "pressroom_outbox_messages": Definition("Messages by state: queued, failed", ("kind", "state")),
    "pressroom_outbox_oldest_age_seconds": Definition(
        "Age of the oldest queued message; 0 without one", ("kind",)
    ),
    "pressroom_webhooks": Definition("Webhooks by state: working, failing, disabled", ("state",)),
    "pressroom_media_bytes": Definition("Bytes of all images"),
    "pressroom_articles": Definition(
        "Articles by state: published, scheduled, drafts, archived, trash", ("state",)
    ),
    "pressroom_comments": Definition("Comments that are not deleted"),
    "pressroom_users": Definition("Users by state: active, disabled", ("state",)),
    "pressroom_media_files": Definition("Images"),
    "pressroom_change_feed_lag_seconds": Definition(
        "How long the oldest scheduled article that is due waits for its entry"
    ),
    "pressroom_maintenance_mode": Definition("Whether writes are refused: 1 or 0"),
    "pressroom_database_replication_lag_seconds": Definition(
        "How far each replica of DATABASE_READ_URL is behind", ("replica",)
    ),
    "pressroom_disk_free_bytes": Definition("Free bytes of a disk", ("volume",)),
    "pressroom_disk_size_bytes": Definition("Size of a disk", ("volume",)),
    "pressroom_backup_last_success_timestamp_seconds": Definition("End of the newest backup"),
    "pressroom_backup_size_bytes": Definition("Size of the newest backup"),
    "pressroom_wal_archive_age_seconds": Definition(
        "Time since the last WAL was archived, or since the receiver left; 0 while it receives"
    ),
    "pressroom_wal_held_bytes": Definition(
        "WAL that the database keeps for the archive, because it was not received yet"
    ),
    "pressroom_certificate_expiry_timestamp_seconds": Definition(
        "End of the certificate at METRICS_TLS_ADDRESS"
    ),
}
"""Gauges that `pressroom metrics` reads itself, once for all processes of a container."""


class Value(Protocol):
    """A number in a file of METRICS_DIR."""

    def inc(self, amount: float) -> None:
        """Add to the number."""

    def set(self, value: float, timestamp: float) -> None:
        """Set the number."""


class Distribution:
    """The values of a histogram since the last write."""

    __slots__ = ("counts", "total")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS) + 1)
        self.total = 0.0

    def add(self, seconds: float) -> None:
        """Count a value."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds


class _Requests(Distribution):
    """The requests of a route and a method since the last write."""

    __slots__ = ("statuses",)

    def __init__(self) -> None:
        super().__init__()
        self.statuses = [0] * 6
        """The number of responses by class of status; the first is for none."""


class Recorder:
    """Counts the metrics of one process. Only `observe_wait` may be called in other threads."""

    def __init__(self, directory: Path, slot: str) -> None:
        """Write to the files of `slot`, which no other running process may use."""
        # It is imported here, so that a process without metrics does not load it.
        from prometheus_client.values import MultiProcessValue  # noqa: PLC0415

        self.directory, self.slot = directory, slot
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)
        create: Any = MultiProcessValue
        self._create_value: Callable[..., Value] = create(lambda: slot)
        self._values: dict[tuple[str, ...], Value] = {}
        self._counts: dict[tuple[str, tuple[str, ...]], float] = defaultdict(float)
        self._gauges: dict[tuple[str, tuple[str, ...]], tuple[float, float]] = {}
        self._distributions: dict[tuple[str, tuple[str, ...]], Distribution] = {}
        self._requests: dict[tuple[str, str], _Requests] = {}
        self._lock = threading.Lock()
        self._waits: list[tuple[str, float]] = []
        self.in_flight = 0
        self.statements: Mapping[str, Distribution] = {
            pool: self._distribution("pressroom_statement_duration_seconds", pool)
            for pool in ("read", "write")
        }

    def observe_request(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a finished request. `status` is 0 if it has no response."""
        requests = self._requests.get((route, method))
        if requests is None:
            known = method if method in METHODS else OTHER
            requests = self._requests.setdefault((route, known), _Requests())
        requests.statuses[status // 100] += 1
        requests.counts[bisect_left(BUCKETS, seconds)] += 1
        requests.total += seconds

    def observe_wait(self, queue: str, seconds: float) -> None:
        """Count how long work waited for a thread. Any thread may call this."""
        with self._lock:
            self._waits.append((queue, seconds))

    def observe(self, name: str, seconds: float, *labels: str) -> None:
        """Count a value of a histogram."""
        self._distribution(name, *labels).add(seconds)

    def count(self, name: str, *labels: str, by: float = 1) -> None:
        """Add to a counter."""
        self._counts[name, labels] += by

    def set(self, name: str, value: float, *labels: str, at: float = 0) -> None:
        """Set a gauge. With the mode `mostrecent`, the value with the highest `at` is shown."""
        self._gauges[name, labels] = (value, at)

    def _distribution(self, name: str, *labels: str) -> Distribution:
        return self._distributions.setdefault((name, labels), Distribution())

    def write(self) -> None:
        """Add everything counted since the last call to the files, and set the gauges."""
        with self._lock:
            waits, self._waits = self._waits, []
        for queue, seconds in waits:
            self.observe("pressroom_thread_wait_seconds", seconds, queue)
        for pair, requests in self._requests.items():
            self._write_distribution("pressroom_http_request_duration_seconds", pair, requests)
            for kind, number in enumerate(requests.statuses):
                if number:
                    status = f"{kind}xx" if kind else "none"
                    self.count("pressroom_http_requests_total", *pair, status, by=number)
                    requests.statuses[kind] = 0
        for (name, labels), distribution in self._distributions.items():
            self._write_distribution(name, labels, distribution)
        for (counter, values), amount in self._counts.items():
            self._value("counter", COUNTERS[counter], counter, values).inc(amount)
        self._counts.clear()
        self._gauges["pressroom_http_requests_in_flight", ()] = (self.in_flight, 0)
        for (gauge, values), (value, at) in self._gauges.items():
            self._value("gauge", GAUGES[gauge], gauge, values).set(value, at)

    def close(self) -> None:
        """Write a last time, and remove the values that end with the process."""
        from prometheus_client.multiprocess import mark_process_dead  # noqa: PLC0415

        self.in_flight = 0
        self.write()
        remove: Callable[[str, str], None] = mark_process_dead
        remove(self.slot, str(self.directory))

    def _write_distribution(
        self, name: str, labels: tuple[str, ...], distribution: Distribution
    ) -> None:
        if not any(distribution.counts):
            return
        counts, distribution.counts = distribution.counts, [0] * len(distribution.counts)
        total, distribution.total = distribution.total, 0.0
        definition = HISTOGRAMS[name]
        self._value("histogram", definition, name, labels, suffix="_sum").inc(total)
        bounds = [*(str(bound) for bound in BUCKETS), "+Inf"]
        for bound, number in zip(bounds, counts, strict=True):
            bucket = self._value(
                "histogram", definition, name, labels, suffix="_bucket", bound=bound
            )
            bucket.inc(number)

    def _value(
        self,
        kind: str,
        definition: Definition,
        name: str,
        labels: tuple[str, ...],
        *,
        suffix: str = "",
        bound: str = "",
    ) -> Value:
        key = (name, suffix, bound, *labels)
        value = self._values.get(key)
        if value is None:
            names, values = definition.labels, labels
            if bound:
                names, values = (*names, "le"), (*values, bound)
            value = self._values[key] = self._create_value(
                kind,
                name.removesuffix("_total"),
                name + suffix,
                names,
                values,
                definition.text,
                multiprocess_mode=definition.mode,
            )
        return value


_recorder: Recorder | None = None


def start(directory: Path, slot: str) -> Recorder:
    """Start to record the metrics of this process."""
    global _recorder  # noqa: PLW0603 - one for each process
    _recorder = Recorder(directory, slot)
    return _recorder


def stop() -> None:
    """Stop recording."""
    global _recorder  # noqa: PLW0603 - one for each process
    _recorder = None


def recorder() -> Recorder | None:
    """Return the recorder of this process, or None if METRICS_PORT is 0."""
    return _recorder


def count(name: str, *labels: str, by: float = 1) -> None:
    """Add to a counter, if this process records metrics."""
    if _recorder is not None:
        _recorder.count(name, *labels, by=by)
