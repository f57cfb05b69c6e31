"""The example of a handler against a case system over real HTTP: what its docstring promises."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from support import PROJECT
from test_handler_surroundings import CONTENT, keep
from test_processing import Pool, errors_of, process, read, store

from app.handlers.loading import load_handler
from app.testing import File, NotKept, make_email, run_handler


class CaseSystem(ThreadingHTTPServer):
    """Knows a case again by its Idempotency-Key, and has one place for each file."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Asked)
        self.cases: dict[str, dict[str, Any]] = {}
        self.files: dict[str, tuple[str, str, bytes]] = {}
        self.asked: Counter[str] = Counter()
        self.answers: list[tuple[str, int, dict[str, str]]] = []
        """What comes in place of the next answers to these methods."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Asked(BaseHTTPRequestHandler):
    """One request to it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        system, body = self._begin()
        if body is None:
            return
        key = self.headers["idempotency-key"]
        case = system.cases.setdefault(key, {"id": f"C-{len(system.cases)}", **json.loads(body)})
        self._answer(201, {"id": case["id"]})

    def do_PUT(self) -> None:
        system, body = self._begin()
        if body is None:
            return
        parts = urlsplit(self.path)
        assert re.fullmatch(r"/cases/C-\d+/files/\d+", parts.path)
        (name,) = parse_qs(parts.query)["name"]
        system.files[parts.path] = (name, self.headers["content-type"], body)
        self._answer(200, {})

    def _begin(self) -> tuple[CaseSystem, bytes | None]:
        system = self.server
        assert isinstance(system, CaseSystem)
        body = self.rfile.read(int(self.headers["content-length"]))
        system.asked[self.command] += 1
        if self.headers["authorization"] != "Bearer the token":
            self._answer(401, {})
        elif system.answers and system.answers[0][0] == self.command:
            _, status, headers = system.answers.pop(0)
            self._answer(status, {}, headers)
        else:
            return system, body
        return system, None

    def _answer(self, status: int, content: object, headers: dict[str, str] | None = None) -> None:
        text = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"content-length": str(len(text)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def cases(monkeypatch: pytest.MonkeyPatch) -> Iterator[CaseSystem]:
    system = CaseSystem()
    thread = Thread(target=system.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.syspath_prepend(str(PROJECT / "examples"))
    monkeypatch.setenv("CASES_URL", system.url)
    monkeypatch.setenv("CASES_TOKEN", "the token")
    yield system
    system.shutdown()
    thread.join()
    system.server_close()


def load() -> Any:
    return load_handler("open_case:handle", threads=1)


async def test_a_case_is_opened_once_with_its_files_though_it_is_busy_and_breaks(
    pool: Pool, cases: CaseSystem, tmp_path: Path
) -> None:
    """A worker runs it, as with MAILROOM_HANDLER=open_case:handle."""
    values = {
        "outbound_internal_hosts": cases.url,
        "attachment_store": tmp_path.as_uri(),
    }
    email_id = await store(pool, raw_body_text="Where is my parcel?", zendesk_ticket_id="35436")
    await keep(pool, tmp_path, email_id)
    cases.answers.append(("POST", 429, {"retry-after": "77"}))
    row = await process(pool, load(), email_id, **values)
    assert row["processing_status"] == "queued"
    assert 60 < (row["next_attempt_at"] - row["started_at"]).total_seconds() < 90
    assert errors_of(row)[-1] == (1, "the case system is busy")

    for break_down in (False, True, False):
        # Once it goes through and its worker vanishes with the result, once the system fails in the
        # middle of it, and then it goes through.
        await pool.execute(
            "UPDATE incoming_emails SET processing_status = 'queued', next_attempt_at = NULL"
        )
        if break_down:
            cases.answers.append(("PUT", 503, {}))
        row = await process(pool, load(), email_id, **values)
    row = await read(pool, email_id)
    assert row["processing_status"] == "completed", errors_of(row)
    found = json.loads(row["extracted_data"])
    assert found["case"] == "C-0"
    assert [file["name"] for file in found["left_out"]] == ["huge.zip"]
    (case,) = cases.cases.values()
    assert case["text"] == "Where is my parcel?"
    assert case["ticket"] == "35436"
    assert cases.files == {"/cases/C-0/files/0": ("bill.pdf", "application/pdf", CONTENT)}
    assert cases.asked == {"POST": 4, "PUT": 3}


def test_it_can_be_tried_without_a_worker(cases: CaseSystem) -> None:
    handler = load().__wrapped__
    files = [File("../order.pdf", b"%PDF", "application/pdf"), NotKept("gone.pdf")]
    email = make_email(attachments=files)
    for _ in range(2):
        run = run_handler(handler, email)
        assert run.data()["case"] == "C-0"
        assert run.progress == ["opens the case", "case C-0: hands over file 1"]
    assert cases.files == {"/cases/C-0/files/0": ("order.pdf", "application/pdf", b"%PDF")}


def test_what_the_case_system_refuses_is_not_sent_again(
    cases: CaseSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    handler = load().__wrapped__
    assert "no text" in run_handler(handler, make_email(raw_body_text=None)).failure()
    monkeypatch.setenv("CASES_TOKEN", "another")
    assert run_handler(handler, make_email()).failure() == "the case system refuses it: 401"
    monkeypatch.setenv("CASES_TOKEN", "the token")
    cases.answers.append(("POST", 500, {}))
    assert run_handler(handler, make_email()).retry_after() > 10
    assert cases.cases == {}


def test_a_dry_run_opens_no_case(cases: CaseSystem) -> None:
    run = run_handler(load().__wrapped__, make_email(), is_dry_run=True)
    assert "would send POST" in run.error()
    assert not cases.asked
