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
        series: values from minute to minute, as promtool writes them, by metric.
    """
    given = [
        {"series": f'{metric}{{instance="web"}}', "values": values}
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
