"""A verdict as it looks in the terminal."""

from rich.text import Text

from flashsale.model import Verdict

_COLOURS = {
    Verdict.PASS: "green",
    Verdict.FAIL: "red",
    Verdict.INVALID: "yellow",
    Verdict.UNKNOWN: "yellow",
}


def styled(verdict: Verdict) -> Text:
    """In capitals and its colour."""
    return Text(verdict.upper(), style=f"bold {_COLOURS[verdict]}")
