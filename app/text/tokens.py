"""HTML cut into texts, tags and raw elements: in one pass, in time linear in its size whatever
comes, without building a tree. The rules are those of the HTML standard's tokenizer, 13.2.5."""

import re

# An attribute's value in quotes may hold `>`. A quote that is never closed is no quote. At each
# place there is one way to read on, so that nothing is read again where an end is missing.
# Repetitions of groups are not possessive, because Python before 3.11.5 reads on in them behind a
# part that failed: https://github.com/python/cpython/issues/106052
_QUOTED = r""""[^"]*+"|'[^']*+'"""
_ATTRIBUTES = rf"""(?:[^>"'=]++|=\s*+(?:{_QUOTED}|(?!{_QUOTED}))|["'])*"""
_RAW = "script|style|title|xmp|iframe|noembed|noframes|textarea|template"

TOKEN = re.compile(
    rf"""
    (?P<text>(?:[^<]++|<(?![a-z/!?]))+)
  | <(?P<raw>{_RAW})(?=[\s/>])(?P<raw_attributes>{_ATTRIBUTES})>
    (?P<content>.*?)(?:</(?P=raw)(?=[\s/>]){_ATTRIBUTES}(?:>|\Z)|\Z)
  | <(?P<slash>/?)(?P<name>[a-z][^\s/>]*+)(?P<attributes>{_ATTRIBUTES})(?P<end>>|\Z)
  | <!--(?:-?>|.*?(?:--!?>|\Z))
  | <[!?/][^>]*+(?:>|\Z)
    """,
    re.VERBOSE | re.DOTALL | re.IGNORECASE,
)

_ATTRIBUTE = re.compile(
    r"""([^\s/>="'][^\s/>=]*+)(?:\s*+=\s*+(?:"([^"]*+)"|'([^']*+)'|([^\s>]++)))?"""
)
# More is read by no client that people use.
LONGEST_ATTRIBUTES = 16_384


def words(text: str) -> frozenset[str]:
    """The words of a text, as a set."""
    return frozenset(text.split())


KNOWN_TAGS = words(
    "a abbr acronym address applet area article aside audio b base basefont bdi bdo big blink "
    "blockquote body br button canvas caption center cite code col colgroup data dd del details "
    "dfn dialog dir div dl dt em embed fieldset figcaption figure font footer form frame "
    "frameset h1 h2 h3 h4 h5 h6 head header hr html i iframe img input ins kbd label legend li "
    "link main map mark marquee menu meta nav nobr noframes noscript object ol optgroup option "
    "p param picture pre q rp rt ruby s samp script section select small source span strike "
    "strong style sub summary sup svg table tbody td template textarea tfoot th thead title tr "
    "tt u ul var video wbr xmp o:p"
)
# Any of these is there in HTML; a lone `<b>` may as well be what somebody wrote about. Names are
# looked up afterwards: an alternative for each, tried at each bracket, takes seconds.
_EVIDENCE = re.compile(
    r"(?P<always><(?:!doctype\s|!--|\?xml\s))"
    r"|</(?P<ends>[a-z][a-z0-9:]*+)\s*+>"
    r"|<(?P<begins>[a-z][a-z0-9:]*+)"
    r"(?:(?P<bare>\s*+/?>)|\s++[a-z:-]++\s*+=\s*+[\"'\w#])",
    re.IGNORECASE,
)
_TAGS_OF_LAYOUT = words("br hr p div html body table td ul ol li blockquote pre h1 h2 h3 h4 h5 h6")
# In angle brackets, and no tag: an address.
_ADDRESS_IN_BRACKETS = re.compile(r"[^\s<>]*@|[a-z][a-z0-9+.-]*:(?://|[^\s<>]*@)", re.IGNORECASE)


def is_html(text: str) -> bool:
    """Whether a text is meant as HTML. Angle brackets alone do not make it so."""
    return any(map(_is_evidence, _EVIDENCE.finditer(text)))


def _is_evidence(found: re.Match[str]) -> bool:
    if found["always"]:
        return True
    name = (found["ends"] or found["begins"]).lower()
    return name in (_TAGS_OF_LAYOUT if found["bare"] else KNOWN_TAGS)


def is_address(name: str) -> bool:
    """Whether what stands in angle brackets is an address that nobody escaped."""
    return _ADDRESS_IN_BRACKETS.match(name) is not None


def attributes_of(text: str) -> dict[str, str]:
    """The attributes of a tag, their names in lower case, references not yet replaced."""
    found: dict[str, str] = {}
    for name, double, single, plain in _ATTRIBUTE.findall(text[:LONGEST_ATTRIBUTES]):
        found.setdefault(name.lower(), double or single or plain)
    return found
