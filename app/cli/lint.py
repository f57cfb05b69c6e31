"""`mailroom lint`: what is wrong with a trigger's template, or with a payload."""

import json
import sys
from pathlib import Path
from typing import Any

import attrs
import click

from app.cli.printing import say_lines
from app.errors import MailroomError
from app.zendesk.lint.findings import Report
from app.zendesk.lint.lint import lint

STANDARD_INPUT = "-"


class UnreadableFileError(MailroomError):
    """The file that was named cannot be read."""


@click.command("lint")
@click.argument("file", metavar="FILE|-")
@click.option("--content-type", help="The Content-Type that a payload came with.")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def lint_file(file: str, content_type: str | None, as_json: bool) -> None:
    """Say what is wrong with the template of a trigger, or with a payload as it came.

    Each finding has its line and column, and the text that would be right. A template is rendered
    with 20 hostile tickets, and the first that breaks it is shown. It needs no database. Exits
    with 1 if anything is wrong, with 0 if there is nothing, or only remarks.
    """
    try:
        raw = sys.stdin.buffer.read() if file == STANDARD_INPUT else Path(file).read_bytes()
    except OSError as error:
        raise UnreadableFileError(f"{file} cannot be read: {error.strerror}") from error
    report = lint(raw, headers={"content-type": content_type} if content_type else {})
    if as_json:
        say_lines(json.dumps(_as_data(report), ensure_ascii=False, indent=2))
    else:
        say_lines("\n".join([*told(report, file), _summary(report)]))
    raise SystemExit(0 if report.is_right else 1)


def told(report: Report, name: str) -> list[str]:
    """A report for a terminal, a finding a line, what would be right below it."""
    lines = []
    for finding in report.findings:
        place = f"{name}:{finding.line}:{finding.column}"
        message = finding.message.replace("\n", "\\n")
        lines.append(f"{place}: {finding.weight}: {message} [{finding.code}]")
        if finding.right is not None:
            lines += [f"    right: {line}" for line in (finding.right or "(nothing)").split("\n")]
    if report.broken is not None:
        why = report.broken.why.replace("\n", "\\n")
        lines.append(f"It does not survive {report.broken.ticket}: {why}")
        lines += [f"    {line}" for line in report.broken.rendered.splitlines()]
    return lines


def _summary(report: Report) -> str:
    if not report.findings:
        return f"Nothing is wrong with this {report.kind}."
    remarks = sum(finding.weight == "remark" for finding in report.findings)
    return f"{report.kind}: {len(report.findings) - remarks} wrong, {remarks} remarks"


def _as_data(report: Report) -> dict[str, Any]:
    return {"is_right": report.is_right, **attrs.asdict(report)}
