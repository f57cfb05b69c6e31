"""`python -m benchmarks NAME`: one of the measurements, each with options of its own."""

import importlib
import sys

BENCHMARKS = {
    "intake": "how fast the webhook route takes email",
    "replies": "how many emails are read right",
}


def main() -> None:
    """Run the measurement that is named."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    if name not in BENCHMARKS:
        print("usage: python -m benchmarks NAME [--help]\n")
        for known, about in BENCHMARKS.items():
            print(f"  {known:<10} {about}")
        sys.exit(0 if name in ("-h", "--help") else 2)
    del sys.argv[1]
    importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
