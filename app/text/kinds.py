"""What kind of email it is: a message of a person, an automatic reply, a bounce, a newsletter. By
its headers where there are any (RFC 3834, RFC 3464, RFC 2369), else by what its senders write."""

import re
from collections.abc import Mapping
from enum import Enum

# What tells the kind stands near the beginning; the way out of a newsletter, near the end.
LOOK = 3_000


class EmailKind(Enum):
    """The kind of an email, as it is stored."""

    MESSAGE = "message"
    AUTO_REPLY = "auto_reply"
    BOUNCE = "bounce"
    NEWSLETTER = "newsletter"


# All these are searched for in folded text: in lower case, the Turkish ı written as i. Python goes
# through a text for one of many words several times as fast if it need not ignore their case.
_BOUNCE_SENDER = re.compile(r"\b(?:mailer-daemon|postmaster|mail-daemon|mdaemon)@|^mailer-daemon")
_BOUNCE_SUBJECT = re.compile(
    r"undeliver(?:ed|able)|delivery (?:status notification|failure|has failed)|mail delivery (?:failed|system)"
    r"|returned (?:mail|to sender)|failure notice|message not delivered|unzustellbar|nicht zugestellt|zustellung fehlgeschlagen"
    r"|non[- ](?:remis|distribu|délivr)|échec de (?:la )?remise|no se (?:ha )?(?:puede|pudo|podido) entregar|no entregado|correo devuelto"
    r"|mancata consegna|consegna non riuscita|non recapitabile|não (?:foi )?entregue|falha na entrega|niet (?:te bezorgen|bezorgd)|onbestelbaar"
    r"|niedostarczon|nie można dostarczyć|nedoručiteln|olevererbart|kunde inte levereras|kunne ikke leveres"
    r"|недоставлен|не удалось доставить|配信不能|配達不能|配信できません|未送達|未達|退信|无法送达|送信できません|반송|전송 실패|تعذر التسليم",
)
_BOUNCE_TEXT = re.compile(
    r"(?:message|mail|email|e-mail) (?:could|can) ?not be delivered|couldn['’]t be delivered|delivery to the following recipients? failed"
    r"|this is the mail (?:system|delivery)|i(?:'|’)m sorry to have to inform you that your message could not|address couldn['’]t be found|wasn['’]t delivered to"
    r"|undelivered mail returned to sender|delivery status notification|permanent(?:ly)? (?:fatal )?(?:error|failed|failure)|user unknown|host not found|mailbox (?:is )?(?:full|unavailable)"
    r"|konnte nicht (?:an .{0,80} )?zugestellt werden|die folgende(?:n)? (?:e-mail-)?adresse.{0,40}fehlgeschlagen|n['’]a pas pu être (?:remis|livré|distribué)"
    r"|no (?:se )?(?:ha podido|pudo|puede) (?:ser )?entrega|non è stato possibile (?:recapitare|consegnare)|配信できませんでした|送信できませんでした|配達できません|不能投递|无法投递|전송하지 못했습니다",
)
_STATUS_CODE = re.compile(
    r"\b[45]\d\d[ -][45]\.\d{1,3}\.\d{1,3}\b|\b5\d\d 5\.\d|#?5\.[0-7]\.\d{1,3}\b"
)
_AUTO_SUBJECT = re.compile(
    r"^\s*+(?:(?:re|aw|antw|sv|rv)\s?[:：]\s*+)?\W*+(?:auto(?:matic|mated)?[ -]?(?:reply|response|responder|antwort)|automatische (?:antwort|beantwortung|reactie|rückmeldung)|out of (?:the )?office|ooo\b|abwesenheit|abwesend|nicht im (?:büro|haus)|urlaub"
    r"|réponse automatique|absence du bureau|message d['’]absence|absent|respuesta automática|fuera de (?:la )?oficina|risposta automatica|fuori (?:sede|ufficio)|resposta automática|fora do escritório|ausência"
    r"|automatisch antwoord|afwezig|autosvar|automatiskt svar|automatisk svar|frånvaro|fravær|poissa|automaattinen vastaus|autoodpowiedź|odpowiedź automatyczna|automatická odpověď|mimo kancelář|automatikus válasz"
    r"|автоответ|автоматический ответ|自動応答|自動返信|不在|自动回复|自動回覆|자동 ?(?:회신|응답)|otomatik yanit|otomatik cevap|رد تلقائي|תשובה אוטומטית)",
)
_AUTO_TEXT = re.compile(
    r"(?:i am|i['’]m|we are) (?:currently |presently )?(?:out of (?:the )?office|away from|on (?:annual |maternity |parental |sick )?(?:leave|vacation|holiday)|on leave|travelling)|i will be (?:out of (?:the )?office|away)|out of office (?:reply|until|from)|with (?:limited|no) access to (?:my )?e?-?mail"
    r"|this is an automat(?:ed|ic) (?:reply|response|message)|(?:do not|don['’]t) reply to this automat|ich bin (?:derzeit|zurzeit|momentan|aktuell|leider|vom|bis|ab|am|im|zur zeit).{0,60}(?:nicht (?:im (?:büro|haus)|erreichbar)|urlaub|abwesend|außer haus)|(?:bin|befinde mich).{0,30}im urlaub|ich bin bis (?:zum|einschließlich)|(?:e-)?mails? (?:wird|werden) nicht (?:weitergeleitet|gelesen|bearbeitet)"
    r"|je suis (?:actuellement )?(?:absent|en congé|en vacances|en déplacement)|je serai absent|estoy (?:fuera de la oficina|de vacaciones|ausente)|estaré (?:fuera|ausente)|me encuentro fuera|sono (?:fuori (?:sede|ufficio)|in ferie|assente)|sarò (?:assente|fuori)|estou (?:fora do escritório|de férias|ausente)|estarei (?:fora|ausente)"
    r"|ik ben (?:afwezig|met vakantie|op vakantie|niet aanwezig)|jag är (?:inte på kontoret|på semester|ledig|tjänstledig)|jeg er (?:på ferie|ikke på kontoret|fraværende)|jestem (?:na urlopie|nieobecn)|przebywam na urlopie|jsem (?:mimo kancelář|na dovolené)|я (?:в отпуске|нахожусь в отпуске)|буду отсутствовать|休暇を?(?:いただいて|取得)|不在にして|休暇中|現在、?(?:外出|不在)|我(?:正在|目前|现在)?(?:休假|不在办公室|外出)|부재 ?중|휴가 ?중",
)
_UNSUBSCRIBE = re.compile(
    r"unsubscribe|view (?:this (?:e?-?mail|message|newsletter) |it )?(?:in|online in) (?:your|a|the) browser|manage (?:your )?(?:e?-?mail )?preferences|update your preferences|opt[- ]out|you are receiving this|you received this e?-?mail because"
    r"|abbestell|abmelden|vom newsletter|newsletter ab|im browser (?:ansehen|anzeigen|öffnen)|webansicht|online-version|se désabonner|désinscri|désabonne|version en ligne|darse de baja|cancelar (?:la|su|tu) suscripción|ver en (?:el |tu )?navegador"
    r"|annulla(?:re)? (?:l['’])?iscrizione|disiscri|cancellati|cancelar (?:a )?(?:inscrição|assinatura|subscrição)|descadastr|uitschrijven|afmelden|bekijk (?:deze )?(?:e-?mail|online)|avregistrera|avprenumerera|afmeld|avmeld|peruuta tilaus|wypisz|zrezygnuj z (?:subskrypcji|newslettera)|odhlásit|leiratkoz|отписаться|відписатися|配信停止|配信解除|購読解除|メルマガ|退订|取消订阅|取消訂閱|수신거부|수신 거부|abonelikten|إلغاء الاشتراك|הסרה מרשימת",
)

_LINK = re.compile(r"https?://|mailto:|[\w.+-]@\w")


def kind_of(
    text: str, *, subject: str = "", sender: str = "", headers: Mapping[str, str] | None = None
) -> EmailKind:
    """The kind of an email.

    Args:
        text: all that its body shows, quotes included.
        headers: its header fields, names in lower case; none are needed.
    """
    fields = headers or {}
    sender = _folded(sender)
    return _by_headers(fields, sender) or _by_words(_folded(text), _folded(subject), sender)


def _folded(text: str) -> str:
    # No other letter becomes two in lower case.
    return text.replace("İ", "i").lower().replace("ı", "i")


def _by_headers(fields: Mapping[str, str], sender: str) -> EmailKind | None:
    content_type = fields.get("content-type", "").lower()
    automatic = fields.get("auto-submitted", "").lower().strip()
    precedence = fields.get("precedence", "").lower().strip()
    if (
        ("multipart/report" in content_type and "disposition" not in content_type)
        or "x-failed-recipients" in fields
        or (_BOUNCE_SENDER.search(sender) and fields.get("return-path", "-").strip() in ("", "<>"))
    ):
        return EmailKind.BOUNCE
    if (
        automatic.startswith("auto-replied")
        or any(name in fields for name in ("x-autoreply", "x-autorespond", "x-auto-reply-from"))
        or precedence in ("auto_reply", "auto-reply")
        or (
            "oof" in fields.get("x-auto-response-suppress", "").lower()
            and automatic.startswith("auto")
        )
    ):
        return EmailKind.AUTO_REPLY
    if (
        "list-unsubscribe" in fields
        or ("list-id" in fields and precedence in ("bulk", "list"))
        or precedence == "bulk"
    ):
        return EmailKind.NEWSLETTER
    return None


def _by_words(text: str, subject: str, sender: str) -> EmailKind:
    beginning = text[:LOOK]
    says_bounce = _BOUNCE_TEXT.search(beginning) is not None
    if (
        _BOUNCE_SENDER.search(sender)
        or (says_bounce and (_BOUNCE_SUBJECT.search(subject) or _STATUS_CODE.search(beginning)))
        or _BOUNCE_SUBJECT.match(subject)
    ):
        return EmailKind.BOUNCE
    if says_bounce and re.search(r"<[^\s@<>]+@[^\s@<>]+>", beginning) and len(text) < LOOK:
        return EmailKind.BOUNCE
    if _AUTO_SUBJECT.search(subject) or _AUTO_TEXT.search(text[: LOOK // 3]):
        return EmailKind.AUTO_REPLY
    if _looks_sent_to_many(text):
        return EmailKind.NEWSLETTER
    return EmailKind.MESSAGE


def _looks_sent_to_many(text: str) -> bool:
    """Whether the way out is offered, not spoken of: its address follows."""
    if len(text) > 2 * LOOK:
        text = f"{text[:LOOK]}\n\n{text[-LOOK:]}"
    return any(
        _LINK.search(text, match.end(), match.end() + 80) for match in _UNSUBSCRIBE.finditer(text)
    )
