"""The ways out of the quarantine, as programs, operators and commands go them."""

import html
import json
import re
import sys
from typing import Any
from uuid import uuid4

import httpx
import psycopg
from support import Services, create_operators, create_token, email, enter, signed, wait_until

from app.intake.openapi import WEBHOOK_PATH

Connection = psycopg.Connection[dict[str, Any]]

# Without knowing the template nobody can tell whether the subject ends before `priority`.
BROKEN = (
    b'{"ticket_id": "7", "from_email": "kim@example.org", "subject": "say "yes" <b>", '
    b'"priority": "high"}'
)
MENDED = BROKEN.replace(b'"yes"', b'\\"yes\\"')


def refuse(services: Services, body: bytes = BROKEN) -> str:
    answer = httpx.post(services.url + WEBHOOK_PATH, **signed(body), timeout=60)
    # What Zendesk signed and nobody can read is an email that failed, and kept to be mended.
    assert answer.status_code == (200 if b'"yes"' in body else 400), answer.text
    return answer.headers["x-request-id"]


def stored(connection: Connection) -> list[dict[str, Any]]:
    return connection.execute("SELECT * FROM incoming_emails ORDER BY created_at").fetchall()


def test_a_program_mends_and_admits(services: Services, connection: Connection) -> None:
    services.start_web()
    refused = refuse(services)
    unrendered = json.dumps(email(ticket_id="{{ticket.id}}")).encode()
    refuse(services, unrendered)
    reader, operator = (
        create_token(services, "reader"),
        create_token(services, "olga", "--scope", "operate"),
    )
    url = f"{services.url}/api/v1/quarantine"
    page = httpx.get(url, headers=reader, params={"limit": 1}, timeout=60).json()
    assert [item["id"] for item in page["items"]] == [refused]
    assert page["items"][0]["is_signed"] is True
    rest = httpx.get(url, headers=reader, params={"cursor": page["next_cursor"]}, timeout=60).json()
    assert "placeholder {{ticket.id}}" in rest["items"][0]["detail"]
    assert rest["next_cursor"] is None
    detail = httpx.get(f"{url}/{refused}", headers=reader, timeout=60).json()
    assert detail["text"] == BROKEN.decode()
    assert detail["is_genuine"] is True
    assert "not JSON" in detail["wrong"][0]
    admit = f"{url}/{refused}/admit"
    mended = {"body": MENDED.decode()}
    assert httpx.post(admit, headers=reader, json=mended, timeout=60).status_code == 403
    unmended = httpx.post(admit, headers=operator, timeout=60)
    assert unmended.status_code == 409
    assert "not JSON" in unmended.json()["detail"]
    admitted = httpx.post(admit, headers=operator, json=mended, timeout=60)
    assert admitted.json()["status"] == "accepted"
    (row,) = stored(connection)
    assert str(row["id"]) == admitted.json()["email_id"]
    assert row["subject"] == 'say "yes" <b>'
    assert bytes(row["original_body"]) == BROKEN
    assert httpx.post(admit, headers=operator, json=mended, timeout=60).status_code == 404
    discarded = httpx.delete(f"{url}/{rest['items'][0]['id']}", headers=operator, timeout=60)
    assert discarded.status_code == 204
    assert httpx.get(url, headers=reader, timeout=60).json()["items"] == []


def test_an_operator_sees_it_on_the_overview_and_mends_it(
    services: Services, connection: Connection
) -> None:
    services.start_web()
    create_operators(services)
    refused = refuse(services)
    with httpx.Client(base_url=services.url, timeout=60) as client:
        assert client.get(f"/quarantine/{refused}").status_code == 303
        enter(client, services)
        wait_until(lambda: ">1</strong> refused" in client.get("/").text)
        assert f"/quarantine/{refused}" in client.get("/quarantine").text
        page = client.get(f"/quarantine/{refused}").text
        assert "say &#34;yes&#34; &lt;b&gt;" in page
        assert "not JSON" in page
        assert f"Line 1, column {BROKEN.index(b'yes') + 1}:" in page
        token = re.search('name="token" value="([0-9a-f]+)"', page)
        assert token
        form = {"text": MENDED.decode(), "action": "admit"}
        assert client.post(f"/quarantine/{refused}", data=form).status_code == 403
        form["token"] = token[1]
        checked = client.post(f"/quarantine/{refused}", data={**form, "action": "check"})
        assert "<li>Nothing.</li>" in checked.text
        assert [row["processing_status"] for row in stored(connection)] == ["failed"]
        still_wrong = client.post(f"/quarantine/{refused}", data={**form, "text": "{"})
        assert "It is not admitted" in still_wrong.text
        admitted = client.post(f"/quarantine/{refused}", data=form)
        assert admitted.status_code == 303, admitted.text
        (row,) = stored(connection)
        assert str(row["id"]) in client.get(admitted.headers["location"]).text
        assert client.get(f"/quarantine/{refused}").status_code == 404
    assert "by olga" in row["attempt_errors"][0]["error"]


def test_a_signed_webhook_that_could_not_be_kept_is_kept_when_it_comes_again(
    services: Services, connection: Connection
) -> None:
    services.start_web()
    delivery = signed(BROKEN)
    connection.execute("ALTER TABLE quarantined_webhooks RENAME TO away")

    def post() -> tuple[int, str | None]:
        answer = httpx.post(services.url + WEBHOOK_PATH, **delivery, timeout=60)
        return answer.status_code, answer.json().get("status")

    assert post() == (503, 503)
    (row,) = stored(connection)
    connection.execute("ALTER TABLE away RENAME TO quarantined_webhooks")
    assert [post() for _ in range(3)] == [(200, "duplicate")] * 3
    kept = connection.execute("SELECT id, is_signed FROM quarantined_webhooks").fetchall()
    assert kept == [{"id": row["id"], "is_signed": True}]
    (services.folder / "mended.json").write_bytes(MENDED)
    mended = services.run("mailroom", "quarantine", "edit", str(row["id"]), "--file", "mended.json")
    assert mended.returncode == 0, mended.stderr
    # What is mended need not be mended again.
    assert post() == (200, "duplicate")
    assert connection.execute("SELECT FROM quarantined_webhooks").fetchall() == []


def test_a_signed_webhook_stands_before_all_refusals_of_strangers_and_pages_have_all(
    services: Services, connection: Connection
) -> None:
    services.start_web()
    create_operators(services)
    connection.execute(
        "INSERT INTO quarantined_webhooks (id, reason, detail, received_at) SELECT"
        " gen_random_uuid(), 'signature', repeat('wrong ', 100), now() - interval '1 day'"
        " FROM generate_series(1, 450)"
    )
    ours = refuse(services)
    with httpx.Client(base_url=services.url, timeout=60) as client:
        enter(client, services)
        pages, address = [], "/quarantine"
        while address:
            page = client.get(address)
            assert page.is_success, page.text
            assert len(page.content) < 100_000
            pages.append(re.findall('href="/quarantine/([0-9a-f-]{36})"', page.text))
            link = re.search('href="([^"]+)" rel="next"', page.text)
            address = html.unescape(link[1]) if link else ""
        assert pages[0][0] == ours
        assert [len(page) for page in pages] == [50] * 9 + [1]
        assert len({one for page in pages for one in page}) == 451
        assert client.get("/quarantine?after=x").status_code == 400
        # A table that cannot be asked, as while the database is away.
        page = client.get(f"/quarantine/{ours}").text
        token = re.search('name="token" value="([0-9a-f]+)"', page)
        assert token
        connection.execute(
            "CREATE FUNCTION away() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE admin_shutdown; END $$"
        )
        connection.execute(
            "CREATE TRIGGER away BEFORE DELETE ON quarantined_webhooks EXECUTE FUNCTION away()"
        )
        form = {"token": token[1], "text": MENDED.decode()}
        for action in ("discard", "admit"):
            answer = client.post(f"/quarantine/{ours}", data={**form, "action": action})
            assert answer.status_code == 503, answer.text


def test_a_command_mends_by_a_file_and_by_an_editor(
    services: Services, connection: Connection
) -> None:
    services.start_web()
    first, second = refuse(services), refuse(services, BROKEN.replace(b"7", b"8"))
    exported = services.run("mailroom", "quarantine", "export", first)
    assert exported.stdout.encode() == BROKEN
    everything = services.run("mailroom", "quarantine", "export", "--all", "--folder", "out")
    assert everything.stdout == "2 written to out\n"
    assert (services.folder / "out" / f"{first}.body").read_bytes() == BROKEN
    shown = services.run("mailroom", "quarantine", "show", first)
    assert "signature: right" in shown.stdout
    assert "wrong: the body is not JSON" in shown.stdout
    place = BROKEN.index(b"yes") + 1
    assert f"its text:1:{place}: wrong: the JSON breaks here, in subject" in shown.stdout
    story = services.run("mailroom", "show", first)
    assert f"payload:1:{place}: wrong: the JSON breaks here, in subject" in story.stdout
    unmended = services.run("mailroom", "quarantine", "edit", first, "--file", "-", stdin=BROKEN)
    assert unmended.returncode == 1
    assert "not admitted" in unmended.stderr
    (services.folder / "mended.json").write_bytes(MENDED)
    mended = services.run("mailroom", "quarantine", "edit", first, "--file", "mended.json")
    assert mended.returncode == 0, mended.stderr
    (services.folder / "editor.py").write_text(
        "import pathlib, sys\n"
        "path = pathlib.Path(sys.argv[1])\n"
        'path.write_text(path.read_text().replace(\'"yes"\', "yes"))\n'
    )
    edited = services.run(
        *("mailroom", "quarantine", "edit", second), EDITOR=f"{sys.executable} editor.py"
    )
    assert edited.returncode == 0, edited.stderr
    subjects = [row["subject"] for row in stored(connection)]
    assert subjects == ['say "yes" <b>', "say yes <b>"]
    assert not list((services.folder / "home" / "mending").iterdir())


def test_a_draft_is_whole_or_not_there_and_goes_with_its_webhook(
    services: Services, connection: Connection
) -> None:
    """Without a web process: it is there, refused, and its text fits no locale but UTF-8."""
    body = '{"ticket_id": "7", "from_email": "kim@example.org", "subject": "5 €"}'.encode()
    refused = str(uuid4())
    connection.execute(
        "INSERT INTO quarantined_webhooks (id, reason, body, size)"
        " VALUES (%s, 'signature', %s, %s)",
        (refused, body, len(body)),
    )
    draft = services.folder / "home" / "mending" / f"{refused}.json"
    edit = ("mailroom", "quarantine", "edit", refused, "--accept-unsigned")
    untouched = services.run(
        *edit, EDITOR="true", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0"
    )
    assert untouched.returncode == 1
    assert "nothing was written" in untouched.stderr
    assert draft.read_bytes() == body
    assert stored(connection) == []
    discarded = services.run("mailroom", "quarantine", "discard", refused)
    assert discarded.returncode == 0, discarded.stderr
    assert list(draft.parent.iterdir()) == []


def test_a_draft_goes_when_its_sender_is_erased(services: Services, connection: Connection) -> None:
    """Also while an editor has it open."""
    refused, other = str(uuid4()), str(uuid4())
    for each, sender in ((refused, "kim@example.org"), (other, "erika@example.com")):
        connection.execute(
            "INSERT INTO quarantined_webhooks (id, reason, body, size)"
            " VALUES (%s, 'signature', %s, 7)",
            (each, json.dumps({"from_email": sender}).encode()),
        )
        services.run("mailroom", "quarantine", "edit", each, "--accept-unsigned", EDITOR="true")
    folder = services.folder / "home" / "mending"
    (folder / f".{refused}.json.swp").write_text("of an editor")
    assert len(list(folder.iterdir())) == 3
    (services.folder / "eraser.py").write_text(
        "import subprocess\n"
        "subprocess.run(['mailroom', 'erase', '--sender', 'kim@example.org'], check=True)\n"
    )
    erased = services.run(
        *("mailroom", "quarantine", "edit", refused, "--accept-unsigned"),
        EDITOR=f"{sys.executable} eraser.py",
    )
    assert erased.returncode == 1
    assert "left the quarantine meanwhile" in erased.stderr
    assert [path.name for path in folder.iterdir()] == [f"{other}.json"]
    services.start_worker()
    connection.execute("DELETE FROM quarantined_webhooks")
    connection.execute("UPDATE chores SET next_run_at = now() WHERE name = 'quarantine-drafts'")
    wait_until(lambda: not list(folder.iterdir()), services.log)


def test_an_operator_has_a_template_looked_at(services: Services) -> None:
    services.start_web()
    create_operators(services)
    with httpx.Client(base_url=services.url, timeout=60) as client:
        assert client.get("/lint").status_code == 303
        assert client.post("/lint", data={"text": "{}"}).status_code == 401
        enter(client, services)
        assert 'href="/lint"' in client.get("/").text
        page = client.get("/lint").text
        token = re.search('name="token" value="([0-9a-f]+)"', page)
        assert token
        ours = re.search("<textarea[^>]*>\n(.*)</textarea>", page, re.DOTALL)
        assert ours
        form = {"text": html.unescape(ours[1])}
        assert client.post("/lint", data=form).status_code == 403
        form["token"] = token[1]
        assert "Nothing is wrong with this template." in client.post("/lint", data=form).text
        wrong = form["text"].replace("ticket.title", "ticket.subject")
        form["text"] = wrong.replace('"from_name"', '"<b>"')
        found = client.post("/lint", data=form).text
        assert "Line 5, column 15:" in found
        assert "{{ticket.title}}" in found
        assert "&lt;b&gt; is kept in raw_payload" in found
        assert "<b> is" not in found
