"""`python -m benchmarks [NAME …] [--runs N]`: print figures beside their limits and peers."""

import argparse
import importlib
from pathlib import Path

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
    "scale",
    "seed_million",
    "verify_million",
)
IN_TURN = "in_turn"
"""Wants another commit's folder beside it, so that it is none of all."""


def main() -> None:
    """Run the benchmarks named, or all; exits 0 whether or not limits hold: figures, no test."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(NAMES)}")
    parser.add_argument("--runs", type=int, default=5, help="how often each is run (default 5)")
    parser.add_argument(
        "--before", type=Path, help=f"for {IN_TURN}: the folder of another commit, installed"
    )
    given = parser.parse_args()
    known = (*NAMES, IN_TURN)
    if unknown := set(given.names) - set(known):
        parser.error(
            f"no such benchmark: {', '.join(sorted(unknown))}; expected {', '.join(known)}"
        )
    if IN_TURN in given.names and not (given.before and (given.before / ".venv").is_dir()):
        parser.error(
            f"{IN_TURN} wants --before FOLDER: another commit (`git worktree add FOLDER COMMIT`), "
            "installed (`make -C FOLDER .venv/.installed`)"
        )
    console = Console()
    for name in given.names or NAMES:
        measure = importlib.import_module(f"benchmarks.{name}").measure
        more = (given.before,) if name == IN_TURN else ()
        measure(given.runs, *more).print(console)


if __name__ == "__main__":
    main()
