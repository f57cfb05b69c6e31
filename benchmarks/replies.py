"""How many emails are read right: what their writer wrote, whole, and not a word of what is quoted.

    python -m benchmarks replies [--corpus FOLDER]

Measured over the emails of `tests/data/replies`, and over a folder of others, if one is named: its
`samples` and `expecteds` have files of the same names. An email counts as right if all of the text
is, white space aside. Of HTML that is expected, the shown text is compared.
"""

import argparse
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import attrs

from app.text.email_text import EmailText, read_email_text
from app.text.html_lines import lines_of_html

OWN = Path(__file__).parents[1] / "tests" / "data" / "replies"
MARK = "#### "


@attrs.define
class Sample:
    """An email, and what is to come of it: a part each, by the names of `EmailText`."""

    name: str
    body: str
    is_html: bool
    right: dict[str, str]

    def read(self) -> EmailText:
        """What comes of it."""
        return read_email_text(html=self.body) if self.is_html else read_email_text(text=self.body)


def own_samples() -> Iterator[Sample]:
    """The emails of the project: after a line `#### name text|html [kind=...]` the body, then
    `#### right` and the words of its writer; other parts likewise, where they matter."""
    for path in sorted(OWN.glob("*.txt")):
        yield from _samples_of(path)


def _samples_of(path: Path) -> Iterator[Sample]:
    sample: Sample | None = None
    part = "body"
    for line in path.read_text(encoding="utf-8").split("\n"):
        if not line.startswith(MARK):
            if sample is not None:
                if part == "body":
                    sample.body += f"{line}\n"
                else:
                    sample.right[part] += f"{line}\n"
            continue
        words = line.removeprefix(MARK).split()
        if len(words) == 1:
            part = "cleaned_body" if words[0] == "right" else words[0]
            if sample is not None:
                sample.right[part] = ""
            continue
        if sample is not None:
            yield sample
        known = dict(word.split("=") for word in words[2:])
        sample = Sample(f"{path.stem}/{words[0]}", "", words[1] == "html", known)
        part = "body"
    if sample is not None:
        yield sample


def samples_of_corpus(folder: Path, ending: str) -> Iterator[Sample]:
    """The emails of a folder with one ending."""
    for path in sorted((folder / "samples").rglob(f"*.{ending}")):
        expected = folder / "expecteds" / path.name
        if expected.exists():
            text = expected.read_text(encoding="utf-8")
            if ending == "html":
                text = "\n".join(line.text for line in lines_of_html(text))
                # A rule above what was cut.
                text = text.rstrip().removesuffix("---")
            body = path.read_text(encoding="utf-8")
            yield Sample(path.name, body, ending == "html", {"cleaned_body": text})


def wrong_parts(sample: Sample) -> dict[str, tuple[str, str]]:
    """What came of it and is not right: by part, what it is and what it should be."""
    read = sample.read()
    found = {"cleaned_body": read.cleaned_body, **read.as_data()}
    return {
        part: (str(found[part]), right)
        for part, right in sample.right.items()
        if _folded(str(found[part])) != _folded(right)
    }


def _folded(text: str) -> str:
    return " ".join(text.split())


def _measure(name: str, samples: list[Sample], *, is_told: bool) -> int:
    started = time.process_time()
    wrong = {sample.name: parts for sample in samples if (parts := wrong_parts(sample))}
    seconds = time.process_time() - started
    print(f"{name:<14} {len(samples) - len(wrong):>4} of {len(samples):>4} right, {seconds:.2f} s")
    for name, parts in wrong.items() if is_told else ():
        for part, (found, right) in parts.items():
            print(f"  {name} {part}\n    is    {found!r}\n    right {right!r}")
    return len(wrong)


def main() -> None:
    """Print how many are right; the status is 1 if one of the project's own is not."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks replies",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--corpus", type=Path, help="folder with samples and expecteds")
    parser.add_argument("--wrong", action="store_true", help="show what is not right")
    arguments = parser.parse_args()
    wrong = _measure("own", list(own_samples()), is_told=arguments.wrong)
    if arguments.corpus:
        for ending in ("txt", "html"):
            samples = list(samples_of_corpus(arguments.corpus, ending))
            _measure(f"corpus, {ending}", samples, is_told=arguments.wrong)
    sys.exit(1 if wrong else 0)
