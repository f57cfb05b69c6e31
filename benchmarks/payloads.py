"""The emails of the benchmarks: as a trigger of Zendesk's posts them, of any size.

Their words are drawn from a list, so that they compress as text does; the same number gives the
same text. Each came when it was made: emails that all came at one moment are no queue of a
support team.
"""

import json
import random
from datetime import UTC, datetime
from typing import Any

TEXT = (
    "Guten Tag Päckchen Bestellung noch nicht angekommen bitte nachsehen wo es steckt Nummer "
    "seit Montag warte ich auf eine Antwort Rechnung Betrag doppelt abgebucht Konto zurück "
    "erstatten the order has not arrived yet could you please check where it is I have been "
    "waiting since last week for an answer invoice amount was charged twice account refund "
    "thank you for your help kind regards Erika Mustermann Hamburg Köln München Lieferung "
    "Adresse geändert Straße Termin Kundennummer Gutschein Versand Paketdienst Zustellung "
    "Abholung Filiale Quittung"
)
WORDS = TEXT.split()


def make_email(number: int, size: int, *, run: str = "") -> dict[str, Any]:
    """An email whose JSON has about so many bytes. `run` tells it from those of other runs."""
    words = random.Random(number)
    text = " ".join(words.choices(WORDS, k=max(1, (size - 350) * 10 // 66)))
    return {
        "ticket_id": str(number),
        "from_email": f"erika-{number}@example.com",
        "from_name": "Erika Mustermann",
        "subject": f"Wo bleibt mein Päckchen {number}?",
        "body_text": text,
        "received_at": datetime.now(UTC).isoformat(timespec="microseconds"),
        "webhook_id": f"{run}-{number}",
        "attachments": [{"url": f"https://example.zendesk.com/attachments/{run}-{number}"}],
    }


def as_body(email: dict[str, Any]) -> bytes:
    """The email's JSON."""
    return json.dumps(email, ensure_ascii=False).encode()
