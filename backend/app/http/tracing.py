"""Traces with OpenTelemetry, through FastAPI's own support. They are off by default.

A trace has a span of the request. Routes that FastAPI handles itself (app.http.reads) also have
spans of dependencies, the handler and the serialization. Spans contain no query strings and no
tokens of previews.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from app import __version__
from app.core.config import Settings
from app.core.logging import get_logger, public_path

if TYPE_CHECKING:
    from fastapi.telemetry import TelemetryConfig

logger = get_logger(__name__)

OFF: TelemetryConfig = {"tracing": False, "metrics": False, "logs": False}
"""Only the main application has telemetry: it covers the applications in it."""


def telemetry(settings: Settings) -> TelemetryConfig:
    """Return the configuration of FastAPI: traces if OTEL_EXPORTER_OTLP_ENDPOINT is set."""
    endpoint = settings.otel_exporter_otlp_endpoint
    if endpoint is None:
        return OFF
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415 - optional
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415 - optional
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - optional
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415 - optional
    except ImportError:
        logger.warning(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but the packages for traces are not installed:"
            " use an image with BACKEND_REQUIREMENTS=tracing"
        )
        return OFF
    resource = Resource.create(
        {"service.name": settings.otel_service_name, "service.version": __version__}
    )
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(_redaction())
    # The processor starts a thread in each worker, and drops spans if the collector is slow.
    exporter = OTLPSpanExporter(endpoint=f"{endpoint.removesuffix('/')}/v1/traces", timeout=5)
    provider.add_span_processor(BatchSpanProcessor(exporter))
    return {
        **OFF,
        "tracing": True,
        "tracer_provider": provider,
        "exclude": lambda scope: scope["path"].startswith("/health"),
    }


def _redaction() -> Any:
    """Return a processor that removes secrets and texts from a span before it is recorded."""
    from opentelemetry.sdk.trace import Span, SpanProcessor  # noqa: PLC0415 - optional

    class Redaction(SpanProcessor):
        def on_start(self, span: Span, parent_context: Any = None) -> None:
            attributes = span.attributes or {}
            if "url.query" in attributes:
                span.set_attribute("url.query", "***")
            path = attributes.get("url.path")
            if isinstance(path, str):
                span.set_attribute("url.path", public_path(path))

    return Redaction()


def current_trace_id() -> str | None:
    """Return the id of the trace of this request, if it is traced."""
    from opentelemetry.trace import get_current_span  # noqa: PLC0415 - FastAPI has imported it

    context = get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else None
