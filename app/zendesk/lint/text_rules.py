"""Whether a template's texts survive what customers write: Zendesk escapes nothing."""

import re

from app.i18n.texts import gettext as _
from app.intake.encoded_texts import FIELD as ENCODING
from app.intake.encoded_texts import PROBE, PROBE_PLACEHOLDER, TEXTS
from app.zendesk.lint.field_rules import Field
from app.zendesk.lint.findings import Findings
from app.zendesk.lint.json_values import Value
from app.zendesk.lint.liquid_text import Output
from app.zendesk.lint.placeholders import Holds, holds, normal

_ARGUMENT = re.compile(r"\"([^\"]*)\"|'([^']*)'")


def look_at_texts(value: Value, findings: Findings) -> None:
    """Note what may break the JSON, and what is decoded although it is not encoded."""
    fields = {member.name: Field(member) for member in value.members}
    encoding = fields.get(ENCODING)
    if encoding is not None and not _is_probe(encoding):
        findings.add(
            encoding.value.start,
            "wrong-probe",
            _("%(field)s tells whether texts are encoded, by a probe", field=ENCODING),
            f'"{ENCODING}": "{PROBE_PLACEHOLDER}"',
        )
    for field in fields.values():
        for start, output in field.outputs:
            _look_at_text(field.name, start, output, encoding is not None, findings)
        for inner in _inner(field.value):
            for start, output in inner.outputs:
                name = "attachments" if inner.name == "filename" else inner.name
                _look_at_text(name, start, output, encoding is not None, findings)


def _inner(value: Value) -> list[Field]:
    found = [Field(member) for member in value.members]
    for inner in (*value.items, *(member.value for member in value.members)):
        found += _inner(inner)
    return found


def _look_at_text(
    name: str, start: int, output: Output, is_marked: bool, findings: Findings
) -> None:
    is_safe = holds(normal(output.path or "")) is Holds.SAFE
    is_decoded = name in TEXTS or name == "attachments"
    if output.path is None:
        return
    encoded = f"{{{{{output.path} | url_encode}}}}"
    is_encoded = bool(output.filters) and output.filters[-1][0] == "url_encode"
    if output.has("escape") or output.has("h") or output.has("escape_once"):
        findings.add(start, "html-escape", _("it writes &quot; and &amp; into the text"), encoded)
    elif is_encoded and is_decoded and not is_marked:
        findings.add(
            start,
            "not-marked",
            _(
                "the text is encoded, and without %(field)s Mailroom takes it as it comes",
                field=ENCODING,
            ),
            f'"{ENCODING}": "{PROBE_PLACEHOLDER}"',
        )
    elif is_marked and is_decoded and not (is_encoded or is_safe):
        findings.add(
            start,
            "not-encoded",
            _("%(field)s says that this is encoded, and it is not", field=ENCODING),
            encoded,
        )
    elif not is_encoded and not escapes(output) and _may_break(name, output.path):
        kind = holds(normal(output.path)) or Holds.LINE
        held = Holds.TEXT.value if kind is Holds.HTML else kind.value
        more = ""
        if not is_marked:
            probe = f'"{ENCODING}": "{PROBE_PLACEHOLDER}"'
            more = _(", with %(probe)s beside it", probe=probe)
        findings.add(
            start,
            "breaks",
            _("%(path)s may hold %(held)s, which break the JSON", path=output.path, held=_(held)),
            encoded + more,
        )


def _may_break(name: str, path: str) -> bool:
    kind = holds(normal(path))
    if kind is None:
        # What a loop or the template names; a file's name is a sender's.
        return name == "attachments" or path.endswith((".filename", ".name", ".value"))
    return kind is not Holds.SAFE


def escapes(output: Output) -> bool:
    """Whether filters escape backslashes, then quotes, as JSON asks for.

    Ruby's `gsub` reads a backslash in what it puts in, so four of them make two.
    """
    steps = [_arguments(arguments) for name, arguments in output.filters if name == "replace"]
    backslashes, quotes = ("\\", "\\\\\\\\"), ('"', '\\"')
    return (
        backslashes in steps and quotes in steps and steps.index(backslashes) < steps.index(quotes)
    )


def _arguments(raw: str) -> tuple[str, ...]:
    return tuple(one or other for one, other in _ARGUMENT.findall(raw))


def _is_probe(field: Field) -> bool:
    if field.is_constant:
        return False
    return any(
        output.first.strip("'\"") == PROBE and output.filters == (("url_encode", ""),)
        for _, output in field.outputs
    )
