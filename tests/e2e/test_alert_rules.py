"""What docs/prometheus-rules.yml alerts of, as Prometheus judges it."""

import json
import subprocess
from pathlib import Path

import pytest
from support import PROJECT, need

RULES = PROJECT / "docs" / "prometheus-rules.yml"
AGE, INTERVAL = "mailroom_canary_age_seconds", "mailroom_canary_interval_seconds"
PAUSED = "mailroom_processing_paused"


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
    path = folder / "test.yml"
    # JSON is YAML.
    path.write_text(json.dumps({"rule_files": [str(RULES)], "tests": [test]}))
    promtool = [need("promtool"), "test", "rules", str(path)]
    ended = subprocess.run(promtool, capture_output=True, text=True, timeout=60, check=False)
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
