"""Queries of dashboards and rules, and what Prometheus answers. Requires no packages."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from containers import ROOT
from smoke import SmokeError, require

DASHBOARDS = ROOT / "observe" / "grafana" / "dashboards"
JOBS = {"backend", "nginx", "nginx-log", "postgres", "prometheus"}
OPTIONAL = {
    "pressroom_certificate_expiry_timestamp_seconds",
    "pressroom_database_replication_lag_seconds",
    "pressroom_limited_requests_total",
    "pressroom_live_closed_total",
    "pressroom_live_connections",
    "pressroom_live_delay_seconds_bucket",
    "pressroom_live_listen_gap_seconds",
    "pressroom_webhook_attempts_total",
}
"""Metrics of what a new installation does not have: a replica, TLS, a refused request, streams."""
_NAME = re.compile(r"\b(?:up|(?:pressroom|pg|nginx|mtail)[_:][a-z0-9_:]+)\b(?!\s*=)")
_STRING = re.compile(r'"[^"]*"')


class Query(NamedTuple):
    """A query of a panel, and the template of its legend."""

    expression: str
    legend: str


class Panel(NamedTuple):
    """A panel of a dashboard: its place in a grid of 24 columns, and its queries."""

    title: str
    unit: str
    x: int
    y: int
    width: int
    height: int
    queries: list[Query]


def dashboards() -> dict[str, Path]:
    """Return the files of the dashboards by name."""
    return {path.stem: path for path in sorted(DASHBOARDS.glob("*.json"))}


def panels(path: Path) -> Iterator[Panel]:
    """Yield the panels of a dashboard. A row has no queries."""
    for panel in json.loads(path.read_text(encoding="utf-8"))["panels"]:
        place = panel["gridPos"]
        yield Panel(
            panel["title"],
            panel.get("fieldConfig", {}).get("defaults", {}).get("unit", ""),
            place["x"],
            place["y"],
            place["w"],
            place["h"],
            [Query(each["expr"], each["legendFormat"]) for each in panel.get("targets", ())],
        )


def names(expression: str) -> set[str]:
    """Return the names of the metrics in a query."""
    return set(_NAME.findall(_STRING.sub('""', expression)))


class Prometheus:
    """A client for the API of a Prometheus server."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get(self, path: str, **parameters: str) -> Any:
        """Return the data of a response. Raises SmokeError if it is an error."""
        query = urllib.parse.urlencode(parameters)
        request = f"{self._url}/api/v1/{path}?{query}"
        try:
            with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 - a fixed scheme
                return json.load(response)["data"]
        except urllib.error.HTTPError as error:
            raise SmokeError(f"{path} {parameters}: {error.read().decode()}") from error

    def targets(self) -> list[tuple[str, str]]:
        """Return the job and the health of each target: `up`, `down` or `unknown`."""
        active = self.get("targets", state="active")["activeTargets"]
        return [(each["labels"]["job"], each["health"]) for each in active]

    def rules(self) -> list[Any]:
        """Return the rules that are loaded."""
        return [rule for group in self.get("rules")["groups"] for rule in group["rules"]]


def check_targets(prometheus: Prometheus, *, replicas: int) -> bool:
    """Return whether all targets are up: each exporter, and each replica of the backend."""
    found = prometheus.targets()
    backends = [job for job, _ in found if job == "backend"]
    return (
        {job for job, _ in found} == JOBS
        and {health for _, health in found} == {"up"}
        and len(backends) == replicas
    )


def check_rules(prometheus: Prometheus) -> None:
    """Check that rules are evaluated, and that every metric they name exists."""
    rules = prometheus.rules()
    alerts = [rule for rule in rules if rule["type"] == "alerting"]
    failed = [rule["name"] for rule in rules if rule["health"] != "ok"]
    require(
        f"{len(alerts)} alerts and {len(rules) - len(alerts)} recording rules are evaluated",
        len(alerts) > 20 and not failed,
        failed,
    )
    found = prometheus.get("query", query="count by (job) (pressroom_job_duration_seconds)")
    jobs = {each["metric"]["job"] for each in found["result"]}
    require("background jobs have their names", {"announcing", "rendering"} <= jobs, jobs)
    _check_names("rules", prometheus, {name for rule in rules for name in names(rule["query"])})


def check_dashboards(prometheus: Prometheus) -> None:
    """Check that every query of the dashboards answers, with data, and names existing metrics."""
    for name, path in dashboards().items():
        queries = [query.expression for panel in panels(path) for query in panel.queries]
        _check_names(f"the dashboard {name}", prometheus, set().union(*map(names, queries)))
        empty = [
            query
            for query in queries
            if not prometheus.get("query", query=query)["result"] and not names(query) & OPTIONAL
        ]
        require(f"{len(queries)} queries of the dashboard {name} have data", not empty, empty)


def _check_names(what: str, prometheus: Prometheus, used: set[str]) -> None:
    missing = used - OPTIONAL - set(prometheus.get("label/__name__/values"))
    require(f"the {len(used)} metrics of {what} exist", bool(used) and not missing, missing)
