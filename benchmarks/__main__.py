"""`python -m benchmarks [NAME …] [--runs N]`: print figures beside their limits and peers."""

import argparse
import importlib

from rich.console import Console

NAMES = (
    "peers",
    "whole",
    "generator",
    "shop_file",
    "worker",
    "cached_read",
    "open_claims",
    "dear_reads",
    "cached_http",
    "hot_stale",
    "bloom",
    "metrics",
    "failpoints",
    "durability",
    "cluster",
    "seed_million",
    "verify_million",
)


def main() -> None:
    """Run the benchmarks named, or all; exits 0 whether or not limits hold: figures, no test."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--runs", type=int, default=5, help="how often each is run (default 5)")
    given = parser.parse_args()
    unknown = set(given.names) - set(NAMES)
    if unknown:
        parser.error(
            f"no such benchmark: {', '.join(sorted(unknown))}; expected {', '.join(NAMES)}"
        )
    console = Console()
    for name in given.names or NAMES:
        importlib.import_module(f"benchmarks.{name}").measure(given.runs).print(console)


if __name__ == "__main__":
    main()
