"""What docs/prometheus-rules.yml alerts of, as Prometheus judges it."""

import json
import re
import subprocess
from pathlib import Path

import pytest
import yaml
from support import PROJECT, WAIT_SECONDS, need

from app.sync.differences import Difference

RULES = PROJECT / "docs" / "prometheus-rules.yml"
AGE, INTERVAL = "mailroom_canary_age_seconds", "mailroom_canary_interval_seconds"
PAUSED = "mailroom_processing_paused"


def rule_of(alert: str) -> dict[str, object]:
    """The rule of this name."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    [found] = [rule for group in groups for rule in group["rules"] if rule.get("alert") == alert]
    rule: dict[str, object] = found
    return rule


def fires(folder: Path, alert: str, minute: int, series: dict[str, str]) -> bool:
    """Whether an alert does at that minute.

    Args:
        series: values from minute to minute, as promtool writes them, by metric, with its labels
            where it has any besides the instance.
    """
    given = [
        {"series": metric if "{" in metric else f'{metric}{{instance="web"}}', "values": values}
        for metric, values in series.items()
    ]
    nothing = {"alertname": alert, "eval_time": f"{minute}m", "exp_alerts": []}
    test = {"interval": "1m", "input_series": given, "alert_rule_test": [nothing]}
    path, rules = folder / "test.yml", folder / "rules.yml"
    # JSON is YAML. All the other rules would be evaluated for each minute, too.
    rules.write_text(json.dumps({"groups": [{"name": "one", "rules": [rule_of(alert)]}]}))
    path.write_text(json.dumps({"rule_files": [str(rules)], "tests": [test]}))
    promtool = [need("promtool"), "test", "rules", str(path)]
    ended = subprocess.run(
        promtool, capture_output=True, text=True, timeout=WAIT_SECONDS, check=False
    )
    is_told = f'alertname="{alert}"' in ended.stderr
    assert is_told == (ended.returncode != 0), ended.stdout + ended.stderr
    return is_told


@pytest.mark.parametrize(
    ("interval_seconds", "quiet_minutes", "late_minutes"), [(120, 5, 8), (3_660, 121, 126)]
)
def test_a_canary_is_overdue_when_two_in_a_row_did_not_go_the_whole_way(
    tmp_path: Path, interval_seconds: int, quiet_minutes: int, late_minutes: int
) -> None:
    # The last one went it at minute 0.
    series = {AGE: "0+60x200", INTERVAL: f"{interval_seconds}x200", PAUSED: "0x200"}
    assert not fires(tmp_path, "MailroomCanaryOverdue", quiet_minutes, series)
    assert fires(tmp_path, "MailroomCanaryOverdue", late_minutes, series)
    paused = {**series, PAUSED: "1x200"}
    assert not fires(tmp_path, "MailroomCanaryOverdue", late_minutes, paused)


def test_without_a_canary_none_is_overdue(tmp_path: Path) -> None:
    assert not fires(tmp_path, "MailroomCanaryOverdue", 60, {PAUSED: "0x200"})


@pytest.mark.parametrize(
    ("interval_seconds", "quiet_hours", "late_hours"), [(3_600, 25, 26), (172_800, 72, 73)]
)
def test_pruning_is_late_by_how_often_it_is_done(
    tmp_path: Path, interval_seconds: int, quiet_hours: int, late_hours: int
) -> None:
    # It last ended well at minute 0.
    of = '{chore="prune",instance="web"}'
    series = {
        f"mailroom_chore_last_ok_timestamp_seconds{of}": "0x4500",
        f"mailroom_chore_interval_seconds{of}": f"{interval_seconds}x4500",
    }
    assert not fires(tmp_path, "MailroomNothingPruned", quiet_hours * 60, series)
    assert fires(tmp_path, "MailroomNothingPruned", late_hours * 60, series)


@pytest.mark.parametrize(
    ("interval_seconds", "quiet_minutes", "late_minutes"), [(60, 31, 38), (7_200, 150, 157)]
)
def test_the_gap_detector_is_late_by_how_often_it_looks(
    tmp_path: Path, interval_seconds: int, quiet_minutes: int, late_minutes: int
) -> None:
    of = '{instance="web",line="tickets"}'
    series = {
        f"mailroom_gap_lag_seconds{of}": "0+60x200",
        f"mailroom_gap_interval_seconds{of}": f"{interval_seconds}x200",
    }
    assert not fires(tmp_path, "MailroomGapsNotLookedFor", quiet_minutes, series)
    assert fires(tmp_path, "MailroomGapsNotLookedFor", late_minutes, series)


def test_a_pruner_that_never_ended_well_is_told_where_one_is_asked_for(tmp_path: Path) -> None:
    interval = 'mailroom_chore_interval_seconds{chore="prune",instance="web"}'
    # A web process that starts anew now and then is no news.
    never = {interval: "3600x700 _x10 3600x1000"}
    assert not fires(tmp_path, "MailroomNeverPruned", 23 * 60, never)
    assert fires(tmp_path, "MailroomNeverPruned", 25 * 60, never)
    once = 'mailroom_chore_last_ok_timestamp_seconds{chore="prune",instance="web"}'
    assert not fires(tmp_path, "MailroomNeverPruned", 25 * 60, {**never, once: "_x1400 84000x300"})
    other = {interval.replace("prune", "alerts"): "10x1700"}
    assert not fires(tmp_path, "MailroomNeverPruned", 25 * 60, other)


def receiver(**values: str) -> dict[str, str]:
    states = dict.fromkeys(("closed", "open", "half_open", "paused", "resting"), "0x200") | values
    name = "mailroom_receiver_state"
    return {f'{name}{{instance="web",state="{one}"}}': given for one, given in states.items()}


def test_a_receiver_that_hangs_is_down_though_each_probe_changes_its_state(tmp_path: Path) -> None:
    hangs = receiver(open="0x9 " + "1 1 0 " * 20, half_open="0x9 " + "0 0 1 " * 20)
    assert fires(tmp_path, "MailroomReceiverDown", 25, hangs)
    assert not fires(tmp_path, "MailroomReceiverDown", 15, hangs)
    assert not fires(tmp_path, "MailroomReceiverDown", 25, receiver(closed="1x200"))


@pytest.mark.parametrize(
    ("refused", "requests", "is_told"),
    [
        ("0+1x60", "0+1x60", True),
        ("0+1x60", "0+10x60", False),
        # One email, which is bad, and nothing else; and a line without any request.
        ("0x9 1 2x4 3x60", "0x9 1 2x4 3x60", False),
        ("0x60", "0x60", False),
    ],
)
def test_a_receiver_that_refuses_most_of_what_it_is_sent_is_told(
    tmp_path: Path, refused: str, requests: str, is_told: bool
) -> None:
    series = {
        'mailroom_delivery_failures_total{instance="worker",kind="refused"}': refused,
        'mailroom_delivery_failures_total{instance="worker",kind="busy"}': "0x60",
        'mailroom_delivery_seconds_count{instance="worker"}': requests,
    }
    assert fires(tmp_path, "MailroomDeliveriesFail", 30, series) == is_told


def test_what_is_pending_for_long_is_told_while_something_is_delivered(tmp_path: Path) -> None:
    age = "mailroom_delivery_pending_age_seconds"
    late = {age: "0+60x200"}
    assert fires(tmp_path, "MailroomDeliveriesPending", 95, late | receiver(closed="1x200"))
    assert not fires(tmp_path, "MailroomDeliveriesPending", 85, late | receiver(closed="1x200"))
    assert not fires(tmp_path, "MailroomDeliveriesPending", 95, late | receiver())
    quick = {age: "3x200"} | receiver(closed="1x200")
    assert not fires(tmp_path, "MailroomDeliveriesPending", 95, quick)


def test_erasures_that_the_receiver_was_not_told_are(tmp_path: Path) -> None:
    events = 'mailroom_undelivered_events{instance="web",state="failed"}'
    assert fires(
        tmp_path, "MailroomErasuresNotTold", 10, {events: "2x60"} | receiver(closed="1x60")
    )
    for series in ({events: "0x60"} | receiver(closed="1x60"), {events: "2x60"} | receiver()):
        assert not fires(tmp_path, "MailroomErasuresNotTold", 10, series)


def test_what_mends_deliveries_that_were_given_up_is_told_for_emails_and_erasures() -> None:
    _, _, rule = RULES.read_text().partition("alert: MailroomDeliveriesGivenUp\n")
    rule, _, _ = rule.partition("- alert:")
    assert set(re.findall(r"--only (\w+)", rule)) == {Difference.FAILED, Difference.UNTOLD}


@pytest.mark.parametrize(("kept", "is_told"), [("0+1x60", True), ("0+9x60", False)])
def test_files_that_fail_are_told_where_they_are_many(
    tmp_path: Path, kept: str, is_told: bool
) -> None:
    series = {
        'mailroom_attachments_total{instance="worker",state="failed"}': "0+1x60",
        'mailroom_attachments_total{instance="worker",state="kept"}': kept,
    }
    assert fires(tmp_path, "MailroomFilesFail", 45, series) == is_told


def test_files_that_wait_are_told_and_none_is_where_none_does(tmp_path: Path) -> None:
    lag = "mailroom_attachment_lag_seconds"
    assert fires(tmp_path, "MailroomFilesWait", 20, {lag: "0+60x60"})
    assert not fires(tmp_path, "MailroomFilesWait", 20, {lag: "0x60"})


def test_deliveries_wait_where_one_is_late(tmp_path: Path) -> None:
    late = {"mailroom_delivery_lag_seconds": "0+60x60"}
    assert fires(tmp_path, "MailroomDeliveriesWait", 40, late)


def test_erasures_that_fail_again_and_again_are_told(tmp_path: Path) -> None:
    total = "mailroom_erasure_failures_total"
    assert fires(tmp_path, "MailroomErasuresFail", 40, {total: "0+1x60"})
    assert not fires(tmp_path, "MailroomErasuresFail", 40, {total: "0x20 2x40"})


def test_what_is_switched_off_is_not_late(tmp_path: Path) -> None:
    # As the metrics tell it then.
    series = {"mailroom_delivery_lag_seconds": "0x60"}
    for alert in ("MailroomNothingPruned", "MailroomGapsNotLookedFor", "MailroomDeliveriesWait"):
        assert not fires(tmp_path, alert, 40, series)
