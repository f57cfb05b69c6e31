"""What the overview says is wrong: nothing where all is well, and each with its mend."""

import shutil
from collections import namedtuple
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import attrs
import pytest

from app.alerts.alarms import OpenAlarm
from app.desk.banners import banners_of
from app.desk.seen import Figures, Files, OldestWaiting, Quarantined, SuspendedMail, Worker
from app.intake.secret_uses import SecretUse
from app.jobs.chore_rows import Standing
from app.models.delivery import BreakerState
from app.models.incoming_email import ProcessingStatus
from app.sync.counts import Deliveries, Receiver
from app.sync.refusals import Refusal
from app.zendesk.gaps import Gaps
from app.zendesk.outage import Outage

NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
NONE = timedelta(0)
MONTH = timedelta(days=30)
Usage = namedtuple("Usage", "total used free")

DELIVERIES = Deliveries(0, 0, 0, 0, NONE, NONE, Receiver(BreakerState.CLOSED, None, False))
WORKER = Worker("mail-1:7", 4, NOW, NONE, 0)
WELL = Figures(
    at=NOW,
    alarms=[],
    gaps=Gaps([], 0, 0),
    watch=None,
    states=dict.fromkeys(ProcessingStatus, 0),
    waiting_for_retry=0,
    quarantined=Quarantined(0, 0),
    suspended=SuspendedMail(0, 0),
    addresses=None,
    canary=None,
    secrets=[SecretUse("spring", timedelta(days=99), timedelta(minutes=3))],
    outage=Outage(60, 0.0, None, False),
    files=Files(0, NONE, 0, 0),
    deliveries=DELIVERIES,
    failing_chores=[],
    oldest_waiting=None,
    workers=[WORKER],
    failures=[],
    longest_runs=[],
)
DOWN = Receiver(BreakerState.OPEN, "it answered 503", False)
RESTS = Receiver(BreakerState.CLOSED, "503", False, NOW + timedelta(minutes=40))
WANTS_NOTHING = Receiver(BreakerState.CLOSED, "410", True)
ALARM = OpenAlarm(uuid4(), "silence", "", "no email came for 3 h", "see it", NOW, None, None)


def told(home: Path, broker: str = "reachable", **changes: Any) -> list[str]:
    found = banners_of(attrs.evolve(WELL, **changes), home, broker)
    assert all(banner.mend for banner in found)
    return [banner.text for banner in found]


def test_where_all_is_well_nothing_is_said(tmp_path: Path) -> None:
    assert told(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"workers": []}, "No worker runs: emails are stored and wait"),
        (
            {"oldest_waiting": OldestWaiting(uuid4(), timedelta(hours=2))},
            "An email has waited for 2 h",
        ),
        (
            {
                "workers": [
                    WORKER,
                    attrs.evolve(WORKER, name="mail-2:7", silence=timedelta(hours=1)),
                ]
            },
            "1 of the workers fell silent: mail-2:7",
        ),
        (
            {"quarantined": Quarantined(3, 2)},
            "2 webhooks that Zendesk signed are in the quarantine: no email until they are mended",
        ),
        ({"alarms": [ALARM]}, "no email came for 3 h"),
        (
            {"deliveries": attrs.evolve(DELIVERIES, receiver=DOWN)},
            "The receiver of deliveries is down: it answered 503",
        ),
        (
            {"deliveries": attrs.evolve(DELIVERIES, receiver=WANTS_NOTHING)},
            "The receiver of deliveries wants nothing more: 410",
        ),
        (
            {"deliveries": attrs.evolve(DELIVERIES, receiver=RESTS)},
            "The receiver of deliveries asked to be left alone: 503",
        ),
        (
            {"deliveries": attrs.evolve(DELIVERIES, refusal=Refusal("401"), lag=2 * MONTH)},
            "The receiver of deliveries refuses what it is sent: 401",
        ),
        (
            {"deliveries": attrs.evolve(DELIVERIES, lag=timedelta(hours=1))},
            "A delivery is late by 1 h",
        ),
        (
            {"failing_chores": [Standing("prune", 3, "away", None)]},
            "The chore prune failed 3 times in a row: away",
        ),
        (
            {"secrets": [SecretUse("autumn", timedelta(hours=2), None), *WELL.secrets]},
            "The webhook's secret is about to change: nothing is signed with autumn yet, which was "
            "set 2 h ago",
        ),
        (
            {"secrets": [*WELL.secrets, SecretUse("winter", MONTH, MONTH)]},
            "The webhook's secret has changed: nothing was signed with winter for 30 d",
        ),
        (
            {"broker": "not reachable: emails are stored"},
            "The broker is not reachable: emails are stored",
        ),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, changes: dict[str, Any], text: str) -> None:
    assert told(tmp_path, **changes) == [text]


def test_a_disk_that_is_nearly_full_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10**12, 10**12, 200 * 1024**2))
    assert told(tmp_path / "home") == [
        f"The disk of {tmp_path / 'home'} is nearly full: 200 MiB are left"
    ]


@pytest.mark.parametrize(
    "secrets",
    [
        # Nothing was signed at all since it was set.
        [SecretUse("autumn", timedelta(minutes=1), None), *WELL.secrets],
        [SecretUse("autumn", MONTH, None), SecretUse("spring", MONTH, None)],
        # Two webhooks, or a rotation that is under way.
        [SecretUse("autumn", timedelta(hours=2), NONE), *WELL.secrets],
        # Nothing came for a month: nothing is known of either.
        [SecretUse("autumn", 2 * MONTH, MONTH), SecretUse("spring", 2 * MONTH, MONTH)],
    ],
)
def test_of_secrets_of_which_nothing_can_be_known_nothing_is_said(
    tmp_path: Path, secrets: list[SecretUse]
) -> None:
    assert told(tmp_path, secrets=secrets) == []
