"""The part of the traces that needs OpenTelemetry's SDK, which is an extra."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from uuid import UUID

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState
from opentelemetry.util.types import Attributes

_email_id: ContextVar[UUID | None] = ContextVar("email_id", default=None)

# RFC 9562: a UUID's last 8 bytes begin with two bits that are the same in all.
VARIANT_BITS = 2


@contextmanager
def in_trace_of(email_id: UUID) -> Iterator[None]:
    """Spans without a parent that begin meanwhile belong to the trace of this email."""
    token = _email_id.set(email_id)
    try:
        yield
    finally:
        _email_id.reset(token)


def make_provider(service_name: str) -> TracerProvider:
    """What makes spans and sends them, as OpenTelemetry's settings say."""
    # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES go before ours.
    resource = Resource.create({"service.name": service_name})
    provider = TracerProvider(resource=resource, id_generator=_EmailIds())
    provider.sampler = _EvenSampler(provider.sampler)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class _EmailIds(RandomIdGenerator):
    def generate_trace_id(self) -> int:
        email_id = _email_id.get()
        return super().generate_trace_id() if email_id is None else email_id.int


class _EvenSampler(Sampler):
    """The sampler of the settings, asked so that it takes the share of emails that it should.

    The one by ratio compares the last 8 bytes of a trace's id with a bound. Those of our ids begin
    all the same, so it would take nearly all of them or none.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        even = trace_id << VARIANT_BITS
        return self._sampler.should_sample(
            parent_context, even, name, kind, attributes, links, trace_state
        )

    def get_description(self) -> str:
        return self._sampler.get_description()
