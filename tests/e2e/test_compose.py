"""What docs/deploy/compose.yaml starts works together, under Docker.

`.ci/compose` provides the images and a daemon, and runs this.
"""

import json
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from support import PROJECT, SECRET, email, need, signed, wait_until

pytestmark = pytest.mark.long

FILE = PROJECT / "docs" / "deploy" / "compose.yaml"
TOKEN = "token-of-the-production-api"
# A name for which Caddy is an authority itself.
HOST = "localhost"
AUTHORITY = "/data/caddy/pki/authorities/local/root.crt"
RUNNING = {"postgresql", "redis", "web", "worker", "proxy"}


class Project:
    """What the file starts, under a name of its own.

    Args:
        folder: for the settings.
    """

    name = "mailroom-test"

    def __init__(self, folder: Path) -> None:
        settings = folder / "settings"
        settings.write_text(
            f"POSTGRES_PASSWORD=a-password\nMAILROOM_WEBHOOK_SECRETS={SECRET}\n"
            f"MAILROOM_API_TOKEN={TOKEN}\nMAILROOM_HOST_NAME={HOST}\n"
        )
        self._compose = [
            *(need("docker-compose"), "--project-name", self.name, "--file", str(FILE)),
            *("--env-file", str(settings)),
        ]

    def compose(self, *arguments: str) -> str:
        return self._run([*self._compose, *arguments])

    def docker(self, *arguments: str) -> str:
        return self._run([need("docker"), *arguments])

    def container(self, service: str) -> str:
        return self.compose("ps", "--quiet", service).strip()

    def state(self, service: str) -> dict[str, object]:
        """How a container is, as Docker tells it."""
        told = self.docker("inspect", "--format={{json .State}}", self.container(service))
        return dict(json.loads(told))

    def health(self, service: str) -> object:
        health = self.state(service)["Health"]
        assert isinstance(health, dict)
        return health["Status"]

    def _run(self, command: list[str]) -> str:
        done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout


@pytest.fixture
def project(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Project]:
    if not request.config.getoption("--compose"):
        pytest.skip("no images are promised by --compose: .ci/compose provides them and runs this")
    made = Project(tmp_path)
    try:
        made.compose("up", "--detach")
        yield made
    finally:
        made.compose("down", "--volumes")


def test_an_email_comes_through_the_proxy_and_is_completed_and_all_end_when_told_to(
    project: Project, tmp_path: Path
) -> None:
    assert project.state("migrate")["ExitCode"] == 0

    def logs() -> str:
        return project.compose("logs", "--no-color")

    for service in ("web", "worker", "postgresql"):
        wait_until(lambda service=service: project.health(service) == "healthy", logs)
    certificate = tmp_path / "authority.crt"
    project.docker("cp", f"{project.container('proxy')}:{AUTHORITY}", str(certificate))
    with httpx.Client(
        base_url=f"https://{HOST}",
        verify=ssl.create_default_context(cafile=certificate),
        headers={"Authorization": f"Bearer {TOKEN}"},
    ) as client:
        assert client.get("/health/ready").json()["status"] == "ready"
        accepted = client.post("/api/v1/zendesk/webhook", **signed(email()))
        assert accepted.status_code == 200, accepted.text
        job = f"/api/v1/jobs/{accepted.json()['email_id']}"
        wait_until(lambda: client.get(job).json()["job"]["status"] == "completed", logs, every=0.5)
        # Who comes without TLS is sent to it.
        assert httpx.get(f"http://{HOST}/").headers["location"] == f"https://{HOST}/"
    project.compose("stop")
    assert {service: project.state(service)["ExitCode"] for service in RUNNING} == dict.fromkeys(
        RUNNING, 0
    )
