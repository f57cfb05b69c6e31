"""`python -m benchmarks`: all measurements, and the document of them; or one of them alone."""

import argparse
import importlib
import os
import signal
import sys
import tempfile
from pathlib import Path
from types import ModuleType

# Each of these has `add_arguments`, `run` and `show`.
PARTS = {
    "intake": "how fast the webhook route takes email",
    "jobs": "how fast accepted emails are worked off",
    "growth": "whether it stays fast, with many emails and with a transaction left open",
}
OTHERS = {
    "replies": "how many emails are read right",
    "retention": "whether old emails are removed beside the traffic, and their room used again",
    "search": "how long searches take in an archive of five million emails",
    "files": "how fast files of emails are kept, and whether memory stays flat",
    "memory": "whether web process and worker grow with the emails they have taken",
}
RESULTS = Path(".benchmarks")


def leave_own_settings() -> None:
    """Measure what is the default, whatever is set here, and leave no secrets behind."""
    for name in [*os.environ]:
        if name.startswith("MAILROOM_") or name in ("DATABASE_URL", "BROKER_URL", "PICCOLO_CONF"):
            del os.environ[name]
    os.environ["MAILROOM_HOME"] = tempfile.gettempdir()
    os.environ["MAILROOM_WEBHOOK_SECRETS"] = "a secret of the benchmarks alone"
    os.environ["MAILROOM_API_TOKEN"] = "token-of-the-benchmarks-alone"


def run_part(name: str, arguments: list[str]) -> None:
    """Measure one part, print it and keep it."""
    module: ModuleType = importlib.import_module(f"benchmarks.{name}")
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks {name}",
        description=module.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    length = parser.add_mutually_exclusive_group()
    for option, about in (
        ("quick", "a few minutes; the spread is wide"),
        ("tiny", "seconds: shows that it runs, and no more"),
    ):
        length.add_argument(
            f"--{option}", dest="length", action="store_const", const=option, help=about
        )
    parser.set_defaults(length="full")
    parser.add_argument(
        "--results", type=Path, default=RESULTS, help="folder in which the figures are kept"
    )
    module.add_arguments(parser)
    parsed = parser.parse_args(arguments)
    results = module.run(parsed)
    module.show(results)
    print(f"\nkept as {results.save(parsed.results)}")


def write_document(results: Path) -> None:
    """Write the document of what was last measured."""
    document = importlib.import_module("benchmarks.document")
    for path in document.write(results):
        print(f"written: {path}")


def main() -> None:
    """Run the measurement that is named; all of them, and the document, if none is."""
    # Who ends it must not leave its servers behind.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    name = next((word for word in sys.argv[1:] if not word.startswith("-")), "")
    options = [word for word in sys.argv[1:] if word != name]
    if name in PARTS:
        leave_own_settings()
        run_part(name, sys.argv[2:])
    elif name in OTHERS:
        del sys.argv[1]
        importlib.import_module(f"benchmarks.{name}").main()
    elif name == "document" and not options:
        leave_own_settings()
        write_document(RESULTS)
    elif not name and set(options) <= {"--quick", "--tiny", "--full"}:
        leave_own_settings()
        for part in PARTS:
            run_part(part, [word for word in options if word != "--full" or part == "growth"])
        write_document(RESULTS)
    else:
        print("usage: python -m benchmarks [--quick] [--full]   all parts, and docs/benchmarks.md")
        print("       python -m benchmarks NAME [--help]        one of them alone\n")
        for known, about in {**PARTS, **OTHERS, "document": "what was last measured"}.items():
            print(f"  {known:<10} {about}")
        sys.exit(0 if options in (["-h"], ["--help"]) else 2)


if __name__ == "__main__":
    main()
