"""What Piccolo Admin's page gets of ours: an icon, links from rows to their pages at the desk,
and no button that is refused. Its own `read_only` takes routes away and leaves the buttons, and
would keep people from changing their passwords."""

import json
from collections.abc import Sequence
from html import escape

from app.desk.addresses import file_url
from app.desk.row_ways import WAYS, page_of_rows
from app.i18n.texts import N_, in_each_language

WAY = N_("Open it at the desk")


def with_ours(page: str, *, read_only: Sequence[str]) -> str:
    """Piccolo Admin's page with our files.

    Args:
        read_only: names of tables whose rows are not changed by hand.
    """
    head = (
        f'<link rel="icon" href="{file_url("icon.svg")}">'
        f'<link rel="stylesheet" href="{file_url("admin.css")}"></head>'
    )
    script = (
        f'<script src="{file_url("admin.js")}" data-rows="{page_of_rows()}"'
        f' data-tables="{escape(" ".join(WAYS))}"'
        f' data-read-only="{escape(" ".join(read_only))}"'
        f' data-way="{escape(json.dumps(in_each_language(WAY)))}"></script></body>'
    )
    return page.replace("</head>", head).replace("</body>", script)
