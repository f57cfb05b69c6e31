"""Metrics of real processes: what they add up to is what the database holds."""

import json
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families
from support import (
    PROJECT,
    Services,
    create_token,
    email,
    free_port,
    is_success,
    need,
    shut_out,
    signed,
    wait_until,
)

from app.api.emails import COUNT
from app.api.metrics import FINISHED, UNFINISHED

WEBHOOK = "/api/v1/zendesk/webhook"
RULES = PROJECT / "docs" / "prometheus-rules.yml"
DASHBOARD = PROJECT / "docs" / "grafana-dashboard.json"
STATES = ("received", "queued", "processing", "completed", "failed")

Connection: TypeAlias = "psycopg.Connection[dict[str, Any]]"
Samples: TypeAlias = "Counter[str]"

HANDLER = """
import asyncio
from app.handlers.seam import PermanentFailure, Retry

async def handle(email):
    match email.subject:
        case "permanent":
            raise PermanentFailure("no such customer")
        case "never":
            raise ConnectionError("away")
        case "hangs":
            await asyncio.Event().wait()
        case "once" if email.retry_count == 0:
            raise ConnectionError("away")
        case "asks" if email.retry_count == 0:
            raise Retry("busy", after=0)
"""


TOKEN = {"Authorization": "Bearer token"}


def scrape(url: str, token: dict[str, str] = TOKEN) -> Samples:
    """Each sample by its name and labels, as Prometheus writes them."""
    answer = httpx.get(f"{url}/metrics", headers=token, timeout=60)
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=")
    samples: Samples = Counter()
    for family in text_string_to_metric_families(answer.text):
        for sample in family.samples:
            labels = ",".join(f'{name}="{value}"' for name, value in sample.labels.items())
            samples[f"{sample.name}{{{labels}}}" if labels else sample.name] = sample.value
    return samples


def total(samples: Samples, name: str) -> float:
    """The sum over all labels."""
    return sum(value for key, value in samples.items() if key.partition("{")[0] == name)


def metrics_urls(services: Services) -> list[str]:
    """Where the workers show their metrics, by their log."""
    ports = re.findall(r"metrics_shown.*?port\W+(\d+)", re.sub(r"\x1b\[\d*m", "", services.log()))
    return [f"http://127.0.0.1:{port}" for port in ports]


def wait_for_metrics(services: Services, *, processes: int) -> list[str]:
    wait_until(lambda: len(metrics_urls(services)) == processes, services.log)
    return metrics_urls(services)


def counts(connection: Connection) -> dict[str, int]:
    rows = connection.execute(
        "SELECT processing_status AS state, count(*)::int AS emails FROM incoming_emails GROUP BY 1"
    ).fetchall()
    return {row["state"]: row["emails"] for row in rows}


def post(services: Services, subject: str, *, times: int = 1) -> None:
    """Post an email, and send it again; each delivery has a signature of its own."""
    payload = email(subject=subject)
    for _ in range(times):
        answer = httpx.post(services.url + WEBHOOK, timeout=60, **signed(payload))
        assert answer.status_code == 200, answer.text


def post_refused(services: Services) -> None:
    """One webhook that each reason refuses."""
    good = signed(email())
    wrong = {**good, "headers": {**good["headers"], "content-type": "text/plain"}}
    for arguments, status in (
        (signed(email(), secret="another"), 401),
        (signed(b"[]"), 400),
        (signed({"ticket_id": "1"}), 400),
        (signed(b" " * 20_000), 413),
        (wrong, 415),
    ):
        answer = httpx.post(services.url + WEBHOOK, timeout=60, **arguments)
        assert answer.status_code == status, answer.text


def run_emails(services: Services, connection: Connection) -> None:
    """Have emails end in every way, and webhooks be refused in every way."""
    for subject in ("good", "good", "good", "permanent", "never", "hangs", "once", "asks"):
        post(services, subject)
    post(services, "good", times=3)
    post_refused(services)
    wait_until(lambda: counts(connection) == {"completed": 6, "failed": 3}, services.log)


@pytest.fixture
def running(services: Services) -> Services:
    """A web process, and a worker of two processes that show their metrics."""
    services.write_handler(HANDLER)
    services.environment |= {
        "MAILROOM_METRICS_PORT": str(free_port()),
        "MAILROOM_MAX_RETRIES": "1",
        "MAILROOM_HANDLER_TIMEOUT_SECONDS": "3",
        "MAILROOM_MAX_BODY_BYTES": "10000",
    }
    services.start_web()
    services.start("dramatiq", "app.worker", "--processes", "2")
    wait_for_metrics(services, processes=2)
    return services


def test_metrics_add_up_to_what_the_database_holds(
    running: Services, connection: Connection
) -> None:
    run_emails(running, connection)
    web = scrape(running.url)
    workers: Samples = sum((scrape(url) for url in metrics_urls(running)), Counter())

    assert {
        r: web[f'mailroom_webhooks_total{{result="{r}"}}'] for r in ("accepted", "duplicate")
    } == {
        "accepted": 9,
        "duplicate": 2,
    }
    refused = connection.execute(
        "SELECT reason, count(*)::int AS webhooks FROM quarantined_webhooks GROUP BY 1"
    ).fetchall()
    assert len(refused) == 5
    for row in refused:
        key = f'mailroom_webhooks_total{{result="{row["reason"]}"}}'
        assert web[key] == row["webhooks"], key
    assert web['mailroom_webhooks_total{result="unavailable"}'] == 0
    assert web["mailroom_accept_duration_seconds_count"] == 11
    assert web["mailroom_batch_rows_sum"] == 11

    held = connection.execute(
        "SELECT count(*)::int AS emails, sum(claims)::int AS claims,"
        " sum(retry_count)::int AS retries,"
        " sum(jsonb_array_length(attempt_errors))::int AS errors FROM incoming_emails"
    ).fetchone()
    assert held is not None
    assert held["emails"] == 9
    assert total(workers, "mailroom_claims_total") == held["claims"]
    assert total(workers, "mailroom_handler_duration_seconds_count") == held["claims"]
    assert total(workers, "mailroom_retries_total") == held["retries"]
    assert total(workers, "mailroom_completions_total") == counts(connection)["completed"]
    assert total(workers, "mailroom_failures_total") == counts(connection)["failed"]
    assert held["errors"] == held["retries"] + counts(connection)["failed"]
    for kind, failures, retries in (
        ("permanent", 1, 0),
        ("error", 1, 2),
        ("timeout", 1, 1),
        ("requested", 0, 1),
    ):
        assert workers[f'mailroom_failures_total{{kind="{kind}"}}'] == failures, kind
        assert workers[f'mailroom_retries_total{{kind="{kind}"}}'] == retries, kind
    assert total(workers, "mailroom_rescues_total") == 0
    assert total(workers, "mailroom_broker_errors_total") == 0

    wait_until(
        lambda: states(scrape(running.url)) == {**dict.fromkeys(STATES, 0), **counts(connection)}
    )


def states(samples: Samples) -> dict[str, float]:
    """The emails in each state, where known."""
    keys = {state: f'mailroom_emails{{state="{state}"}}' for state in STATES}
    return {state: samples[key] for state, key in keys.items() if key in samples}


def test_a_scrape_tells_the_oldest_age_and_gets_by_without_the_database(
    services: Services, connection: Connection
) -> None:
    connection.execute(
        "INSERT INTO incoming_emails (from_email, subject, received_at)"
        " VALUES ('erika@example.com', 'old', now() - interval '2 hours')"
    )
    services.start_web()
    seen = scrape(services.url)
    assert seen['mailroom_oldest_email_age_seconds{state="received"}'] >= 7200
    assert seen['mailroom_oldest_email_age_seconds{state="failed"}'] == 0
    assert states(seen) == {**dict.fromkeys(STATES, 0), "received": 1}
    with shut_out(services.environment["DATABASE_URL"]):
        wait_until(lambda: states(scrape(services.url)) == {}, services.log)
        answer = httpx.post(services.url + WEBHOOK, timeout=60, **signed(email()))
        assert answer.status_code == 503
        assert scrape(services.url)['mailroom_webhooks_total{result="unavailable"}'] == 1
    wait_until(lambda: states(scrape(services.url)).get("received") == 1, services.log)


@pytest.mark.parametrize("table", ["canaries", "zendesk_cursors", "processing_pauses"])
def test_the_first_scrape_does_not_wait_for_a_slow_database(services: Services, table: str) -> None:
    services.start_web()
    post(services, "first")
    with psycopg.connect(services.environment["DATABASE_URL"]) as elsewhere:
        elsewhere.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        assert scrape(services.url)['mailroom_webhooks_total{result="accepted"}'] == 1


def test_a_created_token_opens_the_metrics_while_the_database_is_away(
    services: Services, connection: Connection
) -> None:
    known, unknown = create_token(services, "prometheus"), create_token(services, "idle")
    services.start_web()
    jobs = f"{services.url}/api/v1/jobs"
    assert states(scrape(services.url, known))
    assert httpx.get(jobs, headers=known).status_code == 200
    with shut_out(services.environment["DATABASE_URL"]):
        wait_until(lambda: states(scrape(services.url, known)) == {}, services.log)
        for asked, token in (("/metrics", unknown), ("/api/v1/jobs", known)):
            assert_unavailable(httpx.get(services.url + asked, headers=token, timeout=60))
    assert scrape(services.url, unknown)
    revoked = services.run("mailroom", "token", "revoke", "prometheus")
    assert revoked.returncode == 0, revoked.stderr
    assert httpx.get(f"{services.url}/metrics", headers=known).status_code == 401


def test_a_token_is_not_looked_up_for_ever(services: Services, connection: Connection) -> None:
    token = create_token(services, "prometheus")
    services.start_web()
    assert scrape(services.url, token)
    with psycopg.connect(services.environment["DATABASE_URL"]) as elsewhere:
        elsewhere.execute("LOCK TABLE api_tokens IN ACCESS EXCLUSIVE MODE")
        assert states(scrape(services.url, token))
        assert_unavailable(httpx.get(f"{services.url}/api/v1/jobs", headers=token, timeout=60))
        wrong = {"Authorization": "Bearer wrong"}
        assert_unavailable(httpx.get(f"{services.url}/metrics", headers=wrong, timeout=60))
    assert httpx.get(f"{services.url}/api/v1/jobs", headers=token).status_code == 200


def assert_unavailable(answer: httpx.Response) -> None:
    assert answer.status_code == 503, answer.text
    assert answer.headers["retry-after"]
    assert answer.headers["content-type"] == "application/problem+json"


def test_emails_are_counted_by_the_index_alone(connection: Connection) -> None:
    connection.execute(
        "INSERT INTO incoming_emails (from_email, subject, raw_body_text, processing_status)"
        " SELECT 'erika@example.com', 'x', repeat('x', 1000),"
        " CASE WHEN n % 1000 = 0 THEN 'queued' WHEN n % 100 = 0 THEN 'failed' ELSE 'completed' END"
        " FROM generate_series(1, 20000) AS n"
    )
    connection.execute("VACUUM ANALYZE incoming_emails")
    query = COUNT.replace("$1", "%(states)s").replace("$2", "%(at_most)s")
    for counted in (UNFINISHED, FINISHED):
        for at_most in (None, 100_000):
            values = {"states": [state.value for state in counted], "at_most": at_most}
            plan = connection.execute(f"EXPLAIN {query}", values).fetchall()
            lines = "\n".join(str(row["QUERY PLAN"]) for row in plan)
            assert lines.count("Only Scan using ix_incoming_emails_status_received") == 2, lines
            assert "Seq Scan" not in lines, lines


def test_web_servers_of_several_processes_behind_one_port_are_added_up(
    services: Services, tmp_path: Path
) -> None:
    folder = tmp_path / "multiproc"
    folder.mkdir()
    services.start(
        "litestar", "--app", "app.main:create_app", "run", "--web-concurrency", "2",
        "--port", services.environment["MAILROOM_PORT"],
        PROMETHEUS_MULTIPROC_DIR=str(folder),
        PYTHONPATH=str(PROJECT),
    )  # fmt: skip
    wait_until(lambda: "accepted" in try_post(services), services.log)
    before = scrape(services.url)['mailroom_webhooks_total{result="accepted"}']
    for _ in range(30):
        post(services, "good")
    # Whichever of the two answers.
    for _ in range(10):
        assert scrape(services.url)['mailroom_webhooks_total{result="accepted"}'] == before + 30


def try_post(services: Services) -> str:
    try:
        return httpx.post(services.url + WEBHOOK, timeout=60, **signed(email())).text
    except httpx.HTTPError:
        return ""


def test_a_worker_without_a_port_for_its_metrics_works_all_the_same(
    services: Services, connection: Connection
) -> None:
    services.start_web()
    services.start_worker()
    # An address that is not ours.
    services.start_worker(MAILROOM_HOST="192.0.2.1", MAILROOM_METRICS_PORT=str(free_port()))
    wait_until(lambda: services.log().count("ready for action") == 2, services.log)
    assert "metrics_not_shown" in services.log()
    assert metrics_urls(services) == []
    post(services, "good")
    wait_until(lambda: counts(connection) == {"completed": 1}, services.log)


def test_rescues_and_broker_errors_are_counted(services: Services, connection: Connection) -> None:
    connection.execute(
        "INSERT INTO incoming_emails (from_email, subject, processing_status, lease_expires_at,"
        " started_at, claims) VALUES ('erika@example.com', 'x', 'processing', now(), now(), 1)"
    )
    services.environment["MAILROOM_METRICS_PORT"] = str(free_port())
    # Nobody takes over before a lease's time of contact with the database.
    services.start_worker(MAILROOM_LEASE_SECONDS="3")
    (url,) = wait_for_metrics(services, processes=1)
    wait_until(lambda: counts(connection) == {"completed": 1}, services.log)
    assert scrape(url)['mailroom_rescues_total{kind="lease"}'] == 1
    connection.execute("ALTER TABLE dramatiq.queue RENAME TO gone")
    for use in ("send", "consume"):
        if use == "send":
            connection.execute("INSERT INTO incoming_emails (from_email) VALUES ('e@example.com')")
        key = f'mailroom_broker_errors_total{{use="{use}"}}'
        wait_until(lambda key=key: scrape(url)[key] > 0, services.log)


def test_promtool_takes_the_rules_and_the_metrics(running: Services) -> None:
    promtool = need("promtool")
    subprocess.run([promtool, "check", "rules", str(RULES)], check=True, timeout=60)
    for url in (running.url, *metrics_urls(running)):
        exposed = httpx.get(f"{url}/metrics", headers=TOKEN, timeout=60).content
        subprocess.run([promtool, "check", "metrics"], input=exposed, check=True, timeout=60)


def test_a_real_prometheus_scrapes_them_and_knows_what_the_dashboard_asks_for(
    running: Services, connection: Connection, tmp_path: Path
) -> None:
    targets = [urlsplit(url).netloc for url in (running.url, *metrics_urls(running))]
    prometheus = start_prometheus(running, tmp_path, targets)
    # A rise is seen only in what was scraped before.
    wait_until(lambda: query(prometheus, "up") == [1, 1, 1], running.log)
    run_emails(running, connection)
    for expression, expected in (
        ('sum(mailroom_webhooks_total{result="accepted"})', 9),
        ("sum(mailroom_completions_total)", 6),
        ("sum(mailroom_failures_total)", 3),
        ('max(mailroom_emails{state="failed"})', 3),
    ):
        wait_until(
            lambda expression=expression, expected=expected: (
                query(prometheus, expression) == [expected]
            ),
            running.log,
        )
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel["targets"]:
            expression = target["expr"].replace("$__rate_interval", "5m")
            # Chores, say, are done after a worker's start.
            wait_until(
                lambda expression=expression: query(prometheus, expression) != [],
                lambda expression=expression: f"{expression}\n{running.log()}",
            )
    wait_until(lambda: all(rule["health"] == "ok" for rule in rules(prometheus)))
    for name in ("MailroomOldestEmailWaits", "MailroomNoAccepts"):
        wait_until(lambda name=name: alert(prometheus, name) == "inactive")
    # A third of what ended failed.
    wait_until(lambda: alert(prometheus, "MailroomEmailsFail") == "pending")


def start_prometheus(services: Services, folder: Path, targets: list[str]) -> str:
    """Start a Prometheus that scrapes these. Returns its URL."""
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(RULES)],
        "scrape_configs": [
            {
                "job_name": "mailroom",
                "static_configs": [{"targets": targets}],
                "authorization": {"credentials": "token"},
            }
        ],
    }
    # JSON is YAML.
    (folder / "prometheus.yml").write_text(json.dumps(config))
    address = f"127.0.0.1:{free_port()}"
    with services.log_path.open("ab") as log:
        process = subprocess.Popen(
            [
                need("prometheus"),
                f"--config.file={folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={folder / 'tsdb'}",
                f"--web.listen-address={address}",
            ],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    services.processes.append(process)
    wait_until(lambda: is_success(f"http://{address}/-/ready"), services.log)
    return f"http://{address}"


def query(prometheus: str, expression: str) -> list[float]:
    """What Prometheus answers to an expression."""
    answer = httpx.get(f"{prometheus}/api/v1/query", params={"query": expression}).json()
    assert answer["status"] == "success", answer
    return [float(series["value"][1]) for series in answer["data"]["result"]]


def rules(prometheus: str) -> list[dict[str, Any]]:
    groups = httpx.get(f"{prometheus}/api/v1/rules").json()["data"]["groups"]
    return [rule for group in groups for rule in group["rules"]]


def alert(prometheus: str, name: str) -> str:
    """Whether an alert is inactive, pending or firing."""
    (state,) = [rule["state"] for rule in rules(prometheus) if rule["name"] == name]
    assert isinstance(state, str)
    return state
