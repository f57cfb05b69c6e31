"""The check-list of a release, on a repository of the test's own, before it builds anything."""

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
