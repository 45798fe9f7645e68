"""Traces: off by default, without secrets, and their id in the log."""

import builtins
import json
from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from app.core.config import Environment, Settings
from app.core.logging import configure_logging
from app.http import tracing
from tests.http.test_middleware import Clients, client_of

__all__ = ["client_of"]

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
COLLECTOR = "http://collector.example.com:4318"


class Collected(SpanExporter):
    def __init__(self) -> None:
        self.spans: list[ReadableSpan] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.spans.extend(spans)
        return SpanExportResult.SUCCESS


@pytest.fixture
def collected(monkeypatch: pytest.MonkeyPatch) -> Collected:
    """Collect spans at once, instead of sending them in the background."""
    from opentelemetry.exporter.otlp.proto.http import trace_exporter
    from opentelemetry.sdk.trace import export

    collected = Collected()
    monkeypatch.setattr(trace_exporter, "OTLPSpanExporter", lambda **options: collected)
    monkeypatch.setattr(export, "BatchSpanProcessor", export.SimpleSpanProcessor)
    return collected


async def test_spans_contain_no_secrets_and_no_texts(
    client_of: Clients, collected: Collected
) -> None:
    async with client_of(otel_exporter_otlp_endpoint=COLLECTOR) as client:
        headers = {"traceparent": PARENT, "Authorization": "Bearer secret-token"}
        await client.get("/search", params={"q": "private words"}, headers=headers)
        await client.get("/previews/prv_secrettoken", headers=headers)
        await client.post("/auth/login", data={"username": "someone", "password": "hidden"})
        await client.get("/health/live", headers=headers)
    servers = [each for each in collected.spans if each.kind.name == "SERVER"]
    assert servers[0].name == "GET /search"
    assert len(servers) == 3  # not /health
    context = servers[0].context
    assert context is not None
    assert f"{context.trace_id:032x}" == TRACE
    text = "".join(each.to_json() for each in collected.spans)
    for secret in ("private", "secret", "hidden", "someone"):
        assert secret not in text
    assert "/previews/***" in text


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"traceparent": PARENT}, TRACE),
        ({}, None),
        ({"traceparent": PARENT.upper()}, None),
        ({"traceparent": f"00-{'0' * 32}-00f067aa0ba902b7-01"}, None),
        ({"traceparent": f"{PARENT}x"}, None),
        ({"traceparent": "x" * 5000}, None),
    ],
)
async def test_log_lines_have_the_trace_id_also_without_traces(
    client: httpx.AsyncClient,
    capsys: pytest.CaptureFixture[str],
    settings: Settings,
    headers: Mapping[str, str],
    expected: str | None,
) -> None:
    configure_logging(settings.model_copy(update={"environment": Environment.PRODUCTION}))
    capsys.readouterr()
    await client.get("/articles/999", headers=headers)
    lines = [json.loads(each) for each in capsys.readouterr().out.splitlines() if each[:1] == "{"]
    line = next(each for each in lines if each.get("path") == "/articles/999")
    assert line.get("trace_id") == expected


async def test_traced_requests_have_a_trace_id_of_their_own(
    client_of: Clients,
    collected: Collected,
    capsys: pytest.CaptureFixture[str],
    settings: Settings,
) -> None:
    async with client_of(otel_exporter_otlp_endpoint=COLLECTOR) as client:
        configure_logging(settings.model_copy(update={"environment": Environment.PRODUCTION}))
        await client.get("/articles/998")
    context = next(each.context for each in collected.spans if each.kind.name == "SERVER")
    assert context is not None
    assert f'"trace_id": "{context.trace_id:032x}"' in capsys.readouterr().out


def test_missing_packages_are_one_sentence(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    find = builtins.__import__

    def without_sdk(name: str, *arguments: Any, **options: Any) -> Any:
        if name.startswith("opentelemetry.exporter"):
            raise ImportError(name)
        return find(name, *arguments, **options)

    configure_logging(settings)
    monkeypatch.setattr(builtins, "__import__", without_sdk)
    changed = settings.model_copy(update={"otel_exporter_otlp_endpoint": COLLECTOR})
    assert tracing.telemetry(changed) == tracing.OFF
    monkeypatch.undo()
    assert "BACKEND_REQUIREMENTS=tracing" in capsys.readouterr().out


def test_traces_are_off_by_default(settings: Settings) -> None:
    assert tracing.telemetry(settings) == tracing.OFF
