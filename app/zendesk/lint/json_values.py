"""What a text of JSON with Liquid in it is made of."""

import attrs

from app.zendesk.lint.liquid_text import Token


@attrs.define
class Value:
    """A value, and what of Liquid stands in it."""

    kind: str
    """`string`, `object`, `array`, `bare` for what has no quotes, `none` for nothing."""

    start: int
    end: int
    liquid: list[Token] = attrs.field(factory=list)
    members: "list[Member]" = attrs.field(factory=list)
    items: "list[Value]" = attrs.field(factory=list)


@attrs.frozen
class Member:
    """A field of an object."""

    name: str
    start: int
    value: Value
