"""A TCP proxy that can be cut or fall silent, in front of a server that the test does not own."""

import asyncio
import contextlib
import threading
from collections.abc import Callable

from support import free_port


class Proxy:
    """Passes bytes between a port of its own and a server, until it is cut.

    Args:
        target: host and port, or the path of a Unix socket.
    """

    def __init__(self, target: tuple[str, int] | str) -> None:
        self.port = free_port()
        self._target = target
        self._open: set[asyncio.StreamWriter] = set()
        self._passes = asyncio.Event()
        self._delay = 0.0
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self.restore()

    def restore(self) -> None:
        """Let connections through."""
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()

    def cut(self) -> None:
        """End all connections, and refuse new ones."""
        asyncio.run_coroutine_threadsafe(self._hang_up(), self._loop).result()

    def fall_silent(self) -> None:
        """Pass nothing on any longer over the connections there are, as if their other end had lost
        its power. New ones are let through."""
        self._loop.call_soon_threadsafe(self._forget)

    def slow_down(self, seconds: float) -> None:
        """Let each answer of the server wait so long."""
        self._delay = seconds

    def vanish(self) -> None:
        """Pass nothing on over any connection, whether it is there or comes, until restored."""
        self._loop.call_soon_threadsafe(self._passes.clear)

    def close(self) -> None:
        self.cut()
        asyncio.run_coroutine_threadsafe(self._give_up(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> None:
        self._passes.set()
        if self._server is None:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def _hang_up(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._open):
            writer.transport.abort()

    async def _give_up(self) -> None:
        serving = asyncio.all_tasks() - {asyncio.current_task()}
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)

    def _forget(self) -> None:
        self._passes.clear()
        self._passes = asyncio.Event()
        self._passes.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        passes = self._passes
        try:
            there_reader, there_writer = await (
                asyncio.open_unix_connection(self._target)
                if isinstance(self._target, str)
                else asyncio.open_connection(*self._target)
            )
            self._open.add(there_writer)
            await asyncio.gather(
                _pass_on(reader, there_writer, passes),
                _pass_on(there_reader, writer, passes, lambda: self._delay),
            )
            self._open.discard(there_writer)
        except OSError:
            pass
        finally:
            self._open.discard(writer)


async def _pass_on(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    passes: asyncio.Event,
    delay: Callable[[], float] = lambda: 0.0,
) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            await passes.wait()
            if seconds := delay():
                await asyncio.sleep(seconds)
            writer.write(data)
            await writer.drain()
    writer.close()
