"""What the benchmarks make of what they measured."""

from pathlib import Path

import pytest
from lxml import etree

from benchmarks.charts import Bar, Line, bars, lines
from benchmarks.clock import Clock, Progress
from benchmarks.document import write
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


def test_charts_are_svg_with_every_contender_by_name() -> None:
    of_bars = bars("Emails", str, [Bar("Ours & theirs", 2.0, 1.0, 3.0, True)])
    of_lines = lines(
        "Requests <a second>",
        ["1", "8"],
        str,
        [Line("Ours", [10.0, 100.0]), Line("Theirs", [None, 5.0]), Line("Nobody's", [])],
        logarithmic=True,
    )
    for picture, names in ((of_bars, ["Ours & theirs"]), (of_lines, ["Ours", "Theirs"])):
        texts = [text.text for text in etree.fromstring(picture).iter("{*}text")]
        assert set(names) <= set(texts)


def test_the_document_holds_what_was_measured_and_compares_with_the_targets(
    tmp_path: Path,
) -> None:
    titles = {"mailroom-postgresql": "Mailroom", "pgqueuer-100": "PgQueuer"}
    results = Results("jobs", titles=titles, left_out={"Celery": "is not installed"})
    for ours, theirs in ((300, 200), (320, 210)):
        results.add("empty", "mailroom-postgresql", per_second=ours)
        results.add("empty", "pgqueuer-100", per_second=theirs)
    results.save(tmp_path)

    written = write(tmp_path, tmp_path)

    text = (tmp_path / "benchmarks.md").read_text()
    assert "Mailroom / PgQueuer: emails a second, empty" in text
    assert "1.51 | 1.1 or more" in text
    assert "310 (300 to 320)" in text
    assert "- Celery: is not installed" in text
    assert "## Intake\n\nNot measured in this run." in text
    assert {path.name for path in written} == {"benchmarks.md", "benchmarks-jobs-empty.svg"}


def test_without_results_there_is_no_document(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="run `python -m benchmarks`"):
        write(tmp_path, tmp_path)
    assert list(tmp_path.iterdir()) == []
