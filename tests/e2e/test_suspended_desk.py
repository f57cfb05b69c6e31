"""Suspended mail and alarms as operators see them: at the desk and at the command line."""

import html
import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import httpx
import psycopg
import pytest
from standardwebhooks import Webhook
from support import Services, create_operators, enter, wait_until
from zendesk.account import Account
from zendesk.server import FakeApi, api_in_thread
from zendesk.suspended_api import suspend, suspended

Connection = psycopg.Connection[dict[str, Any]]
SECRET = "whsec_" + "A" * 43 + "="


class Told(BaseHTTPRequestHandler):
    """Takes what is told of alarms."""

    messages: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.messages.append(Webhook(SECRET).verify(body, dict(self.headers)))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def receiver() -> Iterator[str]:
    """The address of one who is told."""
    Told.messages.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Told) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/alarms"
        server.shutdown()


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with api_in_thread(Account()) as api:
        yield api


def reasons(connection: Connection) -> list[str]:
    rows = connection.execute("SELECT reason FROM quarantined_webhooks").fetchall()
    return [row["reason"] for row in rows]


@pytest.mark.long
def test_suspended_mail_is_listed_recovered_and_archived_at_both(
    services: Services, connection: Connection, api: FakeApi
) -> None:
    services.environment.update(api.environment)
    erika = suspend(api.account, "erika@example.com", "<b>Rechnung</b>", age=timedelta(days=12))
    spam = suspend(api.account, "spam@example.com", "Gewinn!")
    max_ = suspend(api.account, "max@example.com", "Frage")
    listed = services.run("mailroom", "suspended", "list")
    assert listed.returncode == 0, listed.stderr
    assert f"{erika}  12 days old, 2.0 left  spam (Detected as spam)  erika" in listed.stdout
    assert "3 are suspended, 0 of them are kept" in listed.stdout
    shown = services.run("mailroom", "suspended", "show", str(spam))
    assert "Text of Gewinn!" in shown.stdout
    assert services.run("mailroom", "suspended", "archive", "7").returncode == 1
    archived = services.run("mailroom", "suspended", "archive", str(spam), str(max_))
    assert archived.stdout == "2 archived\n"
    recovered = services.run("mailroom", "suspended", "recover", str(max_))
    assert recovered.stdout == "1 recovered\n"
    assert "1 are suspended" not in services.run("mailroom", "suspended", "list").stdout
    # The copy of what is recovered stays until its email is here.
    assert reasons(connection) == ["suspended", "suspended"]
    retried = services.run("mailroom", "quarantine", "retry", "--all")
    assert (retried.returncode, "2 suspended ones passed over" in retried.stdout) == (0, True)

    create_operators(services)
    services.start_web()
    with httpx.Client(base_url=services.url, headers={"Referer": services.url}) as client:
        assert client.get("/suspended").status_code == 303
        enter(client, services)
        page = client.get("/suspended").text
        assert "&lt;b&gt;Rechnung&lt;/b&gt;" in page
        form = {"action": "archive", "which": "checked", "id": str(erika)}
        asked = client.get("/suspended/new", params=form).text
        assert "<strong>1</strong> would be kept in the quarantine" in asked
        token = html.unescape(asked.split('name="token" value="')[1].split('"')[0])
        assert client.post("/suspended", data=form).status_code == 403
        assert erika in suspended(api.account)
        done = client.post("/suspended", data={**form, "token": token})
        assert done.headers["location"].endswith("/suspended?archived=1")
        assert "Kept in the quarantine: 1." in client.get(done.headers["location"]).text
        assert "from its API" in client.get("/quarantine").text
        again = client.get("/suspended/new", params=form).text
        assert "1 are archived: left alone" in again
        for text, number in (("", 3), ("rechnung erika", 1), ("cause:spam archived:no", 0)):
            listed = client.get("/suspended", params={"q": text}).text
            assert listed.count('name="id"') == number, text
        assert "archived: is yes or no" in client.get("/suspended?q=archived:perhaps").text
        everything = {"action": "recover", "which": "all", "q": "rechnung", "token": token}
        asked = client.get("/suspended/new", params=everything).text
        everything["until"] = html.unescape(asked.split('name="until" value="')[1].split('"')[0])
        late = suspend(api.account, "late@example.com", "Rechnung")
        assert "late@" in services.run("mailroom", "suspended", "list").stdout
        done = client.post("/suspended", data=everything)
        assert done.headers["location"].endswith("/suspended?q=rechnung&recovered=1")
        assert erika not in suspended(api.account)
        assert late in suspended(api.account)
        gone = client.get("/suspended/new", params=everything).text
        assert "1 were asked for within the hour: left alone" in gone
        assert "So there is nothing to be done." in gone
    # Two are recovered, and their emails are waited for.
    listed = services.run("mailroom", "suspended", "list")
    assert "4 are suspended, 3 of" in listed.stdout
    assert reasons(connection) == ["suspended"] * 3
    assert [t.subject for t in api.account.tickets.values()] == ["Frage", "<b>Rechnung</b>"]
    log = services.log_path.read_text()
    assert "erika@example.com" not in log


@pytest.mark.long
def test_workers_watch_and_tell_and_the_desk_shows_it(
    services: Services, connection: Connection, api: FakeApi, receiver: str
) -> None:
    services.environment.update(api.environment)
    services.environment["MAILROOM_ALERT_SECRET"] = SECRET
    services.environment["MAILROOM_OUTBOUND_OPEN_LOOPBACK"] = "true"
    services.environment["MAILROOM_SUSPENDED_ARCHIVE"] = "true"
    services.environment["MAILROOM_SUSPENDED_RECOVER"] = "*:max@example.com"
    suspend(api.account, "erika@example.com", age=timedelta(days=13))
    suspend(api.account, "max@example.com")
    services.start_worker(MAILROOM_ALERT_URL=receiver)
    wait_until(lambda: reasons(connection) == ["suspended"])
    wait_until(lambda: len(api.account.tickets) == 1)
    connection.execute(
        # Its key is none that the watch over silence ends.
        "INSERT INTO alarms (kind, key, text, mend) VALUES"
        " ('silence', 'test', 'no email came for 3 h', 'see <the> webhook')"
    )
    wait_until(lambda: Told.messages)
    [told] = Told.messages
    assert (told["type"], told["data"]["text"]) == ("alarm.began", "no email came for 3 h")
    create_operators(services)
    services.start_web()
    with httpx.Client(base_url=services.url) as client:
        enter(client, services)
        figures = client.get("/overview/figures").text
        assert "mails</a> are suspended at Zendesk" in figures
        assert "in the quarantine," not in figures
        assert "no email came for 3 h." in figures
        assert "see &lt;the&gt; webhook." in figures
        assert "Silence: no email came yet." in figures
    metrics = httpx.get(f"{services.url}/metrics", headers={"Authorization": "Bearer token"})
    listed = services.run("mailroom", "alerts", "list")
    assert listed.returncode == 1
    assert "no email came for 3 h. see <the> webhook." in listed.stdout
    assert "1 wrong now" in listed.stdout
    assert 'mailroom_alarm{kind="silence"} 1.0' in metrics.text
    nobody = services.run("mailroom", "alerts", "test")
    assert "MAILROOM_ALERT_URL is empty" in nobody.stderr
    somebody = services.run("mailroom", "alerts", "test", MAILROOM_ALERT_URL=receiver)
    assert somebody.stdout == "ok   webhook 127.0.0.1\n"
    assert Told.messages[-1]["type"] == "alarm.test"
    assert json.loads(services.run("mailroom", "doctor", "--json").stdout)
