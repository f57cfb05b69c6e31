"""The lint of a trigger's template: what is wrong with it, where, and what would be right."""

from app.i18n.texts import gettext as _
from app.zendesk.lint.field_rules import Field, look_at_fields
from app.zendesk.lint.findings import Broken, Findings, Report
from app.zendesk.lint.json_scan import Scanner
from app.zendesk.lint.json_values import Member, Value
from app.zendesk.lint.liquid_rules import look_at_liquid
from app.zendesk.lint.liquid_text import tokens
from app.zendesk.lint.rendering import TemplateError, first_broken
from app.zendesk.lint.text_rules import look_at_texts

# Zendesk takes no longer ones by far; each character costs time.
LONGEST = 256 * 1024

# Twenty times over, and python-liquid takes quadratic time for braces that are never closed.
LONGEST_RENDERED = 32 * 1024
_NEVER_RENDERED = ("unclosed-liquid", "no-end", "wrong-end", "end-too-many", "unknown-tag")

# What the filters of a field may be if it should come out as it was.
_FAITHFUL = frozenset(("url_encode", "replace", "default", "strip"))
_COMPARED = ("from_name", "subject", "body_text", "body_html")


def lint_template(text: str, *, is_trusted: bool = True) -> Report:
    """Look at a template, and render it if it `is_trusted`. Never raises, whatever the text."""
    findings = Findings(text)
    if len(text) > LONGEST:
        findings.add(
            0,
            "too-long",
            _("it is longer than %(most)s characters, and not looked at", most=LONGEST),
        )
        return Report("template", findings.all())
    found = list(tokens(text))
    if (format_name := _other_format(text)) is not None:
        findings.add(
            0,
            "wrong-format",
            _(
                "this is %(format)s: set the webhook's request format to JSON, and write JSON",
                format=format_name,
            ),
        )
        return Report("template", findings.all())
    look_at_liquid(text, found, findings)
    value = Scanner(text, found, findings).scan()
    if value.kind == "object":
        look_at_fields(value, findings)
        look_at_texts(value, findings)
    broken = _render(text, value, findings) if is_trusted else None
    return Report("template", findings.all(), broken)


def _render(text: str, value: Value, findings: Findings) -> Broken | None:
    if len(text) > LONGEST_RENDERED or any(findings.has(code) for code in _NEVER_RENDERED):
        return None
    is_found = not findings.is_right
    try:
        broken = first_broken(text, _plain_fields(value))
    except TemplateError as error:
        if not is_found:
            findings.add(
                error.offset or 0,
                "not-rendered",
                _("Zendesk would send nothing: %(why)s", why=error),
            )
        return None
    if broken is not None and not is_found:
        # Nothing above knows why; the ticket shows it.
        findings.add(
            0,
            "breaks-on-ticket",
            _("it does not survive %(ticket)s: %(why)s", ticket=broken.ticket, why=broken.why),
        )
    return broken


def _plain_fields(value: Value) -> dict[str, str]:
    plain = {}
    for member in value.members:
        path = _plain_path(member)
        if path is not None:
            plain[member.name] = path
    return plain


def _plain_path(member: Member) -> str | None:
    """The placeholder that alone fills a field."""
    field = Field(member)
    if member.name not in _COMPARED or len(member.value.liquid) != 1 or len(field.outputs) != 1:
        return None
    _, output = field.outputs[0]
    quote = int(member.value.kind == "string")
    token = member.value.liquid[0]
    is_alone = token.start == member.value.start + quote and token.end == member.value.end - quote
    if is_alone and all(name in _FAITHFUL for name, _ in output.filters):
        return output.path
    return None


def _other_format(text: str) -> str | None:
    begin = text.lstrip("\ufeff \t\r\n")[:200]
    if begin.startswith("<") and not begin.startswith("<<"):
        return "XML"
    name, equals, _rest = begin.partition("=")
    if equals and name.replace("_", "").replace("-", "").isalnum() and "&" in text:
        return _("a form's format")
    return None
