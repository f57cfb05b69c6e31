"""`mailroom web --only`: the Intake and the desk as processes of their own."""

from pathlib import Path

import httpx
import pytest
from support import Services, create_operators, email, enter, signed, wait_until

from app.intake.openapi import WEBHOOK_PATH

TOKEN = {"Authorization": "Bearer token"}
DESK = ["/", "/admin", "/admin/", "/overview/figures", "/api/v1/jobs", "/api/v1/jobs/counts"]
BOTH = ["/health/live", "/health/ready", "/metrics", "/schema/openapi.json"]


def start(services: Services, only: str, folder: Path) -> Services:
    """A web process with one part alone."""
    folder.mkdir()
    part = Services(services.environment["DATABASE_URL"], folder)
    part.environment |= {"MAILROOM_ALLOWED_HOSTS": "127.0.0.1"}
    process = part.start("mailroom", "web", "--only", only)
    services.processes.append(process)
    wait_until(lambda: process.poll() is None and _is_live(part.url), part.log)
    return part


def _is_live(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/live").is_success
    except httpx.HTTPError:
        return False


def assert_not_there(answer: httpx.Response) -> None:
    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["detail"]


def test_each_part_does_its_own_and_nothing_of_the_others(
    services: Services, tmp_path: Path
) -> None:
    create_operators(services)
    intake = start(services, "intake", tmp_path / "intake")
    desk = start(services, "desk", tmp_path / "desk")
    for part in (intake, desk):
        for path in BOTH:
            answer = httpx.get(part.url + path, headers=TOKEN)
            assert answer.status_code == 200, (path, answer.text)

    assert_not_there(httpx.post(desk.url + WEBHOOK_PATH, **signed(email())))
    for path in DESK:
        assert_not_there(httpx.get(intake.url + path, headers=TOKEN))
    paths = {
        part: httpx.get(f"{part.url}/schema/openapi.json").json()["paths"].keys()
        for part in (intake, desk)
    }
    assert WEBHOOK_PATH in paths[intake] and WEBHOOK_PATH not in paths[desk]
    assert "/api/v1/jobs" in paths[desk] and "/api/v1/jobs" not in paths[intake]

    stored = httpx.post(intake.url + WEBHOOK_PATH, **signed(email()))
    assert stored.status_code == 200, stored.text
    email_id = stored.json()["email_id"]
    assert httpx.get(f"{desk.url}/api/v1/jobs/{email_id}", headers=TOKEN).is_success
    with httpx.Client(base_url=desk.url) as client:
        enter(client, desk)
        rows = client.get("/admin/api/tables/incoming_emails/").json()["rows"]
    assert [row["id"] for row in rows] == [email_id]
    for process in services.processes:
        process.terminate()
        assert process.wait(60) == 0


@pytest.mark.parametrize("wrong", ["both", "", "Intake"])
def test_there_are_no_other_parts(services: Services, wrong: str) -> None:
    ended = services.run("mailroom", "web", "--only", wrong)
    assert ended.returncode == 2
    assert "intake" in ended.stderr and "desk" in ended.stderr
