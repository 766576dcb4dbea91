"""A storm under way, in a terminal and where there is none."""

import io
import os

import pytest
from rich.console import Console

from flashsale.cli.terminal import LiveProgress
from flashsale.model import Ending, Outcome
from flashsale.storm.attack.attack import Progress


def progress(elapsed_s: float, settled: int) -> Progress:
    return Progress(elapsed_s, 2000, settled, 300, {Outcome.SOLD: 100, Outcome.SOLD_OUT: 900})


def test_progress_is_plain_lines_where_there_is_no_terminal() -> None:
    file = io.StringIO()
    with LiveProgress(Console(file=file, width=120)) as show:
        show(progress(0.5, 1000))
        show(progress(0.6, 1200))  # too soon after the first
    (line,) = file.getvalue().splitlines()
    words = "storm 0.5 s 1,000 of 2,000 in flight 300 2,000/s sold 100 sold_out 900"
    assert " ".join(line.split()) == words


def test_progress_renews_itself_in_a_terminal_and_leaves_nothing_behind() -> None:
    file = io.StringIO()
    with LiveProgress(Console(file=file, width=120, force_terminal=True)) as show:
        show(progress(0.5, 1000))
    assert "in flight 300" in file.getvalue()
    assert file.getvalue().endswith("\r\x1b[1A\x1b[2K\x1b[1A\x1b[2K")  # both lines are erased


def test_progress_that_costs_much_comes_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    file, clock = io.StringIO(), [0.0]
    console = Console(file=file, width=120)
    monkeypatch.setattr("flashsale.cli.terminal.time.monotonic", lambda: clock[0])

    def print_slowly(_: object, **__: object) -> None:
        clock[0] += 0.05
        file.write("shown\n")

    monkeypatch.setattr(console, "print", print_slowly)
    with LiveProgress(console) as show:
        for tenth in range(1000):
            clock[0] = max(clock[0], tenth / 10)
            show(progress(clock[0], tenth))
    assert file.getvalue().count("shown") == 20  # 0.05 s each, a hundredth of 100 s


def test_who_does_not_read_holds_up_no_storm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe that is full, such as that of a program which waits for the end."""
    clock, (out, into) = [0.0], os.pipe()
    monkeypatch.setattr("flashsale.cli.terminal.time.monotonic", lambda: clock[0])
    os.set_blocking(into, False)  # else what waits would wait for ever
    with os.fdopen(out, "rb") as reader, os.fdopen(into, "w") as file:
        with LiveProgress(Console(file=file, width=120)) as show:
            for second in range(3_000):
                clock[0] = float(second)
                show(progress(second, second))
            held = reader.read1(1_000_000)
            assert b"1 of 2,000" in held
            assert b"1,999 of 2,000" not in held
            clock[0] += 2
            show(progress(4_000, 1_999))
        assert b"1,999 of 2,000" in reader.read1(1_000_000)


def test_quiet_progress_is_silent() -> None:
    file = io.StringIO()
    with LiveProgress(Console(file=file, force_terminal=True), quiet=True) as show:
        show(progress(0.5, 1000))
    assert file.getvalue() == ""


class Closed(io.StringIO):
    """A pipe whose reader has gone."""

    def write(self, _: str) -> int:
        raise BrokenPipeError


def test_a_storm_outlives_whoever_watched_it(monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=Closed(), width=120)

    def as_rich_does() -> None:
        raise SystemExit(1)

    monkeypatch.setattr(console, "on_broken_pipe", as_rich_does)
    with LiveProgress(console) as show:
        show(progress(0.5, 1000))
        show(progress(5.0, 1200))


MANY: dict[Ending, int] = {
    Outcome.SOLD: 30_000,
    Outcome.SOLD_OUT: 1_000_000,
    Outcome.DUPLICATE: 10_000,
    Outcome.SHED: 77,
    Outcome.INDETERMINATE: 5,
}


def drawn(
    width: int, outcomes: dict[Ending, int] = MANY, units: int | None = 30_000, **terminal: object
) -> list[str]:
    """The last view in a terminal of that width, as it would stand there, without its codes."""
    file = io.StringIO()
    settings = {"force_terminal": True, "color_system": None, **terminal}
    console = Console(file=file, width=width, legacy_windows=False, **settings)  # type: ignore[arg-type]
    live = LiveProgress(console, units=units)
    with console.capture() as caught:
        console.print(live._view(Progress(12.3, 2_000_000, 1_040_082, 2_000, outcomes), 98_765.4))
    return [line.rstrip() for line in caught.get().splitlines()]


@pytest.mark.parametrize("width", [60, 80, 120])
def test_the_view_fits_the_terminal_and_tells_what_matters(width: int) -> None:
    first, second = drawn(width)
    assert len(first) <= width
    assert len(second) <= width
    for fact in ("12.3 s", "52%", "98,765/s", "in flight 2,000", "stock 0"):
        assert fact in first
    assert ("━" in first) is (width >= 80)
    assert second.split("  ")[5].strip() == "sold 30,000"
    assert "shed 77" in second, "trouble comes before what was to be expected"


def test_the_stock_is_what_the_answers_leave() -> None:
    assert "stock 29,990" in drawn(80, {Outcome.SOLD: 10})[0]
    assert "OVERSOLD" in drawn(80, {Outcome.SOLD: 30_001})[0]
    assert "stock" not in drawn(80, units=None)[0]


def test_plain_lines_are_whole_and_without_codes() -> None:
    file = io.StringIO()
    with LiveProgress(Console(file=file, width=40), units=100) as show:
        show(progress(0.5, 1000))
    line = "storm 0.5 s 1,000 of 2,000 in flight 300 2,000/s stock 0 sold 100 sold_out 900"
    assert " ".join(file.getvalue().split()) == line
    assert file.getvalue().count("\n") == 1
    assert "\x1b" not in file.getvalue()


def test_a_dumb_terminal_gets_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    file = io.StringIO()
    with LiveProgress(Console(file=file, force_terminal=True, color_system=None)) as show:
        show(progress(0.5, 1000))
    assert file.getvalue().startswith("storm")
    assert "\x1b" not in file.getvalue()
