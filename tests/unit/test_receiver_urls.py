"""Which addresses of a receiver are refused at the start, and with which mend."""

from typing import Any

import pytest
from pydantic import ValidationError
from support import make_settings

SECRETS = "whsec_" + "bWFpbHJvb20tdGVzdHMtYXJlLXNpZ25lZC1ieS10aGlz"
GOOD = "https://crm.example.com/mailroom"


def make(**values: Any) -> Any:
    return make_settings(sync_secrets=SECRETS, **values)


@pytest.mark.parametrize("name", ["sync_url", "sync_check_url"])
@pytest.mark.parametrize(
    ("url", "mend"),
    [
        ("http://crm.example.com/mailroom", "has to begin with https://"),
        ("https://erika:secret@crm.example.com/", "MAILROOM_SYNC_SECRETS"),
        ("https://crm.example.com/#part", "never sent"),
        ("ftp://crm.example.com/", "https://crm.example.com/mailroom"),
        ("crm.example.com", "https://crm.example.com/mailroom"),
    ],
)
def test_an_address_that_cannot_be_meant_is_refused_by_the_name_of_its_setting(
    name: str, url: str, mend: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        make(**{"sync_url": GOOD, name: url})
    assert f"MAILROOM_{name.upper()}" in str(refused.value)
    assert mend in str(refused.value)
    assert "secret@" not in str(refused.value)


def test_what_is_near_or_named_may_go_without_encryption() -> None:
    near = "http://127.0.0.1:9000/"
    assert make(sync_url=near, sync_check_url=near).delivers
    production = {"env": "production", "database_url": "postgresql://x@db/x", "api_token": "t" * 24}
    with pytest.raises(ValidationError, match="MAILROOM_SYNC_URL"):
        make(**production, sync_url=near)
    named = "http://crm.internal:8080"
    make(sync_url=GOOD, sync_check_url=f"{named}/has", outbound_internal_hosts=named)


def test_a_list_of_what_was_never_delivered_is_of_no_use() -> None:
    with pytest.raises(ValidationError, match="MAILROOM_SYNC_CHECK_URL is of use only beside"):
        make(sync_check_url=GOOD)


def test_a_pause_before_the_first_try_is_refused_since_there_is_none() -> None:
    with pytest.raises(ValidationError, match="has to begin with 0"):
        make(sync_url=GOOD, sync_retry_seconds="60,300")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("sync_retry_seconds", "0,1e13"),
        ("sync_retry_seconds", "0,nan"),
        ("sync_timeout_seconds", "inf"),
        ("sync_breaker_seconds", "inf"),
        ("sync_breaker_failures", "99999999999"),
        ("sync_max_bytes", "99999999999"),
        ("prune_every_seconds", "inf"),
    ],
)
def test_what_no_clock_or_column_can_hold_is_refused_by_the_name_of_its_setting(
    name: str, value: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        make(**{"sync_url": GOOD, name: value})
    assert name in str(refused.value).lower()
