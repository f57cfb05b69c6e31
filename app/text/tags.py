"""Which tags of HTML make lines, margins, lists and tables, and which end others unsaid."""

from app.text.tokens import words

BLOCK_TAGS = words(
    "address article aside blockquote body caption center dd details dialog dir div dl dt "
    "fieldset figcaption figure footer form frameset h1 h2 h3 h4 h5 h6 header hgroup hr html "
    "legend li main menu nav ol optgroup option p pre search section summary table tbody tfoot "
    "thead tr ul"
)
MARGIN_TAGS = frozenset(
    [
        "p",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "ul",
        "ol",
        "dl",
        "pre",
        "blockquote",
        "figure",
        "menu",
        "dir",
    ]
)
VOID_TAGS = words(
    "area base basefont br col embed frame hr img input link meta param source track wbr"
)
CELL_TAGS = frozenset({"td", "th"})
TABLE_TAGS = frozenset({"table", "tbody", "thead", "tfoot", "tr", "td", "th", "caption"})
LIST_TAGS = frozenset({"ul", "ol", "menu", "dir"})
UNSHOWN_TAGS = frozenset({"xml", "datalist", "audio", "video", "canvas"})
# A start tag of these ends an open one of the others, up to the element that holds them.
ENDS = {
    "p": (("p",), frozenset({"div", "td", "th", "li", "blockquote", "body"})),
    "li": (("li",), LIST_TAGS),
    "td": (("td", "th"), frozenset({"tr", "table"})),
    "th": (("td", "th"), frozenset({"tr", "table"})),
    "tr": (("tr",), frozenset({"table"})),
    "dd": (("dd", "dt"), frozenset({"dl"})),
    "dt": (("dd", "dt"), frozenset({"dl"})),
    "option": (("option",), frozenset({"select"})),
}
BLOCK_START_ENDS_P = BLOCK_TAGS - {"p", "body", "html", "option", "tr", "tbody"}
