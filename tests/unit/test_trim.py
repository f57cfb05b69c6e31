"""What is taken out of an image is read by nothing."""

import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import babel
import markupsafe
from support import PROJECT

TRIM = runpy.run_path(str(PROJECT / "docs" / "deploy" / "trim.py"))


def test_a_library_without_its_symbols_is_smaller_and_can_be_loaded(tmp_path: Path) -> None:
    shutil.copytree(Path(markupsafe.__file__).parent, tmp_path / "markupsafe")
    (library,) = tmp_path.glob("markupsafe/_speedups*.so")
    before = library.stat().st_size
    TRIM["drop_symbols"](library)
    assert library.stat().st_size < before
    escape = "from markupsafe._speedups import _escape_inner; print(_escape_inner('<'))"
    told = subprocess.run(
        [sys.executable, "-c", escape],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.stdout == "&lt;\n", told.stderr


def test_a_script_that_is_called_like_a_library_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "x.so").write_text("GROUP ( libx.so.1 )")
    TRIM["drop_symbols"](tmp_path / "x.so")
    assert (tmp_path / "x.so").read_text() == "GROUP ( libx.so.1 )"


def test_the_languages_of_pages_stay(tmp_path: Path) -> None:
    for file in (Path(babel.__file__).parent / "locale-data").glob("*.dat"):
        (tmp_path / file.name).touch()
    TRIM["keep_languages"](tmp_path)
    left = {file.stem for file in tmp_path.iterdir()}
    assert {"root", "en", "de", "de_AT"} <= left
    assert {name.partition("_")[0] for name in left} == {"root", "en", "de"}
