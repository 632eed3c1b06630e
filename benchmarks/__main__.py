"""``make bench``: every benchmark, one after the other."""

from __future__ import annotations

import importlib
import sys

NAMES = (
    "tick",
    "serving",
    "run",
    "landing",
    "burst",
    "images",
    "data",
    "training",
    "experiment",
    "log",
    "aws_log",
    "policies",
    "gateway",
    "assignment",
    "consumer",
    "registry_aws",
    "aws_intake",
    "aws_pass",
)


def main() -> None:
    """Run the named benchmarks, or all."""
    for name in [name for name in sys.argv[1:] if not name.startswith("--")] or NAMES:
        print(f"== {name}", flush=True)
        importlib.import_module(f"benchmarks.{name}").main()


if __name__ == "__main__":
    main()
