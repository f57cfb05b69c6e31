"""One OpenTelemetry trace for each email, from its webhook to its completion.

It is on where OpenTelemetry's own settings name a place to send traces to
(https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/). The id of an
email serves as the id of its trace, so web and workers need not hand anything on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from uuid import UUID

import structlog
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, TraceFlags

from app.settings import are_traces_wanted

try:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
except ImportError:
    IS_INSTALLED = False
else:
    IS_INSTALLED = True

log = structlog.get_logger(__name__)

SPAN_ID_MASK = (1 << 64) - 1
SERVICE_NAME = "mailroom"


def start_tracing() -> None:
    """Send traces if OpenTelemetry's settings ask for it. Call it after the process was forked."""
    if not are_traces_wanted():
        return
    if not IS_INSTALLED:
        log.warning("traces_not_sent", mend="pip install 'mailroom[otel]'")
        return
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before ours.
    resource = Resource.create({"service.name": SERVICE_NAME})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def stop_tracing() -> None:
    """Send what was not sent yet."""
    if _is_on():
        trace.get_tracer_provider().shutdown()  # type: ignore[attr-defined]


@contextmanager
def span(name: str, email_id: UUID, kind: SpanKind) -> Iterator[trace.Span]:
    """A span in the trace of an email. Errors are marked and not described: they may hold PII."""
    if not _is_on():
        # Most run without traces, and the webhook's path is hot.
        yield trace.INVALID_SPAN
        return
    parent = SpanContext(
        trace_id=email_id.int,
        span_id=email_id.int & SPAN_ID_MASK,
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
    )
    with trace.get_tracer(SERVICE_NAME).start_as_current_span(
        name,
        context=trace.set_span_in_context(NonRecordingSpan(parent)),
        kind=kind,
        attributes={"mailroom.email_id": str(email_id)},
        record_exception=False,
        set_status_on_exception=False,
    ) as begun:
        yield begun


def _is_on() -> bool:
    return IS_INSTALLED and isinstance(trace.get_tracer_provider(), TracerProvider)
