"""What the benchmarks make of what they measured."""

from pathlib import Path

import pytest

from benchmarks.clock import Clock, Progress
from benchmarks.payloads import as_body, make_email
from benchmarks.report import markdown, shown, table
from benchmarks.results import Results, percentile


def test_a_clock_is_one_for_who_opens_the_same_file(tmp_path: Path) -> None:
    here = Clock.make(tmp_path / "clock", 3)
    there = Clock(tmp_path / "clock")
    there.begin(1)
    first = here.began[1]
    there.begin(1)

    assert here.count == there.count == 3
    assert first > 0
    assert here.began.tolist() == [0, first, 0]
    assert here.ended.tolist() == [0, 0, 0]


def test_progress_counts_what_comes_in_any_order(tmp_path: Path) -> None:
    clock = Clock.make(tmp_path / "clock", 4)
    progress = Progress(clock.ended)
    assert progress.done() == 0
    clock.end(2)
    assert progress.done() == 1
    clock.end(0)
    assert progress.done() == 2
    assert not progress.all_done()
    clock.end(1)
    clock.end(3)
    assert progress.all_done()


@pytest.mark.parametrize(("share", "value"), [(0.5, 51), (0.99, 100), (1, 100)])
def test_a_percentile_is_one_of_the_values(share: float, value: float) -> None:
    assert percentile(range(1, 101), share) == value


@pytest.mark.parametrize("size", [1_000, 3_000, 30_000, 300_000])
def test_an_email_has_about_the_size_that_is_asked_for(size: int) -> None:
    assert len(as_body(make_email(1, size))) == pytest.approx(size, rel=0.15)


def test_a_ratio_is_that_of_each_round() -> None:
    results = Results("jobs", titles={"ours": "Ours", "theirs": "Theirs"})
    for ours, theirs in ((10, 20), (100, 50), (30, 30)):
        results.add("empty", "ours", per_second=ours)
        results.add("empty", "theirs", per_second=theirs)

    assert results.ratio("empty", "ours", "theirs", "per_second") == 1
    assert results.ratio("empty", "ours", "nobody", "per_second") is None
    shown_table = table(results, "empty", "theirs", "per_second")
    assert "30 (10 to 100)" in shown_table
    assert "of Theirs's" in shown_table


def test_results_come_back_from_their_file(tmp_path: Path) -> None:
    results = Results("jobs", left_out={"Celery": "not installed"})
    results.add("empty", "ours", per_second=1.5)
    results.save(tmp_path / "folder")

    assert Results.load(tmp_path / "folder", "jobs") == results
    assert Results.load(tmp_path / "folder", "intake") is None


def test_a_figure_that_was_not_measured_is_a_dash() -> None:
    assert shown("per_second", []) == "-"
    assert markdown(["", "a second"], [["Ours", "-"]]).splitlines()[-1] == "| Ours |        - |"
