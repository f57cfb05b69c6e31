"""Behind a reverse proxy, under https and a path prefix: the nginx of docs/operations.md itself.

The configurations of nginx and of Mailroom are read from that page; only the host's name, ports and
paths of files are replaced.
"""

import contextlib
import json
import re
import ssl
import subprocess
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import attrs
import httpx
import psycopg
import pytest
from databases import Databases
from playwright.sync_api import Browser, Page, Request, Response, expect
from support import (
    PRODUCTION,
    PROJECT,
    Services,
    create_operators,
    email,
    free_port,
    need,
    open_page,
    reach,
    sign_in,
    sign_in_page,
    signed,
    wait_until,
)

from app.intake.openapi import WEBHOOK_PATH

SECTION = (
    (PROJECT / "docs" / "operations.md")
    .read_text()
    .partition("## Behind a reverse proxy")[2]
    .partition("\n## ")[0]
)
NGINX = SECTION.partition("```nginx\n")[2].partition("```")[0]
APART = (
    (PROJECT / "docs" / "operations.md")
    .read_text()
    .partition("## Intake and desk apart")[2]
    .partition("```nginx\n")[2]
    .partition("```")[0]
)
MAILROOM = dict(re.findall(r"^    (MAILROOM_\w+)=(.+)$", SECTION, re.MULTILINE))
PREFIX = MAILROOM["MAILROOM_ROOT_PATH"]
TOKEN = PRODUCTION["MAILROOM_API_TOKEN"]
DOCUMENTED_HOST, HOST, ADDRESS = "support.example.com", "localhost", "127.0.0.1"

# What Debian's nginx.conf has around the files of conf.d, in the test's folder.
AROUND = """
daemon off;
# One process, so that it may read and write that folder as whoever runs the test.
master_process off;
pid nginx.pid;
events {}
http {
    access_log access.log;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include mailroom.conf;
}
"""


@attrs.frozen
class Proxy:
    """nginx before a web process, in production."""

    web: Services
    certificate: Path
    http_port: int
    https_port: int
    configuration: Path
    restart: Callable[[], None]

    @property
    def host_url(self) -> str:
        return f"https://{HOST}:{self.https_port}"

    @property
    def url(self) -> str:
        """Mailroom's address."""
        return self.host_url + PREFIX

    def client(self) -> httpx.Client:
        """Trusts the proxy's certificate and no other."""
        return httpx.Client(verify=ssl.create_default_context(cafile=self.certificate))


@pytest.fixture(scope="module")
def shared_proxy(databases: Databases, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    """For the tests of this module that leave it as it is."""
    url = databases.create(migrated=True)
    folder = tmp_path_factory.mktemp("proxied")
    services = Services(url, folder)
    with behind_nginx(services, folder) as running:
        yield running
    services.end()
    databases.drop(url)


@pytest.fixture
def database_url(request: pytest.FixtureRequest, databases: Databases, database_url: str) -> str:
    """For those who share a proxy that which is behind it, emptied."""
    if "proxy" not in request.fixturenames:
        return database_url
    running: Proxy = request.getfixturevalue("shared_proxy")
    databases.empty(running.web.environment["DATABASE_URL"])
    return running.web.environment["DATABASE_URL"]


@pytest.fixture
def proxy(shared_proxy: Proxy, database_url: str) -> Proxy:
    assert shared_proxy.web.environment["DATABASE_URL"] == database_url
    create_operators(shared_proxy.web)
    return shared_proxy


@pytest.fixture
def own_proxy(services: Services, tmp_path: Path) -> Iterator[Proxy]:
    with behind_nginx(services, tmp_path) as running:
        yield running


@contextlib.contextmanager
def behind_nginx(services: Services, tmp_path: Path, *, is_apart: bool = False) -> Iterator[Proxy]:
    """nginx as documented, before one web process or before the two parts of it."""
    nginx, openssl = need("nginx"), need("openssl")
    folder = tmp_path / "nginx"
    folder.mkdir()
    certificate, key = folder / "certificate.pem", folder / "key.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST}"),
            *("-keyout", key, "-out", certificate),
        ],
        check=True,
        capture_output=True,
    )
    http_port, https_port = free_port(), free_port()
    intake_port = str(free_port())
    configuration = NGINX
    if is_apart:
        first = "    location /mailroom/ {"
        assert first in configuration and "127.0.0.1:8001/" in APART
        configuration = configuration.replace(first, f"{APART}\n{first}")
        configuration = configuration.replace("127.0.0.1:8001/", f"127.0.0.1:{intake_port}/")
    for documented, ours in (
        ("listen 80;", f"listen {ADDRESS}:{http_port};"),
        ("listen 443 ssl;", f"listen {ADDRESS}:{https_port} ssl;"),
        ("/etc/ssl/certs/support.example.com.pem", str(certificate)),
        ("/etc/ssl/private/support.example.com.key", str(key)),
        ("http://127.0.0.1:8000/", f"{services.url}/"),
        (DOCUMENTED_HOST, HOST),
    ):
        assert documented in configuration
        configuration = configuration.replace(documented, ours)
    (folder / "mailroom.conf").write_text(configuration)
    (folder / "nginx.conf").write_text(AROUND)

    for name, value in MAILROOM.items():
        services.environment[name] = value.replace(DOCUMENTED_HOST, HOST)
    services.environment |= PRODUCTION
    if is_apart:
        desk_port = services.environment["MAILROOM_PORT"]
        for part, port in (("intake", intake_port), ("desk", desk_port)):
            services.start("mailroom", "web", "--only", part, MAILROOM_PORT=port)
            wait_until(lambda: reach(f"http://{ADDRESS}:{port}"), services.log)  # noqa: B023
    else:
        services.start_web()
    error_log = folder / "error.log"
    started: list[subprocess.Popen[bytes]] = []

    def end() -> None:
        for process in started:
            process.terminate()
            process.wait()
        started.clear()

    def restart() -> None:
        end()
        process = subprocess.Popen(
            [nginx, "-p", folder, "-c", folder / "nginx.conf", "-e", error_log],
            stdin=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        started.append(process)
        wait_until(
            lambda: process.poll() is not None or reach(running.host_url), error_log.read_text
        )
        assert process.poll() is None, error_log.read_text()

    running = Proxy(services, certificate, http_port, https_port, folder / "mailroom.conf", restart)
    try:
        restart()
        yield running
    finally:
        end()


@pytest.fixture
def page(browser: Browser, proxy: Proxy) -> Iterator[Page]:
    """A page of a browser which has to get everything it asks for, below the prefix.

    Playwright does not tell of `/favicon.ico`, for which browsers ask where a page names no icon,
    as that of Piccolo Admin.
    """
    with open_page(browser, f"{proxy.url}/", ignore_https_errors=True) as page:
        strayed: list[str] = []
        failed: list[str] = []

        def note_request(request: Request) -> None:
            if not request.url.startswith((f"{proxy.url}/", "data:")):
                strayed.append(request.url)

        def note_response(response: Response) -> None:
            # By a 401 Piccolo Admin's page learns that nobody has signed in.
            if response.status >= 400 and response.status != 401:
                failed.append(f"{response.status} {response.url}")

        def note_failure(request: Request) -> None:
            # A page that is left no longer waits for what it asked for.
            if request.failure != "net::ERR_ABORTED":
                failed.append(f"{request.failure} {request.url}")

        page.on("request", note_request)
        page.on("response", note_response)
        page.on("requestfailed", note_failure)
        yield page
        assert strayed == []
        assert failed == []


def test_a_signed_webhook_is_stored_and_browsers_are_led_to_https_and_the_slash(
    proxy: Proxy, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    with proxy.client() as client:
        answer = client.post(proxy.url + WEBHOOK_PATH, **signed(email()))
        assert answer.status_code == 200, answer.text
        assert answer.headers["strict-transport-security"] == "max-age=31536000"
        assert client.get(proxy.url).headers["location"] == f"{proxy.url}/"
    (row,) = connection.execute("SELECT id FROM incoming_emails").fetchall()
    assert str(row["id"]) == answer.json()["email_id"]
    plain = httpx.get(f"http://{HOST}:{proxy.http_port}{PREFIX}/?x=1")
    assert plain.status_code == 301
    assert plain.headers["location"] == f"https://{HOST}{PREFIX}/?x=1"


def test_what_is_refused_is_refused_by_mailroom_and_kept_with_the_senders_address(
    proxy: Proxy, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    with proxy.client() as client:
        forged = {"X-Forwarded-For": "192.0.2.1", "Content-Type": "application/json"}
        large = b" " * (10 * 1024 * 1024 + 1)
        for body, status in ((b"{}", 401), (large, 413)):
            answer = client.post(proxy.url + WEBHOOK_PATH, content=body, headers=forged)
            assert answer.status_code == status
            assert answer.headers["content-type"] == "application/problem+json"
    rows = connection.execute("SELECT reason, remote_address FROM quarantined_webhooks").fetchall()
    assert {(row["reason"], row["remote_address"]) for row in rows} == {
        ("signature", ADDRESS),
        ("too_large", ADDRESS),
    }


def test_what_is_too_large_is_told_so_each_time(proxy: Proxy) -> None:
    """A connection that is closed with its request unread would be a 502, which is made a 503."""
    large = b" " * (10 * 1024 * 1024 + 512 * 1024)
    with proxy.client() as client:
        answers = [client.post(proxy.url + WEBHOOK_PATH, content=large) for _ in range(20)]
    assert [answer.status_code for answer in answers] == [413] * 20


def test_intake_and_desk_run_apart_behind_one_address(services: Services, tmp_path: Path) -> None:
    with behind_nginx(services, tmp_path, is_apart=True) as proxy, proxy.client() as client:
        answer = client.post(proxy.url + WEBHOOK_PATH, **signed(email()))
        assert answer.status_code == 200, answer.text
        client.base_url = proxy.url
        listed = client.get("/api/v1/jobs", headers={"Authorization": f"Bearer {TOKEN}"})
        assert [job["id"] for job in listed.json()["items"]] == [answer.json()["email_id"]]
        assert client.get("/sign-in").status_code == 200


def test_zendesk_is_asked_to_come_again_while_no_web_process_runs(
    own_proxy: Proxy,
) -> None:
    for process in own_proxy.web.processes:
        own_proxy.web.kill_group(process)
    with own_proxy.client() as client:
        answer = client.post(own_proxy.url + WEBHOOK_PATH, **signed(email()))
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "5"


def test_an_operator_works_in_a_browser(
    proxy: Proxy, page: Page, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    with proxy.client() as client:
        answer = client.post(proxy.url + WEBHOOK_PATH, **signed(email(subject="Wo ist es?")))
        email_id = answer.json()["email_id"]
        connection.execute(
            "UPDATE incoming_emails SET processing_status = 'failed', completed_at = now(),"
            " processing_error = 'the CRM is away'"
        )
        sign_in_page(page)
        page.get_by_role("link", name="Overview").click()
        page.wait_for_url(f"{proxy.url}/")
        expect(page.locator(".figure.failed strong")).to_have_text("1")
        expect(page.locator(".states")).to_have_css("display", "grid")
        client.post(proxy.url + WEBHOOK_PATH, **signed(email()))
        expect(page.locator(".figure.received strong")).to_have_text("1")

    page.locator(".figure.failed").click()
    page.wait_for_url(f"{proxy.url}/emails?*")
    expect(page.get_by_text("Wo ist es?")).to_be_visible()
    page.goto(f"admin/#/incoming_emails/{email_id}/")
    expect(page.locator("[name=processing_error]").first).to_have_value("the CRM is away")
    page.goto(f"emails/{email_id}")
    page.get_by_role("button", name="Retry").click()
    expect(page.locator("#state")).to_contain_text("Waits for a worker")
    row = connection.execute(
        "SELECT processing_status FROM incoming_emails WHERE id = %s", [email_id]
    ).fetchone()
    assert row == {"processing_status": "queued"}

    cookies = {cookie["name"]: cookie for cookie in page.context.cookies()}
    assert cookies.keys() == {"id", "csrftoken"}
    for cookie in cookies.values():
        assert cookie["secure"]
        assert cookie["path"] == f"{PREFIX}/"


CHANGED = """() => new Promise((resolve) => {
  const stream = new EventSource(document.body.dataset.stream);
  stream.addEventListener("changed", () => { stream.close(); resolve(stream.url); });
})"""


def test_pages_are_told_of_changes_through_the_proxy(proxy: Proxy, page: Page) -> None:
    sign_in_page(page)
    page.goto("emails")
    # An event comes as soon as it is told, and not when the proxy has a buffer full of them.
    assert page.evaluate(CHANGED) == f"{proxy.url}/live"


def test_the_documentation_of_the_api_tries_it_out(page: Page) -> None:
    page.goto("schema")
    operation = page.locator("#operations-Health-healthLive")
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    expect(operation.locator(".live-responses-table .response .response-col_status")).to_have_text(
        "200"
    )


@pytest.mark.parametrize("prefix", ["", PREFIX])
def test_every_address_that_mailroom_makes_begins_with_the_prefix(
    services: Services, connection: "psycopg.Connection[dict[str, object]]", prefix: str
) -> None:
    create_operators(services)
    services.start_web(MAILROOM_ROOT_PATH=prefix)
    for _ in range(2):
        httpx.post(services.url + WEBHOOK_PATH, **signed(email())).raise_for_status()
    connection.execute(
        "UPDATE incoming_emails SET processing_status = 'failed', processing_error = 'no text',"
        " completed_at = now(), started_at = now(), claimed_by = 'mail-1:1'"
        " WHERE id = (SELECT id FROM incoming_emails LIMIT 1)"
    )
    with httpx.Client(base_url=services.url) as client:
        assert client.get("/").headers["location"] == f"{prefix}/sign-in"
        assert client.get("/admin").headers["location"] == f"{prefix}/admin/"
        assert f" {prefix}/sign-in " in client.get("/overview/figures").json()["detail"]
        assert f" {prefix}/schema/openapi.json " in client.get("/nothing").json()["detail"]
        assert client.get("/schema/openapi.json").json()["servers"] == [{"url": prefix or "/"}]

        sign_in(client, "olga").raise_for_status()
        assert client.get("/admin/api/links/").json() == {"Overview": f"{prefix}/"}
        pages = {path: client.get(path).text for path in ("/", "/overview/figures", "/schema")}
        addresses = {
            unescape(address)
            for text in pages.values()
            for address in re.findall(r'(?:href|src|action|data-\w+)="([^"]+)"', text)
        }
        assert len(addresses) > 10
        for address in addresses:
            assert address.startswith(f"{prefix}/"), address
            # One of them is a stream without an end, and some are only for forms.
            with client.stream("GET", address.removeprefix(prefix)) as answer:
                assert answer.is_success or answer.status_code == 405, address

        # The pages of Piccolo Admin name all they load relative to themselves, but for our icon.
        for address in re.findall(r'(?:href|src)="([^"]+)"', client.get("/admin/").text):
            assert not urlsplit(address).netloc
            assert not address.startswith("/") or address.startswith(f"{prefix}/overview/files/")
            client.get(urljoin("/admin/", address).removeprefix(prefix)).raise_for_status()


def test_the_doctor_goes_through_the_proxy_and_stores_nothing(
    own_proxy: Proxy, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    trust = {"SSL_CERT_FILE": str(own_proxy.certificate)}
    found = examine(own_proxy.web, own_proxy.url, **trust)
    for name in ("webhook", "body size", "pages"):
        assert found[name]["is_well"], found[name]
    for table in ("incoming_emails", "quarantined_webhooks"):
        assert connection.execute(f"SELECT FROM {table}").fetchall() == []

    # As nginx is without these lines of its configuration.
    configuration = own_proxy.configuration.read_text()
    for line in (r"client_max_body_size .*;", r"proxy_set_header X-Forwarded-Proto .*;"):
        assert re.search(line, configuration)
        configuration = re.sub(line, "", configuration)
    own_proxy.configuration.write_text(configuration)
    own_proxy.restart()
    found = examine(own_proxy.web, own_proxy.url, **trust)
    assert "arrive as http and not https" in found["webhook"]["explanation"]
    assert "X-Forwarded-Proto" in found["webhook"]["explanation"]
    assert "too large for the proxy" in found["body size"]["explanation"]
    assert "client_max_body_size" in found["body size"]["explanation"]

    # Without its certificate.
    found = examine(own_proxy.web, own_proxy.url)
    assert not found["webhook"]["is_well"]
    assert "certificate" in found["webhook"]["explanation"]


def examine(services: Services, url: str, **environment: str) -> dict[str, dict[str, Any]]:
    ended = services.run("mailroom", "doctor", "--json", "--url", url, **environment)
    assert ended.returncode in (0, 1), ended.stderr
    return {each["check"]: each for each in json.loads(ended.stdout)}


def test_what_is_wrong_on_the_way_is_told_with_how_to_mend_it(
    services: Services, connection: "psycopg.Connection[dict[str, object]]"
) -> None:
    """A prefix that is not stripped does not matter; a wrong path, secret or host is told."""
    services.start_web(MAILROOM_ROOT_PATH="/mailroom")
    for prefix in ("", "/mailroom"):
        base = services.url + prefix
        assert httpx.get(f"{base}/health/live").json()["status"] == "ok"
        assert httpx.post(base + WEBHOOK_PATH, **signed(email())).status_code == 200
        assert httpx.get(f"{base}/sign-in").status_code == 200
        assert httpx.get(f"{base}/overview/files/overview.css").status_code == 200
    assert len(connection.execute("SELECT FROM incoming_emails").fetchall()) == 2
    assert httpx.get(f"{services.url}/mailroomy/health/live").status_code == 404

    assert "webhook_misdirected" not in services.log()
    for path in ("/webhook", f"/mail{WEBHOOK_PATH}", "/"):
        answer = httpx.post(services.url + path, **signed(email()))
        assert answer.status_code in (404, 405)
    assert services.log().count("webhook_misdirected") == 2
    assert f"/mailroom{WEBHOOK_PATH}" in services.log()
    told = httpx.get(f"{services.url}/metrics", headers={"Authorization": "Bearer token"}).text
    assert "mailroom_webhooks_misdirected_total 3.0" in told

    # Behind https, with the hosts forgotten.
    with httpx.Client(
        base_url=services.url, headers={"X-Forwarded-Proto": "https", "Host": "desk.example.com"}
    ) as client:
        client.get("/admin/public/meta/")
        answer = client.post(
            "/admin/public/login/",
            json={"username": "olga", "password": "x"},
            headers={
                "X-CSRFToken": client.cookies["csrftoken"],
                "Origin": "https://desk.example.com",
            },
        )
        assert answer.status_code == 403
        assert "MAILROOM_ALLOWED_HOSTS is not set" in answer.json()["detail"]
        assert "add desk.example.com there" in answer.json()["detail"]

    found = examine(services, f"{services.url}/elsewhere")["webhook"]
    assert "is answered 404" in found["explanation"]
    assert "MAILROOM_ROOT_PATH" in found["explanation"]
    wrong = "another secret, and a comma"
    found = examine(services, services.url, MAILROOM_WEBHOOK_SECRETS=wrong)["webhook"]
    assert "is answered 401" in found["explanation"]
    assert "MAILROOM_WEBHOOK_SECRETS" in found["explanation"]
    assert connection.execute("SELECT FROM quarantined_webhooks").fetchall() == []
    found = examine(services, f"http://127.0.0.1:{free_port()}")["pages"]
    assert "no answer from http://127.0.0.1" in found["explanation"]
    assert services.run("mailroom", "doctor", "--url", "desk.example.com").returncode == 1


def test_whom_to_believe_about_https_is_set_by_uvicorns_own_variable(services: Services) -> None:
    services.environment |= {**PRODUCTION, "FORWARDED_ALLOW_IPS": "127.0.0.0/30"}
    services.start_web()

    def is_believed(proxy_address: str) -> bool:
        transport = httpx.HTTPTransport(local_address=proxy_address)
        with httpx.Client(transport=transport, headers={"X-Forwarded-Proto": "https"}) as client:
            answer = client.get(f"{services.url}/health/live")
        return "strict-transport-security" in answer.raise_for_status().headers

    assert is_believed("127.0.0.2")
    assert not is_believed("127.0.0.5")
