"""Twenty tickets that break templates: invented, each with one thing that customers send."""

import attrs

from app.i18n.texts import N_


@attrs.frozen
class File:
    """A file of the latest comment."""

    filename: str
    url: str = "https://example.zendesk.com/attachments/token/3x4mpl3/?name=a.pdf"


@attrs.frozen
class Ticket:
    """What a template is rendered with."""

    what: str
    """What is hostile about it."""

    title: str = "Where is my order?"
    text: str = "Hello,\n\nwhere is my order 8812?\n\nKind regards"
    name: str = "Erika Mustermann"
    email: str = "erika@example.org"
    files: tuple[File, ...] = ()

    @property
    def html(self) -> str:
        """Its text as Zendesk's HTML placeholders have it."""
        return f'<div class="zd-comment" dir="auto">{self.text}</div>'


TICKETS = (
    Ticket(N_("nothing hostile")),
    Ticket(N_("quotes in the subject"), title='Order "A-17" is broken'),
    Ticket(N_("quotes in the text"), text='He said "hello" twice.\nThe size is 5"'),
    Ticket(N_("quotes in the sender's name"), name='Erika "Eri" Mustermann'),
    Ticket(N_("folders of Windows"), text="see C:\\Users\\new\\table and \\\\srv\\unit"),
    Ticket(N_("a backslash at the end"), title="It is in C:\\", text="path C:\\"),
    Ticket(N_("line breaks, tabs and carriage returns"), text="one\r\n\ttwo\n\n\n\tthree\r\n"),
    Ticket(N_("text that looks like the next field"), title='Hi", "subject": "another one'),
    Ticket(N_("text that ends the object"), text='so"}, {"ticket_id": "1'),
    Ticket(N_("letters of other languages"), title="Größe 5 €", text="Ünïcödé 日本語 👩‍👩‍👧 שלום"),
    Ticket(N_("HTML"), text='<p class="x">Hello &amp; bye</p><script>alert("1")</script>'),
    Ticket(
        N_("placeholders"), title="{{ticket.id}} and {% if %}", text="{{ticket.requester.email}}"
    ),
    Ticket(N_("per cent and plus signs"), title="100%25 + 50% off", text="a+b=c%20d %zz"),
    Ticket(N_("nothing at all"), title="", text="", name=""),
    Ticket(N_("control characters"), text="bell \x07 escape \x1b[31m and \x7f"),
    Ticket(
        N_("line separators and joiners"), title="a\u2028b\u2029c", text="zero\u200bwidth \u202e"
    ),
    Ticket(N_("escapes of JSON"), title="\\u0041\\n\\t", text='\\"quoted\\" \\\\ \\/ \\u12'),
    Ticket(N_("one file"), files=(File("rechnung.pdf"),)),
    Ticket(N_("two files with quotes in their names"), files=(File('a "b".pdf'), File("c\\d.png"))),
    Ticket(
        N_("a long text with three files"),
        text='Line with "quotes" and \\ in it.\n' * 500,
        files=(File("a,b.pdf"), File("{c}.txt"), File("d].jpg")),
    ),
)
