"""The examples for containers say what Mailroom understands."""

import json
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from support import PROJECT, need
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from app.cli.main import COMMANDS
from app.settings import Settings, environment_name

FOLDER = PROJECT / "docs" / "deploy"
KUBERNETES = yaml.safe_load((FOLDER / "kubernetes.yaml").read_text())["items"]
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SETTINGS = {environment_name(name) for name in Settings.model_fields}
# Of uvicorn.
OTHERS = {"FORWARDED_ALLOW_IPS"}
SENDER = "203.0.113.9"


def containers() -> Iterator[dict[str, Any]]:
    for item in KUBERNETES:
        if item["kind"] in ("Deployment", "Job"):
            yield from item["spec"]["template"]["spec"]["containers"]


@pytest.mark.parametrize(
    "item", KUBERNETES, ids=lambda item: f"{item['kind']} {item['metadata']['name']}"
)
def test_kubernetes_knows_every_field(item: dict[str, Any]) -> None:
    kubernetes_validate.validate(item, kubernetes_validate.latest_version(), strict=True)


def test_settings_and_commands_of_the_examples_exist() -> None:
    (given,) = (item["data"] for item in KUBERNETES if item["kind"] == "ConfigMap")
    assert given.keys() - SETTINGS == OTHERS
    for container in containers():
        assert container["args"][0] in COMMANDS
        assert {variable["name"] for variable in container.get("env", ())} - SETTINGS == set()
    ours = [service for service in COMPOSE["services"].values() if service["image"] == "mailroom"]
    assert [service["command"][0] for service in ours] == ["migrate", "web", "worker"]
    for service in ours:
        assert service["environment"].keys() - SETTINGS == OTHERS
        assert service["stop_grace_period"] == "60s"


async def test_the_proxy_of_each_example_is_believed() -> None:
    """It has another address than 127.0.0.1, and its requests would all be of one sender."""
    (given,) = (item["data"] for item in KUBERNETES if item["kind"] == "ConfigMap")
    (web,) = (one for one in COMPOSE["services"].values() if one.get("command") == ["web"])
    for environment in (given, web["environment"]):
        assert await seen_behind(environment["FORWARDED_ALLOW_IPS"], "10.244.1.7") == SENDER


async def seen_behind(trusted: str, proxy: str) -> str:
    """Who a request of SENDER looks like that comes through a proxy at this address."""
    seen = []

    async def app(scope: Any, *_: object) -> None:
        seen.append(scope["client"][0])

    scope: Any = {
        "type": "http",
        "client": (proxy, 1),
        "headers": [(b"x-forwarded-for", SENDER.encode())],
    }
    await ProxyHeadersMiddleware(app, trusted)(scope, None, None)  # type: ignore[arg-type]
    return str(seen[0])


def test_the_line_grows_and_shrinks_by_metrics_that_are_there() -> None:
    documented = (PROJECT / "docs" / "metrics.md").read_text()
    (scaler,) = (item for item in KUBERNETES if item["kind"] == "HorizontalPodAutoscaler")
    names = [metric["external"]["metric"]["name"] for metric in scaler["spec"]["metrics"]]
    assert len(names) == 2
    assert all(f"`{name}`" in documented for name in names)


def test_the_line_is_as_old_as_its_oldest_email_however_many_pods_tell_it(tmp_path: Path) -> None:
    """The autoscaler adds up the series that it gets; the rule leaves one of each state."""
    adapter = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text())
    (rule,) = adapter["rules"]["external"]
    (scaler,) = (item for item in KUBERNETES if item["kind"] == "HorizontalPodAutoscaler")
    for metric in (one["external"]["metric"] for one in scaler["spec"]["metrics"]):
        assert rule["seriesQuery"] == metric["name"]
        ((label, state),) = metric["selector"]["matchLabels"].items()
        query = rule["metricsQuery"].replace("<<.Series>>", metric["name"])
        query = query.replace("<<.LabelMatchers>>", f'{label}="{state}"')
        ages = [
            {"series": f'{metric["name"]}{{state="{of}",pod="{pod}"}}', "values": age}
            for of, age in (("queued", "40"), ("received", "40"), ("processing", "7"))
            for pod in ("web-1", "web-2")
        ]
        told = {"labels": f'{{state="{state}"}}', "value": 40}
        asked = {"expr": query, "eval_time": "0m", "exp_samples": [told]}
        path = tmp_path / "test.yml"
        # JSON is YAML.
        path.write_text(
            json.dumps({"tests": [{"input_series": ages, "promql_expr_test": [asked]}]})
        )
        promtool = [need("promtool"), "test", "rules", str(path)]
        ended = subprocess.run(promtool, capture_output=True, text=True, timeout=60, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr


def test_kubernetes_runs_this_version_and_its_secret_opens_the_store() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    images = {container["image"] for container in containers()}
    assert images == {f"mailroom:{project['version']}"}
    (given,) = (item["data"] for item in KUBERNETES if item["kind"] == "ConfigMap")
    assert given["MAILROOM_ATTACHMENT_STORE"].startswith("s3://")
    commands = (FOLDER / "kubernetes.yaml").read_text().partition("apiVersion")[0]
    assert {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_REGION"} <= {
        *re.findall(r"--from-literal=(\w+)=", commands)
    }


def test_the_image_is_of_the_locked_versions_and_of_a_user_without_rights() -> None:
    text = (FOLDER / "Containerfile").read_text().replace("\\\n", "")
    installs = re.findall(r"pip install .*", text)
    assert len(installs) == 3
    for install in installs:
        from_registry = "--require-hashes" in install and "--only-binary :all:" in install
        assert from_registry or "--no-index" in install
    # An image of Python's brings pip, which Mailroom's has not.
    assert re.findall(r"^ARG BASE=.*/([^/:]+):", text, re.MULTILINE) == ["debian"]
    (user,) = re.findall(r"^USER (\d+):", text, re.MULTILINE)
    for item in KUBERNETES:
        if item["kind"] in ("Deployment", "Job"):
            pod = item["spec"]["template"]["spec"]
            assert str(pod["securityContext"]["runAsUser"]) == user
            for container in pod["containers"]:
                assert container["securityContext"]["readOnlyRootFilesystem"]
