"""The lint of templates and payloads: it finds what is wrong where it is, and nothing else."""

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from app.cli.lint import lint_file
from app.intake.encoded_texts import decode_texts
from app.intake.json_body import read_json_object
from app.intake.payload import check_payload
from app.zendesk.lint.findings import Report, Weight
from app.zendesk.lint.hostile_tickets import TICKETS
from app.zendesk.lint.lint import lint
from app.zendesk.lint.rendering import render_each
from app.zendesk.template import TEMPLATE

FOLDER = Path(__file__).parent.parent / "data" / "templates"
MISTAKES: dict[str, dict[str, object]] = json.loads((FOLDER / "index.json").read_text())
DOCS = (Path(__file__).parent.parent.parent / "docs" / "webhook.md").read_text()


@pytest.mark.parametrize("name", MISTAKES)
def test_a_seeded_mistake_is_found_where_it_is(name: str) -> None:
    report = lint((FOLDER / f"{name}.json").read_bytes())
    found = [(one.code, one.line) for one in report.findings if one.weight is Weight.WRONG]
    assert (MISTAKES[name]["code"], MISTAKES[name]["line"]) in found


def test_each_seeded_mistake_has_its_file() -> None:
    assert len(MISTAKES) >= 30
    assert {file.stem for file in FOLDER.glob("*.json")} == {*MISTAKES, "index"}


def test_nothing_is_wrong_with_our_own_template() -> None:
    assert lint(TEMPLATE.encode()) == Report("template", ())


def test_the_docs_show_the_template_that_setup_makes() -> None:
    shown = re.search(r'^ {7}\{\n {9}"ticket_id".*?^ {7}\}\n', DOCS, re.DOTALL | re.MULTILINE)
    assert shown is not None
    assert re.sub("^ {7}", "", shown.group(), flags=re.MULTILINE) == TEMPLATE


def test_every_hostile_ticket_comes_out_of_our_template_as_it_was() -> None:
    rendered = list(render_each(TEMPLATE))
    assert [ticket.what for ticket, _ in rendered] == [ticket.what for ticket in TICKETS]
    assert len(TICKETS) >= 20
    for ticket, body in rendered:
        read = read_json_object(body.encode())
        assert read.mended == ()
        email = check_payload(decode_texts(read.fields)).email
        assert email.from_email == ticket.email
        assert (email.subject or "") == ticket.title
        assert (email.body_text or "") == ticket.text
        assert [file.filename for file in email.attachments or ()] == [
            file.filename for file in ticket.files
        ]


def test_the_first_ticket_that_breaks_a_template_is_shown() -> None:
    report = lint((FOLDER / "quotes-break.json").read_bytes())
    assert report.broken is not None
    assert report.broken.ticket == "quotes in the subject"
    assert '"subject": "Order "A-17" is broken"' in report.broken.rendered


def test_texts_that_are_escaped_by_hand_survive_too() -> None:
    by_hand = r"""{
  "ticket_id": {{ticket.id}},
  "from_email": "{{ticket.latest_comment.author.email}}",
  "subject": "{{ticket.title | replace: '\', '\\\\' | replace: '"', '\"'}}",
  "body_text": "{{ticket.latest_comment.value | replace: '\', '\\\\' | replace: '"', '\"'}}"
}"""
    assert lint(by_hand.encode()) == Report("template", ())


@given(
    st.binary(max_size=400)
    | st.text(max_size=400).map(lambda text: text.encode("utf-8", "replace"))
)
def test_the_lint_of_any_bytes_ends_with_a_report(body: bytes) -> None:
    assert isinstance(lint(body), Report)


PIECES = st.sampled_from(
    [
        *("{", "}", "[", "]", '"', ",", ":", "{{", "}}", "{%", "%}", "\\", "\n", " ", "'"),
        "|",
        *("ticket.id", '"ticket_id"', "ticket.title", "| url_encode", "for x in", "endfor"),
        *(
            "{% for x in ticket.comments %}",
            "{% endfor %}",
            "{% if x %}",
            "{% raw %}",
            "//",
            "\u201c",
        ),
        *(
            '"{{ticket.title}}"',
            "{% assign x = ticket %}",
            "{{ x | replace: '', '' }}",
            "1",
            "null",
        ),
    ]
)


@given(st.lists(PIECES, max_size=60).map("".join))
def test_the_lint_of_any_pieces_of_a_template_ends_with_a_report(text: str) -> None:
    report = lint(text.encode())
    lines = text.count("\n") + 1
    assert all(1 <= one.line <= lines and one.column >= 1 for one in report.findings)


@pytest.mark.parametrize("piece", ["{{", "{%", '{"a":', "[", "{% if x %}", "{% raw %}", "\\", '"'])
def test_what_is_opened_without_end_is_looked_at_in_linear_time(piece: str) -> None:
    assert not lint(f"{{{{ticket.id}}}}{piece * 50_000}".encode()).is_right


def test_a_payload_that_a_quote_broke_is_told_with_its_field_and_mended_text() -> None:
    body = b'{"ticket_id": "1",\n "from_email": "a@example.org",\n "subject": "a "b" c"}'
    [finding] = lint(body).findings
    assert (finding.code, finding.line) == ("not-json", 3)
    assert "in subject" in finding.message
    assert json.loads(finding.right or "")["subject"] == 'a "b" c'


@pytest.mark.parametrize(
    ("fields", "headers", "code", "line"),
    [
        ({"from_email": " "}, {}, "missing-field", 3),
        ({"subject": "{{ticket.title}}"}, {}, "not-rendered", 4),
        ({"body_text": "<div>Hello</div>"}, {}, "html-as-text", 4),
        ({"text_encoding": "none"}, {}, "wrong-probe", 4),
        ({"attachments": "rechnung.pdf"}, {}, "not-taken", 4),
        ({"webhook_id": "01HANA"}, {"x-zendesk-webhook-id": "01HANA"}, "webhook-id", 4),
        ({}, {"content-type": "text/plain"}, "content-type", 1),
    ],
)
def test_what_is_wrong_with_a_payload_is_told_with_its_line(
    fields: dict[str, str], headers: dict[str, str], code: str, line: int
) -> None:
    whole = {"ticket_id": "1", "from_email": "a@example.org", **fields}
    report = lint(json.dumps(whole, indent=1).encode(), headers=headers)
    assert [(one.code, one.line) for one in report.findings] == [(code, line)]
    assert not report.is_right


def test_unknown_fields_are_remarks() -> None:
    report = lint(b'{"ticket_id": "1", "from_email": "a@example.org", "colour": "red"}')
    assert [(one.code, one.weight) for one in report.findings] == [("unknown-field", Weight.REMARK)]
    assert report.is_right


def test_a_payload_in_which_a_customer_writes_of_placeholders_is_no_template() -> None:
    body = b'{"ticket_id": "1", "from_email": "a@example.org", "subject": "what is {{ticket.id}}?"}'
    assert lint(body) == Report("payload", ())


def test_the_command_tells_place_and_right_text_and_fails(tmp_path: Path) -> None:
    wrong, right = tmp_path / "wrong.json", tmp_path / "right.json"
    wrong.write_text(TEMPLATE.replace("ticket.title", "ticket.subject"))
    right.write_text(TEMPLATE)
    result = CliRunner().invoke(lint_file, [str(wrong)])
    assert result.exit_code == 1
    assert f"{wrong}:5:15: wrong: Zendesk knows no placeholder ticket.subject" in result.output
    assert "right: {{ticket.title}}" in result.output
    assert CliRunner().invoke(lint_file, ["-"], input=TEMPLATE).exit_code == 0
    as_json = CliRunner().invoke(lint_file, ["--json", str(wrong)])
    assert json.loads(as_json.output)["findings"][0]["line"] == 5
