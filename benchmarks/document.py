"""Writes `docs/benchmarks.md` and its charts from what was last measured of each part."""

import re
import statistics
from collections.abc import Callable
from pathlib import Path

from benchmarks import growth, intake, jobs
from benchmarks.charts import Bar, Line, bars, lines
from benchmarks.report import markdown, table, tenths, whole
from benchmarks.results import Results, percentile
from benchmarks.servers import PROJECT

FOLDER = PROJECT / "docs"
NAME = "benchmarks"
SEARCH = "## Search"
SOCKET = re.compile(r' on socket "[^"]*"')
TARGETS: tuple[tuple[str, str, str, str, str, str], ...] = (
    ("jobs", "empty", "mailroom-postgresql", "pgqueuer-100", "per_second", "1.1 or more"),
    ("jobs", "empty", "mailroom-postgresql", "pgqueuer-same-work-100", "per_second", "3 or more"),
    ("jobs", "empty", "mailroom-redis", "mailroom-postgresql", "per_second", "1 or more"),
    ("jobs", "empty", "mailroom-rabbitmq", "mailroom-postgresql", "per_second", "1 or more"),
    ("jobs", "light", "mailroom-postgresql", "pgqueuer-100", "begun_p99", "1 or less"),
    ("intake", "1 KB, 32", "mailroom", "mailroom-without-database", "per_second", "0.85 or more"),
    ("intake", "1 KB, 32", "mailroom-without-database", "bare-asgi", "per_second", "0.35 or more"),
    ("intake", "1 KB, 32", "mailroom", "original-design", "per_second", "30 or more"),
    ("intake", "1 KB, 32", "mailroom", "litestar-piccolo", "per_second", "3 or more"),
)
WHAT = {"per_second": "emails a second", "begun_p99": "accepted to begun, 99 %"}
INTRODUCTION = """\
# Mailroom beside its peers

Made by `python -m benchmarks` (`pip install -e '.[benchmarks]'`); parts run alone, such as
`python -m benchmarks jobs --quick`. Nothing here is written by hand.

**How it is measured.** All contenders of a part run on one machine and one PostgreSQL (the
embedded one, with the product's settings), each with a database of its own, and take turns:
first, second, third, first again. So a noisy machine disturbs them alike: read the ratios, not
the figures. A ratio is the median of the rounds' ratios; a spread is the lowest and the highest
round. Client, contender and PostgreSQL share the processors.

**What is the same.** Emails, their sizes, the number of connections, one worker or web server
each. `fsync` is on. `synchronous_commit` is on, the default of all; Mailroom turns it off where an
email is queued and where it is claimed, which a crash of PostgreSQL may undo at no loss: the email
is then queued and claimed again. Every peer is written as its own documentation says, in
`benchmarks/peers`: uvloop
where it supports it, its batches, its pools, its advice on prefetching and autovacuum. All
acknowledge a job after its handler, so that a killed worker loses nothing (Celery by
`acks_late`).

**What is not.** Contenders promise different things: what each keeps stands below its part. Redis
runs as it is configured here, which often means that a crash loses what it was given last;
RabbitMQ's queues are durable, Celery's and Mailroom's are quorum queues. Celery has two processes
for the empty handler, and gevent for the one that waits; Dramatiq and the original design have
threads. The web frameworks verify the signature as Mailroom does, but know no quarantine, no
broken JSON and no back-pressure. PgQueuer is run without its command line, which fails with the
current typer; its event loop and supervisor are the same.

**What is left out.** More than one machine, and networks between them. More than one process of a
contender. TLS. Recovery after a crash. Workers in other languages.
"""


def write(results_folder: Path, folder: Path = FOLDER) -> list[Path]:
    """Write the document and its charts.

    Returns:
        The files.

    Raises:
        FileNotFoundError: nothing was measured yet.
    """
    parts = {
        name: results
        for name in ("jobs", "intake", "growth")
        if (results := Results.load(results_folder, name)) is not None
    }
    if not parts:
        raise FileNotFoundError(f"{results_folder} holds no results: run `python -m benchmarks`")
    written: list[Path] = []

    def draw(name: str, picture: str, about: str) -> str:
        path = folder / f"{NAME}-{name}.svg"
        path.write_text(picture)
        written.append(path)
        return f"![{about}]({path.name})"

    text = [INTRODUCTION, _targets(parts)]
    for name, describe in (("jobs", _jobs), ("intake", _intake), ("growth", _growth)):
        if name in parts:
            text += [describe(parts[name], draw), _conditions(parts[name])]
        else:
            text.append(f"## {name.capitalize()}\n\nNot measured in this run.")
    path = folder / f"{NAME}.md"
    # It is measured for itself, since its archive takes long to make.
    if path.exists() and SEARCH in (before := path.read_text()):
        text.append(before[before.index(SEARCH) :])
    path.write_text("\n\n".join(part.strip() for part in text) + "\n")
    return [path, *written]


def write_search(results: Results, folder: Path = FOLDER) -> Path:
    """Write the section about searches anew, at the end of the document."""
    path = folder / f"{NAME}.md"
    before = path.read_text().partition(SEARCH)[0]
    rows = []
    for case, figures in results.figures.items():
        figure = figures["mailroom"]
        if "page_ms" not in figure:
            continue
        page, count = figure["page_ms"], figure["count_ms"]
        rows.append(
            [
                f"`{case}`",
                whole(figure["rows"][-1]),
                tenths(statistics.median(figure["processor_ms"])),
                *(tenths(value) for value in (page[0], statistics.median(page), max(page))),
                tenths(statistics.median(count)),
            ]
        )
    head = ["search", "rows", "processor time", "first", "median", "longest", "count, median"]
    speed = results.median("(indexing)", "mailroom", "per_second")
    text = [
        SEARCH,
        f"Each example of [the docs](search.md), and some that are harder, in an archive of "
        f"{results.titles['mailroom']}: two years, one in fifty failed, a vocabulary of 30,000 "
        "words and a number of its own in each subject. Milliseconds of the first page of 50 as "
        "the list asks for it: processor time of client and server, which a busy machine changes "
        "little (median), and time by the clock; and of the count up to 10,000 where there are "
        "more, which the page gives up after 150 ms.",
        markdown(head, rows),
        f"One process writes {whole(speed or 0.0)} entries of words a second. Measured on:",
        markdown(["", ""], [[name, value] for name, value in results.machine.items()]),
    ]
    path.write_text(before.rstrip() + "\n\n" + "\n\n".join(text) + "\n")
    return path


Draw = Callable[[str, str, str], str]


def _targets(parts: dict[str, Results]) -> str:
    rows = []
    for part, case, one, other, measure, wanted in TARGETS:
        results = parts.get(part)
        ratio = results.ratio(case, one, other, measure) if results else None
        if results is not None and ratio is not None:
            of = f"{results.titles[one]} / {results.titles[other]}"
            rows.append([f"{of}: {WHAT[measure]}, {case}", f"{ratio:.2f}", wanted])
    jobs_done = parts.get("jobs")
    if jobs_done and (value := jobs_done.median("wait", "mailroom-postgresql", "per_second")):
        share = value / (jobs.AT_ONCE / 0.1)
        rows.append(["100 ms, 200 at once / what that allows", f"{share:.2f}", "0.95 or more"])
    grown = parts.get("growth")
    if grown is not None:
        name = "mailroom-postgresql"
        finished = [case for case in grown.figures if case.endswith(" finished")]
        pair = [grown.median(case, name, "per_second") for case in (finished[0], finished[-1])]
        if pair[0] and pair[1]:
            rows.append(
                [f"{finished[-1]} / {finished[0]}", f"{pair[1] / pair[0]:.2f}", "0.9 or more"]
            )
        if last := grown.median(growth.LEFT_OPEN, name, "last_of_first"):
            rows.append(["Transaction left open: last round / first", f"{last:.2f}", "0.9 or more"])
    return "## At a glance\n\n" + markdown(["", "ratio", "target"], rows)


def _bars(results: Results, case: str, measure: str) -> list[Bar]:
    made = []
    for name in results.contenders(case):
        if values := results.values(case, name, measure):
            middle = results.median(case, name, measure) or 0.0
            ours = name.startswith("mailroom")
            made.append(Bar(results.titles[name], middle, min(values), max(values), ours))
    return sorted(made, key=lambda bar: -bar.middle)


def _jobs(results: Results, draw: Draw) -> str:
    about = {
        "empty": ("A handler that does nothing", "per_second", "emails a second"),
        "wait": ("A handler that waits 100 ms, 200 at once", "per_second", "emails a second"),
        "light": ("20 emails a second", "begun_p99", "ms from accepted to begun, 99 %"),
        "steady": ("150 emails a second", "begun_p99", "ms from accepted to begun, 99 %"),
    }
    text = ["## Jobs"]
    text.append(
        "From accepted to completed: one worker process, emails of 3 KB. A backlog is accepted"
        " before the worker starts; its first 15 % warm up. Latencies begin when the call that"
        " accepts the email returns, so that of a job which is begun at once may be below zero."
    )
    for case, (title, measure, unit) in about.items():
        if case in results.figures:
            shown = whole if measure == "per_second" else tenths
            picture = bars(f"{title}: {unit}", shown, _bars(results, case, measure))
            text += [f"### {title}", draw(f"jobs-{case}", picture, f"{title}: {unit}")]
            text.append(table(results, case, results.contenders(case)[0], measure))
    return "\n\n".join(text)


def _intake(results: Results, draw: Draw) -> str:
    text = ["## Intake", "One web process; each connection waits for its answer."]
    sizes = list(dict.fromkeys(case.partition(",")[0] for case in results.figures))
    for size in sizes:
        cases = [case for case in results.figures if case.partition(",")[0] == size]
        names = list(dict.fromkeys(name for case in cases for name in results.contenders(case)))
        picture = lines(
            f"Bodies of {size}: requests a second, by connections",
            [case.partition(", ")[2] for case in cases],
            whole,
            [
                Line(
                    results.titles[name],
                    [results.median(case, name, "per_second") for case in cases],
                )
                for name in names
            ],
            logarithmic=True,
        )
        name = f"intake-{size.partition(' ')[0]}kb"
        text += [f"### Bodies of {size}", draw(name, picture, f"Bodies of {size}")]
        for case in cases:
            text.append(f"{case.partition(', ')[2]} connections:")
            text.append(table(results, case, intake.NAMES[0], "per_second"))
    return "\n\n".join(text)


def _growth(results: Results, draw: Draw) -> str:
    text = [
        "## Growth",
        "An empty handler, beside emails that ended before (a few hundred bytes each), from a long"
        " backlog, and round after round on one table, where every email changes its state three"
        " times.",
    ]
    rounds = [case for case in (growth.NOTHING_OPEN, growth.LEFT_OPEN) if case in results.figures]
    for case in results.figures:
        text += [f"### {case.capitalize()}", table(results, case)]
    if rounds:
        data = [
            Line(f"{results.titles[name]}, {case}", results.values(case, name, "per_second"))
            for case in rounds
            for name in results.contenders(case)
        ]
        points = [str(number + 1) for number in range(max(len(line.values) for line in data))]
        title = "Emails a second, round after round"
        text.append(draw("growth-rounds", lines(title, points, whole, data), title))
    return "\n\n".join(text)


def _conditions(results: Results) -> str:
    rows = [[name, value] for name, value in results.machine.items()]
    rows.append(["versions", ", ".join(f"{k} {v}" for k, v in results.versions.items())])
    kept = [[results.titles[name], note] for name, note in results.notes.items()]
    text = [
        _noise(results),
        "Measured on:",
        markdown(["", ""], rows),
        markdown(["", "what it does or keeps"], kept),
    ]
    if results.left_out:
        text.append("Left out, or not to the end:")
        # Where this run's server had its socket says nothing to a reader.
        reasons = [SOCKET.sub("", f"- {name}: {why}") for name, why in results.left_out.items()]
        text.append("\n".join(reasons))
    return "\n\n".join(text)


def _noise(results: Results) -> str:
    """How far the rounds of one contender lie apart."""
    apart = []
    for case in results.figures:
        for name in results.contenders(case):
            values = results.values(case, name, "per_second")
            if len(values) > 1 and case not in (growth.NOTHING_OPEN, growth.LEFT_OPEN):
                apart.append((max(values) - min(values)) / statistics.median(values))
    if not apart:
        return "One round was run: this says nothing of its noise."
    middle, most = percentile(apart, 0.5), percentile(apart, 0.9)
    return (
        f"Noise: the rounds of one contender in one case lie apart by {middle:.0%} of their median,"
        f" in nine of ten cases by at most {most:.0%}. Smaller differences say nothing."
    )
