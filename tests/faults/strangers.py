"""Strangers: what anybody can send to a web process without end, all of it at once."""

import contextlib
import socket
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
from support import sign_in

from app.intake.openapi import WEBHOOK_PATH

LOGIN = "/admin/public/login/"
MIB = 1024 * 1024
GUESSERS = 8
PAUSE_SECONDS = 0.05


def flood(port: int, seconds: float) -> Counter[str]:
    """Let them all send for so long. Returns how much of each there was; none of it may be zero
    where the process lives."""
    did: Counter[str] = Counter()
    deadline = time.monotonic() + seconds

    def again_and_again(do: Callable[[int, Counter[str]], None]) -> None:
        while time.monotonic() < deadline:
            # The process may be killed or stopped meanwhile.
            with contextlib.suppress(OSError, httpx.HTTPError):
                do(port, did)
            time.sleep(PAUSE_SECONDS)

    kinds = [_hold_large_bodies, _hold_many_bodies, _send_heads, *([_guess] * GUESSERS)]
    with ThreadPoolExecutor(len(kinds)) as strangers:
        for ended in [strangers.submit(again_and_again, kind) for kind in kinds]:
            ended.result()
    return did


def _guess(port: int, did: Counter[str]) -> None:
    # An address of their own for each, as a proxy on this machine names it.
    address = {"X-Forwarded-For": f"2001:db8:{time.monotonic_ns() % 65_536:x}::1"}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=address, timeout=30) as client:
        sign_in(client, "olga", "guess")
    did["guesses"] += 1


def _hold_large_bodies(port: int, did: Counter[str]) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(6):
            connection = held.enter_context(_begin(port, WEBHOOK_PATH, 10 * MIB))
            _send(connection, bytes(10 * MIB - 1))
            did["large bodies"] += 1
        time.sleep(PAUSE_SECONDS)


def _hold_many_bodies(port: int, did: Counter[str]) -> None:
    with contextlib.ExitStack() as held:
        for _ in range(100):
            connection = held.enter_context(_begin(port, LOGIN, 60_000))
            _send(connection, bytes(59_999))
            did["bodies"] += 1
        time.sleep(PAUSE_SECONDS)


def _send_heads(port: int, did: Counter[str]) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        _send(connection, b"X: a\r\n" * MIB)
        did["heads"] += 1


def _begin(port: int, path: str, length: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n"
    connection.sendall(head.encode())
    return connection


def _send(connection: socket.socket, data: bytes) -> None:
    """Send what is taken at once or soon."""
    connection.settimeout(1)
    with contextlib.suppress(TimeoutError):
        connection.sendall(data)
