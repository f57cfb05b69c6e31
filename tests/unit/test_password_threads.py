"""The threads that hash passwords step back, and run wherever they are."""

import os
import subprocess
import sys

import pytest

from app.desk.operators import NICENESS

LEAST_URGENT = 19
HASH = """
import asyncio, os, threading
from app.desk import operators

asyncio.run(operators.hash_aside("a password", "salt", 1))
(thread,) = (one for one in threading.enumerate() if one.name.startswith("password"))
print(os.getpriority(os.PRIO_PROCESS, thread.native_id))
"""


@pytest.mark.parametrize("given", [0, 15])
def test_a_process_that_is_nicer_than_its_threads_would_be_stays_so(given: int) -> None:
    own = min(os.getpriority(os.PRIO_PROCESS, 0) + given, LEAST_URGENT)
    ran = subprocess.run(
        ["nice", "-n", str(given), sys.executable, "-c", HASH],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(ran.stdout) == max(NICENESS, own)
