"""What kind an email is does not depend on the case in which its words are written."""

from collections.abc import Callable

import pytest

from app.text.kinds import EmailKind, kind_of

SUBJECTS = {
    EmailKind.AUTO_REPLY: [
        "Automatische Antwort: Rückmeldung",
        "Re: Out of office",
        "otomatik yanıt",
        "автоответ",
    ],
    EmailKind.BOUNCE: [
        "Unzustellbar: Angebot",
        "Échec de la remise",
        "недоставлено",
        "送信できません",
    ],
    EmailKind.MESSAGE: ["Wo bleibt mein Päckchen?", "Is it wasted on me?"],
}
CASES: list[Callable[[str], str]] = [
    str,
    str.lower,
    str.upper,
    str.swapcase,
    # As Turkish has it.
    lambda text: text.replace("i", "İ").upper(),
]


@pytest.mark.parametrize("write", CASES)
@pytest.mark.parametrize(
    ("kind", "subject"), [(kind, one) for kind, several in SUBJECTS.items() for one in several]
)
def test_a_subject_in_any_case(kind: EmailKind, subject: str, write: Callable[[str], str]) -> None:
    assert kind_of("", subject=write(subject)) is kind


@pytest.mark.parametrize("write", CASES)
def test_a_text_and_a_sender_in_any_case(write: Callable[[str], str]) -> None:
    assert kind_of(write("I am currently out of office.")) is EmailKind.AUTO_REPLY
    assert kind_of(write("Unsubscribe here: https://example.com/")) is EmailKind.NEWSLETTER
    assert kind_of("", sender=write("mailer-daemon@example.com")) is EmailKind.BOUNCE
