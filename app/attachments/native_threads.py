"""That the store's own threads are not in Python when this process ends.

obstore answers from threads of its own, by `call_soon_threadsafe`. That gives up the interpreter's
lock for a moment, in which whoever waits may already be served, and end the process. A thread that
asks for the lock after that is ended by Python, and up to 3.13 takes the process along with
SIGABRT: https://github.com/PyO3/pyo3-async-runtimes/issues/40
"""

import atexit
import functools
import sys
import threading
import time

PATIENCE_SECONDS = 5.0
LOOK_SECONDS = 0.001


@functools.cache
def await_them_at_exit() -> None:
    """Have this process wait, at its end, until none of them is in Python."""
    atexit.register(_await_them)


def _await_them() -> None:
    ours = {thread.ident for thread in threading.enumerate()}
    give_up_at = time.monotonic() + PATIENCE_SECONDS
    while sys._current_frames().keys() - ours and time.monotonic() < give_up_at:
        time.sleep(LOOK_SECONDS)
