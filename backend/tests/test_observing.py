"""Rules, dashboards and runbooks of docker-compose.observe.yml agree, and name existing metrics."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.core import metrics
from app.core.config import PROJECT_DIR

pytestmark = pytest.mark.checkout

OBSERVE = PROJECT_DIR / "observe"
SUFFIXES = ("_bucket", "_count", "_sum")
UNITS = {"Bps", "bytes", "ops", "percentunit", "reqps", "s", "short"}
"""The units that scripts/dashboards.py knows."""


@cache
def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def rules() -> Iterator[dict[str, Any]]:
    for path in sorted((OBSERVE / "rules").glob("*.yml")):
        for group in read(path)["groups"]:
            yield from group["rules"]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}
RECORDED = {rule["record"]: rule["expr"] for rule in rules() if "record" in rule}


def dashboards() -> dict[str, dict[str, Any]]:
    files = (OBSERVE / "grafana" / "dashboards").glob("*.json")
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}


def queries() -> Iterator[str]:
    """Yield all queries of rules and dashboards."""
    yield from RECORDED.values()
    yield from (rule["expr"] for rule in ALERTS.values())
    for dashboard in dashboards().values():
        for panel in dashboard["panels"]:
            yield from (target["expr"] for target in panel.get("targets", ()))


def counted_at_the_edge() -> set[str]:
    program = (OBSERVE / "mtail" / "nginx.mtail").read_text(encoding="utf-8")
    return set(re.findall(r"^(?:counter|histogram) (\w+)", program, flags=re.MULTILINE))


def test_metrics_of_rules_and_dashboards_are_defined() -> None:
    """`make smoke` checks the same with a running Prometheus, and also those of exporters."""
    from observing import names

    used = {name for query in queries() for name in names(query)}
    own = {name for name in used if name.startswith("pressroom_")}
    histograms = {*metrics.HISTOGRAMS, *counted_at_the_edge()}
    defined = {*metrics.COUNTERS, *metrics.GAUGES, *metrics.SHARED, *counted_at_the_edge()} | {
        name + suffix for name in histograms for suffix in SUFFIXES
    }
    assert len(own) > 30
    assert own - defined == set()
    assert {name for name in used if name.startswith("pressroom:")} == RECORDED.keys()


@pytest.mark.parametrize("name", ALERTS)
def test_alert_has_texts_and_a_runbook(name: str) -> None:
    rule = ALERTS[name]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    texts = rule["annotations"]
    assert texts.keys() == {"summary", "description", "runbook_url"}
    assert all(texts.values())
    page = PROJECT_DIR / texts["runbook_url"]
    assert page.parent == PROJECT_DIR / "docs" / "runbooks"
    assert page.is_file()


@pytest.mark.parametrize("name", ALERTS)
def test_alert_has_a_scenario_in_which_it_fires_and_does_not(name: str) -> None:
    """promtool runs the scenarios (tests/edge/test_observe.py)."""
    expression = f'count(ALERTS{{alertname="{name}",alertstate="firing"}})'
    fires = {
        bool(test["exp_samples"])
        for path in (OBSERVE / "tests").glob("*.yml")
        for scenario in read(path)["tests"]
        for test in scenario.get("promql_expr_test", ())
        if test["expr"] == expression
    }
    assert fires == {True, False}


@pytest.mark.parametrize("name", ["service", "postgresql", "content", "integrations"])
def test_dashboard_can_be_provisioned(name: str) -> None:
    dashboard = dashboards()[name]
    source = read(OBSERVE / "grafana/provisioning/datasources/prometheus.yml")["datasources"][0]
    assert dashboard["uid"] == f"pressroom-{name}"
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        if panel["type"] == "row":
            continue
        assert panel["type"] == "timeseries"
        assert panel["title"]
        assert panel["description"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS
        assert panel["targets"]
        for target in panel["targets"]:
            assert target["datasource"] == {"type": source["type"], "uid": source["uid"]}
            assert target["legendFormat"]
    assert (PROJECT_DIR / "docs" / "images" / f"observe-{name}.svg").is_file()


def test_metrics_of_nginx_are_documented() -> None:
    page = (PROJECT_DIR / "docs" / "operations" / "observe.md").read_text(encoding="utf-8")
    assert counted_at_the_edge() == set(re.findall(r"`(pressroom_edge_\w+)", page))
    template = (PROJECT_DIR / "nginx/templates/edge.conf.template").read_text(encoding="utf-8")
    assert re.findall(r"log_format edge_metrics '(.*)';", template) == [
        "$status $edge_x_cache $request_time $bytes_sent $upstream_response_time"
    ]
