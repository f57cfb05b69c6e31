"""Words of mail clients, by language: the labels above an earlier email, "wrote", "original
message", "forwarded", "sent from". Data alone; how it is used stands in `reply_headers`.

Taken from what the clients write: Outlook, Gmail, Apple Mail, Thunderbird, Yahoo, GMX, Notes."""

# Labels of the lines above an earlier email: who sent it, when, to whom, about what, and others.
FROM_LABELS = """
from|von|de|da|van|od|fra|från|lähettäjä|lähettänyt|feladó|από|от|від|от кого|gönderen
|kimden|差出人|送信者|发件人|發件人|寄件者|寄件人|보낸 사람|보낸사람|발신|发件者|nuo|no|saatja|odesílatel|odosielateľ
|expeditor|de la|dari|من|מאת|từ|người gửi|ผู้ส่ง|จาก|message de|pošiljatelj|frá|remitente
|remetente|mittente|expéditeur|afzender|absender|avsändare|avsender|afsender|nadawca
|отправитель|відправник|податель|sender|prejemnik od
""".replace("\n", "")
SENT_LABELS = """
sent|date|gesendet|gesendet am|datum|envoyé|envoyé le|envoyée|enviado|enviado el|enviada
|enviada em|enviado em|fecha|data|inviato|inviata|verzonden|wysłano|wysłane|wysłany|sendt
|sendt den|dato|skickat|skickad|lähetetty|päivämäärä|päiväys|odesláno|odoslané|poslano
|elküldve|küldve|dátum|στάλθηκε|εστάλη|ημερομηνία|отправлено|дата|послано|изпратено
|надіслано|tarih|gönderildi|gönderilen|gönderme tarihi|gönderim tarihi|送信日時|日時|日付|发送时间|发送日期
|時間|日期|寄件日期|傳送時間|寄送日期|时间|보낸 날짜|날짜|보낸날짜|trimis|trimisă|dată|dikirim|tanggal|تاريخ|التاريخ
|تم الإرسال|تاريخ الإرسال|נשלח|תאריך|đã gửi|ngày|gửi|gửi lúc|ส่ง|วันที่|ส่งเมื่อ|message du
|saadetud|kuupäev|išsiųsta|nosūtīts|sent at|date sent|on|dagsetning
""".replace("\n", "")
TO_LABELS = """
to|an|a|à|para|aan|do|til|till|vastaanottaja|kenelle|komu|pro|címzett|προς|кому|до|kime
|alıcı|宛先|收件人|收件者|받는 사람|받는사람|수신|către|kepada|إلى|الى|אל|đến|tới|người nhận|ถึง|destinatario
|destinatário|destinataire|empfänger|ontvanger|mottagare|mottaker|modtager|adresat|za|kam
|recipient|saaja|kellele|gavėjas|viðtakandi|per
""".replace("\n", "")
SUBJECT_LABELS = """
subject|re|betreff|objet|sujet|asunto|oggetto|onderwerp|assunto|temat|emne|ämne|aihe|předmět
|predmet|zadeva|tárgy|θέμα|тема|относно|konu|件名|主题|主題|主旨|제목|subiect|subjek|perihal|الموضوع
|موضوع|נושא|chủ đề|tiêu đề|เรื่อง|หัวเรื่อง|teema|tema|temats|efni
""".replace("\n", "")
OTHER_LABELS = """
cc|bcc|kopie|kopie an|copie|copie à|copia|cópia|kopia|kopi|kopio|kopie (cc)|másolat|κοιν
|κοινοποίηση|копия|копія|bilgi|抄送|副本|참조|複本|نسخة|עותק|sao chép|สำเนา|reply-to|reply to
|antwort an|répondre à|importance|wichtigkeit|priority|priorität|attachments|anlagen|anhänge
|pièces jointes|adjuntos|allegati|bijlagen|załączniki|bilagor|vedlegg|organization|sent by
|when|where|required attendees|message-id|mailed-by|signed-by|newsgroups|responder a
|rispondi a|odpowiedz do|kk|ccn|cci|uk|skrytá
""".replace("\n", "")

# "wrote", where a line that introduces a quote ends or, in some languages, begins.
WROTE = """
wrote|writes|sent|said|schrieb|schrieben|schreibt|hat geschrieben|folgendes geschrieben
|geschrieben|schreef|het volgende geschreven|heeft geschreven|a écrit|a écrit ce qui suit
|écrivait|écrit|escribió|escribio|escribe|ha escrito|ha scritto|scriveva|scrive|escreveu
|escrevera|написал|написала|написал\\(а\\)|пишет|писал|писал\\(а\\)|пише|написав
|написав\\(ла\\)|написа|написа\\(ла\\)|napisał|napisała|napisał\\(a\\)|napisał/a|pisze|skrev
|skrev följande|skrev følgende|skriver|kirjoitti|kirjoitti seuraavasti|napsal|napsala
|napsal\\(a\\)|napísal|napísala|napísal\\(a\\)|napísal/a|napisao je|napisala je|je napisao
|je napisala|je napisao/la|napisao/la|je napisal|piše|írta|ezt írta|ezt írta \\(időpont
|a scris|a scris următoarele|yazdı|şunu yazdı|şunları yazdı|tarihinde şunları yazdı|έγραψε
|kirjutas|rašė|parašė|rakstīja|skrifaði|va escriure|escrigué|menulis|đã viết|viết|เขียนว่า
|เขียน|كتب|كتبت|كتب ما يلي|כתב|כתבה|כתב/ה|نوشت|写道|寫道|写|の書き込み|さんは書きました|は書きました
|wrote \\(書きました\\)|のメール|님이 작성|님이 작성함|님의 말|작성|wrote below
""".replace("\n", "")

# "Original message", "reply", between dashes or alone above an earlier email.
ORIGINAL_WORDS = """
original message|original-nachricht|originalnachricht|original email|original mail
|original appointment|reply message|previous message|ursprüngliche nachricht
|ursprüngliche mail|urspr. nachricht|antwort nachricht|ursprünglicher termin
|message d'origine|message d’origine|message original|message initial|courriel d'origine
|mensaje original|messaggio originale|messaggio iniziale|mensagem original
|oorspronkelijk bericht|origineel bericht|origineel|oprindelig meddelelse|oprindelig besked
|original besked|originalmeddelelse|opprinnelig melding|original meddelelse|original melding
|ursprungligt meddelande|originalmeddelande|ursprungligt brev|alkuperäinen viesti
|oryginalna wiadomość|wiadomość oryginalna|wiadomość pierwotna|původní zpráva|původní e-mail
|pôvodná správa|eredeti üzenet|исходное сообщение|оригинальное сообщение
|первоначальное сообщение|вихідне повідомлення|оригінальне повідомлення|originalna poruka
|izvorna poruka|izvirno sporočilo|originele|mesaj original|mesajul original|orijinal mesaj
|özgün ileti|orijinal ileti|αρχικό μήνυμα|元のメッセージ|原始邮件|原始郵件|原文|原件|邮件原件|원본 메시지|원본 메일|원래 메시지
|الرسالة الأصلية|رسالة أصلية|הודעה מקורית|ההודעה המקורית|thư gốc|tin nhắn gốc|ข้อความต้นฉบับ
|pesan asli|missatge original|algne sõnum
""".replace("\n", "")
FORWARDED_WORDS = """
forwarded message|forwarded by|forwarded email|forwarded mail|weitergeleitete nachricht
|weitergeleitete mail|weitergeleitet von|anfang der weitergeleiteten nachricht
|anfang der weitergeleiteten e-mail|message transféré|message transmis
|début du message transféré|début du message réexpédié|transféré par|mensaje reenviado
|inicio del mensaje reenviado|mensaje remitido|reenviado por|messaggio inoltrato
|inizio messaggio inoltrato|inoltrato da|mensagem encaminhada|mensagem reencaminhada
|início da mensagem reencaminhada|início da mensagem encaminhada|doorgestuurd bericht
|begin doorgestuurd bericht|doorgestuurd door|begin forwarded message|begin forwarded
|videresendt besked|videresendt meddelelse|videresendt melding|videresendt e-mail
|start på videresendt besked|vidarebefordrat meddelande|vidarebefordrat brev
|vidarebefordrat mail|vidarebefordrat|början på vidarebefordrat|välitetty viesti
|edelleenlähetetty viesti|przekazana wiadomość|wiadomość przekazana
|początek przekazanej wiadomości|treść przekazanej wiadomości|přeposlaná zpráva
|přeposlaný e-mail|preposlaná správa|továbbított üzenet|továbbított levél
|пересылаемое сообщение|пересланное сообщение|начало переадресованного сообщения
|переслане повідомлення|proslijeđena poruka|proslijeđeno|posredovano sporočilo
|mesaj redirecționat|mesaj redirectat|iletilen mesaj|iletilmiş mesaj|iletilen ileti
|προωθημένο μήνυμα|転送されたメッセージ|転送メッセージ|転送メール|以下、転送されたメッセージ|转发的邮件|转发邮件|转发的消息|已轉寄的郵件|轉寄的郵件|轉寄郵件
|전달된 메시지|전달된 메일|رسالة معاد توجيهها|رسالة مُعاد توجيهها|الرسالة المعاد توجيهها|הודעה שהועברה
|thư đã chuyển tiếp|chuyển tiếp thư|ข้อความที่ส่งต่อ|pesan diteruskan|missatge reenviat
""".replace("\n", "")
# What a forwarded email's subject begins with.
FORWARD_SUBJECTS = (
    "fw|fwd|wg|tr|rv|i|enc|vs|vl|vb|doorst|pd|tov|továbbítás|πρθ|ilt|転送|转发|轉寄|전달|הועבר"
)

# A line that a phone or a program adds; the device or the program follows or precedes.
SENT_FROM = """
sent from my|sent from outlook|sent from mail|sent from yahoo|sent from samsung
|sent from the|sent from gmail|sent from aol|sent from android|sent from iphone
|sent from ipad|sent from blackberry|sent from windows|sent from proton|sent from typeapp
|sent from acompli|sent from spark|sent from nine|sent from blue|sent from mobile
|sent from workspace|sent from tuta|sent using|sent via|sent with|sent by|sent on the go
|sent with proton|get outlook|get bluemail|download outlook|von meinem|von meiner
|diese nachricht wurde von meinem|gesendet von|gesendet mit|gesendet über
|von unterwegs gesendet|gesendet aus|holen sie sich outlook|outlook für|outlook for
|envoyé de mon|envoyé de ma|envoyé depuis|envoyé à partir|envoyé avec|envoyé par|envoyé via
|télécharger outlook|obtenez outlook|obtenir outlook|enviado desde|enviado con
|obtener outlook|enviado do|enviado de|enviado a partir|enviado pelo|enviado por
|obter o outlook|inviato da|inviato dal|inviato con|scarica outlook|ottieni outlook
|verstuurd vanaf|verzonden vanaf|verstuurd met|verzonden met|verzonden via|outlook voor
|skickat från|skickades från|hämta outlook|sendt fra|sendt med|hent outlook|få outlook
|lähetetty|hanki outlook|wysłane z|wysłano z|wysłane za|pobierz outlook|odesláno z
|odoslané z|získat outlook|küldve az|elküldve az|отправлено с|отправлено из|послано с
|надіслано з|изпратено от|poslano iz|poslano s|trimis de pe|trimis din|στάλθηκε από
|gönderildi|iphoneから送信|ipadから送信|androidから送信|androidスマートフォンから送信|発自我的|发自我的|发自我|從我的|发送自|來自我的
|나의 iphone|내 iphone|أرسلت من|أُرسلت من|تم الإرسال من|נשלח מה|נשלח מ|được gửi từ|đã gửi từ
|gửi từ|ส่งจาก|dikirim dari|enviat des de|saadetud minu
""".replace("\n", "")
# The same, with the device first.
SENT_FROM_AT_END = "gesendet|から送信|에서 보냄|傳送|寄出|gönderildi|lähetetty|küldve|发送"
