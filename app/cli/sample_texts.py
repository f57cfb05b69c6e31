"""The texts of the demo corpus: what customers of a shop write, in German and English.

A topic has openings and details; `{order}` and the like name facts that each email fills in.
"""

import re

import attrs


def words(text: str, separator: str = " ") -> tuple[str, ...]:
    """Split a table that is written in one line."""
    return tuple(text.split(separator))


@attrs.frozen
class Topic:
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


def _topics(prose: str) -> tuple[Topic, ...]:
    """Read topics: `# tag emoji subject / subject`, then `- opening` and `+ detail`."""
    topics = []
    for block in prose.split("\n# ")[1:]:
        head, *texts = re.split(r"\n(?=[-+] )", block)
        tag, emoji, subjects = head.split(" ", 2)
        openings = tuple(_text(text) for text in texts if text.startswith("-"))
        details = tuple(_text(text) for text in texts if text.startswith("+"))
        topics.append(Topic(tag, emoji, tuple(subjects.split(" / ")), openings, details))
    return tuple(topics)


def _paragraphs(prose: str) -> tuple[str, ...]:
    return tuple(_text(text) for text in re.split(r"\n(?=\s*- )", prose)[1:])


def _text(lines: str) -> str:
    """Join the lines of one text, where `|` ends a line and `{order}` names a fact (`_facts`)."""
    return " ".join(lines.split()[1:]).replace(" | ", "\n")


GERMAN_TOPICS = _topics("""
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

ENGLISH_TOPICS = _topics("""
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
class Language:
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


GERMAN = Language(
    tag="german",
    first_names=words(
        "Jörg Käthe Günther Björn Sören Änne Jürgen Zoë Bärbel René Özlem Anna Lukas Miriam "
        "Thomas Fatma Paul Ursula"
    ),
    last_names=words(
        "Müßiggang Weiß Größmann Köhler Schäfer Strauß Vögele Yıldız Kühn Löwenstein Öztürk "
        "Fuchs Behrens Nowak Hartmann Brückner Großkopf Lindner Weidenbach"
    ),
    products=words(
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

ENGLISH = Language(
    tag="english",
    first_names=words(
        "Amelia Oliver Siobhán Priya George Chloë Kwame Harriet Nia Callum Grace Mateo Imogen "
        "Yusuf Eleanor Dylan Renée"
    ),
    last_names=words(
        "Hargreaves O'Neill Okafor Whitlock Ashdown Patel Fairweather Brontë MacLeod Pennington "
        "Sørensen Blackwood Thistle Adeyemi Quigley Marlowe Winterbourne"
    ),
    products=words(
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
