"""The files of an email, in whatever shape a template names them.

They are optional: what is recognised is taken, the rest is counted and stays in `raw_payload`. A
file is recognised by a whole http(s) URL; nothing is guessed where the scheme or host is missing.
"""

import re
from itertools import pairwise
from typing import Any
from urllib.parse import quote

import attrs

from app.intake.json_body import loads_tolerantly
from app.models.fit import fit_json, fit_text

# Far more than an email has; a list of a million must not become a million objects.
MOST_FILES = 1_000
LONGEST_URL = 8_192
LONGEST_TEXT = 100_000
# All texts of an email together; it is read while other webhooks wait.
LONGEST_TEXTS = 1_000_000
DEEPEST_LISTS = 10

# Names of keys as they are compared: in lower case, letters alone. The first with a URL counts.
URL_KEYS = (
    *("url", "contenturl", "mappedcontenturl", "href", "link", "downloadurl", "fileurl"),
    *("attachmenturl", "uri", "src"),
)
FILENAME_KEYS = ("filename", "name")
TYPE_KEYS = ("contenttype", "mimetype")
SIZE_KEYS = ("size", "filesize")

# Zendesk's API names its own record of a file `url`, and the file itself `content_url`:
# https://developer.zendesk.com/api-reference/ticketing/tickets/ticket-attachments/
_RECORD_URL = re.compile(r"/api/v2/attachments/\d+(\.json)?$")
_URL = re.compile(r"https?://[^\s/?#\\]+[^\r\n\t]*", re.IGNORECASE)
_URL_IN_TEXT = re.compile(r"https?://[^\s<>\"'/?#][^\s<>\"']*", re.IGNORECASE)
_URL_BEGINS = re.compile(r"(?:(?<=[\s,;|\"'<>()\[\]])|^)https?://", re.IGNORECASE)
# Atomic and possessive: what was read once is not read again, or a text without an end would cost
# the square of its length.
_NAMED_LINK = re.compile(
    r"<a\s(?>[^<>]*?href\s*=\s*[\"']?(?P<href>https?://[^\s\"'<>]++))[^<>]*+>(?P<text>[^<>]*+)</a>"
    r"|\[(?P<name>[^\[\]]*+)\]\(<?(?P<target>https?://[^\s()<>]++)>?[^()]*+\)",
    re.IGNORECASE,
)
_NO_LETTERS = re.compile("[^a-z]")
_FILE_END = re.compile(r"\.[A-Za-z0-9]{1,5}\Z")


@attrs.define
class Attachments:
    """What was recognised, as it is stored: with every key that came; and how many were not."""

    files: list[dict[str, Any]] = attrs.field(factory=list)
    left_out: int = 0
    _characters_left: int = attrs.field(default=LONGEST_TEXTS, eq=False, repr=False)

    def may_look_at(self, text: str) -> bool:
        """Whether a text is short enough to be looked for URLs, beside those that were."""
        if len(text) > min(LONGEST_TEXT, self._characters_left):
            return False
        self._characters_left -= len(text)
        return True

    def of_wrapper(self) -> "Attachments":
        """The same files, with a count of its own of what is left out."""
        return attrs.evolve(self, left_out=0)

    def join(self, wrapper: "Attachments") -> None:
        """Take over what looking into a wrapper cost."""
        self._characters_left = wrapper._characters_left


def read_attachments(value: Any) -> Attachments:
    """Recognise files in a value of any shape: lists, objects, text with URLs or with JSON."""
    found = Attachments()
    _read(value, None, found, 0)
    return found


def _read(value: Any, name: str | None, found: Attachments, depth: int) -> None:
    if type(value) is str:
        # Before anything is asked of it: nothing may be left of NULs and white space.
        value = fit_text(value).strip()
    if value is None or value in ("", [], {}):
        return
    if (
        len(found.files) >= MOST_FILES
        or depth > DEEPEST_LISTS
        or (type(value) is str and not found.may_look_at(value))
    ):
        found.left_out += 1
    elif type(value) is str:
        _read_text(value, name, found, depth)
    elif type(value) is list:
        for item in value:
            _read(item, None, found, depth + 1)
    elif type(value) is dict:
        _read_object(value, name, found, depth)
    else:
        found.left_out += 1


def _read_object(item: dict[str, Any], name: str | None, found: Attachments, depth: int) -> None:
    by_key = {_letters(key): value for key, value in reversed(item.items())}
    url = _url_of(by_key)
    if url is not None:
        found.files.append(
            {
                **fit_json(item),
                "url": url,
                "filename": _first_text(by_key, FILENAME_KEYS) or name,
                "content_type": _first_text(by_key, TYPE_KEYS),
                "size": _first_size(by_key),
            }
        )
        return
    before = len(found.files)
    inner = found.of_wrapper()
    for key, value in item.items():
        if type(value) is dict or type(value) is list or _is_url(value):
            # By file name, by number, or a list in a wrapper.
            _read(value, fit_text(key) if _FILE_END.search(key) else None, inner, depth + 1)
    found.join(inner)
    if len(found.files) > before:
        found.left_out += inner.left_out
    else:
        found.left_out += 1


def _read_text(text: str, name: str | None, found: Attachments, depth: int) -> None:
    if text[0] in "[{":
        try:
            _read(loads_tolerantly(text), name, found, depth + 1)
        except (ValueError, RecursionError):
            pass
        else:
            return
    links = [
        (match["href"] or match["target"], (match["text"] or match["name"] or "").strip())
        for match in _NAMED_LINK.finditer(text)
    ]
    if not links:
        links = [(url, name or "") for url in _urls_in(text)]
    for url, label in dict(links).items():
        if len(found.files) < MOST_FILES and len(url) <= LONGEST_URL:
            found.files.append(
                {"url": url, "filename": label or None, "content_type": None, "size": None}
            )
        else:
            found.left_out += 1
    found.left_out += not links


def _urls_in(text: str) -> list[str]:
    begins = [match.start() for match in _URL_BEGINS.finditer(text)]
    if begins == [0] and _is_url(text) and not re.search("[<>]", text):
        first, *rest = text.split(" ")
        # One URL whose file name holds spaces, as in `?name=my letter.pdf`.
        if rest and _FILE_END.search(text) and not _FILE_END.search(first):
            return [quote(text, safe="%/:=&?~#+!$,;'@()*[]")]
    parts = (text[begin:end] for begin, end in pairwise([*begins, len(text)]))
    urls = (
        match.group().rstrip(".,;:!|]}") for part in parts if (match := _URL_IN_TEXT.match(part))
    )
    return [url if "(" in url else url.rstrip(")") for url in urls]


def _letters(key: str) -> str:
    """The name of a key as it is compared."""
    if key.islower() and key.isascii() and key.isalpha():
        return key
    return _NO_LETTERS.sub("", key.lower())


def _url_of(by_key: dict[str, Any]) -> str | None:
    urls = {key: by_key[key].strip() for key in URL_KEYS if key in by_key and _is_url(by_key[key])}
    if "url" in urls and _RECORD_URL.search(urls["url"]):
        urls = {**{key: url for key, url in urls.items() if key != "url"}, "url": urls["url"]}
    url = next(iter(urls.values()), None)
    return None if url is None else fit_text(url)


def _is_url(value: Any) -> bool:
    if type(value) is not str:
        return False
    text = value.strip()
    return len(text) <= LONGEST_URL and _URL.fullmatch(text) is not None


def _first_text(by_key: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    for key in keys:
        value = by_key.get(key)
        if type(value) is str and (text := fit_text(value)) and not text.isspace():
            return text
    return None


def _first_size(by_key: dict[str, Any]) -> int | None:
    sizes = (_size(by_key.get(key)) for key in SIZE_KEYS)
    return next((size for size in sizes if size is not None), None)


def _size(value: Any) -> int | None:
    if type(value) is str and value.strip().isdecimal() and len(value) < 20:
        value = int(value)
    if type(value) is float and value.is_integer():
        value = int(value)
    return value if type(value) is int and 0 <= value < 2**63 else None
