"""Which files of the package run while something is done, beside those that a trip names."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import flashsale
from tools.house import GROUND, trips

_PACKAGE = str(Path(flashsale.__file__).parent) + "/"


@contextmanager
def passed() -> Iterator[set[str]]:
    """The files, from the package's folder on, whose code is called in the block by any thread."""
    files: set[str] = set()

    def look(frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(_PACKAGE):
            files.add(frame.f_code.co_filename.removeprefix(_PACKAGE))

    before = sys.getprofile()
    threading.setprofile(look)
    sys.setprofile(look)
    try:
        yield files
    finally:
        sys.setprofile(before)
        threading.setprofile(None)  # type: ignore[arg-type]  # takes it; its stub does not say so


def unnamed(name: str, files: set[str]) -> set[str]:
    """Of the files passed, those that the trip of this name leaves out, but for the ground."""
    (named,) = (
        each for trip, each in trips(Path(_PACKAGE).parent).items() if trip.startswith(name)
    )
    return {each for each in files if each.removesuffix(".py") not in GROUND} - set(named)
