"""Email beside strangers: every signed webhook is taken, and none needs a second try."""

from pathlib import Path

import httpx
import pytest
from storm import raging
from strangers import flood

# One budget of bodies, and what Python keeps of what it had.
MOST_MEMORY_GROWTH = 128 * 1024 * 1024
FLOOD_SECONDS = 10.0


@pytest.mark.timeout(600)
def test_email_is_taken_beside_strangers(storm_folder: Path) -> None:
    with raging(storm_folder, "", seed=5, per_second=20) as storm:
        storm.load.start()
        storm.load.wait_for(50)
        for port in storm.ports:
            # It is made once, when somebody first asks for it.
            httpx.get(f"http://127.0.0.1:{port}/admin/public/meta/").raise_for_status()
        before = storm.web_memory()
        for port in storm.ports:
            did = flood(port, FLOOD_SECONDS)
            assert did.keys() == {"guesses", "large bodies", "bodies", "heads"}
        growth = storm.web_memory() - before
        storm.load.wait_for(len(storm.load.accepted) + 50)
        storm.load.stop()
        storm.wait_until_quiet()
        assert storm.check() == {"completed": len(storm.load.accepted)}
        # Before the processes listen, nobody is answered.
        assert storm.load.answers.keys() - {"ConnectError"} == {200}
        assert growth < MOST_MEMORY_GROWTH
