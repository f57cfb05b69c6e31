import subprocess
import sys
from pathlib import Path

# What a busy machine does now and then: the thread that answers is stopped for a while, when who
# waited for the answer can already go on.
PROGRAM = """
import asyncio, sys, time
from asyncio.selector_events import BaseSelectorEventLoop
from app.attachments.store import AttachmentStore

wake = BaseSelectorEventLoop._write_to_self

def wake_and_pause(loop):
    wake(loop)
    time.sleep(0.5)

BaseSelectorEventLoop._write_to_self = wake_and_pause

class LongEnd:
    def __del__(self, sleep=time.sleep):
        sleep(2)

sys.long_end = LongEnd()
asyncio.run(AttachmentStore.from_url(sys.argv[1]).size("0" * 64))
print("done")
sys.exit(7)
"""


def test_a_process_ends_with_its_own_status_though_the_store_has_not_finished(
    tmp_path: Path,
) -> None:
    url = f"file://{tmp_path / 'store'}"
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, url], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (7, "done\n", "")
