"""The check-list of a release, on a repository of the test's own, before it builds anything; and
what it and `.ci/versions` say where something cannot be had."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support import PROJECT, need

# Each line by what is wrong: the version, the changelog, the tags, and the line that says so.
CASES = [
    ("0.2.0rc1", "## [Unreleased]\n\n## [0.2.0rc1] - 2026-11-26\n", "the version is three numbers"),
    ("0.2.0", "## [Unreleased]\n\n## [0.1.0] - 2026-11-01\n", "CHANGELOG.md has a section"),
    (
        "0.2.0",
        "## [Unreleased]\n\n- More.\n\n## [0.2.0] - 2026-11-26\n",
        "nothing is left under [Unreleased]",
    ),
    ("0.1.0", "## [Unreleased]\n\n## [0.1.0] - 2026-11-01\n", "there is no tag v0.1.0"),
    ("0.0.9", "## [Unreleased]\n\n## [0.0.9] - 2026-11-26\n", "it is later than the last release"),
]


@pytest.mark.parametrize(("version", "changelog", "wrong"), CASES)
def test_a_release_that_is_not_ready_is_refused(
    tmp_path: Path, version: str, changelog: str, wrong: str
) -> None:
    repository = make_repository(tmp_path, version, changelog)
    found = run(repository)
    assert [line for line in found if line.startswith("FAIL")] == [
        next(line for line in found if wrong in line)
    ]


def test_what_is_not_committed_is_told(tmp_path: Path) -> None:
    repository = make_repository(
        tmp_path, "0.2.0", "## [Unreleased]\n- x\n\n## [0.2.0] - 2026-11-26\n"
    )
    (repository / "left").touch()
    assert "FAIL nothing is uncommitted" in run(repository)


@pytest.mark.parametrize(
    ("page", "is_fine"),
    [
        (None, False),
        ('<script src="https://cdn.example.com/one.js">', False),
        ('<link rel="icon" href="one.png"><a href="https://example.com/">', True),
    ],
)
def test_a_site_that_is_missing_or_loads_from_elsewhere_is_not_fine(
    tmp_path: Path, page: str | None, is_fine: bool
) -> None:
    if page is not None:
        (tmp_path / "site").mkdir()
        (tmp_path / "site" / "index.html").write_text(page)
    script = (PROJECT / ".ci" / "release").read_text()
    found = re.search(r"^needs_no_other_host\(\) \{.*?^\}", script, re.MULTILINE | re.DOTALL)
    assert found is not None
    ended = subprocess.run(
        ["bash", "-c", f"folder={tmp_path}\n{found[0]}\nif needs_no_other_host; then exit 7; fi"],
        capture_output=True,
        check=False,
    )
    assert (ended.returncode == 7) == is_fine


# Makes what it is asked for: an environment with pip and uv, which has no Python 9.9.
FAKE_PYTHON = """#!/bin/bash
mkdir -p "$3/bin"
printf '#!/bin/bash\\n' >"$3/bin/pip"
printf '#!/bin/bash\\n%s\\n' 'if [[ $1 == venv ]]; then
    [[ $4 != 9.9 ]] || { echo "no Python 9.9" >&2; exit 2; }
    mkdir -p "$5/bin"
    printf "#!/bin/bash\\necho tested with $4\\n" >"$5/bin/python"
    chmod +x "$5/bin/python"
fi' >"$3/bin/uv"
chmod +x "$3/bin/pip" "$3/bin/uv"
"""


def test_a_python_that_cannot_be_had_is_told_and_the_others_are_tried(tmp_path: Path) -> None:
    python = tmp_path / "python3"
    python.write_text(FAKE_PYTHON)
    python.chmod(0o755)
    ended = subprocess.run(
        [PROJECT / ".ci" / "versions", "9.9", "3.12"],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 1, ended.stderr
    assert ended.stdout.splitlines() == ["tested with 3.12", "failed: 9.9"]


def make_repository(folder: Path, version: str, changelog: str) -> Path:
    (folder / ".ci").mkdir()
    shutil.copy(PROJECT / ".ci" / "release", folder / ".ci")
    (folder / "pyproject.toml").write_text(f'[project]\nversion = "{version}"\n')
    (folder / "CHANGELOG.md").write_text(f"# Changelog\n\n{changelog}")
    git = [need("git"), "-c", "user.name=t", "-c", "user.email=t@example.com"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "All"], ["tag", "v0.1.0"]):
        subprocess.run([*git, *command], cwd=folder, check=True)
    return folder


def run(repository: Path) -> list[str]:
    ended = subprocess.run(
        [".ci/release"], cwd=repository, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1, ended.stdout + ended.stderr
    return ended.stdout.splitlines()
