"""What docs/handlers.md tells a new user to write and to type works as it stands there."""

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from support import PROJECT

from app.cli import handler as handler_command
from app.cli.main import main

TEXT = (PROJECT / "docs" / "handlers.md").read_text()


def test_the_first_handler_can_be_tried_and_tested(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler, tests = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)[:2]
    (tmp_path / "my_handler.py").write_text(handler)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(handler_command, "configure_logging", lambda settings: None)
    ((content, name),) = re.findall(r"    echo '(.*)' > (\S+)\n", TEXT)
    (tmp_path / name).write_text(content)
    (command,) = re.findall(r"    mailroom (handler run email.json --handler my_\S+)\n", TEXT)
    ended = CliRunner().invoke(main, command.split())
    assert ended.exit_code == 0, ended.output
    assert 'extracted_data: {"words": 4}' in ended.output

    module: dict[str, object] = {}
    exec(compile(tests, "test_my_handler.py", "exec"), module)  # noqa: S102 - our own text
    written = [test for name, test in module.items() if name.startswith("test_")]
    assert len(written) == 2
    for test in written:
        assert callable(test)
        test()
