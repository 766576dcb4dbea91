"""The command line as a user runs it, in a process of its own and without this one's settings."""

import os
import subprocess
import sys
from pathlib import Path


def run_flashsale(
    folder: Path, *arguments: str, **environment: str
) -> "subprocess.CompletedProcess[str]":
    """`flashsale ARGUMENTS` in `folder`, to its end: without colours, 120 columns wide."""
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FLASHSALE_", "GITHUB_"))
    }
    return subprocess.run(
        [sys.executable, "-m", "flashsale", *arguments],
        cwd=folder,
        env={**own, "COLUMNS": "120", "NO_COLOR": "1", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
