"""The benchmarks run, with what the tests have: Mailroom beside Dramatiq alone. How fast either is,
nobody asks here."""

import subprocess
import sys
from pathlib import Path

import pytest
from support import PROJECT, reach

from benchmarks.contenders.registry import make_contenders
from benchmarks.results import Results
from benchmarks.servers import REDIS_URL, Servers

OURS, THEIRS = "mailroom-postgresql", "dramatiq-redis"


def test_a_run_of_jobs_tells_ratios_of_its_own(tmp_path: Path) -> None:
    ended = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks", "jobs", "--tiny", "--results", str(tmp_path)),
            *("--cases", "empty", "light", "--contenders", OURS, THEIRS),
        ],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=500,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    results = Results.load(tmp_path, "jobs")
    assert results is not None

    if not reach(REDIS_URL):
        assert results.left_out == {THEIRS: "nothing listens at 127.0.0.1:6379"}
        assert results.contenders("empty") == results.contenders("light") == [OURS]
        return
    assert results.left_out == {}
    assert results.contenders("empty") == results.contenders("light") == [OURS, THEIRS]
    for name in (OURS, THEIRS):
        for case, measure in (("empty", "per_second"), ("empty", "memory"), ("light", "begun_p50")):
            assert len(results.values(case, name, measure)) == 1
    # Its answer comes with the handler; Dramatiq alone keeps no record of that.
    assert results.values("light", OURS, "completed_p99")
    assert not results.values("light", THEIRS, "completed_p99")
    assert "of Mailroom over PostgreSQL's" in ended.stdout


def test_who_is_not_installed_is_left_out_and_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delitem(sys.modules, "benchmarks.contenders.procrastinate", raising=False)
    monkeypatch.setitem(sys.modules, "procrastinate", None)
    left_out: dict[str, str] = {}
    servers = Servers(tmp_path, "postgresql:///nowhere")
    made = make_contenders(servers, [OURS, "procrastinate"], left_out.__setitem__)

    assert [contender.name for contender in made] == [OURS]
    assert "is not installed: pip install 'mailroom[benchmarks]'" in left_out["procrastinate"]
