"""How somebody is told of an alarm: signed webhooks, Slack, mail; and what names them."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest
from receivers import PASSWORD, USER, running_mail, running_receiver
from standardwebhooks import Webhook
from support import make_settings

from app.alerts import sending
from app.alerts.messages import Message
from app.alerts.sending import NotSentError, NotTakenError, send
from app.outbound.errors import (
    AddressNotAllowedError,
    HostNotAllowedError,
    MailRefusedError,
    UnreachableError,
    UntrustedError,
)
from app.setting_groups.alerts import AlertTarget
from app.settings import Settings

SECRET = "whsec_" + "A" * 43 + "="
NOW = datetime(2026, 11, 26, 10, 5, tzinfo=UTC)


def message(**fields: Any) -> Message:
    return Message(
        **{
            "id": uuid4(),
            "moment": "began",
            "alarm_id": uuid4(),
            "kind": "silence",
            "key": "",
            "text": "no email came for <3> hours & 5 minutes",
            "mend": "see the webhook",
            "since": NOW,
            "ended_at": None,
            **fields,
        }
    )


def settings_for(folder: Path, url: str, **values: Any) -> Settings:
    return make_settings(
        alert_url=url,
        alert_secret=SECRET,
        outbound_ca_file=folder / "ca.pem",
        **{"outbound_open_loopback": True, **values},
    )


async def tell(settings: Settings, told: Message) -> None:
    [target] = settings.alert_url
    await send(settings, target, told)


async def test_a_webhook_is_signed_as_standard_webhooks_has_it(tmp_path: Path) -> None:
    async with running_receiver(tmp_path) as receiver:
        told = message(ended_at=NOW + timedelta(minutes=7), moment="ended")
        await tell(settings_for(tmp_path, receiver.url("/hook?a=b")), told)
    [posted] = receiver.posted
    assert posted.path == "/hook?a=b"
    body = Webhook(SECRET).verify(posted.body, posted.headers)
    assert posted.headers["webhook-id"] == str(told.id)
    assert body["type"] == "alarm.ended"
    assert body["data"]["text"] == told.text
    assert body["data"]["ended_at"] == "2026-11-26T10:12:00+00:00"


async def test_slack_gets_its_format_with_nothing_that_it_takes_for_a_command(
    tmp_path: Path,
) -> None:
    async with running_receiver(tmp_path) as receiver:
        await tell(settings_for(tmp_path, f"slack+{receiver.url('/services/T0/B0/x')}"), message())
    [posted] = receiver.posted
    assert posted.path == "/services/T0/B0/x"
    text = json.loads(posted.body)["text"]
    assert "no email came for &lt;3&gt; hours &amp; 5 minutes" in text
    assert "Since 2026-11-26 10:05 UTC." in text


@pytest.mark.parametrize("status", [302, 404, 500])
async def test_an_answer_other_than_2xx_is_no_success(tmp_path: Path, status: int) -> None:
    async with running_receiver(tmp_path, statuses=[status]) as receiver:
        with pytest.raises(NotTakenError, match=f"localhost answers {status} no"):
            await tell(settings_for(tmp_path, receiver.url()), message())


async def test_a_webhook_in_the_own_network_has_to_be_named(tmp_path: Path) -> None:
    async with running_receiver(tmp_path) as receiver:
        with pytest.raises((AddressNotAllowedError, HostNotAllowedError)):
            await tell(
                settings_for(tmp_path, receiver.url(), outbound_open_loopback=False), message()
            )
        named = settings_for(
            tmp_path,
            receiver.url(),
            outbound_open_loopback=False,
            outbound_internal_hosts=f"https://localhost:{receiver.port}",
        )
        await tell(named, message())
    assert len(receiver.posted) == 1


def mail_url(port: int, scheme: str = "smtp", user: str = USER, more: str = "") -> str:
    return (
        f"{scheme}://{user}:{quote(PASSWORD, safe='')}@localhost:{port}"
        f"?to=ops@example.com&to=second@example.com&from=mailroom@example.com{more}"
    )


@pytest.mark.parametrize(("scheme", "encryption"), [("smtp", "starttls"), ("smtps", "tls")])
async def test_mail_is_encrypted_and_says_that_no_person_wrote_it(
    tmp_path: Path, scheme: str, encryption: str
) -> None:
    async with running_mail(tmp_path, encryption=encryption) as server:
        told = message(text="zwei\nZeilen für Erika")
        # A mail server that a setting names may well be in the own network.
        await tell(
            settings_for(tmp_path, mail_url(server.port, scheme), outbound_open_loopback=False),
            told,
        )
    [mail] = server.got
    assert server.to == [["ops@example.com", "second@example.com"]]
    assert server.is_encrypted == [True] or encryption == "tls"
    assert mail["Subject"] == "[Mailroom] ALARM silence: zwei Zeilen für Erika"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert str(told.id) in mail["Message-ID"]
    assert "What to do: see the webhook." in mail.get_content()  # type: ignore[attr-defined]


async def test_mail_is_not_sent_where_nothing_is_encrypted_unless_that_is_meant(
    tmp_path: Path,
) -> None:
    async with running_mail(tmp_path, encryption="none", has_login=False) as server:
        url = f"smtp://localhost:{server.port}?to=ops@example.com&from=mailroom@example.com"
        with pytest.raises(UntrustedError, match="offers no encryption: use smtps://"):
            await tell(settings_for(tmp_path, url), message())
        await tell(settings_for(tmp_path, f"{url}&tls=none"), message())
    assert len(server.got) == 1


async def test_mail_goes_to_nobody_whose_certificate_is_not_trusted(tmp_path: Path) -> None:
    async with running_mail(tmp_path) as server:
        settings = make_settings(alert_url=mail_url(server.port))
        with pytest.raises(UntrustedError, match="localhost has no certificate that is trusted"):
            await tell(settings, message())
    assert server.got == []


async def test_what_a_mail_server_refuses_is_told_with_its_words(tmp_path: Path) -> None:
    async with running_mail(tmp_path) as server:
        with pytest.raises(MailRefusedError, match="localhost answers 535"):
            await tell(settings_for(tmp_path, mail_url(server.port, user="nobody")), message())
        server.answer = "554 5.7.1 no"
        with pytest.raises(MailRefusedError, match=r"localhost answers 554 5\.7\.1 no"):
            await tell(settings_for(tmp_path, mail_url(server.port)), message())
    with pytest.raises(UnreachableError, match="localhost cannot be reached at port"):
        await tell(settings_for(tmp_path, mail_url(server.port)), message())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ftp://example.com", "begins with none of the schemes"),
        ("https://", "names no host"),
        ("https://user:geheim@example.com/hook", "without user and password"),
        ("smtp://example.com", r"needs \?to=ADDRESS&from=ADDRESS"),
        ("smtp://example.com?to=a@example.com&from=b", "one address each"),
        ("smtp://u:geheim@example.com?to=a@example.com&from=b@example.com&tls=none", "no password"),
        ("https://example.com:geheim/", "is no URL"),
    ],
)
def test_an_entry_that_names_nobody_is_refused_without_its_secrets(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as wrong:
        AlertTarget.parse(text)
    assert "geheim" not in str(wrong.value)


# 33, 37 and 41 characters are no bytes in base64, however they are padded.
@pytest.mark.parametrize("encoded", ["A" * n for n in (31, 33, 37, 41, 87)] + ["A" * 43 + "!"])
def test_a_secret_that_signs_nothing_is_refused(encoded: str) -> None:
    with pytest.raises(ValueError, match="MAILROOM_ALERT_SECRET has to be `whsec_` and 24 to 64"):
        make_settings(alert_secret=f"whsec_{encoded}")


async def test_a_message_that_breaks_is_told_without_what_it_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def breaks(*_: object, **__: object) -> None:
        raise AttributeError(PASSWORD)

    monkeypatch.setattr(sending, "send_mail", breaks)
    with pytest.raises(NotSentError, match="to localhost broke with AttributeError") as broke:
        await tell(make_settings(alert_url=mail_url(25)), message())
    assert PASSWORD not in str(broke.value)


def test_a_webhook_needs_a_secret_and_settings_show_none() -> None:
    with pytest.raises(ValueError, match="MAILROOM_ALERT_SECRET is missing"):
        make_settings(alert_url="https://example.com/hook")
    with pytest.raises(ValueError, match="MAILROOM_ALERT_SECRET has to be `whsec_`"):
        make_settings(alert_secret="short")
    settings = make_settings(
        alert_url=f"https://example.com/geheim, {mail_url(25)}", alert_secret=SECRET
    )
    assert [target.label for target in settings.alert_url] == [
        "webhook example.com",
        "mail localhost",
    ]
    assert "geheim" not in repr(settings)
    assert "p/a:ss" not in repr(settings.alert_url)
    # Whoever changes a password tells nobody anything anew.
    changed = make_settings(alert_url=mail_url(25).replace("mailroom:", "other:"))
    assert changed.alert_url[0].key == settings.alert_url[1].key
