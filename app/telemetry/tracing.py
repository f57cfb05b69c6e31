"""One OpenTelemetry trace for each email, from its webhook to its completion.

It is on where OpenTelemetry's own settings name a place to send traces to
(https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/). The id of an
email serves as the id of its trace, so web and workers need not hand anything on.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from uuid import UUID

import structlog
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.trace import SpanKind

from app.settings import are_traces_wanted

IS_INSTALLED = False
# Most run without traces, and the SDK takes a tenth of the time in which a process starts.
if are_traces_wanted():
    with suppress(ImportError):
        from opentelemetry.sdk.trace import TracerProvider

        from app.telemetry.tracing_sdk import in_trace_of, make_provider

        IS_INSTALLED = True

log = structlog.get_logger(__name__)

SERVICE_NAME = "mailroom"


def start_tracing() -> None:
    """Send traces if OpenTelemetry's settings ask for it. Call it after the process was forked."""
    if not are_traces_wanted():
        return
    if not IS_INSTALLED:
        log.warning("traces_not_sent", mend="pip install 'mailroom[otel]'")
        return
    trace.set_tracer_provider(make_provider(SERVICE_NAME))


def stop_tracing() -> None:
    """Send what was not sent yet."""
    if _is_on():
        trace.get_tracer_provider().shutdown()  # type: ignore[attr-defined]


# Most run without traces, and the webhook's path is hot.
_NO_SPAN = nullcontext(trace.INVALID_SPAN)


def span(name: str, email_id: UUID, kind: SpanKind) -> AbstractContextManager[trace.Span]:
    """A span in the trace of an email. Errors are marked and not described: they may hold PII."""
    return _span(name, email_id, kind) if _is_on() else _NO_SPAN


@contextmanager
def _span(name: str, email_id: UUID, kind: SpanKind) -> Iterator[trace.Span]:
    tracer = trace.get_tracer(SERVICE_NAME)
    # A root of the trace in each process: a worker cannot know whether the webhook's span was
    # exported, and a parent would decide instead of the sampler.
    with in_trace_of(email_id):
        begun = tracer.start_span(
            name,
            context=Context(),
            kind=kind,
            attributes={"mailroom.email_id": str(email_id)},
        )
    with trace.use_span(
        begun, end_on_exit=True, record_exception=False, set_status_on_exception=False
    ):
        yield begun


def _is_on() -> bool:
    return IS_INSTALLED and isinstance(trace.get_tracer_provider(), TracerProvider)
