"""The units of docs/deploy/systemd leave few rights to what they run."""

import pytest
from packaged import run
from support import PROJECT, need

pytestmark = pytest.mark.long

UNITS = PROJECT / "docs" / "deploy" / "systemd"
# Tenths of what `systemd-analyze security` calls exposure: below it says "OK".
MOST_EXPOSED = 20


@pytest.mark.parametrize("unit", sorted(path.name for path in UNITS.glob("*.service")))
def test_a_unit_has_no_right_that_it_does_not_need(unit: str) -> None:
    systemd_analyze = need("systemd-analyze")
    run(
        *(
            systemd_analyze,
            "security",
            "--offline=true",
            f"--threshold={MOST_EXPOSED}",
            f"./{unit}",
        ),
        cwd=UNITS,
    )
