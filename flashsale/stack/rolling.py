"""Logs of bounded size: children append to one file, and it is rolled under them."""

import shutil
from pathlib import Path


def roll(log: Path, bytes_max: int, files_max: int) -> bool:
    """Where `log` is longer than `bytes_max`, move its text to `log.1`, and older ones up.

    The child keeps its open file, so the text is copied and the file cut: a line written between
    the two is lost, which is the price of not standing between a server and its log.
    """
    try:
        if log.stat().st_size <= bytes_max:
            return False
    except FileNotFoundError:
        return False
    for number in range(files_max - 1, 0, -1):
        older = _numbered(log, number)
        if older.exists():
            older.replace(_numbered(log, number + 1))
    shutil.copyfile(log, _numbered(log, 1))
    with log.open("r+b") as file:
        file.truncate(0)
    return True


def _numbered(log: Path, number: int) -> Path:
    return log.with_name(f"{log.name}.{number}")
