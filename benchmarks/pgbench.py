"""pgbench with the row of an email: what PostgreSQL itself takes, one commit a row."""

import subprocess
from pathlib import Path
from uuid import uuid4

from app.database.embedded.programs import find_binaries
from benchmarks.payloads import as_body, make_email
from benchmarks.web_client import Answered

# The embedded server takes a hundred, and the other contenders keep some of them open.
MOST_CONNECTIONS = 50

COLUMNS = (
    "id, zendesk_ticket_id, zendesk_webhook_id, from_email, from_name, subject, raw_body_text,"
    " received_at, raw_payload, attachment_urls, idempotency_key, delivery_signature"
)


def insert_all(
    database_url: str, folder: Path, *, size: int, connections: int, count: int
) -> Answered:
    """Insert so many rows.

    Raises:
        RuntimeError: pgbench fails; its own words say why.
    """
    email = make_email(0, size, run=uuid4().hex[:12])
    values = (
        "gen_random_uuid()",
        *map(_quoted, (email["ticket_id"], email["webhook_id"])),
        *map(_quoted, (email["from_email"], email["from_name"], email["subject"])),
        *(_quoted(email["body_text"]), "now()", _quoted(as_body(email).decode())),
        _quoted(str(email["attachments"]).replace("'", '"')),
        "gen_random_uuid()::text",
        "gen_random_uuid()::text",
    )
    script = folder / "insert.sql"
    script.write_text(f"INSERT INTO incoming_emails ({COLUMNS}) VALUES ({', '.join(values)});\n")  # noqa: S608
    for old in folder.glob("pgbench_log*"):
        old.unlink()
    connections = min(connections, MOST_CONNECTIONS)
    each = max(1, count // connections)
    ended = subprocess.run(
        [
            *(str(find_binaries() / "pgbench"), database_url, "--no-vacuum", "--protocol=prepared"),
            *(f"--file={script}", f"--client={connections}", f"--jobs={min(2, connections)}"),
            *(f"--transactions={each}", "--log", f"--log-prefix={folder / 'pgbench_log'}"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    told = dict(
        line.split(" = ", 1) for line in ended.stdout.splitlines() if line.count(" = ") == 1
    )
    if ended.returncode or "tps" not in told:
        raise RuntimeError(f"pgbench: {ended.stderr}")
    latencies = [
        int(line.split()[2]) / 1e6
        for log in folder.glob("pgbench_log*")
        for line in log.read_text().splitlines()
    ]
    per_second = float(told["tps"].split()[0])
    return Answered(len(latencies) / per_second, latencies)


def _quoted(text: str) -> str:
    # pgbench takes `:name` for a variable of its own only where it is one.
    return "'" + text.replace("'", "''") + "'"
