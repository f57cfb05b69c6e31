"""The process that cleans the HTML of emails.

What stands open in HTML is opened again in each paragraph (the "active formatting elements" of its
standard), and what stands deep is looked through for each element, so a few thousand characters may
take minutes and gigabytes. Rust ends the process that gets no memory, so it is not the one that
serves the pages.
"""

import re
from typing import Any

import nh3

from app.text.answering import answer_requests

# An email of two million characters takes a fifth of a second.
MOST_CPU_SECONDS = 3.0
MOST_MEMORY_BYTES = 512 * 1024 * 1024
# Characters. A browser takes seconds for more.
LONGEST_CLEANED = 4_000_000

# None of them takes an address, so no style loads anything.
_STYLES = {
    "background-color", "border", "border-bottom", "border-collapse", "border-color", "border-left",
    "border-radius", "border-right", "border-style", "border-top", "border-width", "color",
    "direction", "display", "font-family", "font-size", "font-style", "font-weight", "height",
    "letter-spacing", "line-height", "margin", "margin-bottom", "margin-left", "margin-right",
    "margin-top", "max-width", "min-width", "padding", "padding-bottom", "padding-left",
    "padding-right", "padding-top", "text-align", "text-decoration", "text-indent",
    "text-transform", "vertical-align", "white-space", "width", "word-break", "word-wrap",
}  # fmt: skip
_TAGS = nh3.ALLOWED_TAGS | {"font"}
# Browsers leave these out of an address.
_CONTROLS = re.compile(r"[\x00-\x20]")
FOR_IMAGES_ALONE = ("cid:", "data:")
_ATTRIBUTES = {
    **nh3.ALLOWED_ATTRIBUTES,
    "*": {"style", "dir", "lang", "align", "valign", "bgcolor", "color", "width", "height"},
    "font": {"face", "size"},
    "table": {"border", "cellpadding", "cellspacing", "summary"},
}
# What an image is called until its place is drawn. No address of ours begins so.
IMAGE = "image:"


def clean(html: str) -> dict[str, Any] | None:
    """HTML without what runs, loads or sends; each image has a number in place of its source.

    Returns:
        `html`, and `sources`, in which the numbers are places; None where it is too long.
    """
    sources: list[str] = []

    def numbered(tag: str, attribute: str, value: str) -> str | None:
        if (tag, attribute) == ("img", "src"):
            sources.append(value)
            return f"{IMAGE}{len(sources) - 1}"
        return None if _CONTROLS.sub("", value).lower().startswith(FOR_IMAGES_ALONE) else value

    cleaned = nh3.clean(
        html,
        tags=_TAGS,
        attributes=_ATTRIBUTES,
        attribute_filter=numbered,
        filter_style_properties=_STYLES,
        link_rel="noopener noreferrer nofollow",
        url_schemes=nh3.ALLOWED_URL_SCHEMES | {"cid", "data"},
    )
    return None if len(cleaned) > LONGEST_CLEANED else {"html": cleaned, "sources": sources}


if __name__ == "__main__":
    answer_requests(clean, most_cpu_seconds=MOST_CPU_SECONDS, most_memory_bytes=MOST_MEMORY_BYTES)
