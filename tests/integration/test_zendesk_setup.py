"""The way from Zendesk to Mailroom is made, mended and checked, over a fake account's API."""

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from support import make_settings
from zendesk.account import Account
from zendesk.rules_api import TRIGGERS, add_trigger
from zendesk.server import FakeApi, api_in_thread
from zendesk.setup_api import RECEIVER, REFUSED_VALUES

from app.cli import zendesk as command
from app.intake.openapi import WEBHOOK_PATH
from app.setting_groups.secrets import parse_secrets
from app.settings import Settings
from app.zendesk.template import TEMPLATE

URL = "https://mailroom.example.com"
ENDPOINT = URL + WEBHOOK_PATH


@pytest.fixture
def account() -> Account:
    account = Account()
    account.parts[RECEIVER] = lambda endpoint, body, headers: (200, '{"status": "acknowledged"}')
    return account


@pytest.fixture
def api(account: Account) -> Iterator[FakeApi]:
    with api_in_thread(account) as api:
        api.unlimited()
        yield api


@pytest.fixture
def run(api: FakeApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs `mailroom zendesk ...` in a folder of its own, with its .env file."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MAILROOM_WEBHOOK_SECRETS", raising=False)

    def settings() -> Settings:
        in_file = Settings(_env_file=".env").webhook_secrets
        more = {"webhook_secrets": in_file} if in_file else {}
        return make_settings(**api.settings, public_url=URL, outbound_open_loopback=True, **more)

    monkeypatch.setattr(command, "get_settings", settings)

    def run(*arguments: str) -> Result:
        return CliRunner().invoke(command.zendesk, list(arguments), catch_exceptions=False)

    return run


def state(account: Account) -> Any:
    webhooks = {
        one.id: (one.endpoint, one.status, one.further) for one in account.webhooks.values()
    }
    return copy.deepcopy((webhooks, account.parts.get(TRIGGERS)))


def changes(api: FakeApi) -> list[str]:
    return [
        f"{asked.method} {asked.path}"
        for asked in api.asked
        if asked.method != "GET" and not asked.path.endswith("/test")
    ]


def test_setup_makes_the_way_and_changes_nothing_the_second_time(
    account: Account, api: FakeApi, run: Any, tmp_path: Path
) -> None:
    first = run("setup")
    assert first.exit_code == 0, first.output
    [webhook] = account.webhooks.values()
    assert (webhook.endpoint, webhook.status) == (ENDPOINT, "active")
    assert webhook.further["http_method"] == "POST"
    [trigger] = account.parts[TRIGGERS]
    assert trigger["active"]
    assert trigger["actions"] == [
        {"field": "notification_webhook", "value": [webhook.id, TEMPLATE]}
    ]
    assert {"field": "role", "operator": "is", "value": "end_user"} in trigger["conditions"]["all"]
    env = (tmp_path / ".env").read_text()
    assert webhook.secret in env
    assert (tmp_path / ".env").stat().st_mode & 0o077 == 0
    assert webhook.secret not in first.output
    made, count = state(account), len(changes(api))
    second = run("setup")
    assert second.exit_code == 0, second.output
    assert "nothing to change" in second.output
    assert state(account) == made
    assert len(changes(api)) == count
    assert (tmp_path / ".env").read_text() == env
    assert run("check").exit_code == 0


@pytest.mark.parametrize("refused", [set(), {"21"}])
def test_the_trigger_is_for_emails_and_where_zendesk_allows_for_recovered_ones(
    account: Account, run: Any, refused: set[str]
) -> None:
    account.parts[REFUSED_VALUES] = refused
    assert run("setup").exit_code == 0
    (trigger,) = account.parts[TRIGGERS]
    found = [*trigger["conditions"]["all"], *trigger["conditions"]["any"]]
    values = {one["value"] for one in found if one["field"] == "current_via_id"}
    assert values == {"4", "21"} - refused
    # Either of the two will do.
    assert len(trigger["conditions"]["any"]) != 1


def test_a_dry_run_says_what_would_be_done_and_does_nothing(
    account: Account, api: FakeApi, run: Any, tmp_path: Path
) -> None:
    result = run("setup", "--dry-run")
    assert result.exit_code == 1
    assert f"no webhook leads to {ENDPOINT}" in result.output
    assert "a trigger is made" in result.output
    assert changes(api) == []
    assert not (tmp_path / ".env").exists()


def test_setup_mends_what_differs_and_leaves_the_rest(account: Account, run: Any) -> None:
    webhook = account.add_webhook(ENDPOINT)
    webhook.status = "inactive"
    webhook.further["request_format"] = "form_encoded"
    trigger = add_trigger(account, webhook, active=False)
    conditions, tags = copy.deepcopy(trigger["conditions"]), trigger["actions"][0]
    wrong = run("check")
    assert wrong.exit_code == 1
    assert "status 'inactive', request_format 'form_encoded'" in wrong.output
    assert f"trigger {trigger['id']} is inactive" in wrong.output
    assert "is wrong in line 1" in wrong.output
    assert "its signing secret is none of" in wrong.output
    mended = run("setup")
    assert mended.exit_code == 0, mended.output
    assert webhook.status == "active"
    assert webhook.further["request_format"] == "json"
    assert trigger["active"]
    assert trigger["actions"] == [
        tags,
        {"field": "notification_webhook", "value": [webhook.id, TEMPLATE]},
    ]
    assert trigger["conditions"] == conditions
    assert run("check").exit_code == 0


def test_a_template_of_the_teams_own_stays_where_it_is_right(account: Account, run: Any) -> None:
    webhook = account.add_webhook(ENDPOINT)
    trigger = add_trigger(account, webhook)
    own = TEMPLATE.replace('"from_name"', '"priority": "{{ticket.priority}}",\n  "from_name"')
    trigger["actions"][1]["value"][1] = own
    assert run("setup").exit_code == 0
    assert trigger["actions"][1]["value"][1] == own


def test_a_webhook_that_was_deleted_and_one_that_others_use_are_told(
    account: Account, api: FakeApi, run: Any
) -> None:
    other = account.add_webhook("https://elsewhere.example.org/hook")
    first, second = account.add_webhook(ENDPOINT), account.add_webhook(ENDPOINT)
    for trigger in (add_trigger(account, first), add_trigger(account, first)):
        trigger["actions"][1]["value"][1] = TEMPLATE
    result = run("setup")
    assert result.exit_code == 1
    assert "1 more webhooks lead to the same address" in result.output
    assert "2 active triggers call the webhook" in result.output
    assert changes(api) == []
    assert second.status == other.status == "active"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ((401, "{}"), "the running web process does not know the secret"),
        ((200, "<html>Welcome to nginx</html>"), "not by Mailroom"),
        ((502, ""), "answered 502"),
    ],
)
def test_what_zendesks_own_test_was_answered_is_told(
    account: Account, run: Any, answer: tuple[int, str], said: str
) -> None:
    assert run("setup").exit_code == 0
    account.parts[RECEIVER] = lambda endpoint, body, headers: answer
    result = run("check")
    assert result.exit_code == 1
    assert said in result.output


def test_secrets_that_are_there_stay_and_a_file_that_is_named_is_written(
    account: Account, run: Any, tmp_path: Path
) -> None:
    path = tmp_path / "secrets"
    path.write_text("old:a secret that is long and old\n")
    path.chmod(0o640)
    (tmp_path / ".env").write_text(f"# ours\nMAILROOM_WEBHOOK_SECRETS_FILE={path}\n")
    assert run("setup").exit_code == 0
    [webhook] = account.webhooks.values()
    first, second = parse_secrets(path.read_text())
    assert (first.label, first.secret) == ("old", "a secret that is long and old")
    assert second.secret == webhook.secret
    assert path.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / ".env").read_text() == f"# ours\nMAILROOM_WEBHOOK_SECRETS_FILE={path}\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("is_named", [False, True])
def test_a_file_that_root_changes_stays_that_of_the_service(
    account: Account, run: Any, tmp_path: Path, is_named: bool
) -> None:
    path = tmp_path / ("secrets" if is_named else ".env")
    path.write_text("old:a secret that is long and old\n" if is_named else "")
    if is_named:
        (tmp_path / ".env").write_text(f"MAILROOM_WEBHOOK_SECRETS_FILE={path}\n")
    os.chown(path, 4711, 4712)
    assert run("setup").exit_code == 0
    assert len(path.read_text()) > 40
    assert (path.stat().st_uid, path.stat().st_gid) == (4711, 4712)


def test_a_secret_in_the_environment_is_left_alone_and_printed_only_when_asked(
    account: Account, run: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAILROOM_WEBHOOK_SECRETS", "a secret of the environment's own")
    result = run("setup")
    assert result.exit_code == 1
    assert "is set in the environment" in result.output
    [webhook] = account.webhooks.values()
    assert webhook.secret not in result.output
    assert not (tmp_path / ".env").exists()
    assert webhook.secret in run("setup", "--print-secret").output


def test_a_public_address_has_to_be_one(run: Any) -> None:
    with pytest.raises(command.SetUpError, match="public address"):
        run("check", "--url", "http://mailroom.example.com")
