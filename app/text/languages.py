"""The language of a message, by its script or its most frequent small words. Models that know more
take 30 to 100 MB in each worker, and a second to load; this tells 26 languages in the sentences
that people write to a support team."""

import re

# What is looked at; a message says it in its first sentences.
LONGEST_LOOK = 4_000
FEWEST_WORDS = 2

_WORD = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)?")
_NOISE = re.compile(r"https?://\S+|www\.\S+|\S+@\S+|^>.*$", re.MULTILINE)

# Counted in a text, the script tells the language.
_SCRIPTS = (
    ("ja", re.compile("[\u3040-\u30ff]")),
    ("ko", re.compile("[\uac00-\ud7af\u1100-\u11ff]")),
    ("zh", re.compile("[\u4e00-\u9fff]")),
    ("he", re.compile("[\u0590-\u05ff]")),
    ("fa", re.compile("[پچژگی‌ک]")),
    ("ar", re.compile("[\u0600-\u06ff]")),
    ("th", re.compile("[\u0e00-\u0e7f]")),
    ("el", re.compile("[\u0370-\u03ff]")),
    ("hi", re.compile("[\u0900-\u097f]")),
    ("uk", re.compile("[іїєґ]")),
    ("bg", re.compile("[ъ](?=\\w)")),
    ("ru", re.compile("[\u0400-\u04ff]")),
)

_SMALL_WORDS = {
    "en": "the and is are was were to of in on for with my your you we i it this that not have has had can could please would be been do does did from at as if but or what when how thanks thank hello hi dear regards order will there any me an a no yes",
    "de": "der die das und ist sind war nicht ich wir sie mein meine meinen ihre ihr mit für auf von zu zum zur den dem ein eine einen einer bitte danke hallo guten tag habe haben hat noch auch wie wann es im in am wenn oder aber kann können nach bei ja nein vielen dank grüße gruß sehr geehrte",
    "fr": "le la les des un une et est sont je vous nous ne pas mon ma mes votre vos pour avec dans sur que qui ce cette il elle bonjour merci cordialement du de en au aux ai avez être pouvez plus bien commande si ou mais oui non",
    "es": "el la los las un una y es son no mi su sus para por con en que de del al lo se me le hola gracias buenos días tardes pedido tengo está puede pueden saludos he ha muy pero como cuando más sí qué favor",
    "it": "il lo la gli le un una e è sono non mi mio mia vostro per con in che di del della dei al alla buongiorno salve grazie ordine ho ha avete può come quando ma più anche saluti cordiali questo sì si ci vi",
    "pt": "o a os as um uma e é são não meu minha seu sua para por com em que de do da dos das no na ao olá obrigado obrigada bom dia pedido tenho está pode como quando mas mais também cumprimentos você foi eu",
    "nl": "de het een en is zijn niet ik wij we u uw mijn voor met op van naar aan dat die in er maar kan hallo beste bedankt dank bestelling heb heeft hebben ook nog als wanneer hoe groeten vriendelijke geen wel bij ja nee",
    "sv": "och är inte jag vi det den en ett att för med på av till från min mitt mina er hej tack har kan ska om som men när hur beställning hälsningar vänliga ni ej",
    "da": "og er ikke jeg vi det den en et at for med på af til fra min mit mine jer hej tak har kan skal om som men når hvordan ordre hilsen venlig venlige mvh I de",
    "no": "og er ikke jeg vi det den en et å for med på av til fra min mitt mine dere hei takk har kan skal om som men når hvordan bestilling hilsen vennlig mvh",
    "fi": "ja on ei en minä me se että olen oli minun tilaus tilaukseni hei kiitos voisitteko voitte kun mutta tai miten milloin terveisin ystävällisin ole ovat sen tämä mikä jos vielä",
    "pl": "i w na z do nie jest są się że to mam proszę dziękuję dzień dobry moje mój moja zamówienie czy jak kiedy ale od dla po przez o pozdrawiam witam by być tak",
    "cs": "a je jsou se že to na v z do ne není mám prosím děkuji dobrý den moje můj objednávka ale jak kdy pro od po s o pozdravem byl by jsem tak si",
    "sk": "a je sú sa že to na v z do nie mám prosím ďakujem dobrý deň moje môj objednávka ale ako kedy pre od po s o pozdravom bol by som tak si",
    "hu": "a az és egy nem van vagyok hogy ez meg köszönöm kérem üdvözlettel szeretném rendelés mikor jó napot ha de is már csak vagy mert hol tisztelt",
    "ro": "și este sunt nu un o la de în pe cu pentru că să mi am ați bună ziua mulțumesc comanda când cum dar din mai vă rog",
    "tr": "ve bir bu için ile de da ne mi var yok değil ben siz merhaba teşekkürler teşekkür ederim sipariş siparişim lütfen nasıl ama çok olarak saygılarımla",
    "hr": "i je su se da na u iz ne nije imam molim hvala dobar dan moja moj narudžba ali kako kada za od s o pozdrav bi sam što lijep",
    "sl": "in je so se da na v iz ne ni imam prosim hvala dober dan moje moj naročilo ali kako kdaj za od z lep pozdrav bi sem kaj",
    "et": "ja on ei ma me see et mul tere aitäh tellimus palun kui aga või kuidas millal lugupidamisega olen oli minu",
    "lt": "ir yra ne aš mes tai kad mano sveiki ačiū užsakymas prašau kada kaip bet su iš į pagarbiai dėl",
    "lv": "un ir nav es mēs tas ka mans labdien paldies pasūtījums lūdzu kad kā bet ar no uz par cieņu",
    "vi": "và là không tôi của cho với được có này xin chào cảm ơn đơn hàng khi nào một trong bạn đã",
    "id": "dan yang di ke dari ini itu tidak saya untuk dengan pesanan terima kasih apa kapan mohon bisa sudah anda selamat",
    "ca": "el la els les un una i és són no el meu per amb en que de del hola gràcies comanda tinc està pot com quan però més bon dia",
}
_LANGUAGES_OF: dict[str, list[str]] = {}
for _language, _text in _SMALL_WORDS.items():
    for _word in frozenset(_text.split()):
        _LANGUAGES_OF.setdefault(_word, []).append(_language)
_LETTERS = {
    "de": "äöüß", "fr": "éèêàçœùîôë", "es": "ñ¿¡óíáú", "pt": "ãõçáêó", "it": "òàùèì", "sv": "åäö",
    "da": "åæø", "no": "åæø", "fi": "äö", "pl": "łąęśżźćń", "cs": "řěůčšž", "sk": "ľĺŕôčšž", "hu": "őűáé",
    "ro": "țșăîâ", "tr": "ğışç", "hr": "čćđšž", "sl": "čšž", "et": "õäöü", "lt": "ėįųūčšž", "lv": "āēīņļģķ",
    "vi": "ạảấầẩẫậắằẳẵặẹẻẽếềểễệỉịọỏốồổỗộớờởỡợụủứừửữựỳỵỷỹđơư", "nl": "ĳ", "ca": "·",
}  # fmt: skip
_LETTERS_OF = {language: frozenset(letters) for language, letters in _LETTERS.items()}
_OWN_LETTERS = frozenset().union(*_LETTERS_OF.values())


def language_of(text: str) -> str | None:
    """The language of a text as a code of ISO 639-1, or None if it cannot be told."""
    text = _NOISE.sub(" ", text[:LONGEST_LOOK])
    count_of_letters = sum(character.isalpha() for character in text)
    if not count_of_letters:
        return None
    text = text.lower()
    for language, script in _SCRIPTS:
        count = len(script.findall(text))
        # A few of these letters are enough: Chinese has no kana, Russian no `і`.
        if count and count >= count_of_letters * (0.3 if language in ("zh", "ar", "ru") else 0.03):
            return language
    scores = dict.fromkeys(_SMALL_WORDS, 0.0)
    for word in _WORD.findall(text):
        for language in _LANGUAGES_OF.get(word, ()):
            scores[language] += 1
    own_letters = [letter for letter in text if letter in _OWN_LETTERS]
    for language, letters in _LETTERS_OF.items():
        scores[language] += 2.0 * min(sum(letter in letters for letter in own_letters), 3) / 3
    best, second = sorted(scores, key=lambda name: -scores[name])[:2]
    if scores[best] < FEWEST_WORDS or scores[best] - scores[second] < min(0.5, scores[best] / 20):
        return None
    return best
