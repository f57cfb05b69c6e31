"""Settings: what they default to, what is refused and why, and that no secret is ever shown."""

import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from app.cli.main import main
from app.development_secrets import (
    FILE_NAME,
    DevelopmentSecrets,
    DevelopmentSecretsError,
    load_or_make_secrets,
)
from app.setting_groups.database import EMBEDDED
from app.setting_groups.secrets import ZENDESK_PUBLIC_TEST_SECRET, WebhookSecret, parse_secrets
from app.settings import Settings, SettingsError, environment_name, load_settings

PROJECT = Path(__file__).parents[2]
FIELDS = list(Settings.model_fields)
SECRET = "sesame-open-the-old-wooden-door"
PRODUCTION = {
    "MAILROOM_ENV": "production",
    "DATABASE_URL": "postgresql://mailroom:tiger@db.example.com/mailroom",
    "MAILROOM_WEBHOOK_SECRETS": SECRET,
    "MAILROOM_API_TOKEN": "token-of-the-production-api",
}

# Each setting with a value that it cannot have.
WRONG = {
    "DATABASE_URL": "mysql://db.example.com/mailroom",
    "MAILROOM_ENV": "staging",
    "MAILROOM_PORT": "65536",
    "MAILROOM_ROOT_PATH": "mailroom",
    "MAILROOM_WEBHOOK_SECRETS": "label:",
    "MAILROOM_ACCEPT_UNSIGNED": "perhaps",
    "MAILROOM_SIGNATURE_MAX_AGE_SECONDS": "0",
    "MAILROOM_MAX_BODY_BYTES": "1023",
    "MAILROOM_INTAKE_DEADLINE_SECONDS": "0",
    "MAILROOM_INTAKE_MAX_WAITING_ROWS": "0",
    "MAILROOM_INTAKE_MAX_WAITING_BYTES": "many",
    "MAILROOM_INTAKE_BATCH_ROWS": "-1",
    "MAILROOM_DATABASE_POOL_SIZE": "1",
    "MAILROOM_HANDLER_TIMEOUT_SECONDS": "soon",
    "MAILROOM_MAX_RETRIES": "-1",
    "MAILROOM_MIN_BACKOFF_SECONDS": "301",
    "MAILROOM_MAX_BACKOFF_SECONDS": "14",
    "MAILROOM_LEASE_SECONDS": "0",
    "MAILROOM_MAX_LOST_CLAIMS": "0",
    "MAILROOM_QUEUE_DEPTH": "0",
    "MAILROOM_MESSAGE_LOST_SECONDS": "0",
    "MAILROOM_QUEUE": "a queue",
    "MAILROOM_WEB_PROCESSES": "0",
    "MAILROOM_WORKER_PROCESSES": "0",
    "MAILROOM_WORKER_CONCURRENCY": "0",
    "MAILROOM_WORKER_SHUTDOWN_SECONDS": "-1",
    "MAILROOM_LOG_LEVEL": "loud",
    "MAILROOM_ATTACHMENT_STORE": "ftp://files.example.com/x",
    "MAILROOM_ATTACHMENTS": "after",
    "MAILROOM_ATTACHMENT_WAIT_SECONDS": "0",
    "MAILROOM_ATTACHMENT_MAX_COUNT": "0",
    "MAILROOM_ATTACHMENT_MAX_EMAIL_BYTES": "0",
    "MAILROOM_ATTACHMENT_MAX_TRIES": "0",
    "MAILROOM_ATTACHMENT_CONCURRENCY": "0",
}

LOAD_AND_TELL = """
import sys
from app.settings import load_settings

print("ready", flush=True)
sys.stdin.readline()
settings = load_settings()
print(settings.webhook_secrets[0].secret, settings.api_token)
"""

Load = Callable[..., Settings]


@pytest.fixture
def load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Load:
    """Loads the settings in an empty folder, with these environment variables and no others."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MAILROOM_HOME")

    def load(**environment: str) -> Settings:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        return load_settings()

    return load


def test_allowed_hosts_are_known_however_they_are_written(load: Load) -> None:
    settings = load(MAILROOM_ALLOWED_HOSTS="Desk.Example.com, localhost,")
    assert settings.allowed_hosts == ("desk.example.com", "localhost")


def test_nothing_has_to_be_set_for_development(load: Load, tmp_path: Path) -> None:
    settings = load()
    assert settings.database_url == EMBEDDED
    assert settings.broker_url == ""
    assert settings.env == "development"
    assert not settings.is_production
    assert settings.home == tmp_path / ".mailroom"
    assert (settings.host, settings.port) == ("127.0.0.1", 8000)
    assert settings.accept_unsigned is False
    assert settings.signature_max_age_seconds == 24 * 60 * 60
    assert settings.intake_deadline_seconds == 8
    assert [secret.label for secret in settings.webhook_secrets] == ["secret-1"]
    assert settings.api_token


def test_the_environment_sets_what_it_names(load: Load, tmp_path: Path) -> None:
    settings = load(
        DATABASE_URL="postgres://db.example.com/mailroom",
        BROKER_URL="redis://redis.example.com",
        MAILROOM_HOME="~/mail",
        HOME=str(tmp_path),
        MAILROOM_PORT="8001",
        MAILROOM_ALLOWED_HOSTS="mail.example.com, desk.example.com,",
        MAILROOM_ACCEPT_UNSIGNED="true",
        MAILROOM_INTAKE_DEADLINE_SECONDS="2.5",
        MAILROOM_WEBHOOK_SECRETS=SECRET,
        MAILROOM_API_TOKEN="token",
    )
    assert settings.database_url == "postgres://db.example.com/mailroom"
    assert settings.broker_url == "redis://redis.example.com"
    assert settings.home == tmp_path / "mail"
    assert settings.port == 8001
    assert settings.allowed_hosts == ("mail.example.com", "desk.example.com")
    assert settings.accept_unsigned is True
    assert settings.intake_deadline_seconds == 2.5
    assert settings.webhook_secrets == (WebhookSecret("secret-1", SECRET),)
    assert settings.api_token == "token"


def test_an_empty_variable_is_as_good_as_none(load: Load) -> None:
    settings = load(DATABASE_URL="", MAILROOM_PORT="", MAILROOM_WEBHOOK_SECRETS="")
    assert settings.database_url == EMBEDDED
    assert settings.port == 8000
    assert settings.webhook_secrets


def test_settings_come_from_a_dotenv_file_too_and_the_environment_wins(
    load: Load, tmp_path: Path
) -> None:
    (tmp_path / ".env").write_text(
        "# as written by hand\n"
        'DATABASE_URL="postgresql://db.example.com/mailroom"\n'
        f"MAILROOM_WEBHOOK_SECRETS=blue:{SECRET}\n"
        "MAILROOM_PORT=8001\n"
        "MAILROOM_LOG_LEVEL=debug\n"
        "SOMEBODY_ELSES=variable\n"
    )
    settings = load(MAILROOM_PORT="8002")
    assert settings.database_url == "postgresql://db.example.com/mailroom"
    assert settings.webhook_secrets == (WebhookSecret("blue", SECRET),)
    assert settings.port == 8002
    assert settings.log_level == "debug"


@pytest.mark.parametrize(("name", "value"), WRONG.items())
def test_an_error_names_the_variable_that_is_wrong(load: Load, name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        load(**{name: value})


def test_an_error_names_every_variable_that_is_wrong(load: Load) -> None:
    with pytest.raises(SettingsError) as caught:
        load(MAILROOM_PORT="none", MAILROOM_QUEUE_DEPTH="0", MAILROOM_ENV="staging")
    for name in ("MAILROOM_PORT", "MAILROOM_QUEUE_DEPTH", "MAILROOM_ENV"):
        assert name in str(caught.value)


def test_the_command_tells_a_wrong_setting_in_one_line(tmp_path: Path) -> None:
    ended = subprocess.run(
        [str(Path(sys.executable).parent / "mailroom"), "web"],
        cwd=tmp_path,
        env={**os.environ, "MAILROOM_PORT": "none"},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("mailroom: MAILROOM_PORT: ")


@pytest.mark.parametrize("path", ["", "/mailroom", "/support/mail-room_2.0~x", "/.mail/..x"])
def test_the_root_path_is_a_path(load: Load, path: str) -> None:
    assert load(MAILROOM_ROOT_PATH=path).root_path == path


@pytest.mark.parametrize(
    "path",
    [
        *("mailroom", "/", "/mailroom/", "//mailroom", "/a//b", "/..", "/a/../b", "/a/.", "/a b"),
        *("/a\nb", "/ä", "/%61", "/a?b", "/a#b", '/"', "https://support.example.com/mailroom"),
    ],
)
def test_what_is_no_root_path_is_refused_with_how_to_mend_it(load: Load, path: str) -> None:
    with pytest.raises(SettingsError, match=r"MAILROOM_ROOT_PATH: .* such as `/mailroom`"):
        load(MAILROOM_ROOT_PATH=path)


def test_production_starts_with_what_it_needs(load: Load, tmp_path: Path) -> None:
    settings = load(**PRODUCTION)
    assert settings.is_production
    assert settings.api_token == "token-of-the-production-api"
    assert not (tmp_path / ".mailroom").exists()


@pytest.mark.parametrize("name", ["DATABASE_URL", "MAILROOM_WEBHOOK_SECRETS", "MAILROOM_API_TOKEN"])
def test_production_does_not_start_without(load: Load, name: str) -> None:
    with pytest.raises(SettingsError, match=f"{name} is missing"):
        load(**{**PRODUCTION, name: ""})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAILROOM_WEBHOOK_SECRETS", ZENDESK_PUBLIC_TEST_SECRET),
        ("MAILROOM_WEBHOOK_SECRETS", f"blue:{SECRET},test:{ZENDESK_PUBLIC_TEST_SECRET}"),
        ("MAILROOM_ACCEPT_UNSIGNED", "true"),
    ],
)
def test_production_refuses_what_is_unsafe(load: Load, name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=name):
        load(**{**PRODUCTION, name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("MAILROOM_API_TOKEN", "x"),
        ("MAILROOM_API_TOKEN", "x" * 23),
        ("MAILROOM_API_TOKEN", f"{'x' * 23}\n\n"),
        ("MAILROOM_WEBHOOK_SECRETS", "a"),
        ("MAILROOM_WEBHOOK_SECRETS", f"{SECRET},old-long-label-of-a-secret:{'a' * 23}"),
        ("MAILROOM_WEBHOOK_SECRETS", f"blue:{'a' * 23} ,green:{SECRET}"),
    ],
)
def test_production_refuses_secrets_that_can_be_guessed(load: Load, name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=r"fewer than 24 char.*python -c .import secrets") as it:
        load(**{**PRODUCTION, name: value})
    assert str(it.value).startswith(name)
    assert "aaa" not in str(it.value)
    assert "xxx" not in str(it.value)


def test_production_takes_secrets_of_24_characters_and_development_any(load: Load) -> None:
    names = ("MAILROOM_API_TOKEN", "MAILROOM_WEBHOOK_SECRETS")
    assert load(**{**PRODUCTION, **dict.fromkeys(names, "x" * 24)}).api_token == "x" * 24
    assert load(MAILROOM_ENV="development", **dict.fromkeys(names, "x")).api_token == "x"


@pytest.mark.parametrize(
    "name",
    [environment_name(name) for name in FIELDS if name.endswith(("_seconds", "_days", "_hours"))],
)
def test_no_time_is_longer_than_a_moment_can_be_moved(load: Load, name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        load(**{name: "1000000000"})


@pytest.mark.parametrize("space", ["\n", "\r\n", " ", "\t\n\n"])
def test_white_space_around_every_setting_is_cut_off(load: Load, space: str) -> None:
    usual = load(**PRODUCTION)
    values = {
        environment_name(name): str(value)
        for name, value in usual
        if isinstance(value, (int, float, str, Path)) and value != ""
    }
    padded = {name: f"{space}{value}{space}" for name, value in {**values, **PRODUCTION}.items()}
    assert len(padded) > 30
    assert load(**padded) == usual
    # Nothing but white space is nothing.
    assert load(MAILROOM_QUEUE=space).queue == "mailroom"


def test_service_links_of_kubernetes_are_no_settings(load: Load, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("MAILROOM_METRICS_PORT=9100")
    settings = load(
        MAILROOM_SERVICE_HOST="10.0.48.9",
        MAILROOM_SERVICE_PORT="8000",
        MAILROOM_PORT="tcp://10.0.48.9:8000",
        MAILROOM_PORT_8000_TCP="tcp://10.0.48.9:8000",
        MAILROOM_PORT_8000_TCP_PROTO="tcp",
        MAILROOM_PORT_8000_TCP_PORT="8000",
        MAILROOM_PORT_8000_TCP_ADDR="10.0.48.9",
        MAILROOM_METRICS_PORT="tcp://[fd00::9]:9000\n",
    )
    assert (settings.port, settings.metrics_port) == (8000, 9100)
    with pytest.raises(SettingsError, match="MAILROOM_PORT"):
        load(MAILROOM_PORT="http://10.0.48.9:8000")


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("support.example.com:8443", "support.example.com"),
        ("https://support.example.com", "support.example.com"),
        ("HTTPS://Support.Example.com:8443/mailroom/?a=b", "support.example.com"),
        ("support.example.com.", "support.example.com"),
        ("support.example.com/mailroom", "support.example.com"),
        ("10.0.0.1:8000", "10.0.0.1"),
        ("[::1]:8000", "::1"),
        ("http://[2001:DB8:0:0::1]", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        ("b\u00fccher.example", "xn--bcher-kva.example"),
        ("mail_room", "mail_room"),
    ],
)
def test_allowed_hosts_are_names_however_they_are_written(
    load: Load, written: str, name: str
) -> None:
    settings = load(MAILROOM_ALLOWED_HOSTS=f" {written} ,second.example")
    assert settings.allowed_hosts == (name, "second.example")


@pytest.mark.parametrize(
    "written",
    [
        *("*", "*.example.com", "a b", "https://", "user@example.com", "example.com:port", "[::1"),
        *("example..com", "example.com;second.example", ".example.com", "example.com:99999", "-a"),
    ],
)
def test_what_is_no_host_is_refused_with_how_to_mend_it(load: Load, written: str) -> None:
    with pytest.raises(SettingsError, match=r"MAILROOM_ALLOWED_HOSTS: .* is no host name: write"):
        load(MAILROOM_ALLOWED_HOSTS=f"good.example.com,{written}")


def test_every_setting_can_be_read_from_a_file(load: Load, tmp_path: Path) -> None:
    usual = load(**PRODUCTION)
    for name in PRODUCTION:
        os.environ.pop(name)
    values = {
        environment_name(name): str(value)
        for name, value in usual
        if isinstance(value, (int, float, str, Path)) and value != ""
    }
    files = {}
    for name, value in {**values, **PRODUCTION}.items():
        (tmp_path / name).write_text(f"{value}\n")
        files[f"{name}_FILE"] = str(tmp_path / name)
    assert load(**files) == usual


def test_a_file_of_secrets_may_hold_one_a_line(load: Load, tmp_path: Path) -> None:
    (tmp_path / "secrets").write_bytes(b"\xef\xbb\xbfblue:one\r\ngreen:two\r\n")
    (tmp_path / ".env").write_text(f"MAILROOM_WEBHOOK_SECRETS_FILE={tmp_path}/secrets")
    settings = load()
    assert settings.webhook_secrets == (WebhookSecret("blue", "one"), WebhookSecret("green", "two"))


def test_a_setting_that_is_given_twice_is_refused(load: Load, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("token")
    both = "MAILROOM_API_TOKEN and MAILROOM_API_TOKEN_FILE are both set"
    with pytest.raises(SettingsError, match=both):
        load(MAILROOM_API_TOKEN="token", MAILROOM_API_TOKEN_FILE=str(tmp_path / "token"))
    os.environ.pop("MAILROOM_API_TOKEN")
    (tmp_path / ".env").write_text("MAILROOM_API_TOKEN=token")
    with pytest.raises(SettingsError, match=both):
        load()


def test_an_env_file_that_cannot_be_read_is_named(load: Load, tmp_path: Path) -> None:
    path = tmp_path / ".env"
    path.write_bytes("# Schlüssel".encode("cp1252"))
    with pytest.raises(SettingsError, match=f"{path} cannot be read .it is not text in UTF-8"):
        load()
    path.unlink()
    # A file that root cannot read either.
    path.symlink_to("/proc/self/mem")
    with pytest.raises(SettingsError, match=f"{path} cannot be read .Input/output error"):
        load()


def test_a_file_that_cannot_be_read_is_told_with_its_setting(load: Load, tmp_path: Path) -> None:
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\xfa")
    for path, why in (
        ("missing", "cannot be read .No such file"),
        ("", "cannot be read .Is a directory"),
        ("empty", "is empty"),
        ("binary", "cannot be read .it is not text"),
    ):
        with pytest.raises(SettingsError, match=f"DATABASE_URL_FILE: .*{path} {why}"):
            load(DATABASE_URL_FILE=f"{tmp_path}/{path}")


def test_production_has_the_embedded_database_only_when_it_is_asked_for(load: Load) -> None:
    assert load(**{**PRODUCTION, "DATABASE_URL": EMBEDDED}).database_url == EMBEDDED


def test_development_may_use_zendesks_public_test_secret(load: Load) -> None:
    settings = load(MAILROOM_WEBHOOK_SECRETS=ZENDESK_PUBLIC_TEST_SECRET)
    assert settings.webhook_secrets[0].secret == ZENDESK_PUBLIC_TEST_SECRET


@pytest.mark.parametrize(
    ("text", "secrets"),
    [
        ("one", [("secret-1", "one")]),
        ("one,two", [("secret-1", "one"), ("secret-2", "two")]),
        ("blue:one, green : two", [("blue", "one"), ("green", "two")]),
        (" , one ,, ", [("secret-1", "one")]),
        ("blue:one:two", [("blue", "one:two")]),
        (f"blue:{ZENDESK_PUBLIC_TEST_SECRET}", [("blue", ZENDESK_PUBLIC_TEST_SECRET)]),
        ("blue:pässwörd", [("blue", "pässwörd")]),
        ("", []),
        (" , ", []),
    ],
)
def test_secrets_are_parted_by_commas_and_may_have_labels(
    text: str, secrets: list[tuple[str, str]]
) -> None:
    assert [(s.label, s.secret) for s in parse_secrets(text)] == secrets


@pytest.mark.parametrize("text", ["blue:", ":sesame", "sesame,blue:", " : "])
def test_half_a_secret_is_an_error_that_does_not_repeat_it(text: str) -> None:
    with pytest.raises(ValueError, match=r"MAILROOM_WEBHOOK_SECRETS: entry [12] ") as caught:
        parse_secrets(text)
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["file:///srv/files", "s3://bucket", "s3://bucket/a/b", "gs://b/x", "az://container/x"]
)
def test_a_store_is_a_folder_or_a_bucket(load: Load, url: str) -> None:
    assert load(MAILROOM_ATTACHMENT_STORE=url).attachment_store_url == url


def test_files_are_kept_at_home_if_nothing_is_said(load: Load, tmp_path: Path) -> None:
    home = tmp_path / "with a space"
    url = load(MAILROOM_HOME=str(home)).attachment_store_url
    assert url == f"file://{tmp_path}/with%20a%20space/attachments"


@pytest.mark.parametrize(
    "url",
    [
        "/srv/files",
        "file://srv/files",
        "file:///",
        "s3:///key",
        "s3://bucket?region=eu",
        "s3:bucket",
    ],
)
def test_what_is_no_store_is_refused(load: Load, url: str) -> None:
    with pytest.raises(SettingsError, match="MAILROOM_ATTACHMENT_STORE has to be file:///folder"):
        load(MAILROOM_ATTACHMENT_STORE=url)


def test_a_store_with_credentials_is_refused_and_not_repeated(load: Load) -> None:
    with pytest.raises(SettingsError, match="AWS_ACCESS_KEY_ID") as refused:
        load(MAILROOM_ATTACHMENT_STORE="s3://key:tiger@bucket/x")
    assert "tiger" not in str(refused.value)


@pytest.mark.parametrize("show", [str, repr])
def test_no_secret_is_shown_with_the_settings(load: Load, show: Callable[[object], str]) -> None:
    settings = load(**PRODUCTION, BROKER_URL="amqp://guest:lion@broker.example.com")
    shown = show(settings) + show(settings.webhook_secrets) + show(settings.webhook_secrets[0])
    for secret in (SECRET, "tiger", "lion", "token-of-the-production-api"):
        assert secret not in shown
    assert "production" in shown


@pytest.mark.parametrize("show", [str, repr])
def test_no_secret_is_shown_with_those_of_development(show: Callable[[object], str]) -> None:
    shown = show(DevelopmentSecrets("sesame", "sesame", "sesame"))
    assert "sesame" not in shown
    assert "DevelopmentSecrets" in shown


@pytest.mark.parametrize(
    "wrong",
    [
        {"DATABASE_URL": f"mysql://mailroom:{SECRET}@db.example.com/mailroom"},
        {"MAILROOM_WEBHOOK_SECRETS": f"{SECRET},label:"},
        {"MAILROOM_WEBHOOK_SECRETS": f":{SECRET}"},
        {"MAILROOM_WEBHOOK_SECRETS": SECRET, "MAILROOM_ENV": "production"},
        {"MAILROOM_API_TOKEN": SECRET, "MAILROOM_PORT": SECRET},
        {**PRODUCTION, "MAILROOM_API_TOKEN": ""},
    ],
)
def test_no_secret_is_shown_in_an_error(load: Load, wrong: dict[str, str]) -> None:
    with pytest.raises(SettingsError) as caught:
        load(**wrong)
    error: BaseException | None = caught.value
    assert SECRET not in str(error) and "tiger" not in str(error)
    # What a traceback would print too.
    assert error is not None and error.__cause__ is None and error.__suppress_context__


@pytest.mark.parametrize("name", FIELDS)
def test_every_setting_is_described_where_it_is_defined(name: str) -> None:
    assert Settings.model_fields[name].description


def test_help_lists_every_setting_with_its_description_and_default() -> None:
    result = CliRunner().invoke(main, ["--help"])
    assert result.exit_code == 0
    # Wrapping breaks lines anywhere, so the comparison is without spaces.
    shown = "".join(result.output.split())
    for name in FIELDS:
        about = Settings.model_fields[name].description or ""
        assert environment_name(name) + "".join(about.split()) in shown
    assert "[default:127.0.0.1]" in shown
    assert "[default:86400]" in shown


def test_help_works_with_settings_that_do_not(tmp_path: Path) -> None:
    ended = subprocess.run(
        [str(Path(sys.executable).parent / "mailroom"), "--help"],
        cwd=tmp_path,
        env={**os.environ, "MAILROOM_PORT": "none"},
        capture_output=True,
        check=False,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 0
    assert "MAILROOM_PORT" in ended.stdout


def test_secrets_are_made_once_and_only_for_the_eyes_of_their_owner(
    load: Load, tmp_path: Path
) -> None:
    first = load()
    path = tmp_path / ".mailroom" / FILE_NAME
    made = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    again = load()
    assert path.read_text() == made
    assert again.webhook_secrets == first.webhook_secrets
    assert again.api_token == first.api_token
    assert [file.name for file in path.parent.iterdir()] == [FILE_NAME]


def test_made_secrets_are_long_and_different_everywhere(tmp_path: Path) -> None:
    made = [load_or_make_secrets(tmp_path / name) for name in ("one", "two")]
    values = [
        value
        for secrets in made
        for value in (secrets.webhook_secret, secrets.api_token, secrets.admin_password)
    ]
    assert len(set(values)) == 6
    assert min(map(len, values)) >= 32


def test_what_is_set_wins_over_what_was_made(load: Load) -> None:
    made = load()
    settings = load(MAILROOM_WEBHOOK_SECRETS=SECRET)
    assert settings.webhook_secrets == (WebhookSecret("secret-1", SECRET),)
    assert settings.api_token == made.api_token


def test_no_file_is_made_when_nothing_has_to_be_made(load: Load, tmp_path: Path) -> None:
    load(MAILROOM_WEBHOOK_SECRETS=SECRET, MAILROOM_API_TOKEN="token")
    assert not (tmp_path / ".mailroom").exists()


def test_threads_that_start_at_once_have_the_same_secrets(tmp_path: Path) -> None:
    count = 12
    barrier = threading.Barrier(count)
    made: list[DevelopmentSecrets] = []

    def make() -> None:
        barrier.wait()
        made.append(load_or_make_secrets(tmp_path / "home"))

    threads = [threading.Thread(target=make) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == count
    assert len(set(made)) == 1
    assert [file.name for file in (tmp_path / "home").iterdir()] == [FILE_NAME]


def test_processes_that_start_at_once_have_the_same_secrets(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", LOAD_AND_TELL],
            cwd=PROJECT,
            env={**os.environ, "MAILROOM_HOME": str(tmp_path / "home")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    told = {process.communicate(timeout=60)[0] for process in processes}
    assert [process.returncode for process in processes] == [0] * len(processes)
    assert len(told) == 1
    assert len(told.pop().split()) == 2


@pytest.mark.parametrize(
    "content",
    [b"", b"api_token=x\n", b"\xff\xfe\x00", b"webhook_secret=\napi_token=\nadmin_password=\n"],
)
def test_a_damaged_file_is_named_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / FILE_NAME
    path.write_bytes(content)
    with pytest.raises(DevelopmentSecretsError, match=FILE_NAME):
        load_or_make_secrets(tmp_path)
    assert path.read_bytes() == content


def test_a_home_that_cannot_be_written_is_named_with_the_setting_that_moves_it(
    tmp_path: Path,
) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(DevelopmentSecretsError, match="MAILROOM_HOME"):
        load_or_make_secrets(tmp_path / "file" / "home")
