"""The judgement on a terminal and in a pipe."""

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console
from rig.sale_world import World

from flashsale.cli.run import show
from flashsale.errors import ExitCode
from flashsale.model import Outcome, Verdict
from flashsale.verify.verdict import judge, unjudged


def shown(world: World, *, terminal: bool) -> str:
    judgement = judge(world.snapshot())
    console = Console(file=StringIO(), force_terminal=terminal, width=100, color_system=None)
    show(judgement, console, judgement.verdict, judgement.exit_code)
    output = console.file
    assert isinstance(output, StringIO)
    return output.getvalue()


@pytest.fixture
def world() -> World:
    """Thirty orders and a claim without an answer."""
    world = World(units=40)
    for user in range(1, 31):
        world.buy(user, 1000 + user)
    world.say(31, Outcome.INDETERMINATE)
    return world


def test_in_a_pipe_every_line_is_plain(world: World) -> None:
    world.rows.clear()
    lines = shown(world, terminal=False).splitlines()
    assert "pass    no_oversell         no more orders than units" in lines
    assert "fail    accepted_persisted  promised, but no row (30)" in lines
    assert "        order 1001, user 1, voucher 1: no row" in lines
    assert "        and 10 more" in lines
    assert lines[-1] == "verdict fail (exit 3)"


def test_on_a_terminal_it_is_a_table(world: World) -> None:
    world.rows.pop()
    output = shown(world, terminal=True)
    assert "─" in output
    assert "order 1030, user 30, voucher 1: no row" in output
    assert "verdict fail (exit 3)" in output


def test_figures_stand_below(world: World) -> None:
    lines = shown(world, terminal=False).splitlines()
    assert lines[-3:] == [
        "orders 30 accepted, 1 claims without an answer, 30 rows, the last row 0.050 s later",
        "acceptance to row, ms: p50 50, p90 50, max 50 (MySQL's clock +2.0 ± 1.0 ms)",
        "verdict pass (exit 0)",
    ]


def test_a_run_that_falls_short_in_itself_is_told_apart(world: World) -> None:
    console = Console(file=StringIO(), width=100)
    show(judge(world.snapshot()), console, Verdict.INVALID, ExitCode.INVALID_RUN)
    assert isinstance(console.file, StringIO)
    assert console.file.getvalue().endswith(
        "verdict invalid: the sale's rules hold, the run itself falls short (exit 6)\n"
    )


def test_why_nothing_was_judged_is_told() -> None:
    console = Console(file=StringIO(), width=200)
    judgement = unjudged("another data set")
    show(judgement, console, judgement.verdict, judgement.exit_code)
    assert isinstance(console.file, StringIO)
    lines = console.file.getvalue().splitlines()
    assert lines[-1] == "verdict unknown: another data set (exit 8)"
    assert len(lines) == 14


@pytest.mark.parametrize("terminal", [True, False])
def test_what_a_cut_record_lacks_is_told_before_the_verdict(world: World, terminal: bool) -> None:
    judgement = judge(replace(world.snapshot(), shortfall="3 claims have no result", unrecorded=3))
    console = Console(file=StringIO(), force_terminal=terminal, width=100, color_system=None)
    show(judgement, console, judgement.verdict, judgement.exit_code)
    assert isinstance(console.file, StringIO)
    *_, short, verdict = console.file.getvalue().splitlines()
    assert short.strip() == "3 claims have no result"
    assert verdict.strip() == "verdict unknown: could not judge accepted_persisted (exit 8)"
