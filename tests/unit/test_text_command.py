"""`mailroom text` shows what becomes of files, without a database."""

import json
from pathlib import Path

from click.testing import CliRunner

from app.cli.main import main

REPLY = (
    "Yes, please.\n\nOn Tue, 24 Nov 2026 at 10:00, Shop <shop@example.org> wrote:\n> The red one?\n"
)


def test_each_file_is_an_object_a_line(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(REPLY)
    (tmp_path / "b.html").write_text("<p>Grüße &amp; Dank</p>", encoding="utf-8")
    files = [str(tmp_path / name) for name in ("a.txt", "b.html")]
    result = CliRunner().invoke(main, ["text", *files, "--json"])
    assert result.exit_code == 0, result.output
    first, second = [json.loads(line) for line in result.output.splitlines()]
    assert (first["file"], first["cleaned_body"]) == (files[0], "Yes, please.")
    assert first["quoted"].endswith("wrote:\n> The red one?\n".rstrip())
    assert (first["kind"], first["language"], first["signature"]) == ("message", "en", "")
    assert second["cleaned_body"] == "Grüße & Dank"


def test_standard_input_is_read_as_html_or_text() -> None:
    for content, shown in (("<p>a</p>", "a"), ("a <b@example.org>", "a <b@example.org>")):
        result = CliRunner().invoke(main, ["text", "-", "--json"], input=content)
        assert json.loads(result.output)["cleaned_body"] == shown


def test_people_see_the_parts_and_no_orders_to_their_terminal(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(("\x9b2J" + REPLY).encode())
    result = CliRunner().invoke(main, ["text", str(path)])
    assert "Yes, please." in result.output and "-- quoted" in result.output
    assert "\x9b" not in result.output and "\x1b" not in result.output


def test_bytes_that_are_no_utf_8_are_read_as_windows_1252(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("Größe 5 €".encode("cp1252"))
    result = CliRunner().invoke(main, ["text", str(path), "--json"])
    assert json.loads(result.output)["cleaned_body"] == "Größe 5 €"


def test_a_file_that_is_not_there_is_told() -> None:
    result = CliRunner().invoke(main, ["text", "nowhere.txt"])
    assert result.exit_code == 1
    assert "nowhere.txt cannot be read" in result.output
