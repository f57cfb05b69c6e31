"""Suspended mail as Zendesk writes it, and which of it a rule means."""

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from support import make_settings
from zendesk.account import Account
from zendesk.suspended_api import suspend, suspended

from app.setting_groups.suspension import RecoverRule, cause_name
from app.zendesk.suspended.api import read_suspended


def test_it_is_read_with_the_real_sender_and_the_day_of_its_deletion() -> None:
    account = Account()
    at = datetime(2026, 11, 20, 8, tzinfo=UTC)
    number = suspend(account, "erika@example.com", cause=(10, "Permission denied"), at=at)
    raw = suspended(account)[number]
    raw["author"]["email"] = "list@example.com"
    found = read_suspended(raw)
    assert found is not None
    assert (found.id, found.cause, found.sender) == (number, "unknown_author", "erika@example.com")
    assert found.deleted_at == at + timedelta(days=14)
    assert found.raw == raw


@pytest.mark.parametrize(
    "odd",
    [
        {"author": None, "via": None},
        {"via": {"source": {"from": []}}, "author": {"email": 7}},
        {"subject": None, "cause": [], "cause_id": "spam"},
        {"created_at": "yesterday", "ticket_id": "7"},
        {"created_at": None, "attachments": "none"},
        {"subject": "half \ud800 and \x00"},
    ],
)
def test_what_is_written_in_an_odd_way_is_empty_and_all_else_is_read(odd: dict[str, Any]) -> None:
    account = Account()
    number = suspend(account, "erika@example.com")
    found = read_suspended({**suspended(account)[number], **odd})
    assert found is not None
    assert found.id == number
    for name in ("sender", "subject", "cause", "cause_text"):
        assert "\x00" not in getattr(found, name)


def test_digits_in_a_text_are_an_id() -> None:
    found = read_suspended({"id": "435", "ticket_id": "7"})
    assert found is not None
    assert (found.id, found.ticket_id) == (435, 7)


@pytest.mark.parametrize(
    "raw", [None, [], {}, {"id": "435a"}, {"id": True}, {"id": 2**63}, {"id": "9" * 20}]
)
def test_without_an_id_it_is_nothing_that_could_be_asked_for(raw: Any) -> None:
    assert read_suspended(raw) is None


@pytest.mark.parametrize(
    ("text", "cause", "sender", "fits"),
    [
        ("spam", "spam", "erika@example.com", True),
        ("spam", "loop", "erika@example.com", False),
        ("10", "unknown_author", "erika@example.com", True),
        ("99", "99", "erika@example.com", True),
        ("unknown_author:*@Example.com", "unknown_author", "Erika@EXAMPLE.com", True),
        ("unknown_author:*@example.com", "unknown_author", "erika@evil-example.com", False),
        ("*:erika@example.com", "spam", "erika@example.com", True),
        ("*:erika@example.com", "spam", "max@example.com", False),
        # A sender is easily forged.
        ("*:erika@example.com", "malware_detected", "erika@example.com", False),
        ("*:erika@example.com", "failed_email_authentication", "erika@example.com", False),
        ("malware_detected:*@example.com", "malware_detected", "erika@example.com", True),
    ],
)
def test_a_rule_means_a_cause_and_a_sender(text: str, cause: str, sender: str, fits: bool) -> None:
    assert RecoverRule.parse(text).fits(cause, sender) is fits


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("*", "recovers all spam"),
        ("*:*", "recovers all spam"),
        ("spma", "'spma' is no cause: write one of spam, not_on_whitelist"),
        ("spam:example.com", "names no sender"),
        ("spam:*example.com", "names no sender"),
    ],
)
def test_a_rule_that_means_nothing_or_all_is_refused(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        make_settings(suspended_recover=text)


def test_a_cause_that_zendesk_adds_is_known_by_its_number() -> None:
    assert [cause_name(number) for number in (0, 25, 31, None)] == [
        "spam",
        "malware_detected",
        "31",
        "unknown",
    ]
