"""The demo corpus: support emails, German and English, as a Zendesk trigger posts them.

A shop's customers ask, complain, return, cancel and praise. Everything is drawn from the tables
below as from decks of cards (`_Dealer`), and no table holds more than twenty: so the first 25
emails show every kind there is, and thousands of them still differ in people, products, numbers
and wording. All addresses are in domains that RFC 2606 reserves; the telephone numbers are those
set aside for fiction.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from email.utils import format_datetime
from functools import cache
from html import escape
from html.entities import codepoint2name
from random import Random
from typing import Any, TypeVar
from urllib.parse import quote

import attrs

T = TypeVar("T")

OLDEST_DAYS = 60


def sample_emails(
    count: int, seed: int, *, now: datetime | None = None
) -> Iterator[dict[str, Any]]:
    """Make `count` webhook payloads, one at a time; a seed and a `now` always make the same ones.

    Their webhook ids depend on the seed alone: what is sent twice is recognised as sent before.
    """
    now = (now or datetime.now(UTC)).astimezone(UTC)
    dealer = _Dealer(Random(seed))  # noqa: S311 - a demo has to be repeatable, not secret
    for index in range(count):
        yield _payload(dealer, _webhook_id(seed, index), now)


class _Dealer:
    """Draws from tables as from shuffled decks: nothing comes again before all else came."""

    def __init__(self, random: Random) -> None:
        self._random = random.random
        self._decks: dict[int, list[Any]] = {}

    def deal(self, table: Sequence[T]) -> T:
        """Draw from one of this module's tables, which is known by its identity."""
        deck = self._decks.get(id(table))
        if not deck:
            deck = self._decks[id(table)] = list(table)
        # Not shuffled beforehand: that would take half the time of making an email.
        card: T = deck.pop(int(self._random() * len(deck)))
        return card

    def number(self, low: int, high: int) -> int:
        return low + int(self._random() * (high - low))

    def age(self) -> timedelta:
        """How long ago an email came: most of them lately, none of them just now."""
        return timedelta(seconds=1 + int(self._random() ** 3 * OLDEST_DAYS * 86_400))


def _words(text: str, separator: str = " ") -> tuple[str, ...]:
    return tuple(text.split(separator))


@attrs.frozen
class _Topic:
    """What an email is about. A letter has one of the openings and one of the details."""

    tag: str
    emoji: str
    subjects: tuple[str, ...]
    openings: tuple[str, ...]
    details: tuple[str, ...]

    @property
    def automatic(self) -> bool:
        """Whether a machine wrote it: it attaches nothing and does not chat."""
        return self.tag == "out_of_office"


def _topics(prose: str) -> tuple[_Topic, ...]:
    """Read topics: `# tag emoji subject / subject`, then `- opening` and `+ detail`."""
    topics = []
    for block in prose.split("\n# ")[1:]:
        head, *texts = re.split(r"\n(?=[-+] )", block)
        tag, emoji, subjects = head.split(" ", 2)
        openings = tuple(_text(text) for text in texts if text.startswith("-"))
        details = tuple(_text(text) for text in texts if text.startswith("+"))
        topics.append(_Topic(tag, emoji, tuple(subjects.split(" / ")), openings, details))
    return tuple(topics)


def _paragraphs(prose: str) -> tuple[str, ...]:
    return tuple(_text(text) for text in re.split(r"\n(?=\s*- )", prose)[1:])


def _text(lines: str) -> str:
    """Join the lines of one text, where `|` ends a line and `{order}` names a fact (`_facts`)."""
    return " ".join(lines.split()[1:]).replace(" | ", "\n")


_TOPICS_DE = _topics("""
# order 📦 Wo bleibt meine Bestellung {order}? / Lieferstatus zu {order} / Frage zur Lieferung
- am {date} habe ich bei Ihnen „{product}“ bestellt (Bestellnummer {order}). Seit {days} Tagen steht
  die Sendung nun auf „in Zustellung“, angekommen ist bisher nichts.
- ich warte auf meine Bestellung {order} vom {date}. In der Sendungsverfolgung hat sich seit {days}
  Tagen nichts getan, und beim Nachbarn wurde auch nichts abgegeben.
- könnten Sie bitte nachsehen, was aus der Bestellung {order} geworden ist? Es geht um „{product}“
  für {amount}, bezahlt habe ich gleich am {date}.
+ Das Päckchen ist ein Geburtstagsgeschenk, deshalb drängt die Zeit ein wenig. Falls es verloren
  ging, würde ich lieber heute als morgen Ersatz bekommen.
+ Der Paketdienst verweist mich an Sie: Er dürfe nur dem Absender Auskunft geben. Bitte stellen Sie
  einen Nachforschungsauftrag.
# complaint 😠 Beschwerde / Artikel beschädigt angekommen: {order} / So nicht! / Reklamation
- leider muss ich mich beschweren: „{product}“ aus der Bestellung {order} kam heute mit einem großen
  Riss an. Der Karton war außen völlig in Ordnung, innen lag kein Füllmaterial.
- ich bin ziemlich verärgert. Das ist jetzt die zweite Lieferung zu {order}, und wieder fehlt die
  Hälfte. Auf meine Nachricht vom {date} hat bis heute niemand geantwortet.
- „{product}“ hat genau {days} Tage gehalten. Für {amount} darf man etwas anderes erwarten, zumal
  Ihre Beschreibung ausdrücklich von „unverwüstlich“ spricht.
+ Ich erwarte bis zum {until} eine Ersatzlieferung oder mein Geld zurück. Fotos kann ich Ihnen gern
  schicken.
+ Bitte sagen Sie mir, wie es weitergeht, und zwar ohne die üblichen Textbausteine. Ein Gutschein
  über fünf Euro hilft mir nicht weiter.
# invoice 🧾 Rechnung {invoice} / Rechnung fehlt zu {order} / Doppelt abgebucht? / Ihre Mahnung
- in der Rechnung {invoice} steht noch unsere alte Anschrift. Für die Buchhaltung benötigen wir eine
  berichtigte Fassung mit unserer Umsatzsteuer-Nummer.
- für die Bestellung {order} vom {date} wurden {amount} zweimal abgebucht. Auf der Rechnung
  {invoice} taucht der Betrag aber nur einmal auf.
- Sie mahnen die Rechnung {invoice} an, die ich nachweislich am {date} überwiesen habe (Betrag:
  {amount}, Verwendungszweck: {order}). Vermutlich haben sich Post und Zahlung gekreuzt.
+ Bitte senden Sie uns das Dokument als PDF. Auf Papier brauchen wir es nicht.
+ Wie lange dauert es erfahrungsgemäß, bis so etwas geklärt ist? Unser Monatsabschluss ist am
  {until}.
# return ↩️ Rücksendung {order} / Umtausch: falsche Größe / Widerruf meiner Bestellung {order}
- „{product}“ gefällt mir leider doch nicht so gut wie auf den Bildern. Ich möchte es gern
  zurückgeben; ausgepackt habe ich es nur zum Anschauen.
- hiermit widerrufe ich den Kauf vom {date} (Bestellung {order}, {amount}). Die Ware ist unbenutzt
  und liegt versandfertig im Flur.
- die Größe passt nicht: Ich würde „{product}“ gern umtauschen, am liebsten gegen die nächstgrößere
  Ausführung.
+ Schicken Sie mir bitte ein Rücksendeetikett? Einen Drucker habe ich nicht, ein QR-Code für die
  Filiale wäre also ideal.
+ Muss ich die Originalverpackung verwenden? Die hat unser Hund schon „begutachtet“.
# password 🔑 Passwort vergessen / Ich komme nicht mehr in mein Konto
- seit gestern komme ich nicht mehr in mein Kundenkonto. Das Zurücksetzen habe ich {days}-mal
  versucht, aber die angekündigte E-Mail kommt nie an – auch nicht im Spam-Ordner.
- der Link zum Ändern meines Passworts ist angeblich abgelaufen, obwohl ich ihn sofort geöffnet
  habe. Danach hieß es: „Zu viele Versuche, bitte später erneut probieren.“
- ich habe ein neues Telefon, und der Code für die Anmeldung wird weiter an das alte geschickt.
  Dadurch bin ich aus meinem Konto ausgesperrt.
+ Mein Benutzername ist übrigens diese E-Mail-Adresse. Können Sie mich von Hand freischalten?
+ Ich bräuchte den Zugang recht bald, weil dort die Rechnung {invoice} liegt.
# bug 🐞 Fehler in der App {version} / Warenkorb leert sich von selbst / Fehlermeldung beim Bezahlen
- seit der Aktualisierung auf Version {version} stürzt Ihre App ab, sobald ich „Zur Kasse“ antippe.
  Neu installiert habe ich sie schon, geändert hat das nichts.
- beim Bezahlen erscheint nur noch „Es ist ein unerwarteter Fehler aufgetreten (E-{days}07)“. Im
  Warenkorb liegt „{product}“, sonst nichts Besonderes.
- auf Ihrer Website werden Umlaute falsch dargestellt: Aus „Größe“ wird „GrÃ¶ÃŸe“. Das passiert in
  den Bestellungen ebenso wie in der Rechnung {invoice}.
+ So lässt es sich nachstellen: | 1. Anmelden und „{product}“ in den Warenkorb legen | 2. Zur Kasse
  gehen, Lieferadresse ändern | 3. Auf „Zurück“ tippen | Erwartet: Der Warenkorb bleibt, wie er ist.
  | Tatsächlich: Er ist leer.
+ Aus dem Protokoll: | 14:05:09 WARN cart: token <expired> & renewed | 14:05:11 ERROR checkout:
  amount {amount} != 0 | 14:05:11 INFO session closed, version {version}
# praise 🎉 Danke! / Großes Lob an Ihr Team / Das nenne ich Service / Ein Dankeschön an {agent}
- heute einmal keine Beschwerde: „{product}“ ist am {date} angekommen und schöner, als ich es mir
  vorgestellt hatte. Die ganze Familie ist begeistert.
- ich wollte mich herzlich bei {agent} bedanken. So freundlich und geduldig bin ich schon lange
  nicht mehr beraten worden.
- Hut ab! Gestern Abend bestellt, heute früh stand das Paket vor der Tür – und das bei dem Schnee.
+ Machen Sie bitte genau so weiter. Weiterempfohlen habe ich Sie natürlich schon.
+ Geben Sie das Lob gern an die Kolleginnen und Kollegen im Lager weiter, die so liebevoll gepackt
  haben.
# cancellation ✂️ Kündigung / Kündigung meines Abos zum {until}
- hiermit kündige ich mein Abonnement fristgerecht zum {until}, hilfsweise zum nächstmöglichen
  Termin. Meine Vertragsnummer lautet {invoice}.
- bitte stornieren Sie die Bestellung {order}. Ich habe mich beim Bestellen verklickt und
  „{product}“ gleich {days}-mal in den Warenkorb gelegt.
- da ich zum {until} ins Ausland ziehe, möchte ich mein Kundenkonto schließen und das Abo beenden.
+ Bitte bestätigen Sie mir den Eingang schriftlich. Von Rückrufen zur Kundenbindung bitte ich
  abzusehen.
+ Löschen Sie danach bitte auch meine Daten, soweit Sie sie nicht aufbewahren müssen.
# out_of_office 🏖️ Automatische Antwort: Abwesenheit / Abwesenheitsnotiz / Außer Haus bis {until}
- vielen Dank für Ihre Nachricht. Ich bin bis einschließlich {until} nicht im Büro und lese meine
  E-Mails nur unregelmäßig.
- ich befinde mich in Elternzeit und bin voraussichtlich ab dem {until} wieder erreichbar.
- diese Antwort wurde automatisch erstellt. Unser Betrieb macht Ferien und ist ab dem {until} wieder
  für Sie da.
+ In dringenden Fällen wenden Sie sich bitte an {agent}, Telefon {phone}.
+ Ihre E-Mail wird nicht weitergeleitet. Nach meiner Rückkehr melde ich mich bei Ihnen.
# question 🤔 Frage zu „{product}“ / Wann wieder lieferbar? / Passt das zusammen? / Kurze Frage
- ich interessiere mich für „{product}“ und finde in der Beschreibung keine Angaben zu Maßen und
  Gewicht. Können Sie mir weiterhelfen?
- wann ist „{product}“ voraussichtlich wieder lieferbar? Auf Ihrer Website steht seit dem {date} „in
  Kürze“.
- bei Ihnen habe ich am {date} „{product}“ gekauft und suche nun das passende Zubehör. In der
  Bedienungsanleitung ist davon leider keine Rede.
+ Gibt es dafür auch Ersatzteile, und wie lange halten Sie die vor? Das wäre mir wichtiger als der
  Preis.
+ Liefern Sie auch nach Österreich und in die Schweiz? Und was würde der Versand bei einem Wert von
  {amount} kosten?
""")

_TOPICS_EN = _topics("""
# order 📦 Where is my order {order}? / Delivery of {order} / Parcel not arrived / Still waiting
- I ordered the {product} on {date} (order {order}) and the tracking page has said "out for
  delivery" for {days} days now. Nothing has turned up so far.
- Could you please find out what happened to order {order}? I paid {amount} on {date} and have not
  heard a word since the confirmation.
- According to the carrier my parcel was "left with a neighbour". I have asked on both sides of the
  street and nobody has seen it. The order number is {order}.
+ It is meant to be a birthday present, so I am getting a little nervous. If it is lost, I would
  rather have a replacement sent today than wait for an investigation.
+ The driver cannot reach our door while the bridge is closed. Would it be possible to have it sent
  to a parcel shop instead?
# complaint 😡 Complaint / Item arrived broken ({order}) / Not what I paid for
- I am sorry to say that the {product} arrived with a crack right across the front. The box looked
  perfect; there was simply no padding in it.
- This is the third time I am writing about order {order}. My message of {date} was never answered,
  and the chat closes as soon as I type the order number.
- The {product} lasted exactly {days} days. For {amount} I had expected rather more, especially from
  something described as "built for life".
+ Please send a replacement or refund me by {until}. I am happy to provide photographs.
+ I don't want another voucher. I would like somebody to read this and tell me what will be done
  about it.
# invoice 💳 Invoice {invoice} / Charged twice? / Missing invoice for {order} / VAT number
- Our accountant tells me that invoice {invoice} shows our old address. Could we have a corrected
  copy with the VAT number on it?
- You charged {amount} to my card twice on {date}, but invoice {invoice} lists it only once.
- I have received a reminder for invoice {invoice}, although I paid the {amount} on {date} with
  {order} as the reference. I suspect the two crossed in the post.
+ A PDF by email is all we need. Please don't send anything on paper.
+ We close our books on {until}, so an answer before then would be a great help.
# return 🔁 Return of {order} / Wrong size / Exchange instead of refund? / Sending it back
- I'd like to return the {product} from order {order}. It is unused; I only took it out of the box
  to have a look.
- The {product} is lovely but too small for us. Could I exchange it for the next size up?
- I am withdrawing from my purchase of {date} (order {order}, {amount}). The parcel is packed and
  waiting in the hall.
+ Could you send me a return label? I have no printer, so a QR code would be perfect.
+ Does it have to be the original packaging? Our dog has been rather thorough with it.
# password 🔒 Can't log in / Password reset link expired / Locked out of my account
- I have asked for a password reset {days} times and the email never arrives. I have looked in the
  spam folder, too.
- The reset link claims to have expired, although I opened it the moment it came. After that I was
  told "Too many attempts, please try again later".
- I have a new phone, and the sign-in code keeps going to the old one. That leaves me locked out of
  my account.
+ My user name is this email address. Could you unlock the account by hand?
+ I need to get in soon because invoice {invoice} is in there.
# bug 🪲 App {version} crashes at checkout / Basket empties itself / Error E-{days}07 when paying
- Since the update to version {version} your app crashes whenever I tap "Checkout". Reinstalling it
  made no difference.
- Paying fails with "An unexpected error occurred (E-{days}07)". The only thing in my basket is the
  {product}.
- The search on your website finds nothing once a query contains an apostrophe. "Baker's dozen"
  gives an empty page, "Bakers dozen" works.
+ Steps to reproduce: | 1. Log in and add the {product} to the basket | 2. Go to the checkout and
  change the address | 3. Tap "Back" | Expected: the basket is unchanged. | Actual: it is empty.
+ From the console: | 14:05:09 WARN cart: token <expired> & renewed | 14:05:11 ERROR checkout:
  amount {amount} != 0 | 14:05:11 INFO session closed, version {version}
# praise 🥳 Thank you! / Brilliant service / A big thank-you to {agent} / Just wanted to say
- No complaint today, for once: the {product} arrived on {date}, and it is even nicer than in the
  pictures. The whole family loves it.
- I just wanted to say thank you to {agent}, who was patient with me for half an hour and solved the
  problem in the end.
- Ordered last night, on the doorstep this morning. I have no idea how you do it, but please keep
  doing it.
+ I have already told half the street about you.
+ Please pass this on to the people in the warehouse, who packed it with so much care.
# cancellation 👋 Cancel my subscription / Please cancel order {order}
- Please cancel my subscription with effect from {until}, or from the earliest possible date. The
  contract number is {invoice}.
- Could you cancel order {order}, please? My finger slipped and I seem to have ordered the {product}
  {days} times.
- We are moving abroad on {until}, so I would like to close my account and end the subscription.
+ Please confirm this in writing. There is no need to call me with a better offer.
+ Please also delete my data as far as you are not obliged to keep it.
# out_of_office 🌴 Out of office / Automatic reply: away until {until} / On holiday
- Thank you for your message. I am out of the office until {until} and will read my email only now
  and then.
- I am on parental leave and expect to be back on {until}.
- This is an automatic reply. Our office is closed for the holidays and reopens on {until}.
+ If it is urgent, please contact {agent} on {phone}.
+ Your email is not being forwarded. I will get back to you when I return.
# question ❓ Question about the {product} / Back in stock? / Will this fit? / Quick question
- I am interested in the {product}, but your page gives neither its size nor its weight. Could you
  help?
- When do you expect the {product} back in stock? Your website has said "soon" since {date}.
- I bought the {product} from you on {date} and now I'm looking for the right accessories. The
  manual doesn't mention any.
+ Are there spare parts for it, and for how long will you have them? That matters more to me than
  the price.
+ Do you ship to Ireland & Norway, and what would it cost for something worth {amount}?
""")


@attrs.frozen(kw_only=True, eq=False)
class _Language:
    """All that differs between the languages apart from the topics."""

    tag: str
    first_names: tuple[str, ...]
    last_names: tuple[str, ...]
    products: tuple[str, ...]
    greetings: tuple[str, ...]
    closings: tuple[str, ...]
    signatures: tuple[str, ...]
    asides: tuple[str, ...]
    stories: tuple[str, ...]
    """What makes a long email long."""
    answers: tuple[str, ...]
    """What support wrote before, where an email quotes it."""
    questions: tuple[str, ...]
    """What the customer wrote before that."""
    wrote: str
    reply: str
    files: tuple[str, ...]
    day: str
    amount: str
    phone: str


_GERMAN = _Language(
    tag="german",
    first_names=_words(
        "Jörg Käthe Günther Björn Sören Änne Jürgen Zoë Bärbel René Özlem Anna Lukas Miriam "
        "Thomas Fatma Paul Ursula"
    ),
    last_names=_words(
        "Müßiggang Weiß Größmann Köhler Schäfer Strauß Vögele Yıldız Kühn Löwenstein Öztürk "
        "Fuchs Behrens Nowak Hartmann Brückner Großkopf Lindner Weidenbach"
    ),
    products=_words(
        "Kaffeemühle Moka 2/Wanderrucksack Ötztal 45 l/Teekanne Frühling/Regenjacke Größe L/"
        "Stehleuchte Ångström/Gießkanne 10 l/Hängematte Süden/Schlüsselbrett Eiche/Fußmatte Igel/"
        "Kopfhörer K7/Öllampe Leuchtturm/Brotkasten Emaille/Gartenschere Profi/Bettwäsche Mohn/"
        "Fahrradtasche Küste/Küchenwaage Präzis",
        "/",
    ),
    greetings=(
        "Guten Tag,",
        "Hallo,",
        "Sehr geehrte Damen und Herren,",
        "Hallo zusammen,",
        "Moin,",
    ),
    closings=(
        "Mit freundlichen Grüßen\n{name}",
        "Viele Grüße\n{first}",
        "Freundliche Grüße aus {city}\n{name}",
        "Schöne Grüße und vielen Dank im Voraus\n{name}",
        "Beste Grüße, {first}",
    ),
    signatures=(
        "",
        "",
        "Von meinem iPhone gesendet",
        "Gesendet von meinem Telefon – bitte entschuldigen Sie Tippfehler.",
        "-- \n{name}\nEinkauf & Büroorganisation\n{last} & Söhne GmbH, {city}\n"
        "Telefon {phone}\nhttps://www.{site}/über-uns",
        "-- \n{name} · {city} · {email}\n„Wer langsam geht, kommt auch ans Ziel.“",
    ),
    asides=(
        "",
        *_paragraphs("""
        - Telefonisch erreichen Sie mich am besten vormittags unter {phone}.
        - Ich bin seit vielen Jahren Kunde bei {shop}, und im Großen und Ganzen immer gern.
        - Am Rande: Ihre Hotline war am {date} leider nur mit Musik besetzt, daher schreibe ich.
        - Meine Anschrift hat sich nicht geändert, alles geht weiter nach {city}.
        - Falls Sie noch Angaben brauchen, antworten Sie einfach auf diese E-Mail.
    """),
    ),
    stories=_paragraphs("""
        - Damit Sie es besser einordnen können, hole ich etwas weiter aus. Wir sind vor einiger Zeit
          nach {city} gezogen, in ein altes Haus mit schmalen Türen und noch schmaleren Fluren, und
          haben seither vieles bei Ihnen bestellt: zuerst die Lampen, später Geschirr und
          Gartengerät. Mit fast allem waren wir zufrieden, und was nicht passte, ging ohne
          Diskussion zurück.
        - Am {date} habe ich zum ersten Mal bei Ihnen angerufen. Der junge Mann am Telefon war
          ausgesprochen höflich, konnte im System aber nur die Hälfte sehen und versprach einen
          Rückruf. Am Tag darauf rief tatsächlich jemand an, allerdings aus einer anderen Abteilung,
          und ich durfte die Geschichte von vorn erzählen. Verübelt habe ich es niemandem, nur
          weitergekommen sind wir so nicht.
        - Meine Nachbarin, die ebenfalls bei {shop} bestellt, hat mir geraten, alles schriftlich
          festzuhalten. Das tue ich hiermit: Die Bestellung trägt die Nummer {order}, der Beleg die
          Nummer {invoice}, und der Betrag von {amount} wurde noch am selben Tag bezahlt. Den
          Kontoauszug habe ich vor mir liegen und schicke ihn Ihnen, wenn es der Sache dient.
        - Inzwischen habe ich auch in Ihrer Hilfe nachgelesen. Dort stehen drei verschiedene
          Antworten auf dieselbe Frage, je nachdem, ob man über die Suche, das Menü oder den Chat
          dorthin gelangt. Vielleicht mag sich das jemand ansehen; mit ein wenig Aufräumen ließen
          sich bestimmt viele Anfragen wie diese vermeiden, und Sie hätten mehr Zeit für die
          schwierigen Fälle.
        - Ich schreibe das nicht, um zu nörgeln. Mein Vater hatte selbst ein kleines Geschäft, und
          ich weiß, wie mühsam es ist, wenn an einem einzigen Tag alles zugleich schiefgeht. Er
          pflegte zu sagen, man erkenne einen guten Laden nicht daran, dass nie etwas passiert,
          sondern daran, was danach geschieht. In diesem Sinne bin ich zuversichtlich.
    """),
    answers=_paragraphs("""
        - Guten Tag {name}, | vielen Dank für Ihre Nachricht. Wir haben Ihr Anliegen zu {order}
          aufgenommen und melden uns spätestens am {until} bei Ihnen. | Freundliche Grüße | {agent},
          {shop}
        - Hallo {first}, | das tut uns leid! Könnten Sie uns bitte noch die Bestellnummer und, falls
          möglich, ein Foto schicken? | Herzliche Grüße | {agent}
        - Guten Tag, | wir haben die Angelegenheit an unser Lager weitergegeben. Sobald wir von dort
          hören, geben wir Ihnen Bescheid. | Ihr Team von {shop}
    """),
    questions=_paragraphs("""
        - Hallo, | können Sie mir zu „{product}“ etwas sagen? Die Bestellnummer ist {order}. |
          {name}
        - Guten Tag, | auf meine Frage vom {date} habe ich noch keine Antwort. Ist sie angekommen? |
          Gruß, {first}
    """),
    wrote="Am {day} um {time} schrieb {who} <{address}>:",
    reply="AW: ",
    files=(
        "Rechnung Größe L.pdf",
        "Foto vom Päckchen.jpg",
        "Übersicht für Müßiggang.xlsx",
        "Bildschirmfoto von heute früh.png",
        "Kündigung – unterschrieben.pdf",
        "IMG_0815.HEIC",
        "Lieferschein Straße.docx",
        "Auszug März.csv",
    ),
    day="{:%d.%m.%Y}",
    amount="{},{:02} €",
    phone="030 23125 {}",
)

_ENGLISH = _Language(
    tag="english",
    first_names=_words(
        "Amelia Oliver Siobhán Priya George Chloë Kwame Harriet Nia Callum Grace Mateo Imogen "
        "Yusuf Eleanor Dylan Renée"
    ),
    last_names=_words(
        "Hargreaves O'Neill Okafor Whitlock Ashdown Patel Fairweather Brontë MacLeod Pennington "
        "Sørensen Blackwood Thistle Adeyemi Quigley Marlowe Winterbourne"
    ),
    products=_words(
        "coffee grinder Moka 2/hiking backpack (45 l)/teapot Spring/rain jacket (size L)/"
        "floor lamp Ångström/watering can/hammock South/oak key rack/hedgehog doormat/"
        "K7 headphones/lighthouse oil lamp/enamel bread bin/garden shears/poppy bed linen/"
        "pannier bag/kitchen scales",
        "/",
    ),
    greetings=("Hello,", "Hi there,", "Dear Sir or Madam,", "Dear support team,", "Good morning,"),
    closings=(
        "Kind regards,\n{name}",
        "Many thanks,\n{first}",
        "Best wishes from {city},\n{name}",
        "Yours faithfully,\n{name}",
        "Cheers, {first}",
    ),
    signatures=(
        "",
        "",
        "Sent from my iPhone",
        "Sent from my phone – please excuse the typos.",
        "-- \n{name}\nOffice & Facilities\n{last} & Daughters Ltd, {city}\n"
        "Phone {phone}\nhttps://www.{site}/about?from=mail&lang=en",
        '-- \n{name} · {city} · {email}\n"Slow is smooth, smooth is fast."',
    ),
    asides=(
        "",
        *_paragraphs("""
        - You can reach me on {phone}, ideally in the mornings.
        - I have been a customer of {shop} for many years, and on the whole a happy one.
        - By the way, on {date} your hotline had nothing but music to offer, so I am writing
          instead.
        - My address is unchanged; everything still goes to {city}.
        - If you need anything else from me, just reply to this email.
    """),
    ),
    stories=_paragraphs("""
        - Let me give you some background. We moved to {city} a while ago, into an old house with
          narrow doors and even narrower corridors, and since then we have bought a good many things
          from you: first the lamps, then crockery and tools for the garden. We were pleased with
          nearly all of it, and whatever didn't fit went back without any discussion.
        - I first called you on {date}. The young man on the phone was very polite, but he could see
          only half of it in his system and promised that somebody would ring me. The next day
          somebody did, from another department, and I had the pleasure of telling the story from
          the beginning. I don't hold it against anyone; it just didn't get us any further.
        - My neighbour, who also shops at {shop}, advised me to put everything in writing, so here
          it is: the order number is {order}, the document number is {invoice}, and the {amount} was
          paid on the same day. The bank statement is in front of me, and you may have a copy of it
          whenever that would help.
        - In the meantime I have read your help pages. They give three different answers to the same
          question, depending on whether you come by way of the search, the menu or the chat.
          Perhaps somebody would like to have a look at that. With a little tidying up you might be
          spared many messages like mine, and have more time for the difficult ones.
        - I am not writing this to grumble. My father ran a small shop himself, and I know how hard
          it is when everything goes wrong on the same day. He used to say that you don't know a
          good shop by nothing ever going wrong, but by what happens afterwards. In that spirit I
          remain hopeful.
    """),
    answers=_paragraphs("""
        - Dear {name}, | Thank you for your message. We have made a note of your request about
          {order} and will be in touch by {until}. | Kind regards | {agent}, {shop}
        - Hi {first}, | We are sorry to hear that! Could you send us the order number and, if you
          can, a photo? | Best wishes | {agent}
        - Hello, | We have passed this on to our warehouse and will let you know as soon as we hear
          from them. | Your team at {shop}
    """),
    questions=_paragraphs("""
        - Hello, | Is there any news about the {product}? The order number is {order}. | {name}
        - Hi, | I haven't had an answer to my question of {date}. Did it reach you? | Thanks,
          {first}
    """),
    wrote="On {day} at {time}, {who} <{address}> wrote:",
    reply="Re: ",
    files=(
        "invoice copy.pdf",
        "photo of the box.jpg",
        "Screenshot from this morning.png",
        "café receipt.pdf",
        "IMG_4711.HEIC",
        "Zoë's packing list.docx",
        "naïve estimate.xlsx",
        "bank statement.csv",
    ),
    day="{0.day} {0:%B %Y}",
    amount="€{}.{:02}",
    phone="020 7946 0{}",
)

_LETTERS = (
    *((_GERMAN, topic) for topic in _TOPICS_DE),
    *((_ENGLISH, topic) for topic in _TOPICS_EN),
)

_CITIES = _words("Köln Lübeck Gießen Zürich Graz Leeds Cork Bath Malmö Tromsø York Plön")
_AGENTS = ("Sabine Röhrig", "Tim Falkner", "Aylin Çelik", "Jonas Weißbach", "Mona Fields")
_SHOPS = (("Nordlicht", "nordlicht.example"), ("Haus & Hof", "haus-und-hof.example"))
_DOMAINS = _words(
    "example.com example.org example.net mail.example.com post.kunde.example firma.example "
    "buero.firma.example familie.kunde.example studio.example"
)
_CONTENT_TYPES = {
    "pdf": "application/pdf",
    "jpg": "image/jpeg",
    "png": "image/png",
    "csv": "text/csv",
    "HEIC": "image/heic",
    "docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
    "xlsx": "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
}

_BODIES = tuple((form, quotes) for form in ("text", "html", "both") for quotes in (0, 0, 0, 1, 3))
"""Which bodies an email has, and how many earlier messages they quote."""

_SUBJECT_FORMS = ("plain",) * 8 + ("emoji",) * 3 + ("missing", "empty", "null")
_NAME_FORMS = ("full",) * 7 + ("reversed", "missing", "null")
_LONG = (True,) + (False,) * 8
_WITH_EMOJI = (True, False, False)
_TICKET_ID_TYPES: tuple[Callable[[int], str | int], ...] = (str, str, str, str, int)
_ATTACHMENTS: tuple[int | str, ...] = ("missing", "missing", "null", 0, 1, 1, 1, 2, 3)
_ATTACHMENT_FORMS = ("full", "full", "full", "text size", "no size", "no type", "bare", "null size")
_EXTRAS: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"brand": "Nordlicht"},
    {"priority": "high", "via": "email"},
    {"organization": None, "is_public": True},
)

_ZONES = {hours: timezone(timedelta(hours=hours)) for hours in (-5, 1, 2)}
_TIME_FORMATS: tuple[Callable[[datetime], str | int | None], ...] = (
    lambda time: time.isoformat()[:19] + "Z",
    lambda time: time.isoformat()[:19] + ".000Z",
    lambda time: time.astimezone(_ZONES[1]).isoformat(),
    lambda time: time.astimezone(_ZONES[-5]).isoformat(),
    lambda time: format_datetime(time.astimezone(_ZONES[2])),
    lambda time: int(time.timestamp()),
    lambda time: time.isoformat(" ")[:16],
    lambda time: time.strftime("%d.%m.%Y %H:%M"),
    lambda time: None,
)


_NAMED_ENTITIES = {char: f"&{codepoint2name[ord(char)]};" for char in "äöüÄÖÜß–„“€éø"}


def _with_named_entities(html: str) -> str:
    for character, entity in _NAMED_ENTITIES.items():
        html = html.replace(character, entity)
    return html


def _with_numeric_entities(html: str) -> str:
    return html.encode("ascii", "xmlcharrefreplace").decode("ascii")


@attrs.frozen
class _Client:
    """The HTML that a mail program makes of a letter."""

    page: str
    """Has `@letter@` and may have `@id@`, which names an inline image."""

    paragraph: tuple[str, str]
    quote: tuple[str, str, str]
    """What comes before the line that names the sender, after it and after the quoted letter."""

    encode: Callable[[str], str] = str
    """Writes characters beyond ASCII as the program does."""


_CLIENTS = (
    _Client(  # Apple Mail
        '<html><head><meta http-equiv="content-type" content="text/html; charset=utf-8"></head>'
        '<body dir="auto">@letter@<div><img src="cid:@id@" alt="IMG_0815.jpeg" width="320"></div>'
        "</body></html>",
        ("<div>", "</div><div><br></div>"),
        ('<blockquote type="cite"><div dir="ltr">', "<br><br></div>", "</blockquote>"),
    ),
    _Client(  # Outlook
        '<html xmlns:o="urn:schemas-microsoft-com:office:office"><head><style><!--\n'
        "@font-face {font-family:Calibri; panose-1:2 15 5 2 2 2 4 3 2 4;}\n"
        "p.MsoNormal, li.MsoNormal {margin:0cm; font-size:11.0pt; font-family:Calibri,sans-serif;}"
        '\n--></style></head><body lang="DE" link="#0563C1">'
        '<div class="WordSection1">@letter@</div></body></html>',
        ('<p class="MsoNormal">', '<o:p></o:p></p>\n<p class="MsoNormal"><o:p>&nbsp;</o:p></p>\n'),
        (
            '<div style="border:none;border-top:solid #E1E1E1 1.0pt"><p class="MsoNormal"><b>',
            "</b></p></div><blockquote>",
            "</blockquote>",
        ),
        encode=_with_named_entities,
    ),
    _Client(  # Gmail
        '<div dir="ltr">@letter@</div>',
        ("<div>", "</div><div><br></div>"),
        (
            '<div class="gmail_quote"><div dir="ltr" class="gmail_attr">',
            '<br></div><blockquote class="gmail_quote" style="margin:0 0 0 .8ex">',
            "</blockquote></div>",
        ),
    ),
    _Client(  # Thunderbird
        '<!DOCTYPE html>\n<html><head><meta charset="UTF-8"></head><body>@letter@'
        '<img alt="" src="data:image/gif;base64,R0lGODlhAQABAAAAACwAAAAAAQABAAA=">'
        "</body></html>",
        ("<p>", "</p>\n"),
        ('<div class="moz-cite-prefix">', '<br></div><blockquote type="cite">', "</blockquote>"),
    ),
    _Client(  # A company's mail system, which lays out with tables
        "<html><head><style>.outer{width:100%} .inner td{padding:8px; color:#333}</style>"
        "<script>window.opened = {id: '@id@', at: Date.now()};</script></head><body>"
        '<table class="outer" cellpadding="0"><tr><td align="center">'
        '<table class="inner" width="600"><tr><td><img src="https://img.firma.example/logo.png"'
        ' alt="Logo" height="40"></td></tr><tr><td>@letter@</td></tr></table></td></tr></table>'
        '<img src="https://img.firma.example/open/@id@.gif" width="1" height="1" alt="">'
        "</body></html>",
        ('<p style="margin:0 0 12px">', "</p>"),
        ("<hr><p><small>", "</small></p><blockquote>", "</blockquote>"),
        encode=_with_numeric_entities,
    ),
)

_IN_ADDRESSES = str.maketrans(
    {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss", "ø": "o", "é": "e", "á": "a", "ë": "e"}
    | {"ı": "i", "å": "a", "'": ""}
)


def _payload(dealer: _Dealer, webhook_id: str, now: datetime) -> dict[str, Any]:
    language, topic = dealer.deal(_LETTERS)
    received = (now - dealer.age()).replace(microsecond=0)
    facts = _facts(dealer, language, received)
    form, quotes = dealer.deal(_BODIES)
    letter = _letter(dealer, language, topic).format_map(facts)
    quoted = _quoted(dealer, language, facts, received, quotes)

    payload: dict[str, Any] = {
        "ticket_id": dealer.deal(_TICKET_ID_TYPES)(dealer.number(10_000, 1_000_000)),
        "from_email": facts["email"],
        "webhook_id": webhook_id,
        "tags": [topic.tag, language.tag],
        **dealer.deal(_EXTRAS),
        **_from_name(dealer, facts),
        **_subject(dealer, language, topic, facts, bool(quoted)),
    }
    if form != "html":
        payload["body_text"] = _as_text(letter, quoted)
    if form != "text":
        payload["body_html"] = _page(dealer, letter, quoted)
    time = dealer.deal(_TIME_FORMATS)(received)
    if time is not None:
        payload["received_at"] = time
    attachments = "missing" if topic.automatic else dealer.deal(_ATTACHMENTS)
    if attachments == "null":
        payload["attachments"] = None
    elif isinstance(attachments, int):
        payload["attachments"] = [_attachment(dealer, language) for _ in range(attachments)]
    return payload


def _webhook_id(seed: int, index: int) -> str:
    """An id in the form of Zendesk's (a ULID), which no other seed and index have."""
    return f"01{hashlib.blake2b(f'{seed}/{index}'.encode(), digest_size=12).hexdigest().upper()}"


def _facts(dealer: _Dealer, language: _Language, received: datetime) -> dict[str, str]:
    """What the texts name in braces: one customer and what happened to them."""
    first, last = dealer.deal(language.first_names), dealer.deal(language.last_names)
    shop, shop_domain = dealer.deal(_SHOPS)
    domain = dealer.deal(_DOMAINS)
    days = dealer.number(2, 30)
    return {
        "first": first,
        "last": last,
        "name": f"{first} {last}",
        "email": f"{_in_address(first)}.{_in_address(last)}@{domain}",
        "site": domain,
        "city": dealer.deal(_CITIES),
        "phone": language.phone.format(dealer.number(100, 1000)),
        "shop": shop,
        "support": f"support@{shop_domain}",
        "agent": dealer.deal(_AGENTS),
        "product": dealer.deal(language.products),
        "order": f"B-{dealer.number(100_000, 1_000_000)}",
        "invoice": f"{received.year}-{dealer.number(1_000, 100_000):05}",
        "amount": language.amount.format(*divmod(dealer.number(500, 60_000), 100)),
        "days": str(days),
        "version": f"{dealer.number(2, 9)}.{dealer.number(0, 30)}",
        "date": _day(language, received.date() - timedelta(days=days)),
        "until": _day(language, received.date() + timedelta(days=dealer.number(5, 40))),
    }


@cache
def _in_address(name: str) -> str:
    return name.lower().translate(_IN_ADDRESSES)


@cache
def _day(language: _Language, day: date) -> str:
    return language.day.format(day)


def _letter(dealer: _Dealer, language: _Language, topic: _Topic) -> str:
    """Greeting, matter, farewell and signature, with the facts still in braces."""
    paragraphs = [dealer.deal(language.greetings), dealer.deal(topic.openings)]
    if not topic.automatic and dealer.deal(_LONG):
        paragraphs += language.stories
    paragraphs.append(dealer.deal(topic.details))
    if not topic.automatic:
        paragraphs.append(dealer.deal(language.asides))
    if dealer.deal(_WITH_EMOJI):
        paragraphs[1] += f" {topic.emoji}"
    paragraphs += [dealer.deal(language.closings), dealer.deal(language.signatures)]
    return "\n\n".join(filter(None, paragraphs))


def _quoted(
    dealer: _Dealer, language: _Language, facts: dict[str, str], before: datetime, count: int
) -> list[tuple[str, str]]:
    """The earlier messages, latest first: support's and the customer's by turns.

    Returns:
        For each the line that says who wrote it when, and its text.
    """
    messages = []
    for number in range(count):
        before -= timedelta(minutes=dealer.number(20, 4_000))
        by_support = number % 2 == 0
        who, address = ("shop", "support") if by_support else ("name", "email")
        intro = language.wrote.format(
            day=_day(language, before.date()),
            time=f"{before.hour:02}:{before.minute:02}",
            who=facts[who],
            address=facts[address],
        )
        text = dealer.deal(language.answers if by_support else language.questions)
        messages.append((intro, text.format_map(facts)))
    return messages


def _as_text(letter: str, quoted: list[tuple[str, str]]) -> str:
    if not quoted:
        return letter
    (intro, text), *older = quoted
    return f"{letter}\n\n{intro}\n> " + _as_text(text, older).replace("\n", "\n> ")


def _as_html(client: _Client, letter: str, quoted: list[tuple[str, str]]) -> str:
    opening, closing = client.paragraph
    lines = escape(letter).replace("\n\n", "\0").replace("\n", "<br>")
    html = opening + lines.replace("\0", closing + opening) + closing
    if not quoted:
        return html
    (intro, text), *older = quoted
    before, between, after = client.quote
    return html + before + escape(intro) + between + _as_html(client, text, older) + after


def _page(dealer: _Dealer, letter: str, quoted: list[tuple[str, str]]) -> str:
    client = dealer.deal(_CLIENTS)
    html = client.encode(_as_html(client, letter, quoted))
    image = f"ii_{dealer.number(16**7, 16**8):x}"
    return client.page.replace("@letter@", html).replace("@id@", image)


def _subject(
    dealer: _Dealer, language: _Language, topic: _Topic, facts: dict[str, str], is_reply: bool
) -> dict[str, str | None]:
    form = dealer.deal(_SUBJECT_FORMS)
    if form in _ABSENT:
        return _ABSENT[form]("subject")
    subject = dealer.deal(topic.subjects).format_map(facts)
    if form == "emoji":
        subject = f"{topic.emoji} {subject}"
    return {"subject": language.reply + subject if is_reply else subject}


def _from_name(dealer: _Dealer, facts: dict[str, str]) -> dict[str, str | None]:
    form = dealer.deal(_NAME_FORMS)
    if form in _ABSENT:
        return _ABSENT[form]("from_name")
    return {
        "from_name": "{last}, {first}".format_map(facts) if form == "reversed" else facts["name"]
    }


_ABSENT: dict[str, Callable[[str], dict[str, str | None]]] = {
    "missing": lambda field: {},
    "null": lambda field: {field: None},
    "empty": lambda field: {field: ""},
}


_quote = cache(quote)


def _attachment(dealer: _Dealer, language: _Language) -> dict[str, Any]:
    filename = dealer.deal(language.files)
    token = f"{dealer.number(16**11, 16**12):x}"
    form = dealer.deal(_ATTACHMENT_FORMS)
    size = dealer.number(800, 4_000_000)
    attachment: dict[str, Any] = {
        "url": f"https://example.zendesk.com/attachments/token/{token}/?name={_quote(filename)}",
        "filename": filename,
    }
    if form not in ("no type", "bare"):
        attachment["content_type"] = _CONTENT_TYPES[filename.rpartition(".")[2]]
    if form not in ("no size", "bare"):
        attachment["size"] = {"text size": str(size), "null size": None}.get(form, size)
    return attachment
