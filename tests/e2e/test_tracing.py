"""Traces as a collector gets them: one for each email, from its webhook to its completion."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from uuid import UUID

import httpx
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from support import Services, email, signed, wait_until

from app.intake.openapi import WEBHOOK_PATH

EMAILS = 28


class Collector(ThreadingHTTPServer):
    """Takes traces by OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        super().__init__(("127.0.0.1", 0), Receive)


class Receive(BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        sent = ExportTraceServiceRequest.FromString(body)
        for resource in sent.resource_spans:
            for scope in resource.scope_spans:
                self.server.spans.extend(scope.spans)
        self.send_response(200)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_the_trace_of_an_email_leads_from_its_webhook_to_its_end(
    services: Services, collector: Collector
) -> None:
    services.write_handler(
        "async def handle(email):\n"
        "    if email.zendesk_ticket_id == '2':\n"
        "        raise ValueError(email.from_email)\n"
    )
    services.environment |= {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "OTEL_BSP_SCHEDULE_DELAY": "200",
        "MAILROOM_MAX_RETRIES": "0",
    }
    services.start_web()
    services.start_worker()
    url = f"{services.url}{WEBHOOK_PATH}"
    ids = [
        UUID(httpx.post(url, **signed(email(ticket_id=ticket))).json()["email_id"])
        for ticket in ("1", "2")
    ]
    expected = {
        (email_id, name) for email_id in ids for name in ("receive webhook", "process email")
    }

    def found() -> dict[tuple[UUID, str], Span]:
        return {(UUID(bytes=span.trace_id), span.name): span for span in collector.spans}

    wait_until(lambda: expected <= set(found()), services.log)
    spans = found()
    failed = spans[(ids[1], "process email")]
    assert failed.status.code == failed.status.STATUS_CODE_ERROR
    assert not failed.events
    assert "example.com" not in str(collector.spans)
    assert spans[(ids[0], "process email")].status.code != failed.status.STATUS_CODE_ERROR
    assert not [span for span in collector.spans if span.parent_span_id]


@pytest.mark.parametrize(
    ("sampler", "share"),
    [("parentbased_traceidratio", 0), ("parentbased_traceidratio", 0.5), ("traceidratio", 0.5)],
)
def test_the_sampler_takes_its_share_of_emails_in_web_and_worker_alike(
    services: Services, collector: Collector, sampler: str, share: float
) -> None:
    services.environment |= {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.server_port}",
        "OTEL_TRACES_SAMPLER": sampler,
        "OTEL_TRACES_SAMPLER_ARG": str(share),
    }
    services.start_web()
    services.start_worker()
    for _ in range(EMAILS):
        httpx.post(f"{services.url}{WEBHOOK_PATH}", **signed(email())).raise_for_status()
    jobs, headers = f"{services.url}/api/v1/jobs/counts", {"Authorization": "Bearer token"}
    wait_until(
        lambda: httpx.get(jobs, headers=headers).json()["completed"]["emails"] == EMAILS,
        services.log,
    )
    # What was not sent yet is sent now.
    services.end()
    by_name: dict[str, set[bytes]] = {"receive webhook": set(), "process email": set()}
    for span in collector.spans:
        by_name[span.name].add(span.trace_id)
    received, processed = by_name.values()
    assert received == processed
    if share:
        # That a fair sampler takes none or all of them happens once in a hundred million runs.
        assert 0 < len(received) < EMAILS
    else:
        assert not received
