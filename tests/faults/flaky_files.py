"""Files of emails, given out by a server that fails at times, as a storm needs them."""

import contextlib
import hashlib
import random
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

HOST = "127.0.0.1"
GONE = "gone"
LARGEST = 100_000


def content_of(name: str) -> bytes:
    """What the file of a name holds."""
    seed = hashlib.sha256(name.encode()).digest()
    return (seed * (LARGEST // len(seed)))[: int.from_bytes(seed[:3]) % LARGEST]


def name_of(url: str) -> str:
    """The name of the file that a URL leads to."""
    return urlsplit(url).path.rpartition("/")[2]


class FlakyFiles:
    """A server of files. What is named `gone...` is not there; of the others each request may fail
    in another way, by chance."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self._count = 0
        self._lock = threading.Lock()
        files = self

        class Respond(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                with contextlib.suppress(ConnectionError):
                    files.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer((HOST, 0), Respond)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def new_url(self) -> str:
        """The URL of one more file."""
        with self._lock:
            self._count += 1
            kind = GONE if self._chance.random() < 0.05 else "file"
            return f"http://{HOST}:{self._server.server_port}/{kind}-{self._count}"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        name, content = name_of(request.path), content_of(name_of(request.path))
        with self._lock:
            dice = self._chance.random()
        if name.startswith(GONE):
            _send(request, 404)
        elif dice < 0.05:
            _send(request, 500)
        elif dice < 0.07:
            _send(request, 429, retry_after="1")
        elif dice < 0.10:
            # It breaks off in the middle.
            request.close_connection = True
            _send(request, 200, content[: len(content) // 2], length=len(content) + 1)
        else:
            if dice < 0.13:
                time.sleep(1.0)
            _send(request, 200, content)

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _send(
    request: BaseHTTPRequestHandler,
    status: int,
    body: bytes = b"",
    *,
    length: int | None = None,
    retry_after: str | None = None,
) -> None:
    request.send_response(status)
    request.send_header("content-length", str(len(body) if length is None else length))
    if retry_after is not None:
        request.send_header("retry-after", retry_after)
    request.end_headers()
    request.wfile.write(body)
