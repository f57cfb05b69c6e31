"""What each storm needs."""

from pathlib import Path

import pytest
from migrated_model import lay_down


@pytest.fixture
def storm_folder(short_folder: Path, model: Path) -> Path:
    """A folder with a short path, and in it the home of a server with a migrated database."""
    lay_down(model, short_folder / "pg")
    return short_folder
