"""The pure parts of delivery: when it is tried again, how it is signed, what an answer means, and
what the receiver is told."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from app.models.delivery import DeliveryKind
from app.settings import Settings
from app.sync.answers import LONGEST_ANSWER, Health, unreached, verdict_of
from app.sync.breaker import receiver_name
from app.sync.claims import Claimed, Source
from app.sync.event import EventMaker
from app.sync.schedule import JITTER, pause_before, probe_pause
from app.sync.signing import Signer, id_of_batch, id_of_email

EMAIL = UUID("0d2f4a9e-9d5b-4e7c-8a55-3d4e5c6b7a89")
TOKEN = UUID(int=1)
SECRETS = ["whsec_" + "A" * 43 + "=", "whsec_" + "B" * 43 + "="]
AT = datetime(2026, 11, 26, 9, 30, tzinfo=UTC)
ROW: dict[str, Any] = {
    "processing_status": "completed",
    "processing_error": None,
    "zendesk_ticket_id": "35436",
    "ticket_number": 2,
    "zendesk_account_id": None,
    "zendesk_comment_id": None,
    "idempotency_key": "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef",
    "origin": "webhook",
    "from_email": "erika@example.com",
    "from_name": "Erika",
    "subject": "Päckchen",
    "received_at": AT,
    "completed_at": AT + timedelta(seconds=2),
    "is_erased": False,
    "bodies_removed_at": None,
    "cleaned_body": "Wo bleibt es?",
    "body_text": "Wo bleibt es?\n-- \nErika",
    "body_html": "<p>Wo bleibt es?</p>",
    "extracted_data": '{"order": 7}',
    "files": json.dumps(
        [
            {"position": 0, "filename": "a.pdf", "content_type": None, "state": "kept"},
            {"position": 1, "filename": "b.exe", "content_type": None, "state": "flagged"},
        ]
    ),
    **{f"is_long_{name}": False for name in ("cleaned_body", "body_text", "body_html")},
    "is_long_extracted_data": False,
}


def claimed(**columns: Any) -> Claimed:
    row: Any = {**ROW, **columns}
    return Claimed(Source.EMAILS, EMAIL, TOKEN, 3, 0, False, row)


def make(settings: dict[str, Any] | None = None, **columns: Any) -> tuple[EventMaker, Any]:
    maker = EventMaker(Settings(**(settings or {})))
    event = maker.make(claimed(**columns))
    return maker, json.loads(maker.encode(event))


def test_each_pause_is_the_schedules_own_give_or_take_a_fifth_until_none_is_left() -> None:
    pauses = [0.0, 5.0, 300.0]
    for failed, expected in enumerate(pauses):
        for _ in range(100):
            pause = pause_before(pauses, failed)
            assert pause is not None
            assert abs(pause.total_seconds() - expected) <= expected * JITTER
    assert pause_before(pauses, 3) is None
    assert len({pause_before(pauses, 2) for _ in range(10)}) > 1


def test_the_pauses_between_probes_double_up_to_sixty_times() -> None:
    seconds = [probe_pause(5, failed).total_seconds() for failed in (0, 1, 2, 5, 6, 10_000)]
    assert seconds == [5, 10, 20, 160, 300, 300]


def test_a_delivery_is_signed_with_every_secret() -> None:
    body = '{"subject":"Päckchen"}'
    headers = Signer(SECRETS).headers("email_1", body)
    assert len(headers["webhook-signature"].split(" ")) == 2
    for secret in SECRETS:
        assert Webhook(secret).verify(body.encode(), headers) == json.loads(body)
    with pytest.raises(WebhookVerificationError):
        Webhook("whsec_" + "C" * 43 + "=").verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRETS[0]).verify(body.replace("P", "p"), headers)


def test_an_id_is_of_the_email_and_its_result_and_that_of_a_batch_of_those_in_it() -> None:
    assert id_of_email(EMAIL, 3) == f"email_{EMAIL.hex}_3"
    assert id_of_batch(["a", "b"]) == id_of_batch(["a", "b"])
    assert len({id_of_batch(ids) for ids in (["a", "b"], ["b", "a"], ["a"], ["ab"])}) == 4


@pytest.mark.parametrize(
    ("status", "health", "counts", "slows"),
    [
        (301, Health.UP, True, False),
        (400, Health.UP, True, False),
        (401, Health.UP, True, False),
        (404, Health.UP, True, False),
        (408, Health.DOWN, True, False),
        (410, Health.GONE, False, False),
        (422, Health.UP, True, False),
        (429, Health.DOWN, False, True),
        (500, Health.DOWN, True, False),
        (502, Health.DOWN, True, True),
        (503, Health.DOWN, True, False),
        (504, Health.DOWN, True, True),
    ],
)
def test_every_answer_but_2xx_is_a_failure(
    status: int, health: Health, counts: bool, slows: bool
) -> None:
    verdict = verdict_of(status, "x" * 10_000, None)
    assert not verdict.is_delivered
    assert (verdict.health, verdict.counts, verdict.slows_down) == (health, counts, slows)
    assert verdict.error is not None
    assert str(status) in verdict.error
    assert verdict.error.count("x") <= LONGEST_ANSWER + 1


def test_each_failure_has_a_kind_for_the_metrics() -> None:
    kinds = {status: verdict_of(status, "", None).kind for status in (200, 302, 404, 410, 429)}
    assert kinds == {200: None, 302: "redirected", 404: "refused", 410: "gone", 429: "busy"}
    assert [verdict_of(status, "", None).kind for status in (500, 502, 503, 504)] == [
        *("broken", "busy", "broken", "busy")
    ]
    assert unreached("no answer").kind == "unreached"


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_2xx_is_delivered(status: int) -> None:
    assert verdict_of(status, "ignored", None).is_delivered


def test_the_receiver_is_told_of_an_email() -> None:
    _, body = make({"public_url": "https://mail.example.com/m/"})
    link = f"https://mail.example.com/m/api/v1/jobs/{EMAIL}"
    assert (body["type"], body["id"]) == ("email.completed", f"email_{EMAIL.hex}_3")
    assert body["timestamp"] == "2026-11-26T09:30:02Z"
    data = body["data"]
    assert (data["id"], data["version"], data["ticket_number"]) == (str(EMAIL), 3, 2)
    assert data["extracted_data"] == {"order": 7}
    assert data["body_html"] == ROW["body_html"]
    assert data["left_out"] == []
    assert [file["url"] for file in data["attachments"]] == [f"{link}/attachments/0", None]
    assert data["url"] == link


def test_as_a_cloud_event_it_has_the_attributes_of_the_specification() -> None:
    _, body = make({"sync_format": "cloudevents"})
    assert body["specversion"] == "1.0"
    assert body["type"] == "mailroom.email.completed"
    assert body["subject"] == str(EMAIL)
    assert body["time"] == "2026-11-26T09:30:02Z"
    assert body["data"]["subject"] == "Päckchen"


def test_a_failed_email_says_why() -> None:
    _, body = make(processing_status="failed", processing_error="no such order")
    assert (body["type"], body["data"]["error"]) == (DeliveryKind.FAILED, "no such order")


def test_texts_are_left_out_until_the_body_fits_and_named() -> None:
    maker, body = make(
        {"sync_max_bytes": 4_096}, body_html="<p>" * 1_500, body_text="x" * 3_000, cleaned_body="y"
    )
    assert body["data"]["left_out"] == ["body_html"]
    assert (body["data"]["body_html"], body["data"]["body_text"]) == (None, "x" * 3_000)
    event = maker.make(claimed(body_text="x" * 3_000, body_html="y" * 3_000))
    assert len(maker.encode(event).encode()) <= 4_096
    _, body = make(is_long_cleaned_body=True, cleaned_body=None)
    assert body["data"]["left_out"] == ["cleaned_body"]


def test_an_event_is_no_larger_than_set_whatever_its_email_has() -> None:
    name = "ä" * 100_000 + ".pdf"
    file = {"position": 0, "filename": name, "content_type": "x" * 1_000, "state": "kept"}
    _, body = make(files=json.dumps([file]), processing_error="x" * 100_000)
    [told] = body["data"]["attachments"]
    assert (len(told["filename"]), told["filename"][:2]) == (255, "ää")
    assert len(told["content_type"]) == 255
    assert len(body["data"]["error"]) == 2_000
    assert body["data"]["left_out"] == []
    for files in ([file] * 1_000, [{**file, "filename": "a"}] * 1_000):
        _, body = make(
            {"sync_max_bytes": 4_096, "sync_format": "cloudevents"},
            files=json.dumps(files),
            processing_error="€" * 100_000,
        )
        assert (body["data"]["attachments"], body["data"]["error"]) == ([], None)
        assert body["data"]["left_out"] == [
            *("body_html", "body_text", "cleaned_body", "extracted_data", "attachments", "error")
        ]
        assert len(json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()) <= 4_096


def test_where_bodies_are_links_no_text_is_in_it() -> None:
    """They are not fetched, whatever their size."""
    maker, body = make({"sync_bodies": "link"})
    assert (maker.most_body_bytes, maker.most_bytes) == (-1, 256 * 1024)
    assert body["data"]["extracted_data"] == {"order": 7}


def test_a_number_that_json_cannot_hold_costs_the_data_and_not_the_delivery() -> None:
    _, body = make(extracted_data='{"huge": 1e999}')
    assert body["data"]["extracted_data"] is None
    assert body["data"]["left_out"] == ["extracted_data"]


def test_the_name_of_a_receiver_holds_nothing_secret_and_tells_two_apart() -> None:
    names = [
        receiver_name(Settings(sync_url=url, sync_secrets=SECRETS[0]))
        for url in ("https://crm.example.com/in?key=s3cret", "https://crm.example.com/in?key=other")
    ]
    assert all(name.startswith("crm.example.com ") and "s3cret" not in name for name in names)
    assert len(set(names)) == 2
    assert receiver_name(Settings(sync="package.module:function")) == "package.module:function"
