"""The site of these documents, made by Sphinx:

    python -m sphinx --fail-on-warning -c docs . build/site

Its source is the whole checkout, so that links among README, docs and examples lead where they do
on GitHub. What is read there stays free of the site's own marks.
"""

import shutil
from pathlib import Path

from sphinx.application import Sphinx

project = "Mailroom"
extensions = ["myst_parser"]
root_doc = "README"
include_patterns = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/*.md"]
exclude_patterns = ["build"]
# Anchors as GitHub makes them.
myst_heading_anchors = 4
html_theme = "furo"
html_title = "Mailroom"
html_copy_source = False
html_show_sphinx = False

CONTENTS = """

```{{toctree}}
:hidden:
:caption: {caption}

{pages}
```
"""
CHAPTERS = {
    "Begin": ["tutorial", "handlers", "webhook", "zendesk"],
    "What becomes of an email": ["architecture", "text", "attachments", "delivery"],
    "Look after it": ["desk", "search", "commands", "metrics", "api"],
    "In production": ["deployment", "settings", "operations", "backup", "capacity"],
    "Keep it safe": ["security", "sign-in", "retention"],
    "Judge it": ["benchmarks", "decisions", "../CHANGELOG", "../CONTRIBUTING"],
}


def setup(app: Sphinx) -> None:
    """What Sphinx calls."""
    app.connect("source-read", add_contents)
    app.connect("build-finished", begin_with_the_readme)


def add_contents(app: Sphinx, page: str, source: list[str]) -> None:
    """The README's table tells readers where to go on; Sphinx is told by lists."""
    if page == root_doc:
        source[0] += "".join(
            CONTENTS.format(caption=name, pages="\n".join(_path_of(one) for one in pages))
            for name, pages in CHAPTERS.items()
        )


def begin_with_the_readme(app: Sphinx, exception: Exception | None) -> None:
    """Whoever opens the site's folder sees the README."""
    if exception is None and app.builder.name == "html":
        shutil.copy(Path(app.outdir) / "README.html", Path(app.outdir) / "index.html")


def _path_of(page: str) -> str:
    return page.removeprefix("../") if page.startswith("../") else f"docs/{page}"
