"""The event loop of Dramatiq's actors, made by uvloop: statements cost a worker less there than in
that of the library."""

import uvloop
from dramatiq.asyncio import EventLoopThread, set_event_loop_thread
from dramatiq.broker import Broker
from dramatiq.middleware import AsyncIO
from dramatiq.worker import Worker

START_SECONDS = 10.0


class FastAsyncIO(AsyncIO):
    """Dramatiq's AsyncIO, with that loop."""

    def before_worker_boot(self, broker: Broker, worker: Worker) -> None:
        thread = EventLoopThread(self.logger)
        thread.loop.close()
        thread.loop = uvloop.new_event_loop()
        thread.start(timeout=START_SECONDS)
        set_event_loop_thread(thread)
