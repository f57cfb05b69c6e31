"""A receipt says what was received and what became of it, and cannot be changed unnoticed."""

import copy
import hashlib
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from click.testing import CliRunner
from support import SECRET, email, make_settings

from app.api.receipt import ReceiptError, make_receipt, verify_receipt
from app.cli import receipt as command
from app.intake.intake import Intake
from app.intake.signature import sign
from app.setting_groups.secrets import parse_secrets

SETTINGS = make_settings(
    webhook_secrets=parse_secrets(f"old:another secret that is long,2026-11:{SECRET}")
)


async def received(pool: Any, body: bytes) -> tuple[Any, str]:
    """The id of an email that came just now, and when Zendesk signed it."""
    timestamp = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    intake = Intake(SETTINGS, pool)
    try:
        admission = await intake.admit(
            body,
            email_id=uuid4(),
            signature=sign(SECRET, timestamp, body),
            timestamp=timestamp,
            invocation_id=None,
        )
    finally:
        await intake.close()
    return admission.email_id, timestamp


@pytest.mark.parametrize(
    "body",
    [
        json.dumps(email(subject="Wo bleibt mein Päckchen?"), indent=3).encode(),
        b'{"ticket_id": "1", "from_email": "kim@example.org", "subject": "say "yes""}',
    ],
)
async def test_it_has_the_hash_of_the_bytes_and_the_secret_that_signed_them(
    pool: Any, body: bytes
) -> None:
    email_id, timestamp = await received(pool, body)
    made = await make_receipt(pool, email_id, SETTINGS)
    assert made["sha256"] == hashlib.sha256(body).hexdigest()
    assert made["bytes"] == len(body)
    assert (made["signed_at"], made["secret"]) == (timestamp, "2026-11")
    assert made["steps"][0]["what"] == "stored durably, before it was answered 200"
    assert "example.org" not in json.dumps(made)
    verify_receipt(json.loads(json.dumps(made)), SETTINGS)


async def test_it_has_each_step_and_who_did_it(pool: Any) -> None:
    email_id, _ = await received(pool, json.dumps(email()).encode())
    await pool.execute(
        "UPDATE incoming_emails SET processing_status = 'completed', claimed_by = 'worker-7',"
        " queued_at = now() + interval '1 second', started_at = now() + interval '2 seconds',"
        " completed_at = now() + interval '3 seconds', synced_at = now() + interval '4 seconds'"
        " WHERE id = $1",
        email_id,
    )
    made = await make_receipt(pool, email_id, SETTINGS)
    assert [(step["what"], step["by"]) for step in made["steps"][1:]] == [
        ("queued", None),
        ("claimed by a worker", "worker-7"),
        ("completed", "worker-7"),
        ("delivered to the receiver", None),
    ]


async def test_whatever_is_changed_in_it_is_noticed(pool: Any) -> None:
    email_id, _ = await received(pool, json.dumps(email()).encode())
    made = await make_receipt(pool, email_id, SETTINGS)
    for name in set(made) - {"format", "steps"}:
        with pytest.raises(ReceiptError):
            verify_receipt({**made, name: "other"}, SETTINGS)
    for name in ("at", "what", "by", "hash"):
        changed = copy.deepcopy(made)
        changed["steps"][0][name] = "other"
        with pytest.raises(ReceiptError):
            verify_receipt(changed, SETTINGS)
    with pytest.raises(ReceiptError, match="its signature"):
        verify_receipt({**made, "steps": []}, SETTINGS)
    with pytest.raises(ReceiptError, match="another MAILROOM_RECEIPT_KEY"):
        verify_receipt(made, make_settings(receipt_key="of another Mailroom"))


@pytest.mark.parametrize(
    "receipt", [None, [], {}, {"format": "mailroom receipt 1"}, {"steps": 1}, "text"]
)
def test_what_is_no_receipt_is_told(receipt: Any) -> None:
    with pytest.raises(ReceiptError):
        verify_receipt(receipt, SETTINGS)


@pytest.mark.parametrize("step", [None, 1, "text", [], {"hash": 1}])
def test_a_receipt_with_odd_steps_is_told(step: Any) -> None:
    with pytest.raises(ReceiptError):
        verify_receipt({"format": "mailroom receipt 1", "steps": [step]}, SETTINGS)


async def test_the_command_verifies_a_file(
    pool: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    email_id, _ = await received(pool, json.dumps(email()).encode())
    made = await make_receipt(pool, email_id, SETTINGS)
    monkeypatch.setattr(command, "get_settings", lambda: SETTINGS)
    file = tmp_path / "receipt.json"
    file.write_text(json.dumps(made))
    result = CliRunner().invoke(command.receipt, ["--verify", str(file)])
    assert result.exit_code == 0, result.output
    assert f"email {email_id} was stored" in result.output
    file.write_text(json.dumps({**made, "ticket": "2"}))
    with pytest.raises(ReceiptError):
        CliRunner().invoke(command.receipt, ["--verify", str(file)], catch_exceptions=False)
    with pytest.raises(ReceiptError, match="there is no email"):
        await make_receipt(pool, uuid4(), SETTINGS)
