"""What `tests/data/mutants.toml` says of the code, that the code still has."""

import tomllib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parent.parent.parent
EXPLAINED = tomllib.loads((PROJECT / "tests/data/mutants.toml").read_text())["mutant"]


@pytest.mark.parametrize("entry", EXPLAINED, ids=lambda entry: entry["after"])
def test_a_mutant_that_may_live_is_of_a_line_that_is_there(entry: dict[str, str]) -> None:
    assert set(entry) == {"module", "before", "after", "why"}
    lines = [line.strip() for line in (PROJECT / entry["module"]).read_text().splitlines()]
    assert entry["before"] in lines, "the line has changed: run `python tests/mutants.py` again"
    assert entry["after"] != entry["before"]
    assert entry["why"]
