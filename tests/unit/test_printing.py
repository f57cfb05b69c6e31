"""What a command prints does not reach the terminal as an order to it."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.cli.printing import say, say_lines

CLI = Path(__file__).parents[2] / "app" / "cli"

CLEAR_SCREEN = "\x1b[2J"
FILL_CLIPBOARD = "\x1b]52;c;cm0gLXJm\x07"
NEXT_LINE_IN_C1 = "\x85"
OVERRIDE = "\u202egpj.exe\u202c"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"a{CLEAR_SCREEN}b", r"a\u001b[2Jb"),
        (FILL_CLIPBOARD, r"\u001b]52;c;cm0gLXJm\u0007"),
        (f"a{NEXT_LINE_IN_C1}b\x9b2J", r"a\u0085b\u009b2J"),
        (OVERRIDE, r"\u202egpj.exe\u202c"),
        ("\u2066isolated\u2069 \u200e\u200f\u061c", r"\u2066isolated\u2069 \u200e\u200f\u061c"),
        ("a\nFAIL database\r\tb\u2028c", r"a\nFAIL database\r\tb\u2028c"),
        ("half \ud83d", r"half \ud83d"),
        ("\x7f", r"\u007f"),
        ("Päckchen 📦 שלום", "Päckchen 📦 שלום"),
    ],
)
def test_a_line_is_one_line_of_visible_characters(
    text: str, shown: str, capsys: pytest.CaptureFixture[str]
) -> None:
    say(text)
    assert capsys.readouterr().out == f"{shown}\n"


def test_meant_line_breaks_stay_and_nothing_else_does(capsys: pytest.CaptureFixture[str]) -> None:
    say_lines(f'{{\r\n\t"a": "{CLEAR_SCREEN}\rb"\n}}')
    assert capsys.readouterr().out == '{\n\t"a": "\\u001b[2J\\rb"\n}\n'
    say_lines("to the other stream", is_error=True)
    assert capsys.readouterr().err == "to the other stream\n"


@given(st.text(st.characters(codec="utf-8")))
def test_json_stays_the_same_json(text: str) -> None:
    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("click.echo", lambda line, err: lines.append(line))
        say_lines(json.dumps({"subject": text}, indent=2))
    assert json.loads("\n".join(lines)) == {"subject": text}


@pytest.mark.parametrize("path", sorted(CLI.glob("*.py")), ids=lambda path: path.stem)
def test_no_command_prints_past_it(path: Path) -> None:
    if path.stem != "printing":
        assert not re.search(
            r"\bclick\.s?echo\b|(?<![\w.])print\(|\bsys\.std(out|err)\b", path.read_text()
        )
